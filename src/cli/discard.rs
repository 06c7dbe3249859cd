//! `discard`: removes a dead letter for good.

use std::process::ExitCode;

use super::requested_by;
use super::target::Target;
use crate::config::{DatabaseArgs, ServiceArgs};

/// Remove a dead letter for good. What is searchable of the recording stays so; a change of its
/// transcript queues it again.
///
/// Exit codes: 0 removed; 1 refused; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery discard 21792013 --reason 'an empty test call'")]
pub(super) struct Args {
    /// The recording
    #[arg(value_name = "ID")]
    recording: i64,

    /// Why: kept with the action, as the dead letter's row is
    #[arg(long, env = "EMBEDDING_RECOVERY_REASON", value_name = "TEXT")]
    reason: String,

    /// Whose recording is meant, where several users hold one of this number
    #[arg(long, env = "EMBEDDING_RECOVERY_USER", value_name = "ID")]
    user: Option<String>,

    #[command(flatten)]
    service: ServiceArgs,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let Args { recording, reason, user, service } = args;
    let target = Target::open(database, service).await?;
    let discarded =
        target.operator().discard(*recording, user.as_deref(), reason, &requested_by()).await;
    target.close().await?;
    println!("recording {recording} is discarded: action {}", discarded?);
    Ok(ExitCode::SUCCESS)
}
