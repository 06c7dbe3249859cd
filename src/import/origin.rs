//! Where a file comes from. A WebVTT or SubRip file names no recording: its name does.

use std::path::Path;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

/// What is known of a file besides its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its name, for messages: a path, or what stands for one.
    pub name: String,
    /// The last part of its path. `None` for a stream, whose name would say nothing lasting.
    pub file_name: Option<String>,
    /// When it was written last.
    pub modified_at: Option<DateTime<Utc>>,
    /// The number its recording is to have, where the caller decides.
    pub recording_id: Option<i64>,
    /// The title its recording is to have, where the caller decides.
    pub title: Option<String>,
    /// When its recording took place, where the caller knows.
    pub created_at: Option<DateTime<Utc>>,
}

impl Origin {
    /// What a path tells. A pipe has no lasting name, and a time of change that says nothing.
    pub fn of_path(path: &Path) -> Self {
        let name = path.display().to_string();
        let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file);
        let Some(metadata) = metadata else { return Self { name, ..Self::default() } };
        let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        // Whole seconds: what Postgres stores is coarser than what a file system does.
        let modified_at = metadata.modified().ok().map(DateTime::<Utc>::from);
        let modified_at =
            modified_at.and_then(|time| DateTime::from_timestamp(time.timestamp(), 0));
        Self { name, file_name, modified_at, ..Self::default() }
    }

    /// True where the caller decided anything about the recording.
    pub(super) fn is_decided(&self) -> bool {
        self.recording_id.is_some() || self.title.is_some() || self.created_at.is_some()
    }

    /// The number of the one recording in the file: the caller's, or the file name's where that is
    /// a number, or else one made from the file name. So the same file is the same recording
    /// wherever it lies, and in whichever of the formats.
    pub(super) fn recording_id(&self) -> Option<i64> {
        self.recording_id.or_else(|| {
            let stem = self.stem()?;
            let is_number = !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit());
            let number = stem.parse().ok().filter(|_| is_number);
            Some(number.unwrap_or_else(|| made_from(stem)))
        })
    }

    /// The title of the one recording in the file.
    pub(super) fn title(&self) -> Option<String> {
        self.title.clone().or_else(|| self.stem().map(str::to_owned))
    }

    /// The file name without the endings of its format.
    fn stem(&self) -> Option<&str> {
        let mut stem = self.file_name.as_deref()?;
        for ending in [".gz", ".vtt", ".webvtt", ".srt", ".txt"] {
            let split = stem.len().saturating_sub(ending.len());
            if split > 0
                && stem.is_char_boundary(split)
                && stem[split..].eq_ignore_ascii_case(ending)
            {
                stem = &stem[..split];
            }
        }
        Some(stem)
    }
}

/// A file of this name, whose content comes from elsewhere.
impl From<&str> for Origin {
    fn from(name: &str) -> Self {
        Self { name: name.into(), file_name: Some(name.into()), ..Self::default() }
    }
}

/// The first 53 bits of the SHA-256 of a name: never negative, far from what sources count up to,
/// and exact where numbers are doubles, as in most readers of JSON.
fn made_from(stem: &str) -> i64 {
    let digest = Sha256::digest(stem);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    (u64::from_be_bytes(first) >> 11) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_id_itself_and_any_other_name_always_gives_the_same() {
        let id = |name: &str| Origin::from(name).recording_id().unwrap_or(-1);
        assert_eq!(id("21792013.vtt"), 21_792_013);
        assert_eq!(id("21792013.srt.gz"), 21_792_013);
        // The hash of the name, worked out elsewhere: it must not change between versions.
        assert_eq!(id("kick-off.vtt"), 3_563_599_144_445_209);
        assert_eq!(id("kick-off.VTT.gz"), 3_563_599_144_445_209);
        assert_eq!(id("kick-off.srt"), 3_563_599_144_445_209);
        for other in ["kick-off.en.vtt", "2024-05-01.vtt", "99999999999999999999.vtt", ".vtt", ""] {
            assert!(id(other) > 1_000_000_000_000, "{other}: {}", id(other));
        }
        assert_eq!(Origin::default().recording_id(), None);
    }

    #[test]
    fn the_title_is_the_name_without_its_endings() {
        let title = |name: &str| Origin::from(name).title().unwrap_or_default();
        assert_eq!(title("Kick-off 1.2 é.vtt.gz"), "Kick-off 1.2 é");
        assert_eq!(title("notes.v2"), "notes.v2");
        assert_eq!(title("é"), "é");
    }
}
