//! `embedding_jobs`: requests that enqueue recordings, and the reconciliation that needs none.

use uuid::Uuid;

use super::connection::{Pool, Session};
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::domain::trace::Traceparent;
use crate::ports::Model;

/// Recordings enqueued by one statement: small enough for any `statement_timeout`.
const PAGE_ROWS: i64 = 1_000;

/// Which recordings a job is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These, whatever their state; dead letters among them come back.
    Recordings(Vec<RecordingKey>),
    /// Those with a transcript and no current chunk set.
    Missing,
    /// All that have a transcript.
    All,
}

/// A request that enqueues recordings.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// Which recordings.
    pub selection: Selection,
    /// Only this user's.
    pub user_id: Option<String>,
    /// Added to the claim order: one step equals an hour of waiting.
    pub priority: i32,
}

/// What a job became.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct JobSummary {
    /// Row of `embedding_jobs`.
    pub job_id: Uuid,
    /// Tasks opened or joined.
    pub tasks: u64,
}

/// Opens an empty job.
pub(super) async fn create(
    connection: &mut Session,
    requested_by: &str,
    priority: i32,
) -> Result<Uuid, Failure> {
    let id = sqlx::query_scalar!(
        "insert into embedding_jobs (requested_by, priority) values ($1, $2) returning id",
        requested_by,
        priority
    )
    .fetch_one(connection)
    .await?;
    Ok(id)
}

/// Opens or joins the recordings' tasks for a job. To be called within a transaction: whoever claims one
/// must see what its trace goes back to.
pub(super) async fn add(
    connection: &mut Session,
    job_id: Uuid,
    keys: &[RecordingKey],
    priority: i32,
    revive: bool,
    trace: Option<&Traceparent>,
) -> Result<u64, Failure> {
    let users: Vec<&str> = keys.iter().map(|key| key.user_id.as_str()).collect();
    let recordings: Vec<i64> = keys.iter().map(|key| key.recording_id).collect();
    let added = sqlx::query!(
        "insert into job_tasks (job_id, task_id)
         select $1, task_id from enqueue_recordings($2, $3, $4, $5, $1) as task_id
         on conflict do nothing",
        job_id,
        &users as &[&str],
        &recordings,
        priority,
        revive
    )
    .execute(&mut *connection)
    .await?;
    if let Some(trace) = trace {
        sqlx::query!(
            "update embedding_queue q set traceparent = $3::text
             from job_tasks j
             where j.job_id = $1 and q.id = j.task_id
               and (q.user_id, q.recording_id) in (select * from unnest($2::text[], $4::bigint[]))",
            job_id,
            &users as &[&str],
            trace.as_str(),
            &recordings
        )
        .execute(connection)
        .await?;
    }
    Ok(added.rows_affected())
}

/// Enqueues a selection, page by page.
pub(super) async fn enqueue(
    pool: &Pool,
    request: &JobRequest,
    trace: Option<&Traceparent>,
) -> Result<JobSummary, Failure> {
    // Given back at once: there may be one only.
    let job_id = create(&mut pool.acquire().await?, "enqueue", request.priority).await?;
    let mut tasks = 0;
    match &request.selection {
        Selection::Recordings(keys) => {
            let mut transaction = pool.begin().await?;
            tasks += add(&mut transaction, job_id, keys, request.priority, true, trace).await?;
            transaction.commit().await?;
        }
        Selection::Missing | Selection::All => {
            let missing_only = request.selection == Selection::Missing;
            let mut after = RecordingKey { user_id: String::new(), recording_id: i64::MIN };
            loop {
                let mut transaction = pool.begin().await?;
                let keys = page(&mut transaction, &after, request.user_id.as_deref(), missing_only)
                    .await?;
                let Some(last) = keys.last().cloned() else { break };
                tasks +=
                    add(&mut transaction, job_id, &keys, request.priority, false, trace).await?;
                transaction.commit().await?;
                after = last;
            }
        }
    }
    Ok(JobSummary { job_id, tasks })
}

async fn page(
    connection: &mut Session,
    after: &RecordingKey,
    user_id: Option<&str>,
    missing_only: bool,
) -> Result<Vec<RecordingKey>, Failure> {
    let keys = sqlx::query!(
        "select c.user_id, c.recording_id from fathom_calls c
         where (c.user_id, c.recording_id) > ($1, $2)
           and ($3::text is null or c.user_id = $3)
           and exists (select from fathom_transcripts t
                       where t.user_id = c.user_id and t.recording_id = c.recording_id)
           and not ($4 and exists (select from chunk_sets s
                       join embedding_models m on m.name = s.model and m.state = 'current'
                       where s.user_id = c.user_id and s.recording_id = c.recording_id and s.state = 'current'))
         order by c.user_id, c.recording_id
         limit $5",
        after.user_id,
        after.recording_id,
        user_id,
        missing_only,
        PAGE_ROWS
    )
    .map(|row| RecordingKey { user_id: row.user_id, recording_id: row.recording_id })
    .fetch_all(connection)
    .await?;
    Ok(keys)
}

/// The recordings of this number, one for each user who holds it.
pub(super) async fn find(
    pool: &Pool,
    recording_id: i64,
    user_id: Option<&str>,
) -> Result<Vec<RecordingKey>, Failure> {
    let keys = sqlx::query!(
        "select user_id, recording_id from fathom_calls
         where recording_id = $1 and ($2::text is null or user_id = $2) order by user_id",
        recording_id,
        user_id
    )
    .map(|row| RecordingKey { user_id: row.user_id, recording_id: row.recording_id })
    .fetch_all(pool)
    .await?;
    Ok(keys)
}

/// Enqueues recordings that nobody asked for but that need it: first those without a current set,
/// then those whose transcript changed unseen. Recordings with an open task for the model are left
/// alone; for a model that is neither the current nor the next one, or while the main part is paused,
/// there is nothing to do. What an administrator discarded stays so until its transcript changes.
pub(super) async fn reconcile(pool: &Pool, model: &Model, rows_max: u32) -> Result<u64, Failure> {
    let mut transaction = super::begin_patient(pool).await?;
    let paused = sqlx::query_scalar!(r#"select is_paused('main') as "paused!""#);
    if paused.fetch_one(&mut *transaction).await? {
        return Ok(0);
    }
    let missing = enqueue_missing(&mut transaction, model, rows_max).await?;
    let changed = enqueue_changed(&mut transaction, model, rows_max).await?;
    transaction.commit().await?;
    Ok((missing + changed) as u64)
}

async fn enqueue_missing(
    connection: &mut Session,
    model: &Model,
    rows_max: u32,
) -> Result<i64, Failure> {
    let missing = sqlx::query_scalar!(
        r#"with missing as (
               select c.user_id, c.recording_id from fathom_calls c
               where tasks_of_model($1) is not null
                 and exists (select from fathom_transcripts t
                             where t.user_id = c.user_id and t.recording_id = c.recording_id)
                 and not exists (select from chunk_sets s
                             where s.user_id = c.user_id and s.recording_id = c.recording_id
                               and s.model = $1 and s.state = 'current')
                 and not exists (select from embedding_queue q
                             where q.user_id = c.user_id and q.recording_id = c.recording_id
                               and coalesce(q.for_model, '') = tasks_of_model($1) and q.status <> 'completed')
                 and not exists (select from admin_actions a
                             where a.action = 'discard' and a.user_id = c.user_id and a.recording_id = c.recording_id
                               and a.detail ->> 'digest' = recording_digest(c.user_id, c.recording_id))
               order by c.created_at desc
               limit $2
           )
           select count(opened.task_id) as "enqueued!"
           from (select array_agg(user_id) as users, array_agg(recording_id) as recordings from missing) m,
                lateral open_tasks(m.users, m.recordings, tasks_of_model($1) = '', $1, 0, false, null) as opened"#,
        model.name,
        i64::from(rows_max)
    )
    .fetch_one(connection)
    .await?;
    Ok(missing)
}

/// Compares the sets that were not looked at for the longest time with their transcripts.
async fn enqueue_changed(
    connection: &mut Session,
    model: &Model,
    rows_max: u32,
) -> Result<i64, Failure> {
    let changed = sqlx::query_scalar!(
        r#"with oldest as (
               select id from chunk_sets
               where state = 'current' and model = $1
               order by checked_at
               limit $2
               for update skip locked
           ), checked as (
               update chunk_sets s set checked_at = clock_timestamp()
               from oldest where s.id = oldest.id
               returning s.user_id, s.recording_id, s.source_digest
           ), changed as (
               select user_id, recording_id from checked c
               where recording_digest(c.user_id, c.recording_id) <> c.source_digest
                 and not exists (select from embedding_queue q
                             where q.user_id = c.user_id and q.recording_id = c.recording_id
                               and coalesce(q.for_model, '') = tasks_of_model($1) and q.status <> 'completed')
           )
           select count(opened.task_id) as "enqueued!"
           from (select array_agg(user_id) as users, array_agg(recording_id) as recordings from changed) m,
                lateral open_tasks(m.users, m.recordings, tasks_of_model($1) = '', $1, 0, false, null) as opened"#,
        model.name,
        i64::from(rows_max)
    )
    .fetch_one(connection)
    .await?;
    Ok(changed)
}
