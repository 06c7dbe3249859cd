//! Metrics: one set of instruments with two readers, OTLP where an endpoint is configured and
//! `/metrics` for Prometheus. What is measured is said at the call site in a word ([`metrics`]);
//! names, units and attributes are in [`names`] alone.

mod levels;
pub mod names;
mod record;
mod reference;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::metrics::reader::MetricReader;
use prometheus::{Encoder, Registry, TextEncoder};

use levels::Levels;
use names::{Kind, Metric};
pub use reference::{markdown, prometheus_name, prometheus_type};
pub use words::{Lane, Outcome};

/// The commit that the program was built from; `unknown` where that was not told.
pub const COMMIT: &str = env!("EMBEDDING_RECOVERY_COMMIT");
/// Type of what [`exposition`] returns. Source: Prometheus, "Exposition formats".
pub const EXPOSITION_TYPE: &str = prometheus::TEXT_FORMAT;

/// The instruments of the process.
pub struct Metrics {
    counters: HashMap<&'static str, Counter<u64>>,
    amounts: HashMap<&'static str, Counter<f64>>,
    histograms: HashMap<&'static str, Histogram<f64>>,
    levels: Arc<Levels>,
    price_per_million_tokens: OnceLock<f64>,
}

static METRICS: OnceLock<Metrics> = OnceLock::new();
static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// The instruments. Until [`start`], what is measured goes nowhere: so it is in tests, of which many
/// share a process.
pub fn metrics() -> &'static Metrics {
    METRICS.get_or_init(|| Metrics::new(&opentelemetry::global::meter(SCOPE)))
}

/// Builds the instruments, once a process and before anything is measured, for `/metrics` and, with
/// `otlp`, for that reader too.
pub fn start<R: MetricReader>(resource: Resource, otlp: Option<R>) -> SdkMeterProvider {
    let (provider, registry) = provider(resource, otlp);
    let metrics = METRICS.get_or_init(|| Metrics::new(&provider.meter(SCOPE)));
    REGISTRY.get_or_init(|| registry);
    metrics.begin();
    provider
}

/// A provider with its readers, and the registry that one of them reads for.
fn provider<R: MetricReader>(resource: Resource, otlp: Option<R>) -> (SdkMeterProvider, Registry) {
    let registry = Registry::new();
    let mut provider = SdkMeterProvider::builder().with_resource(resource);
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build();
    match exporter {
        Ok(exporter) => provider = provider.with_reader(exporter),
        Err(error) => tracing::warn!(%error, "/metrics will be empty"),
    }
    if let Some(reader) = otlp {
        provider = provider.with_reader(reader);
    }
    (provider.build(), registry)
}

/// Name of the one scope of all instruments; no series carries it.
const SCOPE: &str = super::SERVICE;

/// What Prometheus reads, as text of [`EXPOSITION_TYPE`]. Takes no longer than to write it down: what
/// is slow to find out is found out beforehand.
///
/// # Errors
/// The text cannot be written.
pub fn exposition() -> Result<String, String> {
    REGISTRY.get().map_or(Ok(String::new()), text)
}

fn text(registry: &Registry) -> Result<String, String> {
    let mut text = Vec::new();
    let written = TextEncoder::new().encode(&registry.gather(), &mut text);
    written.map_err(|error| error.to_string())?;
    String::from_utf8(text).map_err(|error| error.to_string())
}

impl Metrics {
    /// Builds every instrument of the table.
    fn new(meter: &Meter) -> Self {
        let mut metrics = Self {
            counters: HashMap::new(),
            amounts: HashMap::new(),
            histograms: HashMap::new(),
            levels: Arc::default(),
            price_per_million_tokens: OnceLock::new(),
        };
        for metric in names::ALL {
            metrics.build(meter, metric);
        }
        metrics
    }

    fn build(&mut self, meter: &Meter, metric: &Metric) {
        let Metric { name, kind, unit, help, .. } = *metric;
        match kind {
            Kind::Counter => {
                let counter = meter.u64_counter(name).with_unit(unit).with_description(help);
                self.counters.insert(name, counter.build());
            }
            Kind::Amount => {
                let amount = meter.f64_counter(name).with_unit(unit).with_description(help);
                self.amounts.insert(name, amount.build());
            }
            Kind::Observed => {
                let observed =
                    meter.u64_observable_counter(name).with_unit(unit).with_description(help);
                observed.with_callback(|reader| record::observe_drops(reader)).build();
            }
            Kind::Gauge => {
                let levels = self.levels.clone();
                let gauge = meter.f64_observable_gauge(name).with_unit(unit).with_description(help);
                gauge.with_callback(move |reader| levels.observe(name, reader)).build();
            }
            Kind::Histogram(bounds) => {
                let histogram = meter.f64_histogram(name).with_unit(unit).with_description(help);
                let histogram = histogram.with_boundaries(bounds.to_vec()).build();
                self.histograms.insert(name, histogram);
            }
        }
    }

    fn count(&self, metric: &Metric, by: u64, attributes: &[KeyValue]) {
        if let Some(counter) = self.counters.get(metric.name) {
            counter.add(by, attributes);
        }
    }

    fn amount(&self, metric: &Metric, by: f64, attributes: &[KeyValue]) {
        if let Some(amount) = self.amounts.get(metric.name) {
            amount.add(by, attributes);
        }
    }

    fn measure(&self, metric: &Metric, value: f64, attributes: &[KeyValue]) {
        if let Some(histogram) = self.histograms.get(metric.name) {
            histogram.record(value, attributes);
        }
    }

    fn level(&self, metric: &Metric, value: f64, attributes: &[KeyValue]) {
        self.levels.set(metric, attributes, value);
    }
}

#[cfg(test)]
mod tests;
