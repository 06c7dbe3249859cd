//! `history`: five-minute buckets, written once a minute after each is over. What is not written yet
//! is counted from the attempts, so that a reader always sees up to now.

use super::super::connection::Pool;
use crate::domain::failure::Failure;
use crate::ports::inspector::Bucket;

/// The first writing reaches this far back, in days: an older past was never shown.
const FIRST_DAYS: i32 = 30;

/// Writes the buckets that are over and not written yet; returns how many. An attempt is seen by others
/// within seconds of the time that it carries, so that a bucket is complete a minute after its end.
pub(in crate::postgres) async fn roll_up(pool: &Pool) -> Result<u64, Failure> {
    let mut transaction = super::super::begin_patient(pool).await?;
    let written = sqlx::query!(
        "insert into history
         select h.* from attempt_history(
             greatest((select max(begins_at) from history) + interval '5 minutes',
                      date_bin('5 minutes', clock_timestamp(), 'epoch') - make_interval(days => $1)),
             date_bin('5 minutes', clock_timestamp() - interval '1 minute', 'epoch')) h
         on conflict do nothing",
        FIRST_DAYS
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(written.rows_affected())
}

/// Written buckets, and behind them those that will be.
pub(super) async fn history(pool: &Pool, hours: u32) -> Result<Vec<Bucket>, Failure> {
    let mut transaction = super::super::begin_patient(pool).await?;
    let buckets = sqlx::query!(
        r#"with period as (
               select date_bin('5 minutes', now() - make_interval(hours => $1), 'epoch') as since
           ), written as (
               select h.* from history h, period where h.begins_at >= since
           )
           select begins_at as "begins_at!", completed as "completed!", failed as "failed!",
                  dead_lettered as "dead_lettered!", recovered as "recovered!", chunks as "chunks!",
                  tokens as "tokens!", p50_secs, p95_secs, p99_secs
           from (
               select * from written
               union all
               select h.* from period, attempt_history(
                   greatest((select max(begins_at) from history) + interval '5 minutes', since),
                   now() + interval '5 minutes') h
           ) b
           order by 1"#,
        i32::try_from(hours).unwrap_or(i32::MAX)
    )
    .map(|row| Bucket {
        begins_at: row.begins_at,
        completed: row.completed as u64,
        failed: row.failed as u64,
        dead_lettered: row.dead_lettered as u64,
        recovered: row.recovered as u64,
        chunks: row.chunks as u64,
        tokens: row.tokens as u64,
        p50_secs: row.p50_secs,
        p95_secs: row.p95_secs,
        p99_secs: row.p99_secs,
    })
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(buckets)
}
