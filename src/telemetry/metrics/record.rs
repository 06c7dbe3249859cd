//! What can be measured, each a sentence at the call site.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::AsyncInstrument;

use super::names::{self, ACTOR, ERROR, LIMIT, OUTCOME, PART, STATE};
use super::words::{Lane, Outcome};
use super::{COMMIT, Metrics};
use crate::domain::failure::Failure;
use crate::domain::part::Part;
use crate::domain::task::{Task, TaskState};
use crate::ports::inspector::Overview;
use crate::telemetry::drops::{Signal, dropped};
use crate::telemetry::spans::Provider;

impl Metrics {
    /// Begins what is known from the start. A counter that first shows itself with its first event
    /// hides that event from `rate`.
    pub(super) fn begin(&self) {
        let info = [
            KeyValue::new(names::VERSION, env!("CARGO_PKG_VERSION")),
            KeyValue::new(names::COMMIT, COMMIT),
        ];
        self.level(&names::BUILD_INFO, 1.0, &info);
        for metric in names::ALL.iter().filter(|metric| metric.attributes.is_empty()) {
            if metric.kind == names::Kind::Counter {
                self.count(metric, 0, &[]);
            }
        }
        for metric in [&names::FIRST_PASSES, &names::RECOVERIES] {
            for outcome in ["succeeded", "failed"] {
                self.count(metric, 0, &[KeyValue::new(OUTCOME, outcome)]);
            }
        }
        for class in Failure::CLASSES {
            self.count(&names::DEAD_LETTERS, 0, &[KeyValue::new(ERROR, class)]);
        }
        for part in Part::ALL {
            self.begin_attempts(part);
        }
        for actor in ["writer", "recovery", "claimer", "scheduler", "recording"] {
            self.count(&names::ACTOR_RESTARTS, 0, &[KeyValue::new(ACTOR, actor)]);
        }
    }

    fn begin_attempts(&self, part: Part) {
        let ending = |outcome: Outcome| [part_of(part), KeyValue::new(OUTCOME, outcome.as_str())];
        for outcome in [Outcome::Completed, Outcome::Superseded] {
            self.count(&names::ATTEMPTS, 0, &ending(outcome));
        }
        for class in Failure::CLASSES {
            for outcome in Outcome::of_failures(part) {
                let [part, outcome] = ending(*outcome);
                let failed = [part, outcome, KeyValue::new(ERROR, class)];
                self.count(&names::ATTEMPTS, 0, &failed);
            }
        }
    }

    /// What a million tokens cost, in USD; counts the cost from here on.
    pub fn tokens_cost(&self, price_per_million: f64) {
        // Set once, from the settings.
        let _ = self.price_per_million_tokens.set(price_per_million);
        self.amount(&names::COST, 0.0, &[]);
    }

    /// A claim was answered, or was not.
    pub fn claimed(&self, part: Part, took: Duration, result: Result<&[Task], &Failure>) {
        let attributes = with_error([part_of(part)], result.as_ref().err().copied());
        self.measure(&names::CLAIM_DURATION, took.as_secs_f64(), &attributes);
        for task in result.unwrap_or_default() {
            self.measure(&names::QUEUE_WAIT, task.waited.as_secs_f64(), &[part_of(part)]);
        }
    }

    /// An attempt begins.
    pub fn attempt_began(&self, task: &Task) {
        if task.part == Part::Main && task.attempts > 1 {
            self.count(&names::RETRIES, 1, &[]);
        }
    }

    /// An attempt of this process ended, `failure` being why where it did not complete its task.
    pub fn attempt_ended(
        &self,
        task: &Task,
        outcome: Outcome,
        failure: Option<&Failure>,
        took: Duration,
    ) {
        let attributes = [part_of(task.part), KeyValue::new(OUTCOME, outcome.as_str())];
        self.measure(&names::ATTEMPT_DURATION, took.as_secs_f64(), &attributes);
        self.settled(task, outcome, failure);
        if outcome == Outcome::Lost && failure == Some(&Failure::LeaseLost) {
            self.count(&names::LEASES_LOST, 1, &[]);
        }
    }

    /// The attempt of a worker that died was settled.
    pub fn lease_expired(&self, task: &Task, outcome: Outcome) {
        self.count(&names::LEASES_EXPIRED, 1, &[]);
        self.settled(task, outcome, Some(&Failure::LeaseExpired));
    }

    /// Counts an ending, and what it means for the task.
    fn settled(&self, task: &Task, outcome: Outcome, failure: Option<&Failure>) {
        let ending = [part_of(task.part), KeyValue::new(OUTCOME, outcome.as_str())];
        self.count(&names::ATTEMPTS, 1, &with_error(ending, failure));
        let succeeded = match outcome {
            Outcome::Completed => task.part == Part::Recovery || task.attempts == 1,
            Outcome::DeadLettered => false,
            _ => return,
        };
        let word = if succeeded { "succeeded" } else { "failed" };
        let metric = match task.part {
            Part::Main => &names::FIRST_PASSES,
            Part::Recovery => &names::RECOVERIES,
        };
        self.count(metric, 1, &[KeyValue::new(OUTCOME, word)]);
        if outcome == Outcome::DeadLettered && task.part == Part::Main {
            self.count(&names::DEAD_LETTERS, 1, &with_error([], failure));
        }
    }

    /// Chunks were bought for so many tokens.
    pub fn chunks_bought(&self, chunks: u64, tokens: u64) {
        self.count(&names::CHUNKS_EMBEDDED, chunks, &[]);
        self.count(&names::TOKENS, tokens, &[]);
        if let Some(price) = self.price_per_million_tokens.get() {
            self.amount(&names::COST, tokens as f64 * price / 1_000_000.0, &[]);
        }
    }

    /// Chunks of a finished attempt needed not be bought.
    pub fn chunks_reused(&self, chunks: u64, tokens: u64) {
        self.count(&names::CHUNKS_REUSED, chunks, &[]);
        self.count(&names::TOKENS_SAVED, tokens, &[]);
    }

    /// A request to the provider ended: with so many tokens, or with a failure of this class.
    pub fn requested(&self, by: &Provider, took: Duration, result: Result<u64, &'static str>) {
        let request = [
            KeyValue::new(names::OPERATION, "embeddings"),
            KeyValue::new(names::PROVIDER, by.name.clone()),
            KeyValue::new(names::MODEL, by.model.clone()),
        ];
        let class = result.err().map(|class| KeyValue::new(ERROR, class));
        let timed: Vec<KeyValue> = request.iter().cloned().chain(class.clone()).collect();
        self.measure(&names::OPERATION_DURATION, took.as_secs_f64(), &timed);
        let provider = KeyValue::new(names::PROVIDER, by.name.clone());
        match (result, class) {
            (Ok(tokens), _) => {
                let input = KeyValue::new(names::TOKEN_TYPE, "input");
                let used: Vec<KeyValue> = request.into_iter().chain([input]).collect();
                self.measure(&names::TOKEN_USAGE, tokens as f64, &used);
            }
            (Err(RATE_LIMITED), _) => self.count(&names::RATE_LIMITED, 1, &[provider]),
            (Err(_), class) => {
                let attributes: Vec<KeyValue> = [provider].into_iter().chain(class).collect();
                self.count(&names::PROVIDER_ERRORS, 1, &attributes);
            }
        }
    }

    /// A provider is about to be asked for the first time.
    pub fn provider_chosen(&self, by: &Provider) {
        let provider = KeyValue::new(names::PROVIDER, by.name.clone());
        for class in Failure::CLASSES_OF_REQUESTS {
            let failed = [provider.clone(), KeyValue::new(ERROR, class)];
            self.count(&names::PROVIDER_ERRORS, 0, &failed);
        }
        self.count(&names::RATE_LIMITED, 0, &[provider]);
    }

    /// The provider takes so many requests at once, as far as is known.
    pub fn provider_takes(&self, by: &Provider, requests: usize) {
        let provider = KeyValue::new(names::PROVIDER, by.name.clone());
        self.level(&names::CONCURRENCY, requests as f64, &[provider]);
    }

    /// An answer told what is left of a limit on `requests` or `tokens`.
    pub fn headroom(&self, of: &'static str, left: u64, limit: u64) {
        if limit > 0 {
            let share = (left as f64 / limit as f64).min(1.0);
            self.level(&names::HEADROOM, share, &[KeyValue::new(LIMIT, of)]);
        }
    }

    /// Whether the provider is left alone.
    pub fn circuit_is_open(&self, open: bool) {
        self.level(&names::CIRCUIT_OPEN, f64::from(u8::from(open)), &[]);
    }

    /// An insert ended.
    pub fn inserted(&self, lane: Lane, rows: usize, took: Duration, failure: Option<&Failure>) {
        let attributes = with_error([lane.attribute()], failure);
        self.measure(&names::INSERT_DURATION, took.as_secs_f64(), &attributes);
        self.measure(&names::INSERT_ROWS, rows as f64, &[lane.attribute()]);
    }

    /// How many rows the next insert may hold.
    pub fn insert_may_hold(&self, lane: Lane, rows: usize) {
        self.level(&names::INSERT_BATCH_SIZE, rows as f64, &[lane.attribute()]);
    }

    /// How many inserts may be in flight, as far as is known.
    pub fn inserts_may_be_in_flight(&self, inserts: usize) {
        self.level(&names::INSERT_CONCURRENCY, inserts as f64, &[]);
    }

    /// Rows on their way to the database, of so many at most.
    pub fn permits(&self, lane: Lane, used: usize, max: usize) {
        self.level(&names::PERMITS_USED, used as f64, &[lane.attribute()]);
        self.level(&names::PERMITS_MAX, max as f64, &[lane.attribute()]);
    }

    /// Recordings of the main part in hand, of so many at most.
    pub fn slots(&self, used: u32, max: u32) {
        self.level(&names::SLOTS_USED, used.into(), &[]);
        self.level(&names::SLOTS_MAX, max.into(), &[]);
    }

    /// An actor ended and is started again.
    pub fn actor_restarted(&self, actor: &'static str) {
        self.count(&names::ACTOR_RESTARTS, 1, &[KeyValue::new(ACTOR, actor)]);
    }

    /// Connections to the database: idle, in use, and at most.
    pub fn connections(&self, idle: u32, used: u32, max: u32) {
        for (state, connections) in [("idle", idle), ("used", used)] {
            let state = KeyValue::new(names::CONNECTION_STATE, state);
            self.level(&names::CONNECTIONS, connections.into(), &[state]);
        }
        self.level(&names::CONNECTIONS_MAX, max.into(), &[]);
    }

    /// How the database stands, all replicas together; `None` where it could not be looked at: what
    /// was seen before is shown no longer.
    pub fn database(&self, seen: Option<&Overview>) {
        self.level(&names::DATABASE_UP, f64::from(u8::from(seen.is_some())), &[]);
        let alone = |value: Option<f64>| value.map(|value| (Vec::new(), value));
        let age = |seen: &Overview| {
            let age = seen.at.signed_duration_since(seen.last_completed_at?);
            Some(age.as_seconds_f64().max(0.0))
        };
        let waiting = seen.map(|seen| seen.oldest_waiting_secs.unwrap_or_default().max(0.0));
        self.levels.show(&names::OLDEST_AGE, alone(waiting));
        self.levels.show(&names::LAST_EMBEDDING_AGE, alone(seen.and_then(age)));
        self.levels.show(&names::WORKERS, alone(seen.map(|seen| seen.workers.len() as f64)));
        let tasks = seen.into_iter().flat_map(|seen| seen.tasks.by_state());
        let of_state = |(state, tasks): (TaskState, u64)| {
            (vec![KeyValue::new(STATE, state.as_str())], tasks as f64)
        };
        self.levels.show(&names::TASKS, tasks.map(of_state));
        let parts = seen.into_iter().flat_map(|seen| {
            let paused = |part| seen.pauses.iter().any(|pause| pause.part == part);
            Part::ALL.map(|part| (vec![part_of(part)], f64::from(u8::from(paused(part)))))
        });
        self.levels.show(&names::PAUSED, parts);
    }
}

/// The class of failures that the provider's rate limit is to blame for.
const RATE_LIMITED: &str = "rate_limited";

fn part_of(part: Part) -> KeyValue {
    KeyValue::new(PART, part.as_str())
}

fn with_error<const N: usize>(
    attributes: [KeyValue; N],
    failure: Option<&Failure>,
) -> Vec<KeyValue> {
    let class = failure.map(|failure| KeyValue::new(ERROR, failure.class()));
    attributes.into_iter().chain(class).collect()
}

/// Tells a reader what telemetry itself had to give up, by signal.
pub(super) fn observe_drops(reader: &dyn AsyncInstrument<u64>) {
    for signal in Signal::ALL {
        reader.observe(dropped(signal), &[KeyValue::new(names::SIGNAL, signal.as_str())]);
    }
}
