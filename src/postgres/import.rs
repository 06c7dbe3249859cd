//! Writes imported recordings into the source tables, so that importing again changes nothing.

use uuid::Uuid;

use super::connection::{Pool, Session};
use super::embedding_jobs;
use crate::domain::failure::Failure;
use crate::domain::recording::RecordingKey;
use crate::domain::trace::Traceparent;
use crate::ports::{ImportChange, ImportedRecording, ImportedSegment};

/// One import: a transaction for each recording, and one job for all that changed.
#[derive(Debug)]
pub struct Import {
    pool: Pool,
    enqueue: bool,
    trace: Option<Traceparent>,
    job_id: Option<Uuid>,
}

impl Import {
    pub(super) fn new(pool: Pool, enqueue: bool, trace: Option<Traceparent>) -> Self {
        Self { pool, enqueue, trace, job_id: None }
    }

    /// The job that the changed recordings were enqueued for, once there is one.
    pub fn job_id(&self) -> Option<Uuid> {
        self.job_id
    }

    /// What [`Import::store`] would do; nothing is written.
    ///
    /// # Errors
    /// The database's failure.
    pub async fn compare(&self, recording: &ImportedRecording) -> Result<ImportChange, Failure> {
        let mut snapshot = self
            .pool
            .begin_with("begin transaction isolation level repeatable read read only")
            .await?;
        let call_differs = sqlx::query_scalar!(
            r#"select (title is distinct from $3 or created_at is distinct from coalesce($4, created_at)) as "differs!"
               from fathom_calls where user_id = $1 and recording_id = $2"#,
            recording.key.user_id,
            recording.key.recording_id,
            recording.title,
            recording.created_at
        )
        .fetch_optional(&mut *snapshot)
        .await?;
        let Some(call_differs) = call_differs else { return Ok(ImportChange::New) };
        let stored = stored_segments(&mut snapshot, &recording.key).await?;
        let same = !call_differs
            && stored.len() == recording.segments.len()
            && stored.iter().zip(&recording.segments).all(|(row, segment)| row.holds(segment));
        snapshot.commit().await?;
        Ok(if same { ImportChange::Unchanged } else { ImportChange::Changed })
    }

    /// Stores one recording with its task, or nothing of it.
    ///
    /// # Errors
    /// The database's failure; recordings stored before stay.
    pub async fn store(&mut self, recording: &ImportedRecording) -> Result<ImportChange, Failure> {
        let mut transaction = self.pool.begin().await?;
        // The triggers would enqueue by themselves; here the job does.
        sqlx::query!("select set_config('embedding_recovery.enqueue', 'off', true)")
            .fetch_one(&mut *transaction)
            .await?;
        let call = store_call(&mut transaction, recording).await?;
        let segments =
            store_segments(&mut transaction, &recording.key, &recording.segments).await?;
        let change = match call {
            ImportChange::Unchanged if segments => ImportChange::Changed,
            change => change,
        };
        let mut job_id = self.job_id;
        if self.enqueue && change != ImportChange::Unchanged {
            let job = match job_id {
                Some(job) => job,
                None => embedding_jobs::create(&mut transaction, "import", 0).await?,
            };
            let key = std::slice::from_ref(&recording.key);
            embedding_jobs::add(&mut transaction, job, key, 0, true, self.trace.as_ref()).await?;
            job_id = Some(job);
        }
        transaction.commit().await?;
        self.job_id = job_id;
        Ok(change)
    }
}

async fn store_call(
    connection: &mut Session,
    recording: &ImportedRecording,
) -> Result<ImportChange, Failure> {
    let inserted = sqlx::query!(
        "insert into fathom_calls (user_id, recording_id, title, created_at)
         values ($1, $2, $3, coalesce($4, $5, now()))
         on conflict (user_id, recording_id) do nothing",
        recording.key.user_id,
        recording.key.recording_id,
        recording.title,
        recording.created_at,
        recording.created_at_presumed
    )
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(ImportChange::New);
    }
    let updated = sqlx::query!(
        "update fathom_calls set title = $3, created_at = coalesce($4, created_at)
         where user_id = $1 and recording_id = $2
           and (title is distinct from $3 or created_at is distinct from coalesce($4, created_at))",
        recording.key.user_id,
        recording.key.recording_id,
        recording.title,
        recording.created_at
    )
    .execute(&mut *connection)
    .await?;
    Ok(if updated.rows_affected() == 1 { ImportChange::Changed } else { ImportChange::Unchanged })
}

/// A segment as it is stored, edits of users left out.
struct StoredSegment {
    id: i64,
    speaker_name: Option<String>,
    speaker_email: Option<String>,
    text: Option<String>,
    timestamp: Option<String>,
}

impl StoredSegment {
    fn holds(&self, segment: &ImportedSegment) -> bool {
        self.speaker_name == segment.speaker_name
            && self.speaker_email == segment.speaker_email
            && self.text.as_deref() == Some(segment.text.as_str())
            && self.timestamp == segment.timestamp
    }
}

async fn stored_segments(
    connection: &mut Session,
    key: &RecordingKey,
) -> Result<Vec<StoredSegment>, Failure> {
    let stored = sqlx::query_as!(
        StoredSegment,
        "select id, speaker_name, speaker_email, text, timestamp from fathom_transcripts
         where user_id = $1 and recording_id = $2 order by id",
        key.user_id,
        key.recording_id
    )
    .fetch_all(connection)
    .await?;
    Ok(stored)
}

/// Brings the stored segments in line, place by place: only rows that differ are touched, so that
/// edits made here to the others stay. True where any differed.
async fn store_segments(
    connection: &mut Session,
    key: &RecordingKey,
    segments: &[ImportedSegment],
) -> Result<bool, Failure> {
    // Two imports of one recording at once would both see nothing and insert twice.
    sqlx::query!(
        "select 1 as locked from fathom_calls where user_id = $1 and recording_id = $2 for update",
        key.user_id,
        key.recording_id
    )
    .fetch_one(&mut *connection)
    .await?;
    let stored = stored_segments(connection, key).await?;
    let mut changed = false;
    for (row, segment) in stored.iter().zip(segments) {
        if row.holds(segment) {
            continue;
        }
        changed = true;
        sqlx::query!(
            "update fathom_transcripts
             set speaker_name = $2, speaker_email = $3, text = $4, timestamp = $5,
                 edited_text = null, edited_speaker_name = null
             where id = $1",
            row.id,
            segment.speaker_name,
            segment.speaker_email,
            segment.text,
            segment.timestamp
        )
        .execute(&mut *connection)
        .await?;
    }
    let surplus: Vec<i64> = stored.iter().skip(segments.len()).map(|row| row.id).collect();
    sqlx::query!("delete from fathom_transcripts where id = any($1)", &surplus)
        .execute(&mut *connection)
        .await?;
    let added = segments.get(stored.len()..).unwrap_or_default();
    insert_segments(connection, key, added).await?;
    Ok(changed || !surplus.is_empty() || !added.is_empty())
}

async fn insert_segments(
    connection: &mut Session,
    key: &RecordingKey,
    segments: &[ImportedSegment],
) -> Result<(), Failure> {
    let names: Vec<Option<&str>> = segments.iter().map(|s| s.speaker_name.as_deref()).collect();
    let emails: Vec<Option<&str>> = segments.iter().map(|s| s.speaker_email.as_deref()).collect();
    let texts: Vec<&str> = segments.iter().map(|s| s.text.as_str()).collect();
    let timestamps: Vec<Option<&str>> = segments.iter().map(|s| s.timestamp.as_deref()).collect();
    sqlx::query!(
        "insert into fathom_transcripts (user_id, recording_id, speaker_name, speaker_email, text, timestamp)
         select $1, $2, s.speaker_name, s.speaker_email, s.text, s.timestamp
         from unnest($3::text[], $4::text[], $5::text[], $6::text[]) with ordinality
              as s (speaker_name, speaker_email, text, timestamp, position)
         order by s.position",
        key.user_id,
        key.recording_id,
        &names as &[Option<&str>],
        &emails as &[Option<&str>],
        &texts as &[&str],
        &timestamps as &[Option<&str>]
    )
    .execute(&mut *connection)
    .await?;
    Ok(())
}
