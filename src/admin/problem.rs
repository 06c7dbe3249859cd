//! Errors as RFC 9457 wants them: a type to branch on, a sentence to read, and the way out.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::failure::{Failure, Fault};
use crate::ports::operator::Refusal;

/// What is said to wait before the same request is sent again, in seconds: a database that restarts
/// is back by then.
const RETRY_AFTER_SECS: u32 = 5;

/// An error (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Names the kind of error: `urn:embedding-recovery:` and a word.
    #[serde(rename = "type")]
    kind: String,
    /// The HTTP status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong, and the way out.
    detail: String,
    /// End of the lease of the recording that is being processed.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ends_at: Option<DateTime<Utc>>,
    /// When the same request will be followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    again_at: Option<DateTime<Utc>>,
    /// The users who hold a recording of this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<Vec<String>>,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:embedding-recovery:{kind}"),
            title: status.canonical_reason().unwrap_or("error"),
            status: status.as_u16(),
            detail: detail.into(),
            lease_ends_at: None,
            again_at: None,
            users: None,
        }
    }

    /// What a request says cannot be meant.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// Something that is needed does not answer; it will.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let passes = failure.fault() == Fault::Database;
        match passes {
            true => Self::unavailable(failure.to_string()),
            false => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                &failure.class().replace('_', "-"),
                failure.to_string(),
            ),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        let conflict = |kind| Self::new(StatusCode::CONFLICT, kind, detail.clone());
        match refusal {
            Refusal::UnknownRecording { .. } => {
                Self::new(StatusCode::NOT_FOUND, "unknown-recording", detail)
            }
            Refusal::Ambiguous { users, .. } => {
                Self { users: Some(users), ..conflict("ambiguous") }
            }
            Refusal::BeingProcessed { lease_ends_at, .. } => {
                Self { lease_ends_at: Some(lease_ends_at), ..conflict("being-processed") }
            }
            Refusal::TriedRecently { again_at, .. } => {
                Self { again_at: Some(again_at), ..conflict("tried-recently") }
            }
            Refusal::NotDead { .. } => conflict("not-dead"),
            Refusal::Paused { .. } => conflict("paused"),
            Refusal::Failed(failure) => failure.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
