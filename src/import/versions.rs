//! One import has one version of a recording: of two that differ, the first counts and the other is
//! refused, since nobody could tell which of them was meant.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash, Hasher};

use super::Place;
use crate::ports::ImportedRecording;

/// Remembers of each recording where it came from and a digest of it: some 40 bytes.
#[derive(Debug, Default)]
pub struct Versions {
    files: Vec<String>,
    seen: HashMap<i64, Seen>,
}

#[derive(Debug)]
struct Seen {
    digest: u64,
    file: u32,
    place: Place,
}

/// What a recording is to the ones before it.
#[derive(Debug, PartialEq, Eq)]
pub enum Version {
    /// It is the first of its number.
    First,
    /// It is one of those before, word for word.
    Same,
}

impl Versions {
    /// Compares a recording of `file` with those before it.
    ///
    /// # Errors
    /// Another version of it came before; a sentence that says where.
    pub fn compare(
        &mut self,
        file: &str,
        place: Place,
        recording: &ImportedRecording,
    ) -> Result<Version, String> {
        if self.files.last().is_none_or(|last| last != file) {
            self.files.push(file.to_owned());
        }
        let mut hasher = DefaultHasher::new();
        // Without the presumed date, which is the file's.
        (&recording.title, recording.created_at, &recording.segments).hash(&mut hasher);
        let digest = hasher.finish();
        let id = recording.key.recording_id;
        match self.seen.entry(id) {
            Entry::Vacant(entry) => {
                let file = u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX);
                entry.insert(Seen { digest, file, place });
                Ok(Version::First)
            }
            Entry::Occupied(entry) if entry.get().digest == digest => Ok(Version::Same),
            Entry::Occupied(entry) => {
                let first = entry.get();
                let first_file = self.files.get(first.file as usize).map_or("", String::as_str);
                Err(format!(
                    "recording {id} came before with other words ({}); this one is left out",
                    first.place.of(first_file)
                ))
            }
        }
    }
}
