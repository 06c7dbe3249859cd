//! Recordings that somebody works on, whichever process it is.

use super::super::connection::Session;
use super::part;
use crate::domain::failure::Failure;
use crate::ports::inspector::InFlightRecording;

/// Rows of the list: more than anybody reads.
const ROWS_MAX: i64 = 100;

/// Longest first. A set's chunks are counted only for the rows that are shown.
pub(super) async fn in_flight(connection: &mut Session) -> Result<Vec<InFlightRecording>, Failure> {
    let rows = sqlx::query!(
        r#"select q.user_id, q.recording_id, c.title as "title?", q.part, q.attempts,
                  extract(epoch from now() - q.locked_at)::float8 as running_secs,
                  q.worker_id, q.lease_expires_at as "lease_ends_at!",
                  s.chunks_expected as "chunks?",
                  (select count(*) from transcript_chunks t where t.chunk_set_id = s.id) as "stored!"
           from (select * from embedding_queue where status = 'processing'
                 order by locked_at, id limit $1) q
           left join fathom_calls c using (user_id, recording_id)
           left join lateral (
               select id, chunks_expected from chunk_sets b
               where b.user_id = q.user_id and b.recording_id = q.recording_id and b.state = 'building'
                 and (q.for_model is null or b.model = q.for_model)
               order by b.created_at desc limit 1
           ) s on true
           order by q.locked_at, q.id"#,
        ROWS_MAX
    )
    .map(|row| InFlightRecording {
        user_id: row.user_id,
        recording_id: row.recording_id,
        title: row.title,
        part: part(&row.part),
        attempt: row.attempts as u32,
        running_secs: row.running_secs.unwrap_or_default().max(0.0),
        chunks_stored: row.chunks.map(|_| row.stored as u32),
        chunks: row.chunks.map(|chunks| chunks as u32),
        worker_id: row.worker_id.unwrap_or_default(),
        lease_ends_at: row.lease_ends_at,
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
