//! What can be read over HTTP.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::extract::{Query, RecordingId};
use super::health::{Health, judged};
use super::problem::Problem;
use crate::ports::inspector::{DeadLetterQuery, DeadLetters, Explanation, Job, Overview, Run};
use crate::ports::operator::Refusal;

/// Rows of a list where none are asked for.
const ROWS_DEFAULT: u32 = 50;
/// Rows of a list at most, as the ports have it.
const ROWS_MAX: u32 = 500;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Owner {
    /// Owner of the recording; needed only where several users hold one of this number
    pub user_id: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeadLetterPage {
    /// Only those of this cause
    fingerprint: Option<String>,
    /// Rows at most, from 1 to 500 [default: 50]
    limit: Option<u32>,
    /// Rows to pass over
    #[serde(default)]
    offset: u64,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Rows {
    /// Rows at most, from 1 to 500 [default: 50]
    limit: Option<u32>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunPage {
    /// Rows at most, from 1 to 500 [default: 50]
    limit: Option<u32>,
    /// Only runs in which something failed, or that ended early
    #[serde(default)]
    failed_only: bool,
}

fn rows(limit: Option<u32>) -> Result<u32, Problem> {
    match limit.unwrap_or(ROWS_DEFAULT) {
        limit @ 1..=ROWS_MAX => Ok(limit),
        _ => Err(Problem::bad_request(format!("limit is a number from 1 to {ROWS_MAX}"))),
    }
}

/// The queue and who works on it
#[utoipa::path(get, path = "/v1/queue", tag = "look", responses(
    (status = 200, body = Overview),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn queue(State(shared): State<Shared>) -> Result<Json<Overview>, Problem> {
    Ok(Json(shared.inspector.overview().await?))
}

/// How it is
#[utoipa::path(get, path = "/v1/health", tag = "look", responses(
    (status = 200, body = Health),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn health(State(shared): State<Shared>) -> Result<Json<Health>, Problem> {
    Ok(Json(judged(&shared.inspector.overview().await?, &shared.thresholds)))
}

/// Dead letters, by cause and one by one
#[utoipa::path(get, path = "/v1/dead-letters", tag = "look", params(DeadLetterPage), responses(
    (status = 200, body = DeadLetters),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn dead_letters(
    State(shared): State<Shared>,
    Query(page): Query<DeadLetterPage>,
) -> Result<Json<DeadLetters>, Problem> {
    let DeadLetterPage { fingerprint, limit, offset } = page;
    if offset > i64::MAX as u64 {
        return Err(Problem::bad_request("offset is too large"));
    }
    let query = DeadLetterQuery { fingerprint, limit: rows(limit)?, offset };
    Ok(Json(shared.inspector.dead_letters(&query).await?))
}

/// A recording's explanation, and where its traces are looked at
#[derive(Serialize, ToSchema)]
pub(super) struct Explained {
    #[serde(flatten)]
    explanation: Explanation,
    /// Address of a trace, with `{trace_id}` where an attempt's `trace_id` belongs; null where the
    /// service was given none
    trace_url_template: Option<String>,
}

/// Why a recording is where it is
#[utoipa::path(get, path = "/v1/recordings/{id}", tag = "look",
    params(("id" = i64, Path, description = "Number of the recording"), Owner), responses(
    (status = 200, body = Explained),
    (status = 404, body = Problem, content_type = "application/problem+json",
        description = "Nobody holds a recording of this number"),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn recording(
    State(shared): State<Shared>,
    RecordingId(recording_id): RecordingId,
    Query(Owner { user_id }): Query<Owner>,
) -> Result<Json<Explained>, Problem> {
    let unknown = || Problem::from(Refusal::UnknownRecording { recording_id });
    let keys = shared.inspector.find(recording_id, user_id.as_deref()).await?;
    let key = match keys.as_slice() {
        [] => return Err(unknown()),
        [key] => key,
        several => {
            let users = several.iter().map(|key| key.user_id.clone()).collect();
            return Err(Refusal::Ambiguous { recording_id, users }.into());
        }
    };
    let explanation = shared.inspector.explain(key).await?.ok_or_else(unknown)?;
    let trace_url_template = shared.trace_url_template.clone();
    Ok(Json(Explained { explanation, trace_url_template }))
}

/// Jobs, newest first
#[utoipa::path(get, path = "/v1/jobs", tag = "look", params(Rows), responses(
    (status = 200, body = Vec<Job>),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn jobs(
    State(shared): State<Shared>,
    Query(Rows { limit }): Query<Rows>,
) -> Result<Json<Vec<Job>>, Problem> {
    Ok(Json(shared.inspector.jobs(rows(limit)?).await?))
}

/// Runs, newest first
#[utoipa::path(get, path = "/v1/runs", tag = "look", params(RunPage), responses(
    (status = 200, body = Vec<Run>),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn runs(
    State(shared): State<Shared>,
    Query(RunPage { limit, failed_only }): Query<RunPage>,
) -> Result<Json<Vec<Run>>, Problem> {
    Ok(Json(shared.inspector.runs(failed_only, rows(limit)?).await?))
}
