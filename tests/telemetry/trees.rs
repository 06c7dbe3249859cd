//! The trace of an attempt, span by span: how each hangs below the attempt across the mailboxes, what
//! it says, and what it links to.

use std::sync::Arc;
use std::time::Duration;

use embedding_recovery::actors::TreeSettings;
use embedding_recovery::domain::trace::Traceparent;
use embedding_recovery::embedders::traced::TracedEmbedder;
use embedding_recovery::ports::operator::{Operator, RecoverRecording};
use embedding_recovery::ports::{ClaimOf, Store};
use embedding_recovery::telemetry::spans::Provider;
use opentelemetry::trace::Status;
use uuid::Uuid;

use super::received::{Received, UNTROUBLED, attribute, attributes, number};
use crate::fakes::openai::Reply;
use crate::harness::calls::call;
use crate::harness::eventually;
use crate::harness::service::MODEL;
use crate::pipeline::scene::{Scene, is_call};

const SOMEBODY: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn settings(scene: &Scene) -> TreeSettings {
    let provider = Provider {
        name: "openai".into(),
        model: MODEL.into(),
        server: Some(("api.example.com".into(), Some(443))),
    };
    let embedder = Arc::new(TracedEmbedder::new(scene.embedder.clone(), provider));
    TreeSettings { embedder, ..scene.settings() }
}

fn request() -> Option<Traceparent> {
    Traceparent::parse(SOMEBODY)
}

/// The spans of the ended attempts come when the last who holds them lets go.
async fn wait_for_attempts(received: &Received, recording_id: i64, count: usize) {
    eventually("the attempts are exported", async || {
        received.attempts(recording_id).len() == count
    })
    .await;
}

#[tokio::test]
async fn a_good_recording_is_one_trace_that_tells_every_step_in_order() {
    let received = Received::start();
    let scene = Scene::new().await;
    // Six chunks at four inputs a request.
    scene.database.import(&[call(1, 6)]).await;
    let tree = scene.database.serve(settings(&scene)).await;
    scene.database.wait_until_settled(&tree).await;
    wait_for_attempts(&received, 1, 1).await;
    scene.end(tree).await;

    let attempt = received.attempts(1).remove(0);
    assert_eq!(
        received.tree(&attempt),
        [
            "process recording consumer",
            "  load transcript client",
            "  chunk",
            "  open chunk set client",
            "  embeddings test-model client",
            "  store chunks client",
            "  embeddings test-model client",
            "  store chunks client",
            "  complete client",
        ]
    );
    let set = "select id::text from chunk_sets where state = 'current'";
    let chunk_set = scene.database.value::<String>(set).await;
    let said = attributes(&attempt);
    for (name, value) in [
        ("user_id", "alice"),
        ("recording_id", "1"),
        ("attempt", "1"),
        ("part", "main"),
        ("outcome", "completed"),
        ("chunks", "6"),
        ("chunks_reused", "0"),
        ("chunk_set", &chunk_set),
        ("messaging.system", "postgresql"),
        ("messaging.destination.name", "embedding_queue"),
        ("messaging.operation.type", "process"),
    ] {
        assert_eq!(said.get(name).map(String::as_str), Some(value), "{name} of {said:?}");
    }
    let spans = received.spans();
    let first = |name: &str| attributes(spans.iter().find(|span| span.name == name).unwrap());
    let embeddings = first("embeddings test-model");
    for (name, value) in [
        ("gen_ai.operation.name", "embeddings"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "test-model"),
        ("gen_ai.embeddings.dimension.count", "8"),
        ("server.address", "api.example.com"),
        ("server.port", "443"),
        ("inputs", "4"),
    ] {
        assert_eq!(embeddings.get(name).map(String::as_str), Some(value), "{name}: {embeddings:?}");
    }
    assert!(embeddings["gen_ai.usage.input_tokens"].parse::<u64>().unwrap() > 1_000);
    let store = first("store chunks");
    for (name, value) in [
        ("db.system.name", "postgresql"),
        ("db.operation.name", "INSERT"),
        ("db.operation.batch.size", "4"),
        ("batch_size.before", "50"),
    ] {
        assert_eq!(store.get(name).map(String::as_str), Some(value), "{name} of {store:?}");
    }
    assert!(store["batch_size.after"].parse::<u64>().unwrap() >= 50, "{store:?}");

    for (span, name) in [
        ("process recording", "attempt"),
        ("process recording", "chunks"),
        ("embeddings test-model", "gen_ai.usage.input_tokens"),
        ("store chunks", "db.operation.batch.size"),
    ] {
        let span = spans.iter().find(|known| known.name == span).unwrap();
        assert!(number(span, name) > Some(0), "{name} is no number: {span:?}");
    }

    // Libraries have spans too, which are no part of this story.
    let steps = received.tree(&attempt).len();
    let others = spans.len() - steps;
    assert_eq!(spans.iter().filter(|span| span.name == "claim").count(), others, "{spans:#?}");
    // The claim is a trace of its own, and says how many it took.
    assert_eq!(received.links(&attempt), ["claim -> claim"]);
    let claims = spans.iter().filter(|span| span.name == "claim");
    let counts: Vec<String> =
        claims.map(|span| attribute(span, "messaging.batch.message_count")).collect();
    assert!(counts.contains(&"1".to_owned()), "{counts:?}");
    // The row leads to the trace.
    let kept = "select concat(trace_id, ' ', split_part(traceparent::text, '-', 3)) from embedding_attempts";
    let context = &attempt.span_context;
    let expected = format!("{} {}", context.trace_id(), context.span_id());
    assert_eq!(scene.database.value::<String>(kept).await, expected);
}

#[tokio::test]
async fn a_panic_ends_its_step_with_an_error_and_the_next_run_is_told_by_the_same_trace() {
    let received = Received::start();
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 2)]).await;
    scene.embedder.panic_over("call1turn0 ", 1);
    let tree = scene.database.serve(settings(&scene)).await;
    scene.database.wait_until_settled(&tree).await;
    wait_for_attempts(&received, 1, 1).await;
    scene.end(tree).await;

    let attempt = received.attempts(1).remove(0);
    assert_eq!(
        received.tree(&attempt),
        [
            "process recording consumer",
            "  load transcript client",
            "  chunk",
            "  open chunk set client",
            "  embeddings test-model client !panicked",
            "  load transcript client",
            "  chunk",
            "  open chunk set client",
            "  embeddings test-model client",
            "  store chunks client",
            "  complete client",
        ]
    );
    assert_eq!(attribute(&attempt, "outcome"), "completed");
    let restarts = attempt.events.iter().filter(|event| event.name.contains("restarted in place"));
    assert_eq!(restarts.count(), 1, "{:?}", attempt.events);
}

#[tokio::test]
async fn a_retry_is_a_trace_of_its_own_that_links_to_the_attempt_before_it() {
    let received = Received::start();
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 2)]).await;
    // As often as it is restarted in place, and once more.
    scene.embedder.panic_over("call1turn0 ", 3);
    let tree = scene.database.serve(settings(&scene)).await;
    scene.database.wait_until_settled(&tree).await;
    wait_for_attempts(&received, 1, 2).await;
    scene.end(tree).await;

    let attempts = received.attempts(1);
    let run = [
        "  load transcript client",
        "  chunk",
        "  open chunk set client",
        "  embeddings test-model client !panicked",
    ];
    let mut failed = vec!["process recording consumer !panicked"];
    failed.extend([run, run, run].concat());
    failed.push("  settle client");
    assert_eq!(received.tree(&attempts[0]), failed);
    assert_eq!(attribute(&attempts[0], "outcome"), "retried");
    assert_eq!(received.tree(&attempts[1]), UNTROUBLED);
    let [number, outcome] = ["attempt", "outcome"].map(|name| attribute(&attempts[1], name));
    assert_eq!((&*number, &*outcome), ("2", "completed"));
    let links = received.links(&attempts[1]);
    assert_eq!(links, ["claim -> claim", "previous attempt -> process recording"]);
    let linked = attempts[1].links.iter().map(|link| link.span_context.span_id());
    assert!(linked.into_iter().any(|id| id == attempts[0].span_context.span_id()));
}

#[tokio::test]
async fn a_recovery_links_to_the_attempt_that_failed_and_to_who_asked_for_it() {
    let received = Received::start();
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 1)]).await;
    scene.fake.on(is_call(1), Reply::error(400, "invalid_input", "not this one"));
    let tree = scene.database.serve(settings(&scene)).await;
    scene.wait_for_task(1, |task| task.status == "dead_letter").await;
    wait_for_attempts(&received, 1, 1).await;
    scene.fake.recover();
    let recover = RecoverRecording {
        recording_id: 1,
        user_id: None,
        force: true,
        requested_by: "a test".into(),
        trace: request(),
    };
    scene.database.store.recover(recover).await.unwrap();
    scene.database.wait_until_settled(&tree).await;
    wait_for_attempts(&received, 1, 2).await;
    scene.end(tree).await;

    let attempts = received.attempts(1);
    let dead = received.tree(&attempts[0]);
    assert_eq!(
        dead,
        [
            "process recording consumer !chunk_refused",
            "  load transcript client",
            "  chunk",
            "  open chunk set client",
            "  embeddings test-model client !request_refused",
            // The probe, which tells whose fault it is.
            "  embeddings test-model client",
            "  settle client",
        ]
    );
    assert_eq!(attribute(&attempts[0], "outcome"), "dead_lettered");
    assert!(
        matches!(&attempts[0].status, Status::Error { description } if !description.is_empty())
    );
    let recovery = &attempts[1];
    assert_eq!(received.tree(recovery), UNTROUBLED);
    assert_eq!(
        (attribute(recovery, "part"), attribute(recovery, "outcome")),
        ("recovery".into(), "completed".into())
    );
    assert_eq!(
        received.links(recovery),
        [
            "claim -> claim",
            "previous attempt -> process recording",
            "request -> 4bf92f3577b34da6a3ce929d0e0e4736",
        ]
    );
    let kept = "select traceparent::text from admin_actions";
    assert_eq!(scene.database.value::<String>(kept).await, SOMEBODY);
}

#[tokio::test]
async fn the_attempt_after_a_dead_worker_links_to_the_one_that_died() {
    let received = Received::start();
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 1)]).await;
    let settings = TreeSettings { lease: Duration::from_secs(2), ..settings(&scene) };
    scene.database.store.use_model(&settings.model).await.unwrap();
    let store = &scene.database.store;
    let lease = Duration::from_millis(1);
    let claimed = store.claim(Uuid::new_v4(), MODEL, ClaimOf::Healthy(1), lease).await.unwrap();
    store.note_trace(&claimed.tasks[0].lease, &request().unwrap()).await.unwrap();
    let tree = scene.database.serve(settings).await;
    scene.database.wait_until_settled(&tree).await;
    wait_for_attempts(&received, 1, 1).await;
    scene.end(tree).await;
    let links = received.links(&received.attempts(1)[0]);
    assert_eq!(links, ["claim -> claim", "previous attempt -> 4bf92f3577b34da6a3ce929d0e0e4736"]);
}

#[tokio::test]
async fn an_attempt_that_a_stop_interrupts_says_why_and_is_no_failure() {
    let received = Received::start();
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 1)]).await;
    scene.fake.on(is_call(1), Reply::Hang);
    let tree = scene.database.serve(settings(&scene)).await;
    scene.fake.wait_for_requests(1).await;
    tree.stop(Duration::from_millis(100)).await;
    wait_for_attempts(&received, 1, 1).await;
    let attempt = received.attempts(1).remove(0);
    let why = (attribute(&attempt, "outcome"), attribute(&attempt, "error.type"));
    assert_eq!(why, ("released".into(), "shutdown".into()));
    assert_eq!(attempt.status, Status::Unset);
}

#[tokio::test]
async fn a_wait_for_the_rate_limit_and_a_repetition_are_events_of_the_request() {
    let received = Received::start();
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 1)]).await;
    let retry_after = Duration::from_millis(10);
    scene.fake.script([Reply::RateLimited { retry_after }, Reply::HtmlError]);
    let tree = scene.database.serve(settings(&scene)).await;
    scene.database.wait_until_settled(&tree).await;
    wait_for_attempts(&received, 1, 1).await;
    scene.end(tree).await;
    let spans = received.spans();
    let requests: Vec<_> =
        spans.iter().filter(|span| span.name == "embeddings test-model").collect();
    assert_eq!(requests.len(), 1, "{requests:?}");
    let events: Vec<&str> = requests[0].events.iter().map(|event| &*event.name).collect();
    assert_eq!(events, ["rate limited", "a request failed and is repeated"]);
    assert_eq!(requests[0].status, Status::Unset);
}
