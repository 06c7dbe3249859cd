//! Traces over OTLP: one for each attempt, and nothing in them that was said.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;

use super::serving::serve;
use crate::fakes::openai::FakeOpenAi;
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::program::run;

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_exported_as_a_trace_without_its_words_and_its_id_is_kept() {
    let received = Arc::new(Mutex::new(Vec::new()));
    let collector = received.clone();
    let receive =
        move |body: Bytes| async move { collector.lock().unwrap().extend_from_slice(&body) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/v1/traces", post(receive));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    database.import(&[call(1, 3)]).await;
    let mut command = serve(&database, &fake, &["--exit-when-idle"]);
    command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let served = run(command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)).await;
    assert_eq!(served.code, Some(0), "{served:?}");

    let exported = received.lock().unwrap().clone();
    let holds = |bytes: &[u8]| exported.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(b"process recording"), "no span of the attempt was exported");
    assert!(!holds(b"call1turn"), "a span holds what was said");
    assert!(!holds(b"sk-test-key"), "a span holds the key");
    let trace_id = database.value::<String>("select trace_id from embedding_attempts").await;
    let bytes: Vec<u8> = (0..trace_id.len() / 2)
        .map(|byte| u8::from_str_radix(&trace_id[2 * byte..2 * byte + 2], 16).unwrap())
        .collect();
    assert!(holds(&bytes), "the attempt keeps another trace id than was exported");
}
