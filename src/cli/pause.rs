//! `pause` and `resume`: nothing of a part is begun, by any process, until it may go on.

use std::process::ExitCode;

use super::{PartArg, requested_by};
use crate::app::Database;
use crate::config::DatabaseArgs;
use crate::ports::operator::{Operator, Part};

/// Begin nothing more, in any process, until `resume`. What is in flight is finished.
///
/// Exit codes: 0 paused; 1 the database does not answer; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery pause
  embedding-recovery pause recovery")]
pub(super) struct PauseArgs {
    /// Which part [default: both]
    #[arg(value_enum)]
    part: Option<PartArg>,
}

/// Let what was paused go on.
///
/// Exit codes: 0 it goes on, also where it was not paused; 1 the database does not answer; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery resume
  embedding-recovery resume main")]
pub(super) struct ResumeArgs {
    /// Which part [default: both]
    #[arg(value_enum)]
    part: Option<PartArg>,
}

pub(super) async fn pause(database: &DatabaseArgs, args: &PauseArgs) -> anyhow::Result<ExitCode> {
    change(database, args.part, true).await
}

pub(super) async fn resume(database: &DatabaseArgs, args: &ResumeArgs) -> anyhow::Result<ExitCode> {
    change(database, args.part, false).await
}

async fn change(
    database: &DatabaseArgs,
    part: Option<PartArg>,
    pause: bool,
) -> anyhow::Result<ExitCode> {
    let parts = part.map_or(Part::ALL.to_vec(), |part| vec![part.into()]);
    let database = Database::open(database).await?;
    let mut changed = Ok(());
    for part in &parts {
        let by = requested_by();
        changed = match pause {
            true => database.store.pause(*part, &by).await,
            false => database.store.resume(*part, &by).await,
        };
        if changed.is_err() {
            break;
        }
    }
    database.close().await?;
    changed?;
    let names: Vec<&str> = parts.iter().map(|part| part.as_str()).collect();
    println!("{}: {}", if pause { "paused" } else { "goes on" }, names.join(", "));
    Ok(ExitCode::SUCCESS)
}
