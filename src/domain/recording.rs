//! What is embedded: one call and its transcript.

use chrono::{DateTime, Utc};

/// Names one recording. Two users can hold the same call, so the user is part of the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordingKey {
    /// Owner of this copy of the call.
    pub user_id: String,
    /// The call's number at its source; never negative.
    pub recording_id: i64,
}

impl std::fmt::Display for RecordingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "recording {} of user {}", self.recording_id, self.user_id)
    }
}

/// One uninterrupted piece of speech, as the source cut it. A speaker's turn may span several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Who speaks, where the source knows.
    pub speaker: Option<String>,
    /// What is said; may be empty.
    pub text: String,
    /// When it begins, in whole seconds from the start of the call, where the source knows.
    pub start_secs: Option<u32>,
}

/// A call with its segments in the order they were spoken ([`in_spoken_order`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Its name.
    pub key: RecordingKey,
    /// Title of the call, where it has one.
    pub title: Option<String>,
    /// When the call took place.
    pub created_at: DateTime<Utc>,
    /// Its segments, deleted ones left out.
    pub segments: Vec<Segment>,
}

/// Reads `HH:MM:SS` (hours may have more digits) as seconds; `None` for anything else.
pub fn parse_timestamp(text: &str) -> Option<u32> {
    let mut parts = text.trim().splitn(3, ':');
    let mut next = |digits_max: usize| {
        let part = parts.next()?;
        let well_formed = part.len() >= 2
            && part.len() <= digits_max
            && part.bytes().all(|byte| byte.is_ascii_digit());
        if well_formed { part.parse::<u32>().ok() } else { None }
    };
    let (hours, minutes, seconds) = (next(4)?, next(2)?, next(2)?);
    (minutes < 60 && seconds < 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// Writes seconds as `HH:MM:SS`, the form of the source.
pub fn format_timestamp(secs: u32) -> String {
    format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}

/// Orders segments by time and then by insertion, the order in which they are given. A segment
/// without a time stays behind the one before it.
pub fn in_spoken_order(segments: Vec<Segment>) -> Vec<Segment> {
    let mut last_secs = 0;
    let mut keyed: Vec<(u32, Segment)> = segments
        .into_iter()
        .map(|segment| {
            last_secs = segment.start_secs.unwrap_or(last_secs);
            (last_secs, segment)
        })
        .collect();
    keyed.sort_by_key(|(secs, _)| *secs);
    keyed.into_iter().map(|(_, segment)| segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(text: &str, start_secs: Option<u32>) -> Segment {
        Segment { speaker: None, text: text.into(), start_secs }
    }

    #[test]
    fn timestamps_are_read_strictly_and_written_back() {
        assert_eq!(parse_timestamp("00:01:05"), Some(65));
        assert_eq!(parse_timestamp("112:00:00"), Some(403_200));
        for wrong in
            ["", "1:2:3", "00:61:00", "00:00:60", "aa:bb:cc", "00:00", "00:00:00.5", "-1:00:00"]
        {
            assert_eq!(parse_timestamp(wrong), None, "{wrong}");
        }
        assert_eq!(format_timestamp(403_265), "112:01:05");
    }

    #[test]
    fn order_is_by_time_then_insertion_and_timeless_segments_stay_behind_their_neighbour() {
        let ordered = in_spoken_order(vec![
            segment("c", Some(9)),
            segment("d", None),
            segment("b", Some(5)),
            segment("a", Some(5)),
        ]);
        let texts: Vec<_> = ordered.iter().map(|s| s.text.as_str()).collect();
        assert_eq!(texts, ["b", "a", "c", "d"]);
    }
}
