//! `migrate`: safe to run from any number of places at once.

use std::process::ExitCode;
use std::time::Duration;

use crate::app::Database;
use crate::config::{ConfigError, DatabaseArgs};
use crate::postgres::SchemaError;

/// Between two looks at a schema that somebody else migrates.
const LOOK_EVERY: Duration = Duration::from_secs(2);

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
    let applied = match args.wait_only {
        true => wait(database).await?,
        false => migrate(database).await?,
    };
    match (args.json, applied) {
        (true, _) => println!("{}", serde_json::json!({ "applied": applied })),
        (false, 0) => println!("the schema is up to date"),
        (false, _) => println!("applied {applied} migrations; the schema is up to date"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn migrate(database: &DatabaseArgs) -> anyhow::Result<usize> {
    let database = Database::connect(database).await?;
    let migrated = database.store.migrate().await;
    database.close().await?;
    Ok(migrated?)
}

/// Waits for as long as it takes: what runs it says when it is too long. Nothing was applied then.
async fn wait(args: &DatabaseArgs) -> anyhow::Result<usize> {
    if args.url().is_none() {
        return Err(ConfigError::new(
            "--wait-only: nobody else migrates the program's own Postgres; give a database with \
             --database-url",
        )
        .into());
    }
    let mut told = String::new();
    while let Some(reason) = reason_to_wait(args).await? {
        if reason != told {
            tracing::info!("waiting: {reason}");
            told = reason;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(0)
}

/// `None` where the schema fits.
async fn reason_to_wait(args: &DatabaseArgs) -> anyhow::Result<Option<String>> {
    let database = match Database::connect(args).await {
        Ok(database) => database,
        Err(error) => return Ok(Some(format!("{error:#}"))),
    };
    let checked = database.store.check_schema().await;
    database.close().await?;
    match checked {
        Ok(()) => Ok(None),
        Err(error @ (SchemaError::Outdated { .. } | SchemaError::Database(_))) => {
            Ok(Some(error.to_string()))
        }
        // It will not come to fit by waiting.
        Err(error) => Err(error.into()),
    }
}
