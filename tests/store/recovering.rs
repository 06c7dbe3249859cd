//! Recoveries in the queue's own words: what a forced one goes back to, and whom a run that failed holds
//! off.

use std::time::Duration;

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::part::Part;
use embedding_recovery::domain::task::Settlement;
use embedding_recovery::ports::inspector::Inspector;
use embedding_recovery::ports::operator::{Operator, RecoverMany, RecoverRecording};
use embedding_recovery::ports::{ClaimOf, Occasion, Runs, Store};
use uuid::Uuid;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

async fn force(database: &TestDatabase, recording_id: i64) {
    let requested_by = "ann".into();
    let request =
        RecoverRecording { recording_id, user_id: None, force: true, requested_by, trace: None };
    database.store.recover(request).await.unwrap();
}

/// Begins a run and claims what it may.
async fn recover(database: &TestDatabase) -> Vec<Task> {
    recover_by(database, Uuid::new_v4()).await
}

async fn recover_by(database: &TestDatabase, worker: Uuid) -> Vec<Task> {
    let store = &database.store;
    let begun = store.begin_recovery(worker, MODEL, Occasion::Look).await.unwrap();
    let run = begun.run.expect("a run");
    store.claim_recovery(worker, MODEL, &run, 10, LEASE).await.unwrap()
}

#[tokio::test]
async fn a_forced_recovery_that_is_interrupted_leaves_the_task_in_the_state_that_it_had() {
    let database = database().await;
    database.import(&[call(1, &["a"]), call(2, &["b"])]).await;
    let first = claim(&database, ClaimOf::Healthy(2)).await.into_iter();
    for task in first {
        let (failure, settlement) = match task.key.recording_id {
            1 => (Failure::Shutdown, Settlement::Release { counted: false }),
            _ => (Failure::Panicked, Settlement::Retry { after: MINUTE * 10 }),
        };
        assert!(database.store.settle(&task.lease, &failure, &settlement).await.unwrap());
    }
    for recording_id in [1, 2] {
        force(&database, recording_id).await;
    }
    let states =
        "select string_agg(concat_ws(' ', recording_id, status, attempts, dead_letter_reason), ', '
                                    order by recording_id) from embedding_queue";
    let interrupted = Failure::ProviderUnavailable { message: "503".into() };
    for round in 0..2 {
        let tasks = recover(&database).await;
        assert_eq!(tasks.len(), 2, "round {round}");
        for task in &tasks {
            let postponed = Settlement::Postpone { after: MINUTE, counted: true };
            assert!(database.store.settle(&task.lease, &interrupted, &postponed).await.unwrap());
        }
        assert_eq!(text(&database, states).await, "1 pending 0, 2 failed 1");
        let asked = "select count(*) from embedding_queue where recovery_requested is not null
                       and next_retry_at between now() + interval '50 s' and now() + interval '60 s'";
        assert_eq!(number(&database, asked).await, 2, "they are still asked for");
        database.execute("update embedding_queue set next_retry_at = now()").await;
    }
    // The same where the answer to a claim was lost.
    let tasks = recover(&database).await;
    let worker = "select worker_id::text from embedding_queue limit 1";
    let worker: Uuid = text(&database, worker).await.parse().unwrap();
    let part = embedding_recovery::domain::part::Part::Recovery;
    assert_eq!(database.store.release_unknown(worker, part, &[]).await, Ok(tasks.len() as u64));
    assert_eq!(text(&database, states).await, "1 pending 0, 2 failed 1");
    assert_sound(&database).await;
}

#[tokio::test]
async fn a_run_that_failed_alike_holds_off_those_of_its_cause_and_no_others() {
    let database = database().await;
    database.import(&[call(1, &["a"]), call(2, &["b"])]).await;
    let alike = Failure::ProviderRejectsItem { message: "status 500".into() };
    for task in claim(&database, ClaimOf::Healthy(2)).await {
        let failure =
            if task.key.recording_id == 1 { alike.clone() } else { Failure::StatementTimeout };
        let dead = Settlement::DeadLetter { permanent: false };
        assert!(database.store.settle(&task.lease, &failure, &dead).await.unwrap());
    }
    for recording_id in [1, 2] {
        force(&database, recording_id).await;
    }
    let held = database.store.hold_off(MODEL, &alike.fingerprint(), MINUTE).await;
    assert_eq!(held, Ok(1));
    let asked = "select string_agg(recording_id::text, ',') from embedding_queue where recovery_requested is not null";
    assert_eq!(text(&database, asked).await, "2");
    assert_eq!(recover(&database).await.len(), 1);
}

#[tokio::test]
async fn nothing_is_recovered_beside_a_suspect_and_no_suspect_is_claimed_beside_a_recovery() {
    let database = database().await;
    database.import(&[call(1, &["a"])]).await;
    let task = claim_one(&database).await;
    expire(&database, &task).await;
    let retry = Settlement::Retry { after: Duration::ZERO };
    let lost = Failure::LeaseExpired;
    assert!(database.store.settle(&task.lease, &lost, &retry).await.unwrap());
    database.import(&[call(2, &["b"])]).await;
    force(&database, 2).await;
    let worker = Uuid::new_v4();
    let suspects = async || {
        let claimed = database.store.claim(worker, MODEL, ClaimOf::Suspect, LEASE).await;
        claimed.unwrap().tasks
    };
    let suspect = suspects().await.remove(0);
    assert!(recover_by(&database, worker).await.is_empty(), "a recovery began beside a suspect");
    assert!(database.store.settle(&suspect.lease, &Failure::Panicked, &retry).await.unwrap());
    assert_eq!(recover_by(&database, worker).await.len(), 1);
    assert!(suspects().await.is_empty(), "a suspect was claimed beside a recovery");
    // Another worker is another process.
    assert_eq!(claim(&database, ClaimOf::Suspect).await.len(), 1);
}

/// Two dead letters, 1 and 2.
async fn two_dead() -> TestDatabase {
    let database = database().await;
    database.import(&[call(1, &["a"]), call(2, &["b"])]).await;
    for task in claim(&database, ClaimOf::Healthy(2)).await {
        let dead = Settlement::DeadLetter { permanent: false };
        assert!(
            database.store.settle(&task.lease, &Failure::StatementTimeout, &dead).await.unwrap()
        );
    }
    database
}

#[tokio::test]
async fn a_recording_stays_with_whoever_asked_first_and_all_who_asked_are_told_of_its_end() {
    let database = two_dead().await;
    let many = || {
        let requested_by = "ann".into();
        database.store.recover_many(RecoverMany {
            fingerprint: None,
            force: true,
            requested_by,
            trace: None,
        })
    };
    let first = many().await.unwrap();
    force(&database, 1).await;
    let third = many().await.unwrap();
    assert_eq!((first.requested, third.requested), (2, 2));
    let outcomes =
        "select string_agg(coalesce(outcome, '-'), ', ' order by requested_at) from admin_actions";
    assert_eq!(text(&database, outcomes).await, "-, -, -", "an action took over another's");
    for task in recover(&database).await {
        let permanent = Settlement::DeadLetter { permanent: task.key.recording_id == 2 };
        assert!(database.store.settle(&task.lease, &Failure::Panicked, &permanent).await.unwrap());
    }
    let told = text(&database, outcomes).await;
    assert!(told.starts_with("0 of 2 completed, dead_letter: "), "{told}");
    assert!(told.ends_with(", 0 of 2 completed"), "{told}");
    let joined = "select count(*) from embedding_queue where recovery_joined <> '{}'";
    assert_eq!(number(&database, joined).await, 0);
    assert_sound(&database).await;
}

#[tokio::test]
async fn a_run_of_a_process_that_is_gone_ends_and_so_does_what_asked_for_it() {
    let database = database().await;
    let store = &database.store;
    store.run(Part::Main, "ann").await.unwrap();
    let lost = Uuid::new_v4();
    assert!(store.begin_main_run(lost).await.unwrap().is_some());
    // It may not have signed on yet.
    let another = Uuid::new_v4();
    assert_eq!(store.begin_main_run(another).await, Ok(None));
    let ended = "select coalesce((select outcome from admin_actions), '-') || coalesce((select ', ' || stopped_because from runs), '')";
    assert_eq!(text(&database, ended).await, "-");
    database.execute("update runs set started_at = started_at - interval '2 min'").await;
    assert_eq!(store.begin_main_run(another).await, Ok(None));
    let stopped = "stopped: its process ended, its process ended";
    assert_eq!(text(&database, ended).await, stopped);
}

#[tokio::test]
async fn a_deleted_recording_is_found_and_explained_while_its_task_is_open() {
    let database = two_dead().await;
    database.execute("delete from fathom_calls where recording_id = 1").await;
    let store = &database.store;
    let found = store.find(1, None).await.unwrap();
    assert_eq!(found.len(), 1);
    let explanation = store.explain(&found[0]).await.unwrap().expect("an explanation");
    assert_eq!(explanation.state.as_deref(), Some("dead_letter"));
    assert_eq!(explanation.waits_for, "a person: the recording was deleted");
    let way_out = "embedding-recovery discard 1 --reason deleted";
    assert_eq!(explanation.way_out.as_deref(), Some(way_out));
    database.execute("delete from embedding_queue where recording_id = 1").await;
    assert_eq!(store.find(1, None).await, Ok(vec![]));
    assert_eq!(store.explain(&found[0]).await, Ok(None));
}
