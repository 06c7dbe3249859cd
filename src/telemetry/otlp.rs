//! The three ways out of the process: traces, metrics and logs over OTLP, by gRPC or HTTP, from
//! threads of their own. They start with the environment and end within a bound.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::drops::{self, Counted, Signal};
use super::environment::{Destination, Environment, Protocol};
use super::idle::WithoutIdleClaims;
use super::metrics;
use super::{SERVICE, TelemetryError, instance_id};
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol as OtlpProtocol, SpanExporter,
    WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
use tokio::runtime::Runtime;

/// What is not sent by then, when the process ends, is lost.
const SHUTDOWN_TIME: Duration = Duration::from_secs(3);

/// The providers of what is exported.
pub(super) struct Pipeline {
    pub(super) traces: Option<SdkTracerProvider>,
    pub(super) logs: Option<SdkLoggerProvider>,
    metrics: SdkMeterProvider,
    /// gRPC's connections live here: they must outlive the service's own runtime.
    runtime: Option<Runtime>,
}

impl Pipeline {
    /// Starts what the environment asks for. Nothing is connected yet.
    ///
    /// # Errors
    /// An exporter cannot be built.
    pub(super) fn start(environment: &Environment) -> Result<Self, TelemetryError> {
        let destination = |signal| environment.destination(signal);
        let grpc = Signal::ALL.into_iter().filter_map(destination);
        let runtime = match grpc.clone().any(|to| to.protocol == Protocol::Grpc) {
            true => Some(grpc_runtime()?),
            false => None,
        };
        let _entered = runtime.as_ref().map(Runtime::enter);
        let resource = resource();
        let traces = match destination(Signal::Traces) {
            Some(to) => {
                let exporter = counted(span_exporter(to), Signal::Traces, to)?;
                let builder = SdkTracerProvider::builder().with_resource(resource.clone());
                let batches = BatchSpanProcessor::builder(exporter).build();
                Some(builder.with_span_processor(WithoutIdleClaims(batches)).build())
            }
            None => None,
        };
        let logs = match destination(Signal::Logs) {
            Some(to) => {
                let exporter = counted(log_exporter(to), Signal::Logs, to)?;
                let builder = SdkLoggerProvider::builder().with_resource(resource.clone());
                Some(builder.with_batch_exporter(exporter).build())
            }
            None => None,
        };
        let metrics = match destination(Signal::Metrics) {
            Some(to) => {
                let exporter = counted(metric_exporter(to), Signal::Metrics, to)?;
                Some(PeriodicReader::builder(exporter).build())
            }
            None => None,
        };
        let metrics = metrics::start(resource, metrics);
        drop(_entered);
        Ok(Self { traces, logs, metrics, runtime })
    }

    /// Sends what is buffered, all signals side by side, and gives up what takes too long.
    pub(super) fn shutdown(self) {
        let Self { traces, logs, metrics, runtime } = self;
        let (ended, endings) = mpsc::channel();
        let mut open = Vec::new();
        let mut end = |signal: Signal, shutdown: Box<dyn FnOnce() -> OTelSdkResult + Send>| {
            open.push(signal);
            let ended = ended.clone();
            // Where no thread starts, the signal stays open, and is told of below.
            let _ = std::thread::Builder::new().spawn(move || ended.send((signal, shutdown())));
        };
        if let Some(traces) = traces {
            end(Signal::Traces, Box::new(move || traces.shutdown_with_timeout(SHUTDOWN_TIME)));
        }
        if let Some(logs) = logs {
            end(Signal::Logs, Box::new(move || logs.shutdown_with_timeout(SHUTDOWN_TIME)));
        }
        end(Signal::Metrics, Box::new(move || metrics.shutdown_with_timeout(SHUTDOWN_TIME)));
        let deadline = Instant::now() + SHUTDOWN_TIME;
        // Ends with the last sender, or with the time.
        drop(ended);
        while let Ok((signal, result)) =
            endings.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if result.is_ok() {
                open.retain(|open| *open != signal);
            }
        }
        for signal in open {
            drops::note_unsent(signal);
        }
        if let Some(runtime) = runtime {
            // An export that hangs must not hold the process.
            runtime.shutdown_background();
        }
    }
}

fn grpc_runtime() -> Result<Runtime, TelemetryError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("telemetry")
        .enable_all()
        .build()
        .map_err(TelemetryError::Runtime)
}

/// Says who sends. What the environment names goes before what is known here.
fn resource() -> Resource {
    let detected = Resource::builder().build();
    let own = [
        ("service.name", SERVICE.to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance_id().to_string()),
    ];
    let is_unset = |name: &'static str| match detected.get(&Key::new(name)) {
        // The SDK's own guess, where nobody names the service.
        Some(value) => value.as_str().starts_with("unknown_service"),
        None => true,
    };
    let missing = own.into_iter().filter(|(name, _)| is_unset(name));
    let missing: Vec<KeyValue> = missing.map(|(name, value)| KeyValue::new(name, value)).collect();
    Resource::builder().with_attributes(missing).build()
}

fn counted<E>(
    exporter: Result<E, ExporterBuildError>,
    signal: Signal,
    to: &Destination,
) -> Result<Counted<E>, TelemetryError> {
    let exporter = exporter.map_err(|_| TelemetryError::Exporter(signal.as_str()))?;
    Ok(Counted::new(exporter, signal, to.endpoint.clone()))
}

/// By itself, the exporter trusts nobody.
fn grpc<B: WithTonicConfig>(builder: B, to: &Destination) -> B {
    match to.endpoint.starts_with("https://") {
        true => builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots()),
        false => builder,
    }
}

fn span_exporter(to: &Destination) -> Result<SpanExporter, ExporterBuildError> {
    let builder = SpanExporter::builder();
    match to.protocol {
        Protocol::Grpc => grpc(builder.with_tonic(), to).build(),
        Protocol::Http => builder.with_http().with_protocol(OtlpProtocol::HttpBinary).build(),
    }
}

fn log_exporter(to: &Destination) -> Result<LogExporter, ExporterBuildError> {
    let builder = LogExporter::builder();
    match to.protocol {
        Protocol::Grpc => grpc(builder.with_tonic(), to).build(),
        Protocol::Http => builder.with_http().with_protocol(OtlpProtocol::HttpBinary).build(),
    }
}

fn metric_exporter(to: &Destination) -> Result<MetricExporter, ExporterBuildError> {
    let builder = MetricExporter::builder();
    match to.protocol {
        Protocol::Grpc => grpc(builder.with_tonic(), to).build(),
        Protocol::Http => builder.with_http().with_protocol(OtlpProtocol::HttpBinary).build(),
    }
}
