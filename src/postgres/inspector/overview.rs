//! Everything at a glance, in one snapshot: the queue, what happened lately, who is alive.

use chrono::{DateTime, Utc};

use super::super::connection::{Pool, Session};
use super::{in_flight, part};
use crate::domain::failure::Failure;
use crate::ports::TaskCounts;
use crate::ports::inspector::{Overview, Pause, ScheduleState, SuccessRate, Worker};

/// Completed tasks that are counted one by one; where there are more, the planner's estimate of the
/// whole table is taken instead, less the tasks that are counted exactly.
const COUNTED_MAX: i64 = 100_000;
/// Processes that are listed.
const WORKERS_MAX: i64 = 100;

pub(super) async fn overview(pool: &Pool) -> Result<Overview, Failure> {
    let mut snapshot = super::super::begin_patient_snapshot(pool).await?;
    let queue = queue(&mut snapshot).await?;
    let lately = lately(&mut snapshot).await?;
    let workers = workers(&mut snapshot).await?;
    let in_flight = in_flight::in_flight(&mut snapshot).await?;
    let pauses = pauses(&mut snapshot).await?;
    let schedules = schedules(&mut snapshot, queue.at).await?;
    snapshot.commit().await?;
    // Tasks that came within the quarter of an hour and are gone again came and went: no change.
    let drain_per_minute = (lately.gone - queue.came as f64) / f64::from(DRAIN_MINUTES);
    let open = queue.tasks.open();
    Ok(Overview {
        tasks: queue.tasks,
        at: queue.at,
        retry_ready: queue.retry_ready,
        oldest_waiting_secs: queue.oldest_waiting_secs,
        dead_letters_permanent: queue.dead_letters_permanent,
        next_recovery_at: queue.next_recovery_at,
        chunks_last_hour: lately.chunks_last_hour,
        completed_last_hour: lately.completed_last_hour,
        last_completed_at: lately.last_completed_at,
        drain_per_minute,
        empty_in_secs: match open {
            0 => Some(0.0),
            _ => (drain_per_minute > 0.0).then(|| open as f64 / drain_per_minute * 60.0),
        },
        first_pass: lately.first_pass,
        recovery: lately.recovery,
        workers,
        in_flight,
        pauses,
        schedules,
    })
}

/// Over this time the drain is measured: long enough for a slow queue, short enough to be of now.
const DRAIN_MINUTES: i32 = 15;

struct Queue {
    at: DateTime<Utc>,
    tasks: TaskCounts,
    retry_ready: u64,
    oldest_waiting_secs: Option<f64>,
    dead_letters_permanent: u64,
    next_recovery_at: Option<DateTime<Utc>>,
    /// Unfinished tasks that came within the time of the drain.
    came: u64,
}

/// What is unfinished is counted in its own index; of what is completed, a bounded part.
async fn queue(connection: &mut Session) -> Result<Queue, Failure> {
    let row = sqlx::query!(
        r#"with unfinished as (
               select count(*) filter (where status = 'pending') as pending,
                      count(*) filter (where status = 'processing') as processing,
                      count(*) filter (where status = 'failed') as failed,
                      count(*) filter (where status = 'dead_letter') as dead_letter,
                      count(*) filter (where status = 'failed' and next_retry_at <= now()) as retry_ready,
                      max(extract(epoch from now() - case status when 'pending' then created_at
                                                                 when 'failed' then next_retry_at end))
                          filter (where status = 'pending' or status = 'failed' and next_retry_at <= now())
                          as oldest_waiting_secs,
                      count(*) filter (where status = 'dead_letter' and dead_letter_permanent) as permanent,
                      min(next_retry_at) filter (where status = 'dead_letter' and not dead_letter_permanent)
                          as next_recovery_at,
                      count(*) filter (where status <> 'dead_letter'
                                         and created_at > now() - make_interval(mins => $2)) as came
               from embedding_queue where status <> 'completed'
           ), estimated as (
               -- Below zero where the table was never analyzed.
               select reltuples::bigint - pending - processing - failed - dead_letter as completed
               from pg_class, unfinished where oid = 'embedding_queue'::regclass
           )
           select now() as "at!", pending as "pending!", processing as "processing!", failed as "failed!",
                  dead_letter as "dead_letter!", retry_ready as "retry_ready!",
                  oldest_waiting_secs::float8 as oldest_waiting_secs, permanent as "permanent!",
                  next_recovery_at, came as "came!",
                  -- Not counted at all where they are many for certain.
                  (case when e.completed > 2 * $1::bigint then e.completed
                        else (select case when counted <= $1::bigint then counted
                                          else greatest(counted, e.completed) end
                              from (select count(*) as counted
                                    from (select from embedding_queue where status = 'completed'
                                          limit $1::bigint + 1) c) n) end) as "completed!"
           from unfinished, estimated e"#,
        COUNTED_MAX,
        DRAIN_MINUTES
    )
    .fetch_one(connection)
    .await?;
    Ok(Queue {
        at: row.at,
        tasks: TaskCounts {
            pending: row.pending as u64,
            processing: row.processing as u64,
            completed: row.completed as u64,
            failed: row.failed as u64,
            dead_letter: row.dead_letter as u64,
        },
        retry_ready: row.retry_ready as u64,
        oldest_waiting_secs: row.oldest_waiting_secs,
        dead_letters_permanent: row.permanent as u64,
        next_recovery_at: row.next_recovery_at,
        came: row.came as u64,
    })
}

struct Lately {
    chunks_last_hour: u64,
    completed_last_hour: u64,
    last_completed_at: Option<DateTime<Utc>>,
    first_pass: SuccessRate,
    recovery: SuccessRate,
    /// Tasks that ended within the time of the drain and were there before it.
    gone: f64,
}

/// Attempts carry how they ended, and are found by when: the last day of them is read.
async fn lately(connection: &mut Session) -> Result<Lately, Failure> {
    let row = sqlx::query!(
        r#"select coalesce(sum(chunks - coalesce(chunks_reused, 0)) filter (where hour), 0) as "chunks!",
                  count(*) filter (where hour and outcome = 'completed') as "completed!",
                  count(*) filter (where part = 'main' and outcome in ('completed', 'dead_letter')) as "main!",
                  count(*) filter (where part = 'main' and outcome = 'completed' and number = 1) as "first!",
                  count(*) filter (where part = 'recovery' and outcome in ('completed', 'retry', 'dead_letter'))
                      as "recovery!",
                  count(*) filter (where part = 'recovery' and outcome = 'completed') as "recovered!",
                  (select max(ended_at) from embedding_attempts where outcome = 'completed') as last_completed_at,
                  (select count(*) from embedding_attempts a
                   where a.ended_at > now() - make_interval(mins => $1)
                     and a.part = 'main' and a.outcome in ('completed', 'dead_letter')
                     and exists (select from embedding_queue q
                                 where q.id = a.task_id
                                   and q.created_at <= now() - make_interval(mins => $1))) as "gone!"
           from (select *, ended_at > now() - interval '1 hour' as hour
                 from embedding_attempts where ended_at > now() - interval '1 day') a"#,
        DRAIN_MINUTES
    )
    .fetch_one(connection)
    .await?;
    let rate = |tried: i64, succeeded: i64| SuccessRate {
        tried: tried as u64,
        succeeded: succeeded as u64,
    };
    Ok(Lately {
        chunks_last_hour: row.chunks as u64,
        completed_last_hour: row.completed as u64,
        last_completed_at: row.last_completed_at,
        first_pass: rate(row.main, row.first),
        recovery: rate(row.recovery, row.recovered),
        gone: row.gone as f64,
    })
}

async fn workers(connection: &mut Session) -> Result<Vec<Worker>, Failure> {
    let workers = sqlx::query!(
        "select id, host, version, model, started_at, slots, in_flight, provider_trouble, provider_asked_at,
                case when provider_paused_until > now() then provider_paused_until end as provider_paused_until,
                database_trouble
         from workers where alive_until > now()
         order by started_at, id limit $1",
        WORKERS_MAX
    )
    .map(|row| Worker {
        id: row.id,
        host: row.host,
        version: row.version,
        model: row.model,
        started_at: row.started_at,
        slots: row.slots as u32,
        in_flight: row.in_flight as u32,
        provider_trouble: row.provider_trouble,
        provider_asked_at: row.provider_asked_at,
        provider_paused_until: row.provider_paused_until,
        database_trouble: row.database_trouble,
    })
    .fetch_all(connection)
    .await?;
    Ok(workers)
}

async fn pauses(connection: &mut Session) -> Result<Vec<Pause>, Failure> {
    let pauses = sqlx::query!("select part, since, by from pauses order by part")
        .map(|row| Pause { part: part(&row.part), since: row.since, by: row.by })
        .fetch_all(connection)
        .await?;
    Ok(pauses)
}

/// The next tick of a schedule is where its cron says, after the database's `now`.
async fn schedules(
    connection: &mut Session,
    now: DateTime<Utc>,
) -> Result<Vec<ScheduleState>, Failure> {
    let schedules = sqlx::query!(
        "select name, cron, nullif(last_tick, '-infinity') as last_tick from schedules order by name"
    )
    .map(|row| ScheduleState {
        next_tick: row.cron.as_deref().and_then(|cron| {
            cron.parse::<croner::Cron>().ok()?.find_next_occurrence(&now, false).ok()
        }),
        name: row.name,
        cron: row.cron,
        last_tick: row.last_tick,
    })
    .fetch_all(connection)
    .await?;
    Ok(schedules)
}
