//! One recording as a JSON object, in the shape of a Fathom meeting.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::mend::{Mended, SEGMENTS_MAX, too_many_segments};
use crate::domain::recording::RecordingKey;
use crate::ports::{ImportedRecording, ImportedSegment};

#[derive(Deserialize)]
struct Meeting {
    recording_id: i64,
    title: Option<String>,
    /// Name of the calendar event; `title` is what the user sees.
    meeting_title: Option<String>,
    created_at: Option<String>,
    recording_start_time: Option<String>,
    transcript: Option<Transcript>,
}

#[derive(Deserialize)]
struct Line {
    speaker: Option<Speaker>,
    text: Option<String>,
    timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Speaker {
    display_name: Option<String>,
    matched_calendar_invitee_email: Option<String>,
}

/// The segments up to the bound, and how many there are: a line of JSON holds ten million empty
/// ones, which would take gigabytes here.
struct Transcript {
    lines: Vec<Line>,
    total: usize,
}

impl<'de> Deserialize<'de> for Transcript {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Transcript;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a list of segments")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Transcript, A::Error> {
                let mut lines = Vec::new();
                while lines.len() < SEGMENTS_MAX
                    && let Some(line) = list.next_element()?
                {
                    lines.push(line);
                }
                let mut total = lines.len();
                if total == SEGMENTS_MAX {
                    while list.next_element::<IgnoredAny>()?.is_some() {
                        total += 1;
                    }
                }
                Ok(Transcript { lines, total })
            }
        }
        deserializer.deserialize_seq(Bounded)
    }
}

/// Reads one object; returns it with a sentence for each thing that had to be mended.
///
/// # Errors
/// A sentence that says why the recording is refused.
pub(super) fn parse(
    object: Vec<u8>,
    user_id: &str,
) -> Result<(ImportedRecording, Vec<String>), String> {
    let mut mended = Mended::default();
    let text = mended.text(object);
    let meeting: Meeting = serde_json::from_str(&text)
        .map_err(|error| format!("not a recording: {}", place_only(&error)))?;
    drop(text);
    let id = meeting.recording_id;
    if id < 0 {
        return Err(format!("recording_id {id} is negative"));
    }
    // Stored without one, it would take away the transcript that an earlier import brought.
    let Some(transcript) = meeting.transcript else {
        return Err(format!(
            "recording {id} has no transcript: ask Fathom with include_transcript=true, or wait until it has made one"
        ));
    };
    if transcript.total > SEGMENTS_MAX {
        return Err(format!("recording {id} has {}", too_many_segments(transcript.total)));
    }
    let created_at = meeting.created_at.or(meeting.recording_start_time).and_then(|text| {
        let parsed = chrono::DateTime::parse_from_rfc3339(&text);
        if parsed.is_err() {
            mended.note("created_at is no RFC 3339 time; the time of the import is used".into());
        }
        parsed.ok().map(|time| time.to_utc())
    });
    let title = meeting.title.or(meeting.meeting_title);
    let title = title.map(|title| mended.clean(title, "title"));
    let mut segments = Vec::with_capacity(transcript.lines.len());
    for (index, line) in transcript.lines.into_iter().enumerate() {
        segments.push(mended.segment(segment(line), || format!("segment {index}"))?);
    }
    let key = RecordingKey { user_id: user_id.to_owned(), recording_id: id };
    let recording =
        ImportedRecording { key, title, created_at, created_at_presumed: None, segments };
    Ok((recording, mended.sentences(id)))
}

fn segment(line: Line) -> ImportedSegment {
    let (speaker_name, speaker_email) = match line.speaker {
        Some(speaker) => (speaker.display_name, speaker.matched_calendar_invitee_email),
        None => (None, None),
    };
    let text = line.text.unwrap_or_default();
    ImportedSegment { speaker_name, speaker_email, text, timestamp: line.timestamp }
}

/// serde's message can quote the input; its place cannot.
fn place_only(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Syntax => "malformed JSON",
        serde_json::error::Category::Eof => "the JSON ends too early",
        serde_json::error::Category::Data => {
            "a field is missing, doubled or of another type (needed: recording_id, a whole number)"
        }
        serde_json::error::Category::Io => "unreadable",
    };
    let line = error.line();
    let line = if line > 1 { format!("its line {line}, ") } else { String::new() };
    format!("{kind} at {line}column {}", error.column())
}
