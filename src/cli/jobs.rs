//! `jobs`: what was asked for, and how far it is.

use std::process::ExitCode;

use crate::cli::plain::on_one_line;
use crate::cli::target::Target;
use crate::config::{DatabaseArgs, ServiceArgs};

/// List jobs, newest first, with their progress.
///
/// Exit codes: 0; 1 failed; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery jobs
  embedding-recovery jobs --limit 100 --json | jq '.jobs[] | select(.dead_letter > 0)'")]
pub(super) struct Args {
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
    let listed = target.inspector().jobs(args.limit).await;
    target.close().await?;
    let jobs = listed?;
    if args.json {
        println!("{}", serde_json::json!({ "jobs": jobs }));
    } else if jobs.is_empty() {
        println!("no jobs; `embedding-recovery enqueue` makes one");
    }
    for job in jobs.iter().filter(|_| !args.json) {
        println!(
            "{}  {}  {} of {} completed, {} dead, by {}",
            job.id,
            job.created_at.format("%F %T"),
            job.completed,
            job.tasks,
            job.dead_letter,
            on_one_line(job.requested_by.as_deref().unwrap_or("unknown"))
        );
    }
    Ok(ExitCode::SUCCESS)
}
