//! Adoption: tables of an earlier system are taken over where they fit, and named where not.

use embedding_recovery::ports::inspector::{DeadLetterQuery, Inspector};
use embedding_recovery::ports::operator::{Operator, RecoverMany};
use embedding_recovery::postgres::SchemaError;

use super::*;

const LEGACY: &str = "
    create extension if not exists vector;
    create table fathom_calls (
        recording_id bigint not null, user_id text not null, title text,
        created_at timestamptz not null default now(), duration_secs integer);
    create table fathom_transcripts (
        id bigserial primary key, recording_id bigint not null, user_id text not null,
        speaker_name text, text text, timestamp text);
    create table embedding_jobs (id uuid primary key);
    create table embedding_queue (
        id uuid primary key, user_id text not null, job_id uuid, recording_id bigint not null,
        status text, attempts integer, max_attempts integer default 3, last_error text,
        next_retry_at timestamptz, locked_at timestamptz, worker_id uuid, completed_at timestamptz,
        created_at timestamptz);
    create table transcript_chunks (
        id uuid primary key default gen_random_uuid(), user_id text not null, recording_id bigint not null,
        chunk_text text not null, chunk_index integer not null, embedding vector(3));
    insert into fathom_calls (recording_id, user_id, title) select n, 'alice', 'Call ' || n from generate_series(1, 7) n;
    insert into fathom_transcripts (recording_id, user_id, speaker_name, text, timestamp)
    select n, 'alice', 'Ann', 'words', '00:00:01' from generate_series(1, 7) n;
    insert into embedding_queue (id, user_id, recording_id, status, attempts, max_attempts, last_error, locked_at, worker_id, created_at)
    values (gen_random_uuid(), 'alice', 1, 'processing', 3, 3, null, now(), gen_random_uuid(), now()),
           (gen_random_uuid(), 'alice', 2, 'dead_letter', 5, 3, 'boom', null, null, now()),
           (gen_random_uuid(), 'alice', 3, 'dead_letter', 3, 3, null, null, null, null),
           (gen_random_uuid(), 'alice', 4, 'failed', 1, 3, 'once', null, null, now()),
           (gen_random_uuid(), 'alice', 5, 'completed', null, null, null, null, null, now()),
           (gen_random_uuid(), 'alice', 5, 'completed', 1, 3, null, null, null, now()),
           (gen_random_uuid(), 'alice', 6, 'pending', null, null, null, null, null, now());
    insert into transcript_chunks (user_id, recording_id, chunk_text, chunk_index, embedding)
    values ('alice', 5, 'legacy', 0, '[1,2,3]'), ('alice', 6, 'no vector yet', 0, null)";

async fn legacy(more: &str) -> TestDatabase {
    let database = TestDatabase::bare().await;
    database.execute(LEGACY).await;
    database.execute(more).await;
    database
}

/// Every column, constraint and index, and every row.
async fn dump(database: &TestDatabase) -> String {
    text(
        database,
        "select jsonb_build_array(
            (select jsonb_agg(to_jsonb(c) order by table_name, ordinal_position)
             from information_schema.columns c where table_schema = 'public'),
            (select jsonb_agg(to_jsonb(i) order by indexname) from pg_indexes i where schemaname = 'public'),
            (select jsonb_agg(conname || pg_get_constraintdef(oid) order by conname) from pg_constraint
             where connamespace = 'public'::regnamespace),
            (select jsonb_agg(proname order by proname) from pg_proc p where pronamespace = 'public'::regnamespace
             and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')),
            (select jsonb_agg(to_jsonb(q) order by id) from embedding_queue q))::text",
    )
    .await
}

async fn differences(database: &TestDatabase) -> Vec<String> {
    let before = dump(database).await;
    let refused = database.store.migrate().await.unwrap_err();
    assert_eq!(dump(database).await, before, "nothing was changed");
    match refused {
        SchemaError::Differs { differences } => differences,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn tables_that_fit_are_adopted_with_their_rows() {
    let database = legacy("").await;
    database.store.migrate().await.unwrap();
    let tasks = "select string_agg(concat_ws(' ', recording_id, status, attempts, dead_letter_reason), ', ' order by recording_id, attempts)
        from embedding_queue";
    assert_eq!(
        text(&database, tasks).await,
        "1 pending 0, 2 dead_letter 5 boom, 3 dead_letter 3 dead before this program took over, \
         4 failed 1, 5 completed 0, 5 completed 1, 6 pending 0"
    );
    // Its dead letters are due, and can be asked for by their cause.
    let due = "select count(*) from embedding_queue where status = 'dead_letter' and next_retry_at <= now()";
    assert_eq!(number(&database, due).await, 2);
    let query = DeadLetterQuery { limit: 1, ..DeadLetterQuery::default() };
    for group in database.store.dead_letters(&query).await.unwrap().groups {
        let request = RecoverMany {
            fingerprint: Some(group.fingerprint.clone()),
            force: false,
            requested_by: "ann".into(),
            trace: None,
        };
        let asked = database.store.recover_many(request).await.unwrap();
        assert_eq!(asked.requested, 1, "{}", group.fingerprint);
    }
    let calls = "select count(*) from fathom_calls where duration_secs is null";
    assert_eq!(number(&database, calls).await, 7, "its own columns stay");
    assert_eq!(number(&database, "select count(*) from searchable_chunks").await, 0);
    assert_eq!(
        number(&database, "select count(*) from transcript_chunks where chunk_set_id is null")
            .await,
        2
    );
    database
        .execute("insert into embedding_models (name, dimensions) values ('test-model', 3)")
        .await;
    // What was locked or failed goes on, and what was enqueued without a default too.
    let tasks = claim(&database, ClaimOf::Healthy(10)).await;
    assert_eq!(tasks.len(), 3, "{tasks:?}");
    for task in tasks {
        let attempt = Attempt::begin(&database, task, &["words"]).await.unwrap();
        attempt.insert(&database, &rows(&["words"])).await.unwrap();
        assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
    }
    assert_eq!(
        database.store.reconcile(&model(), 10).await,
        Ok(2),
        "5, whose chunks have no set, and 7"
    );
    let task = claim(&database, ClaimOf::Healthy(1)).await.remove(0);
    assert_eq!((task.attempts, task.max_attempts), (1, 4));
    assert_eq!(searchable(&database, 6).await, ["words"], "the legacy chunk is not seen");
    let request = embedding_recovery::postgres::JobRequest {
        selection: embedding_recovery::postgres::Selection::All,
        user_id: None,
        priority: 1,
    };
    assert_eq!(database.store.enqueue(&request).await.unwrap().tasks, 7);
}

#[tokio::test]
async fn every_difference_is_named_and_nothing_is_changed() {
    let database = legacy(
        "alter table fathom_calls alter column recording_id type integer;
         alter table fathom_transcripts drop column speaker_name;
         alter table embedding_queue alter column attempts type bigint;
         alter table embedding_queue add column tenant text not null default '';
         alter table embedding_queue alter column tenant drop default;
         alter table embedding_queue add constraint legacy_status check (status <> 'dead');
         alter table transcript_chunks alter column embedding type real[] using null;
         alter table embedding_jobs drop constraint embedding_jobs_pkey;
         create unique index legacy_key on transcript_chunks (recording_id, chunk_index)",
    )
    .await;
    let mut found = differences(&database).await;
    found.sort();
    assert_eq!(
        found,
        [
            "embedding_jobs.id is not its primary key",
            "embedding_queue has the check legacy_status, which may refuse new rows: drop it",
            "embedding_queue.attempts is bigint, not integer",
            "embedding_queue.tenant must be filled, which this program does not: give it a default",
            "fathom_calls.recording_id is integer, not bigint",
            "fathom_transcripts has no column speaker_name (text)",
            "transcript_chunks has the unique index legacy_key, which would refuse new rows: drop it",
            "transcript_chunks.embedding is ARRAY, not vector",
        ]
    );
}

#[tokio::test]
async fn a_natural_primary_key_and_a_missing_id_are_named() {
    let database = legacy(
        "alter table transcript_chunks drop column id;
         alter table transcript_chunks add primary key (recording_id, chunk_index)",
    )
    .await;
    assert_eq!(
        differences(&database).await,
        [
            "transcript_chunks has no column id (of any type)",
            "transcript_chunks has the unique index transcript_chunks_pkey, which would refuse new rows: drop it",
        ]
    );
}

#[tokio::test]
async fn rows_that_the_keys_would_refuse_are_counted() {
    let database = legacy(
        "insert into fathom_calls (recording_id, user_id) values (1, 'alice');
         update embedding_queue set recording_id = 1 where recording_id = 6;
         update embedding_queue set status = 'done' where status = 'completed'",
    )
    .await;
    assert_eq!(
        differences(&database).await,
        [
            "fathom_calls has 1 recordings without a user or more than once for one user",
            "embedding_queue has 2 recordings with more than one open task: keep one of each, delete the others",
            "embedding_queue has 2 tasks in a state that this program does not know",
        ]
    );
}
