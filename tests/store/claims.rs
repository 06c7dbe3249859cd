//! Claims: one lease a recording, in the right order, at the right time.

use std::collections::HashMap;
use std::time::Duration;

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::task::{Settlement, Task};
use embedding_recovery::domain::trace::Traceparent;
use embedding_recovery::ports::{ClaimOf, Store};
use embedding_recovery::postgres::{JobRequest, Selection};
use futures::future::join_all;
use uuid::Uuid;

use super::*;

const TASKS: u32 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn many_workers_lease_each_recording_once_while_others_enqueue_it_again() {
    let database = database().await;
    plain_calls(&database, "alice", TASKS).await;
    let everything = JobRequest { selection: Selection::All, user_id: None, priority: 0 };
    database.store.enqueue(&everything).await.unwrap();
    let workers = (0..8).map(|worker| {
        let (store, again) = (database.store.clone(), everything.clone());
        tokio::spawn(async move {
            let mut leased = Vec::new();
            loop {
                let of = ClaimOf::Healthy(3 + worker);
                let tasks = store.claim(Uuid::new_v4(), MODEL, of, LEASE).await.unwrap().tasks;
                if tasks.is_empty() {
                    return leased;
                }
                leased.extend(tasks);
                if leased.len() % 5 == 0 {
                    store.enqueue(&again).await.unwrap();
                }
            }
        })
    });
    let mut times: HashMap<i64, u32> = HashMap::new();
    let mut busy_workers = 0;
    for leased in join_all(workers).await {
        let leased = leased.unwrap();
        busy_workers += u32::from(!leased.is_empty());
        leased.iter().for_each(|task| *times.entry(task.key.recording_id).or_default() += 1);
    }
    assert!(busy_workers > 1, "the claims really ran side by side");
    assert_eq!(times.len(), TASKS as usize, "each was leased");
    assert_eq!(times.values().filter(|times| **times != 1).count(), 0, "and once only");
    let attempts = "select count(distinct task_id) from embedding_attempts where outcome is null";
    assert_eq!(number(&database, attempts).await, i64::from(TASKS));
    let tokens =
        "select count(distinct lease_token) from embedding_queue where status = 'processing'";
    assert_eq!(number(&database, tokens).await, i64::from(TASKS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_goes_through_no_more_of_a_long_queue_than_it_takes() {
    let database = database().await;
    plain_calls(&database, "alice", 3_000).await;
    let everything = JobRequest { selection: Selection::All, user_id: None, priority: 0 };
    database.store.enqueue(&everything).await.unwrap();
    database.execute("analyze embedding_queue").await;
    let claimed = database.store.claim(Uuid::new_v4(), MODEL, ClaimOf::Healthy(5), LEASE).await;
    assert_eq!(claimed.unwrap().tasks.len(), 5);
    // A session tells what it did once it has nothing to do.
    database
        .wait_until("select idx_scan > 0 from pg_stat_user_indexes where indexrelname = 'embedding_queue_waiting_idx'")
        .await;
    let read = "select idx_tup_read from pg_stat_user_indexes where indexrelname = 'embedding_queue_claim_idx'";
    let read = number(&database, read).await;
    assert!(read < 100, "{read} tasks were read to claim 5");
}

#[tokio::test]
async fn priority_comes_first_then_the_newest_and_an_hour_of_waiting_is_a_step() {
    let database = database().await;
    database
        .execute(
            "insert into embedding_queue (user_id, recording_id, priority, created_at)
             select 'alice', recording, priority, date_trunc('hour', now()) + minutes * interval '1 minute'
             from (values (1, 0, 10), (2, 0, 20), (3, 1, 5), (4, 0, -180), (5, 3, 30))
                  as v (recording, priority, minutes)",
        )
        .await;
    let recordings = |tasks: &[Task]| tasks.iter().map(|t| t.key.recording_id).collect::<Vec<_>>();
    let first = claim(&database, ClaimOf::Healthy(3)).await;
    assert_eq!(recordings(&first), [5, 4, 3]);
    assert_eq!(recordings(&claim(&database, ClaimOf::Healthy(1)).await), [2]);
    assert_eq!(recordings(&claim(&database, ClaimOf::Healthy(9)).await), [1]);
    assert!(claim(&database, ClaimOf::Healthy(9)).await.is_empty());
}

#[tokio::test]
async fn a_failed_task_comes_when_it_is_due_and_not_before() {
    let database = database().await;
    database.import(&[call(1, &["a"]), call(2, &["a"])]).await;
    let tasks = claim(&database, ClaimOf::Healthy(2)).await;
    for (task, secs) in tasks.iter().zip([3_600, 7_200]) {
        let retry = Settlement::Retry { after: Duration::from_secs(secs) };
        assert!(database.store.settle(&task.lease, &Failure::Panicked, &retry).await.unwrap());
    }
    let claimed =
        database.store.claim(Uuid::new_v4(), MODEL, ClaimOf::Healthy(9), LEASE).await.unwrap();
    assert!(claimed.tasks.is_empty());
    let next_due = claimed.next_due.unwrap().as_secs();
    assert!((3_000..=3_600).contains(&next_due), "the earliest retry, in {next_due} s");
    assert!(!claimed.suspect_waits);
    database
        .execute("update embedding_queue set next_retry_at = now() where recording_id = 1")
        .await;
    let due = claim(&database, ClaimOf::Healthy(9)).await;
    assert_eq!(due.iter().map(|t| (t.key.recording_id, t.attempts)).collect::<Vec<_>>(), [(1, 2)]);
    assert_eq!(
        number(
            &database,
            "select count(*) from embedding_queue where recording_id = 1 and next_retry_at is null"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn a_task_over_which_a_worker_died_is_claimed_alone() {
    let database = database().await;
    database.import(&[call(1, &["a"]), call(2, &["a"]), call(3, &["a"])]).await;
    database.execute("update embedding_queue set crashes = 1 where recording_id in (1, 2)").await;
    let claimed =
        database.store.claim(Uuid::new_v4(), MODEL, ClaimOf::Healthy(9), LEASE).await.unwrap();
    assert_eq!(
        claimed.tasks.iter().map(|t| (t.key.recording_id, t.alone)).collect::<Vec<_>>(),
        [(3, false)]
    );
    assert!(claimed.suspect_waits);
    for rest in [true, false] {
        let claimed =
            database.store.claim(Uuid::new_v4(), MODEL, ClaimOf::Suspect, LEASE).await.unwrap();
        assert_eq!(claimed.tasks.iter().map(|t| t.alone).collect::<Vec<_>>(), [true]);
        assert_eq!(claimed.suspect_waits, rest);
    }
    assert!(claim(&database, ClaimOf::Suspect).await.is_empty());
    assert_eq!(number(&database, "select count(*) from embedding_attempts where alone").await, 2);
}

#[tokio::test]
async fn a_suspect_that_is_not_due_does_not_wait_for_its_turn() {
    let database = database().await;
    database.import(&[call(1, &["a"])]).await;
    let task = claim_one(&database).await;
    expire(&database, &task).await;
    let retry = Settlement::Retry { after: Duration::from_secs(3_600) };
    assert!(database.store.settle(&task.lease, &Failure::LeaseExpired, &retry).await.unwrap());
    let claimed =
        database.store.claim(Uuid::new_v4(), MODEL, ClaimOf::Suspect, LEASE).await.unwrap();
    assert!(claimed.tasks.is_empty() && !claimed.suspect_waits);
    assert!(claimed.next_due.is_some());
}

#[tokio::test]
async fn a_claim_leases_for_the_given_time_and_opens_an_attempt() {
    let database = database().await;
    database.import(&[call(1, &["a"])]).await;
    let worker = Uuid::new_v4();
    let claimed = database.store.claim(worker, MODEL, ClaimOf::Healthy(1), LEASE).await.unwrap();
    let task = &claimed.tasks[0];
    assert_eq!((task.attempts, task.max_attempts, task.releases), (1, 4, 0));
    let fits = format!(
        "select count(*) from embedding_queue q join embedding_attempts a on a.task_id = q.id
         where q.id = '{}' and q.lease_token = '{}' and a.id = '{}' and q.status = 'processing'
           and q.worker_id = '{worker}' and a.worker_id = '{worker}' and a.number = 1
           and a.outcome is null and a.user_id = 'alice' and a.recording_id = 1
           and q.lease_expires_at between q.locked_at + interval '599 s' and q.locked_at + interval '601 s'",
        task.lease.task_id, task.lease.token, task.lease.attempt_id
    );
    assert_eq!(number(&database, &fits).await, 1);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = Traceparent::parse(trace).unwrap();
    database.store.note_trace(&task.lease, &trace).await.unwrap();
    let kept = "select concat(trace_id, ' ', traceparent) from embedding_attempts";
    let expected = format!("{} {}", trace.trace_id(), trace.as_str());
    assert_eq!(text(&database, kept).await, expected);
    assert!(claim(&database, ClaimOf::Healthy(1)).await.is_empty(), "it is leased");

    // The next attempt is told of the one before it.
    let lease = task.lease;
    let released = Settlement::Release { counted: false };
    assert!(database.store.settle(&lease, &Failure::Shutdown, &released).await.unwrap());
    let again = claim(&database, ClaimOf::Healthy(1)).await;
    assert_eq!(again[0].origins.previous, Some(trace));
}
