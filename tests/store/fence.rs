//! The fence: what a worker writes that no longer holds its lease changes nothing.

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::task::{Settlement, Task};
use embedding_recovery::ports::{ClaimOf, Store};
use sqlx::Connection;

use super::*;
use crate::harness::within_deadline;

const TEXTS: [&str; 2] = ["one", "two"];

async fn open_attempt(database: &TestDatabase) -> Attempt {
    database.import(&[call(1, &TEXTS)]).await;
    let task = claim_one(database).await;
    Attempt::begin(database, task, &TEXTS).await.unwrap()
}

#[tokio::test]
async fn nothing_is_written_under_a_lease_that_another_worker_took() {
    let database = database().await;
    let stale = open_attempt(&database).await;
    stale.insert(&database, &rows(&TEXTS)[..1]).await.unwrap();
    let fresh_task = take_over(&database, &stale.task).await;
    let fresh = Attempt::begin(&database, fresh_task, &TEXTS).await.unwrap();
    let before = everything(&database).await;
    assert_eq!(stale.insert(&database, &rows(&TEXTS)).await, Err(Failure::LeaseLost));
    assert_eq!(stale.complete(&database).await, Err(Failure::LeaseLost));
    let reopened = Attempt::begin(&database, stale.task.clone(), &["other"]).await;
    assert_eq!(reopened.err(), Some(Failure::LeaseLost));
    let again = Attempt::begin(&database, stale.task.clone(), &TEXTS).await;
    assert_eq!(again.err(), Some(Failure::LeaseLost));
    assert_eq!(everything(&database).await, before);
    // The new holder resumes what the old one had stored.
    assert_eq!((fresh.set.id, fresh.set.stored.clone()), (stale.set.id, vec![0]));
    fresh.insert(&database, &rows(&TEXTS)).await.unwrap();
    assert_eq!(fresh.complete(&database).await, Ok(Completion::Completed));
    assert_eq!(searchable(&database, 1).await, TEXTS);
}

#[tokio::test]
async fn nothing_is_written_after_the_task_was_settled() {
    let database = database().await;
    let attempt = open_attempt(&database).await;
    let release = Settlement::Release { counted: false };
    assert!(
        database.store.settle(&attempt.task.lease, &Failure::Shutdown, &release).await.unwrap()
    );
    let before = everything(&database).await;
    assert_eq!(attempt.insert(&database, &rows(&TEXTS)).await, Err(Failure::LeaseLost));
    assert_eq!(attempt.complete(&database).await, Err(Failure::LeaseLost));
    assert_eq!(everything(&database).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_an_insert_under_way_and_a_heartbeat_does_not() {
    let database = database().await;
    let attempt = open_attempt(&database).await;
    // Another session holds the row's place in the unique index: the insert waits inside itself.
    let mut holder = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    sqlx::query(
        "insert into transcript_chunks (chunk_set_id, user_id, recording_id, embedding_model,
             chunk_index, chunk_text, content_hash, embedding)
         values ($1, 'alice', 1, 'test-model', 0, 'x', '', '[1,2,3]')",
    )
    .bind(attempt.set.id)
    .execute(&mut *held)
    .await
    .unwrap();
    let (store, destination) = (database.store.clone(), attempt.destination.clone());
    let inserting =
        tokio::spawn(async move { store.insert_chunks(&destination, &rows(&TEXTS)).await });
    wait_for_blocked(&database, 1).await;
    let lease = attempt.task.lease;
    let tokens = [lease.token];
    let renewed = database.store.renew(&tokens, LEASE);
    assert_eq!(within_deadline("a heartbeat", renewed).await, Ok(vec![lease.token]));
    let store = database.store.clone();
    let taking = tokio::spawn(async move {
        let release = Settlement::Release { counted: false };
        store.settle(&lease, &Failure::Shutdown, &release).await
    });
    wait_for_blocked(&database, 2).await;
    assert!(!taking.is_finished() && !inserting.is_finished());
    held.rollback().await.unwrap();
    assert_eq!(within_deadline("the insert", inserting).await.unwrap(), Ok(()));
    assert_eq!(within_deadline("the takeover", taking).await.unwrap(), Ok(true));
    assert_eq!(number(&database, "select count(*) from transcript_chunks").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_that_waited_for_a_takeover_writes_nothing() {
    let database = database().await;
    let attempt = open_attempt(&database).await;
    let mut taker = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let mut taking = taker.begin().await.unwrap();
    sqlx::query("update embedding_queue set lease_token = gen_random_uuid()")
        .execute(&mut *taking)
        .await
        .unwrap();
    let (store, destination) = (database.store.clone(), attempt.destination.clone());
    let inserting =
        tokio::spawn(async move { store.insert_chunks(&destination, &rows(&TEXTS)).await });
    let (store, lease, set) = (database.store.clone(), attempt.task.lease, attempt.set.id);
    let completing =
        tokio::spawn(async move { store.complete(&lease, set, Work::default()).await });
    wait_for_blocked(&database, 2).await;
    taking.commit().await.unwrap();
    let inserted = within_deadline("the insert", inserting).await.unwrap();
    assert_eq!(inserted, Err(Failure::LeaseLost));
    let completed = within_deadline("the completion", completing).await.unwrap();
    assert_eq!(completed, Err(Failure::LeaseLost));
    assert_eq!(number(&database, "select count(*) from transcript_chunks").await, 0);
}

#[tokio::test]
async fn an_expired_lease_that_nobody_took_can_be_renewed_and_a_taken_one_cannot() {
    let database = database().await;
    let attempt = open_attempt(&database).await;
    let token = attempt.task.lease.token;
    expire(&database, &attempt.task).await;
    assert_eq!(database.store.expired(10).await.unwrap().len(), 1);
    assert_eq!(database.store.renew(&[token], LEASE).await, Ok(vec![token]));
    assert_eq!(database.store.expired(10).await.unwrap(), []);
    attempt.insert(&database, &rows(&TEXTS)).await.unwrap();
    let fresh = take_over(&database, &attempt.task).await;
    let before = everything(&database).await;
    assert_eq!(database.store.renew(&[token], LEASE).await, Ok(vec![]));
    assert_eq!(everything(&database).await, before);
    let both = database.store.renew(&[token, fresh.lease.token], LEASE).await;
    assert_eq!(both, Ok(vec![fresh.lease.token]));
}

#[tokio::test]
async fn expired_lists_the_oldest_leases_first_with_their_attempts() {
    let database = database().await;
    database.import(&[call(1, &["a"]), call(2, &["a"]), call(3, &["a"])]).await;
    let tasks = claim(&database, ClaimOf::Healthy(3)).await;
    assert_eq!(database.store.expired(10).await.unwrap(), []);
    database
        .execute("update embedding_queue set lease_expires_at = now() - recording_id * interval '1 s' where recording_id > 1")
        .await;
    let expired = database.store.expired(10).await.unwrap();
    assert_eq!(expired.iter().map(|t| t.key.recording_id).collect::<Vec<_>>(), [3, 2]);
    for task in &expired {
        let claimed = tasks.iter().find(|claimed| claimed.lease == task.lease).unwrap();
        // How long it waited, and for whom, is told to those who begin it.
        let Task { origins, waited, .. } = task.clone();
        assert_eq!(*task, Task { origins, waited, ..claimed.clone() }, "as it was claimed");
    }
    assert_eq!(database.store.expired(1).await.unwrap().len(), 1);
}
