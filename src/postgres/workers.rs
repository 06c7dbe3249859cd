//! `workers`: who is alive. Each process writes its own row, and no other.

use std::time::Duration;

use uuid::Uuid;

use super::connection::Pool;
use crate::domain::failure::Failure;
use crate::ports::WorkerState;

/// Renews a worker's row and counts those of its model that are alive, itself included.
pub(super) async fn heartbeat(
    pool: &Pool,
    worker: &WorkerState,
    lease: Duration,
) -> Result<u32, Failure> {
    let trouble = worker.provider_trouble.as_ref();
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    // `skip locked`: replicas that clean up at the same moment must not wait for one another. The
    // count sees the table as it was before this statement, hence the one.
    let alive = sqlx::query_scalar!(
        r#"with buried as (
               delete from workers where id in (
                   select id from workers where alive_until < clock_timestamp() - interval '1 day'
                   for update skip locked)
           ), renewed as (
               insert into workers (id, host, version, model, alive_until, slots, in_flight,
                                    provider_trouble, provider_asked_at, database_trouble,
                                    provider_paused_until)
               values ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5), $6, $7,
                       $8, clock_timestamp() + make_interval(secs => $9), $10,
                       clock_timestamp() + make_interval(secs => $11))
               on conflict (id) do update set
                   model = excluded.model, alive_until = excluded.alive_until,
                   slots = excluded.slots, in_flight = excluded.in_flight,
                   provider_trouble = excluded.provider_trouble,
                   provider_asked_at = excluded.provider_asked_at,
                   database_trouble = excluded.database_trouble,
                   provider_paused_until = excluded.provider_paused_until
           )
           select count(*) + 1 as "alive!" from workers
           where id <> $1 and model = $4 and alive_until > clock_timestamp()"#,
        worker.id,
        host,
        env!("CARGO_PKG_VERSION"),
        worker.model_name,
        lease.as_secs_f64(),
        worker.slots as i32,
        worker.in_flight as i32,
        trouble.map(|trouble| trouble.reason.as_str()),
        // No time makes no interval, and so no moment.
        trouble.map(|trouble| trouble.asked_after.as_secs_f64()) as Option<f64>,
        worker.database_trouble.as_deref(),
        worker.provider_paused_for.map(|time| time.as_secs_f64()) as Option<f64>,
    )
    .fetch_one(pool)
    .await?;
    Ok(alive as u32)
}

/// Removes a worker's row.
pub(super) async fn sign_off(pool: &Pool, worker: Uuid) -> Result<(), Failure> {
    sqlx::query!("delete from workers where id = $1", worker).execute(pool).await?;
    Ok(())
}
