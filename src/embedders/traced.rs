//! Any embedder, with each request told by a span of the trace that it is made for. What happens
//! within a request, as a wait for the rate limit or a repetition, is an event of that span.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::domain::failure::Failure;
use crate::domain::packing::RequestLimits;
use crate::ports::{Embedded, Embedder};
use crate::telemetry::spans::{self, Provider};

/// Passes everything on.
pub struct TracedEmbedder {
    inner: Arc<dyn Embedder>,
    provider: Provider,
}

impl TracedEmbedder {
    /// Says of each request of `inner` that it went to `provider`.
    pub fn new(inner: Arc<dyn Embedder>, provider: Provider) -> Self {
        Self { inner, provider }
    }

    async fn traced(
        &self,
        inputs: usize,
        asking: impl Future<Output = Result<Embedded, Failure>>,
    ) -> Result<Embedded, Failure> {
        let mut request = spans::embeddings(&self.provider, inputs);
        let embedded = request.run(asking).await?;
        request.bought(embedded.tokens, embedded.vectors.first().map_or(0, Vec::len));
        Ok(embedded)
    }
}

#[async_trait]
impl Embedder for TracedEmbedder {
    fn limits(&self) -> RequestLimits {
        self.inner.limits()
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
        self.traced(inputs.len(), self.inner.embed(inputs)).await
    }

    async fn probe(&self) -> Result<Embedded, Failure> {
        self.traced(1, self.inner.probe()).await
    }
}
