//! What must hold of the chunk sets: whole, with good vectors, and gone once they are dead.

use super::super::connection::Session;
use super::{VIOLATIONS_MAX, Violation};
use crate::domain::failure::Failure;

pub(super) async fn completed_without_set(
    connection: &mut Session,
) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        "select distinct c.user_id, c.recording_id
         from embedding_models m
         join embedding_queue q on q.status = 'completed'
          -- What was completed before the model became what it is was for another, or for its former life.
          and (m.state = 'current' and q.for_model is null and q.completed_at >= m.state_since
               or m.state = 'next' and q.for_model = m.name and q.completed_at >= m.state_since
               or m.state = 'current' and q.for_model = m.name)
         join fathom_calls c on c.user_id = q.user_id and c.recording_id = q.recording_id
         where m.state in ('current', 'next')
           and not exists (select from chunk_sets s
                   where s.user_id = c.user_id and s.recording_id = c.recording_id and s.state = 'current'
                     and s.model = m.name)
           and not exists (select from embedding_queue o
                   where o.user_id = c.user_id and o.recording_id = c.recording_id and o.status <> 'completed'
                     and coalesce(o.for_model, '') = tasks_of_model(m.name))
         limit $1",
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "a completed task's chunks are all there",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: "completed without a current chunk set".into(),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

pub(super) async fn incomplete_sets(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"select s.user_id, s.recording_id, s.chunks_expected, count(c.id) as "stored!"
           from chunk_sets s
           left join transcript_chunks c on c.chunk_set_id = s.id and c.chunk_index < s.chunks_expected
                and c.user_id = s.user_id and c.recording_id = s.recording_id and c.embedding_model = s.model
           where s.state = 'current'
           group by s.id
           having count(c.id) <> s.chunks_expected
               or (select count(*) from transcript_chunks a where a.chunk_set_id = s.id) <> s.chunks_expected
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "a completed task's chunks are all there",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("{} of {} chunks fit their set", row.stored, row.chunks_expected),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

pub(super) async fn bad_vectors(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"select c.user_id, c.recording_id, c.chunk_index, m.dimensions,
                  vector_dims(c.embedding) as "found?"
           from transcript_chunks c
           join chunk_sets s on s.id = c.chunk_set_id and s.state = 'current'
           join embedding_models m on m.name = s.model
           where c.embedding is null
              or vector_dims(c.embedding) <> m.dimensions
              or vector_norm(c.embedding) in (0, 'NaN', 'Infinity')
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "each chunk has a finite vector of the model's dimension",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: match row.found {
            None => format!("chunk {} has no vector", row.chunk_index),
            Some(found) if found != row.dimensions => {
                format!("chunk {} has {found} dimensions, not {}", row.chunk_index, row.dimensions)
            }
            Some(_) => format!("chunk {} has a vector of no length or not finite", row.chunk_index),
        },
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

pub(super) async fn old_dead_sets(connection: &mut Session) -> Result<Vec<Violation>, Failure> {
    let rows = sqlx::query!(
        r#"select s.user_id, s.recording_id, count(c.id) as "chunks!"
           from chunk_sets s left join transcript_chunks c on c.chunk_set_id = s.id
           where s.state = 'dead' and s.died_at < clock_timestamp() - interval '1 hour'
           group by s.id
           limit $1"#,
        VIOLATIONS_MAX
    )
    .map(|row| Violation {
        invariant: "dead sets are deleted within the hour",
        user_id: row.user_id,
        recording_id: row.recording_id,
        detail: format!("a dead set still has {} chunks", row.chunks),
    })
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
