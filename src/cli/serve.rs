//! `serve`: the long-running service.

use std::process::ExitCode;
use std::sync::Arc;

use super::EXIT_FAILED;
use crate::app::{self, AdminServer, Database, Ended, ServiceVitals, StopSignal};
use crate::config::{
    AdminArgs, DatabaseArgs, EmbedderArgs, HealthArgs, ObservabilityArgs, WorkArgs,
};
use crate::ports::TaskCounts;
use crate::telemetry::metrics::metrics;

/// Run the service: embed what is queued, and everything that comes.
///
/// Exit codes: 0 stopped as asked, or everything is done; 1 there are dead letters at the end
/// (with --exit-when-idle), or it cannot start or go on; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery serve
  OPENAI_API_KEY_FILE=/run/secrets/openai embedding-recovery serve --database-url postgres://db/calls
  EMBEDDING_MODEL=local embedding-recovery serve --exit-when-idle")]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
}

/// The settings of the service, which `config` and `doctor` tell.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// End when every task is completed or dead, after waiting out retries, recoveries that are asked for and others' leases
    #[arg(long, env = "EMBEDDING_RECOVERY_EXIT_WHEN_IDLE")]
    exit_when_idle: bool,

    #[command(flatten)]
    pub(super) embedder: EmbedderArgs,

    #[command(flatten)]
    work: WorkArgs,

    #[command(flatten)]
    admin: AdminArgs,

    #[command(flatten)]
    health: HealthArgs,

    #[command(flatten)]
    observability: ObservabilityArgs,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    // Wrong settings are told before a server is started for them.
    let Settings { exit_when_idle, embedder, work, admin, health, observability } = &args.settings;
    if let Some(price) = observability.price_per_million_tokens {
        metrics().tokens_cost(price);
    }
    embedder.choose(database.url().is_none())?;
    let tokens = admin.tokens()?;
    let mut stop = StopSignal::listen()?;
    let vitals = Arc::new(ServiceVitals::starting());
    // Until the first look: the alert must not be silent while the service waits for its database.
    metrics().database(None);
    let probes = AdminServer::probes(admin, vitals.clone()).await;
    let opening = Database::open_for_service(database, !exit_when_idle, &vitals, &mut stop);
    let Some(database) = opening.await? else {
        println!("stopped: it waited for its database");
        return Ok(ExitCode::SUCCESS);
    };
    let store = Arc::new(database.store.clone());
    let server =
        AdminServer::start(admin, &tokens, health.thresholds(), store.clone(), store).await;
    let ended = app::serve(&database, embedder, work, *exit_when_idle, &vitals, &mut stop).await;
    server.stop().await;
    database.close().await?;
    // Asked until the end.
    probes.stop().await;
    Ok(match ended? {
        Ended::Idle(counts) => {
            println!("done: {}", summary(&counts));
            if counts.dead_letter == 0 { ExitCode::SUCCESS } else { EXIT_FAILED.into() }
        }
        Ended::Stopped(counts) => {
            println!("stopped: {}", known(counts));
            ExitCode::SUCCESS
        }
        Ended::CannotGoOn(reason, counts) => {
            println!("cannot go on: {reason}; {}", known(counts));
            EXIT_FAILED.into()
        }
    })
}

pub(super) fn known(counts: Option<TaskCounts>) -> String {
    counts.map_or_else(|| "the database is away".into(), |counts| summary(&counts))
}

fn summary(counts: &TaskCounts) -> String {
    format!(
        "{} completed, {} dead letters, {} open",
        counts.completed,
        counts.dead_letter,
        counts.open()
    )
}
