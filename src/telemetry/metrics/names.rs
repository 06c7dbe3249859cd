//! Every metric: its name, kind, unit, attributes and what it tells. The instruments are built from
//! this table, and the README shows it. No attribute holds what has no bound: a recording's id, least
//! of all.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows, while the process lives.
    Counter,
    /// Only grows, and not by whole numbers.
    Amount,
    /// Only grows, and is kept elsewhere in the process.
    Observed,
    /// Is what it is now, or is not there.
    Gauge,
    /// How often which size occurred; the bounds of its buckets.
    Histogram(&'static [f64]),
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// OpenTelemetry's name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// In UCUM; empty for a number that says yes or no.
    pub unit: &'static str,
    /// Keys of its attributes.
    pub attributes: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

/// State of a task.
pub(super) const STATE: &str = "state";
/// Main or recovery.
pub(super) const PART: &str = "part";
/// What came of it.
pub(super) const OUTCOME: &str = "outcome";
/// Class of the failure; absent where there was none.
pub(super) const ERROR: &str = "error.type";
/// The Writer's: quick, patient or recovery.
pub(super) const LANE: &str = "lane";
/// Of what a limit speaks: requests or tokens.
pub(super) const LIMIT: &str = "kind";
/// An actor of the tree.
pub(super) const ACTOR: &str = "actor";
/// Traces, metrics or logs.
pub(super) const SIGNAL: &str = "signal";
/// Of a connection: idle or used.
pub(super) const CONNECTION_STATE: &str = "db.client.connection.state";
/// Always `embeddings`.
pub(super) const OPERATION: &str = "gen_ai.operation.name";
/// Who embeds.
pub(super) const PROVIDER: &str = "gen_ai.provider.name";
/// With which model.
pub(super) const MODEL: &str = "gen_ai.request.model";
/// Always `input`: nothing comes back but vectors.
pub(super) const TOKEN_TYPE: &str = "gen_ai.token.type";
/// Of the program.
pub(super) const VERSION: &str = "version";
/// That it was built from.
pub(super) const COMMIT: &str = "commit";

/// Statements: from an index look-up to the longest that is allowed.
const STATEMENT_SECS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
/// Attempts: from a recording that is there already to a marathon.
const ATTEMPT_SECS: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0];
/// Waits: from a notification to a week of arrears.
const WAIT_SECS: &[f64] = &[
    0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0,
    604_800.0,
];
/// Rows: from one that is slow by itself to four times the largest first insert.
const ROWS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 4_000.0];
/// Source: OpenTelemetry's semantic conventions, `gen_ai.client.operation.duration`.
const OPERATION_SECS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// Source: OpenTelemetry's semantic conventions, `gen_ai.client.token.usage`.
const TOKENS_OF_REQUEST: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

use Kind::{Amount, Counter, Gauge, Histogram, Observed};

/// A constant for each row, and all of them.
macro_rules! metrics {
    ($($constant:ident: $kind:expr, $name:literal, $unit:literal, [$($attribute:expr),*], $help:literal;)+) => {
        $(#[doc = $help]
        pub(super) const $constant: Metric = Metric {
            name: $name, kind: $kind, unit: $unit, attributes: &[$($attribute),*], help: $help,
        };)+
        /// All of them.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    // Of the database, so of all replicas: each tells the same.
    TASKS: Gauge, "embedding_recovery.tasks", "{task}", [STATE], "Tasks by state: `pending`, `processing`, `completed`, `failed` (waits for its retry), `dead_letter`";
    OLDEST_AGE: Gauge, "embedding_recovery.queue.oldest_age", "s", [], "Age of the task that has waited longest; 0 where none waits";
    LAST_EMBEDDING_AGE: Gauge, "embedding_recovery.last_embedding.age", "s", [], "Time since a recording was completed; absent where none ever was";
    WORKERS: Gauge, "embedding_recovery.workers", "{worker}", [], "Replicas that are alive";
    PAUSED: Gauge, "embedding_recovery.paused", "", [PART], "1 where an administrator paused the part";
    DATABASE_UP: Gauge, "embedding_recovery.database.up", "", [], "1 where the last look at the database succeeded; else 0, and the five before this are absent";
    // Of this process.
    SLOTS_USED: Gauge, "embedding_recovery.slots.used", "{recording}", [], "Recordings of the main part in hand";
    SLOTS_MAX: Gauge, "embedding_recovery.slots.max", "{recording}", [], "Recordings of the main part at most";
    CLAIM_DURATION: Histogram(STATEMENT_SECS), "embedding_recovery.claim.duration", "s", [PART, ERROR], "Time that a claim took";
    QUEUE_WAIT: Histogram(WAIT_SECS), "embedding_recovery.queue.wait", "s", [PART], "Time from when a task was due to its claim; of one that was given back, from when it came";
    ATTEMPT_DURATION: Histogram(ATTEMPT_SECS), "embedding_recovery.attempt.duration", "s", [PART, OUTCOME], "Time that an attempt of this process took";
    ATTEMPTS: Counter, "embedding_recovery.attempts", "{attempt}", [PART, OUTCOME, ERROR], "Attempts that ended: `completed`, `superseded` (the transcript changed meanwhile), `retried`, `dead_lettered`, `released`, `lost`";
    RETRIES: Counter, "embedding_recovery.retries", "{attempt}", [], "Attempts of the main part that began and were not their task's first";
    DEAD_LETTERS: Counter, "embedding_recovery.dead_letters", "{task}", [ERROR], "Tasks that became dead letters";
    FIRST_PASSES: Counter, "embedding_recovery.first_passes", "{task}", [OUTCOME], "Tasks that the main part ended: `succeeded` at the first attempt, or `failed` to";
    RECOVERIES: Counter, "embedding_recovery.recoveries", "{task}", [OUTCOME], "Dead letters that were tried again: `succeeded` or `failed`; those that were interrupted are not in it";
    CHUNKS_EMBEDDED: Counter, "embedding_recovery.chunks.embedded", "{chunk}", [], "Chunks bought";
    CHUNKS_REUSED: Counter, "embedding_recovery.chunks.reused", "{chunk}", [], "Chunks of finished attempts that were stored already or copied, and so were not bought";
    TOKENS: Counter, "embedding_recovery.tokens", "{token}", [], "Tokens bought for chunks";
    TOKENS_SAVED: Counter, "embedding_recovery.tokens.saved", "{token}", [], "Tokens of the reused chunks, at four bytes a token";
    COST: Amount, "embedding_recovery.cost", "USD", [], "Price of the tokens bought; absent without `--price-per-million-tokens`";
    PROVIDER_ERRORS: Counter, "embedding_recovery.provider.errors", "{request}", [PROVIDER, ERROR], "Requests that failed, each repetition by itself; refusals by a rate limit are not in it";
    RATE_LIMITED: Counter, "embedding_recovery.provider.rate_limited", "{request}", [PROVIDER], "Requests that a rate limit refused";
    HEADROOM: Gauge, "embedding_recovery.provider.headroom", "1", [LIMIT], "Share of the provider's limit that its last answer left, 0 to 1; absent where it does not say";
    CONCURRENCY: Gauge, "embedding_recovery.provider.concurrency", "{request}", [PROVIDER], "Requests that may be in flight, as found by how the provider answers; at most `--requests-in-flight`";
    CIRCUIT_OPEN: Gauge, "embedding_recovery.circuit.open", "", [], "1 while the provider is not called";
    OPERATION_DURATION: Histogram(OPERATION_SECS), "gen_ai.client.operation.duration", "s", [OPERATION, PROVIDER, MODEL, ERROR], "Time that a request to the provider took, without waits for its limit";
    TOKEN_USAGE: Histogram(TOKENS_OF_REQUEST), "gen_ai.client.token.usage", "{token}", [OPERATION, PROVIDER, MODEL, TOKEN_TYPE], "Tokens of a request";
    INSERT_DURATION: Histogram(STATEMENT_SECS), "embedding_recovery.insert.duration", "s", [LANE, ERROR], "Time that an insert of chunks took";
    INSERT_ROWS: Histogram(ROWS), "embedding_recovery.insert.rows", "{row}", [LANE], "Chunks of an insert";
    INSERT_BATCH_SIZE: Gauge, "embedding_recovery.insert.batch_size", "{row}", [LANE], "Chunks that the next insert may hold";
    INSERT_CONCURRENCY: Gauge, "embedding_recovery.insert.concurrency", "{insert}", [], "Inserts that may be in flight, as found by what stores more chunks a second; at most a quarter of `--database-connections`";
    PERMITS_USED: Gauge, "embedding_recovery.writer.permits.used", "{row}", [LANE], "Chunks on their way to the database";
    PERMITS_MAX: Gauge, "embedding_recovery.writer.permits.max", "{row}", [LANE], "Chunks on their way to the database at most";
    CONNECTIONS: Gauge, "db.client.connection.count", "{connection}", [CONNECTION_STATE], "Connections to the database: `idle` or `used`";
    CONNECTIONS_MAX: Gauge, "db.client.connection.max", "{connection}", [], "Connections to the database at most";
    LEASES_EXPIRED: Counter, "embedding_recovery.leases.expired", "{lease}", [], "Leases of dead workers that this process settled";
    LEASES_LOST: Counter, "embedding_recovery.leases.lost", "{lease}", [], "Leases of this process that went to another";
    ACTOR_RESTARTS: Counter, "embedding_recovery.actor.restarts", "{restart}", [ACTOR], "Actors that ended and were started again";
    DROPPED: Observed, "embedding_recovery.telemetry.dropped", "{item}", [SIGNAL], "Spans, metrics and log lines that an exporter gave up; not those that found no room in its buffer while it hung";
    BUILD_INFO: Gauge, "embedding_recovery.build.info", "", [VERSION, COMMIT], "1";
}
