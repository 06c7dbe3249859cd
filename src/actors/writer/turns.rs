//! Whose rows are inserted next, and in how large an insert. All lanes share the inserts that may be in
//! flight: what one leaves idle another uses, but no quick insert ever waits for a patient one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::batch_size::BatchSize;
use crate::domain::insert_concurrency::{Begun, InsertConcurrency};
use crate::telemetry::metrics::{Lane, metrics};

/// Rows of the first patient insert.
const PATIENT_INSERT_ROWS: usize = 5;
/// Time that a patient insert is allowed; the store sets it.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(120);

/// How an insert ended, as far as it tells how the next should be.
pub(super) enum Ending {
    /// It stored its rows in this time.
    Stored(Duration),
    TimedOut,
    Failed,
}

/// An insert that is under way.
pub(super) struct Turn {
    lane: Lane,
    /// Of those that are judged.
    begun: Option<Begun>,
}

impl Turn {
    /// Whose insert it is.
    pub(super) fn lane(&self) -> Lane {
        self.lane
    }
}

/// The lanes, and the inserts that they have in flight.
pub(super) struct Turns {
    quick: Queue,
    patient: Queue,
    recovery: Queue,
    concurrency: InsertConcurrency,
}

struct Queue {
    batch_size: BatchSize,
    /// Orders with rows to send, served in turn.
    orders: VecDeque<u64>,
    in_flight: usize,
}

impl Queue {
    fn new(insert_rows: usize, timeout: Option<Duration>) -> Self {
        let batch_size = BatchSize::new(insert_rows, timeout);
        Self { batch_size, orders: VecDeque::new(), in_flight: 0 }
    }
}

impl Turns {
    /// At most `inserts_max` in flight for the quick and as many for the patient; the first quick one
    /// holds `insert_rows`.
    pub(super) fn new(
        insert_rows: usize,
        statement_timeout: Option<Duration>,
        inserts_max: usize,
    ) -> Self {
        let turns = Self {
            quick: Queue::new(insert_rows, statement_timeout),
            patient: Queue::new(PATIENT_INSERT_ROWS, Some(PATIENT_TIMEOUT)),
            recovery: Queue::new(PATIENT_INSERT_ROWS, Some(PATIENT_TIMEOUT)),
            concurrency: InsertConcurrency::new(inserts_max),
        };
        for lane in Lane::ALL {
            metrics().insert_may_hold(lane, turns.rows(lane));
        }
        metrics().inserts_may_be_in_flight(turns.concurrency.limit());
        turns
    }

    /// Rows that the next insert of a lane may hold.
    pub(super) fn rows(&self, lane: Lane) -> usize {
        self.queue(lane).batch_size.rows()
    }

    /// This order has rows to send; it comes last.
    pub(super) fn push(&mut self, lane: Lane, order: u64) {
        self.queue_mut(lane).orders.push_back(order);
    }

    /// Whose turn it is in this lane; `None` where none waits or no more may be in flight.
    pub(super) fn next(&mut self, lane: Lane) -> Option<u64> {
        if self.may_send(lane) { self.queue_mut(lane).orders.pop_front() } else { None }
    }

    fn may_send(&self, lane: Lane) -> bool {
        let limit = self.concurrency.limit();
        match lane {
            // Whatever the others have in flight.
            Lane::Quick => self.quick.in_flight < limit,
            // What the quick ones leave, and one at least: nobody waits for ever.
            Lane::Patient => {
                self.patient.in_flight == 0 || self.quick.in_flight + self.patient.in_flight < limit
            }
            // Each may hold its connection, and what it locks, for minutes.
            Lane::Recovery => self.recovery.in_flight == 0,
        }
    }

    /// An insert of this lane begins.
    pub(super) fn begin(&mut self, lane: Lane) -> Turn {
        self.queue_mut(lane).in_flight += 1;
        let is_judged = lane != Lane::Recovery;
        Turn { lane, begun: is_judged.then(|| self.concurrency.begin()) }
    }

    /// An insert of so many rows ended.
    pub(super) fn end(&mut self, turn: Turn, rows: usize, ending: &Ending) {
        let queue = self.queue_mut(turn.lane);
        queue.in_flight = queue.in_flight.saturating_sub(1);
        match ending {
            Ending::Stored(took) => queue.batch_size.succeeded(rows, *took),
            Ending::TimedOut => queue.batch_size.timed_out(rows),
            Ending::Failed => {}
        }
        if let Some(begun) = turn.begun {
            match ending {
                Ending::Stored(took) => self.concurrency.succeeded(begun, rows, *took),
                Ending::TimedOut => self.concurrency.timed_out(begun),
                Ending::Failed => self.concurrency.failed(),
            }
        }
        metrics().insert_may_hold(turn.lane, self.rows(turn.lane));
        metrics().inserts_may_be_in_flight(self.concurrency.limit());
    }

    fn queue(&self, lane: Lane) -> &Queue {
        match lane {
            Lane::Quick => &self.quick,
            Lane::Patient => &self.patient,
            Lane::Recovery => &self.recovery,
        }
    }

    fn queue_mut(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Quick => &mut self.quick,
            Lane::Patient => &mut self.patient,
            Lane::Recovery => &mut self.recovery,
        }
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
