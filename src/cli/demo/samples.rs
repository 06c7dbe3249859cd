//! The sample calls that ship with the program, and the marathon that is made of them. People,
//! companies and calls are invented.

use anyhow::bail;

use crate::domain::recording::{RecordingKey, format_timestamp};
use crate::import::Recordings;
use crate::ports::{ImportedRecording, ImportedSegment};

/// JSON lines, as `import` reads them.
const CALLS: &[u8] = include_bytes!("../../../samples/calls.jsonl");
/// Owner of the demo's recordings.
pub(super) const USER: &str = "demo";

/// What is asked of the samples at the end.
pub(super) const QUESTION: &str = "why did the gate tablets stop working?";
/// The call that answers it.
const ANSWERED_BY: i64 = 1006;
/// The marathon does without these, which speak of gates: its copies would take every place.
const NOT_IN_THE_MARATHON: [i64; 3] = [1004, 1005, ANSWERED_BY];

/// Text of the marathon in bytes: more than 500 chunks.
const MARATHON_BYTES: usize = 740_000;
/// The marathon's number: the one after the last sample's.
const MARATHON_ID: i64 = 1013;
const MARATHON_TITLE: &str = "Marathon: a year read aloud";
/// Who announces the pages of the marathon.
const ANNOUNCER: &str = "Ravi Menon";
/// Segments of a page: a chunk has about ten, so that each chunk has a page's number in it and no
/// two chunks are alike.
const PAGE_SEGMENTS: usize = 6;
/// How fast people speak: 2.5 words of 6 bytes a second.
const BYTES_PER_SECOND: usize = 15;

/// The sample calls.
///
/// # Errors
/// The program was built with a faulty file.
pub(super) fn calls() -> anyhow::Result<Vec<ImportedRecording>> {
    let mut calls = Vec::new();
    for read in Recordings::read(CALLS, "the samples", USER)? {
        let read = read?;
        if !read.warnings.is_empty() {
            bail!("the samples are faulty: {}", read.warnings.join("; "));
        }
        calls.push(read.recording);
    }
    Ok(calls)
}

/// One call of more than 500 chunks: the others read aloud, page by page, again and again.
pub(super) fn marathon(calls: &[ImportedRecording]) -> ImportedRecording {
    let read: Vec<&ImportedSegment> = calls
        .iter()
        .filter(|call| !NOT_IN_THE_MARATHON.contains(&call.key.recording_id))
        .flat_map(|call| &call.segments)
        .collect();
    let mut segments: Vec<ImportedSegment> = Vec::new();
    let (mut bytes, mut secs) = (0, 0);
    let mut say = |speaker: Option<&str>, text: String| {
        bytes += text.len();
        let timestamp = Some(format_timestamp(secs));
        secs += (1 + text.len() / BYTES_PER_SECOND) as u32;
        let speaker_name = speaker.map(str::to_owned);
        segments.push(ImportedSegment { speaker_name, speaker_email: None, text, timestamp });
        bytes < MARATHON_BYTES
    };
    for (index, segment) in read.iter().cycle().enumerate() {
        if index % PAGE_SEGMENTS == 0 {
            let page = 1 + index / PAGE_SEGMENTS;
            say(Some(ANNOUNCER), format!("Page {page}, please."));
        }
        if !say(segment.speaker_name.as_deref(), segment.text.clone()) {
            break;
        }
    }
    ImportedRecording {
        key: RecordingKey { user_id: USER.into(), recording_id: MARATHON_ID },
        title: Some(MARATHON_TITLE.into()),
        created_at: calls.iter().filter_map(|call| call.created_at).max(),
        created_at_presumed: None,
        segments,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::domain::chunking;
    use crate::domain::recording::{Recording, Segment, parse_timestamp};

    fn recording(imported: &ImportedRecording) -> Recording {
        let segments = imported.segments.iter().map(|segment| Segment {
            speaker: segment.speaker_name.clone(),
            text: segment.text.clone(),
            start_secs: segment.timestamp.as_deref().and_then(parse_timestamp),
        });
        Recording {
            key: imported.key.clone(),
            title: imported.title.clone(),
            created_at: imported.created_at.expect("a date"),
            segments: segments.collect(),
        }
    }

    #[test]
    fn the_samples_are_a_dozen_calls_of_several_speakers_and_one_can_answer_the_question() {
        let calls = calls().expect("the samples");
        assert_eq!(calls.len(), 12);
        for call in &calls {
            let segments = call.segments.len();
            assert!((30..=120).contains(&segments), "{}: {segments} segments", call.key);
            let speakers: HashSet<_> =
                call.segments.iter().filter_map(|segment| segment.speaker_name.as_ref()).collect();
            assert!(speakers.len() >= 2, "{}", call.key);
        }
        let answers = calls.iter().filter(|call| call.key.recording_id == ANSWERED_BY);
        assert_eq!(answers.count(), 1);
        assert!(calls.iter().all(|call| call.key.recording_id < MARATHON_ID));
    }

    #[test]
    fn the_marathon_has_more_than_500_chunks_and_no_two_are_alike() {
        let marathon = recording(&marathon(&calls().expect("the samples")));
        let chunks = chunking::chunk(&marathon);
        assert!((500..=600).contains(&chunks.len()), "{} chunks", chunks.len());
        let hashes: HashSet<_> = chunks.iter().map(|chunk| chunk.content_hash(&marathon)).collect();
        assert_eq!(hashes.len(), chunks.len());
    }
}
