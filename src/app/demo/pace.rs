//! How fast the demo's embedder answers: so that one can watch, and need not wait.

use std::time::Duration;

/// What there is to embed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Workload {
    /// Recordings.
    pub recordings: u32,
    /// Chunks of all, about.
    pub chunks: u64,
    /// Chunks of the largest, about.
    pub largest_chunks: u64,
}

/// How fast the embedder answers, and how much is asked of it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Recordings worked on at once.
    pub recordings_at_once: u32,
    /// Requests of one recording in flight.
    pub requests_at_once: u32,
    /// Chunks of one request.
    pub inputs_max: u32,
    /// Until a request is answered, about.
    pub latency: Duration,
}

/// What OpenAI takes for 16 chunks of 500 tokens, by daylight.
const LATENCY_MAX: Duration = Duration::from_millis(500);
/// What the embedding of a large input should take, as far as the pace has a say.
const AIM: Duration = Duration::from_secs(10);

impl Pace {
    /// The pace of an API where the work is small; quicker, the more there is to do.
    pub fn of(workload: &Workload) -> Self {
        // Few, so that a dozen short calls come by one after the other beside a long one.
        let recordings_at_once = if workload.recordings > 20 { 6 } else { 2 };
        let (requests_at_once, inputs_max) = (2, 16);
        let of_one = u64::from(requests_at_once * inputs_max);
        let of_all = of_one * u64::from(recordings_at_once);
        let rounds = (workload.chunks / of_all)
            .max(workload.largest_chunks / of_one)
            .max((workload.recordings / recordings_at_once).into())
            .max(1);
        let latency = LATENCY_MAX.min(AIM / u32::try_from(rounds).unwrap_or(u32::MAX));
        Self { recordings_at_once, requests_at_once, inputs_max, latency }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_input_is_shown_at_the_pace_of_an_api_and_a_large_one_is_not_held_up_for_long() {
        let samples = Workload { recordings: 13, chunks: 570, largest_chunks: 540 };
        assert_eq!(Pace::of(&samples).latency, LATENCY_MAX);
        assert_eq!(Pace::of(&Workload::default()).latency, LATENCY_MAX);
        let large = Workload { recordings: 200, chunks: 19_200, largest_chunks: 320 };
        assert_eq!(Pace::of(&large).latency, Duration::from_millis(100));
        let huge = Workload { recordings: u32::MAX, chunks: u64::MAX, largest_chunks: u64::MAX };
        assert!(Pace::of(&huge).latency < Duration::from_millis(1));
    }
}
