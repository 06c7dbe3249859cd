//! Metrics as they leave the process: names, units, descriptions, and values that are what was done.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use embedding_recovery::domain::packing::estimate_tokens;
use embedding_recovery::embedders::openai::PROBE_TEXT;
use embedding_recovery::ports::operator::{Operator, RecoverRecording};
use embedding_recovery::telemetry::metrics::names::{self, Kind};
use embedding_recovery::telemetry::{self, LogFormat};
use fake_opentelemetry_collector::FakeCollectorServer;
use tokio::process::Command;

use super::measured::{Histogram, Measured, in_millionths};
use super::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::program::{end_of, signal};
use crate::pipeline::scene::{Scene, is_call, is_turn};

/// USD; no price of anybody's.
const PRICE_PER_MILLION: f64 = 50.0;
/// Of the answer of [`Reply::with_limits`].
const TOKENS_OF_THE_FIRST_PROBE: usize = 4;
/// Of the semantic conventions, as they are there.
const GEN_AI_SECS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// Likewise: powers of four.
const GEN_AI_TOKENS: [f64; 14] = [
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
];

/// Whether the inputs fit, for so many times.
fn times(
    times: usize,
    fits: impl Fn(&[String]) -> bool + Send + Sync,
) -> impl Fn(&[String]) -> bool + Send + Sync {
    let left = AtomicUsize::new(times);
    move |inputs| {
        let less = |left: usize| left.checked_sub(1);
        fits(inputs) && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// A call that is embedded, and again when it was edited, which meets a rate limit; one with a chunk whose
/// vector is none until its first attempt is over; one that is refused until it is recovered. Three are
/// there before the service, which is told to stop when all is done.
async fn run(database: &TestDatabase, fake: &FakeOpenAi, command: &mut Command) {
    fake.script([Reply::with_limits()]);
    let limited = Reply::RateLimited { retry_after: Duration::from_millis(50) };
    // When nothing else is under way, whose probes would meet the pause.
    fake.on(times(1, |inputs| inputs.iter().any(|input| input.contains("edited"))), limited);
    // All six, then ever fewer: three, two, and the one.
    fake.on(times(4, is_turn(2, 5)), Reply::NaN);
    fake.on(is_call(3), Reply::error(400, "invalid_input", "not this one"));
    database.import(&[call(1, 6), call(2, 6), call(3, 1)]).await;

    let child = command.stderr(Stdio::null()).spawn().unwrap();
    let ended = "select count(*) filter (where status = 'completed') = 2
        and count(*) filter (where status = 'dead_letter') = 1 from embedding_queue";
    database.wait_until(ended).await;
    let edit = "update fathom_transcripts
        set edited_text = replace(text, 'call1turn2 ', 'call1turn2 edited ')
        where recording_id = 1 and text like '%call1turn2 %'";
    database.execute(edit).await;
    database
        .wait_until("select count(*) = 3 from embedding_queue where status = 'completed'")
        .await;
    fake.recover();
    let recover = RecoverRecording {
        recording_id: 3,
        user_id: None,
        force: true,
        requested_by: "a test".into(),
        trace: None,
    };
    database.store.recover(recover).await.unwrap();
    database.wait_until("select bool_and(status = 'completed') from embedding_queue").await;
    signal(&child, "TERM").await;
    assert_eq!(end_of(child).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_a_run_arrives_with_its_name_and_unit_and_says_what_was_done() {
    let mut collector = FakeCollectorServer::start().await.unwrap();
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(8));
    let price = PRICE_PER_MILLION.to_string();
    let mut command =
        serve(&database, &fake, &collector.endpoint(), &["--price-per-million-tokens", &price]);
    measured_only(&mut command);
    let began = Instant::now();
    run(&database, &fake, &mut command).await;
    let wall = began.elapsed().as_secs_f64();
    let measured = Measured::receive(&mut collector).await;

    let all = names::ALL.iter().map(|metric| [metric.name, metric.unit, metric.help]);
    // Absent where nothing was completed when the database was last looked at, 15 s ago or less.
    let last_age = |[name, ..]: &[&str; 3]| *name == "embedding_recovery.last_embedding.age";
    let arrived = measured.descriptions().into_iter().chain(all.clone().filter(last_age));
    assert_eq!(arrived.collect::<BTreeSet<_>>(), all.collect());

    let (tokens, tokens_saved) = tokens(&database, &fake).await;
    let cost = in_millionths(tokens as f64 * PRICE_PER_MILLION / 1e6);
    let of = "gen_ai.provider.name=127.0.0.1";
    assert_eq!(
        measured.counters(),
        [
            "embedding_recovery.attempts [{attempt}] error.type=chunk_refused outcome=dead_lettered part=main: 1",
            "embedding_recovery.attempts [{attempt}] error.type=provider_rejects_item outcome=retried part=main: 1",
            "embedding_recovery.attempts [{attempt}] outcome=completed part=main: 3",
            "embedding_recovery.attempts [{attempt}] outcome=completed part=recovery: 1",
            "embedding_recovery.chunks.embedded [{chunk}]: 14",
            "embedding_recovery.chunks.reused [{chunk}]: 10",
            &format!("embedding_recovery.cost [USD]: {cost}"),
            "embedding_recovery.dead_letters [{task}] error.type=chunk_refused: 1",
            "embedding_recovery.first_passes [{task}] outcome=failed: 2",
            "embedding_recovery.first_passes [{task}] outcome=succeeded: 2",
            &format!(
                "embedding_recovery.provider.errors [{{request}}] error.type=bad_answer {of}: 4"
            ),
            &format!(
                "embedding_recovery.provider.errors [{{request}}] error.type=request_refused {of}: 1"
            ),
            &format!("embedding_recovery.provider.rate_limited [{{request}}] {of}: 1"),
            "embedding_recovery.recoveries [{task}] outcome=succeeded: 1",
            "embedding_recovery.retries [{attempt}]: 1",
            &format!("embedding_recovery.tokens [{{token}}]: {tokens}"),
            &format!("embedding_recovery.tokens.saved [{{token}}]: {tokens_saved}"),
        ]
    );
    assert_histograms(&measured, tokens, wall);
    assert_gauges(&measured);
    database.assert_sound().await;
}

/// Metrics, and nothing else, all at once in the end.
fn measured_only(command: &mut Command) {
    command
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_LOGS_EXPORTER", "none")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "3600000");
}

/// Tokens of the chunks that were bought, each once, as the fake counts them; and of those that were
/// not bought again, as the program does: all of the edited call but the edit, and what the second call
/// had stored when its last chunk failed.
async fn tokens(database: &TestDatabase, fake: &FakeOpenAi) -> (usize, usize) {
    let kept: Vec<Vec<u8>> = sqlx::query_scalar(
        "select c.content_hash from transcript_chunks c join chunk_sets s on s.id = c.chunk_set_id
         where s.state = 'current' and (c.recording_id, c.chunk_index) not in ((1, 2), (2, 5), (3, 0))",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert_eq!(kept.len(), 10);
    let bought: BTreeSet<([u8; 32], usize)> =
        fake.purchases().iter().map(|purchase| (purchase.content_hash, purchase.bytes)).collect();
    let chunks = bought.iter().filter(|(_, bytes)| *bytes != PROBE_TEXT.len());
    let tokens = chunks.map(|(_, bytes)| bytes / 4).sum();
    let saved = bought.iter().filter(|(hash, _)| kept.iter().any(|kept| kept == hash));
    (tokens, saved.map(|(_, bytes)| estimate_tokens(*bytes)).sum())
}

/// How often each thing was measured; the bounds, which no other test asks for; and sums, where they
/// are not times.
fn assert_histograms(measured: &Measured, tokens: usize, wall: f64) {
    let histograms = measured.histograms();
    for Histogram { name, bounds, count, sum } in histograms.values() {
        let metric = names::ALL.iter().find(|metric| metric.name == name).unwrap();
        assert_eq!(metric.kind, Kind::Histogram(&bounds.clone().leak()[..]), "{name}");
        if metric.unit == "s" {
            assert!(*sum > 0.0 && *sum < wall * *count as f64, "{name}: {sum} s in {wall} s");
        }
    }
    let asked = "gen_ai.operation.name=embeddings gen_ai.provider.name=127.0.0.1 gen_ai.request.model=text-embedding-3-small";
    let request = |class: &str| format!("gen_ai.client.operation.duration [s] {class}{asked}");
    let usage = format!("gen_ai.client.token.usage [{{token}}] {asked} gen_ai.token.type=input");
    let attempt = |ended: &str| format!("embedding_recovery.attempt.duration [s] {ended}");
    for (series, count) in [
        (attempt("outcome=completed part=main"), 3),
        (attempt("outcome=completed part=recovery"), 1),
        (attempt("outcome=dead_lettered part=main"), 1),
        (attempt("outcome=retried part=main"), 1),
        ("embedding_recovery.queue.wait [s] part=main".into(), 5),
        ("embedding_recovery.queue.wait [s] part=recovery".into(), 1),
        // A probe at the start and one after each bad answer; one for the first call and one for its
        // edit; four for the second call; the one that was recovered.
        (request(""), 13),
        (request("error.type=rate_limited "), 1),
        (request("error.type=bad_answer "), 4),
        (request("error.type=request_refused "), 1),
        (usage.clone(), 13),
    ] {
        let histogram = histograms.get(&series);
        assert_eq!(histogram.map(|histogram| histogram.count), Some(count), "{series}");
    }
    assert_eq!(histograms[&request("")].bounds, GEN_AI_SECS);
    assert_eq!(histograms[&usage].bounds, GEN_AI_TOKENS);
    let probes = TOKENS_OF_THE_FIRST_PROBE + 5 * (PROBE_TEXT.len() / 4);
    assert_eq!(histograms[&usage].sum, (tokens + probes) as f64);
    let rows = |lane: &str| {
        histograms[&format!("embedding_recovery.insert.rows [{{row}}] lane={lane}")].sum
    };
    // Of the edited call all six again, five of them copied.
    assert_eq!((rows("quick"), rows("recovery")), (18.0, 1.0));
}

/// The database was looked at when the first three tasks were there, and maybe when that of the edit was.
fn assert_gauges(measured: &Measured) {
    let state = |state: &str| measured.gauge("embedding_recovery.tasks", &format!("state={state}"));
    let states = ["pending", "processing", "completed", "failed", "dead_letter"];
    let tasks: f64 = states.map(|name| state(name).unwrap()).iter().sum();
    assert!([3.0, 4.0].contains(&tasks), "{tasks}");
    for (name, attributes, level) in [
        ("embedding_recovery.database.up", "", 1.0),
        ("embedding_recovery.circuit.open", "", 0.0),
        ("embedding_recovery.paused", "part=main", 0.0),
        ("embedding_recovery.paused", "part=recovery", 0.0),
        ("embedding_recovery.slots.used", "", 0.0),
        ("embedding_recovery.slots.max", "", 10.0),
        ("embedding_recovery.writer.permits.used", "lane=quick", 0.0),
        ("embedding_recovery.writer.permits.used", "lane=patient", 0.0),
        ("embedding_recovery.provider.headroom", "kind=requests", 0.9),
        ("embedding_recovery.provider.headroom", "kind=tokens", 0.9),
    ] {
        assert_eq!(measured.gauge(name, attributes), Some(level), "{name} {attributes}");
    }
    assert_eq!(measured.levels("embedding_recovery.build.info"), [1.0]);
}

/// Where the second process of the next test finds its collector.
const COLLECTOR: &str = "TEST_METRICS_TO";

/// This binary again, with this test alone: what is measured is measured once a process.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_counted_by_its_restarts_and_what_was_stored_before_it_as_saved() {
    if std::env::var_os(COLLECTOR).is_some() {
        return panic_over_the_last_chunk().await;
    }
    let mut collector = FakeCollectorServer::start().await.unwrap();
    let name = "telemetry::metrics::a_panic_is_counted_by_its_restarts_and_what_was_stored_before_it_as_saved";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name])
        // A server of its own: two processes cannot prepare one server for tests.
        .env_remove("TEST_DATABASE_URL")
        .env(COLLECTOR, "")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    measured_only(&mut command);
    let ended = command.output().await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    let counters = Measured::receive(&mut collector).await.counters();
    // Tokens depend on the words of the calls.
    let counters: Vec<&str> =
        counters.iter().map(String::as_str).filter(|line| !line.contains("{token}")).collect();
    assert_eq!(
        counters,
        [
            "embedding_recovery.actor.restarts [{restart}] actor=recording: 2",
            "embedding_recovery.attempts [{attempt}] error.type=panicked outcome=retried part=main: 1",
            "embedding_recovery.attempts [{attempt}] outcome=completed part=main: 1",
            "embedding_recovery.chunks.embedded [{chunk}]: 6",
            "embedding_recovery.chunks.reused [{chunk}]: 4",
            "embedding_recovery.first_passes [{task}] outcome=failed: 1",
            "embedding_recovery.retries [{attempt}]: 1",
        ]
    );
}

/// Six chunks at four inputs a request, with a panic over the second request, as often as it is
/// restarted in place, and once more.
async fn panic_over_the_last_chunk() {
    let telemetry = telemetry::start(LogFormat::Json, telemetry::DEFAULT_FILTER).unwrap();
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    scene.embedder.panic_over("call1turn5 ", 3);
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    scene.end(tree).await;
    tokio::task::spawn_blocking(move || drop(telemetry)).await.unwrap();
}
