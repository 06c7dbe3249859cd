//! What is counted where no service can be made to show it, with a provider of each test's own.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, Temporality};
use uuid::Uuid;

use super::*;
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::recording::RecordingKey;
use crate::domain::task::{Lease, Settlement, Task};
use crate::domain::trace::Origins;
use crate::telemetry::spans::Provider;

/// A reader that the test keeps a hand on, as OTLP's reads by itself.
#[derive(Debug, Clone)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

/// What Prometheus and another reader are told of what `record` measures.
fn told(record: impl Fn(&Metrics)) -> (String, ResourceMetrics) {
    let reader = Reader(Arc::new(ManualReader::builder().build()));
    let resource = Resource::builder_empty().build();
    let (provider, registry) = provider(resource, Some(reader.clone()));
    let metrics = Metrics::new(&provider.meter(SCOPE));
    metrics.begin();
    record(&metrics);
    let mut read = ResourceMetrics::default();
    reader.collect(&mut read).expect("it reads");
    (text(&registry).expect("text"), read)
}

fn task(part: Part, attempts: u32) -> Task {
    Task {
        lease: Lease { task_id: Uuid::nil(), attempt_id: Uuid::nil(), token: Uuid::nil() },
        key: RecordingKey { user_id: "u".into(), recording_id: 1 },
        attempts,
        max_attempts: 4,
        crashes_alone: 0,
        releases: 0,
        alone: false,
        part,
        recoveries: 0,
        afresh: None,
        origins: Origins::default(),
        waited: Duration::from_secs(7),
    }
}

/// The number of a series, whatever the order of its labels.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let series = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && line.matches('=').count() == labels.len()
            && labels.iter().all(|label| line.contains(label))
    });
    let values: Vec<f64> =
        series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    assert!(values.len() < 2, "{name} {labels:?} is there twice: {text}");
    values.first().copied()
}

#[test]
fn a_dead_workers_attempts_are_counted_by_who_settles_them() {
    let (text, _) = told(|metrics| {
        let retry = Settlement::Retry { after: Duration::ZERO };
        metrics.lease_expired(&task(Part::Main, 1), Outcome::from(&retry));
        let dead = Settlement::DeadLetter { permanent: true };
        metrics.lease_expired(&task(Part::Main, 2), Outcome::from(&dead));
        let again = Settlement::RecoverAgain { after: Duration::ZERO };
        metrics.lease_expired(&task(Part::Recovery, 4), Outcome::from(&again));
    });
    let value = |name: &str, labels: &[&str]| value(&text, name, labels);
    let expired = "error_type=\"lease_expired\"";
    assert_eq!(value("embedding_recovery_leases_expired_total", &[]), Some(3.0));
    assert_eq!(value("embedding_recovery_dead_letters_total", &[expired]), Some(1.0));
    let failed = "outcome=\"failed\"";
    assert_eq!(value("embedding_recovery_first_passes_total", &[failed]), Some(1.0));
    assert_eq!(value("embedding_recovery_recoveries_total", &[failed]), Some(1.0));
    let retried = ["part=\"main\"", "outcome=\"retried\"", expired];
    assert_eq!(value("embedding_recovery_attempts_total", &retried), Some(1.0));
    assert!(!text.contains("attempt_duration"), "nobody knows how long these took");
}

#[test]
fn a_lost_lease_ends_no_first_pass_and_an_interrupted_recovery_is_none() {
    let (text, _) = told(|metrics| {
        let took = Duration::from_secs(3);
        let lost = (Outcome::Lost, Some(&Failure::LeaseLost));
        metrics.attempt_ended(&task(Part::Main, 1), lost.0, lost.1, took);
        let postponed = Settlement::Postpone { after: Duration::ZERO, counted: false };
        let released = Outcome::from(&postponed);
        let shutdown = Some(&Failure::Shutdown);
        metrics.attempt_ended(&task(Part::Recovery, 4), released, shutdown, took);
        metrics.attempt_ended(&task(Part::Main, 1), Outcome::Superseded, None, took);
        metrics.actor_restarted("writer");
    });
    let value = |name: &str, labels: &[&str]| value(&text, name, labels);
    assert_eq!(value("embedding_recovery_leases_lost_total", &[]), Some(1.0));
    for outcome in ["outcome=\"succeeded\"", "outcome=\"failed\""] {
        assert_eq!(value("embedding_recovery_first_passes_total", &[outcome]), Some(0.0));
        assert_eq!(value("embedding_recovery_recoveries_total", &[outcome]), Some(0.0));
    }
    let writer = "actor=\"writer\"";
    assert_eq!(value("embedding_recovery_actor_restarts_total", &[writer]), Some(1.0));
    let superseded = ["part=\"main\"", "outcome=\"superseded\""];
    let sum = "embedding_recovery_attempt_duration_seconds_sum";
    assert_eq!(value(sum, &superseded), Some(3.0));
}

#[test]
fn every_failure_is_counted_from_zero_so_that_the_first_of_it_is_seen() {
    let (text, _) = told(|metrics| {
        let (name, model) = ("openai".to_owned(), "small".to_owned());
        metrics.provider_chosen(&Provider { name, model, server: None });
    });
    let value = |name: &str, labels: &[&str]| value(&text, name, labels);
    let attempts = "embedding_recovery_attempts_total";
    for class in Failure::CLASSES {
        let class = format!("error_type=\"{class}\"");
        assert_eq!(value("embedding_recovery_dead_letters_total", &[&class]), Some(0.0));
        for (part, outcome) in [
            ("part=\"main\"", "outcome=\"retried\""),
            ("part=\"main\"", "outcome=\"dead_lettered\""),
            ("part=\"main\"", "outcome=\"released\""),
            ("part=\"recovery\"", "outcome=\"dead_lettered\""),
            ("part=\"recovery\"", "outcome=\"released\""),
        ] {
            assert_eq!(value(attempts, &[part, outcome, &class]), Some(0.0), "{class}");
        }
    }
    for part in ["part=\"main\"", "part=\"recovery\""] {
        assert_eq!(value(attempts, &[part, "outcome=\"completed\""]), Some(0.0));
    }
    let errors = "embedding_recovery_provider_errors_total";
    for class in Failure::CLASSES_OF_REQUESTS {
        assert!(Failure::CLASSES.contains(&class), "{class}");
        let class = format!("error_type=\"{class}\"");
        let openai = "gen_ai_provider_name=\"openai\"";
        assert_eq!(value(errors, &[openai, &class]), Some(0.0));
    }
}

#[test]
fn both_readers_are_told_the_same_and_without_a_price_there_is_no_cost() {
    let (text, read) = told(|metrics| {
        metrics.chunks_bought(3, 1_500);
        metrics.claimed(Part::Main, Duration::from_millis(4), Ok(&[task(Part::Main, 1)]));
        metrics.headroom("tokens", 30, 20);
        metrics.headroom("requests", 1, 0);
    });
    assert_eq!(value(&text, "embedding_recovery_tokens_total", &[]), Some(1_500.0));
    assert_eq!(value(&text, "embedding_recovery_cost_total", &[]), None);
    let wait = "embedding_recovery_queue_wait_seconds_sum";
    assert_eq!(value(&text, wait, &["part=\"main\""]), Some(7.0));
    let tokens = "kind=\"tokens\"";
    assert_eq!(value(&text, "embedding_recovery_provider_headroom_ratio", &[tokens]), Some(1.0));
    assert!(!text.contains("kind=\"requests\""), "a limit of nothing is none");
    let scopes: Vec<_> = read.scope_metrics().collect();
    let exported: Vec<_> = scopes.iter().flat_map(|scope| scope.metrics()).collect();
    assert!(exported.len() > 10);
    for metric in exported {
        let known = names::ALL.iter().find(|known| known.name == metric.name()).expect("known");
        assert_eq!((metric.unit(), metric.description()), (known.unit, known.help));
        assert!(text.contains(&format!("# TYPE {} ", prometheus_name(known))), "{}", known.name);
    }
}

#[test]
fn names_are_unique_and_units_are_not_in_them() {
    let mut names: Vec<&str> = names::ALL.iter().map(|metric| metric.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), names::ALL.len());
    for metric in names::ALL {
        assert!(!metric.name.ends_with("total") && !metric.name.contains("seconds"));
        assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
        let private = ["recording_id", "user_id"];
        assert!(!metric.attributes.iter().any(|key| private.contains(key)), "{}", metric.name);
    }
}
