//! A WebVTT or SubRip file: one recording, a segment for each speaker of each cue.

use std::io::BufRead;

use super::cues::{Cue, Cues, Dialect};
use super::mend::{Mended, SEGMENTS_MAX, too_many_segments};
use super::origin::Origin;
use super::speech::{self, Speech};
use super::{RECORDING_BYTES_MAX, too_long};
use crate::domain::recording::{RecordingKey, format_timestamp, parse_timestamp};
use crate::ports::{ImportedRecording, ImportedSegment};

/// What one speaker says, with the line and the time of its cue.
struct Said {
    speech: Speech,
    line: u64,
    timestamp: Option<String>,
}

/// Reads the recording; returns it with a sentence for each thing that had to be mended.
///
/// # Errors
/// A sentence that says why it is refused. Nothing of it is stored then: a part would look like the
/// whole.
pub(super) fn read(
    reader: impl BufRead,
    dialect: Dialect,
    origin: &Origin,
    user_id: &str,
) -> Result<(ImportedRecording, Vec<String>), String> {
    let Some(recording_id) = origin.recording_id() else {
        return Err("WebVTT and SubRip name no recording, and no file name does: give it a number with --recording-id, and a --title".into());
    };
    if recording_id < 0 {
        return Err(format!("recording_id {recording_id} is negative"));
    }
    let mut mended = Mended::default();
    let mut said = said(reader, dialect, &mut mended)?;
    if said.is_empty() {
        return Err("there is no cue with words in it".into());
    }
    speech::name_by_prefix(said.iter_mut().map(|said| &mut said.speech));
    if said.iter().all(|said| said.speech.speaker.is_none()) {
        mended.note("no cue names its speaker; it is stored without".into());
    }
    let mut segments = Vec::with_capacity(said.len());
    for Said { speech, line, timestamp } in said {
        let segment = ImportedSegment {
            speaker_name: speech.speaker,
            speaker_email: None,
            text: speech.text,
            timestamp,
        };
        segments.push(mended.segment(segment, || format!("the cue on line {line}"))?);
    }
    let title = origin.title().map(|title| mended.clean(title, "title"));
    let recording = ImportedRecording {
        key: RecordingKey { user_id: user_id.to_owned(), recording_id },
        title,
        created_at: origin.created_at,
        created_at_presumed: origin.modified_at,
        segments,
    };
    Ok((recording, mended.sentences(recording_id)))
}

fn said(reader: impl BufRead, dialect: Dialect, mended: &mut Mended) -> Result<Vec<Said>, String> {
    let mut bounded = reader.take(RECORDING_BYTES_MAX as u64 + 1);
    let mut cues = Cues::new(&mut bounded, dialect);
    let mut said: Vec<Said> = Vec::new();
    while let Some(cue) = cues.next(mended)? {
        add(&mut said, cue);
        if said.len() > SEGMENTS_MAX {
            return Err(too_many_segments(said.len()));
        }
    }
    match bounded.limit() {
        0 => Err(too_long()),
        _ => Ok(said),
    }
}

fn add(said: &mut Vec<Said>, cue: Cue) {
    let Cue { line, start_secs, text, continues } = cue;
    let timestamp = start_secs.map(format_timestamp).filter(|time| parse_timestamp(time).is_some());
    for (index, speech) in speech::of_cue(&text).into_iter().enumerate() {
        match said.last_mut() {
            Some(before) if continues && index == 0 && speech.speaker.is_none() => {
                before.speech.text.push(' ');
                before.speech.text.push_str(&speech.text);
            }
            _ => said.push(Said { speech, line, timestamp: timestamp.clone() }),
        }
    }
}
