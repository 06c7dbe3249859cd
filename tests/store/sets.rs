//! Chunk sets: what is stored is never bought again, and what is dead goes.

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::ports::{Completion, Store};

use super::*;
use crate::harness::eventually;

const TEXTS: [&str; 4] = ["one", "two", "three", "four"];

#[tokio::test]
async fn a_set_is_resumed_with_the_rows_that_are_stored() {
    let database = database().await;
    database.import(&[call(1, &TEXTS)]).await;
    let first = Attempt::begin(&database, claim_one(&database).await, &TEXTS).await.unwrap();
    assert_eq!((first.set.current, first.set.stored.len()), (false, 0));
    let all = rows(&TEXTS);
    first.insert(&database, &[all[2].clone(), all[0].clone()]).await.unwrap();
    let next = take_over(&database, &first.task).await;
    let second = Attempt::begin(&database, next, &TEXTS).await.unwrap();
    assert_eq!((second.set.id, second.set.stored.clone()), (first.set.id, vec![0, 2]));
    assert_eq!(second.set.reusable, [] as [u32; 0], "its own rows need no copy");
    // Rows that are there are left alone.
    let other = |index: usize| ChunkRow { embedding: Some(vec![9.0; 3]), ..all[index].clone() };
    second.insert(&database, &[other(0), other(1), other(2), other(3)]).await.unwrap();
    let vectors = "select string_agg((embedding = '[9,9,9]')::text, ' ' order by chunk_index) from transcript_chunks";
    assert_eq!(text(&database, vectors).await, "false true false true");
    assert_eq!(second.complete(&database).await, Ok(Completion::Completed));
}

#[tokio::test]
async fn rows_are_stored_as_they_are_given() {
    let database = database().await;
    import_and_embed(&database, 1, &TEXTS).await;
    let expected = row(1, "two");
    let vector = expected.embedding.unwrap();
    let query = "select concat_ws('|', chunk_index, chunk_text, array_length(speakers, 1), speakers[1], speakers[2],
            timestamp_start, timestamp_end, call_title, call_date at time zone 'UTC', embedding, embedding_model)
        from searchable_chunks where chunk_index = 1";
    assert_eq!(
        text(&database, query).await,
        format!(
            "1|two|2|Ann|Bob \"B\" \\ {{x,y}}|00:01:00|00:01:30|Call 1|2024-05-01 10:00:00|[{},{},{}]|test-model",
            vector[0], vector[1], vector[2]
        )
    );
    let hash = "select encode(content_hash, 'hex') from transcript_chunks where chunk_index = 1";
    let hex: String = expected.content_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text(&database, hash).await, hex);
    let found =
        "select count(*) from searchable_chunks where search_text @@ to_tsquery('english', 'four')";
    assert_eq!(number(&database, found).await, 1);
}

#[tokio::test]
async fn chunks_whose_text_did_not_change_are_copied_with_new_times_and_not_bought() {
    let database = database().await;
    import_and_embed(&database, 1, &TEXTS).await;
    let edited = ["zero", "one", "two", "new", "four"];
    database.import(&[call(1, &edited)]).await;
    let attempt = Attempt::begin(&database, claim_one(&database).await, &edited).await.unwrap();
    assert_eq!(attempt.set.reusable, [1, 2, 4]);
    let mut given = rows(&edited);
    for index in attempt.set.reusable.iter().map(|index| *index as usize) {
        given[index].embedding = None;
    }
    attempt.insert(&database, &given).await.unwrap();
    assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
    assert_eq!(searchable(&database, 1).await, edited);
    for expected in rows(&edited) {
        let vector = expected.embedding.unwrap();
        let same = format!(
            "select count(*) from searchable_chunks where chunk_index = {0} and embedding = '[{1},{2},{3}]'
               and timestamp_start = '00:0{0}:00' and timestamp_end = '00:0{0}:30'",
            expected.index, vector[0], vector[1], vector[2]
        );
        assert_eq!(number(&database, &same).await, 1, "chunk {}", expected.index);
    }
}

#[tokio::test]
async fn nothing_is_copied_from_another_recording_another_user_or_a_dead_set() {
    let database = database().await;
    import_and_embed(&database, 1, &TEXTS).await;
    import_and_embed(&database, 1, &["other"]).await;
    database.import(&[call(2, &TEXTS)]).await;
    let another = Attempt::begin(&database, claim_one(&database).await, &TEXTS).await.unwrap();
    assert_eq!(another.set.reusable, [] as [u32; 0]);
    let without_vector = ChunkRow { embedding: None, ..row(0, "one") };
    let refused = another.insert(&database, &[without_vector]).await.unwrap_err();
    assert!(matches!(refused, Failure::DatabaseRefuses { .. }), "{refused}");
    database.import(&[call(1, &TEXTS)]).await;
    let back = Attempt::begin(&database, claim_one(&database).await, &TEXTS).await.unwrap();
    assert_eq!(back.set.reusable, [] as [u32; 0], "the dead set is not a source");
}

#[tokio::test]
async fn rows_under_way_of_a_building_set_are_reused_by_the_next_version() {
    let database = database().await;
    database.import(&[call(1, &TEXTS)]).await;
    let first = Attempt::begin(&database, claim_one(&database).await, &TEXTS).await.unwrap();
    first.insert(&database, &rows(&TEXTS)[..2]).await.unwrap();
    let edited = ["one", "two", "three", "five"];
    database.import(&[call(1, &edited)]).await;
    assert_eq!(first.complete(&database).await, Ok(Completion::Superseded));
    let second = Attempt::begin(&database, claim_one(&database).await, &edited).await.unwrap();
    assert_ne!(second.set.id, first.set.id);
    assert_eq!(second.set.reusable, [0, 1]);
}

#[tokio::test]
async fn an_unchanged_recording_has_its_current_set_and_nothing_to_embed() {
    let database = database().await;
    let first = import_and_embed(&database, 1, &TEXTS).await;
    database.execute("update fathom_transcripts set text = text || ' ' where id = 1").await;
    let attempt = Attempt::begin(&database, claim_one(&database).await, &TEXTS).await.unwrap();
    assert!(attempt.set.current && attempt.set.id == first.set.id);
    assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
    let fits = "select count(*) from chunk_sets where state = 'current'
        and source_digest = recording_digest(user_id, recording_id)";
    assert_eq!(number(&database, fits).await, 1, "the set is of the new transcript by now");
    assert_eq!(database.store.reconcile(&model(), 10).await, Ok(0));
}

#[tokio::test]
async fn a_recording_without_text_completes_with_an_empty_set() {
    let database = database().await;
    import_and_embed(&database, 1, &TEXTS).await;
    database.execute("update fathom_transcripts set is_deleted = true").await;
    let attempt = Attempt::begin(&database, claim_one(&database).await, &[]).await.unwrap();
    assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
    assert_eq!(searchable(&database, 1).await, [] as [&str; 0]);
    assert_eq!(database.store.reconcile(&model(), 10).await, Ok(0), "it is not missing");
    assert_sound(&database).await;
}

#[tokio::test]
async fn dead_chunks_are_deleted_in_batches_and_their_sets_last() {
    let database = database().await;
    import_and_embed(&database, 1, &TEXTS).await;
    assert_eq!(database.store.delete_dead_chunks(3).await, Ok(0));
    let current = import_and_embed(&database, 1, &["other"]).await;
    let dead = "select count(*) from chunk_sets where state = 'dead'";
    assert_eq!(database.store.delete_dead_chunks(3).await, Ok(3));
    assert_eq!(number(&database, dead).await, 1);
    assert_eq!(database.store.delete_dead_chunks(3).await, Ok(1));
    assert_eq!(number(&database, dead).await, 0);
    assert_eq!(database.store.delete_dead_chunks(3).await, Ok(0));
    assert_eq!(searchable(&database, 1).await, ["other"]);
    assert_eq!(
        text(&database, "select id::text from chunk_sets").await,
        current.set.id.to_string()
    );
}

#[tokio::test]
async fn a_recording_deleted_in_between_is_told_at_every_step() {
    let database = database().await;
    let deleted = Err(Failure::RecordingDeleted);
    import_and_embed(&database, 1, &["old"]).await;
    database.import(&[call(1, &TEXTS)]).await;
    let task = claim_one(&database).await;
    let source = database.store.load(&task.key).await.unwrap();
    let attempt = Attempt::begin(&database, task.clone(), &TEXTS).await.unwrap();
    attempt.insert(&database, &rows(&TEXTS)[..2]).await.unwrap();
    database.execute("delete from fathom_transcripts; delete from fathom_calls").await;
    assert_eq!(attempt.insert(&database, &rows(&TEXTS)).await, deleted);
    assert_eq!(attempt.complete(&database).await, deleted.clone().map(|()| Completion::Completed));
    assert_eq!(database.store.load(&task.key).await.err(), deleted.clone().err());
    let opened = Attempt::open(&database, task, source, &["new"]).await;
    assert_eq!(opened.err(), deleted.err());
    assert_eq!(number(&database, "select count(*) from transcript_chunks").await, 0);
    assert_eq!(number(&database, "select count(*) from chunk_sets").await, 0);
    assert_eq!(status(&database, 1).await, "processing", "the settlement says what becomes of it");
}

/// However many recordings there are: what looks through all their sets is slower with each.
#[tokio::test]
async fn an_attempt_reads_no_sets_of_other_recordings() {
    let database = database().await;
    plain_calls(&database, "ann", 2_000).await;
    database
        .execute(&format!(
            "insert into chunk_sets (user_id, recording_id, model, fingerprint, source_digest,
                 chunks_expected, state, completed_at)
             select 'ann', n, '{MODEL}', 'print', 'digest', 1, 'current', now() from generate_series(1, 2000) n"
        ))
        .await;
    import_and_embed(&database, 1, &TEXTS).await;
    import_and_embed(&database, 1, &["other"]).await;
    while database.store.delete_dead_chunks(10).await.unwrap() > 0 {}
    // A session tells what it read when it ends.
    database.store.close().await;
    let read =
        "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables
         where relname = 'chunk_sets'";
    eventually("what was read is told", async || number(&database, read).await > 0).await;
    let read = number(&database, read).await;
    assert!(read < 200, "{read} rows of sets were read for the two of one recording");
}
