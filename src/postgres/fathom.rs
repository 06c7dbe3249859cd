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

/// Segments in one row of the answer: each row costs more than its segments do, and yet no row may
/// hold a whole call, since the driver has a row in memory twice.
const SEGMENTS_PER_ROW: i64 = 200;

/// Loads a recording.
pub(super) async fn load(pool: &Pool, key: &RecordingKey) -> Result<Source, Failure> {
    let mut transaction = super::begin_patient(pool).await?;
    let source = read(&mut transaction, key).await?;
    transaction.commit().await?;
    Ok(source)
}

/// Reads a recording and its digest in one statement, so that the digest is of exactly these
/// segments. What is too large is refused within the pages: as a condition of their join it would be
/// asked only once they were sorted and gathered.
pub(super) async fn read(connection: &mut Session, key: &RecordingKey) -> Result<Source, Failure> {
    let mut pages = sqlx::query!(
        r#"with call as materialized (
               select c.user_id, c.recording_id, c.title, c.created_at, s.segments, s.bytes,
                      case when s.bytes <= $3 then recording_digest(c.user_id, c.recording_id) end as digest
               from fathom_calls c, lateral (
                   select count(*) as segments,
                          coalesce(sum(octet_length(coalesce(edited_text, text)))
                                   filter (where is_deleted is not true), 0)::bigint as bytes
                   from fathom_transcripts t
                   where t.user_id = c.user_id and t.recording_id = c.recording_id
               ) s
               where c.user_id = $1 and c.recording_id = $2
           )
           select call.title, call.created_at, call.segments as "segments!", call.bytes as "bytes!", call.digest,
                  page.speakers as "speakers?: Vec<Option<String>>", page.texts as "texts?: Vec<String>",
                  page.timestamps as "timestamps?: Vec<Option<String>>"
           from call left join lateral (
               select position / $4 as number, array_agg(speaker order by id) as speakers,
                      array_agg(words order by id) as texts, array_agg(timestamp order by id) as timestamps
               from (select t.id, coalesce(t.edited_speaker_name, t.speaker_name) as speaker,
                            coalesce(t.edited_text, t.text, '') as words, t.timestamp,
                            row_number() over (order by t.id) - 1 as position
                     from fathom_transcripts t
                     where t.user_id = call.user_id and t.recording_id = call.recording_id
                       and t.is_deleted is not true and call.bytes <= $3) segments
               group by 1
           ) page on true
           order by page.number"#,
        key.user_id,
        key.recording_id,
        TRANSCRIPT_BYTES_MAX as i64,
        SEGMENTS_PER_ROW,
    )
    .fetch(connection);
    let first = pages.try_next().await?.ok_or(Failure::RecordingDeleted)?;
    if first.segments == 0 {
        return Err(Failure::TranscriptMissing);
    }
    let too_large =
        Failure::TranscriptTooLarge { bytes: first.bytes as u64, bytes_max: TRANSCRIPT_BYTES_MAX };
    let digest = first.digest.ok_or(too_large)?;
    let (title, created_at) = (first.title, first.created_at);
    let mut segments = Vec::with_capacity(first.segments as usize);
    let mut page = Some((first.speakers, first.texts, first.timestamps));
    while let Some((speakers, texts, timestamps)) = page {
        let (speakers, timestamps) = (speakers.unwrap_or_default(), timestamps.unwrap_or_default());
        let spoken = speakers.into_iter().zip(texts.unwrap_or_default()).zip(timestamps);
        segments.extend(spoken.map(|((speaker, text), timestamp)| Segment {
            speaker: speaker.filter(|name| !name.trim().is_empty()),
            text,
            start_secs: timestamp.as_deref().and_then(parse_timestamp),
        }));
        page = pages.try_next().await?.map(|next| (next.speakers, next.texts, next.timestamps));
    }
    let recording =
        Recording { key: key.clone(), title, created_at, segments: in_spoken_order(segments) };
    Ok(Source { recording, digest })
}
