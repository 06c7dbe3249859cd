//! What a provider's headers say of its rate limit. OpenAI writes a time as `12ms` or `1m3s`,
//! others as plain seconds, as milliseconds under another name, or as a date.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::embedders::limiter::Budget;
use crate::telemetry::metrics::metrics;

/// The rate limit as one answer tells it; `None` for what it leaves out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RateHeaders {
    /// `retry-after-ms`, or else `retry-after`.
    pub retry_after: Option<Duration>,
    /// Requests left, and when they are all back.
    pub requests: Option<Budget>,
    /// Tokens left, and when they are all back.
    pub tokens: Option<Budget>,
    /// Tokens that fit into the limit at all: a larger request is never accepted.
    pub tokens_limit: Option<u64>,
    /// Requests that fit into the limit.
    pub requests_limit: Option<u64>,
}

impl RateHeaders {
    /// Reads the headers through `header`, which looks one up by its name in lower case.
    pub fn read<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let number = |name: &str| header(name)?.trim().parse::<u64>().ok();
        let budget = |remaining: &str, reset: &str| {
            Some(Budget { remaining: number(remaining)?, reset_after: span(header(reset)?)? })
        };
        let milliseconds = || {
            let milliseconds = header("retry-after-ms")?.trim().parse::<f64>().ok()?;
            Duration::try_from_secs_f64(milliseconds / 1_000.0).ok()
        };
        let seconds_or_date = || {
            let text = header("retry-after")?;
            span(text).or_else(|| until(text, header("date")))
        };
        Self {
            retry_after: milliseconds().or_else(seconds_or_date),
            requests: budget("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
            tokens: budget("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
            tokens_limit: number("x-ratelimit-limit-tokens"),
            requests_limit: number("x-ratelimit-limit-requests"),
        }
    }

    /// Says what the limits leave.
    pub fn measure(&self) {
        let limits = [
            ("requests", self.requests, self.requests_limit),
            ("tokens", self.tokens, self.tokens_limit),
        ];
        for (of, budget, limit) in limits {
            if let (Some(budget), Some(limit)) = (budget, limit) {
                metrics().headroom(of, budget.remaining, limit);
            }
        }
    }

    /// The wait that a refused request of about `tokens` is asked for: `retry-after`, or the reset
    /// of the budget that it found used up.
    pub fn wait(&self, tokens: u64) -> Option<Duration> {
        let reset = |budget: Option<Budget>, needed: u64| {
            budget.filter(|budget| budget.remaining < needed).map(|budget| budget.reset_after)
        };
        self.retry_after.or_else(|| reset(self.requests, 1).max(reset(self.tokens, tokens)))
    }
}

/// Reads `1m3s`, `12ms`, `8.64s` or plain seconds.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Ok(secs) = rest.parse::<f64>() {
        return Duration::try_from_secs_f64(secs).ok();
    }
    let mut secs = 0.0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_secs = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        secs += number.parse::<f64>().ok()? * unit_secs;
        rest = tail;
    }
    Duration::try_from_secs_f64(secs).ok()
}

/// Reads an HTTP date as the time from the server's own `date`, so that its clock need not agree
/// with ours; a date in the past is no wait.
fn until(text: &str, server_date: Option<&str>) -> Option<Duration> {
    let read = |text: &str| DateTime::parse_from_rfc2822(text.trim()).ok();
    let now = server_date.and_then(read).unwrap_or_else(|| Utc::now().fixed_offset());
    Some((read(text)? - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&'static str, &'static str)]) -> RateHeaders {
        RateHeaders::read(|name| {
            given.iter().find(|(given, _)| *given == name).map(|(_, value)| *value)
        })
    }

    #[test]
    fn spans_are_read_in_every_form_that_servers_write() {
        for (text, millis) in [
            ("12ms", 12),
            ("1m3s", 63_000),
            ("6m0s", 360_000),
            ("8.64s", 8_640),
            ("2m59.56s", 179_560),
            ("1h0m0.5s", 3_600_500),
            ("1d2h", 93_600_000),
            ("20", 20_000),
            ("0.5", 500),
            (" 0 ", 0),
        ] {
            let read = span(text).map(|span| span.as_millis());
            assert_eq!(read, Some(millis), "{text}");
        }
        for wrong in ["", "s", "1x", "-1", "-1s", "1m3", "1..2s", "inf", "NaN", "soon", "1e300"] {
            assert!(span(wrong).is_none() || wrong.is_empty(), "{wrong}");
        }
    }

    #[test]
    fn milliseconds_are_preferred_to_seconds() {
        let both = headers(&[("retry-after", "1"), ("retry-after-ms", "250")]);
        assert_eq!(both.wait(1), Some(Duration::from_millis(250)));
        assert_eq!(headers(&[("retry-after", "7")]).wait(1), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_date_is_measured_against_the_servers_own_clock() {
        let retry_after = ("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT");
        let early = headers(&[retry_after, ("date", "Wed, 21 Oct 2015 07:28:00 GMT")]);
        assert_eq!(early.wait(1), Some(Duration::from_secs(30)));
        assert_eq!(headers(&[retry_after]).wait(1), Some(Duration::ZERO));
    }

    #[test]
    fn without_retry_after_the_reset_of_the_used_up_budget_counts() {
        let given = headers(&[
            ("x-ratelimit-remaining-requests", "10"),
            ("x-ratelimit-reset-requests", "1h"),
            ("x-ratelimit-remaining-tokens", "100"),
            ("x-ratelimit-reset-tokens", "6s"),
            ("x-ratelimit-limit-tokens", "1000"),
        ]);
        assert_eq!(given.wait(101), Some(Duration::from_secs(6)));
        assert_eq!(given.wait(100), None);
        assert_eq!(given.tokens_limit, Some(1_000));
        assert_eq!(headers(&[]), RateHeaders::default());
    }
}
