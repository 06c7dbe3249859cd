//! Logs to standard error, and traces, metrics and logs over OTLP where the environment names a
//! collector.

pub mod drops;
mod environment;
mod idle;
mod lines;
pub mod metrics;
mod otlp;
pub mod spans;

use std::sync::OnceLock;

use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};
use uuid::Uuid;

use environment::{Environment, EnvironmentError};
use otlp::Pipeline;

/// Everything that matters to an operator, and warnings of the libraries.
pub const DEFAULT_FILTER: &str = "warn,embedding_recovery=info";
/// The service's name where the environment does not give one.
const SERVICE: &str = "embedding-recovery";
/// What carries telemetry away: exported itself, each export would make the next.
const CARRIERS: [&str; 7] = ["hyper", "h2", "tonic", "tower", "reqwest", "rustls", SDK];
/// The SDK tells each failed export; [`drops`] tells it once a minute.
const SDK: &str = "opentelemetry";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A variable of OpenTelemetry's has a value that it cannot have.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The exporter of a signal cannot be built from the environment. Its own words may repeat a
    /// password of the endpoint, or a key.
    #[error("{0} cannot be exported: no exporter starts with these variables OTEL_EXPORTER_OTLP_…")]
    Exporter(&'static str),
    /// The system gives no thread for it.
    #[error("telemetry cannot be exported: {0}")]
    Runtime(std::io::Error),
}

/// Names this process: `service.instance.id` of its telemetry, and of its work in the database, so that a
/// trace leads to the worker and back.
pub fn instance_id() -> Uuid {
    static INSTANCE_ID: OnceLock<Uuid> = OnceLock::new();
    *INSTANCE_ID.get_or_init(Uuid::new_v4)
}

/// Keeps telemetry going; what is buffered is sent when it is dropped, within a bound.
pub struct Telemetry {
    pipeline: Option<Pipeline>,
}

/// Checks a filter of log lines: `level`, or `target=level`, separated by commas.
///
/// # Errors
/// What is wrong with it.
pub fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Starts logging and what the environment wants exported. `filter` decides which lines are logged,
/// here and over OTLP; spans are exported whatever it says. The panic hook logs the place and not the
/// message, which may quote a transcript.
///
/// # Errors
/// A variable of OpenTelemetry's is wrong.
pub fn start(format: LogFormat, filter: &str) -> Result<Telemetry, TelemetryError> {
    let environment = Environment::read(|name| std::env::var(name).ok())?;
    let pipeline = Pipeline::start(&environment)?;
    let lines =
        lines::layer(format).with_filter(EnvFilter::new(filter).and(filter_fn(is_for_lines)));
    let logs = pipeline.logs.as_ref().map(|provider| {
        OpenTelemetryTracingBridge::new(provider)
            .with_filter(EnvFilter::new(filter).and(filter_fn(|metadata| !is_carrier(metadata))))
    });
    let traces = pipeline.traces.as_ref().map(|provider| span_layer(provider.tracer(SERVICE)));
    tracing_subscriber::registry().with(traces).with(lines).with(logs).init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
    Ok(Telemetry { pipeline: Some(pipeline) })
}

/// The layer that hands the service's spans to `tracer`.
pub fn span_layer<S, T>(tracer: T) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    T: opentelemetry::trace::Tracer + Send + Sync + 'static,
    T::Span: Send + Sync,
{
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        // How a span ended is said by those who end it.
        .with_error_events_to_status(false)
        .with_error_events_to_exceptions(false)
        .with_error_fields_to_exceptions(false)
        .with_error_records_to_exceptions(false)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_filter(filter_fn(is_for_traces))
        .boxed()
}

/// Steps are told by the trace; a line names the attempt that it is about.
fn is_for_lines(metadata: &Metadata<'_>) -> bool {
    let is_step = metadata.is_span() && metadata.target() == spans::STEP;
    !is_step && !metadata.target().starts_with(SDK)
}

/// The service's own spans, with its events in them; of the libraries', what went wrong.
fn is_for_traces(metadata: &Metadata<'_>) -> bool {
    let own = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
    let level_max = if own { Level::INFO } else { Level::WARN };
    (own || metadata.is_event()) && *metadata.level() <= level_max && !is_carrier(metadata)
}

fn is_carrier(metadata: &Metadata<'_>) -> bool {
    CARRIERS.iter().any(|name| metadata.target().starts_with(name))
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            pipeline.shutdown();
        }
    }
}
