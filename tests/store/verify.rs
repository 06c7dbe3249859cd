//! `verify`: finds each violation that is made by hand, and nothing in a healthy database.

mod contents;

use embedding_recovery::postgres::{JobRequest, Selection};

use super::reembed::{claim_next, embed_next, re_embedding};
use super::*;

const LEGAL: &str = "a task is in exactly one legal state";
const ONE_LEASE: &str = "a recording is worked on under one lease";
const ALL_THERE: &str = "a completed task's chunks are all there";
const VECTORS: &str = "each chunk has a finite vector of the model's dimension";
const JOBS: &str = "a job's counts are those of its tasks";
const HISTORY: &str = "a task's attempts are those of its history";
const JUST: &str = "an attempt is used up only by the recording's fault or a dead worker";
const UNDER_WAY: &str = "an attempt under way is a leased task's only one";
const DEAD: &str = "dead sets are deleted within the hour";

/// Two embedded recordings, and one in each other state.
async fn healthy() -> TestDatabase {
    let database = database().await;
    import_and_embed(&database, 1, &["one", "two"]).await;
    import_and_embed(&database, 2, &["old"]).await;
    import_and_embed(&database, 2, &["new"]).await;
    database.import(&[call(3, &["a"])]).await;
    bury(&database, &claim_one(&database).await).await;
    database.import(&[call(4, &["a"])]).await;
    claim_one(&database).await;
    database.import(&[call(5, &["a"])]).await;
    database
}

/// Breaks what the constraints would keep, and expects `verify` to name it.
async fn found(database: &TestDatabase, breaking: &str, invariant: &str, detail: &str) {
    database.execute(breaking).await;
    let violations = violations(database).await;
    let first = violations.first().unwrap_or_else(|| panic!("not found: {breaking}"));
    assert_eq!((first.invariant, first.detail.as_str()), (invariant, detail), "{breaking}");
    assert_eq!((first.user_id.as_str(), first.recording_id), ("alice", 1), "{breaking}");
    assert!(violations.iter().all(|v| v.recording_id == 1), "{breaking}: {violations:?}");
}

#[tokio::test]
async fn a_healthy_database_has_no_violation_and_is_counted() {
    let database = healthy().await;
    assert_sound(&database).await;
    let report = database.store.verify().await.unwrap();
    let tasks = report.tasks;
    assert_eq!((tasks.pending, tasks.processing, tasks.completed), (1, 1, 3));
    assert_eq!((tasks.failed, tasks.dead_letter), (0, 1));
    assert_eq!((report.chunks, report.recordings), (3, 2));
}

#[tokio::test]
async fn a_task_in_no_legal_state_is_found() {
    let database = healthy().await;
    for check in ["state", "lease", "retry", "completed", "dead", "attempts"] {
        let drop =
            format!("alter table embedding_queue drop constraint embedding_queue_{check}_check");
        database.execute(&drop).await;
    }
    let heal = "update embedding_queue set status = 'completed', completed_at = now(), attempts = 1,
        lease_token = null, lease_expires_at = null, dead_letter_reason = null where recording_id = 1";
    for (change, detail) in [
        ("status = 'done'", "done with 1 of 4 attempts"),
        ("status = 'processing'", "processing with 1 of 4 attempts"),
        (
            "lease_token = gen_random_uuid(), lease_expires_at = now()",
            "completed with 1 of 4 attempts",
        ),
        ("lease_expires_at = now()", "completed with 1 of 4 attempts"),
        ("status = 'failed'", "failed with 1 of 4 attempts"),
        ("completed_at = null", "completed with 1 of 4 attempts"),
        ("status = 'dead_letter'", "dead_letter with 1 of 4 attempts"),
        ("dead_letter_reason = 'why'", "completed with 1 of 4 attempts"),
        ("attempts = 5", "completed with 5 of 4 attempts"),
        ("status = 'pending', attempts = 4", "pending with 4 of 4 attempts"),
    ] {
        let breaking = format!("update embedding_queue set {change} where recording_id = 1");
        found(&database, &breaking, LEGAL, detail).await;
        database.execute(heal).await;
    }
    assert_sound(&database).await;
}

#[tokio::test]
async fn two_live_leases_on_one_recording_are_found() {
    let database = healthy().await;
    let lease = "insert into embedding_queue (user_id, recording_id, status, attempts, lease_token, lease_expires_at)
        values ('alice', 1, 'processing', 1, gen_random_uuid(), now() + interval '1 min')";
    let breaking = format!("drop index embedding_queue_open_key; {lease}; {lease}");
    found(&database, &breaking, ONE_LEASE, "2 live leases").await;
    database.execute("update embedding_queue set lease_expires_at = now() where recording_id = 1 and status = 'processing'").await;
    assert_sound(&database).await;
}

#[tokio::test]
async fn a_completed_task_without_a_set_is_found_unless_it_is_asked_for_again() {
    let database = healthy().await;
    let breaking = "delete from chunk_sets where recording_id = 1";
    found(&database, breaking, ALL_THERE, "completed without a current chunk set").await;
    database
        .execute("insert into embedding_queue (user_id, recording_id) values ('alice', 1)")
        .await;
    assert_sound(&database).await;
}

#[tokio::test]
async fn missing_extra_and_misplaced_chunks_are_found() {
    for (breaking, detail) in [
        ("delete from transcript_chunks where chunk_text = 'two'", "1 of 2 chunks fit their set"),
        (
            "update chunk_sets set chunks_expected = 1 where chunks_expected = 2",
            "1 of 1 chunks fit their set",
        ),
        (
            "update transcript_chunks set chunk_index = 7 where chunk_text = 'two'",
            "1 of 2 chunks fit their set",
        ),
        (
            "update transcript_chunks set embedding_model = 'x' where chunk_text = 'two'",
            "1 of 2 chunks fit their set",
        ),
        (
            "update transcript_chunks set user_id = 'bob' where chunk_text = 'two'",
            "1 of 2 chunks fit their set",
        ),
    ] {
        found(&healthy().await, breaking, ALL_THERE, detail).await;
    }
}

#[tokio::test]
async fn vectors_that_are_null_of_no_length_or_of_another_dimension_are_found() {
    for (breaking, detail) in [
        (
            "alter table transcript_chunks drop constraint transcript_chunks_set_check,
                 alter column embedding drop not null;
             update transcript_chunks set embedding = null where chunk_text = 'two'",
            "chunk 1 has no vector",
        ),
        (
            "update transcript_chunks set embedding = '[0,0,0]' where chunk_text = 'two'",
            "chunk 1 has a vector of no length or not finite",
        ),
        (
            "update transcript_chunks set embedding = '[1,2]' where chunk_text = 'two'",
            "chunk 1 has 2 dimensions, not 3",
        ),
    ] {
        found(&healthy().await, breaking, VECTORS, detail).await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_next_model_is_found_too() {
    let database = re_embedding(1).await;
    let tasks = claim_next(&database, 1).await;
    embed_next(&database, tasks, &["new"]).await;
    assert_sound(&database).await;
    let breaking =
        "update transcript_chunks set embedding = '[1,2]' where embedding_model = 'next-model'";
    found(&database, breaking, VECTORS, "chunk 0 has 2 dimensions, not 3").await;
    let breaking = "delete from chunk_sets where model = 'next-model'";
    found(&database, breaking, ALL_THERE, "completed without a current chunk set").await;
}

#[tokio::test]
async fn attempts_that_do_not_follow_from_their_history_are_found() {
    let database = healthy().await;
    let third = "insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, started_at, ended_at, outcome, failure_class)
        select id, user_id, recording_id, gen_random_uuid(), 3, now() + interval '1 min', now(), 'retry', 'panicked' from embedding_queue
        where recording_id = 1;
        update embedding_queue set attempts = 3 where recording_id = 1";
    for (breaking, detail) in [
        ("update embedding_queue set attempts = 2 where recording_id = 1", "2 are counted, not 1"),
        (
            "update embedding_attempts set outcome = 'superseded' where recording_id = 1",
            "1 are counted, not 0",
        ),
        (third, "2 are counted, not 1"),
    ] {
        found(&healthy().await, breaking, HISTORY, detail).await;
    }
    // A dead letter that was brought back counts anew.
    let keys = Selection::Recordings(vec![key(3)]);
    let request = JobRequest { selection: keys, user_id: None, priority: 0 };
    database.store.enqueue(&request).await.unwrap();
    assert_sound(&database).await;
    database.execute("update embedding_queue set attempts = 1 where recording_id = 3").await;
    assert_eq!(violations(&database).await[0].detail, "1 are counted, not 0");
}

#[tokio::test]
async fn attempts_used_up_by_others_faults_or_given_back_for_their_own_are_found() {
    for (breaking, detail) in [
        (
            "update embedding_attempts set outcome = 'retry', failure_class = 'rate_limited' where recording_id = 1",
            "attempt 1 ended as retry for rate_limited",
        ),
        (
            "update embedding_attempts set outcome = 'released', failure_class = 'panicked' where recording_id = 1;
             update embedding_queue set attempts = 0 where recording_id = 1",
            "attempt 1 ended as released for panicked",
        ),
    ] {
        found(&healthy().await, breaking, JUST, detail).await;
    }
}

#[tokio::test]
async fn an_attempt_that_was_left_open_is_found() {
    let breaking =
        "update embedding_attempts set outcome = null, ended_at = null where recording_id = 1";
    found(&healthy().await, breaking, UNDER_WAY, "1 attempts are open while the task is completed")
        .await;
}

#[tokio::test]
async fn a_job_that_counts_other_tasks_than_it_has_is_found() {
    let database = healthy().await;
    let keys = Selection::Recordings(vec![key(1)]);
    let request = JobRequest { selection: keys, user_id: None, priority: 0 };
    let job = database.store.enqueue(&request).await.unwrap().job_id;
    assert_sound(&database).await;
    let breaking = format!("create or replace view embedding_job_progress as
        select id as job_id, created_at, requested_by, 1::bigint as tasks, 1::bigint as completed, 0::bigint as dead_letter
        from embedding_jobs where id = '{job}'");
    let detail = format!("job {job} counts 1 tasks, 1 completed, 0 dead letters");
    found(&database, &breaking, JOBS, &detail).await;
}

#[tokio::test]
async fn a_dead_set_past_its_time_is_found_and_a_fresh_one_is_not() {
    let database = database().await;
    import_and_embed(&database, 1, &["one", "two"]).await;
    import_and_embed(&database, 1, &["edited"]).await;
    assert_sound(&database).await;
    let breaking = "update chunk_sets set died_at = now() - interval '61 min' where state = 'dead' and recording_id = 1";
    found(&database, breaking, DEAD, "a dead set still has 2 chunks").await;
}

#[tokio::test]
async fn a_long_list_is_cut() {
    let database = database().await;
    plain_calls(&database, "alice", 130).await;
    database
        .execute(
            "insert into embedding_queue (user_id, recording_id, status, completed_at)
             select user_id, recording_id, 'completed', now() from fathom_calls",
        )
        .await;
    let report = database.store.verify().await.unwrap();
    assert_eq!(report.violations.len() as i64, embedding_recovery::postgres::VIOLATIONS_MAX);
    assert_eq!(report.tasks.completed, 130);
}
