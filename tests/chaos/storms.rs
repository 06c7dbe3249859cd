//! A minute without the provider, in each of the three ways in which one is lost: the real program,
//! its own patience, and not one recording that pays for it.

use std::collections::HashSet;
use std::time::Duration;

use embedding_recovery::embedders::openai::PROBE_TEXT;

use crate::fakes::openai::{FakeOpenAi, Reply, hash_of};
use crate::harness::calls::call;
use crate::harness::program::{end_of, signal};
use crate::harness::{TestDatabase, eventually};

const STORM: Duration = Duration::from_secs(60);
const RECORDINGS: i64 = 60;
/// Chunks, and requests, of each.
const CHUNKS: usize = 3;
/// So slow that the storm comes in the middle of the work.
const LATENCY: Duration = Duration::from_millis(400);

/// How a storm shows while it lasts.
enum Sign {
    /// Nothing is claimed, and the worker's row says why and until when.
    Stopped(&'static str),
    /// Requests wait for the reset that the provider names.
    Waiting,
}

/// Attempts that have begun; the same for as long as nothing is claimed.
const BEGUN: &str = "select count(*) from embedding_attempts";

async fn weather(reply: Reply, sign: Sign) {
    let database = TestDatabase::new().await;
    let calls: Vec<_> = (1..=RECORDINGS).map(|id| call(id, CHUNKS)).collect();
    database.import(&calls).await;
    let api = FakeOpenAi::start(64);
    api.on(|_| true, Reply::Delay(LATENCY));
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = database.program(&["serve", "--log-format", "json"]);
    command.env("OPENAI_BASE_URL", api.base_url()).env("OPENAI_API_KEY", "sk-test-key");
    command.stdout(log.reopen().unwrap()).stderr(log.reopen().unwrap());
    let program = command.spawn().unwrap();
    let begun = "select count(*) >= 5 from embedding_queue where status = 'completed'";
    database.wait_until(begun).await;

    api.recover();
    api.on(|_| true, reply.clone());
    let storm_ends = tokio::time::Instant::now() + STORM;
    if let Sign::Stopped(why) = sign {
        database
            .wait_until("select count(*) = 0 from embedding_queue where status = 'processing'")
            .await;
        let begun: i64 = database.value(BEGUN).await;
        eventually("the worker's row says why and until when", async || {
            let told: Option<String> =
                database.value("select max(provider_trouble) from workers").await;
            told.is_some_and(|told| told.contains(why))
        })
        .await;
        tokio::time::sleep_until(storm_ends).await;
        assert_eq!(database.value::<i64>(BEGUN).await, begun, "something was claimed: {reply:?}");
        let until = "select provider_asked_at > clock_timestamp() from workers";
        assert!(database.value::<bool>(until).await, "the next probe is told: {reply:?}");
    }
    tokio::time::sleep_until(storm_ends).await;
    let counted =
        "select count(*) from embedding_queue where status not in ('pending', 'processing',
        'completed') or status = 'pending' and attempts > 0 or attempts > 1";
    assert_eq!(database.value::<i64>(counted).await, 0, "attempts were used: {reply:?}");

    api.recover();
    let all = "select count(*) = 60 from embedding_queue where status = 'completed'";
    database.wait_until(all).await;
    let outcomes =
        "select string_agg(distinct outcome, ' ' order by outcome) from embedding_attempts
        where outcome <> 'released'";
    assert_eq!(database.value::<String>(outcomes).await, "completed", "{reply:?}");
    let attempts = "select max(attempts)::bigint from embedding_queue";
    assert_eq!(database.value::<i64>(attempts).await, 1, "{reply:?}");
    let bought: Vec<u64> =
        api.bought_hashes().into_iter().filter(|hash| *hash != hash_of(PROBE_TEXT)).collect();
    let different: HashSet<&u64> = bought.iter().collect();
    assert_eq!(different.len(), bought.len(), "a chunk was bought twice: {reply:?}");
    database.wait_until("select provider_trouble is null from workers").await;
    signal(&program, "TERM").await;
    assert_eq!(end_of(program).await.code, Some(0));
    assert_eq!(database.value::<i64>("select count(*) from workers").await, 0, "it signed off");
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_quota_of_500_or_of_429_costs_no_attempt_and_no_recording() {
    let limited = Reply::RateLimited { retry_after: Duration::from_secs(5) };
    let down = Reply::error(500, "server_error", "The server had an error.");
    tokio::join!(
        weather(Reply::QuotaExhausted, Sign::Stopped("quota is exhausted")),
        weather(down, Sign::Stopped("the provider is unavailable: status 500")),
        weather(limited, Sign::Waiting),
    );
}
