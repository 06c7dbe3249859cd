//! `completions`: what a shell needs to complete commands and flags.

use std::process::ExitCode;

use clap_complete::Shell;

/// Print what completes commands and flags in a shell.
///
/// Exit codes: 0; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery completions bash > /usr/share/bash-completion/completions/embedding-recovery
  embedding-recovery completions zsh > ~/.zfunc/_embedding-recovery
  embedding-recovery completions fish > ~/.config/fish/completions/embedding-recovery.fish")]
pub(super) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut command = super::command();
    let name = command.get_name().to_owned();
    // Rendered first: the library panics where it cannot write, as when a pipe closes.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    super::print_bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}
