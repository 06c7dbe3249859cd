//! The database fails in its own ways: work pauses with what it has and goes on.

use std::time::Duration;

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::ports::Model;
use embedding_recovery::postgres::PgStore;

use super::scene::{Scene, retries};
use crate::fakes::store::{Fault, FaultyStore};
use crate::harness::calls::call;

const STATEMENT_TIMEOUT: Duration = Duration::from_millis(300);

fn unavailable() -> Failure {
    Failure::DatabaseUnavailable { message: "the test says so".into() }
}

/// Gives new connections a `statement_timeout`, and each row for which `condition` holds a time
/// that its insert takes.
async fn slow_inserts(scene: &mut Scene, condition: &str, secs: f64) {
    scene
        .database
        .execute(&format!(
            "create function slow() returns trigger language plpgsql as $$
             begin if {condition} then perform pg_sleep({secs}); end if; return new; end $$;
             create trigger slow before insert on transcript_chunks
                 for each row execute function slow();
             do $$ begin
                 execute format('alter database %I set statement_timeout = {}', current_database());
             end $$",
            STATEMENT_TIMEOUT.as_millis()
        ))
        .await;
    let store = PgStore::connect(&scene.database.url, 12).await.unwrap();
    scene.store = FaultyStore::new(store);
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_that_run_into_statement_timeout_are_halved_and_no_attempt_is_lost() {
    let dimensions = 1_536;
    let mut scene = Scene::with(dimensions, 64).await;
    // 50 rows take 1 s at least, 12 less than the time-out.
    slow_inserts(&mut scene, "true", 0.02).await;
    scene.database.import(&[call(1, 70), call(2, 20)]).await;
    let mut settings = scene.settings();
    settings.model = Model { dimensions, ..settings.model };
    settings.statement_timeout = Some(STATEMENT_TIMEOUT);
    let tree = scene.database.serve(settings).await;
    let index = "select count(*) = 1 from pg_indexes where indexdef like '%hnsw%'";
    assert!(scene.database.value::<bool>(index).await);
    scene.database.wait_until_settled(&tree).await;
    for (recording_id, chunks) in [(1, 70), (2, 20)] {
        assert_eq!(scene.task(recording_id).await.summary(), ("completed", 1, 0));
        assert_eq!(scene.attempts(recording_id).await, ["completed"]);
        assert_eq!(scene.searchable(recording_id).await, chunks);
    }
    assert_eq!(scene.bought_once(), 90);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_slow_by_itself_uses_the_recordings_attempts() {
    let mut scene = Scene::new().await;
    slow_inserts(&mut scene, "new.chunk_text like '%call1turn2 %'", 1.0).await;
    scene.database.import(&[call(1, 4), call(2, 4)]).await;
    let tree = scene.serve().await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (1, 1));
    assert_eq!(scene.task(1).await.summary(), ("dead_letter", 4, 0));
    assert_eq!(scene.attempts(1).await[..3], ["retry statement_timeout"; 3]);
    assert_eq!(scene.attempts(1).await[3], "dead_letter statement_timeout");
    assert_eq!(scene.attempts(2).await, ["completed"]);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_terminated_under_it_cost_no_attempt_and_nothing_is_bought_twice() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 12), call(2, 12)]).await;
    scene.fake.hold();
    let tree = scene.serve().await;
    scene.fake.wait_for_requests(2).await;
    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and application_name = 'embedding-recovery'";
    assert!(scene.database.value::<i64>(terminate).await > 0);
    scene.fake.release();
    scene.database.wait_until("select exists (select from transcript_chunks)").await;
    scene.database.value::<i64>(terminate).await;
    scene.database.wait_until_settled(&tree).await;
    for recording_id in [1, 2] {
        assert_eq!(scene.task(recording_id).await.summary(), ("completed", 1, 0));
        assert_eq!(scene.attempts(recording_id).await, ["completed"]);
    }
    assert_eq!(scene.bought_once(), 24);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_waits_out_a_database_that_is_unavailable() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    let steps = ["claim", "renew", "load", "open_chunk_set", "insert_chunks", "complete"];
    for step in steps {
        scene.store.fail(step, 2, Fault::Fail(unavailable()));
    }
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    for step in steps.iter().filter(|step| **step != "renew") {
        assert_eq!(scene.store.struck(step), 2, "{step}");
    }
    assert_eq!(scene.task(1).await.summary(), ("completed", 1, 0));
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!(scene.bought_once(), 6);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_a_stall_is_no_stall() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 2)]).await;
    let mut settings = scene.settings();
    settings.stall = Duration::from_secs(4);
    scene.store.fail("insert_chunks", usize::MAX, Fault::Fail(unavailable()));
    let tree = scene.database.serve(settings).await;
    // Seven tries take six seconds: the Supervisor has looked for stalls in between.
    scene.store.wait_until_struck("insert_chunks", 7).await;
    scene.store.recover();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!(scene.bought_once(), 2);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_change_nothing() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6), call(2, 3)]).await;
    scene.embedder.panic_over("call2turn0 ", 3);
    for step in ["open_chunk_set", "insert_chunks", "complete", "settle"] {
        scene.store.fail(step, 1, Fault::LoseReply(unavailable()));
    }
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    for step in ["open_chunk_set", "insert_chunks", "complete", "settle"] {
        assert_eq!(scene.store.struck(step), 1, "{step}");
    }
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!(scene.attempts(2).await, ["retry panicked", "completed"]);
    assert_eq!((scene.searchable(1).await, scene.searchable(2).await), (6, 3));
    assert_eq!(scene.bought_once(), 9);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_claim_whose_answer_was_lost_are_claimed_anew_and_blamed_for_nothing() {
    for fault in [Fault::LoseReply(unavailable()), Fault::PanicAfter] {
        let scene = Scene::new().await;
        scene.database.import(&[call(1, 3)]).await;
        let tree = scene.serve().await;
        scene.database.wait_until_settled(&tree).await;
        scene.store.fail("claim", 1, fault);
        scene.database.import(&[call(2, 3)]).await;
        scene.database.wait_until_settled(&tree).await;
        assert_eq!(scene.store.struck("claim"), 1);
        assert_eq!(scene.attempts(2).await, ["released", "completed"]);
        let task = scene.task(2).await;
        assert_eq!((task.summary(), task.crashes), (("completed", 1, 0), 0));
        scene.end(tree).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_the_database_refuses_is_kept_and_sent_again() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.embedder.panic_over("call1turn0 ", 3);
    let refusal = Failure::DatabaseRefuses { message: "the test says so".into() };
    scene.store.fail("settle", 1, Fault::Fail(refusal));
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.store.struck("settle"), 1);
    assert_eq!(scene.attempts(1).await, ["retry panicked", "completed"]);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_hangs_is_ended_and_tried_again() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3), call(2, 3)]).await;
    scene.store.fail("load", 1, Fault::Hang);
    let mut settings = scene.settings();
    settings.stall = Duration::from_millis(500);
    settings.retry = retries(Duration::from_millis(50));
    let tree = scene.database.serve(settings).await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!(counts.completed, 2);
    let mut attempts = [scene.attempts(1).await, scene.attempts(2).await];
    attempts.sort_by_key(Vec::len);
    assert_eq!(attempts[0], ["completed"], "the neighbour is left alone");
    assert_eq!(attempts[1], ["retry stalled", "completed"]);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_is_no_stall_while_rows_are_stored() {
    const CHUNKS: usize = 128;
    let mut scene = Scene::with(8, CHUNKS).await;
    // One row a statement, two statements at once: some ten seconds for one request's rows.
    slow_inserts(&mut scene, "true", 0.15).await;
    scene.database.import(&[call(1, CHUNKS)]).await;
    let mut settings = scene.settings();
    settings.insert_rows = 1;
    settings.inserts_in_flight = 2;
    settings.statement_timeout = Some(STATEMENT_TIMEOUT);
    settings.stall = Duration::from_secs(4);
    let tree = scene.database.serve(settings).await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!(scene.bought_once(), CHUNKS);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_never_end_hold_nothing_up_for_ever() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3), call(2, 3)]).await;
    scene.embedder.panic_over("call2turn0 ", 3);
    let steps = ["claim", "insert_chunks", "settle", "expired", "delete_dead_chunks", "now"];
    for step in steps {
        scene.store.fail(step, 1, Fault::Hang);
    }
    scene.store.fail("insert_chunks", 2, Fault::Hang);
    let mut settings = scene.settings();
    settings.lease = Duration::from_secs(3);
    settings.stall = Duration::from_secs(4);
    let tree = scene.database.serve(settings).await;
    for step in steps {
        scene.store.wait_until_struck(step, 1).await;
    }
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!(scene.attempts(2).await, ["retry panicked", "completed"]);
    assert_eq!(scene.bought_once(), 6);
    scene.end(tree).await;
}
