//! The one place that writes chunks. Bounded by the permits that travel in its messages; a few
//! statements in flight (under HNSW two connections insert twice what one does); their size
//! follows the clock.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::patience::Outages;
use super::progress::Progress;
use crate::domain::batch_size::BatchSize;
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::ports::{ChunkRow, Destination, Store};
use crate::telemetry::metrics::{self, metrics};
use crate::telemetry::spans::{self, AttemptSpan, Step};

/// Statements in flight: as many as gain something on the two cores that were measured.
const STATEMENTS_MAX: usize = 2;
/// Patient statements in flight: each may hold its connection for minutes.
const PATIENT_STATEMENTS_MAX: usize = 1;
/// Rows of the first patient insert.
const PATIENT_INSERT_ROWS: usize = 5;
/// Time that a patient statement is allowed; the store sets it.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(120);

/// Messages of the Writer.
pub(super) enum WriterMessage {
    /// Store rows; replies when all are stored or one cannot be. Sending twice does no harm.
    Store {
        destination: Arc<Destination>,
        rows: Arc<[ChunkRow]>,
        permits: Arc<OwnedSemaphorePermit>,
        progress: Arc<Progress>,
        trace: AttemptSpan,
        reply: RpcReplyPort<Result<(), Failure>>,
    },
    /// Replies when nothing is held for this lease any more.
    Flush { token: Uuid, reply: RpcReplyPort<()> },
    /// A statement ended, after the time it took.
    Wrote { batch: Box<Batch>, result: Result<Duration, Failure> },
    /// A statement's task panicked: its order would never be answered.
    Panicked,
}

/// Rows of one order that one statement carries.
pub(super) struct Batch {
    order: u64,
    range: Range<usize>,
    patient: bool,
    /// Ends when it is known how the size of inserts adapts.
    step: Step,
}

/// Rows on their way to the database, all recordings together: at 1,536 dimensions some 8 MB.
const ROWS_IN_FLIGHT_MAX: usize = 1_024;
/// Of these with patience, which are written slowly: two requests' worth.
const PATIENT_ROWS_MAX: usize = 256;

/// Which lane a recording's rows go, and the permits that they travel with.
#[derive(Clone)]
pub(super) struct Lanes {
    quick: Arc<Semaphore>,
    patient: Arc<Semaphore>,
    small_batches_above: u32,
}

impl Lanes {
    /// A recording of more chunks than this is written patiently from the start.
    pub(super) fn new(small_batches_above: u32) -> Self {
        Self {
            quick: Arc::new(Semaphore::new(ROWS_IN_FLIGHT_MAX)),
            patient: Arc::new(Semaphore::new(PATIENT_ROWS_MAX)),
            small_batches_above,
        }
    }

    /// True where a recording's rows are written in small batches that may take their time.
    pub(super) fn is_patient(&self, part: Part, chunks: u32) -> bool {
        part == Part::Recovery || chunks > self.small_batches_above
    }

    /// Says how many rows are on their way.
    pub(super) fn measure(&self) {
        let lanes =
            [(false, &self.quick, ROWS_IN_FLIGHT_MAX), (true, &self.patient, PATIENT_ROWS_MAX)];
        for (patient, permits, max) in lanes {
            let used = max.saturating_sub(permits.available_permits());
            metrics().permits(metrics::Lane::of(patient), used, max);
        }
    }

    /// The permits of a lane.
    pub(super) fn permits(&self, patient: bool) -> Arc<Semaphore> {
        if patient { self.patient.clone() } else { self.quick.clone() }
    }
}

/// What the Writer is given.
#[derive(Clone)]
pub(super) struct WriterArguments {
    pub(super) store: Arc<dyn Store>,
    pub(super) outages: Outages,
    pub(super) insert_rows: usize,
}

/// The actor.
pub(super) struct Writer;

pub(super) struct WriterState {
    arguments: WriterArguments,
    orders: HashMap<u64, Order>,
    quick: Lane,
    patient: Lane,
    last_order: u64,
    flushes: Vec<(Uuid, RpcReplyPort<()>)>,
}

/// What of the orders goes the same way. The patient ones have a lane of their own, so that their slow
/// statements neither stall the others nor make their inserts small.
struct Lane {
    batch_size: BatchSize,
    /// Orders with rows to send, served in turn.
    turns: VecDeque<u64>,
    in_flight: usize,
    statements_max: usize,
}

impl Lane {
    fn new(rows: usize, timeout: Option<Duration>, statements_max: usize) -> Self {
        let batch_size = BatchSize::new(rows, timeout);
        Self { batch_size, turns: VecDeque::new(), in_flight: 0, statements_max }
    }
}

/// One `Store` message under way.
struct Order {
    destination: Arc<Destination>,
    rows: Arc<[ChunkRow]>,
    /// Held until the rows are stored.
    _permits: Arc<OwnedSemaphorePermit>,
    /// Of the Recording that waits: a slow database is no stall.
    progress: Arc<Progress>,
    trace: AttemptSpan,
    reply: RpcReplyPort<Result<(), Failure>>,
    /// Ranges of rows that no statement carries yet.
    todo: Vec<Range<usize>>,
    stored: usize,
}

impl Actor for Writer {
    type Msg = WriterMessage;
    type State = WriterState;
    type Arguments = (WriterArguments, Option<Duration>);

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        (arguments, statement_timeout): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let quick = Lane::new(arguments.insert_rows, statement_timeout, STATEMENTS_MAX);
        let patient = Lane::new(PATIENT_INSERT_ROWS, Some(PATIENT_TIMEOUT), PATIENT_STATEMENTS_MAX);
        for (is_patient, lane) in [(false, &quick), (true, &patient)] {
            metrics().insert_may_hold(metrics::Lane::of(is_patient), lane.batch_size.rows());
        }
        Ok(WriterState {
            quick,
            patient,
            arguments,
            orders: HashMap::new(),
            last_order: 0,
            flushes: Vec::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WriterMessage::Store { destination, rows, permits, progress, trace, reply } => {
                state.accept(Order {
                    todo: std::iter::once(0..rows.len()).collect(),
                    destination,
                    rows,
                    _permits: permits,
                    progress,
                    trace,
                    reply,
                    stored: 0,
                });
            }
            WriterMessage::Flush { token, reply } => state.flushes.push((token, reply)),
            WriterMessage::Wrote { batch, result } => state.wrote(*batch, result),
            // The Recordings send what was not answered to the next Writer.
            WriterMessage::Panicked => return Err("an insert panicked".into()),
        }
        state.send_statements(&myself, false);
        state.send_statements(&myself, true);
        state.answer_flushes();
        Ok(())
    }
}

impl WriterState {
    fn lane(&mut self, patient: bool) -> &mut Lane {
        if patient { &mut self.patient } else { &mut self.quick }
    }

    fn accept(&mut self, order: Order) {
        self.last_order += 1;
        let (id, patient) = (self.last_order, order.destination.patient);
        self.orders.insert(id, order);
        self.lane(patient).turns.push_back(id);
    }

    fn send_statements(&mut self, myself: &ActorRef<WriterMessage>, patient: bool) {
        while self.lane(patient).in_flight < self.lane(patient).statements_max {
            let lane = if patient { &mut self.patient } else { &mut self.quick };
            let Some(id) = lane.turns.pop_front() else { return };
            let Some(order) = self.orders.get_mut(&id) else { continue };
            let Some(todo) = order.todo.pop() else { continue };
            let size = lane.batch_size.rows();
            let middle = todo.end.min(todo.start + size);
            if middle < todo.end {
                order.todo.push(middle..todo.end);
            }
            let range = todo.start..middle;
            // Under the attempt that waits for it, whichever mailbox the order came through.
            let step = spans::store_chunks(&order.trace, range.len(), size);
            let mut batch = Box::new(Batch { order: id, range, patient, step });
            if !order.todo.is_empty() {
                lane.turns.push_back(id);
            }
            lane.in_flight += 1;
            let (destination, rows) = (order.destination.clone(), order.rows.clone());
            let arguments = self.arguments.clone();
            let inserting = tokio::spawn(async move {
                let inserting = insert(arguments, destination, rows, batch.range.clone());
                let result = batch.step.run(inserting).await;
                WriterMessage::Wrote { batch, result }
            });
            let writer = myself.clone();
            tokio::spawn(async move {
                let message = inserting.await.unwrap_or(WriterMessage::Panicked);
                // Fails only where the Writer is gone; who waits for it sends the rows again.
                let _ = writer.cast(message);
            });
        }
    }

    fn wrote(&mut self, batch: Batch, result: Result<Duration, Failure>) {
        let lane = if batch.patient { &mut self.patient } else { &mut self.quick };
        lane.in_flight -= 1;
        let rows = batch.range.len();
        match &result {
            Ok(took) => lane.batch_size.succeeded(rows, *took),
            Err(Failure::StatementTimeout) => lane.batch_size.timed_out(rows),
            Err(_) => {}
        }
        batch.step.adapted(lane.batch_size.rows());
        metrics().insert_may_hold(metrics::Lane::of(batch.patient), lane.batch_size.rows());
        // An order that failed already is gone, with whatever it still had in flight.
        let Some(order) = self.orders.get_mut(&batch.order) else { return };
        match result {
            Ok(_) => {
                order.stored += rows;
                order.progress.moved();
            }
            Err(Failure::StatementTimeout) if rows > 1 => {
                tracing::debug!(rows, next = lane.batch_size.rows(), "insert timed out; halved");
                order.todo.push(batch.range);
                lane.turns.push_back(batch.order);
            }
            Err(failure) => return self.end(batch.order, Err(failure)),
        }
        if order.stored == order.rows.len() {
            self.end(batch.order, Ok(()));
        }
    }

    fn end(&mut self, order: u64, result: Result<(), Failure>) {
        if let Some(order) = self.orders.remove(&order) {
            // A Recording that was killed meanwhile waits for no reply.
            let _ = order.reply.send(result);
        }
    }

    fn answer_flushes(&mut self) {
        let orders = &self.orders;
        let held = |token: &Uuid| orders.values().any(|o| o.destination.lease.token == *token);
        let (waiting, flushed) =
            std::mem::take(&mut self.flushes).into_iter().partition(|(token, _)| held(token));
        self.flushes = waiting;
        let flushed: Vec<(Uuid, RpcReplyPort<()>)> = flushed;
        for (_, reply) in flushed {
            let _ = reply.send(());
        }
    }
}

/// One statement, through every outage of the database; returns the time that it took.
async fn insert(
    arguments: WriterArguments,
    destination: Arc<Destination>,
    rows: Arc<[ChunkRow]>,
    range: Range<usize>,
) -> Result<Duration, Failure> {
    let statement = || async {
        let sent = Instant::now();
        let inserted = arguments.store.insert_chunks(&destination, &rows[range.clone()]).await;
        let (took, lane) = (sent.elapsed(), metrics::Lane::of(destination.patient));
        metrics().inserted(lane, range.len(), took, inserted.as_ref().err());
        inserted.map(|()| took)
    };
    arguments.outages.wait_out(None, statement).await
}
