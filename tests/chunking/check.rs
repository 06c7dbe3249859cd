//! Everything that is promised of any recording's chunks, checked from their ranges alone, without
//! the code under test where that is possible.

use chrono::DateTime;
use embedding_recovery::domain::chunking::{
    CHUNK_BYTES_MAX, Chunk, OVERLAP_BYTES_MAX, OWN_BYTES_MIN, Position, chunk,
};
use embedding_recovery::domain::recording::{Recording, RecordingKey, Segment};
use proptest::prelude::*;

pub fn recording(segments: Vec<Segment>) -> Recording {
    Recording {
        key: RecordingKey { user_id: "u".into(), recording_id: 1 },
        title: Some("Weekly".into()),
        created_at: DateTime::from_timestamp(1_714_557_600, 0).expect("a valid time"),
        segments,
    }
}

pub fn segment(speaker: &str, text: &str) -> Segment {
    Segment { speaker: Some(speaker.into()), text: text.into(), start_secs: None }
}

/// The parts of the segments between two places, white space only left out.
fn between(recording: &Recording, from: Position, to: Position) -> Vec<(&Segment, &str)> {
    let mut parts = Vec::new();
    for index in from.segment..=to.segment {
        let segment = &recording.segments[index];
        let start = if index == from.segment { from.byte } else { 0 };
        let end = if index == to.segment { to.byte } else { segment.text.len() };
        let part = &segment.text[start..end];
        if !part.trim().is_empty() {
            parts.push((segment, part));
        }
    }
    parts
}

fn without_space(text: &str) -> String {
    text.split_whitespace().collect()
}

fn name(segment: &Segment) -> Option<&str> {
    segment.speaker.as_deref().map(str::trim).filter(|name| !name.is_empty())
}

/// Checks one recording's chunks against everything that is promised of them.
pub fn check(recording: &Recording) -> Result<Vec<Chunk>, TestCaseError> {
    let chunks = chunk(recording);
    prop_assert_eq!(&chunks, &chunk(recording), "deterministic");
    let mut own = String::new();
    for (index, chunk) in chunks.iter().enumerate() {
        prop_assert_eq!(chunk.index as usize, index);
        prop_assert!(chunk.start <= chunk.own_start && chunk.own_start < chunk.end, "order kept");
        check_text(recording, chunk)?;
        let own_parts = between(recording, chunk.own_start, chunk.end);
        let own_text: String = own_parts.iter().map(|(_, part)| without_space(part)).collect();
        prop_assert!(!own_text.is_empty(), "never overlap alone");
        own.push_str(&own_text);
        check_overlap(recording, chunk, index.checked_sub(1).map(|before| &chunks[before]))?;
    }
    let said: String = recording.segments.iter().map(|part| without_space(&part.text)).collect();
    prop_assert!(own == said, "no word lost, none twice, order kept");
    Ok(chunks)
}

/// The chunk's texts hold its words in order, a line a turn, with the right speakers and times.
fn check_text(recording: &Recording, chunk: &Chunk) -> Result<(), TestCaseError> {
    let parts = between(recording, chunk.start, chunk.end);
    let text = chunk.text(recording);
    let embedded = chunk.embedded_text(recording);
    prop_assert!(embedded.len() <= CHUNK_BYTES_MAX, "{} bytes", embedded.len());
    let (header, rest) = embedded.split_once('\n').expect("a header line");
    prop_assert_eq!(rest, &text);
    prop_assert_eq!(Chunk::text_within(embedded.clone()), text.as_str());
    prop_assert!(header.contains(&recording.created_at.format("%Y-%m-%d").to_string()));

    let turns: Vec<_> = parts.chunk_by(|a, b| name(a.0) == name(b.0)).collect();
    let lines: Vec<&str> = text.split('\n').collect();
    prop_assert_eq!(lines.len(), turns.len(), "a line a turn");
    for (line, turn) in lines.iter().zip(&turns) {
        let words: Vec<&str> = turn.iter().flat_map(|(_, part)| part.split_whitespace()).collect();
        let words = words.join(" ");
        match name(turn[0].0) {
            None => prop_assert_eq!(line, &words),
            Some(name) => {
                prop_assert!(line.ends_with(&format!(": {words}")), "{line} lacks {words}");
                let label = &line[..line.len() - words.len() - 2];
                let flat = name.split_whitespace().collect::<Vec<_>>().join(" ");
                let start = label.strip_suffix('…').unwrap_or(label);
                prop_assert!(flat.starts_with(start) && label.len() <= 80, "{label} is {name}");
                prop_assert!(label.ends_with('…') || label == flat);
            }
        }
    }
    let mut speakers: Vec<&str> = Vec::new();
    for name in parts.iter().filter_map(|(segment, _)| name(segment)) {
        if !speakers.contains(&name) {
            speakers.push(name);
        }
    }
    prop_assert_eq!(chunk.speakers(recording), speakers);
    let times: Vec<u32> = parts.iter().filter_map(|(segment, _)| segment.start_secs).collect();
    prop_assert_eq!(chunk.start_secs(recording), times.first().copied());
    prop_assert_eq!(chunk.end_secs(recording), times.last().copied());
    Ok(())
}

/// An overlap is whole turns that end the chunk before and are its own, and it is small.
fn check_overlap(
    recording: &Recording,
    chunk: &Chunk,
    before: Option<&Chunk>,
) -> Result<(), TestCaseError> {
    let Some(before) = before else {
        prop_assert_eq!(chunk.start, chunk.own_start);
        return Ok(());
    };
    prop_assert!(chunk.start > before.own_start && chunk.own_start >= before.end);
    if chunk.start < chunk.own_start {
        let overlap = Chunk { end: before.end, ..chunk.clone() };
        let text = overlap.text(recording);
        prop_assert!(text.len() <= OVERLAP_BYTES_MAX, "{} bytes of overlap", text.len());
        prop_assert!(before.text(recording).ends_with(&format!("\n{text}")), "whole turns");
        prop_assert_eq!(chunk.start.byte, 0);
        let next = between(recording, chunk.own_start, chunk.end)[0];
        let last =
            between(recording, chunk.start, before.end).last().map(|(segment, _)| name(segment));
        prop_assert!(last != Some(name(next.0)), "the overlap's last turn is over");
    }
    // Standing alone, it lacks the newline or the space before it that the chunker counts.
    let own = Chunk { start: chunk.own_start, ..chunk.clone() }.text(recording);
    prop_assert!(own.len() + 2 >= OWN_BYTES_MIN, "only {} bytes of its own", own.len());
    Ok(())
}
