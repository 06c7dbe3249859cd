//! Spans as they are exported, read as the trees that they are.

use std::collections::BTreeMap;

use embedding_recovery::telemetry;
use opentelemetry::Value;
use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, InMemorySpanExporterBuilder, SdkTracerProvider, SpanData,
};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;

/// An attempt that meets no trouble, of a call that is one request: the first, a retry and a recovery
/// differ in what they say and link to alone.
pub const UNTROUBLED: [&str; 7] = [
    "process recording consumer",
    "  load transcript client",
    "  chunk",
    "  open chunk set client",
    "  embeddings test-model client",
    "  store chunks client",
    "  complete client",
];

/// Everything that this thread's runtime traces, until it is dropped.
pub struct Received {
    exporter: InMemorySpanExporter,
    _provider: SdkTracerProvider,
    _default: DefaultGuard,
}

impl Received {
    pub fn start() -> Self {
        let exporter = InMemorySpanExporterBuilder::new().build();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = telemetry::span_layer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        let _default = tracing::subscriber::set_default(subscriber);
        Self { exporter, _provider: provider, _default }
    }

    pub fn spans(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    /// The attempts of a recording, in order.
    pub fn attempts(&self, recording_id: i64) -> Vec<SpanData> {
        let id = recording_id.to_string();
        let is_attempt = |span: &SpanData| {
            span.name == "process recording" && attribute(span, "recording_id") == id
        };
        let mut attempts: Vec<SpanData> = self.spans().into_iter().filter(is_attempt).collect();
        attempts.sort_by_key(|span| span.start_time);
        attempts
    }

    /// A span and all below it in the order of their beginnings, a line each: depth, name, kind, and
    /// `error.type` where it failed.
    pub fn tree(&self, root: &SpanData) -> Vec<String> {
        let spans = self.spans();
        let of_trace = spans
            .iter()
            .filter(|span| span.span_context.trace_id() == root.span_context.trace_id());
        let below = of_trace.clone().filter(|span| span.parent_span_id != SpanId::INVALID).count();
        let mut lines = Vec::new();
        walk(&of_trace.collect::<Vec<_>>(), root, 0, &mut lines);
        assert_eq!(lines.len(), below + 1, "a span of the trace hangs nowhere: {spans:#?}");
        lines
    }

    /// What a span links to, as `relation -> name of the span`, or its trace id where it was not
    /// exported here.
    pub fn links(&self, span: &SpanData) -> Vec<String> {
        let spans = self.spans();
        let name = |id: SpanId| {
            let linked = spans.iter().find(|span| span.span_context.span_id() == id);
            linked.map(|span| span.name.to_string())
        };
        let mut links: Vec<String> = span
            .links
            .iter()
            .map(|link| {
                let relation = &link.attributes[0].value;
                let to = name(link.span_context.span_id())
                    .unwrap_or_else(|| link.span_context.trace_id().to_string());
                format!("{relation} -> {to}")
            })
            .collect();
        links.sort();
        links
    }
}

fn walk(spans: &[&SpanData], span: &SpanData, depth: usize, lines: &mut Vec<String>) {
    let kind = match span.span_kind {
        SpanKind::Client => " client",
        SpanKind::Consumer => " consumer",
        _ => "",
    };
    let failed = match span.status {
        Status::Error { .. } => format!(" !{}", attribute(span, "error.type")),
        _ => String::new(),
    };
    lines.push(format!("{}{}{kind}{failed}", "  ".repeat(depth), span.name));
    let id = span.span_context.span_id();
    let mut children: Vec<&&SpanData> =
        spans.iter().filter(|child| child.parent_span_id == id).collect();
    children.sort_by_key(|child| child.start_time);
    for child in children {
        walk(spans, child, depth + 1, lines);
    }
}

/// What a query that compares numbers finds; `None` where the attribute is missing or no whole number.
pub fn number(span: &SpanData, name: &str) -> Option<i64> {
    let attribute = span.attributes.iter().find(|pair| pair.key.as_str() == name)?;
    match attribute.value {
        Value::I64(number) => Some(number),
        _ => None,
    }
}

/// An attribute as text; empty where it is missing.
pub fn attribute(span: &SpanData, name: &str) -> String {
    attributes(span).remove(name).unwrap_or_default()
}

/// All attributes as text.
pub fn attributes(span: &SpanData) -> BTreeMap<String, String> {
    let pairs = span.attributes.iter();
    pairs.map(|pair| (pair.key.to_string(), pair.value.to_string())).collect()
}
