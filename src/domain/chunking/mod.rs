//! Transcript -> chunks, as ranges into the transcript, not copies.
//!
//! A chunk is what one vector stands for: about 500 tokens, cut where the speaker changes, with
//! short turns merged, because a vector of "yes" finds nothing. Sizes are bytes, at an estimated
//! 4 bytes a token; no tokenizer runs here.
//!
//! - `cut`: segments -> turns -> pieces, the units that are never divided again.
//! - this file: pieces -> chunks, and what a chunk knows about itself.
//! - `render`: chunk -> the text that is stored and the text that is embedded.

mod cut;
mod render;

use sha2::{Digest, Sha256};

use self::cut::Piece;
use super::recording::{Recording, Segment};

/// Size that a chunk's transcript heads for, its overlap included: 500 tokens.
pub const TARGET_BYTES: usize = 2_000;
/// Most that a chunk repeats of the one before it, speaker labels included: 100 tokens.
pub const OVERLAP_BYTES_MAX: usize = 400;
/// Most that a chunk's embedded text may have, header included: 1,200 tokens. A token is at least
/// one byte, so this is below the 8,192 tokens that OpenAI's models take as one input, whatever
/// the script.
pub const CHUNK_BYTES_MAX: usize = 4_800;
/// Least that a chunk holds of its own, beside the overlap, unless it is a recording's only one. It
/// follows from the rule that closes a chunk (`group`): where even the largest piece would take it
/// further from the target, it is at most half a piece short of it.
pub const OWN_BYTES_MIN: usize = TARGET_BYTES - LINE_BYTES_MAX / 2 - OVERLAP_BYTES_MAX;

/// A last chunk with less of its own than this joins the one before.
const TAIL_BYTES_MIN: usize = 800;
/// Room kept for the header line and its newline; the header is cut down to it.
const HEADER_BYTES_MAX: usize = 600;
/// What is left for the transcript itself.
const TEXT_BYTES_MAX: usize = CHUNK_BYTES_MAX - HEADER_BYTES_MAX;
/// The largest piece with its label, and the newline before it.
const LINE_BYTES_MAX: usize = 1 + render::NAME_BYTES_MAX + 2 + cut::PIECE_BYTES_MAX;

// Why no chunk needs a check against the limit: a piece is added only where that brings the chunk
// nearer to the target, which bounds it to half a piece beyond, and a tail still fits behind it.
const _: () = assert!(TARGET_BYTES + LINE_BYTES_MAX / 2 + 1 + TAIL_BYTES_MIN <= TEXT_BYTES_MAX);

/// Enters every fingerprint. Raise it to have every recording embedded anew even where its chunks
/// stay the same.
const CHUNKER_VERSION: &str = "turns-1";

/// A place in the transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Index into [`Recording::segments`].
    pub segment: usize,
    /// Byte in that segment's text, at a character's edge.
    pub byte: usize,
}

/// One chunk: an unbroken stretch of the transcript. It holds no text: its methods take the
/// recording that it was made from, and answer with less, or nothing, for another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// Its place in the recording, from 0.
    pub index: u32,
    /// Its first character, which the chunk before holds too where there is an overlap.
    pub start: Position,
    /// Its first character that no chunk before it holds. Equal to `start` without an overlap.
    pub own_start: Position,
    /// Behind its last character. The chunks' stretches `own_start..end` are the whole transcript,
    /// each word once.
    pub end: Position,
}

impl Chunk {
    /// SHA-256 of [`Chunk::embedded_text`]: two chunks of one hash and one model have one vector.
    pub fn content_hash(&self, recording: &Recording) -> [u8; 32] {
        self.content_hash_and_size(recording).0
    }

    /// [`Chunk::content_hash`], and the bytes of the text that it is of, which is put together once
    /// for both.
    pub fn content_hash_and_size(&self, recording: &Recording) -> ([u8; 32], usize) {
        let text = self.embedded_text(recording);
        (Sha256::digest(&text).into(), text.len())
    }

    /// Who speaks in it, in order of appearance, each once; names as the source has them, without
    /// white space around them. Segments without a speaker add nothing.
    pub fn speakers(&self, recording: &Recording) -> Vec<String> {
        self.speaker_names(recording).into_iter().map(String::from).collect()
    }

    fn speaker_names<'a>(&self, recording: &'a Recording) -> Vec<&'a str> {
        let mut speakers: Vec<&str> = Vec::new();
        for (segment, _) in self.spans(recording) {
            match speaker(segment) {
                // The last name first: within a turn of many segments it is nearly always that.
                Some(name) if !speakers.iter().rev().any(|known| *known == name) => {
                    speakers.push(name)
                }
                _ => {}
            }
        }
        speakers
    }

    /// When the first of its segments that has a time begins, in seconds from the start of the
    /// call.
    pub fn start_secs(&self, recording: &Recording) -> Option<u32> {
        self.spans(recording).find_map(|(segment, _)| segment.start_secs)
    }

    /// When the last of its segments that has a time begins, in seconds from the start of the call.
    pub fn end_secs(&self, recording: &Recording) -> Option<u32> {
        self.spans(recording).filter_map(|(segment, _)| segment.start_secs).last()
    }

    /// Each segment that has words in this chunk, with those words.
    fn spans<'a>(
        &self,
        recording: &'a Recording,
    ) -> impl Iterator<Item = (&'a Segment, &'a str)> + use<'a> {
        let (start, end) = (self.start, self.end);
        let segments = recording.segments.iter().enumerate();
        segments
            .take(end.segment.saturating_add(1))
            .skip(start.segment)
            .filter_map(move |(index, segment)| {
                let from = if index == start.segment { start.byte } else { 0 };
                let to = if index == end.segment { end.byte } else { segment.text.len() };
                Some((segment, segment.text.get(from..to)?))
            })
            .filter(|(_, words)| !is_blank(words))
    }
}

/// Cuts a transcript into chunks. The same recording always gives the same chunks; segments of
/// white space are skipped, and a transcript without text has no chunk. The time it takes grows
/// with the text alone, whatever the text is.
pub fn chunk(recording: &Recording) -> Vec<Chunk> {
    let pieces = cut::pieces(&recording.segments);
    let mut groups = group(&pieces);
    if let [.., before, last] = groups.as_mut_slice()
        && last.own_bytes < TAIL_BYTES_MIN
    {
        before.end = last.end;
        groups.pop();
    }
    let position = |index: usize| pieces[index].start;
    (0..)
        .zip(groups)
        .map(|(index, group)| Chunk {
            index,
            start: position(group.start),
            own_start: position(group.own_start),
            end: pieces[group.end - 1].end,
        })
        .collect()
}

/// Pieces that become one chunk: `start..own_start` is overlap, `own_start..end` its own.
struct Group {
    start: usize,
    own_start: usize,
    end: usize,
    /// Size of its own pieces as lines of text.
    own_bytes: usize,
}

/// Walks through the pieces once, closing a chunk where another piece would take it further from
/// the target. No group is empty or of overlap alone.
fn group(pieces: &[Piece]) -> Vec<Group> {
    let mut groups = Vec::new();
    let (mut start, mut own_start) = (0, 0);
    let (mut bytes, mut own_bytes) = (0, 0);
    for (index, piece) in pieces.iter().enumerate() {
        let before = pieces[start..index].last();
        let with_it = bytes + line_bytes(before, piece);
        let nearer = with_it.abs_diff(TARGET_BYTES) <= bytes.abs_diff(TARGET_BYTES);
        if !nearer && own_start < index {
            groups.push(Group { start, own_start, end: index, own_bytes });
            (start, bytes) = overlap(pieces, own_start, index);
            (own_start, own_bytes) = (index, 0);
        }
        let line = line_bytes(pieces[start..index].last(), piece);
        bytes += line;
        own_bytes += line;
    }
    if own_start < pieces.len() {
        groups.push(Group { start, own_start, end: pieces.len(), own_bytes });
    }
    groups
}

/// Where the overlap of a chunk begins that follows the pieces `own_start..end`, and its size:
/// whole turns, as many as fit. The first of those pieces is never taken, so that each chunk
/// begins behind the one before.
fn overlap(pieces: &[Piece], own_start: usize, end: usize) -> (usize, usize) {
    let (mut start, mut bytes) = (end, 0);
    while start > own_start + 1 && pieces[start - 1].whole_turn {
        let line = line_bytes(None, &pieces[start - 1]);
        // The newline between the two lines.
        let with_it = bytes + line + usize::from(bytes > 0);
        if with_it > OVERLAP_BYTES_MAX {
            break;
        }
        (start, bytes) = (start - 1, with_it);
    }
    (start, bytes)
}

/// What `piece` adds to a text that ends with `before`: never less than it really does.
fn line_bytes(before: Option<&Piece>, piece: &Piece) -> usize {
    match before {
        // Two parts of one turn share a line.
        Some(before) if before.turn == piece.turn => 1 + piece.bytes,
        Some(_) => 1 + piece.label_bytes + piece.bytes,
        None => piece.label_bytes + piece.bytes,
    }
}

/// Names exactly these chunks in this order, with the times that are stored beside them, for one
/// version of the chunker: SHA-256 as 64 hex digits. `content_hashes` are those of
/// [`Chunk::content_hash`]; `times` are each chunk's start and end.
pub fn fingerprint(content_hashes: &[[u8; 32]], times: &[(Option<u32>, Option<u32>)]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(CHUNKER_VERSION);
    for hash in content_hashes {
        hasher.update(hash);
    }
    for (start, end) in times {
        for secs in [start, end] {
            // One more than the second: 0 is no time at all.
            hasher.update(secs.map_or(0, |secs| u64::from(secs) + 1).to_le_bytes());
        }
    }
    format!("{:x}", hasher.finalize())
}

/// The segment's speaker; a name of white space is none.
fn speaker(segment: &Segment) -> Option<&str> {
    segment.speaker.as_deref().map(str::trim).filter(|name| !name.is_empty())
}

fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}
