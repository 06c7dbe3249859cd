//! Spans of time as people say them: two units at most.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `42 s`, `7 min`, `2 h 5 min`, `3 d 4 h`: rounded down to what matters at that length.
pub fn told(span: Duration) -> String {
    let secs = span.as_secs();
    match secs {
        0..MINUTE => format!("{secs} s"),
        MINUTE..HOUR => format!("{} min", secs / MINUTE),
        HOUR..DAY => two(secs / HOUR, "h", secs % HOUR / MINUTE, "min"),
        _ => two(secs / DAY, "d", secs % DAY / HOUR, "h"),
    }
}

/// Seconds as a database tells them; what is negative or no number counts as none.
pub fn from_secs(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs).unwrap_or_default()
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_the_units_that_matter() {
        for (secs, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (3_600, "1 h"),
            (7_500, "2 h 5 min"),
            (86_400, "1 d"),
            (273_600, "3 d 4 h"),
        ] {
            assert_eq!(told(Duration::from_secs(secs)), expected);
        }
        assert_eq!(from_secs(-1.0), Duration::ZERO);
        assert_eq!(from_secs(f64::NAN), Duration::ZERO);
        assert_eq!(from_secs(1.5), Duration::from_millis(1_500));
    }
}
