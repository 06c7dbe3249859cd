//! The drill: the worker of one recording is killed at a third of its way, and is watched coming
//! back.

use std::time::{Duration, Instant};

use crate::app::Status;
use crate::domain::recording::RecordingKey;

/// Part of the recording that is stored when its worker is killed.
const KILLED_AT: u32 = 3;

/// Who is killed, and what became of it.
pub(super) struct Drill {
    victim: RecordingKey,
    state: State,
}

enum State {
    Waiting,
    Killed(Killed),
    Back(Killed, Back),
}

/// The moment of the kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Killed {
    pub(super) at: Instant,
    /// Chunks stored by then, as far as the worker knew.
    pub(super) stored: u32,
    pub(super) total: u32,
}

/// The return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Back {
    pub(super) after: Duration,
    /// Chunks that were stored and are not bought again; unknown where the rest was done before
    /// anybody looked.
    pub(super) kept: Option<u32>,
}

/// What just happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It is time: kill it.
    Kill(RecordingKey, Killed),
    /// Its next worker knows what is stored.
    Back(Back),
}

impl Drill {
    pub(super) fn new(victim: RecordingKey) -> Self {
        Self { victim, state: State::Waiting }
    }

    pub(super) fn is_victim(&self, key: &RecordingKey) -> bool {
        self.victim == *key
    }

    /// Set once it was killed.
    pub(super) fn killed(&self) -> Option<Killed> {
        match self.state {
            State::Waiting => None,
            State::Killed(killed) | State::Back(killed, _) => Some(killed),
        }
    }

    /// Set once it came back.
    pub(super) fn back(&self) -> Option<Back> {
        match self.state {
            State::Waiting | State::Killed(_) => None,
            State::Back(_, back) => Some(back),
        }
    }

    /// Looks at the tree.
    pub(super) fn step(&mut self, status: &Status, now: Instant) -> Option<Event> {
        let victim = status.recordings.iter().find(|recording| recording.key == self.victim);
        match self.state {
            State::Waiting => {
                let chunks = victim?.chunks()?;
                let is_time = chunks.stored >= chunks.total.div_ceil(KILLED_AT);
                if !is_time || chunks.stored == chunks.total {
                    return None;
                }
                let killed = Killed { at: now, stored: chunks.stored, total: chunks.total };
                self.state = State::Killed(killed);
                Some(Event::Kill(self.victim.clone(), killed))
            }
            State::Killed(killed) => {
                let kept = match victim {
                    Some(victim) if victim.restarts == 0 => return None,
                    Some(victim) => Some(victim.chunks()?.kept),
                    // Done before the kill reached it where nothing was restarted.
                    None if status.restarts == 0 => return None,
                    None => None,
                };
                let back = Back { after: now - killed.at, kept };
                self.state = State::Back(killed, back);
                Some(Event::Back(back))
            }
            State::Back(..) => None,
        }
    }
}
