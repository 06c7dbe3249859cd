//! Telemetry names the process as the database does.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;

use super::serve;
use crate::fakes::openai::FakeOpenAi;
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::program::run;

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_comes_from_the_worker_that_the_attempts_name_or_as_the_environment_says() {
    for (attributes, named) in [("", None), ("service.instance.id=blue", Some("blue"))] {
        let received = Arc::new(Mutex::new(Vec::new()));
        let collector = received.clone();
        let receive = move |body: Bytes| async move { collector.lock().unwrap().push(body) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(receive).layer(DefaultBodyLimit::disable());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });

        let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(8));
        database.import(&[call(1, 1)]).await;
        let mut command = serve(&database, &fake, &endpoint, &["--exit-when-idle"]);
        command
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            .env("OTEL_RESOURCE_ATTRIBUTES", attributes);
        let served = run(&mut command).await;
        assert_eq!(served.code, Some(0), "{served:?}");
        serving.abort();

        let worker =
            database.value::<String>("select worker_id::text from embedding_attempts").await;
        let bodies = received.lock().unwrap().clone();
        assert!(!bodies.is_empty());
        for body in bodies {
            let body = String::from_utf8_lossy(&body).into_owned();
            let (_, told) = body.split_once("service.instance.id").expect("it is told");
            // After the key, the tags and lengths of its value.
            let told = told.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
            assert!(told.starts_with(named.unwrap_or(&worker)), "{told}");
        }
    }
}
