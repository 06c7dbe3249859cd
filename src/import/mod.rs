//! Files of recordings, a line at a time: what is wrong with one line loses nothing of the others.

mod fathom;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::ports::ImportedRecording;

/// A longer line is refused unread: no recording of speech is that large.
const LINE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// First bytes of a gzip file (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A recording that was read, and what had to be mended in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecording {
    /// Its line in the file, from 1.
    pub line: u64,
    /// The recording.
    pub recording: ImportedRecording,
    /// What was mended, a sentence each.
    pub warnings: Vec<String>,
}

/// A line that was refused.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// The line, from 1.
    pub line: u64,
    /// Why, with the way out.
    pub reason: String,
}

/// Reads recordings from JSON lines, plain or gzip.
pub struct Recordings {
    name: String,
    lines: Box<dyn BufRead + Send>,
    user_id: String,
    line: u64,
    seen: HashMap<i64, u64>,
    failed: bool,
}

impl Recordings {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path, user_id: &str) -> io::Result<Self> {
        Self::read(File::open(path)?, &path.to_string_lossy(), user_id)
    }

    /// Reads from anywhere. Whether it is compressed is told by its first bytes, not by its name.
    ///
    /// # Errors
    /// Its beginning cannot be read.
    pub fn read(reader: impl Read + Send + 'static, name: &str, user_id: &str) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 16, reader);
        let compressed = reader.fill_buf()?.starts_with(&GZIP_MAGIC);
        let lines: Box<dyn BufRead + Send> = match compressed {
            true => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader))),
            false => Box::new(reader),
        };
        Ok(Self {
            name: name.to_owned(),
            lines,
            user_id: user_id.to_owned(),
            line: 0,
            seen: HashMap::new(),
            failed: false,
        })
    }

    /// One line without its end; `None` at the end of the file.
    fn read_line(&mut self) -> Option<Result<Vec<u8>, String>> {
        let mut line = Vec::new();
        self.line += 1;
        let read = (&mut self.lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        match read {
            Ok(0) => None,
            Ok(_) if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX => {
                if let Err(error) = self.lines.skip_until(b'\n') {
                    self.failed = true;
                    return Some(Err(error.to_string()));
                }
                let megabytes = LINE_BYTES_MAX >> 20;
                Some(Err(format!("longer than {megabytes} MB, which no recording is; split it")))
            }
            Ok(_) => Some(Ok(line)),
            Err(error) => {
                self.failed = true;
                Some(Err(format!("{} cannot be read from here on: {error}", self.name)))
            }
        }
    }

    fn parse(&mut self, line: &[u8]) -> Result<ReadRecording, String> {
        let (recording, warnings) = fathom::parse(line, &self.user_id)?;
        let id = recording.key.recording_id;
        match self.seen.insert(id, self.line) {
            Some(first) => {
                self.seen.insert(id, first);
                Err(format!("recording {id} stands on line {first} already; this one is left out"))
            }
            None => Ok(ReadRecording { line: self.line, recording, warnings }),
        }
    }
}

impl Iterator for Recordings {
    type Item = Result<ReadRecording, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        loop {
            let read = self.read_line()?;
            let result = match read {
                Ok(line) if line.trim_ascii().is_empty() => continue,
                Ok(line) => self.parse(&line),
                Err(reason) => Err(reason),
            };
            return Some(result.map_err(|reason| LineError { line: self.line, reason }));
        }
    }
}
