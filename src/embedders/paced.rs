//! An embedder slowed down to the pace of a distant API, so that one can watch: the built-in model is
//! done with a call before its bar is drawn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::domain::failure::Failure;
use crate::domain::packing::RequestLimits;
use crate::ports::{Embedded, Embedder};

/// The wrapper. It counts what an API would charge for.
pub struct PacedEmbedder {
    inner: Arc<dyn Embedder>,
    inputs_max: usize,
    latency: Duration,
    requests: AtomicU64,
    inputs: AtomicU64,
}

impl PacedEmbedder {
    /// Takes at most `inputs_max` inputs a request, and answers after about `latency`.
    pub fn new(inner: Arc<dyn Embedder>, inputs_max: usize, latency: Duration) -> Self {
        let (requests, inputs) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { inner, inputs_max, latency, requests, inputs }
    }

    /// Inputs of all requests that were sent, whether their answer was waited for or not.
    pub fn inputs(&self) -> u64 {
        self.inputs.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Embedder for PacedEmbedder {
    fn limits(&self) -> RequestLimits {
        RequestLimits { inputs_max: self.inputs_max, ..self.inner.limits() }
    }

    fn learn_inputs_max(&self, inputs_max: usize) {
        self.inner.learn_inputs_max(inputs_max);
    }

    fn share(&self, replicas: u32) {
        self.inner.share(replicas);
    }

    fn paused_until(&self) -> Option<Instant> {
        self.inner.paused_until()
    }

    async fn embed(&self, inputs: &[String]) -> Result<Embedded, Failure> {
        self.inputs.fetch_add(inputs.len() as u64, Ordering::Relaxed);
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        // No API answers twice in the same time: 80 to 120 % of it, in turn.
        let tenths = 8 + (request % 5) as u32;
        tokio::time::sleep(self.latency * tenths / 10).await;
        self.inner.embed(inputs).await
    }

    async fn probe(&self) -> Result<Embedded, Failure> {
        self.inner.probe().await
    }
}
