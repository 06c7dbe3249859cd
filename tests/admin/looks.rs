//! What is read, and what is said where it cannot be.

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::ports::inspector::{ActionState, DeadLetter, DeadLetters, Explanation};
use serde_json::{Value, json};

use super::Api;
use crate::fakes::operations::{dead_letter, quiet};
use crate::harness::{eventually, within_deadline};

/// A database that does not answer.
pub(super) fn away() -> Failure {
    Failure::DatabaseUnavailable { message: "connection refused".into() }
}

pub(super) fn explanation(user_id: &str, recording_id: i64) -> Explanation {
    Explanation {
        user_id: user_id.into(),
        recording_id,
        title: Some("Quarterly review".into()),
        segment_count: 812,
        segments_skipped: 3,
        state: Some("dead_letter".into()),
        waits_for: "the next recovery".into(),
        way_out: Some(format!("embedding-recovery recover {recording_id}")),
        worker_id: None,
        lease_ends_at: None,
        next_attempt_at: None,
        last_error: Some("a statement ran into statement_timeout".into()),
        chunks_searchable: 0,
        chunks_stored: 62,
        chunks: 190,
        tokens: 31_000,
        chunks_reused: 62,
        attempts: Vec::new(),
    }
}

#[tokio::test]
async fn the_queue_is_told_as_the_inspector_sees_it() {
    let api = Api::open().await;
    let mut overview = quiet();
    overview.tasks.pending = 12;
    overview.tasks.dead_letter = 3;
    api.operations.state().overview = Some(overview);
    let queue = api.get("/v1/queue").await;
    assert_eq!(queue.status, 200);
    assert_eq!(queue.json["tasks"]["pending"], 12);
    assert_eq!(queue.headers["cache-control"], "no-store");
    let health = api.get("/v1/health").await;
    assert_eq!((health.status.as_u16(), &health.json["state"]), (200, &json!("critical")));
    assert!(health.json["findings"][0]["action"].is_string(), "{}", health.json);
}

#[tokio::test]
async fn dead_letters_are_paged_and_filtered_by_cause() {
    let api = Api::open().await;
    let row = DeadLetter { fingerprint: "a: b".into(), ..dead_letter(7, "Review") };
    api.operations.state().dead_letters =
        DeadLetters { total: 41, groups: Vec::new(), rows: vec![row; 41] };
    let page = api
        .get("/v1/dead-letters?fingerprint=a%3A%20b&user_id=ada&recording_id=7&limit=20&offset=40")
        .await;
    assert_eq!((page.status.as_u16(), &page.json["rows"][0]["segment_count"]), (200, &json!(812)));
    let query = api.operations.state().queries.pop().unwrap();
    assert_eq!((query.fingerprint.as_deref(), query.limit, query.offset), (Some("a: b"), 20, 40));
    assert_eq!((query.user_id.as_deref(), query.recording_id), (Some("ada"), Some(7)));
    for wrong in [
        "recording_id=x",
        "limit=0",
        "limit=501",
        "limit=x",
        "offset=-1",
        "offset=9e9",
        "colour=red",
        "offset=18446744073709551615",
    ] {
        api.get(&format!("/v1/dead-letters?{wrong}")).await.problem(400, "bad-request");
    }
}

#[tokio::test]
async fn a_recording_is_explained_unless_it_is_unknown_or_its_owner_unclear() {
    let api = Api::open().await;
    api.operations.state().explanations =
        vec![explanation("ada", 7), explanation("bob", 7), explanation("ada", 8)];
    let told = api.get("/v1/recordings/8").await;
    assert_eq!((told.status.as_u16(), &told.json["chunks_stored"]), (200, &json!(62)));
    let ambiguous = api.get("/v1/recordings/7").await;
    assert!(ambiguous.problem(409, "ambiguous").contains("ada, bob"));
    assert_eq!(ambiguous.json["users"], json!(["ada", "bob"]));
    let told = api.get("/v1/recordings/7?user_id=bob").await;
    assert_eq!(told.json["user_id"], "bob");
    let unknown = api.get("/v1/recordings/9").await;
    assert!(unknown.problem(404, "unknown-recording").contains("import"));
}

#[tokio::test]
async fn an_id_that_is_no_number_of_a_recording_is_400() {
    let api = Api::open().await;
    for wrong in ["seven", "-7", "+7", "7.0", "9223372036854775808", "0x7", "%20", "7%00", "%FF"] {
        api.get(&format!("/v1/recordings/{wrong}")).await.problem(400, "bad-request");
        api.post(&format!("/v1/recordings/{wrong}/recover"), "").await.problem(400, "bad-request");
    }
    assert_eq!(api.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_database_that_is_away_is_503_and_says_when_to_come_back() {
    let api = Api::open().await;
    api.operations.state().failure = Some(away());
    for path in [
        "/v1/queue",
        "/v1/health",
        "/v1/dead-letters",
        "/v1/recordings/7",
        "/v1/jobs",
        "/v1/runs",
        "/v1/history",
        "/v1/actions/00000000-0000-0000-0000-000000000007",
    ] {
        let answer = api.get(path).await;
        assert!(answer.problem(503, "unavailable").contains("connection refused"), "{path}");
        assert_eq!(answer.headers["retry-after"], "5");
    }
}

#[tokio::test]
async fn an_action_is_followed_by_its_id_and_history_is_told_for_some_hours() {
    let api = Api::open().await;
    let id = uuid::Uuid::from_u128(7);
    let outcome = Some("completed".to_owned());
    let state = ActionState { recordings: 2, ended: 2, completed: 2, outcome };
    api.operations.state().actions = vec![(id, state)];
    let told = api.get(&format!("/v1/actions/{id}")).await;
    assert_eq!((told.status.as_u16(), &told.json["outcome"]), (200, &json!("completed")));
    api.get(&format!("/v1/actions/{}", uuid::Uuid::nil())).await.problem(404, "unknown-action");
    api.get("/v1/actions/seven").await.problem(400, "bad-request");
    assert_eq!(api.get("/v1/history?hours=720").await.json, json!([]));
    for wrong in ["hours=0", "hours=721", "hours=x"] {
        api.get(&format!("/v1/history?{wrong}")).await.problem(400, "bad-request");
    }
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_problems_too() {
    let api = Api::open().await;
    api.get("/v1/nothing").await.problem(404, "not-found");
    api.get("/v1/pause").await.problem(405, "method-not-allowed");
}

#[tokio::test]
async fn the_document_lists_every_operation_with_a_summary_and_its_schemas() {
    let api = Api::locked().await;
    let document = api.get("/openapi.json").await.json;
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    for path in [
        "/v1/queue",
        "/v1/health",
        "/v1/dead-letters",
        "/v1/dead-letters/{id}",
        "/v1/dead-letters/recover",
        "/v1/recordings/{id}",
        "/v1/recordings/{id}/recover",
        "/v1/jobs",
        "/v1/runs",
        "/v1/live",
        "/v1/history",
        "/v1/actions/{id}",
        "/v1/main/run",
        "/v1/recovery/run",
        "/v1/pause",
        "/v1/resume",
    ] {
        assert!(paths.iter().any(|known| *known == path), "{path}: {paths:?}");
    }
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}: {operation}");
        }
    }
    // Each reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        let schema = &document["components"]["schemas"][name];
        assert!(schema.is_object(), "{name} is referred to and not there");
    }
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}

#[tokio::test]
async fn all_pages_are_fed_by_one_look_and_told_when_the_database_goes_and_comes() {
    let api = Api::open().await;
    let open = async || api.client.get(api.url("/v1/live")).send().await.unwrap();
    let (mut first, mut second) = (open().await, open().await);
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    assert_eq!(next(&mut first).await.0, "snapshot");
    assert_eq!(next(&mut second).await.0, "snapshot");
    api.operations.state().failure = Some(away());
    until(&mut first, "trouble").await;
    let told = until(&mut second, "trouble").await;
    assert_eq!(told["type"], "urn:embedding-recovery:unavailable");
    let mut overview = quiet();
    overview.tasks.pending = 41;
    {
        let mut state = api.operations.state();
        state.overview = Some(overview);
        state.failure = None;
    }
    let told = until(&mut second, "snapshot").await;
    assert_eq!(told["overview"]["tasks"]["pending"], 41);
    // Nobody looks any more: nothing is looked at.
    drop((first, second));
    let mut before = u32::MAX;
    eventually("the poller rests", async || {
        let looks = api.operations.state().looks;
        // Twenty of its periods.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        std::mem::replace(&mut before, looks) == looks
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_look_that_gets_no_answer_is_told_as_trouble_and_not_as_live() {
    let api = Api::open().await;
    let mut page = api.client.get(api.url("/v1/live")).send().await.unwrap();
    assert_eq!(next(&mut page).await.0, "snapshot");
    api.operations.state().hangs = true;
    let trouble = within_deadline("trouble", until(&mut page, "trouble")).await;
    let told = trouble["detail"].as_str().unwrap();
    assert!(told.contains("no answer within 10 s"), "{told}");
    api.operations.state().hangs = false;
    until(&mut page, "snapshot").await;
}

/// The next event of a stream: its name and its data.
async fn next(response: &mut reqwest::Response) -> (String, Value) {
    let mut text = String::new();
    // A comment keeps the connection alive; it is no event.
    while !text.ends_with("\n\n") || !text.contains("data:") {
        text.push_str(&String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()));
    }
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    (field("event:"), serde_json::from_str(&field("data:")).unwrap())
}

async fn until(response: &mut reqwest::Response, event: &str) -> Value {
    loop {
        let (name, data) = next(response).await;
        if name == event {
            return data;
        }
    }
}
