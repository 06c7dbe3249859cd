//! `explain`: why a recording is where it is, and the command that would move it.

use std::process::ExitCode;

use anyhow::bail;

use crate::cli::plain::on_one_line;
use crate::cli::target::Target;
use crate::config::{DatabaseArgs, ServiceArgs, TraceArgs};
use crate::domain::recording::RecordingKey;
use crate::domain::span::{from_secs, told};
use crate::ports::inspector::{AttemptRecord, Explanation, Inspector};

/// Say why a recording is where it is: its state, attempts, chunks and cost, and what would move it.
///
/// Exit codes: 0; 1 nobody or more than one user holds it, or it failed; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery explain 21792013
  embedding-recovery explain 21792013 --user ann --json | jq .attempts")]
pub(super) struct Args {
    /// Number of the recording
    #[arg(value_name = "ID")]
    recording_id: i64,

    /// Its owner; needed where several users hold it
    #[arg(long, env = "EMBEDDING_RECOVERY_USER", value_name = "ID")]
    user: Option<String>,

    #[command(flatten)]
    traces: TraceArgs,

    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,

    #[command(flatten)]
    service: ServiceArgs,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let target = Target::open(database, &args.service).await?;
    let explained = explain(target.inspector(), args).await;
    target.close().await?;
    let explanation = explained?;
    match args.json {
        true => println!("{}", serde_json::to_string(&explanation)?),
        false => print(&explanation, &args.traces),
    }
    Ok(ExitCode::SUCCESS)
}

async fn explain(inspector: &dyn Inspector, args: &Args) -> anyhow::Result<Explanation> {
    let key = the_one(inspector, args.recording_id, args.user.as_deref()).await?;
    match inspector.explain(&key).await? {
        Some(explanation) => Ok(explanation),
        None => bail!("{key} was deleted just now"),
    }
}

/// The recording of this number; which, where several users hold one, must be said.
pub(super) async fn the_one(
    inspector: &dyn Inspector,
    recording_id: i64,
    user: Option<&str>,
) -> anyhow::Result<RecordingKey> {
    let mut found = inspector.find(recording_id, user).await?;
    match (found.len(), found.pop(), user) {
        (1, Some(key), _) => Ok(key),
        (_, None, None) => bail!(
            "no recording {recording_id} is stored; `embedding-recovery import FILE` stores recordings"
        ),
        (_, None, Some(user)) => bail!(
            "user {user} has no recording {recording_id}; `embedding-recovery import FILE --user {user}` stores one"
        ),
        (_, Some(last), _) => {
            let users: Vec<String> =
                found.into_iter().chain([last]).map(|key| key.user_id).collect();
            bail!(
                "recording {recording_id} is held by {}: say whose is meant with --user",
                users.join(", ")
            )
        }
    }
}

fn print(told_of: &Explanation, traces: &TraceArgs) {
    let Explanation { user_id, recording_id, title, .. } = told_of;
    let title = on_one_line(title.as_deref().unwrap_or("untitled"));
    println!("recording {recording_id} of user {}: {title}", on_one_line(user_id));
    println!("state      {}", told_of.state.as_deref().unwrap_or("not queued"));
    println!("waits for  {}", told_of.waits_for);
    if let Some(way_out) = &told_of.way_out {
        println!("way out    {way_out}");
    }
    if let Some(error) = &told_of.last_error {
        println!("last error {}", on_one_line(error));
    }
    if let (Some(worker), Some(ends_at)) = (told_of.worker_id, told_of.lease_ends_at) {
        println!("held by    worker {worker} until {}", ends_at.format("%F %T UTC"));
    }
    if let Some(at) = told_of.next_attempt_at {
        println!("tried next {}", at.format("%F %T UTC"));
    }
    println!("chunks     {}", chunks(told_of));
    println!(
        "segments   {}; {} without text are skipped",
        told_of.segment_count, told_of.segments_skipped
    );
    println!(
        "paid       {} tokens by attempts that completed; {} chunks were there already and not paid for again",
        told_of.tokens, told_of.chunks_reused
    );
    for attempt in &told_of.attempts {
        println!("{}", line(attempt, traces));
    }
}

fn chunks(told_of: &Explanation) -> String {
    let searchable = format!("{} searchable", told_of.chunks_searchable);
    match told_of.chunks {
        0 => searchable,
        chunks => format!(
            "{} of {chunks} stored of the set being built; {searchable}",
            told_of.chunks_stored
        ),
    }
}

fn line(attempt: &AttemptRecord, traces: &TraceArgs) -> String {
    let took =
        attempt.took_secs.map_or("runs".into(), |secs| format!("took {}", told(from_secs(secs))));
    let mut line = format!(
        "attempt {}  {}  {}  {took}  {}",
        attempt.number,
        attempt.part.as_str(),
        attempt.started_at.format("%F %T"),
        attempt.outcome.as_deref().unwrap_or("not ended"),
    );
    if let Some(message) = &attempt.message {
        line += &format!("  {}", on_one_line(message));
    }
    if let Some(id) = &attempt.trace_id {
        line += "  ";
        line += &traces.url(id).unwrap_or_else(|| format!("trace {id}"));
    }
    line
}
