//! Every span that the service makes: its name, its kind and its attributes, in one place. The names
//! follow OpenTelemetry's conventions for `gen_ai`, `messaging` and `db`; what these do not know has a
//! plain name. No span holds a word of a transcript.

use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{KeyValue, Value};
use tracing::{Instrument, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::task::Task;
use crate::domain::trace::Traceparent;

/// Target of the spans of steps.
pub const STEP: &str = "embedding_recovery::step";
/// Name of the span of a claim.
pub(super) const CLAIM: &str = "claim";
/// How many tasks a claim took.
pub(super) const CLAIMED: &str = "messaging.batch.message_count";
/// `db.system.name` and `messaging.system`: the queue is a table.
const DATABASE: &str = "postgresql";
/// `messaging.destination.name`.
const QUEUE: &str = "embedding_queue";

/// The root of an attempt's trace. Its clones are one span, which ends with the last of them: it
/// outlives the actor, so that a restart in place and the settlement are told by the same trace.
#[derive(Debug, Clone)]
pub struct AttemptSpan(Span);

impl AttemptSpan {
    /// Opens the trace of an attempt, linked to what it goes back to.
    pub fn open(task: &Task, model_name: &str) -> Self {
        let span = info_span!(
            parent: None,
            "process recording",
            otel.kind = "consumer",
            user_id = %task.key.user_id,
            recording_id = task.key.recording_id,
            // Signed, as each number here: others leave as text, which no query compares.
            attempt = i64::from(task.attempts),
            chunks = tracing::field::Empty,
        );
        queue_attributes(&span, "process", "process");
        span.set_attribute("messaging.message.id", task.lease.task_id.to_string());
        span.set_attribute("part", task.part.as_str());
        span.set_attribute("gen_ai.request.model", model_name.to_owned());
        let origins = &task.origins;
        let links = [
            ("claim", &origins.claim),
            ("previous attempt", &origins.previous),
            ("request", &origins.request),
        ];
        for (relation, traceparent) in links {
            if let Some(context) = traceparent.as_ref().and_then(span_context) {
                span.add_link_with_attributes(context, vec![KeyValue::new("relation", relation)]);
            }
        }
        Self(span)
    }

    /// Its name for others; `None` where no trace is made of it.
    pub fn traceparent(&self) -> Option<Traceparent> {
        traceparent(&self.0)
    }

    /// Runs a part of the attempt within it.
    pub async fn within<T>(&self, future: impl Future<Output = T>) -> T {
        future.instrument(self.0.clone()).await
    }

    /// Does something at once within it.
    pub fn enter<T>(&self, action: impl FnOnce() -> T) -> T {
        self.0.in_scope(action)
    }

    /// The transcript is cut, and its set is open.
    pub fn planned(&self, chunks: u32, chunks_reused: u32, chunk_set_id: Uuid) {
        self.0.record("chunks", i64::from(chunks));
        set(&self.0, "chunks_reused", chunks_reused);
        self.0.set_attribute("chunk_set", chunk_set_id.to_string());
    }

    /// Says how it ended, and why where it failed.
    pub fn ended(&self, outcome: &'static str, failure: Option<&Failure>) {
        self.0.set_attribute("outcome", outcome);
        if let Some(failure) = failure {
            match failure {
                // Another attempt does the work: each restart of a service would count as failures.
                Failure::Shutdown | Failure::LeaseLost => {
                    self.0.set_attribute("error.type", failure.class());
                }
                _ => fail(&self.0, failure.class(), failure.to_string()),
            }
        }
        // A span ends when it was last left.
        self.enter(|| ());
    }
}

/// A part of an attempt, or a claim. One that is dropped before it came to an end was interrupted, by
/// a panic or by a kill.
#[derive(Debug)]
pub struct Step {
    span: Span,
    ended: bool,
}

impl Step {
    /// Runs it. May be called again; the last ending counts.
    pub async fn run<T>(
        &mut self,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.ended = false;
        let result = future.instrument(self.span.clone()).await;
        self.ended = true;
        if let Err(failure) = &result {
            fail(&self.span, failure.class(), failure.to_string());
        }
        result
    }

    /// The provider answered.
    pub fn bought(&self, tokens: u64, dimensions: usize) {
        self.set("gen_ai.usage.input_tokens", tokens);
        self.set("gen_ai.embeddings.dimension.count", dimensions as u64);
    }

    /// The size of inserts after this one.
    pub fn adapted(&self, rows: usize) {
        self.set("batch_size.after", rows as u64);
    }

    /// These were claimed: their attempts link to this.
    pub fn claimed(&self, tasks: &mut [Task]) {
        self.set(CLAIMED, tasks.len() as u64);
        let traceparent = traceparent(&self.span);
        for task in tasks {
            task.origins.claim = traceparent.clone();
        }
    }

    fn set(&self, name: &'static str, value: impl TryInto<i64>) {
        set(&self.span, name, value);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            let class = if std::thread::panicking() { "panicked" } else { "interrupted" };
            fail(&self.span, class, String::new());
        }
    }
}

/// Tasks are leased.
pub fn claim(part: Part, worker: Uuid) -> Step {
    let span = info_span!(target: STEP, parent: None, CLAIM, otel.kind = "client");
    queue_attributes(&span, CLAIM, "receive");
    span.set_attribute("part", part.as_str());
    span.set_attribute("messaging.client.id", worker.to_string());
    step(span)
}

/// The transcript is read.
pub fn load_transcript() -> Step {
    database("SELECT", info_span!(target: STEP, "load transcript", otel.kind = "client"))
}

/// The transcript is cut.
pub fn chunk() -> Step {
    step(info_span!(target: STEP, "chunk"))
}

/// Rows that are on their way are waited for, and the set is opened, with what is stored already.
pub fn open_chunk_set() -> Step {
    database("INSERT", info_span!(target: STEP, "open chunk set", otel.kind = "client"))
}

/// Who is asked for vectors.
#[derive(Debug, Clone)]
pub struct Provider {
    /// `gen_ai.provider.name`.
    pub name: String,
    /// The model, as the provider knows it.
    pub model: String,
    /// Host and port, where it is reached over a network.
    pub server: Option<(String, Option<u16>)>,
}

/// One request for the vectors of so many inputs, with its waits and repetitions.
pub fn embeddings(provider: &Provider, inputs: usize) -> Step {
    let kind = if provider.server.is_some() { "client" } else { "internal" };
    let name = format!("embeddings {}", provider.model);
    let span = info_span!(target: STEP, "embeddings", otel.name = name, otel.kind = kind);
    span.set_attribute("gen_ai.operation.name", "embeddings");
    span.set_attribute("gen_ai.provider.name", provider.name.clone());
    span.set_attribute("gen_ai.request.model", provider.model.clone());
    if let Some((host, port)) = &provider.server {
        span.set_attribute("server.address", host.clone());
        if let Some(port) = port {
            set(&span, "server.port", *port);
        }
    }
    set(&span, "inputs", inputs as u64);
    step(span)
}

/// One insert statement of an attempt, while inserts have at most `size_before` rows.
pub fn store_chunks(attempt: &AttemptSpan, rows: usize, size_before: usize) -> Step {
    let span = info_span!(target: STEP, parent: &attempt.0, "store chunks", otel.kind = "client");
    let step = database("INSERT", span);
    step.set("db.operation.batch.size", rows as u64);
    step.set("batch_size.before", size_before as u64);
    step
}

/// The set becomes current and the task is completed.
pub fn complete() -> Step {
    database("COMMIT", info_span!(target: STEP, "complete", otel.kind = "client"))
}

/// What becomes of an attempt that failed is written.
pub fn settle(attempt: &AttemptSpan) -> Step {
    let span = info_span!(target: STEP, parent: &attempt.0, "settle", otel.kind = "client");
    database("UPDATE", span)
}

fn step(span: Span) -> Step {
    // Without a run there is nothing to interrupt.
    Step { span, ended: true }
}

fn database(operation: &'static str, span: Span) -> Step {
    span.set_attribute("db.system.name", DATABASE);
    span.set_attribute("db.operation.name", operation);
    step(span)
}

fn queue_attributes(span: &Span, operation: &'static str, kind: &'static str) {
    span.set_attribute("messaging.system", DATABASE);
    span.set_attribute("messaging.destination.name", QUEUE);
    span.set_attribute("messaging.operation.name", operation);
    span.set_attribute("messaging.operation.type", kind);
}

fn set(span: &Span, name: &'static str, value: impl TryInto<i64>) {
    span.set_attribute(name, Value::I64(value.try_into().unwrap_or(i64::MAX)));
}

fn fail(span: &Span, class: &'static str, description: String) {
    span.set_attribute("error.type", class);
    span.set_status(Status::error(description));
}

fn traceparent(span: &Span) -> Option<Traceparent> {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    let (trace_id, span_id) = (context.trace_id(), context.span_id());
    // Nothing may lead to a trace that is not made.
    let flags = context.is_sampled().then(|| context.trace_flags().to_u8())?;
    Traceparent::parse(&format!("00-{trace_id}-{span_id}-{flags:02x}"))
}

fn span_context(traceparent: &Traceparent) -> Option<SpanContext> {
    let mut parts = traceparent.as_str().split('-').skip(1);
    let trace_id = TraceId::from_hex(parts.next()?).ok()?;
    let span_id = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    Some(SpanContext::new(trace_id, span_id, flags, true, TraceState::default()))
}
