//! The tables' own checks: a state that must not be cannot be written, by whatever hand.

use super::*;

async fn refused(database: &TestDatabase, statement: &str, by: &str) {
    let error = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&database.pool)
        .await
        .expect_err(statement);
    let constraint = error.as_database_error().and_then(|e| e.constraint().map(str::to_owned));
    assert_eq!(constraint.as_deref(), Some(by), "{statement}: {error}");
}

#[tokio::test]
async fn a_task_is_in_exactly_one_legal_state() {
    let database = database().await;
    database.import(&[call(1, &["a"]), call(2, &["a"])]).await;
    let token = "lease_token = gen_random_uuid(), lease_expires_at = now()";
    for (change, by) in [
        ("status = 'done'".into(), "embedding_queue_state_check"),
        ("status = 'processing'".into(), "embedding_queue_lease_check"),
        (token.to_owned(), "embedding_queue_lease_check"),
        (
            format!("status = 'completed', completed_at = now(), {token}"),
            "embedding_queue_lease_check",
        ),
        (
            "status = 'processing', lease_token = gen_random_uuid()".into(),
            "embedding_queue_lease_check",
        ),
        ("lease_expires_at = now()".into(), "embedding_queue_lease_check"),
        ("status = 'failed'".into(), "embedding_queue_retry_check"),
        ("status = 'completed'".into(), "embedding_queue_completed_check"),
        ("status = 'dead_letter'".into(), "embedding_queue_dead_check"),
        ("dead_letter_reason = 'none'".into(), "embedding_queue_dead_check"),
        ("attempts = 5".into(), "embedding_queue_attempts_check"),
        ("attempts = -1".into(), "embedding_queue_attempts_check"),
        ("releases = -1".into(), "embedding_queue_attempts_check"),
        ("crashes_alone = 1".into(), "embedding_queue_attempts_check"),
    ] {
        let statement = format!("update embedding_queue set {change} where recording_id = 1");
        refused(&database, &statement, by).await;
    }
    assert_eq!(database.store.task_counts().await.unwrap().pending, 2);
}

#[tokio::test]
async fn a_recording_has_one_open_task_and_a_lease_one_token() {
    let database = database().await;
    database.import(&[call(1, &["a"]), call(2, &["a"])]).await;
    let second = "insert into embedding_queue (user_id, recording_id) values ('alice', 1)";
    refused(&database, second, "embedding_queue_open_key").await;
    let task = claim_one_of(&database).await;
    let same = format!(
        "update embedding_queue set status = 'processing', lease_expires_at = now(), lease_token = '{}'",
        task.lease.token
    );
    refused(&database, &same, "embedding_queue_lease_token_key").await;
    database
        .execute("update embedding_queue set status = 'completed', completed_at = now(), lease_token = null, lease_expires_at = null where recording_id = 1")
        .await;
    database.execute(second).await;
    assert_eq!(
        number(&database, "select count(*) from embedding_queue where recording_id = 1").await,
        2
    );
}

async fn claim_one_of(database: &TestDatabase) -> Task {
    claim(database, ClaimOf::Healthy(1)).await.remove(0)
}

#[tokio::test]
async fn an_attempt_ends_once_with_an_outcome() {
    let database = database().await;
    database.import(&[call(1, &["a"])]).await;
    claim_one(&database).await;
    for (change, by) in [
        ("outcome = 'completed'", "embedding_attempts_check"),
        ("ended_at = now()", "embedding_attempts_check"),
        ("outcome = 'lost', ended_at = now()", "embedding_attempts_outcome_check"),
    ] {
        refused(&database, &format!("update embedding_attempts set {change}"), by).await;
    }
}

#[tokio::test]
async fn a_recording_has_one_current_set_of_a_model_and_each_chunk_once() {
    let database = database().await;
    import_and_embed(&database, 1, &["one", "two"]).await;
    let copy = |state: &str, more: &str| {
        format!(
            "insert into chunk_sets (user_id, recording_id, model, fingerprint, source_digest, state, chunks_expected, completed_at, died_at)
             select user_id, recording_id, model, 'f', source_digest, '{state}', {more} from chunk_sets where state = 'current'"
        )
    };
    refused(&database, &copy("current", "2, now(), null"), "chunk_sets_current_key").await;
    refused(&database, &copy("current", "2, null, null"), "chunk_sets_check1").await;
    refused(&database, &copy("dead", "2, null, null"), "chunk_sets_check").await;
    refused(&database, &copy("building", "2, null, now()"), "chunk_sets_check").await;
    refused(&database, &copy("half", "2, null, null"), "chunk_sets_state_check").await;
    refused(&database, &copy("building", "-1, null, null"), "chunk_sets_chunks_expected_check")
        .await;
    database.execute(&copy("building", "2, null, null")).await;
    refused(&database, &copy("building", "2, null, null"), "chunk_sets_building_key").await;
    for (change, by) in [
        ("chunk_index = 0", "transcript_chunks_set_index_key"),
        ("chunk_index = -1 where chunk_index = 0", "transcript_chunks_set_check"),
        ("content_hash = null", "transcript_chunks_set_check"),
        ("chunk_set_id = gen_random_uuid()", "transcript_chunks_chunk_set_id_fkey"),
    ] {
        refused(&database, &format!("update transcript_chunks set {change}"), by).await;
    }
    let homeless = "insert into chunk_sets (user_id, recording_id, model, fingerprint, source_digest, chunks_expected)
        values ('alice', 99, 'test-model', 'f', 'd', 0)";
    refused(&database, homeless, "chunk_sets_user_id_recording_id_fkey").await;
    assert_eq!(searchable(&database, 1).await, ["one", "two"]);
}
