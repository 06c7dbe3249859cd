//! `verify`: the invariants against what is really stored.

use std::process::ExitCode;

use super::EXIT_FAILED;
use crate::app::Database;
use crate::config::DatabaseArgs;
use crate::postgres::Report;

/// Check what is stored against what must hold.
///
/// Exit codes: 0 everything holds; 1 something does not, with the list; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery verify
  embedding-recovery verify --json | jq .violations")]
pub(super) struct Args {
    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let database = Database::open(database).await?;
    let verified = database.store.verify().await;
    database.close().await?;
    let report = verified?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { EXIT_FAILED.into() })
}

fn print(report: &Report) {
    let tasks = &report.tasks;
    println!(
        "tasks: {} pending, {} processing, {} completed, {} failed, {} dead letters",
        tasks.pending, tasks.processing, tasks.completed, tasks.failed, tasks.dead_letter
    );
    println!("searchable: {} chunks of {} recordings", report.chunks, report.recordings);
    for violation in &report.violations {
        println!(
            "VIOLATED {}: recording {} of user {}: {}",
            violation.invariant, violation.recording_id, violation.user_id, violation.detail
        );
    }
    match report.violations.len() {
        0 => println!("every invariant holds"),
        count => println!("{count} violations"),
    }
}
