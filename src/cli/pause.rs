//! `pause` and `resume`: nothing of a part is begun, by any process, until it may go on.

use std::process::ExitCode;

use super::target::Target;
use super::{PartArg, requested_by};
use crate::config::{DatabaseArgs, ServiceArgs};
use crate::ports::operator::Part;

/// Begin nothing more, in any process, until `resume`. What is in flight is finished.
///
/// Exit codes: 0 paused; 1 what is asked does not answer, or refuses; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery pause
  embedding-recovery pause recovery")]
pub(super) struct PauseArgs {
    /// Which part [default: both]
    #[arg(value_enum)]
    part: Option<PartArg>,

    #[command(flatten)]
    service: ServiceArgs,
}

/// Let what was paused go on.
///
/// Exit codes: 0 it goes on, also where it was not paused; 1 what is asked does not answer, or refuses; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery resume
  embedding-recovery resume main")]
pub(super) struct ResumeArgs {
    /// Which part [default: both]
    #[arg(value_enum)]
    part: Option<PartArg>,

    #[command(flatten)]
    service: ServiceArgs,
}

pub(super) async fn pause(database: &DatabaseArgs, args: &PauseArgs) -> anyhow::Result<ExitCode> {
    change(database, &args.service, args.part, true).await
}

pub(super) async fn resume(database: &DatabaseArgs, args: &ResumeArgs) -> anyhow::Result<ExitCode> {
    change(database, &args.service, args.part, false).await
}

async fn change(
    database: &DatabaseArgs,
    service: &ServiceArgs,
    part: Option<PartArg>,
    pause: bool,
) -> anyhow::Result<ExitCode> {
    let parts = part.map_or(Part::ALL.to_vec(), |part| vec![part.into()]);
    let target = Target::open(database, service).await?;
    let mut changed = Ok(());
    for part in &parts {
        let by = requested_by();
        changed = match pause {
            true => target.operator().pause(*part, &by).await,
            false => target.operator().resume(*part, &by).await,
        };
        if changed.is_err() {
            break;
        }
    }
    target.close().await?;
    changed?;
    let names: Vec<&str> = parts.iter().map(|part| part.as_str()).collect();
    println!("{}: {}", if pause { "paused" } else { "goes on" }, names.join(", "));
    Ok(ExitCode::SUCCESS)
}
