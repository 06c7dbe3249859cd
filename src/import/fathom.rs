//! One recording as a JSON object, in the shape of a Fathom meeting.

use std::borrow::Cow;

use serde::Deserialize;

use crate::domain::recording::{RecordingKey, parse_timestamp};
use crate::ports::{ImportedRecording, ImportedSegment};

/// More than anybody says without a break: three hours of speech.
const SEGMENT_BYTES_MAX: usize = 1024 * 1024;
/// Warnings listed for one recording; the rest is counted.
const WARNINGS_MAX: usize = 3;

#[derive(Deserialize)]
struct Meeting {
    recording_id: i64,
    title: Option<String>,
    created_at: Option<String>,
    #[serde(default)]
    transcript: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    speaker: Option<Speaker>,
    #[serde(default)]
    text: String,
    timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Speaker {
    display_name: Option<String>,
    matched_calendar_invitee_email: Option<String>,
}

/// Reads one object; returns it with a sentence for each thing that had to be mended.
///
/// # Errors
/// A sentence that says why the recording is refused.
pub(super) fn parse(
    line: &[u8],
    user_id: &str,
) -> Result<(ImportedRecording, Vec<String>), String> {
    let mut mended = Mended::default();
    let text = match String::from_utf8_lossy(line) {
        Cow::Borrowed(text) => Cow::Borrowed(text),
        Cow::Owned(text) => {
            mended.note("invalid UTF-8 was replaced by U+FFFD".into());
            Cow::Owned(text)
        }
    };
    let meeting: Meeting = serde_json::from_str(&text)
        .map_err(|error| format!("not a recording: {}", place_only(&error)))?;
    let id = meeting.recording_id;
    if id < 0 {
        return Err(format!("recording_id {id} is negative"));
    }
    let created_at = meeting.created_at.as_deref().and_then(|text| {
        let parsed = chrono::DateTime::parse_from_rfc3339(text);
        if parsed.is_err() {
            mended.note("created_at is no RFC 3339 time; the time of the import is used".into());
        }
        parsed.ok().map(|time| time.to_utc())
    });
    let title = meeting.title.map(|title| mended.clean(title, "title"));
    let mut segments = Vec::with_capacity(meeting.transcript.len());
    for (index, line) in meeting.transcript.into_iter().enumerate() {
        segments.push(segment(line, index, &mut mended)?);
    }
    let key = RecordingKey { user_id: user_id.to_owned(), recording_id: id };
    let recording = ImportedRecording { key, title, created_at, segments };
    Ok((recording, mended.sentences(id)))
}

fn segment(line: Line, index: usize, mended: &mut Mended) -> Result<ImportedSegment, String> {
    if line.text.len() > SEGMENT_BYTES_MAX {
        return Err(format!(
            "segment {index} has {:.1} MB of text; a segment may have {} MB, three hours of speech: cut it at its speaker's turns",
            line.text.len() as f64 / 1_048_576.0,
            SEGMENT_BYTES_MAX >> 20
        ));
    }
    let timestamp = match line.timestamp {
        Some(timestamp) if parse_timestamp(&timestamp).is_some() => Some(timestamp),
        Some(_) => {
            mended.note(format!("segment {index} has a timestamp that is not HH:MM:SS; it takes the time of the one before"));
            None
        }
        None => {
            mended.note(format!(
                "segment {index} has no timestamp; it takes the time of the one before"
            ));
            None
        }
    };
    let (name, email) = match line.speaker {
        Some(speaker) => (speaker.display_name, speaker.matched_calendar_invitee_email),
        None => (None, None),
    };
    Ok(ImportedSegment {
        speaker_name: name.map(|name| mended.clean(name, "a speaker's name")),
        speaker_email: email.map(|email| mended.clean(email, "a speaker's address")),
        text: mended.clean(line.text, "the transcript"),
        timestamp,
    })
}

/// serde's message can quote the input; its place cannot.
fn place_only(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Syntax => "malformed JSON",
        serde_json::error::Category::Eof => "the JSON ends too early",
        serde_json::error::Category::Data => {
            "a field is missing or of another type (needed: recording_id, a whole number)"
        }
        serde_json::error::Category::Io => "unreadable",
    };
    format!("{kind} at column {}", error.column())
}

#[derive(Default)]
struct Mended {
    sentences: Vec<String>,
    more: usize,
}

impl Mended {
    fn note(&mut self, sentence: String) {
        if self.sentences.len() < WARNINGS_MAX {
            self.sentences.push(sentence);
        } else {
            self.more += 1;
        }
    }

    /// NUL is legal in JSON and illegal in Postgres.
    fn clean(&mut self, text: String, what: &str) -> String {
        if !text.contains('\0') {
            return text;
        }
        self.note(format!("NUL characters were removed from {what}"));
        text.replace('\0', "")
    }

    fn sentences(self, id: i64) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more of these", self.more));
        self.sentences
            .into_iter()
            .chain(more)
            .map(|sentence| format!("recording {id}: {sentence}"))
            .collect()
    }
}
