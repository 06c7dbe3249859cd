//! What no collector took is counted, where Prometheus reads it.

use embedding_recovery::telemetry::metrics::names::ALL;
use embedding_recovery::telemetry::metrics::prometheus_name;

use super::collectors::hang;
use super::serve;
use crate::fakes::openai::FakeOpenAi;
use crate::harness::calls::call;
use crate::harness::program::{end_of, signal};
use crate::harness::{TestDatabase, eventually};
use crate::program::metrics::scrape::{Scrape, Service};

/// Items of a signal that its exporter gave up, as `/metrics` tells.
pub(super) fn dropped(scrape: &Scrape, signal: &str) -> f64 {
    let is_it = |name: &str| name == "embedding_recovery.telemetry.dropped";
    let metric = ALL.iter().find(|metric| is_it(metric.name)).unwrap();
    let name = prometheus_name(metric);
    let mut samples = scrape.of(&name).filter(|sample| sample.has(&[("signal", signal)]));
    samples.next().expect("it is told from the start on").value
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hanging_collector_did_not_take_in_time_is_counted() {
    let (endpoint, accepting) = hang().await;
    for protocol in ["grpc", "http/protobuf"] {
        let database = TestDatabase::new().await;
        let fake = FakeOpenAi::start(8);
        database.import(&[call(1, 1)]).await;
        let mut command = serve(&database, &fake, &endpoint, &[]);
        command
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "200");
        let service = Service::start(&mut command).await;
        database.wait_until("select bool_and(status = 'completed') from embedding_queue").await;
        // The attempt, its six steps and the claim.
        eventually("what is lost is counted", async || {
            let scrape = service.scrape().await;
            dropped(&scrape, "traces") >= 8.0 && dropped(&scrape, "logs") > 0.0
        })
        .await;
        signal(&service.child, "TERM").await;
        assert_eq!(end_of(service.child).await.code, Some(0), "{protocol}");
    }
    accepting.abort();
}
