//! `fathom_calls` and `fathom_transcripts`: the sources, read by an attempt.

use futures::TryStreamExt;

use super::connection::{Pool, Session};
use crate::domain::failure::Failure;
use crate::domain::recording::{
    Recording, RecordingKey, Segment, in_spoken_order, parse_timestamp,
};
use crate::ports::Source;

/// More text than any call has (32 MiB is about 600 hours of speech), and what one recording may
/// take of the process's memory.
pub const TRANSCRIPT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Loads a recording in one snapshot, so that the digest is of exactly these segments.
pub(super) async fn load(pool: &Pool, key: &RecordingKey) -> Result<Source, Failure> {
    let mut snapshot = super::begin_patient_snapshot(pool).await?;
    let source = read(&mut snapshot, key).await?;
    snapshot.commit().await?;
    Ok(source)
}

/// Reads a recording, and its digest, within a snapshot.
pub(super) async fn read(snapshot: &mut Session, key: &RecordingKey) -> Result<Source, Failure> {
    let call = sqlx::query!(
        r#"select c.title, c.created_at, s.segments as "segments!", s.bytes as "bytes!"
           from fathom_calls c, lateral (
               select count(*) as segments,
                      coalesce(sum(octet_length(coalesce(edited_text, text)))
                               filter (where is_deleted is not true), 0)::bigint as bytes
               from fathom_transcripts t
               where t.user_id = c.user_id and t.recording_id = c.recording_id
           ) s
           where c.user_id = $1 and c.recording_id = $2"#,
        key.user_id,
        key.recording_id,
    )
    .fetch_optional(&mut *snapshot)
    .await?
    .ok_or(Failure::RecordingDeleted)?;
    if call.segments == 0 {
        return Err(Failure::TranscriptMissing);
    }
    if call.bytes as u64 > TRANSCRIPT_BYTES_MAX {
        let (bytes, bytes_max) = (call.bytes as u64, TRANSCRIPT_BYTES_MAX);
        return Err(Failure::TranscriptTooLarge { bytes, bytes_max });
    }
    let digest = sqlx::query_scalar!(
        r#"select recording_digest($1, $2) as "digest!""#,
        key.user_id,
        key.recording_id
    )
    .fetch_one(&mut *snapshot)
    .await?;
    let segments = sqlx::query!(
        r#"select coalesce(edited_speaker_name, speaker_name) as speaker,
                  coalesce(edited_text, text, '') as "text!", timestamp
           from fathom_transcripts
           where user_id = $1 and recording_id = $2 and is_deleted is not true
           order by id"#,
        key.user_id,
        key.recording_id,
    )
    .map(|row| Segment {
        speaker: row.speaker.filter(|name| !name.trim().is_empty()),
        text: row.text,
        start_secs: row.timestamp.as_deref().and_then(parse_timestamp),
    })
    .fetch(&mut *snapshot)
    .try_collect::<Vec<_>>()
    .await?;
    let recording = Recording {
        key: key.clone(),
        title: call.title,
        created_at: call.created_at,
        segments: in_spoken_order(segments),
    };
    Ok(Source { recording, digest })
}
