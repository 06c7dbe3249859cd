//! Buys the vectors of an attempt: packs the missing chunks into requests, splits what is refused down
//! to the chunk that is to blame, and tells the provider's trouble from the recording's.

use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Attempt, Plan};
use crate::domain::chunking::Chunk;
use crate::domain::failure::Failure;
use crate::domain::packing::{halves, pack};
use crate::ports::Embedded;
use crate::telemetry::metrics::metrics;

/// A request whose failure is followed by a rate-limited probe this often is given back.
const LIMITED_PROBES_MAX: u32 = 5;

/// Inputs of one request, whatever the provider takes: what a crash may make one pay twice, and what
/// is in memory at once.
const REQUEST_INPUTS_MAX: usize = 128;

/// What came of one request.
struct Bought {
    /// The texts that were embedded.
    inputs: Vec<String>,
    /// One for each.
    vectors: Vec<Vec<f32>>,
    tokens: u64,
}

/// What became of a request and its parts.
#[derive(Default)]
struct Split {
    /// The server refused it, or a part of it.
    refused: bool,
    /// Inputs of the largest part that was taken.
    taken_max: usize,
    /// A single chunk is refused.
    to_blame: bool,
}

/// What a request's failure means where one chunk is all that it holds; `None` where it is not about
/// the chunks.
fn item_failure(failure: &Failure, chunk_index: u32) -> Option<Failure> {
    match failure {
        Failure::RequestRefused { message } => {
            Some(Failure::ChunkRefused { chunk_index, message: message.clone() })
        }
        Failure::ProviderRejectsItem { message } => Some(Failure::ProviderRejectsItem {
            message: format!("chunk {chunk_index}: {message}"),
        }),
        _ => None,
    }
}

impl Attempt {
    /// Buys the vectors of the missing chunks and stores each request's as it comes. A chunk that
    /// is refused does not keep the others from being stored. Returns the tokens bought.
    pub(super) async fn embed(&self, plan: &Plan, missing: &[u32]) -> Result<u64, Failure> {
        let sizes: Vec<usize> =
            missing.iter().map(|index| plan.embedded_bytes[*index as usize]).collect();
        let mut limits = self.embedder.limits();
        limits.inputs_max = limits.inputs_max.min(REQUEST_INPUTS_MAX);
        let refused = Mutex::new(Vec::new());
        let tokens = stream::iter(pack(&sizes, &limits))
            .map(|range| self.embed_request(plan, missing, range, &refused))
            .buffer_unordered(self.requests_in_flight)
            .try_fold(0, |sum, tokens| std::future::ready(Ok(sum + tokens)))
            .await?;
        let refused = refused.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        match refused.into_iter().min_by_key(|(index, _)| *index) {
            Some((_, failure)) => Err(failure),
            None => Ok(tokens),
        }
    }

    /// One request, split for as long as it is refused: down to the one chunk that is to blame.
    async fn embed_request(
        &self,
        plan: &Plan,
        missing: &[u32],
        range: Range<usize>,
        refused: &Mutex<Vec<(u32, Failure)>>,
    ) -> Result<u64, Failure> {
        let mut tokens = 0;
        let mut split = Split::default();
        let mut todo = vec![range];
        while let Some(mut range) = todo.pop() {
            // It may have been learnt meanwhile that the server takes fewer.
            let inputs_max = self.embedder.limits().inputs_max;
            if range.len() > inputs_max {
                todo.push(range.start + inputs_max..range.end);
                range.end = range.start + inputs_max;
            }
            let indexes = &missing[range.clone()];
            let failure = match self.buy(plan, indexes).await {
                Ok(Bought { inputs, vectors, tokens: bought }) => {
                    metrics().chunks_bought(indexes.len() as u64, bought);
                    tokens += bought;
                    split.taken_max = split.taken_max.max(indexes.len());
                    let texts = inputs.into_iter().map(Chunk::text_within);
                    let rows = indexes.iter().zip(texts.zip(vectors));
                    let rows =
                        rows.map(|(index, (text, vector))| plan.row(*index, text, Some(vector)));
                    self.store_rows(plan, rows).await?;
                    continue;
                }
                Err(failure) => failure,
            };
            split.refused |= matches!(failure, Failure::RequestRefused { .. });
            let Some(item_failure) = item_failure(&failure, indexes[0]) else {
                return Err(failure);
            };
            match halves(range) {
                Some((first, second)) => todo.extend([second, first]),
                None => {
                    split.to_blame = true;
                    refused
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((indexes[0], item_failure));
                }
            }
        }
        // Nothing in it was to blame, so it was too much.
        if split.refused && !split.to_blame {
            self.embedder.learn_inputs_max(split.taken_max);
        }
        Ok(tokens)
    }

    /// Buys one request's vectors. Where the provider fails, or refuses a single chunk, a probe
    /// tells whose fault it is: a revoked key must not bury recording after recording.
    async fn buy(&self, plan: &Plan, indexes: &[u32]) -> Result<Bought, Failure> {
        let inputs: Vec<String> = indexes
            .iter()
            .map(|index| plan.chunks[*index as usize].embedded_text(&plan.recording))
            .collect();
        let mut limited = Failure::RateLimited { retry_after: Duration::ZERO };
        for _ in 0..LIMITED_PROBES_MAX {
            self.wait_for_lease().await;
            let _waiting = self.progress.suspend();
            let failure = match self.embedder.embed(&inputs).await {
                Ok(Embedded { vectors, tokens }) => return Ok(Bought { inputs, vectors, tokens }),
                Err(failure) => failure,
            };
            let rejected = match failure {
                Failure::ProviderUnavailable { message } | Failure::BadAnswer { message } => {
                    Failure::ProviderRejectsItem { message }
                }
                Failure::RequestRefused { .. } if indexes.len() == 1 => failure,
                _ => return Err(failure),
            };
            match self.embedder.probe().await {
                Ok(_) => return Err(rejected),
                // Tells nothing about the failure; the next request waits for the limit.
                Err(probe @ Failure::RateLimited { .. }) => limited = probe,
                Err(probe) => return Err(probe),
            }
        }
        Err(limited)
    }

    /// Buys nothing under a lease that may be another's by now: it could be paid for twice.
    async fn wait_for_lease(&self) {
        let mut leased_until = self.leased_until.clone();
        let waits = leased_until.wait_for(|until| *until > Instant::now());
        if waits.await.is_err() {
            // The tree is going down and takes this actor with it.
            std::future::pending::<()>().await;
        }
    }
}
