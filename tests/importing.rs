//! Files of every format, read; what is in the database afterwards is in `store` and `program`.

mod bad_input;
mod captions;
mod json;
mod properties;
mod round_trip;

use std::io::{Cursor, Write};

use embedding_recovery::import::{OpenError, Origin, ReadRecording, Recordings, Refused};

/// All that is in a file of this name and content.
fn read(name: &str, content: impl AsRef<[u8]>) -> Vec<Result<ReadRecording, Refused>> {
    open(name, content).unwrap().collect()
}

fn open(origin: impl Into<Origin>, content: impl AsRef<[u8]>) -> Result<Recordings, OpenError> {
    Recordings::read(Cursor::new(content.as_ref().to_vec()), origin, "alice")
}

/// The one recording of a file.
fn read_one(name: &str, content: impl AsRef<[u8]>) -> ReadRecording {
    let mut all = read(name, content);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).unwrap()
}

/// What is said, as `time speaker: words`, a line each.
fn said(read: &ReadRecording) -> Vec<String> {
    let segments = read.recording.segments.iter();
    segments
        .map(|segment| {
            let time = segment.timestamp.as_deref().unwrap_or("?");
            let speaker = segment.speaker_name.as_deref().unwrap_or("?");
            format!("{time} {speaker}: {}", segment.text)
        })
        .collect()
}

/// Numbers of the recordings, and what was said of those that were refused.
fn ids_and_refusals(all: Vec<Result<ReadRecording, Refused>>) -> (Vec<i64>, Vec<String>) {
    let (mut ids, mut refused) = (Vec::new(), Vec::new());
    for read in all {
        match read {
            Ok(read) => ids.push(read.recording.key.recording_id),
            Err(error) => refused.push(error.to_string()),
        }
    }
    (ids, refused)
}

fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content.as_ref()).unwrap();
    encoder.finish().unwrap()
}
