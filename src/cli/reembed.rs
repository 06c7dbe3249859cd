//! `reembed`: changes the model without downtime.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::EXIT_FAILED;
use crate::app::{self, Database, Embedding, Reembedded, Step};
use crate::config::{DatabaseArgs, EmbedderArgs, ProviderArgs, WorkArgs};
use crate::ports::Model;
use crate::postgres::{Estimate, Progress};

/// Log lines to keep where a bar is drawn.
pub(super) const TERMINAL_LOG: &str = "warn";

/// Change the model without downtime: embed every recording with the new one beside the old, then
/// let search change over in one moment.
///
/// Without --yes it says what it would cost and changes nothing. Stopped or killed, the same command
/// goes on where it was; run twice, the two share the work. Running services go over to the new
/// model by themselves. Exit codes: 0 search is on the new model, the cost was told, or it was
/// cancelled; 1 refused, stopped, cancelled elsewhere, or held up by dead letters; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery reembed --model text-embedding-3-large
  embedding-recovery reembed --model text-embedding-3-large --dimensions 1024 --yes
  embedding-recovery reembed --cancel")]
pub(super) struct Args {
    /// The new model; `local` is the built-in one
    #[arg(long, value_name = "NAME", required_unless_present = "cancel",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    model: Option<String>,

    /// Length of its vectors; asked of the API where given, learnt from it where not
    #[arg(long, value_name = "NUMBERS", value_parser = clap::value_parser!(u32).range(1..=16_000))]
    dimensions: Option<u32>,

    /// Begin, or go on
    #[arg(long)]
    yes: bool,

    /// Let search lose the recordings that the new model failed on
    #[arg(long)]
    leave_dead: bool,

    /// Give the re-embedding that is under way up, and remove what there is of it
    #[arg(long, conflicts_with_all = ["model", "dimensions", "yes", "leave_dead"])]
    cancel: bool,

    #[command(flatten)]
    provider: ProviderArgs,

    #[command(flatten)]
    work: WorkArgs,
}

pub(super) async fn run(database: &DatabaseArgs, args: &Args) -> anyhow::Result<ExitCode> {
    let embedder = args
        .model
        .as_ref()
        .map(|model| EmbedderArgs::of_model(args.provider.clone(), model.clone(), args.dimensions));
    if let Some(embedder) = &embedder {
        // Wrong settings are told before a server is started for them.
        embedder.choose(database.url().is_none())?;
    }
    let database = Database::open(database).await?;
    let ended = match &embedder {
        Some(embedder) => reembed(&database, embedder, args).await,
        None => cancel(&database).await,
    };
    database.close().await?;
    ended
}

async fn cancel(database: &Database) -> anyhow::Result<ExitCode> {
    match app::cancel_reembedding(database).await? {
        Some(cancelled) => {
            let name = cancelled.provider_name;
            println!("cancelled: search stays as it is, and what there was of {name} is removed");
            Ok(ExitCode::SUCCESS)
        }
        None => bail!("no re-embedding is under way: nothing to cancel"),
    }
}

async fn reembed(
    database: &Database,
    embedder: &EmbedderArgs,
    args: &Args,
) -> anyhow::Result<ExitCode> {
    if database.store.stored_model().await?.is_none() {
        bail!("nothing was embedded yet: `serve` begins with the model that you set");
    }
    // A model that the provider does not know shows here, before anything is written.
    let embedding = Embedding::choose(embedder, database.is_own(), None).await?;
    let to = embedding.model.clone();
    let estimate = database.store.estimate_reembedding(&to).await?;
    print_estimate(&estimate, &to);
    if !args.yes {
        println!(
            "nothing was changed; add --yes to {}",
            if estimate.running { "go on" } else { "begin" }
        );
        return Ok(ExitCode::SUCCESS);
    }
    let bar = bar()?;
    let ended = app::reembed(database, embedding, &args.work, args.leave_dead, &mut |step| {
        show(&bar, step);
    })
    .await;
    bar.finish_and_clear();
    Ok(report(&ended?, &to))
}

fn print_estimate(estimate: &Estimate, to: &Model) {
    let Estimate { from, recordings, recordings_to_do, chunks, tokens, .. } = estimate;
    println!("from {} ({} dimensions)", from.provider_name, from.model.dimensions);
    println!("to {} ({} dimensions)", to.name, to.dimensions);
    println!(
        "{} of {} recordings to embed: about {} chunks, {} tokens",
        HumanCount(*recordings_to_do),
        HumanCount(*recordings),
        HumanCount(*chunks),
        HumanCount(*tokens)
    );
}

/// Hidden where standard error is no terminal.
fn bar() -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} recordings  {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

fn show(bar: &ProgressBar, step: Step) {
    match step {
        Step::Embedding(progress) => {
            bar.set_length(progress.recordings);
            bar.set_position(progress.done);
            bar.set_message(so_far(&progress));
        }
        Step::Indexing => bar.set_message("building the index"),
        Step::CleaningUp => bar.set_message("removing the old chunks"),
    }
}

fn so_far(progress: &Progress) -> String {
    format!(
        "{} chunks, {} tokens bought, {} dead letters",
        HumanCount(progress.chunks),
        HumanCount(progress.tokens),
        progress.dead_letters
    )
}

fn report(ended: &Reembedded, to: &Model) -> ExitCode {
    match ended {
        Reembedded::Swapped { progress, open, cleaned_up } => {
            let so_far = progress.as_ref().map(so_far).unwrap_or_default();
            println!("done: search is on {} now; {so_far}", to.name);
            if *open > 0 {
                println!("{open} recordings are still queued: `serve` embeds them");
            }
            if !cleaned_up {
                println!("the old chunks are not removed yet: `serve` goes on with that");
            }
            return ExitCode::SUCCESS;
        }
        Reembedded::Stopped(progress) => {
            if let Some(progress) = progress {
                let Progress { done, recordings, .. } = progress;
                println!("stopped: {done} of {recordings} recordings have {}", to.name);
            }
            println!("the same command goes on; `embedding-recovery reembed --cancel` gives it up");
        }
        Reembedded::Cancelled => println!("cancelled elsewhere: search stays as it is"),
        Reembedded::DeadLetters(letters, progress) => {
            println!(
                "held up: {} failed on {} of the recordings that search has",
                to.name, progress.missing_dead
            );
            for letter in letters {
                println!("  {}: {}", letter.key, letter.reason);
            }
            println!(
                "mend the cause and bring them back with `embedding-recovery enqueue --recording ID`, \
                 then run the same command again; or add --leave-dead, and search loses them"
            );
        }
        Reembedded::CannotGoOn(reason) => {
            println!("cannot go on: {reason}; once that is mended, the same command goes on");
        }
    }
    EXIT_FAILED.into()
}
