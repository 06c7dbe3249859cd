//! One attempt, start to end: load, chunk, open the set, reuse, buy what is missing, store it as
//! it comes, swap.

mod buying;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::address::Address;
use super::patience::Outages;
use super::progress::Progress;
use super::writer::{Lanes, WriterMessage};
use crate::domain::chunking::{self, Chunk};
use crate::domain::failure::Failure;
use crate::domain::packing::estimate_tokens;
use crate::domain::recording::Recording;
use crate::domain::task::Task;
use crate::ports::{ChunkRow, ChunkSetRequest, Completion, Destination, Embedder, Store, Work};
use crate::telemetry::metrics::{Lane, metrics};
use crate::telemetry::spans::{self, AttemptSpan};

/// What an attempt works with. Cloned for a restart in place.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) task: Task,
    pub(super) store: Arc<dyn Store>,
    pub(super) embedder: Arc<dyn Embedder>,
    pub(super) model_name: String,
    pub(super) requests_in_flight: usize,
    pub(super) writer: Address<WriterMessage>,
    /// How rows may be on their way to the database, all recordings together.
    pub(super) lanes: Lanes,
    /// Until when this process's leases surely hold.
    pub(super) leased_until: watch::Receiver<Instant>,
    pub(super) outages: Outages,
    pub(super) progress: Arc<Progress>,
    /// When it began; a restart in place begins no other.
    pub(super) began: Instant,
    /// Of all incarnations.
    pub(super) trace: AttemptSpan,
}

/// What a successful attempt did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) completion: Completion,
    pub(super) work: Work,
}

/// A recording cut up, and where its chunks go.
struct Plan {
    recording: Arc<Recording>,
    chunks: Vec<Chunk>,
    content_hashes: Vec<[u8; 32]>,
    /// Bytes of each chunk's embedded text.
    embedded_bytes: Vec<usize>,
    destination: Arc<Destination>,
    lane: Lane,
}

impl Attempt {
    /// Runs it. Whatever was stored stays stored when it fails.
    pub(super) async fn run(&self) -> Result<Done, Failure> {
        self.trace.within(self.run_in_trace()).await
    }

    async fn run_in_trace(&self) -> Result<Done, Failure> {
        if let Some(trace) = self.trace.traceparent() {
            self.persist(|| self.store.note_trace(&self.task.lease, &trace)).await?;
        }
        let loading = self.persist(|| self.store.load(&self.task.key));
        let source = spans::load_transcript().run(loading).await?;
        let recording = Arc::new(source.recording);
        let Cut { chunks, content_hashes, embedded_bytes } =
            spans::chunk().run(cut(recording.clone())).await?;
        let times: Vec<_> = chunks
            .iter()
            .map(|chunk| (chunk.start_secs(&recording), chunk.end_secs(&recording)))
            .collect();
        let request = ChunkSetRequest {
            model_name: self.model_name.clone(),
            fingerprint: self.fingerprint(&content_hashes, &times),
            digest: source.digest,
            content_hashes,
            afresh: self.task.afresh.is_some(),
        };
        // A restart in place may have left rows of this lease with the Writer: they count as
        // stored once they are, and must not be bought again.
        let token = self.task.lease.token;
        let opening = async {
            self.writer.ask(|reply| WriterMessage::Flush { token, reply }).await;
            let (lease, key) = (&self.task.lease, &self.task.key);
            self.persist(|| self.store.open_chunk_set(lease, key, &request)).await
        };
        let set = spans::open_chunk_set().run(opening).await?;
        let lane = self.lanes.lane_of(self.task.part, chunks.len() as u32);
        let destination = Arc::new(Destination {
            lease: self.task.lease,
            chunk_set_id: set.id,
            key: self.task.key.clone(),
            model_name: self.model_name.clone(),
            call_title: recording.title.clone(),
            call_date: recording.created_at,
            patient: lane != Lane::Quick,
        });
        let content_hashes = request.content_hashes;
        let plan = Plan { recording, chunks, content_hashes, embedded_bytes, destination, lane };
        let mut work = Work { chunks: plan.chunks.len() as u32, ..Work::default() };
        let stored = if set.current { work.chunks } else { set.stored.len() as u32 };
        self.progress.opened(plan.recording.title.as_deref(), work.chunks, stored);
        let mut missing = Vec::new();
        if set.current {
            work.chunks_reused = work.chunks;
            self.trace.planned(work.chunks, work.chunks_reused, set.id);
        } else {
            let is_stored = |index: &u32| set.stored.binary_search(index).is_ok();
            let reusable: Vec<u32> =
                set.reusable.iter().copied().filter(|index| !is_stored(index)).collect();
            missing = (0..work.chunks)
                .filter(|index| !is_stored(index) && reusable.binary_search(index).is_err())
                .collect();
            work.chunks_reused = work.chunks - missing.len() as u32;
            self.trace.planned(work.chunks, work.chunks_reused, set.id);
            self.reuse(&plan, &reusable).await?;
            work.tokens = self.embed(&plan, &missing).await?;
        }
        let completing = self.persist(|| self.store.complete(&self.task.lease, set.id, work));
        let completion = spans::complete().run(completing).await?;
        metrics().chunks_reused(work.chunks_reused.into(), plan.tokens_but_of(&missing));
        Ok(Done { completion, work })
    }

    /// Names the chunk set. One that is made afresh must not be taken for that which is there.
    fn fingerprint(&self, hashes: &[[u8; 32]], times: &[(Option<u32>, Option<u32>)]) -> String {
        let fingerprint = chunking::fingerprint(hashes, times);
        match self.task.afresh {
            Some(request) => format!("{fingerprint} {request}"),
            None => fingerprint,
        }
    }

    /// Stores chunks whose vector another live set holds: nothing is bought.
    async fn reuse(&self, plan: &Plan, indexes: &[u32]) -> Result<(), Failure> {
        for page in indexes.chunks(REUSED_ROWS_MAX) {
            let rows = page.iter().map(|index| plan.row(*index, plan.text(*index), None));
            self.store_rows(plan, rows).await?;
        }
        Ok(())
    }

    /// Hands rows to the Writer and waits until they are stored. Memory is bounded by the permits
    /// that each row travels with.
    async fn store_rows(
        &self,
        plan: &Plan,
        rows: impl ExactSizeIterator<Item = ChunkRow>,
    ) -> Result<(), Failure> {
        let waiting = self.progress.suspend();
        let permits = self.lanes.permits(plan.lane).acquire_many_owned(rows.len() as u32).await;
        drop(waiting);
        // The semaphore is never closed.
        let permits = Arc::new(permits.map_err(|_| Failure::Shutdown)?);
        let rows: Arc<[ChunkRow]> = rows.collect();
        self.writer
            .ask(|reply| WriterMessage::Store {
                lane: plan.lane,
                destination: plan.destination.clone(),
                rows: rows.clone(),
                permits: permits.clone(),
                progress: self.progress.clone(),
                trace: self.trace.clone(),
                reply,
            })
            .await?;
        self.progress.stored(rows.len() as u32);
        Ok(())
    }

    async fn persist<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        operation: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let result = self.outages.wait_out(Some(&self.progress), operation).await;
        self.progress.moved();
        result
    }
}

/// Rows of one message to the Writer that reuses vectors; bought rows come by the request.
const REUSED_ROWS_MAX: usize = 100;

impl Plan {
    /// Tokens, as they are estimated, of all chunks but the `missing`, which are in ascending order.
    fn tokens_but_of(&self, missing: &[u32]) -> u64 {
        let kept = (0..)
            .zip(&self.embedded_bytes)
            .filter(|(index, _)| missing.binary_search(index).is_err());
        kept.map(|(_, bytes)| estimate_tokens(*bytes) as u64).sum()
    }

    fn text(&self, index: u32) -> String {
        self.chunks[index as usize].text(&self.recording)
    }

    fn row(&self, index: u32, text: String, embedding: Option<Vec<f32>>) -> ChunkRow {
        let chunk = &self.chunks[index as usize];
        ChunkRow {
            index,
            text,
            content_hash: self.content_hashes[index as usize],
            speakers: chunk.speakers(&self.recording),
            start_secs: chunk.start_secs(&self.recording),
            end_secs: chunk.end_secs(&self.recording),
            embedding,
        }
    }
}

/// The chunks of a recording, and what is known of each one's embedded text once it was put together.
struct Cut {
    chunks: Vec<Chunk>,
    content_hashes: Vec<[u8; 32]>,
    embedded_bytes: Vec<usize>,
}

/// Cuts on a thread of its own: a marathon call takes a while.
async fn cut(recording: Arc<Recording>) -> Result<Cut, Failure> {
    let cutting = tokio::task::spawn_blocking(move || {
        let chunks = chunking::chunk(&recording);
        let known = chunks.iter().map(|chunk| chunk.content_hash_and_size(&recording));
        let (content_hashes, embedded_bytes) = known.unzip();
        Cut { chunks, content_hashes, embedded_bytes }
    });
    // A panic in there is this attempt's.
    cutting.await.map_err(|_| Failure::Panicked)
}
