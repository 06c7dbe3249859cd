//! `search`: a question, and the passages that answer it.

mod excerpt;
mod page;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};

use self::page::Look;
use super::EXIT_FAILED;
use crate::app::{self, Database, Found};
use crate::config::{ConfigError, DatabaseArgs, EmbedderArgs};
use crate::postgres::{Hit, QUERY_BYTES_MAX, SearchMode, SearchRequest};

/// Find what was said, by meaning and by words.
///
/// Exit codes: 0 found; 1 nothing found, or it cannot search; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery search oxygen tank pressure problem
  embedding-recovery search --speaker ann --since 7d \"who calls the customer back?\"
  embedding-recovery search budget --user alice --limit 20 --json | jq '.hits[].title'")]
pub(super) struct Args {
    /// What to look for: a question, or a few words
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,

    /// Only this user's recordings
    #[arg(long, env = "EMBEDDING_RECOVERY_USER", value_name = "ID")]
    user: Option<String>,

    /// Only this recording
    #[arg(long, env = "EMBEDDING_RECOVERY_RECORDING", value_name = "ID")]
    recording: Option<i64>,

    /// Only calls since a date (2024-05-31, or with a time as in RFC 3339), or a time ago (7d, 12h)
    #[arg(long, env = "EMBEDDING_RECOVERY_SINCE", value_name = "WHEN", value_parser = parse_since)]
    since: Option<DateTime<Utc>>,

    /// Only passages in which somebody speaks whose name has this part
    #[arg(long, env = "EMBEDDING_RECOVERY_SPEAKER", value_name = "NAME")]
    speaker: Option<String>,

    /// Passages at most
    #[arg(long, env = "EMBEDDING_RECOVERY_LIMIT", value_name = "HITS", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,

    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,

    #[command(flatten)]
    embedder: EmbedderArgs,
}

fn parse_since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    if let Ok(time) = text.parse::<DateTime<Utc>>() {
        return Ok(time);
    }
    let ago: Option<Duration> = humantime::parse_duration(text).ok();
    ago.and_then(|ago| Utc::now().checked_sub_signed(chrono::TimeDelta::from_std(ago).ok()?))
        .ok_or_else(|| "expected a date such as 2024-05-31, or a time ago such as 7d".into())
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let request = request(args)?;
    let database = Database::open(database).await?;
    let found = app::search(&database, &args.embedder, &request).await;
    database.close().await?;
    let found = found?;
    if let Some(failure) = &found.words_only {
        eprintln!(
            "warning: only words are searched, since the query cannot be embedded: {failure}"
        );
    }
    if found.exact_scan {
        eprintln!(
            "warning: there is no index of the vectors now, so each of them was looked at: nothing is \
             missing, but it takes longer"
        );
    }
    if args.json {
        show(&(serde_json::to_string(&Answer::from(&found))? + "\n"))?;
    } else if found.hits.is_empty() {
        eprintln!("nothing found");
    } else {
        print(&found.hits)?;
    }
    Ok(if found.hits.is_empty() { EXIT_FAILED.into() } else { ExitCode::SUCCESS })
}

/// What `--json` prints.
#[derive(Debug, serde::Serialize)]
struct Answer<'a> {
    /// Why only words were searched.
    words_only: Option<String>,
    /// There is no index of the vectors now.
    exact_scan: bool,
    hits: &'a [Hit],
}

impl<'a> From<&'a Found> for Answer<'a> {
    fn from(found: &'a Found) -> Self {
        Self {
            words_only: found.words_only.as_ref().map(ToString::to_string),
            exact_scan: found.exact_scan,
            hits: &found.hits,
        }
    }
}

fn request(args: &Args) -> Result<SearchRequest, ConfigError> {
    let text = args.query.join(" ");
    if text.trim().is_empty() {
        return Err(ConfigError::new("the query is empty"));
    }
    if text.len() > QUERY_BYTES_MAX {
        let length = text.len();
        let message = format!("the query has {length} bytes; at most {QUERY_BYTES_MAX} are taken");
        return Err(ConfigError::new(message));
    }
    Ok(SearchRequest {
        text,
        embedding: None,
        user_id: args.user.clone(),
        recording_id: args.recording,
        since: args.since,
        speaker: args.speaker.clone(),
        limit: args.limit,
        mode: SearchMode::Hybrid,
    })
}

/// Prints hits for people, as the terminal is: its width, and colours where it has them and
/// `NO_COLOR` is not set.
///
/// # Errors
/// Standard output cannot be written to.
pub(super) fn print(hits: &[Hit]) -> anyhow::Result<()> {
    let terminal = console::Term::stdout();
    let width = terminal.size_checked().map_or(WIDTH_UNKNOWN, |(_, columns)| columns.into());
    show(&Look { width, colored: console::colors_enabled() }.page(hits))
}

/// Columns where standard output is no terminal.
const WIDTH_UNKNOWN: usize = 80;

fn show(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        // A reader who has seen enough, such as `head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
