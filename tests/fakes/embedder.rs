//! An embedder that panics over a chosen text or at a chosen call, and takes few inputs a request,
//! over a real one.

use std::sync::{Arc, Mutex};
use std::time::Instant;

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
    /// A method, and how many of its calls are left until it panics.
    at_call: Mutex<Option<(&'static str, usize)>>,
}

#[derive(Default)]
struct Panics {
    text: String,
    left: usize,
    happened: usize,
}

impl FaultyEmbedder {
    pub fn new(inner: Arc<dyn Embedder>, inputs_max: usize) -> Self {
        Self { inner, inputs_max, panics: Mutex::default(), at_call: Mutex::default() }
    }

    /// Panics in the next `times` requests with an input that has `text` in it.
    pub fn panic_over(&self, text: &str, times: usize) {
        let mut panics = self.panics.lock().unwrap();
        (panics.text, panics.left) = (text.into(), times);
    }

    /// Panics at the `nth` call of `method` from now on, from 1.
    pub fn panic_at(&self, method: &'static str, nth: usize) {
        *self.at_call.lock().unwrap() = Some((method, nth));
    }

    fn called(&self, method: &str) {
        let mut at_call = self.at_call.lock().unwrap();
        let Some((_, left)) = at_call.as_mut().filter(|(planned, _)| *planned == method) else {
            return;
        };
        *left -= 1;
        if *left == 0 {
            *at_call = None;
            drop(at_call);
            self.panics.lock().unwrap().happened += 1;
            panic!("a panic that the test asked for");
        }
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
        self.called("limits");
        let limits = self.inner.limits();
        RequestLimits { inputs_max: self.inputs_max.min(limits.inputs_max), ..limits }
    }

    fn learn_inputs_max(&self, inputs_max: usize) {
        self.called("learn_inputs_max");
        self.inner.learn_inputs_max(inputs_max);
    }

    fn share(&self, replicas: u32) {
        self.called("share");
        self.inner.share(replicas);
    }

    fn paused_until(&self) -> Option<Instant> {
        self.inner.paused_until()
    }

    async fn embed(&self, inputs: &[String]) -> Result<Embedded, Failure> {
        self.called("embed");
        assert!(!self.panics_over(inputs), "a panic that the test asked for");
        self.inner.embed(inputs).await
    }

    async fn probe(&self) -> Result<Embedded, Failure> {
        self.called("probe");
        assert!(!self.panics_over(&[PROBE_TEXT.into()]), "a panic that the test asked for");
        self.inner.probe().await
    }
}
