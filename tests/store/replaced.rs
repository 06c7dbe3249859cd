//! The swap of models: all recordings at once, with nobody of the old model writing after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use embedding_recovery::postgres::{JobRequest, ModelError, ModelState, Selection};

use super::reembed::{NEXT, claim_next, embed_next, next_model, progress, re_embedding};
use super::*;
use crate::harness::{eventually, within_deadline};

const NEW: [&str; 1] = ["new"];

/// Embeds everything that waits for the next model, and swaps.
async fn finish(database: &TestDatabase) {
    let tasks = claim_next(database, 100).await;
    embed_next(database, tasks, &NEW).await;
    assert!(
        database.store.swap_models(NEXT, false).await.unwrap(),
        "{:?}",
        progress(database).await
    );
}

#[tokio::test]
async fn search_stays_on_the_old_model_until_every_recording_has_the_new_one() {
    let database = re_embedding(3).await;
    for left in [3, 2, 1] {
        assert_eq!(progress(&database).await.missing, left);
        assert!(!database.store.swap_models(NEXT, true).await.unwrap());
        assert_eq!(searchable(&database, 1).await, ["old a", "old b"]);
        let task = claim_next(&database, 1).await;
        embed_next(&database, task, &NEW).await;
    }
    assert!(!database.store.swap_models("another", false).await.unwrap());
    assert!(database.store.swap_models(NEXT, false).await.unwrap());
    for recording in 1..=3 {
        assert_eq!(searchable(&database, recording).await, NEW);
    }
    assert_eq!(database.store.stored_model().await.unwrap(), Some(next_model()));
    assert!(!database.store.swap_models(NEXT, false).await.unwrap(), "once only");
    assert_eq!(progress(&database).await.state, ModelState::Current);
    let replaced = database.store.use_model(&model()).await.unwrap_err();
    assert!(matches!(replaced, ModelError::Replaced { .. }), "{replaced}");
    assert_sound(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reader_sees_all_recordings_of_one_model_at_any_instant() {
    let database = re_embedding(40).await;
    let tasks = claim_next(&database, 100).await;
    embed_next(&database, tasks, &NEW).await;
    let (stop, began) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let readers = (0..4).map(|_| {
        let (pool, stop, began) = (database.pool.clone(), stop.clone(), began.clone());
        tokio::spawn(async move {
            let mut seen = Vec::<String>::new();
            while !stop.load(Ordering::Relaxed) {
                let row: String = sqlx::query_scalar(
                    "select string_agg(distinct embedding_model, ' ') || ' ' || count(distinct recording_id)
                     from searchable_chunks",
                )
                .fetch_one(&pool)
                .await
                .unwrap();
                if seen.last() != Some(&row) {
                    seen.push(row);
                    began.fetch_add(1, Ordering::Relaxed);
                }
            }
            seen
        })
    });
    let readers: Vec<_> = readers.collect();
    eventually("all read", async || began.load(Ordering::Relaxed) == 4).await;
    assert!(database.store.swap_models(NEXT, false).await.unwrap());
    while database.store.delete_dead_chunks(10).await.unwrap() > 0 {}
    eventually("all read again", async || began.load(Ordering::Relaxed) >= 8).await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), ["test-model 40", "next-model 40"]);
    }
    assert_eq!(number(&database, "select count(*) from transcript_chunks").await, 40);
    assert_sound(&database).await;
}

#[tokio::test]
async fn an_edit_reaches_both_models_and_search_never_goes_back_to_an_older_transcript() {
    let database = re_embedding(2).await;
    let tasks = claim_next(&database, 10).await;
    embed_next(&database, tasks, &NEW).await;
    let edit = "update fathom_transcripts set text = 'edited' where recording_id = 1";
    database.execute(edit).await;
    // Neither has it yet: search would be as old as it is.
    assert_eq!(progress(&database).await.missing, 0);
    embed(&database, &["old edited"]).await;
    assert_eq!(progress(&database).await.missing, 1);
    assert!(!database.store.swap_models(NEXT, true).await.unwrap());
    let tasks = claim_next(&database, 10).await;
    assert_eq!(tasks.len(), 1);
    embed_next(&database, tasks, &["new edited"]).await;
    assert!(database.store.swap_models(NEXT, false).await.unwrap());
    assert_eq!(searchable(&database, 1).await, ["new edited"]);
    assert_sound(&database).await;
}

#[tokio::test]
async fn a_worker_of_the_old_model_is_fenced_off_and_its_task_goes_on_with_the_new_one() {
    let database = re_embedding(2).await;
    let edit = "update fathom_transcripts set text = 'edited' where recording_id = 1";
    let tasks = claim_next(&database, 10).await;
    embed_next(&database, tasks, &NEW).await;
    database.execute(edit).await;
    let old = Attempt::begin(&database, claim_one(&database).await, &["x", "y"]).await.unwrap();
    old.insert(&database, &rows(&["x"])).await.unwrap();
    finish(&database).await;
    assert_eq!(old.insert(&database, &rows(&["x", "y"])).await, Err(Failure::LeaseLost));
    assert_eq!(old.complete(&database).await, Err(Failure::LeaseLost));
    let retry = Settlement::Release { counted: true };
    let settled = database.store.settle(&old.task.lease, &Failure::Shutdown, &retry).await;
    assert_eq!(settled, Ok(false));
    let attempt = "select outcome || message from embedding_attempts where id = ";
    let attempt = format!("{attempt} '{}'", old.task.lease.attempt_id);
    assert_eq!(text(&database, &attempt).await, "releasedthe model was replaced");
    assert_eq!(claim(&database, ClaimOf::Healthy(10)).await, [], "the old model has no tasks");
    let task = claim_next(&database, 10).await.remove(0);
    assert_eq!((task.lease.task_id, task.attempts), (old.task.lease.task_id, 1));
    // Its set is there already: nothing is bought.
    let source = database.store.load(&task.key).await.unwrap();
    let again = Attempt::open_for(NEXT, &database, task, source, &NEW).await.unwrap();
    assert!(again.set.current);
    assert_eq!(again.complete(&database).await, Ok(Completion::Completed));
    assert_sound(&database).await;
}

#[tokio::test]
async fn where_a_recording_waits_for_both_models_one_task_is_left_and_its_job_waits_for_that() {
    let database = re_embedding(3).await;
    let tasks = claim_next(&database, 10).await;
    embed_next(&database, tasks, &NEW).await;
    let everything = JobRequest { selection: Selection::All, user_id: None, priority: 7 };
    database.store.enqueue(&everything).await.unwrap();
    // 1: both wait; 2: both are leased; 3: dead with the old, completed with the new.
    let old = claim(&database, ClaimOf::Healthy(3)).await;
    bury(&database, old.iter().find(|task| task.key == key(3)).unwrap()).await;
    // As after a recovery that failed.
    let waits = "update embedding_queue set dead_letter_permanent = false, recoveries = 3,
        next_retry_at = now() + interval '8 hours' where status = 'dead_letter'";
    database.execute(waits).await;
    let held = claim_next(&database, 3).await;
    assert_sound(&database).await;
    let third = held.iter().filter(|task| task.key == key(3)).cloned().collect();
    embed_next(&database, third, &NEW).await;
    assert!(database.store.swap_models(NEXT, false).await.unwrap());
    let tasks = "select string_agg(concat_ws(' ', recording_id, status, coalesce(for_model, '-'), priority), ', '
        order by recording_id) from embedding_queue where status <> 'completed'";
    assert_eq!(text(&database, tasks).await, "1 processing - 7, 2 processing - 7, 3 pending - 7");
    let progress = "select concat_ws(' ', tasks, completed, dead_letter) from embedding_job_progress order by created_at desc limit 1";
    assert_eq!(text(&database, progress).await, "3 0 0");
    // Leases of the new model live on.
    let others = held.into_iter().filter(|task| task.key != key(3)).collect();
    embed_next(&database, others, &NEW).await;
    let third = claim_next(&database, 10).await;
    assert_eq!(third.len(), 1);
    embed_next(&database, third, &NEW).await;
    assert_eq!(text(&database, progress).await, "3 3 0");
    assert_sound(&database).await;
}

#[tokio::test]
async fn dead_letters_of_the_next_model_hold_it_up_until_they_are_left_behind() {
    let database = re_embedding(3).await;
    let mut tasks = claim_next(&database, 10).await;
    let dead = tasks.pop().unwrap();
    bury(&database, &dead).await;
    embed_next(&database, tasks, &NEW).await;
    let now = progress(&database).await;
    assert_eq!((now.missing, now.missing_dead, now.open, now.done), (1, 1, 0, 2));
    assert!(!database.store.swap_models(NEXT, false).await.unwrap());
    let letters = database.store.reembedding_dead_letters(NEXT).await.unwrap();
    assert_eq!((letters.len(), &letters[0].key), (1, &dead.key));
    assert_eq!(letters[0].reason, Failure::Panicked.to_string());
    assert!(database.store.swap_models(NEXT, true).await.unwrap());
    assert_eq!(searchable(&database, dead.key.recording_id).await, [""; 0]);
    let counts = database.store.task_counts_of(NEXT).await.unwrap();
    assert_eq!((counts.dead_letter, counts.open()), (1, 0));
    assert_sound(&database).await;
}

/// Holds the locks of a swap, flips the models, and commits once somebody waits for it.
async fn flip_under<T: Send + 'static>(
    database: &TestDatabase,
    waits: impl Future<Output = T> + Send + 'static,
) -> T {
    let mut swap = database.pool.begin().await.unwrap();
    for statement in [
        "lock table embedding_queue in exclusive mode",
        "update embedding_models set state = 'retired', replaced_by = 'next-model' where name = 'test-model'",
        "update embedding_models set state = 'current' where name = 'next-model'",
        "update embedding_queue set for_model = null where for_model = 'next-model'",
    ] {
        sqlx::query(statement).execute(&mut *swap).await.unwrap();
    }
    let waiting = tokio::spawn(waits);
    wait_for_blocked(database, 1).await;
    swap.commit().await.unwrap();
    within_deadline("what waited for the swap", waiting).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_swap_acts_on_the_models_as_it_leaves_them() {
    // The swap leaves it as it is, so that only the models tell whose it is.
    let waiting_task = "delete from embedding_queue where status <> 'completed';
        insert into embedding_queue (user_id, recording_id) values ('alice', 1)";
    for prepared in [false, true] {
        let database = re_embedding(1).await;
        database.execute(waiting_task).await;
        let store = database.store.clone();
        let claim = async move |model: &str| {
            store.claim(Uuid::new_v4(), model, ClaimOf::Healthy(1), LEASE).await.unwrap().tasks
        };
        if prepared {
            for _ in 0..8 {
                claim("unknown").await;
            }
        }
        let claimed = flip_under(&database, async move { claim(MODEL).await }).await;
        assert_eq!(claimed, [], "the old model has no tasks any more");
    }
    let database = re_embedding(1).await;
    let pool = database.pool.clone();
    flip_under(&database, async move {
        sqlx::query("update fathom_transcripts set text = 'edited'").execute(&pool).await.unwrap()
    })
    .await;
    let tasks = "select string_agg(coalesce(for_model, '-'), ' ') from embedding_queue where status <> 'completed'";
    assert_eq!(text(&database, tasks).await, "-");
}

#[tokio::test]
async fn a_swap_that_others_stand_in_the_way_of_gives_up_soon_and_changes_nothing() {
    let database = re_embedding(1).await;
    let tasks = claim_next(&database, 10).await;
    embed_next(&database, tasks, &NEW).await;
    let mut long = database.pool.begin().await.unwrap();
    sqlx::query("update embedding_queue set priority = 1").execute(&mut *long).await.unwrap();
    let failed = database.store.swap_models(NEXT, false).await.unwrap_err();
    assert!(matches!(failed, Failure::DatabaseUnavailable { .. }), "{failed}");
    assert_eq!(searchable(&database, 1).await, ["old a", "old b"]);
    long.commit().await.unwrap();
    assert!(database.store.swap_models(NEXT, false).await.unwrap());
}

#[tokio::test]
async fn a_replaced_model_may_come_back() {
    let database = re_embedding(2).await;
    finish(&database).await;
    while database.store.delete_dead_chunks(100).await.unwrap() > 0 {}
    database.store.begin_reembedding(&model()).await.unwrap();
    assert_sound(&database).await;
    assert_eq!(database.store.reconcile(&model(), 10).await, Ok(2));
    for task in claim(&database, ClaimOf::Healthy(10)).await {
        let attempt = Attempt::begin(&database, task, &["back"]).await.unwrap();
        attempt.insert(&database, &rows(&["back"])).await.unwrap();
        assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
    }
    assert!(database.store.swap_models(MODEL, false).await.unwrap());
    assert_eq!(searchable(&database, 2).await, ["back"]);
    assert_sound(&database).await;
    assert_eq!(database.store.use_model(&model()).await.unwrap().model, model());
}
