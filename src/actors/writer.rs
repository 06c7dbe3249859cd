//! The one place that writes chunks. Bounded by the permits that travel in its messages; a few
//! inserts in flight, and as many rows in each as the clock allows.

mod lanes;
mod turns;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

pub(super) use lanes::Lanes;
use turns::{Ending, Turn, Turns};

use super::patience::Outages;
use super::progress::Progress;
use crate::domain::failure::Failure;
use crate::ports::{ChunkRow, Destination, Store};
use crate::telemetry::metrics::{Lane, metrics};
use crate::telemetry::spans::{self, AttemptSpan, Step};

/// Messages of the Writer.
pub(super) enum WriterMessage {
    /// Store rows; replies when all are stored or one cannot be. Sending twice does no harm.
    Store {
        lane: Lane,
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
    turn: Turn,
    /// Ends when it is known how the size of inserts adapts.
    step: Step,
}

/// What the Writer is given.
#[derive(Clone)]
pub(super) struct WriterArguments {
    pub(super) store: Arc<dyn Store>,
    pub(super) outages: Outages,
    /// Of the first insert.
    pub(super) insert_rows: usize,
    /// In flight at most.
    pub(super) inserts_max: usize,
    /// The database's; `None` for none.
    pub(super) statement_timeout: Option<Duration>,
}

/// The actor.
pub(super) struct Writer;

pub(super) struct WriterState {
    arguments: WriterArguments,
    orders: HashMap<u64, Order>,
    turns: Turns,
    last_order: u64,
    flushes: Vec<(Uuid, RpcReplyPort<()>)>,
}

/// One `Store` message under way.
struct Order {
    lane: Lane,
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
    type Arguments = WriterArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let WriterArguments { insert_rows, statement_timeout, inserts_max, .. } = arguments;
        Ok(WriterState {
            turns: Turns::new(insert_rows, statement_timeout, inserts_max),
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
            WriterMessage::Store { lane, destination, rows, permits, progress, trace, reply } => {
                state.accept(Order {
                    lane,
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
        for lane in Lane::ALL {
            state.send_statements(&myself, lane);
        }
        state.answer_flushes();
        Ok(())
    }
}

impl WriterState {
    fn accept(&mut self, order: Order) {
        self.last_order += 1;
        self.turns.push(order.lane, self.last_order);
        self.orders.insert(self.last_order, order);
    }

    fn send_statements(&mut self, myself: &ActorRef<WriterMessage>, lane: Lane) {
        while let Some(id) = self.turns.next(lane) {
            let Some(order) = self.orders.get_mut(&id) else { continue };
            let Some(todo) = order.todo.pop() else { continue };
            let size = self.turns.rows(lane);
            let middle = todo.end.min(todo.start + size);
            if middle < todo.end {
                order.todo.push(middle..todo.end);
            }
            let range = todo.start..middle;
            // Under the attempt that waits for it, whichever mailbox the order came through.
            let step = spans::store_chunks(&order.trace, range.len(), size);
            let turn = self.turns.begin(lane);
            let mut batch = Box::new(Batch { order: id, range, turn, step });
            if !order.todo.is_empty() {
                self.turns.push(lane, id);
            }
            let (destination, rows) = (order.destination.clone(), order.rows.clone());
            let arguments = self.arguments.clone();
            let inserting = tokio::spawn(async move {
                let inserting = insert(arguments, lane, destination, rows, batch.range.clone());
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
        let Batch { order: id, range, turn, step } = batch;
        let (lane, rows) = (turn.lane(), range.len());
        let ending = match &result {
            Ok(took) => Ending::Stored(*took),
            Err(Failure::StatementTimeout) => Ending::TimedOut,
            Err(_) => Ending::Failed,
        };
        self.turns.end(turn, rows, &ending);
        let next = self.turns.rows(lane);
        step.adapted(next);
        // An order that failed already is gone, with whatever it still had in flight.
        let Some(order) = self.orders.get_mut(&id) else { return };
        match result {
            Ok(_) => {
                order.stored += rows;
                order.progress.moved();
            }
            Err(Failure::StatementTimeout) if rows > 1 => {
                tracing::debug!(rows, next, "insert timed out; halved");
                order.todo.push(range);
                self.turns.push(lane, id);
            }
            Err(failure) => return self.end(id, Err(failure)),
        }
        if order.stored == order.rows.len() {
            self.end(id, Ok(()));
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
    lane: Lane,
    destination: Arc<Destination>,
    rows: Arc<[ChunkRow]>,
    range: Range<usize>,
) -> Result<Duration, Failure> {
    let statement = || async {
        let sent = Instant::now();
        let inserted = arguments.store.insert_chunks(&destination, &rows[range.clone()]).await;
        let took = sent.elapsed();
        metrics().inserted(lane, range.len(), took, inserted.as_ref().err());
        inserted.map(|()| took)
    };
    arguments.outages.wait_out(None, statement).await
}
