//! Logs to standard error, traces over OTLP where an endpoint is configured, and metrics.

pub mod metrics;

use std::io::IsTerminal;

use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// OpenTelemetry's own variables (its specification of the OTLP exporter).
const ENDPOINT_VARIABLES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// Everything that matters to an operator, and warnings of the libraries.
pub const DEFAULT_FILTER: &str = "warn,embedding_recovery=info";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// The exporter of traces cannot be built from the settings in the environment.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be exported (OTEL_EXPORTER_OTLP_…): {0}")]
pub struct TelemetryError(#[from] ExporterBuildError);

/// Keeps telemetry going; what is buffered is sent when it is dropped.
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    _metrics: SdkMeterProvider,
}

/// Checks a filter of log lines: `level`, or `target=level`, separated by commas.
///
/// # Errors
/// What is wrong with it.
pub fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Starts logging and, with an endpoint in the environment, tracing. The panic hook logs the place
/// and not the message, which may quote a transcript.
///
/// # Errors
/// The exporter's settings are wrong.
pub fn start(format: LogFormat, filter: &str) -> Result<Telemetry, TelemetryError> {
    let provider = match ENDPOINT_VARIABLES.iter().any(|name| std::env::var_os(name).is_some()) {
        true => Some(tracer_provider()?),
        false => None,
    };
    let filter = EnvFilter::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Pretty => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer().with_tracer(provider.tracer("embedding-recovery"))
    });
    tracing_subscriber::registry().with(lines.and_then(spans).with_filter(filter)).init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
    let _metrics = metrics::start(resource(), None::<ManualReader>);
    Ok(Telemetry { provider, _metrics })
}

fn tracer_provider() -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_http().build()?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build())
}

fn resource() -> Resource {
    Resource::builder().with_service_name("embedding-recovery").build()
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Id of the trace that the current span belongs to, where traces are exported.
pub fn current_trace_id() -> Option<String> {
    let context = tracing::Span::current().context();
    let span = context.span();
    let span_context = span.span_context();
    span_context.is_valid().then(|| span_context.trace_id().to_string())
}
