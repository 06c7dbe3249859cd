//! One, two and four processes of the program on one database share the work: how much quicker they are
//! than one, and whether they get into each other's way.
//!
//! Everything runs on one machine, so nothing but waiting may be what bounds: recordings of one sentence,
//! of which a process has two in work, an API that answers after 200 ms, and no vector index. Four
//! processes then complete 40 recordings a second at most, a tenth of what two processors can
//! (`cargo bench --bench throughput`, tiny recordings). On a busy machine even that is too much.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use embedding_recovery::domain::part::Part;
use embedding_recovery::domain::recording::RecordingKey;
use embedding_recovery::ports::operator::Operator;
use embedding_recovery::ports::{ImportedRecording, ImportedSegment};
use sqlx::Connection;

use crate::report::{Bound, Finding};
use crate::server::Database;
use crate::{Bench, child};

const CALLS: &str = "replica_calls";
/// Recordings that a process works on at once.
const IN_WORK: &str = "2";
const API_MILLIS: u64 = 200;
/// Processes, and how many times as quick as one they are at least.
const PROCESSES: [(usize, f64); 3] = [(1, 1.0), (2, 1.8), (4, 3.4)];
/// Between two looks, and until when something must have come.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures replicas.
pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Finding>> {
    prepare(bench).await?;
    let (mut findings, mut alone) = (Vec::new(), None);
    for (processes, times_one) in PROCESSES {
        let database = bench.server.database("replicas", Some(CALLS)).await?;
        let rate = share(bench, &database, processes).await?;
        let one = *alone.get_or_insert(rate);
        findings.push(Finding::told(named(processes), rate, "tasks/s"));
        if processes > 1 {
            let what = format!("{}: times one", named(processes));
            findings.push(Finding::timed(what, rate / one, "", Bound::AtLeast(times_one)));
        }
        findings.extend(contention(&database, processes).await?);
        bench.server.drop(database).await?;
    }
    Ok(findings)
}

/// Recordings that are queued, and a main part that is paused.
async fn prepare(bench: &Bench) -> anyhow::Result<()> {
    let database = bench.server.database(CALLS, None).await?;
    let mut import = database.store.import(true);
    for recording_id in 0..bench.size.tiny_recordings {
        let segment = ImportedSegment {
            speaker_name: Some("Ann".into()),
            speaker_email: None,
            text: format!("This is all that was said in call {recording_id}."),
            timestamp: Some("00:00:00".into()),
        };
        let recording = ImportedRecording {
            key: RecordingKey { user_id: "user0".into(), recording_id: recording_id.into() },
            title: None,
            created_at: None,
            created_at_presumed: None,
            segments: vec![segment],
        };
        import.store(&recording).await?;
    }
    Operator::pause(&database.store, Part::Main, "benchmark").await?;
    bench.server.finish(database).await
}

/// Lets so many processes do it all once each is ready; returns the tasks that they complete in a second.
async fn share(bench: &Bench, database: &Database, processes: usize) -> anyhow::Result<f64> {
    let load = database.store.begin_backlog_load().await?;
    let mut children = Children(Vec::new());
    for _ in 0..processes {
        let child = child::program(&database.url)
            .arg("serve")
            .env("EMBEDDING_RECOVERY_CLAIM_BATCH", IN_WORK)
            .env("OPENAI_BASE_URL", bench.api.base_url(API_MILLIS))
            .env("OPENAI_API_KEY", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&bench.errors)?)
            .spawn()?;
        children.0.push(child);
    }
    let alive = "select count(*) from workers where alive_until > now()";
    wait_until(database, alive, processes as u64).await?;
    Operator::resume(&database.store, Part::Main, "benchmark").await?;
    let left = "select count(*) from embedding_queue where status <> 'completed'";
    wait_until(database, left, 0).await?;
    children.end().with_context(|| std::fs::read_to_string(&bench.errors).unwrap_or_default())?;
    load.end().await?;
    let mut connection = database.connect().await?;
    let rate = sqlx::query_scalar(
        "select (count(*) / extract(epoch from max(ended_at) - min(started_at)))::float8 from embedding_attempts",
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    Ok(rate)
}

/// What must not happen where several work on one queue.
async fn contention(database: &Database, processes: usize) -> anyhow::Result<Vec<Finding>> {
    let sound = database.store.verify().await?.violations.is_empty();
    ensure!(sound, "what {processes} processes stored is not sound");
    let workers =
        database.count("select count(distinct worker_id) from embedding_attempts").await?;
    let told = |what: &str| format!("{}: {what}", named(processes));
    Ok(vec![
        Finding::never(told("those without work"), processes as u64 - workers),
        Finding::never(
            told("attempts that did not complete"),
            database
                .count("select count(*) from embedding_attempts where outcome is distinct from 'completed'")
                .await?,
        ),
        Finding::never(
            told("tasks that were not attempted exactly once"),
            database
                .count(
                    "select count(*) from embedding_queue q
                     where 1 <> (select count(*) from embedding_attempts a where a.task_id = q.id)",
                )
                .await?,
        ),
        Finding::never(
            told("deadlocks"),
            database
                .count("select deadlocks from pg_stat_database where datname = current_database()")
                .await?,
        ),
    ])
}

fn named(processes: usize) -> String {
    format!("{processes} process{}", if processes == 1 { "" } else { "es" })
}

async fn wait_until(database: &Database, query: &'static str, count: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    while database.count(query).await? != count {
        ensure!(started.elapsed() < PATIENCE, "{query}: never {count}");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    Ok(())
}

/// Killed when dropped.
struct Children(Vec<Child>);

impl Children {
    /// Asks all of them to stop, and waits until they have.
    fn end(&mut self) -> anyhow::Result<()> {
        for child in &self.0 {
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        }
        for child in &mut self.0 {
            let status = child.wait()?;
            ensure!(status.success(), "a process ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
