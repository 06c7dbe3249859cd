//! Parse, start telemetry, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    embedding_recovery::cli::main()
}
