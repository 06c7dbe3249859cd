//! `transcript_chunks`: the fenced insert, and the removal of dead sets.

use sqlx::PgExecutor;
use sqlx::types::Json;

use super::connection::Pool;
use super::vectors::Components;
use crate::domain::failure::Failure;
use crate::domain::recording::format_timestamp;
use crate::ports::{ChunkRow, Destination};

/// Inserts rows in one statement under the fence. The `key share` lock on the task's row makes a
/// takeover, which changes the token, wait until this statement is done. Rows without a vector
/// take that of a live chunk with the same text.
pub(super) async fn insert(
    executor: impl PgExecutor<'_>,
    destination: &Destination,
    rows: &[ChunkRow],
) -> Result<(), Failure> {
    let indexes: Vec<i32> = rows.iter().map(|row| row.index as i32).collect();
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let hashes: Vec<&[u8]> = rows.iter().map(|row| row.content_hash.as_slice()).collect();
    let speakers: Vec<Json<&[String]>> =
        rows.iter().map(|row| Json(row.speakers.as_slice())).collect();
    let starts: Vec<Option<String>> =
        rows.iter().map(|row| row.start_secs.map(format_timestamp)).collect();
    let ends: Vec<Option<String>> =
        rows.iter().map(|row| row.end_secs.map(format_timestamp)).collect();
    let vectors: Vec<Option<Components<'_>>> =
        rows.iter().map(|row| row.embedding.as_deref().map(Components)).collect();
    let fenced = sqlx::query_scalar!(
        r#"with fence as materialized (
               select 1 from embedding_queue
               where id = $1 and lease_token = $2 and status = 'processing'
               for key share
           ), inserted as (
               insert into transcript_chunks
                   (chunk_set_id, user_id, recording_id, embedding_model, call_title, call_date,
                    chunk_index, chunk_text, content_hash, speakers, timestamp_start, timestamp_end, embedding)
               select $3, $4, $5, $6, $7, $8, r.chunk_index, r.chunk_text, r.content_hash,
                      array(select jsonb_array_elements_text(r.speakers)), r.starts, r.ends,
                      coalesce(r.embedding, (
                          select c.embedding from transcript_chunks c
                          join chunk_sets s on s.id = c.chunk_set_id
                          where s.user_id = $4 and s.recording_id = $5 and s.model = $6
                            and s.state <> 'dead' and s.id <> $3 and c.content_hash = r.content_hash
                          limit 1))
               from unnest($9::int[], $10::text[], $11::bytea[], $12::jsonb[], $13::text[], $14::text[], $15::vector[])
                        as r (chunk_index, chunk_text, content_hash, speakers, starts, ends, embedding),
                    fence
               on conflict (chunk_set_id, chunk_index) do nothing
           )
           select count(*) as "fenced!" from fence"#,
        destination.lease.task_id,
        destination.lease.token,
        destination.chunk_set_id,
        destination.key.user_id,
        destination.key.recording_id,
        destination.model_name,
        destination.call_title,
        destination.call_date,
        &indexes,
        &texts as &[&str],
        &hashes as &[&[u8]],
        &speakers as &[Json<&[String]>],
        &starts as &[Option<String>],
        &ends as &[Option<String>],
        vectors as _,
    )
    .fetch_one(executor)
    .await?;
    if fenced == 0 { Err(Failure::LeaseLost) } else { Ok(()) }
}

/// Deletes chunks of dead sets, then the sets that are empty by now. Sets of retired models die
/// here.
pub(super) async fn delete_dead(pool: &Pool, rows_max: u32) -> Result<u64, Failure> {
    let mut transaction = super::begin_patient(pool).await?;
    let retired = super::model_swap::retire(&mut transaction, rows_max).await?;
    let deleted = sqlx::query!(
        "delete from transcript_chunks where id in (
             select c.id from transcript_chunks c
             join chunk_sets s on s.id = c.chunk_set_id
             where s.state = 'dead'
             limit $1
             for update of c skip locked)",
        i64::from(rows_max)
    )
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    sqlx::query!(
        "delete from chunk_sets s
         where s.state = 'dead' and not exists (select from transcript_chunks c where c.chunk_set_id = s.id)"
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(deleted.max(retired))
}
