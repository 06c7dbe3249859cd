//! Dead letters: by cause, and one by one with what a person needs to judge them.

use super::super::connection::{Pool, Session};
use crate::domain::failure::Failure;
use crate::ports::inspector::{DeadLetter, DeadLetterGroup, DeadLetterQuery, DeadLetters};

/// Groups at most: more causes than this are one cause that was named badly.
const GROUPS_MAX: i64 = 100;
/// Stands for the fingerprint of a task that has none: an earlier system gave it up.
pub(in crate::postgres) const UNKNOWN: &str = "unknown";

/// What fits the query: how many, by cause, and a page of it.
pub(super) async fn dead_letters(
    pool: &Pool,
    query: &DeadLetterQuery,
) -> Result<DeadLetters, Failure> {
    let mut snapshot = super::super::begin_patient_snapshot(pool).await?;
    let total = total(&mut snapshot, query).await?;
    let groups = groups(&mut snapshot, query).await?;
    let rows = rows(&mut snapshot, query).await?;
    snapshot.commit().await?;
    Ok(DeadLetters { total, groups, rows })
}

async fn total(connection: &mut Session, query: &DeadLetterQuery) -> Result<u64, Failure> {
    let total = sqlx::query_scalar!(
        r#"select count(*) as "total!" from embedding_queue
           where status = 'dead_letter' and ($1::text is null or coalesce(failure_fingerprint, $4) = $1)
             and ($2::text is null or user_id = $2) and ($3::bigint is null or recording_id = $3)"#,
        query.fingerprint.as_deref(),
        query.user_id.as_deref(),
        query.recording_id,
        UNKNOWN
    )
    .fetch_one(connection)
    .await?;
    Ok(total as u64)
}

async fn groups(
    connection: &mut Session,
    query: &DeadLetterQuery,
) -> Result<Vec<DeadLetterGroup>, Failure> {
    let groups = sqlx::query!(
        r#"select coalesce(q.failure_fingerprint, $4) as "fingerprint!", max(q.failure_class) as failure_class,
                  min(q.dead_letter_reason) as "example!", count(*) as "count!",
                  (array_agg(q.recording_id order by q.created_at, q.id))[1:10] as "recording_ids!",
                  count(*) filter (where q.dead_letter_permanent) as "permanent!",
                  -- As tried_recently() has it, but asked once for all of them.
                  count(*) filter (where q.id in (
                      select task_id from embedding_attempts
                      where ended_at > now() - interval '1 hour'
                        and started_at > now() - interval '1 hour')) as "tried_recently!",
                  coalesce(sum(s.chunks_expected), 0) as "chunks!",
                  coalesce(sum((select count(*) from transcript_chunks c where c.chunk_set_id = s.id)), 0)::bigint as "stored!",
                  min(a.ended_at) as oldest_at, min(q.next_retry_at) as next_attempt_at
           from embedding_queue q
           left join lateral (
               select max(ended_at) as ended_at from embedding_attempts where task_id = q.id
           ) a on true
           left join lateral (
               select id, chunks_expected from chunk_sets b
               where b.user_id = q.user_id and b.recording_id = q.recording_id and b.state = 'building'
                 and b.model = coalesce(q.for_model, (select name from embedding_models where state = 'current'))
               order by b.created_at desc limit 1
           ) s on true
           where q.status = 'dead_letter' and ($1::text is null or coalesce(q.failure_fingerprint, $4) = $1)
             and ($2::text is null or q.user_id = $2) and ($3::bigint is null or q.recording_id = $3)
           group by 1
           order by count(*) desc, 1
           limit $5"#,
        query.fingerprint.as_deref(),
        query.user_id.as_deref(),
        query.recording_id,
        UNKNOWN,
        GROUPS_MAX
    )
    .map(|row| DeadLetterGroup {
        fingerprint: row.fingerprint,
        failure_class: row.failure_class,
        example: row.example,
        count: row.count as u64,
        recording_ids: row.recording_ids,
        permanent: row.permanent as u64,
        tried_recently: row.tried_recently as u64,
        chunks: row.chunks as u64,
        chunks_stored: row.stored as u64,
        oldest_at: row.oldest_at,
        next_attempt_at: row.next_attempt_at,
    })
    .fetch_all(connection)
    .await?;
    Ok(groups)
}

/// Oldest first: by the end of the last attempt, and those without one before all.
async fn rows(
    connection: &mut Session,
    query: &DeadLetterQuery,
) -> Result<Vec<DeadLetter>, Failure> {
    let rows = sqlx::query!(
        r#"select q.user_id, q.recording_id, c.title as "title?", q.dead_letter_reason as "last_error!",
                  coalesce(q.failure_fingerprint, $4) as "fingerprint!", q.attempts, q.recoveries,
                  q.dead_letter_permanent, q.next_retry_at, q.ended_at,
                  (select count(*) from fathom_transcripts t
                   where t.user_id = q.user_id and t.recording_id = q.recording_id) as "segment_count!",
                  (select count(*) from transcript_chunks t where t.chunk_set_id = s.id) as "stored!",
                  s.chunks_expected as "chunks?"
           from (
               select d.*, a.ended_at from embedding_queue d
               left join lateral (
                   select max(ended_at) as ended_at from embedding_attempts where task_id = d.id
               ) a on true
               where d.status = 'dead_letter'
                 and ($1::text is null or coalesce(d.failure_fingerprint, $4) = $1)
                 and ($5::text is null or d.user_id = $5) and ($6::bigint is null or d.recording_id = $6)
               order by a.ended_at nulls first, d.id
               limit $2 offset $3
           ) q
           left join fathom_calls c using (user_id, recording_id)
           left join lateral (
               select id, chunks_expected from chunk_sets b
               where b.user_id = q.user_id and b.recording_id = q.recording_id and b.state = 'building'
                 and b.model = coalesce(q.for_model, (select name from embedding_models where state = 'current'))
               order by b.created_at desc limit 1
           ) s on true
           order by q.ended_at nulls first, q.id"#,
        query.fingerprint.as_deref(),
        i64::from(query.limit),
        i64::try_from(query.offset).unwrap_or(i64::MAX),
        UNKNOWN,
        query.user_id.as_deref(),
        query.recording_id
    )
    .map(|row| DeadLetter {
        user_id: row.user_id,
        recording_id: row.recording_id,
        title: row.title,
        segment_count: row.segment_count as u64,
        last_error: row.last_error,
        fingerprint: row.fingerprint,
        attempts: row.attempts as u32,
        recoveries: row.recoveries as u32,
        permanent: row.dead_letter_permanent,
        next_attempt_at: row.next_retry_at,
        last_attempt_at: row.ended_at,
        chunks_stored: row.stored as u32,
        chunks: row.chunks.unwrap_or_default() as u32,
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
