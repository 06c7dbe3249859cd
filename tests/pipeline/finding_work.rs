//! Work finds the service: by a notification, by the tick, and where nobody asked.

use std::time::{Duration, Instant};

use embedding_recovery::domain::failure::Failure;

use super::scene::Scene;
use crate::fakes::store::Fault;
use crate::harness::calls::call;

/// Is in `pg_stat_activity` once notifications can come.
const LISTENS: &str = "select count(*) = 1 from pg_stat_activity
    where datname = current_database() and query ilike 'listen%'";

#[tokio::test(flavor = "multi_thread")]
async fn a_task_inserted_while_the_service_is_idle_starts_by_its_notification() {
    let scene = Scene::new().await;
    let tree = scene.serve().await;
    scene.database.wait_until(LISTENS).await;
    scene.database.import(&[call(1, 2)]).await;
    let inserted = Instant::now();
    scene.fake.wait_for_requests(1).await;
    // The next tick may be five minutes away. A busy machine gets some patience.
    assert!(inserted.elapsed() < Duration::from_secs(10), "after {:?}", inserted.elapsed());
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.searchable(1).await, 2);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_notifications_the_tick_finds_a_task() {
    let scene = Scene::new().await;
    let refusal = Failure::DatabaseRefuses { message: "a pooler passes no LISTEN".into() };
    scene.store.fail("listen", usize::MAX, Fault::Fail(refusal));
    // Refused before the task exists: the look after a refusal would find it too.
    let mut settings = scene.settings();
    settings.schedule = "* * * * * *".parse().unwrap();
    let tree = scene.database.serve(settings).await;
    scene.store.wait_until_struck("listen", 1).await;
    scene.database.import(&[call(1, 2)]).await;
    let inserted = Instant::now();
    scene.fake.wait_for_requests(1).await;
    assert!(inserted.elapsed() < Duration::from_secs(4), "that was no tick's doing");
    scene.database.wait_until_settled(&tree).await;
    assert!(!scene.database.value::<bool>(LISTENS).await);
    assert_eq!(scene.searchable(1).await, 2);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_taken_when_it_falls_due_without_tick_or_notification() {
    let scene = Scene::new().await;
    scene.store.fail("listen", usize::MAX, Fault::Hang);
    scene.database.import(&[call(1, 2)]).await;
    scene.embedder.panic_over("call1turn0 ", 3);
    let mut settings = scene.settings();
    settings.schedule = "0 0 1 1 *".parse().unwrap();
    let tree = scene.database.serve(settings).await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["retry panicked", "completed"]);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_writes_unseen_are_found_by_the_tick() {
    let scene = Scene::new().await;
    scene
        .database
        .execute(
            "drop trigger fathom_transcripts_inserted on fathom_transcripts;
             drop trigger fathom_transcripts_updated on fathom_transcripts;
             drop trigger fathom_transcripts_deleted on fathom_transcripts;
             drop trigger fathom_calls_updated on fathom_calls;",
        )
        .await;
    let mut settings = scene.settings();
    settings.schedule = "* * * * * *".parse().unwrap();
    let tree = scene.database.serve(settings).await;
    scene
        .database
        .execute(
            "insert into fathom_calls (user_id, recording_id, title) values ('alice', 7, 'By hand');
             insert into fathom_transcripts (user_id, recording_id, speaker_name, text, timestamp)
             values ('alice', 7, 'Ann', 'Words that nobody announced.', '00:00:01')",
        )
        .await;
    scene
        .database
        .wait_until("select exists (select from searchable_chunks where recording_id = 7)")
        .await;
    scene
        .database
        .execute("update fathom_transcripts set edited_text = 'Other words, just as quietly.'")
        .await;
    scene
        .database
        .wait_until(
            "select exists (select from searchable_chunks where chunk_text like '%Other words%')",
        )
        .await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.bought_once(), 2);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_writes_history_and_says_when_its_ticks_fall() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 2)]).await;
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    tree.stop(Duration::from_secs(5)).await;
    scene
        .database
        .execute("update embedding_attempts set ended_at = ended_at - interval '10 min'")
        .await;
    let mut settings = scene.settings();
    settings.schedule = "* * * * * *".parse().unwrap();
    settings.recovery.schedule = "0 3 * * *".parse().unwrap();
    let tree = scene.database.serve(settings).await;
    scene.database.wait_until("select coalesce(sum(completed) = 1, false) from history").await;
    let noted = "select cron = '* * * * * *' from schedules where name = 'reconcile test-model'";
    assert!(scene.database.value::<bool>(noted).await);
    let noted = "select count(*) = 1 from schedules where name = 'recovery test-model' and cron = '0 3 * * *'";
    scene.database.wait_until(noted).await;
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_forgets_what_was_completed_long_ago_once_history_holds_it() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 2), call(2, 2)]).await;
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    tree.stop(Duration::from_secs(5)).await;
    scene
        .database
        .execute(
            "update embedding_queue set completed_at = completed_at - interval '2 d' where recording_id = 1;
             update embedding_attempts set started_at = started_at - interval '2 d',
                    ended_at = ended_at - interval '2 d' where recording_id = 1",
        )
        .await;
    let mut settings = scene.settings();
    settings.schedule = "* * * * * *".parse().unwrap();
    settings.keep_completed = Some(Duration::from_secs(86_400));
    let tree = scene.database.serve(settings).await;
    scene.database.wait_until("select count(*) = 1 from embedding_queue").await;
    let left = "select sum(recording_id)::bigint from embedding_attempts";
    assert_eq!(scene.database.value::<i64>(left).await, 2, "its attempts went along");
    let held = "select coalesce(sum(completed), 0)::bigint from history";
    assert_eq!(scene.database.value::<i64>(held).await, 1, "history still tells of it");
    assert_eq!(scene.searchable(1).await, 2);
    scene.end(tree).await;
}
