//! The built-in embedding model: static vectors distilled from all-MiniLM-L6-v2.
//!
//! It needs no key, no network and no GPU, so that the program can be tried, tested and measured as it
//! is. The price is quality: each token has one fixed vector and word order does not count, so it is
//! clearly weaker than the transformer that it comes from. `model/README.md` says how the weights were
//! made and under which licence they are.

use std::fmt;
use std::time::Instant;

use async_trait::async_trait;
use model2vec_rs::model::StaticModel;

use crate::domain::failure::Failure;
use crate::domain::packing::{RequestLimits, estimate_tokens};
use crate::ports::{Embedded, Embedder};
use crate::telemetry::metrics::metrics;
use crate::telemetry::spans::Provider;

/// The numbers in one vector; `model/distil.py` set it when it made the weights.
pub const DIMENSIONS: usize = 256;

/// The name to store beside each vector.
///
/// It says more than `local`, by which it is chosen, because vectors of different weights cannot be compared: whoever changes
/// the files in `model/` raises the version, so that older vectors are seen to be stale.
pub const STORED_MODEL: &str = "local/minilm-256-v1";

const TOKENIZER: &[u8] = include_bytes!("model/tokenizer.json");
const WEIGHTS: &[u8] = include_bytes!("model/model.safetensors");
const CONFIG: &[u8] = include_bytes!("model/config.json");

/// Why the built-in model could not be loaded. As its files are part of the program, any of these means
/// a faulty build, not something that a person running the program can put right.
#[derive(Debug, thiserror::Error)]
pub enum LocalModelError {
    /// The tokenizer, the weights or the configuration is not what `model2vec-rs` reads.
    #[error("the built-in embedding model cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The weights were made with another number of dimensions than [`DIMENSIONS`].
    #[error("the built-in embedding model has {found} dimensions, not {DIMENSIONS}")]
    Dimensions {
        /// The number of dimensions in the weights.
        found: usize,
    },
}

/// The built-in embedding model, loaded. Clones share the weights (about 8 MB of memory).
#[derive(Clone)]
pub struct LocalEmbedder {
    model: StaticModel,
}

impl fmt::Debug for LocalEmbedder {
    // By hand: the derived one would print the 7.5 million weights.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalEmbedder").finish_non_exhaustive()
    }
}

impl LocalEmbedder {
    /// Loads the model from the bytes inside the program: tens of milliseconds of CPU work, no files.
    ///
    /// # Errors
    ///
    /// [`LocalModelError`] if the program was built with faulty model files.
    pub fn load() -> Result<LocalEmbedder, LocalModelError> {
        let model = StaticModel::from_bytes(TOKENIZER, WEIGHTS, CONFIG, Some(true))
            .map_err(|error| LocalModelError::Unreadable(error.into()))?;
        match model.dim() {
            DIMENSIONS => Ok(LocalEmbedder { model }),
            found => Err(LocalModelError::Dimensions { found }),
        }
    }

    /// Who is asked, as spans tell it.
    pub fn provider() -> Provider {
        Provider { name: "local".to_owned(), model: STORED_MODEL.to_owned(), server: None }
    }

    /// Embeds each text whole, however long: one vector a text in the order of `texts`, each of
    /// [`DIMENSIONS`] finite numbers and of length 1. The same text always gives the same vector,
    /// whatever the texts beside it.
    ///
    /// A text without any token that the model knows (empty, blank, only emoji) has no meaning to it.
    /// Such texts all get one fixed vector, [`UNKNOWN_TEXT`], rather than the zero vector: that has no
    /// cosine distance, and the database refuses it. Real texts are far from it (the largest cosine over
    /// 6,184 pieces of transcripts was 0.27), so it does not push itself into the results of a search.
    ///
    /// This is blocking CPU work, which `model2vec-rs` spreads over rayon's global pool (all cores,
    /// unless `RAYON_NUM_THREADS` says less), so asynchronous callers wrap it in `spawn_blocking`.
    pub fn embed_texts(&self, texts: &[String]) -> Vec<Vec<f32>> {
        // No maximum length: the 512 tokens of `encode` would silently drop the end of a long chunk.
        // A batch of 0 texts would panic.
        let mut vectors = self.model.encode_with_args(texts, None, texts.len().max(1));
        for vector in &mut vectors {
            // The model has normalised it: its squared length is 1, or 0 without known tokens.
            if vector.iter().map(|x| x * x).sum::<f32>() < 0.5 {
                *vector = UNKNOWN_TEXT.to_vec();
            }
        }
        vectors
    }
}

#[async_trait]
impl Embedder for LocalEmbedder {
    /// There is no request; this is what one turn on the processor takes.
    fn limits(&self) -> RequestLimits {
        RequestLimits { inputs_max: INPUTS_PER_TURN, tokens_max: usize::MAX }
    }

    /// Nothing is ever refused.
    fn learn_inputs_max(&self, _inputs_max: usize) {}

    /// Nobody limits a model of one's own.
    fn share(&self, _replicas: u32) {}

    fn paused_until(&self) -> Option<Instant> {
        None
    }

    async fn embed(&self, inputs: &[String]) -> Result<Embedded, Failure> {
        let (model, texts) = (self.clone(), inputs.to_vec());
        let tokens = texts.iter().map(|text| estimate_tokens(text.len()) as u64).sum();
        let began = Instant::now();
        let vectors = tokio::task::spawn_blocking(move || model.embed_texts(&texts)).await;
        // Only a panic in the model ends the task without its vectors.
        let vectors = vectors.map_err(|_| Failure::Panicked);
        let result = vectors.as_ref().map(|_| tokens).map_err(Failure::class);
        metrics().requested(&Self::provider(), began.elapsed(), result);
        let vectors = vectors?;
        Ok(Embedded { vectors, tokens })
    }

    async fn probe(&self) -> Result<Embedded, Failure> {
        self.embed(&["probe".to_owned()]).await
    }
}

/// Texts embedded in one go: milliseconds of work.
const INPUTS_PER_TURN: usize = 64;

/// The vector of a text without any known token: all numbers alike, and of length 1, since the square
/// root of [`DIMENSIONS`] is 16.
pub const UNKNOWN_TEXT: [f32; DIMENSIONS] = [1.0 / 16.0; DIMENSIONS];

#[cfg(test)]
mod tests {
    use super::*;

    fn embed(texts: &[&str]) -> Vec<Vec<f32>> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        LocalEmbedder::load().expect("the built-in model loads").embed_texts(&texts)
    }

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn vectors_have_the_dimension_and_length_1_whatever_the_text() {
        let long_word = "x".repeat(5_000);
        let texts = [
            "How are you?",
            "",
            " \n\t",
            "\0",
            "\u{fffd}",
            "🙂🙂",
            "[PAD]",
            "[UNK]",
            "!",
            "男",
            "e\u{301}",
            &long_word,
        ];
        for (text, vector) in texts.iter().zip(embed(&texts)) {
            assert_eq!(vector.len(), DIMENSIONS, "{text:?}");
            assert!(vector.iter().all(|x| x.is_finite()), "{text:?}");
            assert!((dot(&vector, &vector) - 1.0).abs() < 1e-4, "{text:?}");
        }
        assert!(embed(&[]).is_empty());
    }

    #[test]
    fn a_text_gets_the_same_vector_alone_and_in_company() {
        let together = embed(&["The budget was agreed.", "", "We ship in March."]);
        assert_eq!(together[2], embed(&["We ship in March."])[0]);
        assert_eq!(together, embed(&["The budget was agreed.", "", "We ship in March."]));
    }

    #[test]
    fn a_paraphrase_is_nearer_than_an_unrelated_sentence() {
        let vectors = embed(&[
            "The customer wants to cancel the subscription next month.",
            "Our client is going to end their contract in a few weeks.",
            "The astronaut reported that the oxygen tank was leaking.",
        ]);
        let (paraphrase, unrelated) =
            (dot(&vectors[0], &vectors[1]), dot(&vectors[0], &vectors[2]));
        assert!(paraphrase > unrelated + 0.2, "{paraphrase} is not clearly above {unrelated}");
    }

    #[test]
    fn texts_without_known_tokens_share_a_vector_unlike_that_of_real_texts() {
        let vectors = embed(&["", "🙂", "[PAD]", "The customer wants to cancel the subscription."]);
        for vector in &vectors[..3] {
            assert_eq!(vector.as_slice(), UNKNOWN_TEXT);
        }
        let cosine = dot(&vectors[3], &UNKNOWN_TEXT);
        assert!(cosine.abs() < 0.3, "{cosine}");
    }

    #[test]
    fn the_end_of_a_long_text_counts() {
        let mut start =
            "We went through the numbers of the quarter and the plan for sales. ".repeat(80);
        start.truncate(4_760);
        let ends = [
            " The parachute failed during descent ok.",
            " Grandmother bakes bread on sunday, yes.",
        ];
        let texts = ends.map(|end| format!("{start}{end}"));
        assert!(texts.iter().all(|text| text.len() == 4_800));
        let vectors = embed(&[&texts[0], &texts[1]]);
        // Cut anywhere before the ends, the two would be the same text.
        assert_ne!(vectors[0], vectors[1]);
    }
}
