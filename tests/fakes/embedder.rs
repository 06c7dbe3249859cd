//! An embedder that panics over a chosen text, and takes few inputs a request, over a real one.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::packing::RequestLimits;
use embedding_recovery::embedders::openai::PROBE_TEXT;
use embedding_recovery::ports::{Embedded, Embedder};

/// The wrapper. Until told otherwise it only keeps requests small.
pub struct FaultyEmbedder {
    inner: Arc<dyn Embedder>,
    inputs_max: usize,
    panics: Mutex<Panics>,
}

#[derive(Default)]
struct Panics {
    text: String,
    left: usize,
    happened: usize,
}

impl FaultyEmbedder {
    pub fn new(inner: Arc<dyn Embedder>, inputs_max: usize) -> Self {
        Self { inner, inputs_max, panics: Mutex::default() }
    }

    /// Panics in the next `times` requests with an input that has `text` in it.
    pub fn panic_over(&self, text: &str, times: usize) {
        let mut panics = self.panics.lock().unwrap();
        (panics.text, panics.left) = (text.into(), times);
    }

    /// How often it panicked.
    pub fn panicked(&self) -> usize {
        self.panics.lock().unwrap().happened
    }

    fn panics_over(&self, inputs: &[String]) -> bool {
        let mut panics = self.panics.lock().unwrap();
        let now = panics.left > 0 && inputs.iter().any(|input| input.contains(&panics.text));
        if now {
            panics.left -= 1;
            panics.happened += 1;
        }
        now
    }
}

#[async_trait]
impl Embedder for FaultyEmbedder {
    fn limits(&self) -> RequestLimits {
        let limits = self.inner.limits();
        RequestLimits { inputs_max: self.inputs_max.min(limits.inputs_max), ..limits }
    }

    fn learn_inputs_max(&self, inputs_max: usize) {
        self.inner.learn_inputs_max(inputs_max);
    }

    fn share(&self, replicas: u32) {
        self.inner.share(replicas);
    }

    async fn embed(&self, inputs: &[String]) -> Result<Embedded, Failure> {
        assert!(!self.panics_over(inputs), "a panic that the test asked for");
        self.inner.embed(inputs).await
    }

    async fn probe(&self) -> Result<Embedded, Failure> {
        assert!(!self.panics_over(&[PROBE_TEXT.into()]), "a panic that the test asked for");
        self.inner.probe().await
    }
}
