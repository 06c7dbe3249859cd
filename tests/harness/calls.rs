//! Calls made for tests: small ones whose number of chunks is known, and marathons.

use std::fmt::Write;

use embedding_recovery::domain::recording::RecordingKey;
use embedding_recovery::ports::{ImportChange, ImportedRecording, ImportedSegment};

use super::TestDatabase;

pub const USER: &str = "alice";

pub fn key(recording_id: i64) -> RecordingKey {
    RecordingKey { user_id: USER.into(), recording_id }
}

/// A call of about `chunks` chunks: a turn of some 1,800 bytes is a chunk, whose first words name
/// the call and the turn.
pub fn call(recording_id: i64, chunks: usize) -> ImportedRecording {
    let segments = (0..chunks)
        .map(|turn| ImportedSegment {
            speaker_name: Some(if turn % 2 == 0 { "Ann".into() } else { "Bob".into() }),
            speaker_email: None,
            text: words(recording_id, turn, 1_800),
            timestamp: Some(format!("{:02}:{:02}:00", turn / 60, turn % 60)),
        })
        .collect();
    ImportedRecording {
        key: key(recording_id),
        title: Some(format!("Call {recording_id}")),
        created_at: "2024-05-01T10:00:00Z".parse().ok(),
        created_at_presumed: None,
        segments,
    }
}

fn words(recording_id: i64, turn: usize, bytes: usize) -> String {
    let mut text = format!("call{recording_id}turn{turn}");
    let mut word = 0;
    while text.len() < bytes {
        let _ = write!(text, " word{word}of{turn}");
        word += 1;
    }
    text.push('.');
    text
}

impl TestDatabase {
    /// Stores and enqueues calls.
    pub async fn import(&self, calls: &[ImportedRecording]) -> Vec<ImportChange> {
        let mut import = self.store.import(true);
        let mut changes = Vec::new();
        for call in calls {
            changes.push(import.store(call).await.unwrap());
        }
        changes
    }
}
