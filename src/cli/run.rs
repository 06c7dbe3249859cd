//! `run`: starts a run of a part now.

use std::process::ExitCode;

use super::target::Target;
use super::{PartArg, requested_by};
use crate::config::{DatabaseArgs, ServiceArgs};

/// Start a run now: of the main part, which queues what is missing, or of the recovery of dead letters.
///
/// Whichever service is alive takes it up; where none is, the next one that starts. Exit codes: 0 asked
/// for; 1 refused; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery run recovery
  embedding-recovery run recovery --admin-url http://localhost:8080
  embedding-recovery run main")]
pub(super) struct Args {
    /// Which part
    #[arg(value_enum)]
    part: PartArg,

    #[command(flatten)]
    service: ServiceArgs,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let target = Target::open(database, &args.service).await?;
    let run = target.operator().run(args.part.into(), &requested_by()).await;
    let served = target.is_served().await;
    target.close().await?;
    println!("run {}", run?);
    if !served? {
        println!("no service is alive: the next one that starts takes it up");
    }
    Ok(ExitCode::SUCCESS)
}
