//! What an administrator asks for, while any number of trees serve.

use std::sync::Arc;
use std::time::Duration;

use embedding_recovery::domain::part::Part;
use embedding_recovery::ports::inspector::Inspector;
use embedding_recovery::ports::operator::{Operator, RecoverMany, RecoverRecording, Refusal};

use super::recovery::forty_dead_letters;
use super::scene::{Scene, is_turn};
use crate::fakes::openai::Reply;
use crate::harness::calls::call;
use crate::harness::{eventually, within_deadline};

fn recover(recording_id: i64, force: bool) -> RecoverRecording {
    RecoverRecording {
        recording_id,
        user_id: None,
        force,
        requested_by: "a test".into(),
        trace: None,
    }
}

fn everything() -> RecoverMany {
    RecoverMany { fingerprint: None, force: true, requested_by: "a test".into(), trace: None }
}

/// One dead letter, 1, and one complete recording, 2. The provider is well again.
async fn one_dead_letter() -> Scene {
    let scene = Scene::new().await;
    scene.fake.on(is_turn(1, 1), Reply::error(500, "server_error", "The server had an error."));
    scene.database.import(&[call(1, 3), call(2, 2)]).await;
    scene.database.execute("update embedding_queue set max_attempts = 1").await;
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    tree.stop(Duration::from_secs(5)).await;
    scene.fake.recover();
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn five_trees_that_recover_the_same_forty_at_once_recover_each_once() {
    let scene = forty_dead_letters().await;
    let mut trees = Vec::new();
    for _ in 0..5 {
        trees.push(scene.serve().await);
    }
    let store = scene.database.store.clone();
    let asking = (0..trees.len()).map(|_| store.recover_many(everything()));
    for asked in futures::future::join_all(asking).await {
        asked.unwrap();
    }
    scene.database.wait_until("select bool_and(status = 'completed') from embedding_queue").await;
    let once = "select count(*) from embedding_attempts where part = 'recovery' and 0 < $1";
    assert_eq!(scene.count(once, 1).await, 40);
    assert_eq!(scene.bought_once(), 60 * 3);
    eventually("every action has its outcome", async || {
        scene
            .database
            .value::<bool>("select bool_and(outcome is not null) from admin_actions")
            .await
    })
    .await;
    for tree in trees {
        tree.stop(Duration::from_secs(5)).await;
    }
    scene.database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_recovered_on_demand_and_within_the_hour_only_with_force() {
    let scene = one_dead_letter().await;
    let tree = scene.serve().await;
    let operator = &scene.database.store;
    let refused = operator.recover(recover(1, false)).await.unwrap_err();
    assert!(matches!(refused, Refusal::TriedRecently { .. }), "{refused}");
    let recovering = operator.recover(recover(1, true)).await.unwrap();
    assert!(recovering.found.starts_with("dead_letter after 1 attempts, 2 chunks stored: "));
    scene.wait_for_task(1, |task| task.status == "completed").await;
    assert_eq!(scene.bought_once(), 5);
    let state = scene.database.store.action(recovering.action_id).await.unwrap().unwrap();
    assert_eq!((state.completed, state.outcome.as_deref()), (1, Some("completed")));
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_its_reason_and_is_kept() {
    let scene = one_dead_letter().await;
    let store = &scene.database.store;
    let unknown = store.recover(recover(77, true)).await.unwrap_err();
    assert_eq!(unknown, Refusal::UnknownRecording { recording_id: 77 });
    let not_dead = store.recover(recover(2, false)).await.unwrap_err();
    assert!(matches!(&not_dead, Refusal::NotDead { state, .. } if state == "not queued"));
    store.pause(Part::Recovery, "ann").await.unwrap();
    let paused = store.recover(recover(1, true)).await.unwrap_err();
    assert!(matches!(&paused, Refusal::Paused { by, .. } if by == "ann"), "{paused}");
    store.resume(Part::Recovery, "ann").await.unwrap();
    let kept = "select string_agg(action || ' by ' || requested_by || ': ' || left(outcome, 7), ', ' order by requested_at) from admin_actions";
    assert_eq!(
        scene.database.value::<String>(kept).await,
        "recover by a test: refused, recover by a test: refused, pause by ann: paused, \
         recover by a test: refused, resume by ann: resumed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_under_a_live_lease_is_refused_even_with_force() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.fake.hold();
    let tree = scene.serve().await;
    scene.fake.wait_for_requests(1).await;
    let refused = scene.database.store.recover(recover(1, true)).await.unwrap_err();
    assert!(matches!(refused, Refusal::BeingProcessed { .. }), "{refused}");
    scene.fake.release();
    scene.database.wait_until_settled(&tree).await;
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_force_a_complete_recording_is_bought_anew_and_searchable_meanwhile() {
    let scene = one_dead_letter().await;
    let tree = scene.serve().await;
    scene.database.store.recover(recover(2, true)).await.unwrap();
    let again =
        "select count(*) = 2 from embedding_queue where recording_id = 2 and status = 'completed'";
    scene.database.wait_until(again).await;
    let bought = scene.fake.bought().iter().filter(|text| text.contains("call2turn")).count();
    assert_eq!((bought, scene.searchable(2).await), (4, 2));
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_begun_of_a_part_that_is_paused_until_it_is_resumed() {
    let scene = one_dead_letter().await;
    let store = scene.database.store.clone();
    for part in Part::ALL {
        store.pause(part, "ann").await.unwrap();
    }
    scene.database.import(&[call(3, 1)]).await;
    let mut settings = scene.settings();
    settings.recovery.schedule = "* * * * * *".parse().unwrap();
    let tree = scene.database.serve(settings).await;
    let ticked = "select count(*) > 0 from schedules where name like 'recovery %' and last_tick > '-infinity'";
    scene.database.wait_until(ticked).await;
    assert_eq!(scene.attempts(3).await, [""; 0]);
    assert_eq!(scene.task(1).await.status, "dead_letter");
    let operator = &store;
    let refused = operator.run(Part::Main, "bob").await.unwrap_err();
    assert!(matches!(refused, Refusal::Paused { .. }));
    for part in Part::ALL {
        operator.resume(part, "ann").await.unwrap();
    }
    scene.database.wait_until("select bool_and(status = 'completed') from embedding_queue").await;
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_asked_for_is_carried_out_and_its_outcome_kept() {
    let scene = one_dead_letter().await;
    let tree = scene.serve().await;
    for part in Part::ALL {
        let run = scene.database.store.run(part, "ann").await.unwrap();
        let action = scene.database.store.action_of_run(run).await.unwrap().unwrap();
        let ended = async {
            loop {
                let state = scene.database.store.action(action).await.unwrap().unwrap();
                if let Some(outcome) = state.outcome {
                    return outcome;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let outcome = within_deadline("the run ends", ended).await;
        let taken = if part == Part::Main { 0 } else { 1 };
        assert_eq!(outcome, format!("{taken} taken, {taken} completed, 0 failed"));
    }
    assert_eq!(scene.task(1).await.status, "completed");
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_not_queued_again_before_its_transcript_changes() {
    let scene = one_dead_letter().await;
    let store = &scene.database.store;
    store.discard(1, None, "nobody needs it", "ann").await.unwrap();
    let model = scene.settings().model;
    assert_eq!(embedding_recovery::ports::Store::reconcile(store, &model, 10).await.unwrap(), 0);
    let kept = "select detail -> 'task' ->> 'status' from admin_actions where action = 'discard'";
    assert_eq!(scene.database.value::<String>(kept).await, "dead_letter");
    let edit =
        "update fathom_transcripts set edited_text = 'something else' where recording_id = 1";
    scene.database.execute(edit).await;
    let tree = scene.serve().await;
    scene.wait_for_task(1, |task| task.status == "completed").await;
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_too_slow_for_every_row_alone_succeeds_with_the_patience_of_a_recovery() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene
        .database
        .execute(
            "update embedding_queue set max_attempts = 1;
             create function be_slow() returns trigger language plpgsql as $$
             begin perform pg_sleep(0.6); return new; end $$;
             create trigger slow before insert on transcript_chunks for each row execute function be_slow()",
        )
        .await;
    let url = scene.database.url_of_role("set statement_timeout = '500ms'").await;
    let store = embedding_recovery::postgres::PgStore::connect(&url, 12).await.unwrap();
    let mut settings = scene.settings();
    settings.store = Arc::new(store.clone());
    settings.statement_timeout = Some(Duration::from_millis(500));
    let tree = scene.database.serve(settings).await;
    let dead = scene.wait_for_task(1, |task| task.status == "dead_letter").await;
    assert_eq!(dead.failure_class.as_deref(), Some("statement_timeout"));
    store.recover(recover(1, true)).await.unwrap();
    scene.wait_for_task(1, |task| task.status == "completed").await;
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_of_many_chunks_is_stored_patiently_from_its_first_attempt() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 8), call(2, 2)]).await;
    scene
        .database
        .execute(
            "create function be_slow() returns trigger language plpgsql as $$
             begin if new.recording_id = 1 then perform pg_sleep(0.3); end if; return new; end $$;
             create trigger slow before insert on transcript_chunks for each row execute function be_slow()",
        )
        .await;
    let url = scene.database.url_of_role("set statement_timeout = '250ms'").await;
    let store = embedding_recovery::postgres::PgStore::connect(&url, 12).await.unwrap();
    let mut settings = scene.settings();
    settings.store = Arc::new(store);
    settings.statement_timeout = Some(Duration::from_millis(250));
    settings.recovery.small_batches_above = 7;
    let tree = scene.database.serve(settings).await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!(scene.searchable(1).await, 8);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_runs_that_were_asked_for_are_carried_out_also_where_one_notification_tells_of_them() {
    let scene = one_dead_letter().await;
    for _ in 0..3 {
        scene.database.store.run(Part::Main, "ann").await.unwrap();
    }
    let tree = scene.serve().await;
    let ended = "select count(*) = 3 and bool_and(outcome is not null) from admin_actions";
    scene.database.wait_until(ended).await;
    scene.end(tree).await;
}
