//! Notifications and ticks: work finds the service, and scheduled work happens once.

use std::time::Duration;

use chrono::TimeDelta;
use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::task::Settlement;
use embedding_recovery::ports::Store;
use futures::future::join_all;
use tokio::sync::mpsc;

use super::*;
use crate::harness::{eventually, within_deadline};

/// Notifications of a store that listens by now.
async fn listening(database: &TestDatabase) -> mpsc::Receiver<()> {
    let (ready, mut notified) = mpsc::channel(64);
    let store = database.store.clone();
    tokio::spawn(async move { store.listen(ready).await });
    within_deadline("it listens, and says so", notified.recv()).await.unwrap();
    notified
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_task_and_one_that_is_ready_again_are_announced() {
    let database = database().await;
    let mut notified = listening(&database).await;
    let mut arrives = async |what: &str| {
        within_deadline(what, notified.recv()).await.unwrap();
        // One change may announce itself once only: none is left over for the next.
        assert_eq!(notified.try_recv(), Err(mpsc::error::TryRecvError::Empty), "after {what}");
    };
    database.import(&[call(1, &["one"])]).await;
    arrives("a new task").await;
    let task = claim_one(&database).await;
    let release = Settlement::Release { counted: false };
    database.store.settle(&task.lease, &Failure::Shutdown, &release).await.unwrap();
    arrives("a released task").await;
    bury(&database, &claim_one(&database).await).await;
    database.execute("update fathom_transcripts set text = 'two'").await;
    arrives("a revived dead letter").await;
    let attempt = Attempt::begin(&database, claim_one(&database).await, &["two"]).await.unwrap();
    attempt.insert(&database, &rows(&["two"])).await.unwrap();
    database.execute("update fathom_transcripts set text = 'three'").await;
    assert_eq!(attempt.complete(&database).await, Ok(Completion::Superseded));
    arrives("a superseded task").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listening_ends_when_nobody_wants_to_know() {
    let database = database().await;
    let (ready, notified) = mpsc::channel(1);
    let store = database.store.clone();
    let listening = tokio::spawn(async move { store.listen(ready).await });
    drop(notified);
    let mut recording = 0;
    eventually("it ends", async || {
        recording += 1;
        database.import(&[call(recording, &["one"])]).await;
        listening.is_finished()
    })
    .await;
    assert_eq!(listening.await.unwrap(), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_taken_by_one_of_many_replicas() {
    let database = TestDatabase::new().await;
    let at = database.store.now().await.unwrap();
    for minutes in 0..5 {
        let at = at + TimeDelta::minutes(minutes);
        let takers = (0..10).map(|_| {
            let store = database.store.clone();
            tokio::spawn(async move { store.take_tick("tick", at).await.unwrap() })
        });
        let taken = join_all(takers).await.into_iter().filter(|t| *t.as_ref().unwrap()).count();
        assert_eq!(taken, 1, "tick {minutes}");
    }
    assert!(!database.store.take_tick("tick", at).await.unwrap(), "an earlier one is over");
    assert!(database.store.take_tick("another", at).await.unwrap(), "each schedule for itself");
}

#[tokio::test]
async fn the_store_tells_the_servers_statement_timeout() {
    let database = TestDatabase::new().await;
    assert_eq!(database.store.statement_timeout().await, Ok(None));
    let name = text(&database, "select current_database()::text").await;
    database.execute(&format!("alter database {name} set statement_timeout = '1500ms'")).await;
    let store = embedding_recovery::postgres::PgStore::connect(&database.url, 1).await.unwrap();
    assert_eq!(store.statement_timeout().await, Ok(Some(Duration::from_millis(1_500))));
}
