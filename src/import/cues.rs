//! Cues of WebVTT and SubRip files: what is said from when on. Both are blocks between blank lines,
//! and both are read more leniently than written: what is said is kept where its time cannot be
//! read.

use std::io::BufRead;

use super::lines::{Line, Lines};
use super::mend::{Mended, SEGMENT_BYTES_MAX};

/// What is said from a time on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cue {
    /// The line that its time stands on, from 1.
    pub(super) line: u64,
    /// Whole seconds from the start of the call.
    pub(super) start_secs: Option<u32>,
    /// Its lines, as they stand there.
    pub(super) text: String,
    /// It has no time because it belongs to the cue before.
    pub(super) continues: bool,
}

/// What the two formats do differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A header, comments and styles; a block without a time is no cue.
    Vtt,
    /// A block without a time belongs to the cue before: its text has a blank line.
    Srt,
}

/// Reads cues one after the other.
pub(super) struct Cues<R> {
    lines: Lines<R>,
    dialect: Dialect,
    /// A line that begins the next cue, where no blank line stands between.
    ahead: Option<(u64, String)>,
    in_header: bool,
    in_cues: bool,
}

impl<R: BufRead> Cues<R> {
    pub(super) fn new(reader: R, dialect: Dialect) -> Self {
        Self {
            lines: Lines::new(reader),
            dialect,
            ahead: None,
            in_header: dialect == Dialect::Vtt,
            in_cues: false,
        }
    }

    /// The next cue; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read on, or a line is too long to be speech.
    pub(super) fn next(&mut self, mended: &mut Mended) -> Result<Option<Cue>, String> {
        loop {
            let Some(block) = self.block(mended)? else { return Ok(None) };
            if let Some(cue) = self.cue(block, mended) {
                return Ok(Some(cue));
            }
        }
    }

    /// The lines up to the next blank line or the next time, numbered; `None` at the end.
    fn block(&mut self, mended: &mut Mended) -> Result<Option<Vec<(u64, String)>>, String> {
        let mut block: Vec<(u64, String)> = self.ahead.take().into_iter().collect();
        loop {
            let Some(line) = self.line(mended)? else {
                return Ok((!block.is_empty()).then_some(block));
            };
            if line.trim().is_empty() {
                if block.is_empty() {
                    continue;
                }
                return Ok(Some(block));
            }
            let numbered = (self.lines.number(), line);
            if start_of(&numbered.1).is_some() && self.ends_a_cue(&mut block) {
                self.ahead = Some(numbered);
                return Ok(Some(block));
            }
            block.push(numbered);
        }
    }

    /// Whether a block is over where a time follows; a number before that time is its name then.
    fn ends_a_cue(&self, block: &mut Vec<(u64, String)>) -> bool {
        let has_time = block.iter().any(|(_, line)| start_of(line).is_some());
        if has_time && block.len() > 2 && block.last().is_some_and(|(_, line)| is_number(line)) {
            block.pop();
        }
        has_time || (self.in_header && !block.is_empty())
    }

    fn cue(&mut self, block: Vec<(u64, String)>, mended: &mut Mended) -> Option<Cue> {
        if std::mem::take(&mut self.in_header) || (self.dialect == Dialect::Vtt && is_note(&block))
        {
            return None;
        }
        let (number, _) = *block.first()?;
        let time = block.iter().take(2).position(|(_, line)| start_of(line).is_some());
        let broken = block.iter().take(2).position(|(_, line)| line.contains("-->"));
        let (line, start_secs, text_from) = match (time, broken) {
            (Some(at), _) => (block[at].0, start_of(&block[at].1), at + 1),
            (None, Some(at)) => (block[at].0, None, at + 1),
            (None, None) if self.dialect == Dialect::Srt && self.in_cues => (number, None, 0),
            (None, None) => {
                mended.note(format!("line {number}: what has no time is no cue and is left out"));
                return None;
            }
        };
        self.in_cues = true;
        let text: Vec<String> = block.into_iter().skip(text_from).map(|(_, line)| line).collect();
        Some(Cue { line, start_secs, text: text.join("\n"), continues: text_from == 0 })
    }

    fn line(&mut self, mended: &mut Mended) -> Result<Option<String>, String> {
        match self.lines.next(SEGMENT_BYTES_MAX) {
            None => Ok(None),
            Some(Line::Whole(line)) => Ok(Some(mended.text(line))),
            Some(Line::TooLong) => Err(format!(
                "line {} is longer than {} MB, three hours of speech: cut it at its speaker's turns",
                self.lines.number(),
                SEGMENT_BYTES_MAX >> 20
            )),
            Some(Line::Unreadable(error)) => Err(format!(
                "line {}: it cannot be read from here on: {error}",
                self.lines.number()
            )),
        }
    }
}

/// Comments and what concerns only the look.
fn is_note(block: &[(u64, String)]) -> bool {
    let Some((_, first)) = block.first() else { return false };
    let word = first.split_ascii_whitespace().next().unwrap_or_default();
    let alone = first.trim() == word;
    word == "NOTE" || (alone && matches!(word, "STYLE" | "REGION"))
}

fn is_number(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads `00:01:02.500 --> 00:01:04.000` with whatever stands behind it; `None` for any other line.
/// Hours may be missing, a comma may stand for the point.
pub(super) fn start_of(line: &str) -> Option<u32> {
    let (start, rest) = line.split_once("-->")?;
    seconds(rest.split_ascii_whitespace().next()?)?;
    seconds(start.trim_matches([' ', '\t', '\u{feff}']))
}

fn seconds(time: &str) -> Option<u32> {
    let whole = time.split_once(['.', ',']).map_or(time, |(whole, _)| whole);
    let mut parts = whole.rsplit(':').map(|part| {
        let well_formed = (1..=4).contains(&part.len()) && is_number(part);
        if well_formed { part.parse::<u32>().ok() } else { None }
    });
    let (seconds, minutes) = (parts.next()??, parts.next()??);
    let hours = parts.next().unwrap_or(Some(0))?;
    let in_range = seconds < 60 && minutes < 60 && parts.next().is_none();
    in_range.then_some(hours * 3600 + minutes * 60 + seconds)
}
