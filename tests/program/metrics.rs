//! `/metrics` of a running service: every name of the table, and numbers that agree with what the
//! service did.

pub mod scrape;

use embedding_recovery::telemetry::metrics::names::ALL;
use embedding_recovery::telemetry::metrics::{prometheus_name, prometheus_type};
use tokio::process::Command;

use self::scrape::{Scrape, Service};
use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::calls::{USER, call};
use crate::harness::program::{end_of, run, signal};
use crate::harness::{TestDatabase, eventually};

/// Tells recordings from all other numbers.
const FIRST_ID: i64 = 7_700_001;
/// USD for a million tokens.
const PRICE: f64 = 2.0;

fn command(database: &TestDatabase, fake: &FakeOpenAi) -> Command {
    serve(database, fake, &["--price-per-million-tokens", &PRICE.to_string()])
}

async fn wait_for_completed(database: &TestDatabase, recording_id: i64) {
    let query =
        "select exists (select from embedding_queue where status = 'completed' and recording_id = ";
    let query: &'static str = Box::leak(format!("{query}{recording_id})").into_boxed_str());
    database.wait_until(query).await;
}

/// Success, a rate limit, a dead letter, a retry, an outage of the provider, a recovery and a pause.
async fn bad_day(database: &TestDatabase, fake: &FakeOpenAi, service: &Service) {
    let limited = Reply::Status {
        code: 429,
        body: String::new(),
        headers: [
            ("retry-after-ms", "50"),
            ("x-ratelimit-limit-requests", "100"),
            ("x-ratelimit-remaining-requests", "25"),
            ("x-ratelimit-reset-requests", "50ms"),
            ("x-ratelimit-limit-tokens", "100000"),
            ("x-ratelimit-remaining-tokens", "100000"),
            ("x-ratelimit-reset-tokens", "50ms"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into(),
    };
    fake.script([limited]);
    database.import(&[call(FIRST_ID, 3)]).await;
    wait_for_completed(database, FIRST_ID).await;

    fake.on(
        |inputs| inputs.iter().any(|text| text.contains("turn2 ")),
        Reply::error(400, "invalid_value", "Invalid input"),
    );
    database.import(&[call(FIRST_ID + 1, 5)]).await;
    let dead = "select count(*) = 1 from embedding_queue where status = 'dead_letter'";
    database.wait_until(dead).await;
    fake.recover();

    // A request is sent four times before a probe, which the fifth answer is to; of one chunk, so that
    // it is not split and tried in halves.
    let broken = Reply::error(500, "server_error", "The server had an error.");
    fake.script(vec![broken.clone(); 4]);
    database.import(&[call(FIRST_ID + 2, 1)]).await;
    wait_for_completed(database, FIRST_ID + 2).await;

    fake.on(|_| true, broken);
    database.import(&[call(FIRST_ID + 3, 2)]).await;
    eventually("the provider is left alone", async || {
        service.scrape().await.value("embedding_recovery_circuit_open", &[]) == Some(1.0)
    })
    .await;
    fake.recover();
    wait_for_completed(database, FIRST_ID + 3).await;

    let id = (FIRST_ID + 1).to_string();
    let args = ["recover", &id, "--user", USER, "--force", "--wait"];
    let mut recover = database.program(&args);
    recover.env("OPENAI_BASE_URL", fake.base_url()).env("OPENAI_API_KEY", "sk-test-key");
    let recovered = run(&mut recover).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    assert_eq!(run(&mut database.program(&["pause", "recovery"])).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_told_and_agrees_with_what_was_done() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(8));
    let service = Service::start(&mut command(&database, &fake)).await;
    bad_day(&database, &fake, &service).await;
    eventually("the next look at the database is told", async || {
        let now = service.scrape().await;
        now.value("embedding_recovery_tasks", &[("state", "completed")]) == Some(4.0)
            && now.value("embedding_recovery_paused", &[("part", "recovery")]) == Some(1.0)
    })
    .await;
    let now = service.scrape().await;
    every_name_has_its_type_and_labels(&now);
    what_was_done_is_counted(&now, &fake);
    the_database_agrees(&now, &database).await;
    signal(&service.child, "TERM").await;
    assert_eq!(end_of(service.child).await.code, Some(0));
}

fn every_name_has_its_type_and_labels(now: &Scrape) {
    for metric in ALL {
        let name = prometheus_name(metric);
        assert_eq!(now.kind(&name), Some(prometheus_type(metric)), "{name}");
        let known: Vec<String> =
            metric.attributes.iter().map(|key| key.replace('.', "_")).collect();
        for sample in now.of(&name) {
            for label in sample.labels.keys() {
                assert!(known.contains(label) || label == "le", "{name} has the label {label}");
            }
            assert!(sample.value.is_finite(), "{sample:?}");
        }
    }
    for name in now.names() {
        let known = ALL.iter().any(|metric| prometheus_name(metric) == name);
        assert!(known || name == "target_info", "{name} is not in the table");
    }
    for hidden in ["77000", USER, "sk-test-key", "turn"] {
        assert!(!now.text.contains(hidden), "{hidden} is told: {}", now.text);
    }
}

fn what_was_done_is_counted(now: &Scrape, fake: &FakeOpenAi) {
    let value = |name: &str, labels: &[(&str, &str)]| {
        now.value(&format!("embedding_recovery_{name}"), labels)
    };
    let outcome = |outcome| [("outcome", outcome)];
    assert_eq!(value("first_passes_total", &outcome("succeeded")), Some(2.0));
    assert_eq!(value("first_passes_total", &outcome("failed")), Some(2.0));
    assert_eq!(value("recoveries_total", &outcome("succeeded")), Some(1.0));
    assert_eq!(value("recoveries_total", &outcome("failed")), Some(0.0));
    assert_eq!(value("dead_letters_total", &[("error_type", "chunk_refused")]), Some(1.0));
    // A reason that nobody had yet is there too: its first case must be seen to come.
    assert_eq!(value("dead_letters_total", &[("error_type", "stalled")]), Some(0.0));
    assert_eq!(value("retries_total", &[]), Some(1.0));
    let retried =
        [("part", "main"), ("outcome", "retried"), ("error_type", "provider_rejects_item")];
    assert_eq!(value("attempts_total", &retried), Some(1.0));
    assert_eq!(
        value("attempts_total", &[("part", "recovery"), ("outcome", "completed")]),
        Some(1.0)
    );
    let provider = ("gen_ai_provider_name", "127.0.0.1");
    assert_eq!(value("provider_rate_limited_total", &[provider]), Some(1.0));
    let refused = [provider, ("error_type", "request_refused")];
    assert!(value("provider_errors_total", &refused) >= Some(1.0));
    // Four of the retried one, and at least four and a probe of the outage.
    let unavailable = [provider, ("error_type", "provider_unavailable")];
    assert!(value("provider_errors_total", &unavailable) >= Some(9.0));
    assert!(value("provider_concurrency", &[provider]) >= Some(1.0));
    assert_eq!(value("provider_headroom_ratio", &[("kind", "requests")]), Some(0.25));
    assert_eq!(value("provider_headroom_ratio", &[("kind", "tokens")]), Some(1.0));
    assert_eq!(value("circuit_open", &[]), Some(0.0));
    let bought: Vec<String> = fake.bought();
    let probes = bought.iter().filter(|text| !text.contains("turn")).count();
    assert_eq!(value("chunks_embedded_total", &[]), Some((bought.len() - probes) as f64));
    let tokens = value("tokens_total", &[]).unwrap();
    let cost = value("cost_total", &[]).unwrap();
    assert!((cost - tokens * PRICE / 1e6).abs() < 1e-9, "{cost} for {tokens} tokens");
    // Four chunks of the dead letter were there when it was recovered.
    assert_eq!(value("chunks_reused_total", &[]), Some(4.0));
    let saved = value("tokens_saved_total", &[]).unwrap();
    assert!((4.0 * 400.0..4.0 * 600.0).contains(&saved), "{saved}");
    assert_eq!(value("workers", &[]), Some(1.0));
    assert_eq!(value("database_up", &[]), Some(1.0));
    assert_eq!(value("slots_max", &[]), Some(10.0));
    assert_eq!(value("paused", &[("part", "main")]), Some(0.0));
    assert_eq!(
        value("insert_batch_size", &[("lane", "patient")]).map(|rows| rows >= 5.0),
        Some(true)
    );
    assert_eq!(value("writer_permits_max", &[("lane", "quick")]), Some(1024.0));
    assert_eq!(value("queue_oldest_age_seconds", &[]), Some(0.0));
    assert!(value("last_embedding_age_seconds", &[]).unwrap() < 240.0);
    assert_eq!(now.value("db_client_connection_max", &[]), Some(16.0));
    let asked = now.sum("gen_ai_client_operation_duration_seconds_count");
    assert_eq!(asked, fake.requests().len() as f64);
    // Of a probe too, in which there are six tokens.
    let used = now.sum("gen_ai_client_token_usage_sum");
    assert_eq!(used, tokens + 6.0 * probes as f64);
}

/// Attempts by part and outcome, in the words of the table.
async fn the_database_agrees(now: &Scrape, database: &TestDatabase) {
    let stored: Vec<(String, String, i64)> = sqlx::query_as(
        "select part, case outcome when 'retry' then 'retried' when 'dead_letter' then 'dead_lettered'
                                   else outcome end, count(*)
         from embedding_attempts group by 1, 2",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert_eq!(stored.len(), 5, "{stored:?}");
    for (part, outcome, attempts) in &stored {
        let told: f64 = now
            .of("embedding_recovery_attempts_total")
            .filter(|sample| sample.has(&[("part", part), ("outcome", outcome)]))
            .map(|sample| sample.value)
            .sum();
        assert_eq!(told, *attempts as f64, "{part} {outcome} in {}", now.text);
    }
    let attempts = stored.iter().map(|(_, _, attempts)| *attempts).sum::<i64>() as f64;
    assert_eq!(now.sum("embedding_recovery_attempts_total"), attempts);
    assert_eq!(now.sum("embedding_recovery_attempt_duration_seconds_count"), attempts);
    assert_eq!(now.sum("embedding_recovery_queue_wait_seconds_count"), attempts);
    let chunks = database.value::<i64>("select count(*) from searchable_chunks").await;
    assert_eq!(now.sum("embedding_recovery_insert_rows_sum"), chunks as f64);
    let tokens = database
        .value::<i64>(
            "select sum(tokens)::bigint from embedding_attempts where outcome = 'completed'",
        )
        .await;
    assert!(now.sum("embedding_recovery_tokens_total") >= tokens as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_database_that_is_away_nothing_old_is_told() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(8));
    let url = database.url_of_role("login").await;
    let role = url.parse::<url::Url>().unwrap().username().to_owned();
    let mut command = command(&database, &fake);
    let service = Service::start(command.env("DATABASE_URL", url)).await;
    let tasks = "embedding_recovery_tasks";
    let up = async || service.scrape().await.value("embedding_recovery_database_up", &[]);
    eventually("the database is seen", async || up().await == Some(1.0)).await;
    assert_eq!(service.scrape().await.of(tasks).count(), 5);
    // By itself: as long as it is not committed, who is thrown out may come in again.
    database.execute(&format!("alter role {role} nologin")).await;
    let throw_out =
        format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'");
    database.execute(&throw_out).await;
    eventually("it is away", async || up().await == Some(0.0)).await;
    let away = service.scrape().await;
    for name in ["tasks", "queue_oldest_age_seconds", "workers", "paused"] {
        assert_eq!(away.of(&format!("embedding_recovery_{name}")).count(), 0, "{name}");
    }
    assert!(away.value("db_client_connection_max", &[]).is_some());
    database.execute(&format!("alter role {role} login")).await;
    eventually("it is back", async || up().await == Some(1.0)).await;
    assert_eq!(service.scrape().await.of(tasks).count(), 5);
}

#[tokio::test]
async fn the_version_tells_the_commit() {
    let told = run(&mut crate::harness::program::program(&["--version"])).await;
    assert_eq!(told.code, Some(0));
    let commit = embedding_recovery::telemetry::metrics::COMMIT;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(told.stdout, format!("embedding-recovery {version} ({commit})\n"));
    assert!(commit == "unknown" || commit.len() >= 7, "{commit}");
}
