//! History: written once across replicas, complete up to now for a reader, and there after the tasks
//! are gone.

use embedding_recovery::ports::inspector::{Bucket, Inspector};

use super::*;

/// An attempt that ended so many minutes ago and took so many seconds.
async fn attempt(database: &TestDatabase, minutes: u32, secs: u32, outcome: &str, part: &str) {
    database
        .execute(&format!(
            "with task as (
                 insert into embedding_queue (user_id, recording_id, status, completed_at)
                 values ('ann', 1, 'completed', now()) returning id
             )
             insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, part, started_at,
                 ended_at, outcome, chunks, chunks_reused, tokens)
             select id, 'ann', 1, gen_random_uuid(), 1, '{part}', at - interval '{secs} s', at, '{outcome}',
                    case when '{outcome}' = 'completed' then 10 end, 4, 100
             from task, (select now() - interval '{minutes} min' as at) a"
        ))
        .await;
}

async fn history(database: &TestDatabase, hours: u32) -> Vec<Bucket> {
    database.store.history(hours).await.unwrap()
}

/// All buckets as one, without the times.
fn sum(buckets: &[Bucket]) -> [u64; 6] {
    buckets.iter().fold([0; 6], |[a, b, c, d, e, f], bucket| {
        [
            a + bucket.completed,
            b + bucket.failed,
            c + bucket.dead_lettered,
            d + bucket.recovered,
            e + bucket.chunks,
            f + bucket.tokens,
        ]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_the_same_before_and_after_it_is_written_and_outlives_the_attempts() {
    let database = database().await;
    for (minutes, secs, outcome, part) in [
        (600, 10, "completed", "main"),
        (60, 1, "completed", "main"),
        (60, 2, "completed", "main"),
        (60, 3, "completed", "recovery"),
        (60, 9, "dead_letter", "main"),
        (60, 9, "retry", "main"),
        (60, 9, "released", "main"),
        (0, 5, "completed", "main"),
    ] {
        attempt(&database, minutes, secs, outcome, part).await;
    }
    let before = history(&database, 2).await;
    assert_eq!(before.len(), 2, "ten hours ago is not asked for: {before:?}");
    assert_eq!(sum(&before), [4, 2, 1, 1, 24, 700]);
    assert_eq!((before[0].p50_secs, before[1].p50_secs), (Some(2.0), Some(5.0)));
    assert!(before[0].p99_secs > before[0].p50_secs);

    assert_eq!(database.store.roll_up_history().await, Ok(2), "the bucket of now is not over");
    assert_eq!(history(&database, 2).await, before);
    assert_eq!(
        database.store.roll_up_history().await,
        Ok(0),
        "what is written is not written again"
    );
    attempt(&database, 0, 5, "completed", "main").await;
    assert_eq!(sum(&history(&database, 2).await)[0], 5, "what came since is seen at once");
    database.execute("delete from embedding_queue").await;
    let after = history(&database, 24).await;
    assert_eq!(after.iter().map(|bucket| bucket.completed).collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_write_history_at_once_write_each_bucket_once() {
    let database = database().await;
    for minutes in (10..200).step_by(10) {
        attempt(&database, minutes, 1, "completed", "main").await;
    }
    let writing = (0..6).map(|_| database.store.roll_up_history());
    let written: u64 = futures::future::try_join_all(writing).await.unwrap().iter().sum();
    assert_eq!(written, 19);
    assert_eq!(number(&database, "select sum(completed)::bigint from history").await, 19);
}
