//! Whether search sees what was said: the chunks of each current set against those that its transcript
//! makes now, by content.

use uuid::Uuid;

use super::super::connection::{Pool, Session};
use super::{VIOLATIONS_MAX, Violation, snapshot};
use crate::domain::chunking::chunk;
use crate::domain::failure::Failure;
use crate::domain::recording::{Recording, RecordingKey};
use crate::postgres::fathom;

/// Sets of one snapshot. They are compared one after another: one transcript is held at a time.
const PAGE_SETS: i64 = 100;

/// A current set.
struct CurrentSet {
    id: Uuid,
    key: RecordingKey,
    source_digest: String,
}

/// Finds current sets whose chunks are not those of their transcript, in content and order. A set whose
/// transcript changed since is passed over: it is being replaced, or will be at the next tick.
pub(super) async fn other_than_transcript(pool: &Pool) -> Result<Vec<Violation>, Failure> {
    let mut violations = Vec::new();
    let mut last = Uuid::nil();
    loop {
        let mut snapshot = snapshot(pool).await?;
        let page = current_sets(&mut snapshot, last).await?;
        for set in &page {
            if let Some(detail) = difference(&mut snapshot, set).await? {
                violations.push(Violation {
                    invariant: "a set's chunks are those of its transcript",
                    user_id: set.key.user_id.clone(),
                    recording_id: set.key.recording_id,
                    detail,
                });
            }
        }
        snapshot.commit().await?;
        match page.last() {
            Some(set) if violations.len() < VIOLATIONS_MAX as usize => last = set.id,
            _ => break,
        }
    }
    violations.truncate(VIOLATIONS_MAX as usize);
    Ok(violations)
}

/// The page behind the set `last`, by id. The nil id stands before all.
async fn current_sets(connection: &mut Session, last: Uuid) -> Result<Vec<CurrentSet>, Failure> {
    let sets = sqlx::query!(
        "select id, user_id, recording_id, source_digest from chunk_sets
         where state = 'current' and id > $1
           and model in (select name from embedding_models where state in ('current', 'next'))
         order by id limit $2",
        last,
        PAGE_SETS
    )
    .map(|row| CurrentSet {
        id: row.id,
        key: RecordingKey { user_id: row.user_id, recording_id: row.recording_id },
        source_digest: row.source_digest,
    })
    .fetch_all(connection)
    .await?;
    Ok(sets)
}

async fn difference(connection: &mut Session, set: &CurrentSet) -> Result<Option<String>, Failure> {
    let source = match fathom::read(connection, &set.key).await {
        Ok(source) if source.digest == set.source_digest => source,
        // Nothing to compare with, or no longer.
        Ok(_)
        | Err(
            Failure::RecordingDeleted
            | Failure::TranscriptMissing
            | Failure::TranscriptTooLarge { .. },
        ) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let stored = sqlx::query_scalar!(
        r#"select content_hash as "content_hash!" from transcript_chunks
           where chunk_set_id = $1 order by chunk_index"#,
        set.id
    )
    .fetch_all(connection)
    .await?;
    // A marathon call takes a while.
    let expected = tokio::task::spawn_blocking(move || content_hashes(&source.recording))
        .await
        .map_err(|_| Failure::Panicked)?;
    Ok(if stored.len() != expected.len() {
        Some(format!("{} chunks, and the transcript makes {}", stored.len(), expected.len()))
    } else {
        let other = stored.iter().zip(&expected).position(|(stored, expected)| stored != expected);
        other.map(|index| format!("chunk {index} is not that of the transcript"))
    })
}

fn content_hashes(recording: &Recording) -> Vec<[u8; 32]> {
    chunk(recording).iter().map(|chunk| chunk.content_hash(recording)).collect()
}
