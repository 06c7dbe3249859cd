//! Segments -> turns -> pieces. A piece is a whole turn, or a part of one that is too long; chunks
//! are made of pieces and never divide one. Long turns are cut at sentences by `text-splitter`.

use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};

use super::{Position, TARGET_BYTES, is_blank, render, speaker};
use crate::domain::recording::Segment;

/// A turn larger than this is cut: a fifth above the target, so that a turn of about a chunk's
/// size stays whole.
pub(super) const PIECE_BYTES_MAX: usize = TARGET_BYTES + TARGET_BYTES / 5;

/// A whole turn, or a part of a long one. Never blank.
#[derive(Debug)]
pub(super) struct Piece {
    /// Its first character.
    pub start: Position,
    /// Behind its last character.
    pub end: Position,
    /// Number of its turn in the recording.
    pub turn: usize,
    /// The turn is in one piece.
    pub whole_turn: bool,
    /// Size of its words as written, at most [`PIECE_BYTES_MAX`].
    pub bytes: usize,
    /// Size of the speaker's label in front of it.
    pub label_bytes: usize,
}

/// All pieces of a transcript, in order. Consecutive segments of one speaker are one turn, also
/// across segments without text; so are consecutive segments without a speaker.
pub(super) fn pieces(segments: &[Segment]) -> Vec<Piece> {
    let spoken: Vec<usize> =
        (0..segments.len()).filter(|index| !is_blank(&segments[*index].text)).collect();
    let same_speaker = |a: &usize, b: &usize| speaker(&segments[*a]) == speaker(&segments[*b]);
    let mut pieces = Vec::new();
    for (number, members) in spoken.chunk_by(same_speaker).enumerate() {
        let turn = Turn { number, members, segments };
        if turn.bytes() <= PIECE_BYTES_MAX {
            pieces.push(turn.whole());
        } else {
            turn.cut(&mut pieces);
        }
    }
    pieces
}

/// Consecutive segments of one speaker; `members` are indexes into `segments`, at least one.
struct Turn<'a> {
    number: usize,
    members: &'a [usize],
    segments: &'a [Segment],
}

impl Turn<'_> {
    /// Size of its words as written, with a space between two segments.
    fn bytes(&self) -> usize {
        let spaces = self.members.len() - 1;
        self.texts().map(render::words_bytes).sum::<usize>() + spaces
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|index| self.segments[*index].text.as_str())
    }

    fn label_bytes(&self) -> usize {
        render::label_bytes(&self.segments[self.members[0]])
    }

    fn whole(&self) -> Piece {
        let last = self.members[self.members.len() - 1];
        Piece {
            start: Position { segment: self.members[0], byte: 0 },
            end: Position { segment: last, byte: self.segments[last].text.len() },
            turn: self.number,
            whole_turn: true,
            bytes: self.bytes(),
            label_bytes: self.label_bytes(),
        }
    }

    /// Cuts it into parts of about one size, so that no scrap is left at the end. Sentences run
    /// across segments, so they are looked for in the joined text.
    fn cut(&self, pieces: &mut Vec<Piece>) {
        let mut text = String::new();
        let mut starts = Vec::with_capacity(self.members.len());
        for words in self.texts() {
            if !text.is_empty() {
                text.push(' ');
            }
            starts.push(text.len());
            text.push_str(words);
        }
        text.truncate(text.trim_end().len());
        // The segment that the byte at `offset` is in; a part's ends are never in between two.
        let member = |offset: usize| starts.partition_point(|start| *start <= offset) - 1;
        let label_bytes = self.label_bytes();
        let mut from = text.len() - text.trim_start().len();
        while from < text.len() {
            let part = &text[from..from + part_bytes(&text[from..])];
            let to = from + part.len();
            let (first, last) = (member(from), member(to - 1));
            pieces.push(Piece {
                start: Position { segment: self.members[first], byte: from - starts[first] },
                end: Position { segment: self.members[last], byte: to - starts[last] },
                turn: self.number,
                whole_turn: false,
                bytes: render::words_bytes(part),
                label_bytes,
            });
            from = text.len() - text[to..].trim_start().len();
        }
    }
}

/// Size of the next part of `text`, which begins and ends with a word: all of it where that is no
/// more than [`PIECE_BYTES_MAX`], else an equal share.
fn part_bytes(text: &str) -> usize {
    if text.len() <= PIECE_BYTES_MAX {
        return text.len();
    }
    let share = text.len() / text.len().div_ceil(TARGET_BYTES);
    end_of_sentence(text, share, share + share / 5)
}

/// Where to end the first part of `text`, which begins with a word and has more than `bytes_max`
/// bytes: behind the first sentence that reaches `bytes_wanted`, or the last that ends before it;
/// at a word, a grapheme or a character where the first sentence, word or grapheme alone is larger
/// than `bytes_max`. Above 0, and at most `bytes_max` where that is 4 or more.
pub(super) fn end_of_sentence(text: &str, bytes_wanted: usize, bytes_max: usize) -> usize {
    let config = ChunkConfig::new(bytes_wanted..=bytes_max).with_sizer(Bytes);
    // The splitter looks for sentences, words and graphemes in all that it is given, and again for
    // each part: on a long text without any it is quadratic. It gets just enough to see that what
    // crosses the limit crosses it, which makes the whole linear. (More than a character beyond
    // the limit: white space at the window's end is trimmed, and would pass for the text's end.)
    let window = &text[..text.floor_char_boundary(bytes_max + bytes_max / 8 + 4)];
    let splitter = TextSplitter::new(config);
    let first = splitter.chunk_indices(window).next();
    first
        .map(|(offset, part)| offset + part.len())
        .filter(|end| *end <= bytes_max)
        .unwrap_or_else(|| text.floor_char_boundary(bytes_max))
}

/// Measures text in bytes.
struct Bytes;

impl ChunkSizer for Bytes {
    fn size(&self, chunk: &str) -> usize {
        chunk.len()
    }
}
