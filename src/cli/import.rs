//! `import`: files of recordings into the source tables.

mod progress;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use self::progress::Progress;
use super::EXIT_FAILED;
use crate::app::Database;
use crate::config::{ConfigError, DatabaseArgs};
use crate::import::{self, Found, Origin, ReadRecording, Recordings, Version, Versions};
use crate::ports::{ImportChange, ImportedRecording};
use crate::postgres::Import;

/// Store calls and transcripts from files, and queue what is new or changed.
///
/// Reads JSON lines of Fathom meetings, Fathom API pages, lists and single meetings, WebVTT and
/// SubRip (.srt), each plain or gzip; told by content, not by name. A folder stands for all files
/// in it, - for standard input.
///
/// Importing a file again changes nothing. What is refused is named and loses nothing of the
/// others. Exit codes: 0 all stored; 1 something was refused; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery import calls.jsonl.gz
  embedding-recovery import --dry-run --user alice calls/
  embedding-recovery import kick-off.vtt --title 'Kick-off with Acme' --date 2024-05-01
  curl -s -H \"X-Api-Key: $KEY\" 'https://api.fathom.ai/external/v1/meetings?include_transcript=true' |
    embedding-recovery import -")]
pub(super) struct Args {
    /// Files and folders to read; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Owner of the recordings
    #[arg(long, env = "EMBEDDING_RECOVERY_USER", default_value = "default", value_name = "ID",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user: String,

    /// Store only; a running service enqueues them at its next tick all the same
    #[arg(long, env = "EMBEDDING_RECOVERY_NO_ENQUEUE")]
    no_enqueue: bool,

    /// Say what would be new or changed, and write nothing
    #[arg(long, env = "EMBEDDING_RECOVERY_DRY_RUN")]
    dry_run: bool,

    #[command(flatten)]
    caption: CaptionArgs,

    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,
}

/// What a WebVTT or SubRip file does not say.
#[derive(Debug, clap::Args)]
struct CaptionArgs {
    /// Number of a WebVTT or SubRip file's recording [default: the file name, where it is a number,
    /// or one made from it]
    #[arg(long, env = "EMBEDDING_RECOVERY_RECORDING_ID", value_name = "ID",
          value_parser = clap::value_parser!(i64).range(0..))]
    recording_id: Option<i64>,

    /// Its title [default: the file name without its ending]
    #[arg(long, env = "EMBEDDING_RECOVERY_TITLE", value_name = "TEXT")]
    title: Option<String>,

    /// When it took place: 2024-05-01 or 2024-05-01T10:00:00Z [default: when the file was written,
    /// for a recording that is new]
    #[arg(long, env = "EMBEDDING_RECOVERY_DATE", value_name = "DATE", value_parser = parse_date)]
    date: Option<DateTime<Utc>>,
}

fn parse_date(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let day =
        || text.parse::<NaiveDate>().map(|day| day.and_time(chrono::NaiveTime::MIN).and_utc());
    time.or_else(|_| day()).map_err(|_| "neither YYYY-MM-DD nor an RFC 3339 time".into())
}

#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    dry_run: bool,
    new: u64,
    changed: u64,
    unchanged: u64,
    warnings: u64,
    refused: u64,
    job_id: Option<Uuid>,
    /// Of a dry run: what is new or changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recordings: Vec<Planned>,
}

/// A recording that an import would write.
#[derive(Debug, serde::Serialize)]
struct Planned {
    recording_id: i64,
    change: &'static str,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let found = import::find(&args.files);
    let one_only = args.caption.recording_id.is_some() || args.caption.title.is_some();
    if one_only && found.len() > 1 {
        let many = "--recording-id and --title are of one recording, and there are several files";
        return Err(ConfigError::new(many).into());
    }
    let database = Database::open(database).await?;
    let mut run = Run {
        args,
        import: database.store.import(!args.no_enqueue),
        versions: Versions::default(),
        summary: Summary { dry_run: args.dry_run, ..Summary::default() },
        progress: Progress::over(&found)?,
    };
    let imported = run.files(found).await;
    let Run { summary, progress, .. } = run;
    progress.end();
    database.close().await?;
    imported?;
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print(&summary);
    }
    Ok(if summary.refused == 0 { ExitCode::SUCCESS } else { EXIT_FAILED.into() })
}

fn print(summary: &Summary) {
    let Summary { new, changed, unchanged, warnings, refused, .. } = summary;
    println!(
        "{new} new, {changed} changed, {unchanged} unchanged, {refused} refused, {warnings} warnings"
    );
    if summary.dry_run {
        println!("a dry run: nothing was written");
    }
    if let Some(job) = summary.job_id {
        println!("job {job}: {} tasks", new + changed);
    }
}

/// One run of the command.
struct Run<'a> {
    args: &'a Args,
    import: Import,
    versions: Versions,
    summary: Summary,
    progress: Progress,
}

impl Run<'_> {
    async fn files(&mut self, found: Vec<Found>) -> anyhow::Result<()> {
        for found in found {
            match found {
                Found::Nothing { path, reason } => self.unreadable(&path, &reason),
                Found::StandardInput => {
                    let origin = Origin { name: "standard input".into(), ..Origin::default() };
                    self.file(io::stdin(), origin).await?;
                }
                Found::File { path, .. } => match File::open(&path) {
                    Ok(file) => self.file(file, Origin::of_path(&path)).await?,
                    Err(error) => self.unreadable(&path, &error),
                },
            }
        }
        self.summary.job_id = self.import.job_id();
        Ok(())
    }

    async fn file(
        &mut self,
        file: impl Read + Send + 'static,
        origin: Origin,
    ) -> anyhow::Result<()> {
        let name = origin.name.clone();
        let CaptionArgs { recording_id, ref title, date } = self.args.caption;
        let origin = Origin { recording_id, title: title.clone(), created_at: date, ..origin };
        let file = self.progress.reading(file);
        let recordings = match Recordings::read(file, origin, &self.args.user) {
            Ok(recordings) => recordings,
            Err(error) => {
                self.unreadable(Path::new(&name), &error);
                return Ok(());
            }
        };
        for read in recordings {
            match read {
                Ok(read) => self.recording(&name, read).await?,
                Err(refused) => self.refuse(&refused.place.of(&name), &refused.reason),
            }
        }
        Ok(())
    }

    async fn recording(&mut self, name: &str, read: ReadRecording) -> anyhow::Result<()> {
        let ReadRecording { place, recording, warnings } = read;
        let at = place.of(name);
        for warning in warnings {
            self.summary.warnings += 1;
            self.progress.say(&format!("{at}: warning: {warning}"));
        }
        let version = match self.versions.compare(name, place, &recording) {
            Ok(version) => version,
            Err(reason) => {
                self.refuse(&at, &reason);
                return Ok(());
            }
        };
        let change = match version {
            Version::Same => Ok(ImportChange::Unchanged),
            Version::First if self.args.dry_run => self.import.compare(&recording).await,
            Version::First => self.import.store(&recording).await,
        };
        let change = change.with_context(|| format!("{at}: {}", recording.key))?;
        match change {
            ImportChange::New => self.summary.new += 1,
            ImportChange::Changed => self.summary.changed += 1,
            ImportChange::Unchanged => self.summary.unchanged += 1,
        }
        if self.args.dry_run {
            self.plan(&at, &recording, change);
        }
        self.progress.recording();
        Ok(())
    }

    fn plan(&mut self, at: &str, recording: &ImportedRecording, change: ImportChange) {
        let change = match change {
            ImportChange::New => "new",
            ImportChange::Changed => "changed",
            ImportChange::Unchanged => return,
        };
        let recording_id = recording.key.recording_id;
        if self.args.json {
            self.summary.recordings.push(Planned { recording_id, change });
            return;
        }
        // Quoted, so that nothing in a title reaches the terminal as a command.
        let title = recording.title.as_deref().map(|title| format!(" {title:?}"));
        self.progress.print(&format!(
            "{change}: recording {recording_id}{}, {} segments ({at})",
            title.unwrap_or_default(),
            recording.segments.len()
        ));
    }

    /// A file of which nothing can be read.
    fn unreadable(&mut self, path: &Path, reason: &dyn std::fmt::Display) {
        self.summary.refused += 1;
        self.progress.say(&format!("cannot read {}: {reason}", path.display()));
    }

    fn refuse(&mut self, at: &str, reason: &str) {
        self.summary.refused += 1;
        self.progress.say(&format!("{at}: {reason}"));
    }
}
