//! `recover`: brings dead letters back now.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use uuid::Uuid;

use super::{EXIT_FAILED, requested_by};
use crate::app::{self, Database};
use crate::config::{DatabaseArgs, EmbedderArgs, WorkArgs};
use crate::ports::operator::{Operator, RecoverMany, RecoverRecording, Recovering, RecoveringMany};
use crate::postgres::{ActionState, DeadLetterGroup, PgStore};

/// Recover dead letters now, without waiting for their schedule.
///
/// What is stored of them is kept and not paid for again. Where a service runs on the database, it does
/// the work; where none does, this command does it and ends with it. Exit codes: 0 asked for, or, where
/// it was waited for, completed; 1 refused or failed; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery recover 21792013 --wait
  embedding-recovery recover --all --dry-run
  embedding-recovery recover --matching 'statement_timeout: a statement ran into statement_timeout'")]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,

    /// Whose recording is meant, where several users hold one of this number
    #[arg(long, env = "EMBEDDING_RECOVERY_USER", value_name = "ID", requires = "recording")]
    user: Option<String>,

    /// Although it was tried within the hour; one recording in any state but under a live lease
    #[arg(long, env = "EMBEDDING_RECOVERY_FORCE")]
    force: bool,

    /// Wait until everything that was asked for is done
    #[arg(long, env = "EMBEDDING_RECOVERY_WAIT")]
    wait: bool,

    /// List what would be recovered, by fingerprint, and change nothing
    #[arg(long, env = "EMBEDDING_RECOVERY_DRY_RUN")]
    dry_run: bool,

    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,

    #[command(flatten)]
    embedder: EmbedderArgs,

    #[command(flatten)]
    work: WorkArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// This recording
    #[arg(value_name = "ID")]
    recording: Option<i64>,

    /// Every dead letter
    #[arg(long, env = "EMBEDDING_RECOVERY_ALL")]
    all: bool,

    /// Dead letters of this fingerprint, as --dry-run prints it
    #[arg(long, env = "EMBEDDING_RECOVERY_MATCHING", value_name = "FINGERPRINT")]
    matching: Option<String>,
}

pub(super) async fn run(args: &DatabaseArgs, recover: &Args) -> anyhow::Result<ExitCode> {
    let database = Database::open(args).await?;
    let code = match recover.dry_run {
        true => dry_run(&database.store, recover).await,
        false => ask(&database, recover).await,
    };
    database.close().await?;
    code
}

async fn dry_run(store: &PgStore, args: &Args) -> anyhow::Result<ExitCode> {
    let Which { recording, matching, .. } = &args.which;
    let found =
        store.dead_letter_groups(matching.as_deref(), args.user.as_deref(), *recording).await?;
    if args.json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "groups": found }))?);
        return Ok(ExitCode::SUCCESS);
    }
    for group in &found {
        print_group(group);
    }
    let recordings: u64 = found.iter().map(|group| group.recordings).sum();
    println!("{recordings} dead letters; nothing was changed");
    Ok(ExitCode::SUCCESS)
}

fn print_group(group: &DeadLetterGroup) {
    let DeadLetterGroup { fingerprint, recordings, chunks, chunks_stored, .. } = group;
    println!("{recordings} of {fingerprint}");
    let ids: Vec<String> = group.recording_ids.iter().map(ToString::to_string).collect();
    let more = if *recordings > ids.len() as u64 { ", …" } else { "" };
    println!("  recordings {}{more}", ids.join(", "));
    println!("  {chunks} chunks, {chunks_stored} stored already");
    if group.tried_recently > 0 {
        println!("  {} tried within the hour: only with --force", group.tried_recently);
    }
    match group.next_attempt_at {
        Some(at) => println!("  next by itself at {}", at.format("%Y-%m-%d %H:%M UTC")),
        None => println!("  never by itself: these wait for a person"),
    }
}

async fn ask(database: &Database, args: &Args) -> anyhow::Result<ExitCode> {
    let store = &database.store;
    let served = store.is_served().await?;
    if !served {
        // Wrong settings are told before anything is asked for.
        args.embedder.choose(database.is_own())?;
    }
    let (action_id, requested) = request(store, args).await?;
    if requested == 0 || served && !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let bar = bar()?;
    let mut show = |state: &ActionState| {
        bar.set_length(state.recordings);
        bar.set_position(state.ended);
        bar.set_message(format!("{} completed", state.completed));
    };
    let state = match served {
        true => app::wait_for_action(store, action_id, &mut show).await,
        false => app::recover(database, &args.embedder, &args.work, action_id, &mut show).await,
    };
    bar.finish_and_clear();
    let Some(state) = state? else {
        println!("stopped before it was done: whichever service runs next goes on");
        return Ok(EXIT_FAILED.into());
    };
    if args.json {
        println!("{}", serde_json::to_string(&state)?);
    } else {
        println!("done: {}", state.outcome.as_deref().unwrap_or_default());
    }
    let well = state.completed == state.recordings;
    Ok(if well { ExitCode::SUCCESS } else { EXIT_FAILED.into() })
}

/// Asks, says what was found and done, and returns the action and for how many recordings it is.
async fn request(store: &PgStore, args: &Args) -> anyhow::Result<(Uuid, u64)> {
    let (force, requested_by) = (args.force, requested_by());
    if let Some(recording_id) = args.which.recording {
        let user_id = args.user.clone();
        let request = RecoverRecording { recording_id, user_id, force, requested_by, trace: None };
        let recovering = store.recover(request).await?;
        print(args, &recovering, |Recovering { found, done, .. }| {
            format!("recording {recording_id}: {found}\n{done}")
        })?;
        return Ok((recovering.action_id, 1));
    }
    let fingerprint = args.which.matching.clone();
    let request = RecoverMany { fingerprint, force, requested_by, trace: None };
    let recovering = store.recover_many(request).await?;
    print(args, &recovering, |RecoveringMany { requested, left_alone, .. }| {
        let left = match left_alone {
            0 => String::new(),
            some => format!("; {some} were tried within the hour and left alone (--force)"),
        };
        format!("{requested} dead letters are recovered in small steps{left}")
    })?;
    Ok((recovering.action_id, recovering.requested))
}

/// With --json and something to wait for, the last line is the only object.
fn print<T: serde::Serialize>(
    args: &Args,
    answer: &T,
    text: impl Fn(&T) -> String,
) -> anyhow::Result<()> {
    match (args.json, args.wait) {
        (true, true) => {}
        (true, false) => println!("{}", serde_json::to_string(answer)?),
        (false, _) => println!("{}", text(answer)),
    }
    Ok(())
}

/// Hidden where standard error is no terminal.
fn bar() -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} recordings  {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}
