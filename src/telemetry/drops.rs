//! What could not be delivered. Telemetry is for looking at the service, never a reason for it to
//! wait or to fail: what an exporter gives up is counted, and told once a minute at most.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// Between two warnings, all signals together.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Measurements.
    Metrics,
    /// Log lines.
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Signal; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// The word for it, as in OpenTelemetry's variables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// By [`Signal`].
static DROPPED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// One for the process: three signals that go the same way fail together.
static TROUBLE: Mutex<Trouble> = Mutex::new(Trouble::NONE);

/// Spans, metrics or log records that the exporter of this signal has given up since the process
/// began. What found no room in the SDK's buffer, while an exporter hung, is not among them: the SDK does
/// not tell.
pub fn dropped(signal: Signal) -> u64 {
    DROPPED[signal as usize].load(Ordering::Relaxed)
}

/// Which exporters fail, and when that was told.
struct Trouble {
    failing: [bool; 3],
    warned_at: Option<Instant>,
    /// A warning was given of the trouble that there is now.
    told: bool,
}

impl Trouble {
    const NONE: Self = Self { failing: [false; 3], warned_at: None, told: false };

    /// True where a warning is due.
    fn failed(&mut self, signal: Signal, now: Instant) -> bool {
        self.failing[signal as usize] = true;
        let due = self.warned_at.is_none_or(|at| now.duration_since(at) >= WARN_EVERY);
        if due {
            self.warned_at = Some(now);
            self.told = true;
        }
        due
    }

    /// True where this ends what a warning was given of.
    fn delivered(&mut self, signal: Signal) -> bool {
        self.failing[signal as usize] = false;
        let over = self.told && self.failing == [false; 3];
        self.told &= !over;
        over
    }
}

/// The process ends, and what this signal had left was not sent, or not in time.
pub(super) fn note_unsent(signal: Signal) {
    // A panic while the lock is held leaves plain values: still good.
    let mut trouble = TROUBLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let due = trouble.failed(signal, Instant::now());
    drop(trouble);
    if due {
        tracing::warn!(signal = signal.as_str(), "the last telemetry could not be delivered");
    }
}

/// An exporter whose losses are counted and told.
#[derive(Debug)]
pub struct Counted<E> {
    exporter: E,
    signal: Signal,
    /// Where it sends to, without credentials.
    endpoint: String,
}

impl<E> Counted<E> {
    /// Counts what `exporter` cannot deliver to `endpoint`, which must hold no credentials.
    pub fn new(exporter: E, signal: Signal, endpoint: String) -> Self {
        Self { exporter, signal, endpoint }
    }

    fn note(&self, items: usize, result: &OTelSdkResult) {
        let signal = self.signal;
        // A panic while the lock is held leaves plain values: still good.
        let trouble = || TROUBLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match result {
            Ok(()) => {
                let over = trouble().delivered(signal);
                if over {
                    tracing::info!(endpoint = self.endpoint, "telemetry is delivered again");
                }
            }
            Err(error) => {
                DROPPED[signal as usize].fetch_add(items as u64, Ordering::Relaxed);
                let due = trouble().failed(signal, Instant::now());
                if due {
                    tracing::warn!(
                        endpoint = self.endpoint,
                        signal = signal.as_str(),
                        %error,
                        dropped = Signal::ALL.map(dropped).iter().sum::<u64>(),
                        "telemetry cannot be delivered; the service goes on without"
                    );
                }
            }
        }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let items = batch.len();
        let result = self.exporter.export(batch).await;
        self.note(items, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let items = batch.iter().count();
        let result = self.exporter.export(batch).await;
        self.note(items, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let items = metrics.scope_metrics().flat_map(|scope| scope.metrics()).count();
        let result = self.exporter.export(metrics).await;
        self.note(items, &result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_once_a_minute_and_its_end_once_all_are_through() {
        let mut trouble = Trouble::NONE;
        let start = Instant::now();
        assert!(!trouble.delivered(Signal::Logs), "there was none");
        assert!(trouble.failed(Signal::Traces, start));
        assert!(!trouble.failed(Signal::Logs, start + Duration::from_secs(59)));
        assert!(!trouble.delivered(Signal::Logs));
        assert!(trouble.delivered(Signal::Traces));
        assert!(!trouble.delivered(Signal::Traces), "its end is told once");
        // It comes and goes: the minute holds.
        assert!(!trouble.failed(Signal::Traces, start + Duration::from_secs(59)));
        assert!(!trouble.delivered(Signal::Traces), "nothing was told that could be over");
        assert!(trouble.failed(Signal::Traces, start + Duration::from_secs(60)));
    }
}
