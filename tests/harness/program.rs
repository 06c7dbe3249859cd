//! The program as its user runs it: a child process with an environment of its own.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::process::{Child, Command};

use super::{TestDatabase, within_deadline};

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The program with nothing of this process's environment but the paths that it needs.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embedding-recovery"));
    command
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in ["PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    if args.first() == Some(&"serve") {
        // Many run at once.
        for name in ["EMBEDDING_RECOVERY_LISTEN", "EMBEDDING_RECOVERY_PROBE_LISTEN"] {
            command.env(name, "127.0.0.1:0");
        }
    }
    command.kill_on_drop(true);
    command
}

/// Runs it to its end.
pub async fn run(command: &mut Command) -> Ended {
    within_deadline("the program ends", command.output()).await.unwrap().into()
}

/// Waits for the end of a child and takes what it printed.
pub async fn end_of(child: Child) -> Ended {
    within_deadline("the program ends", child.wait_with_output()).await.unwrap().into()
}

/// Sends a signal by name (`TERM`, `KILL`).
pub async fn signal(child: &Child, name: &str) {
    let id = child.id().unwrap().to_string();
    let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await.unwrap();
    assert!(status.success(), "kill -{name} {id}");
}

impl TestDatabase {
    /// The program over this database.
    pub fn program(&self, args: &[&str]) -> Command {
        let mut command = program(args);
        command.env("DATABASE_URL", &self.url);
        command
    }
}

/// Writes lines into a file in `directory`.
pub fn file(directory: &Path, name: &str, lines: &[u8]) -> String {
    let path = directory.join(name);
    std::fs::write(&path, lines).unwrap();
    path.to_string_lossy().into_owned()
}
