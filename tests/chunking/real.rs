//! The 201 real recordings of `../shared/recordings/`, where they are there.

use std::io::{BufRead, BufReader};
use std::path::Path;

use embedding_recovery::domain::chunking::TARGET_BYTES;
use embedding_recovery::domain::recording::{
    Recording, RecordingKey, Segment, in_spoken_order, parse_timestamp,
};
use flate2::read::GzDecoder;

use super::check::check;
use crate::harness::skipped_for_good_reason;

/// One line of the file; `None` where it is not of the shape that its README tells.
fn real_recording(line: &str) -> Option<Recording> {
    let call: serde_json::Value = serde_json::from_str(line).ok()?;
    let segments = call["transcript"].as_array()?.iter().map(|part| {
        let speaker = part["speaker"]["display_name"].as_str().map(String::from);
        let start_secs = part["timestamp"].as_str().and_then(parse_timestamp);
        Some(Segment { speaker, text: part["text"].as_str()?.into(), start_secs })
    });
    Some(Recording {
        key: RecordingKey { user_id: "u".into(), recording_id: call["recording_id"].as_i64()? },
        title: call["title"].as_str().map(String::from),
        created_at: call["created_at"].as_str()?.parse().ok()?,
        segments: in_spoken_order(segments.collect::<Option<_>>()?),
    })
}

#[test]
fn every_real_recording_is_cut_into_chunks_of_a_useful_size() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings/recordings.jsonl.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        skipped_for_good_reason(&format!("{} is not there", path.display()));
        return;
    };
    let (mut recordings, mut sizes, mut longest) = (0, Vec::new(), (0, String::new()));
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let recording = real_recording(&line.expect("a line")).expect("a recording");
        let chunks = check(&recording).expect("everything holds");
        recordings += 1;
        if chunks.len() > longest.0 {
            longest = (chunks.len(), recording.title.clone().unwrap_or_default());
        }
        sizes.extend(chunks.iter().map(|chunk| chunk.text(&recording).len()));
    }
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    let tiny = sizes.iter().filter(|bytes| **bytes < TARGET_BYTES / 2).count();
    println!("{recordings} recordings, {} chunks, {mean} bytes on average", sizes.len());
    println!("{tiny} below half the target; the longest, {}, has {}", longest.1, longest.0);
    assert_eq!(recordings, 201);
    assert!((1_800..=2_200).contains(&mean), "{mean} bytes on average");
    assert!(tiny * 100 < sizes.len(), "{tiny} of {} chunks are tiny", sizes.len());
    assert!((450..=650).contains(&longest.0), "{} has {} chunks", longest.1, longest.0);
}
