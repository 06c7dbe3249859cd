//! `chunk_sets`: open or resume one, and the swap that makes it current.

use uuid::Uuid;

use super::connection::{Pool, Session};
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::domain::task::Lease;
use crate::ports::{ChunkSet, ChunkSetRequest, Completion, Work};

/// Opens or resumes the building set of the request's fingerprint, and tells what it needs not
/// buy: chunks that it holds, and chunks whose text another live set of the recording holds. Most
/// recordings have no set yet, and for these the one statement is all.
pub(super) async fn open(
    pool: &Pool,
    lease: &Lease,
    key: &RecordingKey,
    request: &ChunkSetRequest,
) -> Result<ChunkSet, Failure> {
    let mut transaction = super::begin_patient(pool).await?;
    let opened = sqlx::query!(
        r#"with fence as materialized (
               select 1 from embedding_queue
               where id = $1 and lease_token = $2 and status = 'processing'
               for key share
           ), live as materialized (
               select s.id, s.state, s.fingerprint from fence, chunk_sets s
               where s.user_id = $3 and s.recording_id = $4 and s.model = $5 and s.state <> 'dead'
           ), kept as (
               update chunk_sets s set source_digest = $7 from live
               where s.id = live.id and live.fingerprint = $6 and live.state = 'current' and s.state = 'current'
               returning s.id
           ), building as (
               insert into chunk_sets (user_id, recording_id, model, fingerprint, source_digest, chunks_expected)
               select $3, $4, $5, $6, $7, $8 from fence
               where not exists (select from live where fingerprint = $6 and state = 'current')
               on conflict (user_id, recording_id, model, fingerprint) where state = 'building'
               do update set source_digest = excluded.source_digest
               returning id
           )
           select (select id from kept) as kept, building.id as building,
                  exists (select from live where id = building.id) as "resumed!",
                  exists (select from live where id <> building.id) as "has_others!"
           from fence left join building on true"#,
        lease.task_id,
        lease.token,
        key.user_id,
        key.recording_id,
        request.model_name,
        request.fingerprint,
        request.digest,
        request.content_hashes.len() as i32
    )
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(Failure::LeaseLost)?;
    let mut set = ChunkSet {
        // Neither is there only where the current set went in this very moment, and its recording
        // or its model with it.
        id: opened.kept.or(opened.building).ok_or(Failure::LeaseLost)?,
        current: opened.kept.is_some(),
        stored: Vec::new(),
        reusable: Vec::new(),
    };
    if opened.resumed {
        set.stored = stored(&mut transaction, set.id).await?;
    }
    if opened.has_others && !request.afresh {
        set.reusable = reusable(&mut transaction, key, request, set.id).await?;
    }
    transaction.commit().await?;
    Ok(set)
}

/// Indexes of the chunks that a set holds.
async fn stored(connection: &mut Session, chunk_set_id: Uuid) -> Result<Vec<u32>, Failure> {
    let stored = sqlx::query_scalar!(
        "select chunk_index from transcript_chunks where chunk_set_id = $1 order by chunk_index",
        chunk_set_id
    )
    .fetch_all(connection)
    .await?;
    Ok(stored.into_iter().map(|index| index as u32).collect())
}

/// Indexes of the chunks whose text another live set of the recording holds.
async fn reusable(
    connection: &mut Session,
    key: &RecordingKey,
    request: &ChunkSetRequest,
    chunk_set_id: Uuid,
) -> Result<Vec<u32>, Failure> {
    let hashes: Vec<&[u8]> = request.content_hashes.iter().map(|hash| hash.as_slice()).collect();
    let reusable = sqlx::query_scalar!(
        r#"select (w.position - 1)::int as "index!"
           from unnest($4::bytea[]) with ordinality as w (content_hash, position)
           where exists (
               select from transcript_chunks c
               join chunk_sets s on s.id = c.chunk_set_id
               where s.user_id = $1 and s.recording_id = $2 and s.model = $3
                 and s.state <> 'dead' and s.id <> $5 and c.content_hash = w.content_hash)
           order by 1"#,
        key.user_id,
        key.recording_id,
        request.model_name,
        &hashes as &[&[u8]],
        chunk_set_id
    )
    .fetch_all(connection)
    .await?;
    Ok(reusable.into_iter().map(|index| index as u32).collect())
}

/// The swap. The task's row is locked first: a concurrent change of the transcript either
/// committed before, and shows in the digest, or waits and opens a new task.
pub(super) async fn complete(
    pool: &Pool,
    lease: &Lease,
    chunk_set_id: Uuid,
    work: Work,
) -> Result<Completion, Failure> {
    let mut transaction = super::begin_patient(pool).await?;
    sqlx::query_scalar!(
        "select 1 from embedding_queue where id = $1 and lease_token = $2 and status = 'processing' for update",
        lease.task_id,
        lease.token
    )
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(Failure::LeaseLost)?;
    let set = sqlx::query!(
        r#"select s.user_id, s.recording_id, s.model, s.chunks_expected,
                  recording_digest(s.user_id, s.recording_id) = s.source_digest as "fits!",
                  (select count(*) from transcript_chunks c where c.chunk_set_id = s.id) as "stored!",
                  exists (select from chunk_sets o
                          where o.user_id = s.user_id and o.recording_id = s.recording_id
                            and o.model = s.model and o.state <> 'dead' and o.id <> s.id) as "has_others!"
           from chunk_sets s where s.id = $1"#,
        chunk_set_id
    )
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(Failure::RecordingDeleted)?;
    if !set.fits {
        end_attempt(&mut transaction, lease, chunk_set_id, Completion::Superseded, work).await?;
        transaction.commit().await?;
        return Ok(Completion::Superseded);
    }
    if set.stored != i64::from(set.chunks_expected) {
        let (stored, expected) = (set.stored as u64, set.chunks_expected as u64);
        return Err(Failure::Incomplete { stored, expected });
    }
    if set.has_others {
        // A statement of its own and the first, since no two sets may be current at once.
        sqlx::query!(
            "update chunk_sets set state = 'dead', died_at = clock_timestamp()
             where user_id = $1 and recording_id = $2 and model = $3 and state <> 'dead' and id <> $4",
            set.user_id,
            set.recording_id,
            set.model,
            chunk_set_id
        )
        .execute(&mut *transaction)
        .await?;
    }
    end_attempt(&mut transaction, lease, chunk_set_id, Completion::Completed, work).await?;
    transaction.commit().await?;
    Ok(Completion::Completed)
}

/// Writes what came of the attempt to its set, its task and itself. A superseded attempt is not
/// counted: its recording did nothing wrong.
async fn end_attempt(
    connection: &mut Session,
    lease: &Lease,
    chunk_set_id: Uuid,
    completion: Completion,
    work: Work,
) -> Result<(), Failure> {
    let completed = completion == Completion::Completed;
    sqlx::query!(
        "with swapped as (
             update chunk_sets set state = 'current', checked_at = clock_timestamp(),
                    completed_at = coalesce(completed_at, clock_timestamp())
             where id = $3 and $2
         ), ended as (
             update embedding_attempts set outcome = case when $2 then 'completed' else 'superseded' end,
                    ended_at = clock_timestamp(), chunks = $5, chunks_reused = $6, tokens = $7
             where id = $4 and outcome is null
         )
         update embedding_queue set
             status = case when $2 then 'completed' else 'pending' end,
             completed_at = case when $2 then clock_timestamp() end,
             attempts = case when $2 then attempts when part = 'main' then attempts - 1 else 0 end,
             recoveries = 0, recovery_requested = case when not $2 then recovery_requested end,
             afresh = case when not $2 then afresh end,
             dead_letter_permanent = false,
             last_error = null, failure_class = null, failure_fingerprint = null,
             dirty = false, lease_token = null, lease_expires_at = null, locked_at = null
         where id = $1",
        lease.task_id,
        completed,
        chunk_set_id,
        lease.attempt_id,
        work.chunks as i32,
        work.chunks_reused as i32,
        work.tokens as i64
    )
    .execute(connection)
    .await?;
    Ok(())
}
