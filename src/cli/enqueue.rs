//! `enqueue`: makes a job.

use std::process::ExitCode;

use anyhow::bail;

use crate::app::Database;
use crate::config::DatabaseArgs;
use crate::domain::recording::RecordingKey;
use crate::postgres::{JobRequest, JobSummary, PgStore, Selection};

/// Queue recordings as one job.
///
/// A recording with an open task joins it. A dead letter comes back only where it is named by
/// --recording.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery enqueue --missing
  embedding-recovery enqueue --recording 21792013 --recording 21792014 --priority 10")]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,

    /// Steps to move ahead in the queue; each equals an hour of waiting
    #[arg(long, env = "EMBEDDING_RECOVERY_PRIORITY", default_value_t = 0, value_name = "HOURS", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-1_000_000..=1_000_000))]
    priority: i32,

    /// Only this user's recordings [default: every user's]
    #[arg(long, env = "EMBEDDING_RECOVERY_USER", value_name = "ID")]
    user: Option<String>,

    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// This recording; may be given several times
    #[arg(long, env = "EMBEDDING_RECOVERY_RECORDING", value_name = "ID", value_delimiter = ',')]
    recording: Vec<i64>,

    /// Recordings with a transcript and no embeddings
    #[arg(long, env = "EMBEDDING_RECOVERY_MISSING")]
    missing: bool,

    /// Every recording with a transcript
    #[arg(long, env = "EMBEDDING_RECOVERY_ALL")]
    all: bool,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let database = Database::open(database).await?;
    let enqueued = enqueue(&database.store, args).await;
    database.close().await?;
    let summary = enqueued?;
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!("job {}: {} tasks", summary.job_id, summary.tasks);
    }
    Ok(ExitCode::SUCCESS)
}

async fn enqueue(store: &PgStore, args: &Args) -> anyhow::Result<JobSummary> {
    let selection = if args.which.missing {
        Selection::Missing
    } else if args.which.all {
        Selection::All
    } else {
        Selection::Recordings(resolve(store, args).await?)
    };
    let request = JobRequest { selection, user_id: args.user.clone(), priority: args.priority };
    Ok(store.enqueue(&request).await?)
}

/// The recordings of the given numbers; a number that two users hold needs the user.
async fn resolve(store: &PgStore, args: &Args) -> anyhow::Result<Vec<RecordingKey>> {
    let mut keys = Vec::new();
    for id in &args.which.recording {
        let mut found = store.find_recordings(*id, args.user.as_deref()).await?;
        match (found.pop(), found.is_empty()) {
            (Some(key), true) => keys.push(key),
            (Some(last), false) => {
                let users: Vec<String> =
                    found.into_iter().chain([last]).map(|key| key.user_id).collect();
                bail!(
                    "recording {id} belongs to several users ({}): say which with --user",
                    users.join(", ")
                )
            }
            (None, _) => match &args.user {
                Some(user) => bail!("user {user} has no recording {id}; nothing was enqueued"),
                None => bail!("there is no recording {id}; nothing was enqueued"),
            },
        }
    }
    Ok(keys)
}
