//! What a server's answers tell of it: `doctor` says it to people.

use std::sync::{Mutex, PoisonError};

use super::answer::Answer;
use super::rate_headers::RateHeaders;
use super::request::Dialect;

/// What is known of a server by now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Its last answer came as base64, rather than as floats in decimal, four times as large.
    pub base64: bool,
    /// It was asked for a length of vectors, by the parameter `dimensions`.
    pub dimensions_asked: bool,
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
    pub fn answer(&self, answer: &Answer, asked: Dialect) {
        let mut learnt = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (learnt.base64, learnt.dimensions_asked) = (answer.base64, asked.dimensions);
    }

    /// All of it.
    pub fn get(&self) -> Learnt {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
