//! `recover`: brings dead letters back now.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use uuid::Uuid;

use super::plain::on_one_line;
use super::target::Target;
use super::{EXIT_FAILED, requested_by};
use crate::app;
use crate::config::{DatabaseArgs, EmbedderArgs, ServiceArgs, WorkArgs};
use crate::ports::inspector::{
    ActionState, DeadLetterGroup, DeadLetterQuery, DeadLetters, Inspector,
};
use crate::ports::operator::{Operator, RecoverMany, RecoverRecording, Recovering, RecoveringMany};

/// Recover dead letters now, without waiting for their schedule.
///
/// What is stored of them is kept and not paid for again. Where a service runs on the database, it does
/// the work; where none does, this command does it and ends with it. With --admin-url the service there
/// does it. Exit codes: 0 asked for, or, where
/// it was waited for, completed; 1 refused or failed; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery recover 21792013 --wait
  embedding-recovery recover --all --dry-run
  embedding-recovery recover 21792013 --wait --admin-url http://localhost:8080
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
    service: ServiceArgs,

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
    let target = Target::open(args, &recover.service).await?;
    let code = match recover.dry_run {
        true => dry_run(target.inspector(), recover).await,
        false => ask(&target, recover).await,
    };
    target.close().await?;
    code
}

async fn dry_run(inspector: &dyn Inspector, args: &Args) -> anyhow::Result<ExitCode> {
    let Which { recording, matching, .. } = &args.which;
    let query = DeadLetterQuery {
        fingerprint: matching.clone(),
        user_id: args.user.clone(),
        recording_id: *recording,
        // Of the dead letters themselves nothing is shown.
        limit: 1,
        offset: 0,
    };
    let DeadLetters { total, groups, .. } = inspector.dead_letters(&query).await?;
    if args.json {
        println!("{}", serde_json::json!({ "groups": groups }));
        return Ok(ExitCode::SUCCESS);
    }
    groups.iter().for_each(print_group);
    println!("{total} dead letters; nothing was changed");
    Ok(ExitCode::SUCCESS)
}

fn print_group(group: &DeadLetterGroup) {
    let DeadLetterGroup { fingerprint, count, chunks, chunks_stored, .. } = group;
    println!("{count} of {}", on_one_line(fingerprint));
    let ids: Vec<String> = group.recording_ids.iter().map(ToString::to_string).collect();
    let more = if *count > ids.len() as u64 { ", …" } else { "" };
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

async fn ask(target: &Target, args: &Args) -> anyhow::Result<ExitCode> {
    // Where no service is alive, the command does the work itself.
    let own = match target {
        Target::Database(database) if !target.is_served().await? => Some(database),
        _ => None,
    };
    if let Some(database) = own {
        // Wrong settings are told before anything is asked for.
        args.embedder.choose(database.is_own())?;
    }
    let (action_id, requested) = request(target.operator(), args).await?;
    if requested == 0 || own.is_none() && !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let bar = bar()?;
    let mut show = |state: &ActionState| {
        bar.set_length(state.recordings);
        bar.set_position(state.ended);
        bar.set_message(format!("{} completed", state.completed));
    };
    let state = match own {
        None => app::wait_for_action(target.inspector(), action_id, &mut show).await,
        Some(database) => {
            app::recover(database, &args.embedder, &args.work, action_id, &mut show).await
        }
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
async fn request(operator: &dyn Operator, args: &Args) -> anyhow::Result<(Uuid, u64)> {
    let (force, requested_by) = (args.force, requested_by());
    if let Some(recording_id) = args.which.recording {
        let user_id = args.user.clone();
        let request = RecoverRecording { recording_id, user_id, force, requested_by };
        let recovering = operator.recover(request).await?;
        print(args, &recovering, |Recovering { found, done, .. }| {
            format!("recording {recording_id}: {found}\n{done}")
        })?;
        return Ok((recovering.action_id, 1));
    }
    let fingerprint = args.which.matching.clone();
    let request = RecoverMany { fingerprint, force, requested_by };
    let recovering = operator.recover_many(request).await?;
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
