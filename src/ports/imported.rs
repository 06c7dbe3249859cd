//! Recordings as importers read them, whatever the format.

use crate::domain::recording::RecordingKey;

/// A segment as an importer read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImportedSegment {
    /// Who speaks.
    pub speaker_name: Option<String>,
    /// The speaker's address, where the source knows it.
    pub speaker_email: Option<String>,
    /// What is said.
    pub text: String,
    /// `HH:MM:SS` from the start of the call.
    pub timestamp: Option<String>,
}

/// A recording as an importer read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedRecording {
    /// Its name.
    pub key: RecordingKey,
    /// Title of the call.
    pub title: Option<String>,
    /// When the call took place; the time of the import where the source does not say.
    pub created_at: Option<chrono::DateTime<chrono::Utc>>,
    /// When it probably took place, where the source does not say. It counts only while the
    /// recording is new, so that a file that was copied or touched changes nothing.
    pub created_at_presumed: Option<chrono::DateTime<chrono::Utc>>,
    /// Its segments, in the source's order.
    pub segments: Vec<ImportedSegment>,
}

/// What an import did to a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportChange {
    /// It was not there before.
    New,
    /// Its title, date or transcript differs.
    Changed,
    /// It is as it was.
    Unchanged,
}
