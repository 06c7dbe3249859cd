//! Reconciliation: without triggers, each tick finds what is missing or changed.

use embedding_recovery::ports::{ClaimOf, Store};

use super::*;

/// A database as it is where the program may not create triggers.
async fn without_triggers() -> TestDatabase {
    let database = database().await;
    database
        .execute(
            "drop trigger fathom_transcripts_inserted on fathom_transcripts;
             drop trigger fathom_transcripts_updated on fathom_transcripts;
             drop trigger fathom_transcripts_deleted on fathom_transcripts;
             drop trigger fathom_calls_updated on fathom_calls",
        )
        .await;
    database
}

async fn open_tasks(database: &TestDatabase) -> String {
    text(
        database,
        "select coalesce(string_agg(recording_id::text, ' ' order by recording_id), '')
         from embedding_queue where status <> 'completed'",
    )
    .await
}

#[tokio::test]
async fn recordings_that_nobody_enqueued_are_found_in_bounded_batches() {
    let database = without_triggers().await;
    plain_calls(&database, "alice", 25).await;
    database.execute("insert into fathom_calls (user_id, recording_id) values ('alice', 99)").await;
    for expected in [10, 10, 5, 0] {
        assert_eq!(database.store.reconcile(&model(), 10).await, Ok(expected));
    }
    assert_eq!(
        number(&database, "select count(*) from embedding_queue where status = 'pending'").await,
        25
    );
    let still_arriving = "select count(*) from embedding_queue where recording_id = 99";
    assert_eq!(number(&database, still_arriving).await, 0, "it has no transcript yet");
}

#[tokio::test]
async fn the_newest_call_comes_first() {
    let database = without_triggers().await;
    plain_calls(&database, "alice", 3).await;
    database
        .execute("update fathom_calls set created_at = now() - recording_id * interval '1 day'")
        .await;
    database.execute("update fathom_calls set created_at = now() where recording_id = 2").await;
    assert_eq!(database.store.reconcile(&model(), 1).await, Ok(1));
    assert_eq!(open_tasks(&database).await, "2");
}

#[tokio::test]
async fn recordings_that_changed_unseen_are_found_by_their_digest_in_bounded_batches() {
    let database = without_triggers().await;
    for recording in 1..=5 {
        import_and_embed(&database, recording, &["one", "two"]).await;
    }
    assert_eq!(database.store.reconcile(&model(), 100).await, Ok(0));
    database
        .execute(
            "update fathom_transcripts set text = 'edited' where recording_id = 1;
             update fathom_calls set title = 'Another' where recording_id = 2;
             delete from fathom_transcripts where recording_id = 3 and text = 'two';
             insert into fathom_transcripts (user_id, recording_id, text) values ('alice', 4, 'more');
             update fathom_transcripts set speaker_email = 'x' where recording_id = 5",
        )
        .await;
    // Two sets a call: all five are looked at in three, oldest look first.
    let mut found = Vec::new();
    for _ in 0..3 {
        found.push(database.store.reconcile(&model(), 2).await.unwrap());
    }
    assert!(found.iter().all(|count| *count <= 2), "{found:?}");
    assert_eq!(found.iter().sum::<u64>(), 4);
    assert_eq!(open_tasks(&database).await, "1 2 3 4");
    assert_eq!(database.store.reconcile(&model(), 100).await, Ok(0), "their tasks are open");
}

#[tokio::test]
async fn recordings_with_an_open_task_or_a_dead_letter_are_left_alone() {
    let database = without_triggers().await;
    for recording in 1..=3 {
        import_and_embed(&database, recording, &["one"]).await;
    }
    plain_calls(&database, "bob", 3).await;
    database.execute("update fathom_transcripts set text = 'changed'").await;
    // Of each kind one is waiting, one is worked on and one is dead.
    database
        .execute(
            "select enqueue_recordings(array_agg(user_id), array_agg(recording_id), 0, false, null) from fathom_calls",
        )
        .await;
    let tasks = claim(&database, ClaimOf::Healthy(10)).await;
    assert_eq!(tasks.len(), 6);
    for task in tasks.iter().filter(|task| task.key.recording_id == 3) {
        bury(&database, task).await;
    }
    database
        .execute("update embedding_queue set status = 'pending', lease_token = null, lease_expires_at = null
                  where status = 'processing' and recording_id = 1")
        .await;
    let before = everything_but_checks(&database).await;
    assert_eq!(database.store.reconcile(&model(), 100).await, Ok(0));
    assert_eq!(everything_but_checks(&database).await, before);
}

async fn everything_but_checks(database: &TestDatabase) -> String {
    text(database, "select jsonb_agg(to_jsonb(t) order by t.id)::text from embedding_queue t").await
}

#[tokio::test]
async fn a_set_of_another_model_does_not_count() {
    let database = without_triggers().await;
    import_and_embed(&database, 1, &["one"]).await;
    assert_eq!(database.store.reconcile(&model(), 10).await, Ok(0));
    let other = Model { name: "other".into(), dimensions: 3 };
    assert_eq!(database.store.reconcile(&other, 10).await, Ok(0), "nobody works for it");
    database.store.begin_reembedding(&other).await.unwrap();
    assert_eq!(database.store.reconcile(&other, 10).await, Ok(1));
    assert_eq!(database.store.reconcile(&other, 10).await, Ok(0));
    assert_eq!(database.store.reconcile(&model(), 10).await, Ok(0));
    assert_eq!(
        text(&database, "select for_model from embedding_queue where status = 'pending'").await,
        "other"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_reconcile_at_once_open_one_task_each() {
    let database = without_triggers().await;
    plain_calls(&database, "alice", 40).await;
    let rounds = (0..6).map(|_| {
        let store = database.store.clone();
        tokio::spawn(async move { store.reconcile(&model(), 100).await })
    });
    for round in futures::future::join_all(rounds).await {
        assert!(round.unwrap().is_ok());
    }
    assert_eq!(number(&database, "select count(*) from embedding_queue").await, 40);
    assert_eq!(claim(&database, ClaimOf::Healthy(100)).await.len(), 40);
}
