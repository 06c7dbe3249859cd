//! Settlements: each written once, counted as the domain says, and never to another's lease.

use std::time::Duration;

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::task::{Lease, Settlement};
use embedding_recovery::ports::{ClaimOf, Store};
use embedding_recovery::postgres::{JobRequest, Selection};
use sqlx::Connection;
use uuid::Uuid;

use super::*;
use crate::harness::within_deadline;

const HOUR: Duration = Duration::from_secs(3_600);

async fn leased() -> (TestDatabase, Task) {
    let database = database().await;
    database.import(&[call(1, &["a"])]).await;
    let task = claim_one(&database).await;
    (database, task)
}

/// `column=value` of each given column of the one task.
async fn columns(database: &TestDatabase, names: &str) -> String {
    text(database, &format!("select concat_ws(' ', {names}) from embedding_queue")).await
}

async fn enqueue(database: &TestDatabase) {
    let request =
        JobRequest { selection: Selection::Recordings(vec![key(1)]), user_id: None, priority: 0 };
    assert_eq!(database.store.enqueue(&request).await.unwrap().tasks, 1);
}

#[tokio::test]
async fn a_retry_uses_the_attempt_waits_and_says_why() {
    let (database, task) = leased().await;
    let failure = Failure::ChunkRefused { chunk_index: 12, message: "too long".into() };
    let retry = Settlement::Retry { after: HOUR };
    assert!(database.store.settle(&task.lease, &failure, &retry).await.unwrap());
    assert_eq!(
        columns(&database, "status, attempts, releases, crashes, failure_class, last_error").await,
        "failed 1 0 0 chunk_refused chunk 12 is refused by the provider: too long"
    );
    assert_eq!(columns(&database, "failure_fingerprint").await, failure.fingerprint());
    let waits = "select count(*) from embedding_queue
        where next_retry_at between now() + interval '59 min' and now() + interval '60 min'
          and lease_token is null and locked_at is null and worker_id is null and dead_letter_reason is null";
    assert_eq!(number(&database, waits).await, 1);
    let attempt = "select concat_ws(' ', outcome, failure_class, message, ended_at >= started_at) from embedding_attempts";
    assert_eq!(
        text(&database, attempt).await,
        "retry chunk_refused chunk 12 is refused by the provider: too long t"
    );
}

#[tokio::test]
async fn a_dead_letter_has_its_reason_class_and_fingerprint() {
    let (database, task) = leased().await;
    bury(&database, &task).await;
    assert_eq!(
        columns(
            &database,
            "status, attempts, failure_class, dead_letter_permanent, dead_letter_reason"
        )
        .await,
        format!("dead_letter 1 panicked t {}", Failure::Panicked)
    );
    assert_eq!(columns(&database, "failure_fingerprint").await, Failure::Panicked.fingerprint());
    assert_eq!(columns(&database, "next_retry_at, lease_token").await, "");
    assert_eq!(text(&database, "select outcome from embedding_attempts").await, "dead_letter");
    assert!(claim(&database, ClaimOf::Healthy(9)).await.is_empty());
    assert_eq!(database.store.task_counts().await.unwrap().dead_letter, 1);
}

#[tokio::test]
async fn a_dead_letter_that_may_be_tried_again_is_not_permanent() {
    let (database, task) = leased().await;
    let settlement = Settlement::DeadLetter { permanent: false };
    assert!(database.store.settle(&task.lease, &Failure::Panicked, &settlement).await.unwrap());
    assert_eq!(columns(&database, "status, dead_letter_permanent").await, "dead_letter f");
}

#[tokio::test]
async fn a_release_does_not_use_the_attempt_and_counts_itself_where_told() {
    let (database, task) = leased().await;
    let unavailable = Failure::ProviderUnavailable { message: "503".into() };
    let counted = Settlement::Release { counted: true };
    assert!(database.store.settle(&task.lease, &unavailable, &counted).await.unwrap());
    let names = "status, attempts, releases, crashes";
    assert_eq!(columns(&database, names).await, "pending 0 1 0");
    let task = claim_one(&database).await;
    assert_eq!((task.attempts, task.releases), (1, 1));
    let uncounted = Settlement::Release { counted: false };
    assert!(database.store.settle(&task.lease, &Failure::Shutdown, &uncounted).await.unwrap());
    assert_eq!(columns(&database, names).await, "pending 0 1 0");
    assert_eq!(
        number(&database, "select count(*) from embedding_attempts where outcome = 'released'")
            .await,
        2
    );
}

#[tokio::test]
async fn a_settlement_sent_twice_changes_nothing_the_second_time() {
    for settlement in [
        Settlement::Retry { after: Duration::ZERO },
        Settlement::DeadLetter { permanent: false },
        Settlement::Release { counted: true },
    ] {
        let (database, task) = leased().await;
        assert!(database.store.settle(&task.lease, &Failure::Panicked, &settlement).await.unwrap());
        let before = everything(&database).await;
        assert_eq!(
            database.store.settle(&task.lease, &Failure::Panicked, &settlement).await,
            Ok(false)
        );
        assert_eq!(everything(&database).await, before, "{settlement:?}");
    }
}

#[tokio::test]
async fn a_settlement_of_a_lost_lease_leaves_the_new_holder_alone() {
    let (database, task) = leased().await;
    let fresh = take_over(&database, &task).await;
    let before = everything(&database).await;
    let release = Settlement::Release { counted: true };
    let forged = Lease { token: Uuid::new_v4(), ..fresh.lease };
    for lease in [task.lease, forged] {
        assert_eq!(database.store.settle(&lease, &Failure::Panicked, &release).await, Ok(false));
    }
    assert_eq!(everything(&database).await, before);
}

#[tokio::test]
async fn a_lease_is_swept_only_when_it_is_over_and_the_crash_is_counted() {
    let (database, task) = leased().await;
    let retry = Settlement::Retry { after: Duration::ZERO };
    let expired = Failure::LeaseExpired;
    let before = everything(&database).await;
    assert_eq!(database.store.settle(&task.lease, &expired, &retry).await, Ok(false));
    assert_eq!(everything(&database).await, before);
    let alone = take_over(&database, &task).await;
    let names = "attempts, crashes, crashes_alone";
    assert_eq!(columns(&database, names).await, "2 1 0");
    assert!(alone.alone && alone.crashes_alone == 0);
    let alone_again = take_over(&database, &alone).await;
    assert_eq!(columns(&database, names).await, "3 2 1");
    assert_eq!((alone_again.crashes_alone, alone_again.attempts), (1, 3));
    // A failure that is no crash does not count as one.
    assert!(database.store.settle(&alone_again.lease, &Failure::Panicked, &retry).await.unwrap());
    assert_eq!(columns(&database, names).await, "3 2 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_waited_for_a_heartbeat_lets_the_lease_live() {
    let (database, task) = leased().await;
    expire(&database, &task).await;
    let mut worker = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let mut heartbeat = worker.begin().await.unwrap();
    sqlx::query(
        "update embedding_queue set lease_expires_at = clock_timestamp() + interval '1 min'",
    )
    .execute(&mut *heartbeat)
    .await
    .unwrap();
    let (store, lease) = (database.store.clone(), task.lease);
    let sweeping = tokio::spawn(async move {
        let retry = Settlement::Retry { after: Duration::ZERO };
        store.settle(&lease, &Failure::LeaseExpired, &retry).await
    });
    wait_for_blocked(&database, 1).await;
    heartbeat.commit().await.unwrap();
    assert_eq!(within_deadline("the sweep", sweeping).await.unwrap(), Ok(false));
    assert_eq!(columns(&database, "status, crashes").await, "processing 0");
    assert_eq!(database.store.renew(&[task.lease.token], LEASE).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_task_asked_for_anew_while_its_last_attempt_failed_begins_afresh() {
    let (database, task) = leased().await;
    enqueue(&database).await;
    assert_eq!(columns(&database, "status, dirty").await, "processing t");
    bury(&database, &task).await;
    let names = "status, attempts, dirty, dead_letter_permanent, dead_letter_reason";
    assert_eq!(columns(&database, names).await, "pending 0 f f");
    assert_eq!(claim_one(&database).await.attempts, 1);
}

#[tokio::test]
async fn a_retry_of_a_task_asked_for_anew_keeps_its_count() {
    let (database, task) = leased().await;
    enqueue(&database).await;
    let retry = Settlement::Retry { after: Duration::ZERO };
    assert!(database.store.settle(&task.lease, &Failure::Panicked, &retry).await.unwrap());
    assert_eq!(columns(&database, "status, attempts, dirty").await, "failed 1 f");
    assert_eq!(claim_one(&database).await.attempts, 2);
}
