//! `runs`: when the parts of the work were run, and what came of it.

use std::process::ExitCode;

use crate::cli::plain::on_one_line;
use crate::cli::target::Target;
use crate::config::{DatabaseArgs, ServiceArgs};
use crate::domain::span::told;
use crate::ports::inspector::Run;

/// List runs, newest first.
///
/// Exit codes: 0; 1 failed; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery runs
  embedding-recovery runs --failed --limit 5")]
pub(super) struct Args {
    /// Only those in which something failed, or that ended early
    #[arg(long, env = "EMBEDDING_RECOVERY_FAILED")]
    failed: bool,

    /// Rows at most
    #[arg(long, env = "EMBEDDING_RECOVERY_ROWS", value_name = "ROWS", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,

    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,

    #[command(flatten)]
    service: ServiceArgs,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let target = Target::open(database, &args.service).await?;
    let listed = target.inspector().runs(args.failed, args.limit).await;
    target.close().await?;
    let runs = listed?;
    if args.json {
        println!("{}", serde_json::json!({ "runs": runs }));
    } else if runs.is_empty() {
        println!("no runs");
    }
    for run in runs.iter().filter(|_| !args.json) {
        println!("{}", line(run));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(run: &Run) -> String {
    let took = match run.ended_at {
        Some(ended_at) => {
            format!("took {}", told((ended_at - run.started_at).to_std().unwrap_or_default()))
        }
        None => "has not ended".into(),
    };
    let stopped = run.stopped_because.as_deref().map(on_one_line);
    format!(
        "{}  {}  {} by {}  {took}: {} taken, {} completed, {} failed{}",
        run.id,
        run.started_at.format("%F %T"),
        run.part.as_str(),
        on_one_line(&run.cause),
        run.taken,
        run.completed,
        run.failed,
        stopped.map(|why| format!("; stopped: {why}")).unwrap_or_default()
    )
}
