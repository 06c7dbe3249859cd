//! What a server's answers tell of it: `doctor` says it to people.

use std::sync::{Mutex, PoisonError};

use super::answer::Answer;
use super::rate_headers::RateHeaders;

/// What is known of a server by now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Its last answer came as base64, rather than as floats in decimal, four times as large.
    pub base64: bool,
    /// Requests that its rate limit allows, as its headers say.
    pub requests_limit: Option<u64>,
    /// Tokens that its rate limit allows, as its headers say.
    pub tokens_limit: Option<u64>,
}

/// Collects what is learnt, from requests under way at once.
#[derive(Default)]
pub(super) struct Lessons(Mutex<Learnt>);

impl Lessons {
    /// Notes the limits that an answer's or a refusal's headers tell.
    pub fn limits(&self, rate: &RateHeaders) {
        let mut learnt = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        learnt.requests_limit = rate.requests_limit.or(learnt.requests_limit);
        learnt.tokens_limit = rate.tokens_limit.or(learnt.tokens_limit);
    }

    /// Notes how an answer came.
    pub fn answer(&self, answer: &Answer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).base64 = answer.base64;
    }

    /// All of it.
    pub fn get(&self) -> Learnt {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
