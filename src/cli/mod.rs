//! The command line: one file a command, each a thin shell over the parts.

mod backlog;
mod completions;
mod config;
mod demo;
mod discard;
mod doctor;
mod enqueue;
mod explain;
mod import;
mod jobs;
mod man;
mod migrate;
mod monitor;
mod pause;
mod plain;
mod probe;
mod recover;
mod reembed;
mod remote;
mod run;
mod runs;
mod search;
mod serve;
mod settings;
mod target;
mod verify;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::app::told;
use crate::config::{ConfigError, DatabaseArgs};
use crate::ports::operator::Part;
use crate::telemetry::{self, LogFormat, TelemetryError};
use settings::Parsed;

/// Wrong use (sysexits.h: EX_USAGE).
const EXIT_USAGE: u8 = 64;
/// The command failed, or found what it reports on not to be well.
const EXIT_FAILED: u8 = 1;

/// The program's version, and the commit that it was built from.
const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("EMBEDDING_RECOVERY_COMMIT"), ")");

/// Keeps the embeddings of call recordings complete.
#[derive(Debug, Parser)]
#[command(
    name = "embedding-recovery",
    version = VERSION,
    about,
    after_help = "Examples:
  embedding-recovery demo                      watch it work on sample calls
  embedding-recovery import calls.jsonl.gz     store calls and queue them
  embedding-recovery serve --exit-when-idle    embed everything, then end
  embedding-recovery search who was late       find what was said
  embedding-recovery verify                    check what is stored"
)]
struct Cli {
    #[command(flatten)]
    database: DatabaseArgs,

    /// How log lines look
    #[arg(long, env = "EMBEDDING_RECOVERY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Pretty, global = true,
          help_heading = "Logs")]
    log_format: LogFormat,

    /// Log lines to keep: a level, or target=level, separated by commas
    /// [default: `warn,embedding_recovery=info`; `demo`: `error`; `backlog`, `reembed` and `recover` on a terminal: `warn`]
    #[arg(long, env = "EMBEDDING_RECOVERY_LOG", value_name = "FILTER",
          value_parser = telemetry::parse_filter, global = true, help_heading = "Logs")]
    log: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch it work on sample calls, in a database of its own
    Demo(demo::Args),
    /// Create the schema or bring it up to date
    Migrate(migrate::Args),
    /// Store calls from files and queue them
    Import(import::Args),
    /// Queue recordings
    Enqueue(enqueue::Args),
    /// Run the service
    Serve(Box<serve::Args>),
    /// Load a large backlog: everything queued first, the vector index after it
    Backlog(backlog::Args),
    /// Change the model without downtime
    Reembed(Box<reembed::Args>),
    /// Find what was said
    Search(Box<search::Args>),
    /// Look at the queue and at whether all is well
    Monitor(monitor::Args),
    /// Say why a recording is where it is
    Explain(explain::Args),
    /// List jobs with their progress
    Jobs(jobs::Args),
    /// List runs and what came of them
    Runs(runs::Args),
    /// Bring dead letters back now
    Recover(Box<recover::Args>),
    /// Start a run of a part now
    Run(run::Args),
    /// Begin nothing more, in any process
    Pause(pause::PauseArgs),
    /// Let what was paused go on
    Resume(pause::ResumeArgs),
    /// Remove a dead letter for good
    Discard(discard::Args),
    /// Check what is stored against what must hold
    Verify(verify::Args),
    /// Ask the service on this machine whether it is well
    Probe(probe::Args),
    /// Look at everything that the service needs, and say what to do
    Doctor(Box<doctor::Args>),
    /// Tell the settings: where each value comes from, or the reference of all
    Config(Box<config::Args>),
    /// Print what completes commands and flags in a shell
    Completions(completions::Args),
    /// Print or write the manual pages
    Man(man::Args),
}

/// The whole command line, for those who read it rather than parse with it.
fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    let parsed = settings::parse(command()).and_then(|parsed| {
        let cli = Cli::from_arg_matches(&parsed.matches)?;
        Ok((cli, parsed))
    });
    let (cli, parsed) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    // For every TLS client of the process; it fails only where one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli, &parsed) {
        Ok(code) => code,
        Err(error) if error.is::<ConfigError>() || error.is::<TelemetryError>() => {
            eprintln!("error: {}", told(&error));
            EXIT_USAGE.into()
        }
        Err(error) => {
            eprintln!("error: {}", told(&error));
            EXIT_FAILED.into()
        }
    }
}

fn run(cli: Cli, parsed: &Parsed) -> anyhow::Result<ExitCode> {
    let default_log = match &cli.command {
        Command::Demo(_) => demo::DEFAULT_LOG,
        // Its bar tells how it goes; lines of every recording would tear it.
        Command::Backlog(_) | Command::Reembed(_) | Command::Recover(_)
            if std::io::stderr().is_terminal() =>
        {
            reembed::TERMINAL_LOG
        }
        _ => telemetry::DEFAULT_FILTER,
    };
    let log = cli.log.as_deref();
    let _telemetry = telemetry::start(cli.log_format, log.unwrap_or(default_log))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(&cli.database, &args, log.is_some()).await,
            Command::Migrate(args) => migrate::run(&cli.database, &args).await,
            Command::Import(args) => import::run(&cli.database, &args).await,
            Command::Enqueue(args) => enqueue::run(&cli.database, &args).await,
            Command::Serve(args) => serve::run(&cli.database, &args).await,
            Command::Backlog(args) => backlog::run(&cli.database, &args).await,
            Command::Reembed(args) => reembed::run(&cli.database, &args).await,
            Command::Search(args) => search::run(&cli.database, &args).await,
            Command::Monitor(args) => monitor::run(&cli.database, &args).await,
            Command::Explain(args) => explain::run(&cli.database, &args).await,
            Command::Jobs(args) => jobs::run(&cli.database, &args).await,
            Command::Runs(args) => runs::run(&cli.database, &args).await,
            Command::Recover(args) => recover::run(&cli.database, &args).await,
            Command::Run(args) => run::run(&cli.database, &args).await,
            Command::Pause(args) => pause::pause(&cli.database, &args).await,
            Command::Resume(args) => pause::resume(&cli.database, &args).await,
            Command::Discard(args) => discard::run(&cli.database, &args).await,
            Command::Verify(args) => verify::run(&cli.database, &args).await,
            Command::Probe(args) => probe::run(&args).await,
            Command::Doctor(args) => doctor::run(&cli.database, &args, parsed).await,
            Command::Config(args) => config::run(&cli.database, &args, parsed),
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
        }
    })
}

/// A part of the work, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PartArg {
    /// Claims of what is queued, and the search for what is missing
    Main,
    /// Runs over dead letters
    Recovery,
}

impl From<PartArg> for Part {
    fn from(part: PartArg) -> Self {
        match part {
            PartArg::Main => Part::Main,
            PartArg::Recovery => Part::Recovery,
        }
    }
}

/// Who asks, as it is kept with an action.
fn requested_by() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".into());
    format!("{user} at a command line")
}

/// Prints to standard output, and is content where nobody reads on.
fn print_bytes(bytes: &[u8]) -> std::io::Result<()> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
