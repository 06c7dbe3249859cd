//! `monitor`: the state of everything, once or again and again, and whether all is well.

mod sections;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::target::Target;
use crate::app::told;
use crate::config::{ConfigError, DatabaseArgs, HealthArgs, ServiceArgs};
use crate::domain::failure::Failure;
use crate::domain::health::{Health, HealthState, Thresholds, judge};
use crate::ports::inspector::{DeadLetterQuery, DeadLetters, Inspector, Job, Overview};

/// Dead letters that are told one by one; their groups cover the others.
const DEAD_LETTERS: u32 = 5;
/// Jobs that are told: the newest.
const JOBS: u32 = 5;

/// A look that takes longer is given up: what it would show is old by then.
const LOOK_TIME: Duration = Duration::from_secs(10);

/// Look at the queue, what happened lately, who works, and whether all is well.
///
/// With --watch and --json it prints one object a line. Exit codes: 0 healthy; 1 there is a warning; 2
/// something is critical, or what is asked does not answer; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery monitor
  embedding-recovery monitor --watch
  embedding-recovery monitor --admin-url http://localhost:8080
  embedding-recovery monitor --json | jq .health")]
pub(super) struct Args {
    /// Look again every two seconds, in place on a terminal, until Ctrl-C
    #[arg(long, env = "EMBEDDING_RECOVERY_WATCH")]
    watch: bool,

    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,

    #[command(flatten)]
    health: HealthArgs,

    #[command(flatten)]
    service: ServiceArgs,
}

/// One look at everything. `tasks` come first in its JSON.
#[derive(Debug, Serialize)]
struct Look {
    #[serde(flatten)]
    overview: Overview,
    health: Health,
    dead_letters: DeadLetters,
    jobs: Vec<Job>,
}

impl Look {
    async fn take(inspector: &dyn Inspector, thresholds: &Thresholds) -> Result<Self, Failure> {
        let look = Self::looked(inspector, thresholds);
        tokio::time::timeout(LOOK_TIME, look).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} s", LOOK_TIME.as_secs());
            Err(Failure::DatabaseUnavailable { message })
        })
    }

    async fn looked(inspector: &dyn Inspector, thresholds: &Thresholds) -> Result<Self, Failure> {
        let overview = inspector.overview().await?;
        let query = DeadLetterQuery { limit: DEAD_LETTERS, ..DeadLetterQuery::default() };
        let dead_letters = inspector.dead_letters(&query).await?;
        let jobs = inspector.jobs(JOBS).await?;
        let health = judge(&overview.health_facts(), thresholds);
        Ok(Self { overview, health, dead_letters, jobs })
    }

    fn printed(&self, json: bool) -> Result<String, serde_json::Error> {
        match json {
            true => Ok(format!("{}\n", serde_json::to_string(self)?)),
            false => Ok(sections::page(self)),
        }
    }
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let target = match Target::open(database, &args.service).await {
        Ok(target) => target,
        Err(error) if error.is::<ConfigError>() => return Err(error),
        Err(error) => return Ok(cannot_look(&error)),
    };
    let thresholds = args.health.thresholds();
    let ended = match args.watch {
        true => watch::watch(target.inspector(), &thresholds, args.json).await,
        false => once(target.inspector(), &thresholds, args.json).await,
    };
    target.close().await?;
    Ok(ended.unwrap_or_else(|error| cannot_look(&error)))
}

async fn once(
    inspector: &dyn Inspector,
    thresholds: &Thresholds,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let look = Look::take(inspector, thresholds).await?;
    print(&look.printed(json)?);
    Ok(exit_code(look.health.state))
}

fn exit_code(state: HealthState) -> ExitCode {
    match state {
        HealthState::Healthy => ExitCode::SUCCESS,
        HealthState::Warning => ExitCode::from(1),
        HealthState::Critical => ExitCode::from(2),
    }
}

/// Where nothing can be seen, something is wrong: never less than critical.
fn cannot_look(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", told(error));
    exit_code(HealthState::Critical)
}

/// Colours go only to a terminal, and not where NO_COLOR is set: the stream sees to it. That nobody
/// reads on is no error.
fn print(page: &str) {
    use std::io::Write;
    let _ = anstream::stdout().lock().write_all(page.as_bytes());
}
