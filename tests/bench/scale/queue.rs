//! A queue of ten million tasks, 99 of a hundred completed: claims, also while a snapshot is held that
//! keeps what was claimed before from being cleaned up, and the looks that are taken again and again.

use std::time::{Duration, Instant};

use embedding_recovery::domain::recording::RecordingKey;
use embedding_recovery::ports::inspector::{DeadLetterQuery, Inspector};
use embedding_recovery::ports::{ClaimOf, Store};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::report::{Bound, Finding, median_and_worst_ms};
use crate::server::Database;
use crate::{Bench, model};

/// Tasks of a claim, as the program's default has it.
const TASKS_A_CLAIM: u32 = 10;
/// Tasks of a thousand that are ready.
const READY_PER_1000: u64 = 9;
/// Longest claim at the median.
const CLAIM_MS_MAX: f64 = 5.0;
/// A look may take this share of counting every task.
const LOOK_SHARE_MAX: f64 = 0.2;
/// Times that a look is taken.
const LOOKS: usize = 5;
/// Longer than a run takes.
const LEASE: Duration = Duration::from_secs(86_400);
/// Completed tasks that are forgotten at once, as the program does.
const FORGOTTEN_ROWS: u32 = 1_000;

/// Settings under which ten million rows take minutes: nothing that is measured runs with them.
const QUICK: [&str; 4] = [
    "alter system set full_page_writes = off",
    "alter system set synchronous_commit = off",
    "alter system set max_wal_size = '4GB'",
    "select pg_reload_conf()",
];
const USUAL: [&str; 4] = [
    "alter system reset full_page_writes",
    "alter system reset synchronous_commit",
    "alter system reset max_wal_size",
    "select pg_reload_conf()",
];

/// Measures a queue.
pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Finding>> {
    let database = bench.server.database("queue", None).await?;
    database.store.use_model(&model()).await?;
    fill(&database, bench.size.tasks).await?;
    let mut findings = vec![Finding::told("tasks", bench.size.tasks as f64 / 1e6, "million")];
    let (worker, claims_at_once) = (Uuid::new_v4(), bench.size.claims);
    findings.push(commit(&database, claims_at_once).await?);
    // The first ones read everything from the disk, and write whole pages after the checkpoint.
    claims(&database, worker, claims_at_once, "unmeasured").await?;
    findings.extend(claims(&database, worker, claims_at_once, "a claim of 10").await?);
    findings.extend(looks(&database).await?);

    let mut holder = database.connect().await?;
    hold_snapshot(&mut holder).await?;
    let ready = bench.size.tasks * READY_PER_1000 / 1_000;
    let claimed = 3 * claims_at_once * u64::from(TASKS_A_CLAIM);
    let completions = bench.size.completions.min(ready.saturating_sub(claimed));
    complete(&database, completions).await?;
    let held = format!("…after {completions} completions under a held snapshot");
    findings.extend(claims(&database, worker, claims_at_once, &held).await?);
    drop(holder);
    bench.server.drop(database).await?;
    Ok(findings)
}

/// Two years of tasks, the newest ready, and an attempt for each that is not.
async fn fill(database: &Database, tasks: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    for statement in QUICK {
        database.execute(statement).await?;
    }
    let mut connection = database.connect().await?;
    // Nobody is notified, and no reference is checked row by row.
    let statements = format!(
        "set session_replication_role = replica;
         insert into embedding_queue (user_id, recording_id, status, attempts, created_at, completed_at,
                                      next_retry_at, dead_letter_reason, failure_fingerprint)
         select 'user' || n % 1000, n, status, case status when 'pending' then 0 else 1 end, created_at,
                case when status = 'completed' then created_at + interval '1 minute' end,
                case when status in ('failed', 'dead_letter') then now() + interval '1 hour' end,
                case when status = 'dead_letter' then 'it failed' end,
                case when status in ('failed', 'dead_letter') then 'cause ' || n % 10 end
         from (select n, now() - n * (interval '2 years' / {tasks}) as created_at,
                      case when n > {tasks} / 100 then 'completed'
                           when n % 20 = 0 then 'failed' when n % 20 = 1 then 'dead_letter' else 'pending' end as status
               from generate_series({tasks}, 1, -1) n) t;
         insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, started_at, ended_at,
                                         outcome, chunks, chunks_reused, tokens)
         select id, user_id, recording_id, gen_random_uuid(), 1, created_at, created_at + interval '1 minute',
                case status when 'completed' then 'completed' when 'failed' then 'retry' else 'dead_letter' end,
                30, 0, 15000
         from embedding_queue where status <> 'pending'"
    );
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await?;
    database.execute("vacuum analyze embedding_queue").await?;
    database.execute("vacuum analyze embedding_attempts").await?;
    for statement in USUAL {
        database.execute(statement).await?;
    }
    database.execute("checkpoint").await?;
    eprintln!("a queue of {tasks} tasks was made in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

async fn claims(
    database: &Database,
    worker: Uuid,
    count: u64,
    what: &str,
) -> anyhow::Result<Vec<Finding>> {
    let (mut times, mut empty) = (Vec::new(), 0);
    for _ in 0..count {
        let started = Instant::now();
        let claimed = claim(database, worker).await?;
        times.push(started.elapsed());
        empty += u64::from(claimed == 0);
    }
    let (median, worst) = median_and_worst_ms(times);
    Ok(vec![
        Finding::timed(format!("{what}: median"), median, "ms", Bound::AtMost(CLAIM_MS_MAX)),
        Finding::told(format!("{what}: longest of {count}"), worst, "ms"),
        Finding::never(format!("{what}: claims that found nothing"), empty),
    ])
}

async fn claim(database: &Database, worker: Uuid) -> anyhow::Result<usize> {
    let of = ClaimOf::Healthy(TASKS_A_CLAIM);
    Ok(database.store.claim(worker, &model().name, of, LEASE).await?.tasks.len())
}

/// What the disk takes of each claim: a row of a table of its own, committed.
async fn commit(database: &Database, count: u64) -> anyhow::Result<Finding> {
    database.execute("create table committed (number bigint)").await?;
    let (mut connection, mut times) = (database.connect().await?, Vec::new());
    for number in 0..count {
        let started = Instant::now();
        sqlx::query("insert into committed values ($1)")
            .bind(number as i64)
            .execute(&mut connection)
            .await?;
        times.push(started.elapsed());
    }
    Ok(Finding::told(
        "committing one row, as each claim does: median",
        median_and_worst_ms(times).0,
        "ms",
    ))
}

async fn hold_snapshot(connection: &mut PgConnection) -> anyhow::Result<()> {
    let hold = "begin isolation level repeatable read; select count(*) from embedding_models";
    sqlx::raw_sql(hold).execute(connection).await?;
    Ok(())
}

/// Claims and completes as a worker does, ten at a time.
async fn complete(database: &Database, tasks: u64) -> anyhow::Result<()> {
    let (worker, mut connection) = (Uuid::new_v4(), database.connect().await?);
    let mut completed = 0;
    while completed < tasks {
        claim(database, worker).await?;
        let done = sqlx::query(
            "with done as (
                 update embedding_queue
                 set status = 'completed', completed_at = clock_timestamp(), lease_token = null,
                     lease_expires_at = null, locked_at = null, worker_id = null
                 where worker_id = $1 and status = 'processing'
                 returning id
             )
             update embedding_attempts set outcome = 'completed', ended_at = clock_timestamp()
             where outcome is null and task_id in (select id from done)",
        )
        .bind(worker)
        .execute(&mut connection)
        .await?;
        anyhow::ensure!(done.rows_affected() > 0, "the queue has too few tasks");
        completed += done.rows_affected();
    }
    Ok(())
}

/// What pages, `monitor` and a scrape of metrics ask again and again, beside counting all.
async fn looks(database: &Database) -> anyhow::Result<Vec<Finding>> {
    let store = &database.store;
    let counting = "select count(*) filter (where status = 'completed') from embedding_queue";
    let counted = timed(async || Ok(database.count(counting).await.map(drop)?)).await?;
    let key = RecordingKey { user_id: "user1".into(), recording_id: 1 };
    let rows = DeadLetterQuery { limit: 50, ..DeadLetterQuery::default() };
    let overview = timed(async || Ok(store.overview().await.map(drop)?)).await?;
    let history = timed(async || Ok(store.history(6).await.map(drop)?)).await?;
    let explain = timed(async || Ok(store.explain(&key).await.map(drop)?)).await?;
    let dead = timed(async || Ok(store.dead_letters(&rows).await.map(drop)?)).await?;
    let day = Duration::from_secs(86_400);
    let forget = async || Ok(store.forget_completed(day, FORGOTTEN_ROWS).await.map(drop)?);
    let looks = [
        ("monitor, and the levels of /metrics", overview),
        ("history of six hours", history),
        ("explain", explain),
    ];
    let mut findings = vec![Finding::told("counting every task", counted, "ms")];
    for (what, millis) in looks {
        let what = format!("{what}: {millis:.1} ms, share of counting every task");
        findings.push(Finding::timed(what, millis / counted, "", Bound::AtMost(LOOK_SHARE_MAX)));
    }
    // These take their time with the number of dead letters, however long the queue is.
    findings.push(Finding::told("dead letters, by cause and 50 of them", dead, "ms"));
    let forgotten = timed(forget).await?;
    findings.push(Finding::told("forgetting 1,000 completed tasks", forgotten, "ms"));
    Ok(findings)
}

/// Milliseconds at the median.
async fn timed(look: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..LOOKS {
        let started = Instant::now();
        look().await?;
        times.push(started.elapsed());
    }
    Ok(median_and_worst_ms(times).0)
}
