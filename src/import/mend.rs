//! What every format has in common: how large a segment may be, what is mended and what is said of
//! it.

use crate::domain::recording::parse_timestamp;
use crate::ports::ImportedSegment;

/// More than anybody says without a break: three hours of speech.
pub(super) const SEGMENT_BYTES_MAX: usize = 1024 * 1024;
/// More than any call has: a turn each second for a day.
pub(super) const SEGMENTS_MAX: usize = 100_000;
/// Warnings listed for one recording; the rest is counted.
const WARNINGS_MAX: usize = 3;

/// Takes the segments of one recording, mends what can be mended and remembers what it was.
#[derive(Debug, Default)]
pub(super) struct Mended {
    sentences: Vec<String>,
    more: usize,
}

impl Mended {
    /// Remembers a sentence about something that was mended.
    pub(super) fn note(&mut self, sentence: String) {
        if self.sentences.len() < WARNINGS_MAX {
            self.sentences.push(sentence);
        } else {
            self.more += 1;
        }
    }

    /// Removes NUL, which Postgres cannot store.
    pub(super) fn clean(&mut self, text: String, what: &str) -> String {
        if !text.contains('\0') {
            return text;
        }
        self.note(format!("NUL characters were removed from {what}"));
        text.replace('\0', "")
    }

    /// The bytes as text, with what is no UTF-8 replaced.
    pub(super) fn text(&mut self, bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap_or_else(|error| {
            self.note("invalid UTF-8 was replaced by U+FFFD".into());
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        })
    }

    /// Mends one segment; `place` names it, as in "segment 3".
    ///
    /// # Errors
    /// It is too large.
    pub(super) fn segment(
        &mut self,
        segment: ImportedSegment,
        place: impl Fn() -> String,
    ) -> Result<ImportedSegment, String> {
        if segment.text.len() > SEGMENT_BYTES_MAX {
            return Err(format!(
                "{} has {:.1} MB of text; a segment may have {} MB, three hours of speech: cut it at its speaker's turns",
                place(),
                segment.text.len() as f64 / 1_048_576.0,
                SEGMENT_BYTES_MAX >> 20
            ));
        }
        let wrong = match &segment.timestamp {
            Some(timestamp) if parse_timestamp(timestamp).is_some() => None,
            Some(_) => Some("a timestamp that is not HH:MM:SS"),
            None => Some("no timestamp"),
        };
        if let Some(wrong) = wrong {
            self.note(format!("{} has {wrong}; it takes the time of the one before", place()));
        }
        Ok(ImportedSegment {
            speaker_name: segment.speaker_name.map(|name| self.clean(name, "a speaker's name")),
            speaker_email: segment
                .speaker_email
                .map(|email| self.clean(email, "a speaker's address")),
            text: self.clean(segment.text, "the transcript"),
            timestamp: segment.timestamp.filter(|_| wrong.is_none()),
        })
    }

    /// All that was mended, a sentence each, at most a few.
    pub(super) fn sentences(self, recording_id: i64) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more of these", self.more));
        self.sentences
            .into_iter()
            .chain(more)
            .map(|sentence| format!("recording {recording_id}: {sentence}"))
            .collect()
    }
}

/// Why a recording with so many segments is refused.
pub(super) fn too_many_segments(segments: usize) -> String {
    format!(
        "{segments} segments; a recording may have {SEGMENTS_MAX}, one each second for a day: split it"
    )
}
