//! `import`: files of recordings into the source tables.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use uuid::Uuid;

use super::EXIT_FAILED;
use crate::app::Database;
use crate::config::DatabaseArgs;
use crate::import::Recordings;
use crate::ports::ImportChange;
use crate::postgres::Import;

/// Store calls and transcripts from files of JSON lines, plain or .gz, and queue what is new or
/// changed.
///
/// Importing a file again changes nothing. A line that is refused is named and loses nothing of
/// the others. Exit codes: 0 all stored; 1 something was refused; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery import calls.jsonl.gz
  embedding-recovery import --user alice --no-enqueue monday.jsonl tuesday.jsonl")]
pub(super) struct Args {
    /// Files to read
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Owner of the recordings
    #[arg(long, env = "EMBEDDING_RECOVERY_USER", default_value = "default", value_name = "ID",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user: String,

    /// Store only; a running service enqueues them at its next tick all the same
    #[arg(long, env = "EMBEDDING_RECOVERY_NO_ENQUEUE")]
    no_enqueue: bool,

    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,
}

#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    new: u64,
    changed: u64,
    unchanged: u64,
    warnings: u64,
    refused: u64,
    job_id: Option<Uuid>,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let database = Database::open(database).await?;
    let imported = import(&database, args).await;
    database.close().await?;
    let summary = imported?;
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        let Summary { new, changed, unchanged, warnings, refused, .. } = summary;
        println!(
            "{new} new, {changed} changed, {unchanged} unchanged, {refused} refused, {warnings} warnings"
        );
        if let Some(job) = summary.job_id {
            println!("job {job}: {} tasks", new + changed);
        }
    }
    Ok(if summary.refused == 0 { ExitCode::SUCCESS } else { EXIT_FAILED.into() })
}

async fn import(database: &Database, args: &Args) -> anyhow::Result<Summary> {
    let mut import = database.store.import(!args.no_enqueue);
    let mut summary = Summary::default();
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{spinner} {pos} recordings, {per_sec}")?);
    for file in &args.files {
        import_file(file, args, &mut import, &mut summary, &progress).await?;
    }
    progress.finish_and_clear();
    summary.job_id = import.job_id();
    Ok(summary)
}

async fn import_file(
    file: &Path,
    args: &Args,
    import: &mut Import,
    summary: &mut Summary,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let name = file.display();
    let recordings =
        Recordings::open(file, &args.user).with_context(|| format!("cannot read {name}"))?;
    for read in recordings {
        let read = match read {
            Ok(read) => read,
            Err(refused) => {
                summary.refused += 1;
                progress.suspend(|| eprintln!("{name}: {refused}"));
                continue;
            }
        };
        for warning in &read.warnings {
            summary.warnings += 1;
            progress.suspend(|| eprintln!("{name}: line {}: warning: {warning}", read.line));
        }
        let stored = import.store(&read.recording).await;
        match stored
            .with_context(|| format!("{name}: line {}: {}", read.line, read.recording.key))?
        {
            ImportChange::New => summary.new += 1,
            ImportChange::Changed => summary.changed += 1,
            ImportChange::Unchanged => summary.unchanged += 1,
        }
        progress.inc(1);
    }
    Ok(())
}
