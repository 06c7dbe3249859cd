//! A child process that is measured: how long it ran, the processor's time that it took, and the most
//! memory that it had. Linux tells the latter two; elsewhere they stay unknown.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::bail;

/// Between two looks at the child.
const LOOK_PERIOD: Duration = Duration::from_millis(5);
/// Unit of the times in `/proc/…/stat` (`man 5 proc`: `sysconf(_SC_CLK_TCK)`, 100 on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// What a child took.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// From its start to its end.
    pub wall: Duration,
    /// Of the processor, in user and kernel mode.
    pub cpu: Option<Duration>,
    /// Peak of its resident memory, in MB of 1,024 KB.
    pub peak_mb: Option<f64>,
}

/// The program on a database: nothing of this environment reaches it, and it listens on free ports.
pub fn program(database_url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embedding-recovery"));
    command.env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for name in ["EMBEDDING_RECOVERY_LISTEN", "EMBEDDING_RECOVERY_PROBE_LISTEN"] {
        command.env(name, "127.0.0.1:0");
    }
    command.env("DATABASE_URL", database_url);
    command
}

/// Runs a child to its end. No other child may end meanwhile.
///
/// # Errors
/// It cannot be started, or does not end with code 0.
pub fn run(command: &mut Command, errors: &std::path::Path) -> anyhow::Result<Taken> {
    let cpu_before = cpu_of_ended_children();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(errors)?);
    let started = Instant::now();
    let mut child = command.spawn()?;
    let mut peak_mb = None;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None => peak_mb = peak_memory_mb(child.id()).or(peak_mb),
        }
        std::thread::sleep(LOOK_PERIOD);
    };
    let wall = started.elapsed();
    if !status.success() {
        let said = std::fs::read_to_string(errors)?;
        let last: Vec<&str> = said.lines().rev().take(10).collect();
        bail!("{command:?} ended with {status}:\n{}", last.join("\n"));
    }
    let cpu = cpu_before.zip(cpu_of_ended_children()).map(|(before, after)| after - before);
    Ok(Taken { wall, cpu, peak_mb })
}

/// Of all children that were waited for: fields 16 and 17 of `stat` (`man 5 proc`).
fn cpu_of_ended_children() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in brackets, which may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some(Duration::from_secs_f64((ticks(16)? + ticks(17)?) / TICKS_PER_SECOND))
}

/// The kernel's own high-water mark.
fn peak_memory_mb(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
