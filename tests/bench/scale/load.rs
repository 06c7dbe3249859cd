//! A backlog load of 20,000 and of 100,000 chunks against the same rows inserted into a vector index that
//! is there from the beginning, by one connection and by two.
//!
//! 20,000 rows are inserted whole. 100,000 would take the better part of an hour, so there a sample is:
//! some rows behind each load, into an index that holds it already. Between the two loads a row is taken
//! to cost what lies between the two samples.

use std::time::Duration;

use anyhow::ensure;
use embedding_recovery::import::Recordings;
use pgvector::Vector;

use crate::report::{Bound, Finding};
use crate::rows::{self, Means, Row, Table};
use crate::server::Database;
use crate::{Bench, child, model, shared_recordings};

const CALLS: &str = "load_calls";
/// Connections, and how many times as quick as they a load is at least.
const CONNECTIONS: [(usize, f64); 2] = [(1, 2.5), (2, 1.3)];
/// Places of the sample's rows in their sets: behind all others.
const BEHIND: i32 = 1_000_000;
const DELETE_BEHIND: &str = "delete from transcript_chunks where chunk_index >= 1000000";

/// Live inserts of one number of connections.
struct Live {
    connections: usize,
    times_at_least: f64,
    /// Of all rows so far.
    secs: f64,
    /// Of the row after the last.
    secs_a_row: f64,
}

/// Measures loads, the smallest first.
pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Finding>> {
    if !shared_recordings().exists() {
        println!("skipped: {} is not here", shared_recordings().display());
        return Ok(Vec::new());
    }
    let (mut findings, mut lives, mut rows_before) = (Vec::new(), Vec::new(), 0);
    for users in bench.size.users {
        prepare(bench, *users).await?;
        let database = bench.server.database("load", Some(CALLS)).await?;
        let load = load(bench, &database).await?;
        let count = database.count("select count(*) from transcript_chunks").await? as usize;
        findings.push(Finding::told(
            format!("{count} chunks: backlog load"),
            count as f64 / load.as_secs_f64(),
            "chunks/s",
        ));
        let last = rows::read(&database, Some(bench.size.sample_rows)).await?;
        let sample = sample(&database, &last).await?;
        if lives.is_empty() {
            // The sample's rows are behind all sets.
            database.execute(DELETE_BEHIND).await?;
            lives = whole(&database, &rows::read(&database, None).await?).await?;
        } else {
            let grown = (count - rows_before) as f64;
            for (live, secs_a_row) in lives.iter_mut().zip(&sample) {
                live.secs += grown * (live.secs_a_row + secs_a_row) / 2.0;
            }
        }
        for (live, secs_a_row) in lives.iter_mut().zip(sample) {
            live.secs_a_row = secs_a_row;
            findings.extend(compared(live, count, load));
        }
        rows_before = count;
        bench.server.drop(database).await?;
        bench.server.drop_named(CALLS).await?;
    }
    Ok(findings)
}

/// The shared recordings, queued for so many users.
async fn prepare(bench: &Bench, users: u32) -> anyhow::Result<()> {
    let database = bench.server.database(CALLS, None).await?;
    let mut import = database.store.import(true);
    for user in 0..users {
        let recordings = Recordings::open(&shared_recordings(), &format!("user{user}"))?;
        for recording in recordings.take(bench.size.recordings) {
            let recording = recording.map_err(|refused| anyhow::anyhow!("{refused}"))?.recording;
            import.store(&recording).await?;
        }
    }
    bench.server.finish(database).await
}

/// The program's whole load, the build of the index included.
async fn load(bench: &Bench, database: &Database) -> anyhow::Result<Duration> {
    let mut command = child::program(&database.url);
    command
        .args(["backlog", "load", "--yes"])
        .env("OPENAI_BASE_URL", bench.api.base_url(0))
        .env("OPENAI_API_KEY", "none");
    let taken = child::run(&mut command, &bench.errors)?;
    let left = "select count(*) from embedding_queue where status <> 'completed'";
    ensure!(database.count(left).await? == 0, "the load left something undone");
    Ok(taken.wall)
}

/// Inserts all rows into an empty index, over each number of connections.
async fn whole(database: &Database, rows: &[Row]) -> anyhow::Result<Vec<Live>> {
    let mut lives = Vec::new();
    for (connections, times_at_least) in CONNECTIONS {
        database.execute("truncate transcript_chunks").await?;
        database.store.use_model(&model()).await?;
        let (table, means) = (Table::Own, Means::Unnest);
        let secs = rows::write(database, rows, table, means, connections).await?.as_secs_f64();
        lives.push(Live { connections, times_at_least, secs, secs_a_row: 0.0 });
    }
    Ok(lives)
}

/// Seconds of a row behind all others, over each number of connections.
async fn sample(database: &Database, rows: &[Row]) -> anyhow::Result<Vec<f64>> {
    let mut secs_a_row = Vec::new();
    for (turn, (connections, _)) in (1..).zip(CONNECTIONS) {
        let others: Vec<Row> = rows.iter().map(|row| other(row, turn)).collect();
        let (table, means) = (Table::Own, Means::Unnest);
        let took = rows::write(database, &others, table, means, connections).await?;
        secs_a_row.push(took.as_secs_f64() / others.len() as f64);
    }
    Ok(secs_a_row)
}

/// The same text with a vector that no other row has.
fn other(row: &Row, turn: i32) -> Row {
    let mut numbers = row.embedding.to_vec();
    // The API turns by threes.
    numbers.rotate_left(turn as usize);
    let mut other = row.clone();
    other.chunk_index += turn * BEHIND;
    other.embedding = Vector::from(numbers);
    other
}

fn compared(live: &Live, count: usize, load: Duration) -> [Finding; 3] {
    let Live { connections, times_at_least, secs, secs_a_row } = live;
    let what = |what: &str| format!("{count} chunks: {what}, {connections} conn.");
    let times = secs / load.as_secs_f64();
    [
        Finding::told(what("live inserts"), count as f64 / secs, "chunks/s"),
        Finding::told(what("live inserts, the last rows"), 1.0 / secs_a_row, "chunks/s"),
        Finding::timed(
            what("a load is times live inserts"),
            times,
            "",
            Bound::AtLeast(*times_at_least),
        ),
    ]
}
