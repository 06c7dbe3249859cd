//! From where on something is a warning, and from where on critical.

use std::time::Duration;

use clap::Args;

use crate::domain::health::{Limits, Thresholds};

/// What counts as unwell.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Health")]
pub struct HealthArgs {
    /// Dead letters that are a warning
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_WARNING_DEAD_LETTERS",
        value_name = "TASKS",
        default_value_t = 1
    )]
    warning_dead_letters: u64,

    /// Dead letters that are critical
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_CRITICAL_DEAD_LETTERS",
        value_name = "TASKS",
        default_value_t = 21
    )]
    critical_dead_letters: u64,

    /// Tasks waiting for a retry that are a warning
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_WARNING_RETRIES",
        value_name = "TASKS",
        default_value_t = 100
    )]
    warning_retries: u64,

    /// Tasks waiting for a retry that are critical
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_CRITICAL_RETRIES",
        value_name = "TASKS",
        default_value_t = 501
    )]
    critical_retries: u64,

    /// Time without a completed recording, although there is work, that is a warning
    #[arg(long, env = "EMBEDDING_RECOVERY_WARNING_IDLE", value_name = "DURATION", default_value = "1h",
          value_parser = humantime::parse_duration)]
    warning_idle: Duration,

    /// Time without a completed recording, although there is work, that is critical
    #[arg(long, env = "EMBEDDING_RECOVERY_CRITICAL_IDLE", value_name = "DURATION", default_value = "6h",
          value_parser = humantime::parse_duration)]
    critical_idle: Duration,
}

impl HealthArgs {
    /// The thresholds of the verdict.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            dead_letters: Limits {
                warning: self.warning_dead_letters,
                critical: self.critical_dead_letters,
            },
            retry_queue: Limits { warning: self.warning_retries, critical: self.critical_retries },
            idle: Limits { warning: self.warning_idle, critical: self.critical_idle },
        }
    }
}
