//! Reads requests strictly: what cannot be meant is told as a [`Problem`], never guessed.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::problem::Problem;
use super::token::Caller;
use crate::domain::trace::Traceparent;

/// The number of a recording in the path.
pub(super) struct RecordingId(pub i64);

/// The id of an action in the path.
pub(super) struct ActionId(pub Uuid);

/// The trace that a request belongs to, by its header `traceparent`. One that names none is ignored, as
/// W3C wants it.
pub(super) struct Trace(pub Option<Traceparent>);

/// The query, every name in it known.
pub(super) struct Query<T>(pub T);

/// The body as JSON; where it is empty, the type's defaults.
pub(super) struct Body<T>(pub T);

impl<S: Send + Sync> FromRequestParts<S> for RecordingId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        match id.parse::<i64>() {
            Ok(number) if number >= 0 && id.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self(number))
            }
            _ => Err(Problem::bad_request(format!(
                "a recording is named by a whole number from 0 to {}",
                i64::MAX
            ))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ActionId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::<Uuid>::from_request_parts(parts, state).await;
        read.map(|Path(id)| Self(id)).map_err(|_| {
            Problem::bad_request("an action is named by a UUID, as its answer tells it")
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let header = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
        Ok(Self(header.and_then(Traceparent::parse)))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let told = |rejection: QueryRejection| Problem::bad_request(rejection.body_text());
        read.map(|axum::extract::Query(value)| Self(value)).map_err(told)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let told = |rejection: BytesRejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                format!("a body has at most {} bytes", super::BODY_BYTES_MAX),
            ),
            _ => Problem::bad_request(rejection.body_text()),
        };
        let bytes = Bytes::from_request(request, state).await.map_err(told)?;
        let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(json)
            .map(Self)
            .map_err(|error| Problem::bad_request(format!("the body: {error}")))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Caller>().cloned().ok_or_else(|| {
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "a bearer token is needed")
        })
    }
}
