//! How fast is the program, and how far from what the database itself can do? The same rows are written
//! by the barest means, by the program, and by the algorithm that it takes the place of, on one server,
//! in turns. Exits 1 where a target is missed. `tests/bench/README.md` says how to run it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]

mod api;
mod cases;
mod child;
mod old;
mod report;
mod rows;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use chrono::Utc;
use embedding_recovery::domain::recording::RecordingKey;
use embedding_recovery::import::Recordings;
use embedding_recovery::ports::{ImportedRecording, ImportedSegment};

use api::Api;
use cases::{Bench, Case, LONG_CALLS, Program, TINY_CALLS, Work};
use report::Runs;
use rows::{Means, Row, Table};
use server::Server;

/// Length of the vectors: that of OpenAI's small model.
const DIMENSIONS: usize = 1_536;

/// How much is measured.
struct Size {
    calls: Calls,
    /// Users who have these calls, where there is no vector index.
    users: usize,
    tiny_recordings: usize,
    long_recording_chunks: usize,
    repetitions: usize,
}

/// What is embedded in most cases.
enum Calls {
    /// So many of the shared recordings; all where there are fewer.
    Shared(usize),
    /// So many, of so many chunks each: they are there wherever the benchmark is.
    MadeUp(usize, usize),
}

const FULL: Size = Size {
    calls: Calls::Shared(1_000),
    users: 4,
    tiny_recordings: 5_000,
    long_recording_chunks: 5_000,
    repetitions: 3,
};
/// For a look at whether it still runs, in a minute.
const SMOKE: Size = Size {
    calls: Calls::MadeUp(3, 50),
    users: 2,
    tiny_recordings: 100,
    long_recording_chunks: 100,
    repetitions: 1,
};

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // For each of these processes; it fails only where one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match arguments.first().map(String::as_str) {
        Some(api::COMMAND) => api::serve().map(|()| ExitCode::SUCCESS),
        Some(old::COMMAND) => old::run(&arguments[1..]).map(|()| ExitCode::SUCCESS),
        _ => measure(&arguments),
    }
}

fn measure(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let smoke = has("--smoke");
    let only = arguments.iter().find_map(|argument| argument.strip_prefix("--only="));
    let size = if smoke { SMOKE } else { FULL };
    let Some(calls) = calls(&size)? else {
        println!("skipped: the shared recordings are not here");
        return Ok(ExitCode::SUCCESS);
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let (about, all) = runtime.block_on(run(&calls, &size, only))?;
    let targets = report::targets(&all, smoke);
    match has("--json") {
        true => println!("{}", report::as_json(&about, &all, &targets)),
        false => report::print(&about, &all, &targets),
    }
    let missed = targets.iter().any(|target| target.judged && !target.is_met());
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The calls of most cases; `None` where they are not here.
fn calls(size: &Size) -> anyhow::Result<Option<Vec<ImportedRecording>>> {
    let recordings_max = match size.calls {
        Calls::Shared(recordings_max) => recordings_max,
        Calls::MadeUp(recordings, chunks) => {
            let made_up = (0..recordings).map(|recording_id| made_up(recording_id as i64, chunks));
            return Ok(Some(made_up.collect()));
        }
    };
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings/recordings.jsonl.gz");
    if !path.exists() {
        return Ok(None);
    }
    let read = Recordings::open(&path, "user0")?.take(recordings_max);
    let recordings = read.map(|read| match read {
        Ok(read) => Ok(read.recording),
        Err(refused) => Err(anyhow::anyhow!("{refused}")),
    });
    Ok(Some(recordings.collect::<anyhow::Result<_>>()?))
}

/// All cases, or those whose name has `only`, in turns.
async fn run(
    calls: &[ImportedRecording],
    size: &Size,
    only: Option<&str>,
) -> anyhow::Result<(String, Vec<Runs>)> {
    let folder =
        std::env::temp_dir().join(format!("embedding-recovery-bench-{}", std::process::id()));
    let errors = folder.with_extension("log");
    let server = Server::start(folder).await?;
    let measured = run_on(&server, calls, size, only, errors.clone()).await;
    server.stop().await?;
    let _ = std::fs::remove_file(errors);
    measured
}

async fn run_on(
    server: &Server,
    calls: &[ImportedRecording],
    size: &Size,
    only: Option<&str>,
    errors: PathBuf,
) -> anyhow::Result<(String, Vec<Runs>)> {
    let bench = prepare(server, calls, size, errors).await?;
    let chosen = |case: &Case| only.is_none_or(|only| case.name().contains(only));
    let mut all: Vec<Runs> =
        cases().into_iter().filter(chosen).map(|case| Runs { case, runs: Vec::new() }).collect();
    for repetition in 0..size.repetitions {
        for runs in &mut all {
            let started = Instant::now();
            let measured = bench.run(runs.case).await?;
            eprintln!(
                "{}: {}: {:.0} {} a second ({:.1} s with all around it)",
                repetition + 1,
                runs.case.name(),
                measured.rate(),
                runs.case.unit(),
                started.elapsed().as_secs_f64()
            );
            runs.runs.push(measured);
        }
    }
    let processors = std::thread::available_parallelism()?;
    let about = format!(
        "{}, default settings and pg_stat_statements, {processors} processors shared by all; {} chunks of \
         {DIMENSIONS} dimensions, {} with a vector index; the middle of {} runs",
        bench.server.describe().await?,
        bench.plain.rows.len(),
        bench.indexed.rows.len(),
        size.repetitions
    );
    Ok((about, all))
}

fn cases() -> Vec<Case> {
    let raw =
        |means, table, connections, live_index| Case::Raw { means, table, connections, live_index };
    let mut cases = Vec::new();
    for (means, table, live_index) in [
        (Means::Copy, Table::Bare, false),
        (Means::Unnest, Table::Bare, false),
        (Means::Unnest, Table::OwnWithoutWords, false),
        (Means::Copy, Table::Own, false),
        (Means::Unnest, Table::Own, false),
        (Means::Unnest, Table::Own, true),
    ] {
        cases.extend([1, 2].map(|connections| raw(means, table, connections, live_index)));
    }
    let no_index = |api_millis, traced| Case::Program(Program::NoIndex { api_millis, traced });
    cases.extend([
        no_index(0, false),
        no_index(0, true),
        Case::Old { api_millis: 0 },
        no_index(50, false),
        Case::Old { api_millis: 50 },
        Case::Program(Program::LiveIndex),
        Case::Program(Program::Backlog),
        Case::Program(Program::LocalModel),
        Case::Program(Program::Tiny),
        Case::Program(Program::Long),
    ]);
    cases
}

/// Fills the databases that are copied.
async fn prepare<'a>(
    server: &'a Server,
    calls: &[ImportedRecording],
    size: &Size,
    errors: PathBuf,
) -> anyhow::Result<Bench<'a>> {
    for (name, count, chunks) in
        [(TINY_CALLS, size.tiny_recordings, 0), (LONG_CALLS, 10, size.long_recording_chunks)]
    {
        let calls: Vec<_> = (0..count).map(|id| made_up(id as i64, chunks)).collect();
        queue(server, name, &calls, 1).await?;
    }
    let work = |calls, sets| Work { calls, sets, rows: Vec::new() };
    let (plain, indexed) = (work("calls", "sets"), work("indexed_calls", "indexed_sets"));
    let mut bench = Bench { server, api: Api::start()?, plain, indexed, errors };
    queue(server, bench.plain.calls, calls, size.users).await?;
    queue(server, bench.indexed.calls, calls, 1).await?;
    bench.plain.rows = rows_of(&bench, &bench.plain).await?;
    bench.indexed.rows = rows_of(&bench, &bench.indexed).await?;
    Ok(bench)
}

/// Makes a database in which so many users have these calls, all of them queued.
async fn queue(
    server: &Server,
    name: &str,
    calls: &[ImportedRecording],
    users: usize,
) -> anyhow::Result<()> {
    let database = server.database(name, None).await?;
    for user in 0..users {
        for call in calls {
            let mut call = call.clone();
            call.key.user_id = format!("user{user}");
            database.store.import(true).store(&call).await.context("import")?;
        }
    }
    server.finish(database).await
}

/// Runs the program once over all calls, which tells what there is to write, and leaves the sets.
async fn rows_of(bench: &Bench<'_>, work: &Work) -> anyhow::Result<Vec<Row>> {
    let database = bench.server.database(work.sets, Some(work.calls)).await?;
    bench.program(Program::NoIndex { api_millis: 0, traced: false }, &database).await?;
    let rows = rows::read(&database, None).await?;
    ensure!(!rows.is_empty(), "the program stored nothing");
    database.execute("truncate transcript_chunks").await?;
    database.execute(rows::CREATE_BARE).await?;
    bench.server.finish(database).await?;
    Ok(rows)
}

/// A call of so many turns of a chunk each, or of one sentence.
fn made_up(recording_id: i64, chunks: usize) -> ImportedRecording {
    let turn = |index: usize, words: usize| ImportedSegment {
        speaker_name: Some(if index.is_multiple_of(2) { "Ann".into() } else { "Bob".into() }),
        speaker_email: None,
        text: (0..words).map(|word| format!("word{word}of{index} ")).collect(),
        timestamp: Some(format!("{:02}:{:02}:00", index / 60, index % 60)),
    };
    // Some 1,800 bytes are a chunk.
    let segments = match chunks {
        0 => vec![turn(0, 8)],
        chunks => (0..chunks).map(|index| turn(index, 140)).collect(),
    };
    ImportedRecording {
        key: RecordingKey { user_id: "user0".into(), recording_id },
        title: Some(format!("Call {recording_id}")),
        created_at: Some(Utc::now()),
        created_at_presumed: None,
        segments,
    }
}
