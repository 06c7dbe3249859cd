//! Collectors, good and bad. Whatever one does, recordings are embedded, a line a minute says what is
//! wrong, and the process ends in time.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{StatusCode, Uri};
use fake_opentelemetry_collector::{ExportedLog, ExportedSpan, FakeCollectorServer};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::dropped::dropped;
use super::serve;
use crate::fakes::openai::FakeOpenAi;
use crate::harness::calls::call;
use crate::harness::program::{end_of, program, run, signal};
use crate::harness::proxy::{Proxy, Upstream, Weather};
use crate::harness::tls::over_tls;
use crate::harness::{TestDatabase, eventually, within_deadline};
use crate::program::metrics::scrape::{Scrape, told_url};

/// The bound of a shutdown, and what a busy machine adds.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3 + 5);
const SOMEBODY: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TROUBLE: &str = "telemetry cannot be delivered";

/// Keeps what is exported, until `enough` has come.
pub(super) async fn receive(
    collector: &mut FakeCollectorServer,
    enough: impl Fn(&[ExportedSpan], &[ExportedLog]) -> bool,
) -> (Vec<ExportedSpan>, Vec<ExportedLog>) {
    let (mut spans, mut logs) = (Vec::new(), Vec::new());
    eventually("the collector has what it should", async || {
        spans.extend(collector.exported_spans(1, Duration::from_millis(20)).await);
        logs.extend(collector.exported_logs(1, Duration::from_millis(20)).await);
        enough(&spans, &logs)
    })
    .await;
    (spans, logs)
}

pub(super) fn is_attempt(span: &ExportedSpan) -> bool {
    span.name == "process recording"
}

/// Runs it to the end; returns what it printed, and the time from `done` until it was gone.
pub(super) async fn run_to_the_end(command: &mut Command) -> (String, Duration) {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = within_deadline("it is done", lines.next_line()).await.unwrap().unwrap();
    assert!(line.starts_with("done: "), "{line}");
    let done = Instant::now();
    let ended = end_of(child).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    (ended.stderr, done.elapsed())
}

/// Two recordings complete, one line says what is wrong, and the end is not held up.
async fn survives(endpoint: &str, protocol: &str) {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3), call(2, 3)]).await;
    let mut command = serve(&database, &fake, endpoint, &["--exit-when-idle"]);
    command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    let (stderr, shutdown) = run_to_the_end(&mut command).await;
    assert!(shutdown < SHUTDOWN_MAX, "{shutdown:?}\n{stderr}");
    let completed = "select count(*) from embedding_queue where status = 'completed'";
    assert_eq!(database.value::<i64>(completed).await, 2, "{stderr}");
    let told: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("telemetry") || line.to_lowercase().contains("export"))
        .collect();
    assert_eq!(told.len(), 1, "{stderr}");
    assert!(told[0].contains("WARN"), "{}", told[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_and_logs_arrive_correlated_and_linked_to_who_enqueued() {
    let mut collector = FakeCollectorServer::start().await.unwrap();
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3)]).await;
    let mut enqueue = database.program(&["enqueue", "--recording", "1"]);
    assert_eq!(run(enqueue.env("TRACEPARENT", SOMEBODY)).await.code, Some(0));
    let json = ["--exit-when-idle", "--log-format", "json"];
    let mut command = serve(&database, &fake, &collector.endpoint(), &json);
    let running = tokio::spawn(async move { run_to_the_end(&mut command).await });
    let is_end = |log: &ExportedLog| log.body.as_deref().is_some_and(|b| b.contains("completed"));
    let (spans, logs) = receive(&mut collector, |spans, logs| {
        spans.iter().any(is_attempt) && logs.iter().any(is_end)
    })
    .await;
    let (stderr, _) = running.await.unwrap();

    let attempt = spans.iter().find(|span| is_attempt(span)).unwrap();
    let requested = attempt.links.iter().find(|link| link.trace_id == SOMEBODY[3..35]);
    assert_eq!(requested.unwrap().attributes.len(), 1, "{attempt:?}");
    let kept = database.value::<String>("select trace_id from embedding_attempts").await;
    assert_eq!(kept, attempt.trace_id);
    let log = logs.iter().find(|log| is_end(log)).unwrap();
    assert_eq!((&log.trace_id, &log.span_id), (&attempt.trace_id, &attempt.span_id), "{log:?}");
    let line = stderr.lines().find(|line| line.contains("\"completed\"")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["trace_id"], *attempt.trace_id, "{line}");
    // A claim that took nothing is no news.
    let claims = spans.iter().filter(|span| span.name == "claim");
    for claim in claims {
        let took = &claim.attributes["messaging.batch.message_count"];
        assert!(!took.contains("(0)"), "{took}");
    }
    // Nothing of what carries telemetry is telemetry.
    for log in &logs {
        let target = format!("{log:?}");
        assert!(!target.contains("h2::") && !target.contains("hyper"), "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pretty_line_of_an_attempt_ends_with_its_trace() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 1)]).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut command = serve(&database, &fake, &format!("http://{nobody}"), &["--exit-when-idle"]);
    let (stderr, _) = run_to_the_end(&mut command).await;
    let trace_id = database.value::<String>("select trace_id from embedding_attempts").await;
    let line = stderr.lines().find(|line| line.contains(" completed ")).unwrap();
    assert!(line.ends_with(&format!(" trace_id={trace_id}")), "{line}");
    assert!(line.contains("process recording{user_id=alice recording_id=1"), "{line}");
    assert!(!line.contains("otel."), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_costs_a_line() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    survives(&format!("http://{nobody}"), "grpc").await;
}

/// A collector that accepts and never answers, until its task is aborted.
pub(super) async fn hang() -> (String, JoinHandle<()>) {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", hanging.local_addr().unwrap());
    let accepting = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = hanging.accept().await {
            held.push(connection);
        }
    });
    (endpoint, accepting)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_a_line() {
    let (endpoint, accepting) = hang().await;
    survives(&endpoint, "grpc").await;
    survives(&endpoint, "http/protobuf").await;
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_answers_500_costs_a_line() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(async || StatusCode::INTERNAL_SERVER_ERROR);
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    survives(&endpoint, "http/protobuf").await;
    survives(&endpoint, "grpc").await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_goes_away_and_comes_back_is_told_both_times_and_gets_what_comes_then() {
    let mut collector = FakeCollectorServer::start().await.unwrap();
    let proxy = Proxy::start(Upstream::Tcp(collector.address())).await;
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut command = serve(&database, &fake, &format!("http://{}", proxy.address), &[]);
    // The one that is being sent when it goes away is given up soon.
    command.env("OTEL_EXPORTER_OTLP_TIMEOUT", "500");
    command.stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
    let child = command.spawn().unwrap();
    let attempted = |recording_id: &'static str| {
        move |spans: &[ExportedSpan], _: &[ExportedLog]| {
            let of_it = |span: &ExportedSpan| {
                span.attributes.get("recording_id").is_some_and(|id| id.contains(recording_id))
            };
            spans.iter().any(|span| is_attempt(span) && of_it(span))
        }
    };
    database.import(&[call(11, 2)]).await;
    receive(&mut collector, attempted("11")).await;
    let metrics = std::fs::read_to_string(&log).unwrap().lines().find_map(told_url).unwrap();
    let before = Scrape::of_service(&metrics).await;
    assert_eq!(["traces", "logs"].map(|signal| dropped(&before, signal)), [0.0, 0.0]);

    proxy.set(Weather::Cut);
    database.import(&[call(22, 2)]).await;
    wait_for_line(&log, TROUBLE).await;
    database.wait_until("select bool_and(status = 'completed') from embedding_queue").await;
    // The attempt, its six steps and the claim; lines of the log are lost with them.
    eventually("what is lost is counted", async || {
        let scrape = Scrape::of_service(&metrics).await;
        dropped(&scrape, "traces") >= 8.0 && dropped(&scrape, "logs") > 0.0
    })
    .await;

    proxy.set(Weather::Fine);
    database.import(&[call(33, 2)]).await;
    receive(&mut collector, attempted("33")).await;
    wait_for_line(&log, "telemetry is delivered again").await;
    signal(&child, "TERM").await;
    assert_eq!(end_of(child).await.code, Some(0));
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(log.matches(TROUBLE).count(), 1, "{log}");
}

async fn wait_for_line(log: &Path, text: &str) {
    eventually(text, async || std::fs::read_to_string(log).unwrap().contains(text)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_behind_tls_is_reached_by_either_protocol_where_its_authority_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let paths = Arc::new(Mutex::new(Vec::new()));
    let seen = paths.clone();
    let app = Router::new().fallback(async move |uri: Uri| {
        seen.lock().unwrap().push(uri.path().to_owned());
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut collector = FakeCollectorServer::start().await.unwrap();
    for (behind, protocol, alpn) in
        [(collector.address(), "grpc", "h2"), (http, "http/protobuf", "http/1.1")]
    {
        let (port, pem) = over_tls(behind, &[alpn]).await;
        let authority = directory.path().join(alpn.replace('/', "-"));
        std::fs::write(&authority, pem).unwrap();
        let database = TestDatabase::new().await;
        let fake = FakeOpenAi::start(8);
        database.import(&[call(1, 1)]).await;
        let endpoint = format!("https://localhost:{port}");
        let mut command = serve(&database, &fake, &endpoint, &["--exit-when-idle"]);
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol).env("SSL_CERT_FILE", authority);
        let (stderr, _) = run_to_the_end(&mut command).await;
        assert!(!stderr.contains(TROUBLE), "{protocol}: {stderr}");
    }
    let spans = collector.exported_spans(1, Duration::from_secs(5)).await;
    assert!(spans.iter().any(is_attempt), "{spans:?}");
    assert!(paths.lock().unwrap().contains(&"/v1/traces".to_owned()), "{paths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_turned_off_is_not_sent_and_no_row_leads_to_a_trace_that_was_not_made() {
    for (name, value, logs) in [
        ("OTEL_TRACES_SAMPLER", "always_off", true),
        ("OTEL_TRACES_EXPORTER", "none", true),
        ("OTEL_SDK_DISABLED", "true", false),
    ] {
        let mut collector = FakeCollectorServer::start().await.unwrap();
        let database = TestDatabase::new().await;
        let fake = FakeOpenAi::start(8);
        database.import(&[call(1, 1)]).await;
        let mut command = serve(&database, &fake, &collector.endpoint(), &["--exit-when-idle"]);
        let (stderr, _) = run_to_the_end(command.env(name, value)).await;
        assert!(!stderr.contains("trace_id"), "{stderr}");
        let moment = Duration::from_millis(50);
        assert_eq!(collector.exported_spans(1, moment).await.len(), 0, "{name}={value}");
        assert_eq!(!collector.exported_logs(1, moment).await.is_empty(), logs, "{name}={value}");
        let traced = "select count(*) from embedding_attempts where trace_id is not null";
        assert_eq!(database.value::<i64>(traced).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_variable_of_opentelemetry_is_named_at_the_start() {
    for (name, value, said) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "begins with http:// or https://"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke", "takes grpc, http/protobuf, not `smoke`"),
        ("OTEL_TRACES_SAMPLER_ARG", "often", "takes a ratio from 0 to 1, not `often`"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "takes a whole number from 1 on, not `0`"),
    ] {
        let ended = run(program(&["serve"]).env(name, value)).await;
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(ended.stderr.contains(&format!("error: {name} ")), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}
