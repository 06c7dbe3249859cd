//! Workers know of one another: who is alive, why one claims nothing, and how many share a ceiling.

use std::sync::Arc;
use std::time::{Duration, Instant};

use embedding_recovery::actors::{Tree, TreeSettings};
use embedding_recovery::domain::failure::Failure;
use embedding_recovery::embedders::openai::{Ceiling, OpenAiEmbedder, OpenAiSettings};

use super::scene::{DIMENSIONS, Scene};
use crate::fakes::openai::Reply;
use crate::fakes::store::Fault;
use crate::harness::calls::call;
use crate::harness::service::{MODEL, settings};

const LEASE: Duration = Duration::from_secs(3);
const ALIVE: &str = "select count(*) = 1 from workers where alive_until > clock_timestamp()";

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_stays_alive_and_signs_off_at_the_end() {
    let scene = Scene::new().await;
    let tree = scene.database.serve(TreeSettings { lease: LEASE, ..scene.settings() }).await;
    scene.database.wait_until(ALIVE).await;
    // Also over a heartbeat that fails and one that takes the Claimer with it.
    let away = Failure::DatabaseUnavailable { message: "the test says so".into() };
    scene.store.fail("heartbeat", 1, Fault::Fail(away));
    scene.store.wait_until_struck("heartbeat", 1).await;
    scene.store.fail("heartbeat", 1, Fault::Panic);
    scene.store.wait_until_struck("heartbeat", 2).await;
    scene.database.execute("create table seen as select alive_until from workers").await;
    let renewed = "select clock_timestamp() > s.alive_until and w.alive_until > clock_timestamp()
        from seen s, workers w";
    scene.database.wait_until(renewed).await;
    tree.stop(Duration::from_secs(5)).await;
    assert_eq!(scene.database.value::<i64>("select count(*) from workers").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_why_it_claims_nothing_and_until_when() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.fake.on(|_| true, Reply::QuotaExhausted);
    let tree = scene.serve().await;
    let why = "select count(*) = 1 from workers
        where provider_trouble like 'the provider''s quota is exhausted%' and slots = 10
          and provider_asked_at between clock_timestamp() and clock_timestamp() + interval '5 s'";
    scene.database.wait_until(why).await;
    // A Claimer that takes over knows it too.
    scene.store.fail("heartbeat", 1, Fault::PanicAfter);
    let after_a_probe = "select count(*) = 1 from workers
        where provider_asked_at > clock_timestamp() + interval '6 s'";
    scene.database.wait_until(after_a_probe).await;
    assert_eq!(scene.store.struck("heartbeat"), 1);
    scene.fake.recover();
    scene.database.wait_until_settled(&tree).await;
    scene.database.wait_until("select provider_trouble is null from workers").await;
    assert_eq!(scene.task(1).await.summary(), ("completed", 1, 1));
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_within_seconds_until_when_the_rate_limit_holds_it_back() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3)]).await;
    scene.fake.script([Reply::RateLimited { retry_after: Duration::from_secs(20) }]);
    // The next renewal is far away.
    let settings = TreeSettings { lease: Duration::from_secs(600), ..scene.settings() };
    let tree = scene.database.serve(settings).await;
    let told = "select count(*) = 1 from workers where provider_trouble is null
        and provider_paused_until between clock_timestamp() and clock_timestamp() + interval '20 s'";
    scene.database.wait_until(told).await;
    scene.database.wait_until_settled(&tree).await;
    scene.database.wait_until("select provider_paused_until is null from workers").await;
    assert_eq!(scene.task(1).await.summary(), ("completed", 1, 0));
    scene.end(tree).await;
}

/// A replica whose API calls are under a ceiling of four a second, all replicas together.
async fn replica(scene: &Scene) -> (Tree, Arc<OpenAiEmbedder>) {
    let ceiling = Ceiling { requests_per_minute: Some(240), tokens_per_minute: Some(500_000) };
    let base_url = scene.fake.base_url().parse().unwrap();
    let embedder = Arc::new(
        OpenAiEmbedder::new(OpenAiSettings {
            ceiling,
            dimensions: Some(DIMENSIONS),
            ..OpenAiSettings::new(base_url, None, MODEL.into())
        })
        .unwrap(),
    );
    let settings = settings(scene.store.clone(), embedder.clone(), DIMENSIONS);
    let settings = TreeSettings { lease: LEASE, recordings_max: 2, ..settings };
    (scene.database.serve(settings).await, embedder)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_a_ceiling_and_one_that_is_left_has_it_all() {
    use embedding_recovery::ports::Embedder;
    const RECORDINGS: u32 = 20;
    let scene = Scene::new().await;
    let (first, one) = replica(&scene).await;
    let (second, other) = replica(&scene).await;
    let share_of = |embedder: &OpenAiEmbedder| embedder.limits().tokens_max;
    crate::harness::eventually("both know of each other", async || {
        share_of(&one) < 300_000 && share_of(&other) < 300_000
    })
    .await;
    let begun = Instant::now();
    let calls: Vec<_> = (1..=i64::from(RECORDINGS)).map(|id| call(id, 1)).collect();
    scene.database.import(&calls).await;
    scene.database.wait_until_settled(&first).await;
    scene.database.wait_until_settled(&second).await;
    let took = begun.elapsed();
    // Each sends its first at once.
    let least = Duration::from_secs(60) * (RECORDINGS - 2) / 240;
    assert!(took >= least, "{RECORDINGS} requests within {took:?}, not {least:?}");
    assert_eq!(scene.fake.bought().len(), RECORDINGS as usize);
    second.stop(Duration::from_secs(5)).await;
    crate::harness::eventually("the one that is left has it all", async || {
        share_of(&one) == 300_000
    })
    .await;
    scene.end(first).await;
}
