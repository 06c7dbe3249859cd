//! Chunk -> text: what is stored (the transcript alone) and what is embedded (a header line first,
//! since a vector should also find "what did Ann say in the May review").
//!
//! The 4,800 bytes hold whatever the source has for a title and for names: white space in them is
//! flattened, a title is cut to 200 bytes, a name to 80, both with an ellipsis, and the header
//! names speakers up to 320 bytes and then says how many more there are.

use std::borrow::Cow;

use super::{Chunk, HEADER_BYTES_MAX, TARGET_BYTES, cut, speaker};
use crate::domain::recording::{Recording, Segment};

/// Most of a speaker's name that is written, in a line or in the header.
pub(super) const NAME_BYTES_MAX: usize = 80;
/// Most of the title that is written.
const TITLE_BYTES_MAX: usize = 200;
/// Most that all names in the header take together.
const NAMES_BYTES_MAX: usize = 320;
/// `" and 18446744073709551615 more"`.
const MORE_BYTES_MAX: usize = 30;
/// chrono's last year has six digits and a sign.
const DATE_BYTES_MAX: usize = "+262142-12-31".len();
const SEPARATOR: &str = " | ";
const ELLIPSIS: &str = "…";
/// Between a name and the words.
const LABEL_END: &str = ": ";

const _: () = assert!(
    TITLE_BYTES_MAX
        + DATE_BYTES_MAX
        + NAMES_BYTES_MAX
        + MORE_BYTES_MAX
        + 2 * SEPARATOR.len()
        + "\n".len()
        <= HEADER_BYTES_MAX
);

impl Chunk {
    /// The transcript of this chunk: a line `Speaker: words` for each turn, just the words for a
    /// turn without a speaker. A turn cut in two repeats its speaker. White space between words,
    /// newlines too, becomes one space, so that a line is always a turn.
    pub fn text(&self, recording: &Recording) -> String {
        let mut text = String::with_capacity(TARGET_BYTES + NAME_BYTES_MAX);
        self.write_text(recording, &mut text);
        text
    }

    /// What is embedded: one line `Title | YYYY-MM-DD | Speaker, Speaker` (without the parts that
    /// the call lacks), then [`Chunk::text`]. At most [`super::CHUNK_BYTES_MAX`] bytes.
    pub fn embedded_text(&self, recording: &Recording) -> String {
        let mut text = self.header(recording);
        text.reserve(TARGET_BYTES + NAME_BYTES_MAX);
        text.push('\n');
        self.write_text(recording, &mut text);
        text
    }

    /// [`Chunk::text`] out of [`Chunk::embedded_text`], in place: all but the header line.
    pub fn text_within(mut embedded: String) -> String {
        let header_bytes = embedded.find('\n').map_or(0, |newline| newline + 1);
        embedded.drain(..header_bytes);
        embedded
    }

    fn write_text(&self, recording: &Recording, text: &mut String) {
        let mut last: Option<Option<&str>> = None;
        for (segment, words) in self.spans(recording) {
            let speaker = speaker(segment);
            if last == Some(speaker) {
                text.push(' ');
            } else {
                if last.is_some() {
                    text.push('\n');
                }
                push_label(text, segment);
            }
            last = Some(speaker);
            push_words(text, words);
        }
    }

    fn header(&self, recording: &Recording) -> String {
        let title = shortened(recording.title.as_deref().unwrap_or_default(), TITLE_BYTES_MAX);
        let date = recording.created_at.date_naive().to_string();
        let names = names(&self.speaker_names(recording));
        let parts = [title.into_owned(), date, names];
        let present: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        present.join(SEPARATOR)
    }
}

/// `"Ann, Bob and 3 more"`.
fn names(speakers: &[&str]) -> String {
    let mut names = String::new();
    for (written, speaker) in speakers.iter().enumerate() {
        let name = shortened(speaker, NAME_BYTES_MAX);
        let comma = if written == 0 { "" } else { ", " };
        if names.len() + comma.len() + name.len() > NAMES_BYTES_MAX {
            names.push_str(&format!(" and {} more", speakers.len() - written));
            break;
        }
        names.push_str(comma);
        names.push_str(&name);
    }
    names
}

/// Appends what stands before a turn's words: `"Speaker: "`, or nothing.
fn push_label(text: &mut String, segment: &Segment) {
    if let Some(name) = speaker(segment) {
        text.push_str(&shortened(name, NAME_BYTES_MAX));
        text.push_str(LABEL_END);
    }
}

/// Size of what [`push_label`] appends.
pub(super) fn label_bytes(segment: &Segment) -> usize {
    let bytes = |name| shortened(name, NAME_BYTES_MAX).len() + LABEL_END.len();
    speaker(segment).map_or(0, bytes)
}

/// The text on one line, cut to `bytes_max` with an ellipsis where it is longer.
fn shortened(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max && is_even(text) {
        return Cow::Borrowed(text);
    }
    let mut line = String::new();
    push_words(&mut line, text);
    if line.len() > bytes_max {
        let bytes = bytes_max - ELLIPSIS.len();
        line.truncate(cut::end_of_sentence(&line, bytes, bytes));
        line.push_str(ELLIPSIS);
    }
    Cow::Owned(line)
}

/// Appends the words of `words` with one space between two of them.
fn push_words(text: &mut String, words: &str) {
    if is_even(words) {
        return text.push_str(words);
    }
    for (index, word) in words.split_whitespace().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(word);
    }
}

/// Size of what [`push_words`] appends.
pub(super) fn words_bytes(words: &str) -> usize {
    if is_even(words) {
        return words.len();
    }
    words.split_whitespace().map(|word| word.len() + 1).sum::<usize>().saturating_sub(1)
}

/// True where words stand as [`push_words`] would put them. False for some that do, too: only ASCII is
/// looked at, byte by byte and without a branch, since nearly all that is rendered is like that, and
/// going through characters was a third of the program's work.
fn is_even(words: &str) -> bool {
    let bytes = words.as_bytes();
    let is_odd = |byte: &u8| !matches!(byte, b' '..=b'~');
    let odd = bytes.iter().fold(false, |odd, byte| odd | is_odd(byte));
    let next = bytes.get(1..).unwrap_or_default();
    let gap = bytes.iter().zip(next).fold(false, |gap, pair| gap | (pair == (&b' ', &b' ')));
    !odd && !gap && !words.starts_with(' ') && !words.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_that_are_even_are_put_as_they_stand(words in "[ a~\t\u{b}\u{a0}é]{0,6}") {
            let flattened = words.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut pushed = String::new();
            push_words(&mut pushed, &words);
            prop_assert_eq!(&pushed, &flattened);
            prop_assert_eq!(words_bytes(&words), flattened.len());
            prop_assert!(!is_even(&words) || words == flattened);
        }
    }
}
