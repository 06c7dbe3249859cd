//! The swap: search sees one whole set at any instant, and an edit under way is never lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::ports::{Completion, Store};
use sqlx::Connection;

use super::*;
use crate::harness::within_deadline;

const OLD: [&str; 5] = ["a0", "a1", "a2", "a3", "a4"];
const NEW: [&str; 7] = ["b0", "b1", "b2", "b3", "b4", "b5", "b6"];
const ROUNDS: usize = 40;

/// Samples what search sees until told to stop: how often it was the old set, and the new.
async fn sample(database: Arc<TestDatabase>, stop: Arc<AtomicBool>) -> (usize, usize) {
    let (mut old, mut new) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let seen = searchable(&database, 1).await;
        if seen == OLD {
            old += 1;
        } else if seen == NEW {
            new += 1;
        } else {
            panic!("search sees part of a set, a mixture or nothing: {seen:?}");
        }
    }
    (old, new)
}

#[tokio::test(flavor = "multi_thread")]
async fn search_sees_one_whole_set_at_every_instant_of_many_reembeddings() {
    let database = Arc::new(database().await);
    import_and_embed(&database, 1, &OLD).await;
    let stop = Arc::new(AtomicBool::new(false));
    let samplers: Vec<_> =
        (0..3).map(|_| tokio::spawn(sample(database.clone(), stop.clone()))).collect();
    for round in 0..ROUNDS {
        let texts: &[&str] = if round % 2 == 0 { &NEW } else { &OLD };
        database.import(&[call(1, texts)]).await;
        let attempt = Attempt::begin(&database, claim_one(&database).await, texts).await.unwrap();
        for batch in rows(texts).chunks(2) {
            attempt.insert(&database, batch).await.unwrap();
        }
        assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
        while database.store.delete_dead_chunks(2).await.unwrap() > 0 {}
    }
    stop.store(true, Ordering::Relaxed);
    let (mut old, mut new) = (0, 0);
    for sampler in samplers {
        let seen = sampler.await.unwrap();
        (old, new) = (old + seen.0, new + seen.1);
    }
    assert!(old > 10 && new > 10, "both were seen: {old} and {new}");
    assert_sound(&database).await;
}

#[tokio::test]
async fn an_incomplete_set_is_refused_and_the_old_one_stays() {
    let database = database().await;
    import_and_embed(&database, 1, &OLD).await;
    database.import(&[call(1, &NEW)]).await;
    let attempt = Attempt::begin(&database, claim_one(&database).await, &NEW).await.unwrap();
    attempt.insert(&database, &rows(&NEW)[..6]).await.unwrap();
    let before = everything(&database).await;
    let incomplete = Failure::Incomplete { stored: 6, expected: 7 };
    assert_eq!(attempt.complete(&database).await, Err(incomplete));
    assert_eq!(everything(&database).await, before);
    assert_eq!(searchable(&database, 1).await, OLD);
    attempt.insert(&database, &rows(&NEW)[6..]).await.unwrap();
    assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
    assert_eq!(searchable(&database, 1).await, NEW);
}

#[tokio::test]
async fn a_completion_closes_the_task_and_the_attempt_with_its_work() {
    let database = database().await;
    let attempt = import_and_embed(&database, 1, &OLD).await;
    let task = "select concat_ws(' ', status, attempts, completed_at is not null, lease_token,
        lease_expires_at, locked_at, last_error) from embedding_queue";
    assert_eq!(text(&database, task).await, "completed 1 t");
    let closed = "select concat_ws(' ', outcome, chunks, chunks_reused, tokens, ended_at is not null) from embedding_attempts";
    assert_eq!(text(&database, closed).await, "completed 7 5 1000 t");
    let before = everything(&database).await;
    assert_eq!(attempt.complete(&database).await, Err(Failure::LeaseLost), "and only once");
    assert_eq!(everything(&database).await, before);
}

#[tokio::test]
async fn an_edit_during_an_attempt_supersedes_it_without_using_it_up() {
    let database = database().await;
    import_and_embed(&database, 1, &OLD).await;
    database.import(&[call(1, &["x"])]).await;
    let attempt = Attempt::begin(&database, claim_one(&database).await, &["x"]).await.unwrap();
    attempt.insert(&database, &rows(&["x"])).await.unwrap();
    database.execute("update fathom_transcripts set edited_text = 'y' where text = 'x'").await;
    assert_eq!(attempt.complete(&database).await, Ok(Completion::Superseded));
    let task = "select concat_ws(' ', status, attempts, dirty, lease_token, lease_expires_at)
        from embedding_queue where status <> 'completed'";
    assert_eq!(text(&database, task).await, "pending 0 f");
    let outcomes = "select string_agg(outcome, ' ' order by started_at) from embedding_attempts";
    assert_eq!(text(&database, outcomes).await, "completed superseded");
    assert_eq!(searchable(&database, 1).await, OLD, "the old set stays until the new one is whole");
    embed(&database, &["y"]).await;
    assert_eq!(searchable(&database, 1).await, ["y"]);
    assert_sound(&database).await;
}

#[tokio::test]
async fn a_changed_title_or_date_supersedes_too() {
    let database = database().await;
    database.import(&[call(1, &["x"])]).await;
    for change in ["title = 'Another'", "created_at = created_at + interval '1 day'"] {
        let attempt = Attempt::begin(&database, claim_one(&database).await, &["x"]).await.unwrap();
        attempt.insert(&database, &rows(&["x"])).await.unwrap();
        database.execute(&format!("update fathom_calls set {change}")).await;
        assert_eq!(attempt.complete(&database).await, Ok(Completion::Superseded), "{change}");
    }
    embed(&database, &["x"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_waits_for_an_edit_that_is_not_committed_yet() {
    let database = database().await;
    database.import(&[call(1, &["x"])]).await;
    let attempt = Attempt::begin(&database, claim_one(&database).await, &["x"]).await.unwrap();
    attempt.insert(&database, &rows(&["x"])).await.unwrap();
    let mut editor = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let mut edit = editor.begin().await.unwrap();
    sqlx::query("update fathom_transcripts set text = 'y'").execute(&mut *edit).await.unwrap();
    let (store, lease, set) = (database.store.clone(), attempt.task.lease, attempt.set.id);
    let completing =
        tokio::spawn(async move { store.complete(&lease, set, Work::default()).await });
    wait_for_blocked(&database, 1).await;
    edit.commit().await.unwrap();
    let completed = within_deadline("the completion", completing).await.unwrap();
    assert_eq!(completed, Ok(Completion::Superseded));
    assert_eq!(status(&database, 1).await, "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_waits_for_a_completion_opens_a_new_task() {
    let database = database().await;
    database.import(&[call(1, &["x"])]).await;
    let attempt = Attempt::begin(&database, claim_one(&database).await, &["x"]).await.unwrap();
    attempt.insert(&database, &rows(&["x"])).await.unwrap();
    // Holds the set's row: the completion has locked the task and compared when it waits.
    let mut holder = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    sqlx::query("select 1 from chunk_sets for update").execute(&mut *held).await.unwrap();
    let (store, lease, set) = (database.store.clone(), attempt.task.lease, attempt.set.id);
    let completing =
        tokio::spawn(async move { store.complete(&lease, set, Work::default()).await });
    wait_for_blocked(&database, 1).await;
    let pool = database.pool.clone();
    let editing = tokio::spawn(async move {
        sqlx::query("update fathom_transcripts set text = 'y'").execute(&pool).await
    });
    wait_for_blocked(&database, 2).await;
    held.rollback().await.unwrap();
    let completed = within_deadline("the completion", completing).await.unwrap();
    assert_eq!(completed, Ok(Completion::Completed));
    within_deadline("the edit", editing).await.unwrap().unwrap();
    assert_eq!(number(&database, "select count(*) from embedding_queue").await, 2);
    assert_eq!(status(&database, 1).await, "pending");
    embed(&database, &["y"]).await;
    assert_eq!(searchable(&database, 1).await, ["y"]);
}

#[tokio::test]
async fn an_edit_that_is_reverted_while_the_old_set_is_cleaned_up_loses_nothing() {
    let database = database().await;
    let first = import_and_embed(&database, 1, &OLD).await;
    import_and_embed(&database, 1, &NEW).await;
    // Half of the dead set is gone when its text comes back.
    assert_eq!(database.store.delete_dead_chunks(2).await, Ok(2));
    database.import(&[call(1, &OLD)]).await;
    let attempt = Attempt::begin(&database, claim_one(&database).await, &OLD).await.unwrap();
    assert_ne!(attempt.set.id, first.set.id, "a dead set never comes back");
    assert_eq!((attempt.set.stored.len(), attempt.set.reusable.len()), (0, 0));
    attempt.insert(&database, &rows(&OLD)[..3]).await.unwrap();
    while database.store.delete_dead_chunks(2).await.unwrap() > 0 {}
    attempt.insert(&database, &rows(&OLD)[3..]).await.unwrap();
    assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
    while database.store.delete_dead_chunks(100).await.unwrap() > 0 {}
    assert_eq!(searchable(&database, 1).await, OLD);
    assert_eq!(number(&database, "select count(*) from chunk_sets").await, 1);
    assert_eq!(number(&database, "select count(*) from transcript_chunks").await, 5);
}

#[tokio::test]
async fn an_edit_that_is_reverted_before_it_is_embedded_keeps_the_current_set() {
    let database = database().await;
    let first = import_and_embed(&database, 1, &OLD).await;
    database.import(&[call(1, &NEW)]).await;
    let attempt = Attempt::begin(&database, claim_one(&database).await, &NEW).await.unwrap();
    attempt.insert(&database, &rows(&NEW)[..3]).await.unwrap();
    database.import(&[call(1, &OLD)]).await;
    assert_eq!(attempt.complete(&database).await, Ok(Completion::Superseded));
    let back = Attempt::begin(&database, claim_one(&database).await, &OLD).await.unwrap();
    assert!(back.set.current && back.set.id == first.set.id, "nothing is left to embed");
    assert_eq!(back.complete(&database).await, Ok(Completion::Completed));
    assert_eq!(searchable(&database, 1).await, OLD);
    let building = "select count(*) from chunk_sets where state = 'building'";
    assert_eq!(number(&database, building).await, 0, "the abandoned set is dead");
}
