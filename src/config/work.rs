//! How hard and how long the service works.

use std::time::Duration;

use clap::Args;

use crate::domain::retry::RetryPolicy;

/// How hard and how long the service works.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Work")]
pub struct WorkArgs {
    /// Waits before the retries of a failed recording
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_RETRY_DELAYS",
        value_name = "DURATIONS",
        default_value = "30s,90s,270s",
        value_delimiter = ',',
        value_parser = humantime::parse_duration
    )]
    retry_delays: Vec<Duration>,

    /// Length of a lease; a dead worker's recordings come back after it
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_LEASE_SECS",
        value_name = "SECONDS",
        default_value_t = 120,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    lease_secs: u32,

    /// Recordings worked on at once
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_CLAIM_BATCH",
        value_name = "RECORDINGS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub claim_batch: u32,

    /// Rows of the first insert; later ones follow the database's speed
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_INSERT_BATCH",
        value_name = "ROWS",
        default_value_t = 50,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub insert_batch: u16,

    /// When the queue is reconciled and polled, as cron in UTC
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_SCHEDULE",
        value_name = "CRON",
        default_value = "*/5 * * * *",
        value_parser = parse_schedule
    )]
    pub schedule: croner::Cron,

    /// A recording that makes no progress for this long is ended
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_STALL_SECS",
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u32).range(10..=86_400)
    )]
    stall_secs: u32,

    /// When dead letters are recovered that are due, as cron in UTC
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_RECOVERY_SCHEDULE",
        value_name = "CRON",
        default_value = "0 */6 * * *",
        value_parser = parse_schedule
    )]
    pub recovery_schedule: croner::Cron,

    // A run takes no more than five.
    /// Dead letters recovered at once, 5 at most
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_RECOVERY_CONCURRENCY",
        value_name = "RECORDINGS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=5)
    )]
    pub recovery_concurrency: u32,

    /// A recording of more chunks is stored in small, patient inserts from the start, as dead letters are
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_SMALL_BATCHES_ABOVE",
        value_name = "CHUNKS",
        default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub small_batches_above: u32,

    /// Forget completed tasks and their attempts after this long; without it they are kept
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_KEEP_COMPLETED",
        value_name = "DURATION",
        value_parser = parse_keep
    )]
    pub keep_completed: Option<Duration>,

    /// Time for recordings in flight to finish when the service is told to stop
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_GRACE_SECS",
        value_name = "SECONDS",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(0..=3_600)
    )]
    grace_secs: u32,
}

/// Shorter, and what is shown of the last day would be wrong; longer, and no time lies so far back.
const KEEP_DAYS: std::ops::RangeInclusive<u64> = 1..=36_500;

fn parse_keep(text: &str) -> Result<Duration, String> {
    let keep = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match KEEP_DAYS.contains(&(keep.as_secs() / 86_400)) {
        true => Ok(keep),
        false => Err("expected at least a day, such as 90d, and at most a hundred years".into()),
    }
}

fn parse_schedule(text: &str) -> Result<croner::Cron, String> {
    text.parse().map_err(|error| format!("{error}; five fields are expected, such as */5 * * * *"))
}

impl WorkArgs {
    /// When failed tasks are tried again.
    pub fn retry(&self) -> RetryPolicy {
        RetryPolicy::new(self.retry_delays.clone())
    }

    /// Length of a lease.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_secs.into())
    }

    /// Time without progress after which a recording is ended.
    pub fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_secs.into())
    }

    /// Time that recordings in flight get at a stop.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_secs.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_kept_for_a_day_at_least_and_for_no_longer_than_time_lasts() {
        assert_eq!(parse_keep("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert!(parse_keep("24h").is_ok());
        for refused in ["23h", "0s", "101years", "ninety days", ""] {
            assert!(parse_keep(refused).is_err(), "{refused}");
        }
    }
}
