//! What is done, and what is said where it is refused.

use chrono::Duration;
use embedding_recovery::domain::recording::RecordingKey;
use embedding_recovery::ports::operator::{Part, Refusal};
use reqwest::Method;

use super::{Api, send};
use crate::fakes::operations::noon;

fn key() -> RecordingKey {
    RecordingKey { user_id: "ada".into(), recording_id: 7 }
}

#[tokio::test]
async fn a_recording_or_a_whole_cause_is_recovered() {
    let api = Api::open().await;
    let answer = api.post("/v1/recordings/7/recover", "").await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json["follow"], "embedding-recovery explain 7");
    api.post("/v1/recordings/7/recover", r#"{"user_id": "ada", "force": true}"#).await;
    let answer = api.post("/v1/dead-letters/recover", r#"{"fingerprint": "a: b"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.json["requested"].as_u64()), (202, Some(3)));
    api.post("/v1/dead-letters/recover", r#"{"force": true}"#).await;
    assert_eq!(
        api.asked(),
        [
            "recover 7 of - by api:loopback",
            "recover 7 of ada with force by api:loopback",
            "recover a: b by api:loopback",
            "recover all with force by api:loopback",
        ]
    );
}

#[tokio::test]
async fn a_request_within_a_trace_says_so_and_one_that_names_none_is_followed_all_the_same() {
    let api = Api::open().await;
    for (path, header) in [
        ("/v1/recordings/7/recover", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("/v1/dead-letters/recover", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
        ("/v1/dead-letters/recover", "a trace"),
    ] {
        let request = api.request(Method::POST, path).header("traceparent", header);
        assert_eq!(send(request).await.status, 202);
    }
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(
        api.asked(),
        [
            format!("recover 7 of - by api:loopback within {trace}"),
            format!("recover all by api:loopback within {trace}"),
            "recover all by api:loopback".into(),
        ]
    );
}

#[tokio::test]
async fn parts_are_run_paused_and_resumed() {
    let api = Api::open().await;
    assert_eq!(api.post("/v1/recovery/run", "").await.status, 202);
    assert!(api.post("/v1/main/run", "").await.json["run_id"].is_string());
    assert_eq!(api.post("/v1/pause", r#"{"part": "both"}"#).await.status, 204);
    assert_eq!(api.post("/v1/resume", r#"{"part": "recovery"}"#).await.status, 204);
    let asked = ["run recovery", "run main", "pause main", "pause recovery", "resume recovery"];
    assert_eq!(api.asked(), asked.map(|what| format!("{what} by api:loopback")));
}

#[tokio::test]
async fn a_dead_letter_is_discarded_with_a_reason_only() {
    let api = Api::open().await;
    let discard =
        |query: &str| send(api.request(Method::DELETE, &format!("/v1/dead-letters/7{query}")));
    discard("").await.problem(400, "bad-request");
    discard("?reason=%20").await.problem(400, "bad-request");
    let answer = discard("?reason=test%20call&user_id=ada").await;
    assert_eq!(answer.status, 200);
    assert!(answer.json["action_id"].is_string());
    assert_eq!(api.asked(), ["discard 7 of ada since test call by api:loopback"]);
}

#[tokio::test]
async fn a_body_that_is_not_what_is_asked_for_is_refused() {
    let api = Api::open().await;
    for body in ["{", "[]", "7", r#"{"forced": true}"#, r#"{"force": "yes"}"#, "\u{0}"] {
        api.post("/v1/recordings/7/recover", body).await.problem(400, "bad-request");
    }
    for body in ["", r#"{"part": "all"}"#] {
        api.post("/v1/pause", body).await.problem(400, "bad-request");
    }
    let large = format!(r#"{{"user_id": "{}"}}"#, "a".repeat(20_000));
    api.post("/v1/recordings/7/recover", &large).await.problem(413, "too-large");
    assert_eq!(api.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_refusal_says_what_is_in_the_way_and_until_when() {
    let api = Api::open().await;
    let refuse = |refusal| api.operations.state().refusal = Some(refusal);
    let recover = || api.post("/v1/recordings/7/recover", "");

    refuse(Refusal::BeingProcessed { key: key(), lease_ends_at: noon() });
    let answer = recover().await;
    assert!(answer.problem(409, "being-processed").contains("its lease ends at 2026-11-25"));
    assert_eq!(answer.json["lease_ends_at"], "2026-11-25T12:00:00Z");

    refuse(Refusal::TriedRecently { key: key(), again_at: noon() + Duration::hours(1) });
    let answer = recover().await;
    answer.problem(409, "tried-recently");
    assert_eq!(answer.json["again_at"], "2026-11-25T13:00:00Z");

    refuse(Refusal::NotDead { key: key(), state: "completed".into() });
    assert!(recover().await.problem(409, "not-dead").contains("with force"));

    refuse(Refusal::UnknownRecording { recording_id: 7 });
    recover().await.problem(404, "unknown-recording");

    refuse(Refusal::Paused { part: Part::Recovery, since: noon(), by: "ada".into() });
    let answer = api.post("/v1/recovery/run", "").await;
    assert!(answer.problem(409, "paused").contains("resume recovery"));

    refuse(Refusal::Failed(super::looks::away()));
    let answer = recover().await;
    answer.problem(503, "unavailable");
    assert_eq!(answer.headers["retry-after"], "5");
}
