//! `migrate`: safe to run from any number of places at once.

use std::process::ExitCode;

use crate::app::Database;
use crate::config::DatabaseArgs;

/// Create the schema or bring it up to date.
///
/// Tables of the same names that exist already are adopted where their columns fit; where they do
/// not, each difference is named and nothing is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery migrate --database-url postgres://localhost/calls")]
pub(super) struct Args {
    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let database = Database::connect(database).await?;
    let migrated = database.store.migrate().await;
    database.close().await?;
    let applied = migrated?;
    match (args.json, applied) {
        (true, _) => println!("{}", serde_json::json!({ "applied": applied })),
        (false, 0) => println!("the schema is up to date"),
        (false, _) => println!("applied {applied} migrations; the schema is up to date"),
    }
    Ok(ExitCode::SUCCESS)
}
