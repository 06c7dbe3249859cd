//! The one place that writes chunks. Bounded by the permits that travel in its messages; a few
//! statements in flight (under HNSW two connections insert twice what one does); their size
//! follows the clock.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::patience::Outages;
use super::progress::Progress;
use crate::domain::batch_size::BatchSize;
use crate::domain::failure::Failure;
use crate::ports::{ChunkRow, Destination, Store};

/// Statements in flight: as many as gain something on the two cores that were measured.
const STATEMENTS_MAX: usize = 2;

/// Messages of the Writer.
pub(super) enum WriterMessage {
    /// Store rows; replies when all are stored or one cannot be. Sending twice does no harm.
    Store {
        destination: Arc<Destination>,
        rows: Arc<[ChunkRow]>,
        permits: Arc<OwnedSemaphorePermit>,
        progress: Arc<Progress>,
        reply: RpcReplyPort<Result<(), Failure>>,
    },
    /// Replies when nothing is held for this lease any more.
    Flush { token: Uuid, reply: RpcReplyPort<()> },
    /// A statement ended, after the time it took.
    Wrote { batch: Batch, result: Result<Duration, Failure> },
    /// A statement's task panicked: its order would never be answered.
    Panicked,
}

/// Rows of one order that one statement carries.
pub(super) struct Batch {
    order: u64,
    range: Range<usize>,
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
    batch_size: BatchSize,
    orders: HashMap<u64, Order>,
    /// Orders with rows to send, served in turn.
    turns: VecDeque<u64>,
    last_order: u64,
    in_flight: usize,
    flushes: Vec<(Uuid, RpcReplyPort<()>)>,
}

/// One `Store` message under way.
struct Order {
    destination: Arc<Destination>,
    rows: Arc<[ChunkRow]>,
    /// Held until the rows are stored.
    _permits: Arc<OwnedSemaphorePermit>,
    /// Of the Recording that waits: a slow database is no stall.
    progress: Arc<Progress>,
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
        Ok(WriterState {
            batch_size: BatchSize::new(arguments.insert_rows, statement_timeout),
            arguments,
            orders: HashMap::new(),
            turns: VecDeque::new(),
            last_order: 0,
            in_flight: 0,
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
            WriterMessage::Store { destination, rows, permits, progress, reply } => {
                let todo = std::iter::once(0..rows.len()).collect();
                let _permits = permits;
                let stored = 0;
                state.accept(Order { destination, rows, _permits, progress, reply, todo, stored });
            }
            WriterMessage::Flush { token, reply } => state.flushes.push((token, reply)),
            WriterMessage::Wrote { batch, result } => state.wrote(batch, result),
            // The Recordings send what was not answered to the next Writer.
            WriterMessage::Panicked => return Err("an insert panicked".into()),
        }
        state.send_statements(&myself);
        state.answer_flushes();
        Ok(())
    }
}

impl WriterState {
    fn accept(&mut self, order: Order) {
        self.last_order += 1;
        self.orders.insert(self.last_order, order);
        self.turns.push_back(self.last_order);
    }

    fn send_statements(&mut self, myself: &ActorRef<WriterMessage>) {
        while self.in_flight < STATEMENTS_MAX {
            let Some(id) = self.turns.pop_front() else { return };
            let Some(order) = self.orders.get_mut(&id) else { continue };
            let Some(todo) = order.todo.pop() else { continue };
            let middle = todo.end.min(todo.start + self.batch_size.rows());
            if middle < todo.end {
                order.todo.push(middle..todo.end);
            }
            let batch = Batch { order: id, range: todo.start..middle };
            if !order.todo.is_empty() {
                self.turns.push_back(id);
            }
            self.in_flight += 1;
            let (destination, rows) = (order.destination.clone(), order.rows.clone());
            let inserting = tokio::spawn(insert(
                self.arguments.clone(),
                destination,
                rows,
                batch.range.clone(),
            ));
            let writer = myself.clone();
            tokio::spawn(async move {
                let message = match inserting.await {
                    Ok(result) => WriterMessage::Wrote { batch, result },
                    Err(_) => WriterMessage::Panicked,
                };
                // Fails only where the Writer is gone; who waits for it sends the rows again.
                let _ = writer.cast(message);
            });
        }
    }

    fn wrote(&mut self, batch: Batch, result: Result<Duration, Failure>) {
        self.in_flight -= 1;
        let rows = batch.range.len();
        match &result {
            Ok(took) => self.batch_size.succeeded(rows, *took),
            Err(Failure::StatementTimeout) => self.batch_size.timed_out(rows),
            Err(_) => {}
        }
        // An order that failed already is gone, with whatever it still had in flight.
        let Some(order) = self.orders.get_mut(&batch.order) else { return };
        match result {
            Ok(_) => {
                order.stored += rows;
                order.progress.moved();
            }
            Err(Failure::StatementTimeout) if rows > 1 => {
                tracing::debug!(rows, next = self.batch_size.rows(), "insert timed out; halved");
                order.todo.push(batch.range);
                self.turns.push_back(batch.order);
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
        arguments.store.insert_chunks(&destination, &rows[range.clone()]).await?;
        Ok(sent.elapsed())
    };
    arguments.outages.wait_out(None, statement).await
}
