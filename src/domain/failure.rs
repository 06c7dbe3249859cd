//! Every way an attempt can fail, and whose fault it is. Blame decides what is counted: only an
//! item's own fault, or a dead worker, uses up one of its attempts.

use std::time::Duration;

/// Why an attempt, a request or a statement failed. Messages never hold transcript text, keys or
/// connection strings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The call was deleted between enqueue and now.
    #[error("the recording was deleted")]
    RecordingDeleted,
    /// The call has no segment rows at all: it may still be arriving.
    #[error("transcript missing: the recording has no segments")]
    TranscriptMissing,
    /// More text than one recording may have.
    #[error("the transcript has {bytes} bytes of text; at most {bytes_max} are taken")]
    TranscriptTooLarge {
        /// Size of all segments.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The provider refuses this one chunk, whatever it is sent with.
    #[error("chunk {chunk_index} is refused by the provider: {message}")]
    ChunkRefused {
        /// Its place in the recording, from 0.
        chunk_index: u32,
        /// What the provider said.
        message: String,
    },
    /// The provider refuses a request of several inputs: too many, too large, or one is bad.
    /// Splitting it tells which.
    #[error("the request is refused by the provider: {message}")]
    RequestRefused {
        /// What the provider said.
        message: String,
    },
    /// The provider fails for this recording while it answers a probe: the recording's own fault.
    #[error("the provider answers a probe but fails on this recording: {message}")]
    ProviderRejectsItem {
        /// What the provider said.
        message: String,
    },
    /// The Recording actor panicked.
    #[error("the recording's actor panicked; the log has the place")]
    Panicked,
    /// Chunks are missing although every one was written.
    #[error("{stored} of {expected} chunks are stored")]
    Incomplete {
        /// Chunks found.
        stored: u64,
        /// Chunks that the transcript makes.
        expected: u64,
    },
    /// 429: everyone waits until the reset.
    #[error("rate limited by the provider for {} s", retry_after.as_secs())]
    RateLimited {
        /// Time until the reset.
        retry_after: Duration,
    },
    /// 429 with `insufficient_quota`: waiting does not help, paying does.
    #[error("the provider's quota is exhausted: {message}")]
    QuotaExhausted {
        /// What the provider said.
        message: String,
    },
    /// 401, 403, or a model that this key cannot use.
    #[error("the provider refuses the key or the model: {message}")]
    KeyRefused {
        /// What the provider said.
        message: String,
    },
    /// 5xx, no connection, no answer in time.
    #[error("the provider is unavailable: {message}")]
    ProviderUnavailable {
        /// What happened.
        message: String,
    },
    /// An answer that must not be stored: wrong count, dimension, or a vector that is not finite.
    #[error("the provider's answer is unusable: {message}")]
    BadAnswer {
        /// What is wrong with it.
        message: String,
    },
    /// `statement_timeout` struck (57014).
    #[error("a statement ran into statement_timeout")]
    StatementTimeout,
    /// Serialization failure or deadlock: the same statement may simply be sent again.
    #[error("a transaction collided with another")]
    Collision,
    /// Unreachable, restarting, read-only, full, out of connections.
    #[error("the database is unavailable: {message}")]
    DatabaseUnavailable {
        /// What it said.
        message: String,
    },
    /// The role may not do what a statement does (42501): a grant cures it, and then all goes on.
    #[error("the database's role may not do this: {message}")]
    DatabaseForbids {
        /// What it may not do.
        message: String,
    },
    /// The database refuses a statement for a reason that waiting does not cure.
    #[error("the database refuses a statement: {message}")]
    DatabaseRefuses {
        /// Its code and message.
        message: String,
    },
    /// A running service that was asked does not answer, or cannot by now: it will.
    #[error("{message}")]
    ServiceUnavailable {
        /// In whole sentences.
        message: String,
    },
    /// A running service that was asked refuses, or what answers is no service.
    #[error("{message}")]
    ServiceRefuses {
        /// In whole sentences.
        message: String,
    },
    /// The worker that held the lease is gone.
    #[error("the lease expired: its worker died or lost the database")]
    LeaseExpired,
    /// Another worker holds the task now.
    #[error("the lease was lost to another worker")]
    LeaseLost,
    /// Nothing moved for too long.
    #[error("no progress for {} s", idle.as_secs())]
    Stalled {
        /// How long nothing moved.
        idle: Duration,
    },
    /// The service is going down.
    #[error("the service is shutting down")]
    Shutdown,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The recording's: it uses an attempt.
    Item,
    /// The recording's, and trying again cannot help: a person must look.
    ItemPermanent,
    /// The provider's: no attempt is used, and claiming may have to stop.
    Provider,
    /// The database's: no attempt is used, except by a statement that times out row by row.
    Database,
    /// This program's or its host's.
    Ours,
}

impl Failure {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Failure::RecordingDeleted
            | Failure::TranscriptTooLarge { .. }
            | Failure::ChunkRefused { .. } => Fault::ItemPermanent,
            Failure::TranscriptMissing
            | Failure::RequestRefused { .. }
            | Failure::ProviderRejectsItem { .. }
            | Failure::Panicked
            | Failure::Incomplete { .. }
            | Failure::DatabaseRefuses { .. } => Fault::Item,
            Failure::RateLimited { .. }
            | Failure::QuotaExhausted { .. }
            | Failure::KeyRefused { .. }
            | Failure::ProviderUnavailable { .. }
            | Failure::BadAnswer { .. } => Fault::Provider,
            Failure::StatementTimeout
            | Failure::Collision
            | Failure::DatabaseUnavailable { .. }
            | Failure::DatabaseForbids { .. } => Fault::Database,
            Failure::ServiceUnavailable { .. }
            | Failure::ServiceRefuses { .. }
            | Failure::LeaseExpired
            | Failure::LeaseLost
            | Failure::Stalled { .. }
            | Failure::Shutdown => Fault::Ours,
        }
    }

    /// The database does nothing for anybody now, and will again: work waits with what it has.
    pub fn is_outage(&self) -> bool {
        matches!(self, Failure::DatabaseUnavailable { .. } | Failure::DatabaseForbids { .. })
    }

    /// Each [`Failure::class`] that a task can fail with, for whoever counts from zero.
    pub const CLASSES: [&str; 22] = [
        "recording_deleted",
        "transcript_missing",
        "transcript_too_large",
        "chunk_refused",
        "request_refused",
        "provider_rejects_item",
        "panicked",
        "incomplete",
        "rate_limited",
        "quota_exhausted",
        "key_refused",
        "provider_unavailable",
        "bad_answer",
        "statement_timeout",
        "collision",
        "database_unavailable",
        "database_forbids",
        "database_refuses",
        "lease_expired",
        "lease_lost",
        "stalled",
        "shutdown",
    ];

    /// Each [`Failure::class`] that a request to a provider can fail with, but for `rate_limited`, which
    /// is no fault of anybody's.
    pub const CLASSES_OF_REQUESTS: [&str; 5] =
        ["request_refused", "quota_exhausted", "key_refused", "provider_unavailable", "bad_answer"];

    /// A stable name for the kind of failure, stored as `failure_class` and used to group
    /// failures.
    pub fn class(&self) -> &'static str {
        match self {
            Failure::RecordingDeleted => "recording_deleted",
            Failure::TranscriptMissing => "transcript_missing",
            Failure::TranscriptTooLarge { .. } => "transcript_too_large",
            Failure::ChunkRefused { .. } => "chunk_refused",
            Failure::RequestRefused { .. } => "request_refused",
            Failure::ProviderRejectsItem { .. } => "provider_rejects_item",
            Failure::Panicked => "panicked",
            Failure::Incomplete { .. } => "incomplete",
            Failure::RateLimited { .. } => "rate_limited",
            Failure::QuotaExhausted { .. } => "quota_exhausted",
            Failure::KeyRefused { .. } => "key_refused",
            Failure::ProviderUnavailable { .. } => "provider_unavailable",
            Failure::BadAnswer { .. } => "bad_answer",
            Failure::StatementTimeout => "statement_timeout",
            Failure::Collision => "collision",
            Failure::DatabaseUnavailable { .. } => "database_unavailable",
            Failure::DatabaseForbids { .. } => "database_forbids",
            Failure::DatabaseRefuses { .. } => "database_refuses",
            Failure::ServiceUnavailable { .. } => "service_unavailable",
            Failure::ServiceRefuses { .. } => "service_refuses",
            Failure::LeaseExpired => "lease_expired",
            Failure::LeaseLost => "lease_lost",
            Failure::Stalled { .. } => "stalled",
            Failure::Shutdown => "shutdown",
        }
    }

    /// Names failures that are the same trouble: the class and the message with its numbers
    /// blanked, so that two recordings that fail alike are seen to.
    pub fn fingerprint(&self) -> String {
        let mut blanked = String::new();
        for character in self.to_string().chars() {
            match character {
                '0'..='9' if blanked.ends_with('#') => {}
                '0'..='9' => blanked.push('#'),
                other => blanked.push(other),
            }
        }
        format!("{}: {blanked}", self.class())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_ignores_the_numbers_in_a_message() {
        let refused = |chunk_index, message: &str| Failure::ChunkRefused {
            chunk_index,
            message: message.into(),
        };
        assert_eq!(
            refused(17, "8193 tokens").fingerprint(),
            refused(4, "9001 tokens").fingerprint()
        );
        assert_ne!(refused(1, "too long").fingerprint(), refused(1, "invalid").fingerprint());
    }
}
