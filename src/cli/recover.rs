//! `recover`: brings dead letters back now.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use uuid::Uuid;

use super::explain::the_one;
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
/// does it. Exit codes: 0 asked for, or, where it was waited for, completed; 1 refused or failed; 64
/// wrong use.
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
    if let Some(recording_id) = recording {
        // One that is not there is no list of none.
        the_one(inspector, *recording_id, args.user.as_deref()).await?;
    }
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
    let asked = request(target.operator(), args).await?;
    let waits = asked.recordings > 0 && (args.wait || own.is_some());
    asked.print(args.json, waits);
    if !waits {
        return Ok(ExitCode::SUCCESS);
    }
    let action_id = asked.action_id;
    let bar = bar()?;
    let mut show = |state: &ActionState| {
        bar.set_length(state.recordings);
        bar.set_position(state.ended);
        bar.set_message(format!("{} completed", state.completed));
    };
    let (embedder, work) = (&args.embedder, &args.work);
    let state = match (own, target) {
        (Some(database), _) => app::recover(database, embedder, work, action_id, &mut show).await,
        (None, Target::Database(database)) => {
            app::wait_or_recover(database, embedder, work, action_id, &mut show).await
        }
        (None, Target::Service(service)) => {
            app::wait_for_action(service, action_id, &mut show).await
        }
    };
    bar.finish_and_clear();
    let Some(state) = state? else {
        eprintln!("stopped before it was done: whichever service runs next goes on");
        if args.json {
            println!("{}", asked.json);
        }
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

/// What was asked for, and what is said of it.
struct Asked {
    action_id: Uuid,
    recordings: u64,
    json: String,
    text: String,
    /// The command that follows it, where there is one.
    follow: Option<String>,
}

impl Asked {
    /// With --json and something to wait for, the last line is the only object.
    fn print(&self, json: bool, waits: bool) {
        match json {
            true if waits => {}
            true => println!("{}", self.json),
            false => println!("{}", self.text),
        }
        if let Some(follow) = self.follow.as_ref().filter(|_| !json && !waits) {
            println!("follow it with `{follow}`");
        }
    }
}

async fn request(operator: &dyn Operator, args: &Args) -> anyhow::Result<Asked> {
    let (force, requested_by) = (args.force, requested_by());
    if let Some(recording_id) = args.which.recording {
        let user_id = args.user.clone();
        let request = RecoverRecording { recording_id, user_id, force, requested_by, trace: None };
        let recovering = operator.recover(request).await?;
        let json = serde_json::to_string(&recovering)?;
        let Recovering { action_id, found, done, follow, .. } = recovering;
        let text = format!("recording {recording_id}: {}\n{done}", on_one_line(&found));
        return Ok(Asked { action_id, recordings: 1, json, text, follow: Some(follow) });
    }
    let fingerprint = args.which.matching.clone();
    let request = RecoverMany { fingerprint, force, requested_by, trace: None };
    let recovering = operator.recover_many(request).await?;
    let json = serde_json::to_string(&recovering)?;
    let RecoveringMany { action_id, requested, left_alone } = recovering;
    let left = match left_alone {
        0 => String::new(),
        some => format!("; {some} were tried within the hour and left alone (--force)"),
    };
    let text = format!("{requested} dead letters are recovered in small steps{left}");
    Ok(Asked { action_id, recordings: requested, json, text, follow: None })
}

/// Hidden where standard error is no terminal.
fn bar() -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} recordings  {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}
