//! `schedules`: each tick belongs to one process.

use chrono::{DateTime, Utc};

use super::connection::Pool;
use crate::domain::failure::Failure;

/// Takes a tick; false where another process took it or a later one.
pub(super) async fn take_tick(
    pool: &Pool,
    schedule: &str,
    at: DateTime<Utc>,
) -> Result<bool, Failure> {
    let taken = sqlx::query!(
        "insert into schedules (name, last_tick) values ($1, $2)
         on conflict (name) do update set last_tick = excluded.last_tick
         where schedules.last_tick < excluded.last_tick",
        schedule,
        at
    )
    .execute(pool)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Takes a tick that nobody took although an earlier one was taken.
pub(super) async fn take_missed_tick(
    pool: &Pool,
    schedule: &str,
    at: DateTime<Utc>,
) -> Result<bool, Failure> {
    let taken = sqlx::query!(
        "update schedules set last_tick = $2
         where name = $1 and last_tick > '-infinity' and last_tick < $2",
        schedule,
        at
    )
    .execute(pool)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Notes when a schedule fires, for those who want to know of its next tick.
pub(super) async fn note_cron(pool: &Pool, schedule: &str, cron: &str) -> Result<(), Failure> {
    sqlx::query!(
        "insert into schedules (name, cron) values ($1, $2)
         on conflict (name) do update set cron = excluded.cron
         where schedules.cron is distinct from excluded.cron",
        schedule,
        cron
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The database's time, by which ticks are computed.
pub(super) async fn now(pool: &Pool) -> Result<DateTime<Utc>, Failure> {
    Ok(sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(pool).await?)
}
