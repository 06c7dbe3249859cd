//! `backlog load`: a large backlog in the least time, with the vector index built at the end.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::EXIT_FAILED;
use super::serve::known;
use crate::app::{self, BacklogLoaded, Database, Ended, LoadStep};
use crate::config::{ConfigError, DatabaseArgs, EmbedderArgs, WorkArgs};
use crate::domain::checkup::IndexState;
use crate::domain::index_build::IndexBuild;
use crate::postgres::BacklogEstimate;

/// Load a large backlog: everything queued first, the vector index after it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery backlog load
  embedding-recovery backlog load --yes --index-memory-mb 4096")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Drop the vector index, embed what is queued, build the index over all of it
    Load(Box<LoadArgs>),
}

/// Drop the vector index, embed and store everything that is queued, then build the index.
///
/// It says first what that does to search, and asks. Search finds everything meanwhile, but looks at
/// every chunk for it. Services may run beside: they help, and leave the index alone. Stopped or killed,
/// the same command goes on; where it does not, a service builds the index. Exit codes: 0 everything is
/// stored and the index is valid, or it was stopped as asked; 1 there are dead letters, it cannot start
/// or go on, or the answer was no; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery backlog load
  embedding-recovery backlog load --yes --index-memory-mb 4096")]
struct LoadArgs {
    /// Begin without asking
    #[arg(long, env = "EMBEDDING_RECOVERY_YES")]
    yes: bool,

    /// Memory of the server for the build of the index; with less than its graph takes, the build takes
    /// many times as long
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_INDEX_MEMORY_MB",
        value_name = "MEGABYTES",
        default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(1..=2_000_000)
    )]
    index_memory_mb: u32,

    /// Processes of the server that help to build the index
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_INDEX_WORKERS",
        value_name = "PROCESSES",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(0..=1_024)
    )]
    index_workers: u32,

    #[command(flatten)]
    embedder: EmbedderArgs,

    #[command(flatten)]
    work: WorkArgs,
}

pub(super) async fn run(args: &DatabaseArgs, backlog: &Args) -> anyhow::Result<ExitCode> {
    let Command::Load(load) = &backlog.command;
    // Wrong settings are told before a server is started for them.
    load.embedder.choose(args.url().is_none())?;
    if !load.yes && !std::io::stdin().is_terminal() {
        let message = "there is no terminal to ask on: add --yes (EMBEDDING_RECOVERY_YES)";
        return Err(ConfigError::new(message).into());
    }
    let database = Database::open(args).await?;
    let ended = ask_and_load(&database, load).await;
    database.close().await?;
    ended
}

async fn ask_and_load(database: &Database, args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let estimate = database.store.estimate_backlog().await?;
    let build = IndexBuild { memory_mb: args.index_memory_mb, workers: args.index_workers };
    print!("{}", outlook(&estimate, build));
    let mended = matches!(estimate.index, Some(IndexState::Valid | IndexState::Impossible));
    if estimate.recordings == 0 && mended {
        println!("there is nothing to load, and the index is as it should be: nothing was done");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !is_agreed()? {
        println!("nothing was done");
        return Ok(EXIT_FAILED.into());
    }
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let loaded = app::load_backlog(database, &args.embedder, &args.work, build, &mut |step| {
        show(&bar, step)
    })
    .await;
    bar.finish_and_clear();
    Ok(report(&loaded?))
}

/// What will be done, and what that does to search.
fn outlook(estimate: &BacklogEstimate, build: IndexBuild) -> String {
    let BacklogEstimate { model, recordings, chunks, chunks_stored, .. } = estimate;
    let all = chunks + chunks_stored;
    let mut text = format!(
        "to load: {} recordings, about {} chunks; {} chunks are stored already\n",
        HumanCount(*recordings),
        HumanCount(*chunks),
        HumanCount(*chunks_stored)
    );
    text += &format!(
        "the vector index is dropped, the recordings are stored, and the index is built over all {} \
         chunks at the end\n",
        HumanCount(all)
    );
    text += "search finds everything meanwhile, but looks at every chunk for it: the more there are, the \
             longer that takes\n";
    if chunks_stored > chunks {
        text += "more is stored than is to be loaded: `serve`, which keeps the index, may be done sooner\n";
    }
    let dimensions = model.as_ref().map_or(0, |stored| stored.model.dimensions);
    let needed_mb = IndexBuild::memory_needed_mb(all, dimensions);
    if needed_mb > build.memory_mb.into() {
        text += &format!(
            "the index's graph takes about {} MB: with --index-memory-mb {}, its build takes many times \
             as long\n",
            HumanCount(needed_mb),
            build.memory_mb
        );
    }
    text
}

fn is_agreed() -> std::io::Result<bool> {
    print!("go on? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn show(bar: &ProgressBar, step: LoadStep) {
    match step {
        LoadStep::Loading(counts) => {
            bar.set_length(counts.completed + counts.dead_letter + counts.open());
            bar.set_position(counts.completed + counts.dead_letter);
            bar.set_message("recordings");
        }
        LoadStep::Indexing => {
            tracing::info!("everything is stored; building the vector index");
            bar.set_message("building the index");
        }
        LoadStep::Building(progress) => {
            bar.set_length(progress.blocks);
            bar.set_position(progress.blocks_done);
            bar.set_message(format!("blocks: {}", progress.phase));
        }
    }
}

fn report(loaded: &BacklogLoaded) -> ExitCode {
    let (told, counts, ended_well) = match &loaded.ended {
        Ended::Idle(counts) => ("done".to_owned(), Some(*counts), counts.dead_letter == 0),
        Ended::Stopped(counts) => ("stopped".to_owned(), *counts, true),
        Ended::CannotGoOn(reason, counts) => (format!("cannot go on: {reason}"), *counts, false),
    };
    println!("{told}: {}", known(counts));
    match (&loaded.ended, loaded.indexed) {
        (_, true) => println!("the index is built and valid"),
        (Ended::Stopped(_), false) => println!(
            "the index is not built: search looks at every chunk until the same command goes on, or a \
             service builds it"
        ),
        (_, false) => println!("no index was built"),
    }
    if ended_well { ExitCode::SUCCESS } else { EXIT_FAILED.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outlook_warns_where_serve_is_quicker_and_where_memory_is_short() {
        let build = IndexBuild { memory_mb: 512, workers: 4 };
        let model = crate::postgres::StoredModel {
            model: crate::ports::Model { name: "m".into(), dimensions: 1_536 },
            provider_name: "m".into(),
            state: crate::postgres::ModelState::Current,
        };
        let small = BacklogEstimate {
            model: Some(model),
            index: None,
            recordings: 2,
            chunks: 1_000,
            chunks_stored: 10,
        };
        let told = outlook(&small, build);
        assert!(told.starts_with("to load: 2 recordings, about 1,000 chunks; 10 chunks"), "{told}");
        assert!(told.contains("search finds everything meanwhile"), "{told}");
        assert!(!told.contains("may be done sooner") && !told.contains("MB"), "{told}");
        let large = BacklogEstimate { chunks_stored: 1_000_000, ..small };
        let told = outlook(&large, build);
        assert!(told.contains("may be done sooner"), "{told}");
        assert!(told.contains("takes about 3,697 MB"), "{told}");
    }
}
