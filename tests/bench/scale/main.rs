//! What happens when there is much of everything: a queue of ten million tasks, several processes on one
//! database, and a load of 100,000 chunks. Exits 1 where a target is missed. `tests/bench/README.md` says
//! how to run it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]

#[path = "../throughput/api.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod api;
#[path = "../throughput/child.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod child;
mod load;
mod queue;
mod replicas;
mod report;
#[path = "../throughput/rows.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod rows;
#[path = "../throughput/server.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use embedding_recovery::ports::Model;

use api::Api;
use server::Server;

/// Length of the vectors: that of OpenAI's small model.
const DIMENSIONS: usize = 1_536;

/// How much is measured.
struct Size {
    /// Of the queue.
    tasks: u64,
    /// Claims that are measured at once.
    claims: u64,
    /// Tasks that are completed while a snapshot is held, where the queue has as many.
    completions: u64,
    /// Recordings of one sentence that the processes share.
    tiny_recordings: u32,
    /// Times that the shared recordings are loaded, for each load: one user for each.
    users: &'static [u32],
    /// Rows that are inserted behind a load.
    sample_rows: usize,
    /// Recordings of the shared file for each user.
    recordings: usize,
    smoke: bool,
}

/// The shared file has 6,640 chunks: three users have 20,000, and 15 have 100,000.
const FULL: Size = Size {
    tasks: 10_000_000,
    claims: 200,
    completions: 50_000,
    tiny_recordings: 600,
    users: &[3, 15],
    sample_rows: 2_000,
    recordings: 1_000,
    smoke: false,
};
/// For a look at whether it still runs. Nothing that takes time is judged.
const SMOKE: Size = Size {
    tasks: 100_000,
    claims: 20,
    completions: 100,
    tiny_recordings: 40,
    users: &[1, 2],
    sample_rows: 20,
    recordings: 3,
    smoke: true,
};

/// The model that everything is embedded with.
fn model() -> Model {
    Model { name: "text-embedding-3-small".into(), dimensions: DIMENSIONS as u32 }
}

/// What every case is run with.
struct Bench {
    server: Server,
    api: Api,
    /// Where children write their errors to.
    errors: PathBuf,
    size: Size,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // For each of these processes; it fails only where one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if arguments.first().map(String::as_str) == Some(api::COMMAND) {
        return api::serve().map(|()| ExitCode::SUCCESS);
    }
    let value = |flag: &str| arguments.iter().find_map(|argument| argument.strip_prefix(flag));
    let smoke = arguments.iter().any(|argument| argument == "--smoke");
    let mut size = if smoke { SMOKE } else { FULL };
    if let Some(tasks) = value("--tasks=") {
        size.tasks = tasks.parse()?;
    }
    let all_met = tokio::runtime::Runtime::new()?.block_on(run(size, value("--only=")))?;
    Ok(if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All cases, or the one of this name. False where a target is missed.
async fn run(size: Size, only: Option<&str>) -> anyhow::Result<bool> {
    let folder =
        std::env::temp_dir().join(format!("embedding-recovery-scale-{}", std::process::id()));
    let errors = folder.with_extension("log");
    let bench = Bench { server: Server::start(folder).await?, api: Api::start()?, errors, size };
    println!(
        "{}, default settings, {} processors shared by all",
        bench.server.describe().await?,
        std::thread::available_parallelism()?
    );
    let measured = cases(&bench, only).await;
    bench.server.stop().await?;
    let _ = std::fs::remove_file(bench.errors);
    measured
}

async fn cases(bench: &Bench, only: Option<&str>) -> anyhow::Result<bool> {
    let mut all_met = true;
    for case in ["queue", "replicas", "load"] {
        if only.is_some_and(|only| only != case) {
            continue;
        }
        let started = Instant::now();
        let findings = match case {
            "queue" => queue::measure(bench).await?,
            "replicas" => replicas::measure(bench).await?,
            _ => load::measure(bench).await?,
        };
        report::print(case, &findings, bench.size.smoke, started.elapsed());
        all_met &= !findings.iter().any(|finding| finding.is_missed(bench.size.smoke));
    }
    Ok(all_met)
}

/// The recordings that the loads are made of.
fn shared_recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings/recordings.jsonl.gz")
}
