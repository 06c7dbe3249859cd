//! Who is alive: heartbeats of workers, and their ends.

use std::time::Duration;

use embedding_recovery::ports::inspector::Inspector;
use embedding_recovery::ports::{ProviderTrouble, Store, WorkerState};
use uuid::Uuid;

use super::{LEASE, MODEL, database, text};

fn worker(model_name: &str) -> WorkerState {
    WorkerState {
        id: Uuid::new_v4(),
        model_name: model_name.into(),
        slots: 10,
        in_flight: 3,
        provider_trouble: None,
        provider_paused_for: None,
        database_trouble: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_one_model_count_one_another_while_they_are_alive() {
    let database = database().await;
    let store = &database.store;
    let (first, second, other) = (worker(MODEL), worker(MODEL), worker("another-model"));
    assert_eq!(store.heartbeat(&first, LEASE).await, Ok(1));
    assert_eq!(store.heartbeat(&other, LEASE).await, Ok(1));
    assert_eq!(store.heartbeat(&second, LEASE).await, Ok(2));
    assert_eq!(store.heartbeat(&first, LEASE).await, Ok(2), "its own row counts once");
    store.sign_off(second.id).await.unwrap();
    assert_eq!(store.heartbeat(&first, LEASE).await, Ok(1));
    store.heartbeat(&second, Duration::ZERO).await.unwrap();
    assert_eq!(store.heartbeat(&first, LEASE).await, Ok(1), "its time is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_tells_of_the_provider_and_until_when() {
    let database = database().await;
    let told = "select concat_ws(' ', slots, in_flight, coalesce(provider_trouble, 'fine'),
                    round(extract(epoch from provider_asked_at - clock_timestamp()) / 10) * 10)
                from workers";
    let mut worker = worker(MODEL);
    let trouble = ProviderTrouble { reason: "no".into(), asked_after: Duration::from_secs(80) };
    worker.provider_trouble = Some(trouble);
    database.store.heartbeat(&worker, LEASE).await.unwrap();
    assert_eq!(text(&database, told).await, "10 3 no 80");
    (worker.provider_trouble, worker.in_flight) = (None, 0);
    database.store.heartbeat(&worker, LEASE).await.unwrap();
    assert_eq!(text(&database, told).await, "10 0 fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_tells_until_when_the_rate_limit_holds_requests_back() {
    let database = database().await;
    let mut worker = worker(MODEL);
    let told = async || database.store.overview().await.unwrap().workers.remove(0);
    worker.provider_paused_for = Some(Duration::from_secs(80));
    database.store.heartbeat(&worker, LEASE).await.unwrap();
    let left = told().await.provider_paused_until.unwrap() - chrono::Utc::now();
    assert!((60..=90).contains(&left.num_seconds()), "{left}");
    // A pause that is over is none, also where its worker has not said so yet.
    database.execute("update workers set provider_paused_until = now() - interval '1 s'").await;
    assert_eq!(told().await.provider_paused_until, None);
    worker.provider_paused_for = None;
    database.store.heartbeat(&worker, LEASE).await.unwrap();
    assert_eq!(
        text(&database, "select coalesce(provider_paused_until::text, 'none') from workers").await,
        "none"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_workers_that_died_a_day_ago_go_and_younger_ones_stay() {
    let database = database().await;
    let store = &database.store;
    let (long_dead, dead, alive) = (worker("long dead"), worker("dead"), worker("alive"));
    for worker in [&long_dead, &dead, &alive] {
        store.heartbeat(worker, LEASE).await.unwrap();
    }
    database
        .execute(
            "update workers set alive_until = now() - case model
                 when 'long dead' then interval '25 h' else interval '23 h' end
             where model like '%dead'",
        )
        .await;
    store.heartbeat(&alive, LEASE).await.unwrap();
    let left = "select string_agg(model, ', ' order by model) from workers";
    assert_eq!(text(&database, left).await, "alive, dead");
}
