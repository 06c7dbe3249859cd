//! `man`: the manual pages, for packagers and for those who read them.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap_mangen::Man;

/// Print the manual page of the program, or write one page a command into a directory.
///
/// Exit codes: 0; 1 a page cannot be written; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery man | man -l -
  embedding-recovery man --out /usr/share/man/man1")]
pub(super) struct Args {
    /// Write every page into this directory: embedding-recovery.1, embedding-recovery-serve.1, …
    #[arg(long, env = "EMBEDDING_RECOVERY_OUT", value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(directory) = &args.out else {
        let mut page = Vec::new();
        Man::new(super::command()).render(&mut page)?;
        super::print_bytes(&page)?;
        return Ok(ExitCode::SUCCESS);
    };
    let failed = || format!("cannot write manual pages into {}", directory.display());
    fs::create_dir_all(directory).with_context(failed)?;
    clap_mangen::generate_to(super::command().disable_help_subcommand(true), directory)
        .with_context(failed)?;
    Ok(ExitCode::SUCCESS)
}
