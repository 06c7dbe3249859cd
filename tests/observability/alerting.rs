//! One alert, all the way: service, Prometheus, Alertmanager, and a webhook that somebody would read.

use std::sync::{Arc, Mutex};

use axum::extract::Path;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;

use super::servers::{Alertmanager, Prometheus};
use super::{list, live::Watched, string};
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::calls::call;
use crate::harness::program::run;
use crate::harness::{TestDatabase, eventually};

/// What a webhook was told: the receiver's name and the message.
type Told = Arc<Mutex<Vec<(String, Value)>>>;

/// Listens for messages; returns where.
async fn webhook() -> (String, Told) {
    let told = Told::default();
    let keep = told.clone();
    let receive = async move |Path(receiver): Path<String>, Json(message): Json<Value>| {
        keep.lock().unwrap().push((receiver, message));
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/{receiver}", post(receive));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, told)
}

/// Of the alert of this name, the last message that has this status.
fn of(told: &Told, alert: &str, status: &str) -> Option<(String, Value)> {
    let told = told.lock().unwrap();
    told.iter().rev().find_map(|(receiver, message)| {
        let mut alerts = list(message, "/alerts").iter();
        let found = alerts.find(|it| it["labels"]["alertname"] == alert && it["status"] == status);
        found.map(|found| (receiver.clone(), found.clone()))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_reaches_a_webhook_and_so_does_its_end() {
    let (address, told) = webhook().await;
    let Some(alertmanager) = Alertmanager::start(&address).await else { return };
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(8));
    let sick = |inputs: &[String]| inputs.iter().any(|input| input.contains("call1turn2 "));
    fake.on(sick, Reply::error(400, "invalid_value", "Invalid input"));
    database.import(&[call(1, 5), call(2, 5)]).await;
    let service = Watched::start(&database, &fake, &[]);
    let targets = [service.address()];
    let alerts = alertmanager.address();
    let Some(_prometheus) = Prometheus::start(&targets, Some(&alerts)).await else { return };

    let alert = "EmbeddingRecoveryDeadLetters";
    eventually("the dead letter is told", async || of(&told, alert, "firing").is_some()).await;
    let (receiver, message) = of(&told, alert, "firing").unwrap();
    assert_eq!(receiver, "slack", "a warning wakes nobody");
    assert_eq!(string(&message, "/labels/severity"), "warning");
    assert_eq!(string(&message, "/annotations/summary"), "Dead letters: 1");
    assert!(string(&message, "/annotations/runbook_url").contains("README.md#"), "{message}");

    let args = ["discard", "1", "--reason", "nobody needs it"];
    let discarded = run(&mut database.program(&args)).await;
    assert_eq!(discarded.code, Some(0), "{discarded:?}");
    eventually("its end is told", async || of(&told, alert, "resolved").is_some()).await;

    // Nobody is left to tell that nobody is left.
    told.lock().unwrap().clear();
    service.end().await;
    let alert = "EmbeddingRecoveryDown";
    eventually("silence is told", async || of(&told, alert, "firing").is_some()).await;
    let (receiver, message) = of(&told, alert, "firing").unwrap();
    assert_eq!(receiver, "everywhere", "a critical alert wakes somebody");
    assert_eq!(string(&message, "/labels/severity"), "critical");
}
