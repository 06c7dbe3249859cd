//! Files of recordings: what is wrong with one recording loses nothing of the others.
//!
//! - `opening`, `detect`: unpack, and tell the format by how the file begins.
//! - `fathom`: one meeting, from `lines` (one a line) or from `values` (pages and lists).
//! - `captions`: WebVTT and SubRip, from `cues` and the `speech` in them; `origin` names them.
//! - `files`, `versions`: what an import of many files needs.
//!
//! Whatever the size of a file, one recording of it is held at a time.

mod captions;
mod cues;
mod detect;
mod fathom;
mod files;
mod json;
mod lines;
mod mend;
mod opening;
mod origin;
mod speech;
mod values;
mod versions;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead};
use std::path::Path;

use self::cues::Dialect;
use self::detect::Format;
use self::lines::{Line, Lines};
use self::values::{Value, Values};
use crate::ports::ImportedRecording;

pub use files::{Found, find};
pub use origin::Origin;
pub use versions::{Version, Versions};

/// More than any recording of speech has; a larger one is refused unread.
const RECORDING_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Where in its file a recording stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The file is this one recording.
    File,
    /// On a line, from 1.
    Line(u64),
    /// In a list of a JSON document.
    Item {
        /// The list, from 1; 0 where there is none.
        page: u32,
        /// Its place in the list, from 1.
        item: u32,
    },
}

impl Place {
    /// The place and the file that it is in.
    pub fn of(self, name: &str) -> String {
        match self {
            Place::File => name.to_owned(),
            place => format!("{name}: {place}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File => f.write_str("the file"),
            Place::Line(line) => write!(f, "line {line}"),
            Place::Item { page: 0 | 1, item } => write!(f, "item {item}"),
            Place::Item { page, item } => write!(f, "page {page}, item {item}"),
        }
    }
}

/// A recording that was read, and what had to be mended in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecording {
    /// Where it stands.
    pub place: Place,
    /// The recording.
    pub recording: ImportedRecording,
    /// What was mended, a sentence each.
    pub warnings: Vec<String>,
}

/// A recording that was refused.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Refused {
    /// Where it stands.
    pub place: Place,
    /// Why, with the way out.
    pub reason: String,
}

/// A file of which nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refuses it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is of no known format, or of one that does not go with what the caller decided; a
    /// sentence, which may have more lines.
    #[error("{0}")]
    Content(String),
}

type Reader = Box<dyn BufRead + Send>;

enum Source {
    Lines(Lines<Reader>),
    Values(Values<Reader>),
    Captions(Option<Reader>, Dialect),
}

/// Reads recordings from a file of any of the formats: JSON lines, a Fathom page, list or meeting,
/// WebVTT, SubRip; plain or gzip.
pub struct Recordings {
    source: Source,
    origin: Origin,
    user_id: String,
    failed: bool,
}

impl Recordings {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, or is of no known format.
    pub fn open(path: &Path, user_id: &str) -> Result<Self, OpenError> {
        Self::read(File::open(path)?, Origin::of_path(path), user_id)
    }

    /// Reads from anywhere. Format and compression are told by the first bytes.
    ///
    /// # Errors
    /// Its beginning cannot be read, or is of no known format.
    pub fn read(
        reader: impl io::Read + Send + 'static,
        origin: impl Into<Origin>,
        user_id: &str,
    ) -> Result<Self, OpenError> {
        let origin = origin.into();
        let opened = opening::open(reader)?;
        let format = detect::detect(&opened.head).map_err(OpenError::Content)?;
        let reader = opened.reader;
        let source = match format {
            Format::Vtt => Source::Captions(Some(reader), Dialect::Vtt),
            Format::Srt => Source::Captions(Some(reader), Dialect::Srt),
            Format::JsonLines | Format::Json if origin.is_decided() => {
                return Err(OpenError::Content("it names its recordings itself: --recording-id, --title and --date are for WebVTT and SubRip".into()));
            }
            Format::JsonLines => Source::Lines(Lines::new(reader)),
            Format::Json => Source::Values(Values::new(reader, RECORDING_BYTES_MAX)),
        };
        Ok(Self { source, origin, user_id: user_id.to_owned(), failed: false })
    }

    /// The next recording's bytes, or why they are refused; `None` at the end.
    fn next_meeting(&mut self) -> Option<(Place, Result<Vec<u8>, String>)> {
        match &mut self.source {
            Source::Lines(lines) => loop {
                let line = lines.next(RECORDING_BYTES_MAX)?;
                let bytes = match line {
                    Line::Whole(line) if line.trim_ascii().is_empty() => continue,
                    Line::Whole(line) => Ok(line),
                    Line::TooLong => Err(too_long()),
                    Line::Unreadable(error) => {
                        self.failed = true;
                        Err(format!("it cannot be read from here on: {error}"))
                    }
                };
                return Some((Place::Line(lines.number()), bytes));
            },
            Source::Values(values) => {
                let value = values.next()?;
                let bytes = match value {
                    Value::Whole(value) => Ok(value),
                    Value::TooLong => Err(too_long()),
                    Value::Broken(reason) => {
                        self.failed = true;
                        Err(reason)
                    }
                };
                Some((values.place(), bytes))
            }
            Source::Captions(..) => None,
        }
    }

    fn next_read(&mut self) -> Option<(Place, Result<Parsed, String>)> {
        if let Source::Captions(reader, dialect) = &mut self.source {
            let reader = reader.take()?;
            let read = captions::read(reader, *dialect, &self.origin, &self.user_id);
            return Some((Place::File, read));
        }
        let (place, bytes) = self.next_meeting()?;
        Some((place, bytes.and_then(|bytes| fathom::parse(bytes, &self.user_id))))
    }
}

/// A recording and what was mended in it.
type Parsed = (ImportedRecording, Vec<String>);

impl Iterator for Recordings {
    type Item = Result<ReadRecording, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let (place, read) = self.next_read()?;
        Some(match read {
            Ok((recording, warnings)) => Ok(ReadRecording { place, recording, warnings }),
            Err(reason) => Err(Refused { place, reason }),
        })
    }
}

fn too_long() -> String {
    let megabytes = RECORDING_BYTES_MAX >> 20;
    format!("longer than {megabytes} MB, which no recording is; split it")
}
