//! `migrate`: safe to run from any number of places at once.

use std::process::ExitCode;

use anyhow::Context;

use crate::app::{Database, StopSignal};
use crate::config::{ConfigError, DatabaseArgs};

/// Create the schema or bring it up to date.
///
/// Tables of the same names that exist already are adopted where their columns fit; where they do
/// not, each difference is named and nothing is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery migrate --database-url postgres://localhost/calls
  embedding-recovery migrate --wait-only    in an init container, beside a Job that migrates")]
pub(super) struct Args {
    /// Change nothing: wait until the database is there and somebody else has migrated it
    #[arg(long, env = "EMBEDDING_RECOVERY_WAIT_ONLY")]
    wait_only: bool,

    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    // As the first process of a container it would otherwise hear no signal.
    let mut stop = StopSignal::listen()?;
    let applied = match args.wait_only {
        true => wait(database, &mut stop).await?,
        false => migrate(database, &mut stop).await?,
    };
    let applied = applied.context("told to stop before the schema was up to date")?;
    match (args.json, applied) {
        (true, _) => println!("{}", serde_json::json!({ "applied": applied })),
        (false, 0) => println!("the schema is up to date"),
        (false, _) => println!("applied {applied} migrations; the schema is up to date"),
    }
    Ok(ExitCode::SUCCESS)
}

/// `None` where it was told to stop. What it had begun is rolled back with its connection.
async fn migrate(args: &DatabaseArgs, stop: &mut StopSignal) -> anyhow::Result<Option<usize>> {
    let migrating = async {
        let database = Database::connect(args).await?;
        let migrated = database.store.migrate().await;
        database.close().await?;
        anyhow::Ok(migrated?)
    };
    tokio::select! {
        applied = migrating => applied.map(Some),
        () = stop.told() => Ok(None),
    }
}

/// Waits for as long as it takes: what runs it says when it is too long. Nothing was applied then; `None`
/// where it was told to stop.
async fn wait(args: &DatabaseArgs, stop: &mut StopSignal) -> anyhow::Result<Option<usize>> {
    if args.url().is_none() {
        return Err(ConfigError::new(
            "--wait-only: nobody else migrates the program's own Postgres; give a database with \
             --database-url",
        )
        .into());
    }
    Ok(Database::wait_for_schema(args, stop).await?.then_some(0))
}
