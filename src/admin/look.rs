//! What can be read over HTTP.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::extract::{ActionId, Query, RecordingId};
use super::health::{Health, judged};
use super::problem::Problem;
use crate::ports::inspector::{
    ActionState, Bucket, DeadLetterQuery, DeadLetters, Explanation, Job, Overview, Run,
};
use crate::ports::operator::Refusal;

/// Rows of a list where none are asked for.
const ROWS_DEFAULT: u32 = 50;
/// Rows of a list at most, as the ports have it.
const ROWS_MAX: u32 = 500;
/// How far back history is told where nothing is asked for: a day.
const HOURS_DEFAULT: u32 = 24;
/// How far back at most: 30 days, which is how far the first writing of history reaches.
const HOURS_MAX: u32 = 720;

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
    /// Only this user's
    user_id: Option<String>,
    /// Only recordings of this number
    recording_id: Option<i64>,
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

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Period {
    /// How far back, in hours, from 1 to 720 [default: 24]
    hours: Option<u32>,
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
    let DeadLetterPage { fingerprint, user_id, recording_id, limit, offset } = page;
    if offset > i64::MAX as u64 {
        return Err(Problem::bad_request("offset is too large"));
    }
    let limit = rows(limit)?;
    let query = DeadLetterQuery { fingerprint, user_id, recording_id, limit, offset };
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

/// What came of an action so far
#[utoipa::path(get, path = "/v1/actions/{id}", tag = "look",
    params(("id" = Uuid, Path, description = "As the answer of the action told it")), responses(
    (status = 200, body = ActionState),
    (status = 404, body = Problem, content_type = "application/problem+json",
        description = "There is no such action"),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn action(
    State(shared): State<Shared>,
    ActionId(action_id): ActionId,
) -> Result<Json<ActionState>, Problem> {
    let unknown = || {
        let detail = format!("there is no action {action_id}; what an action answers tells its id");
        Problem::new(StatusCode::NOT_FOUND, "unknown-action", detail)
    };
    shared.inspector.action(action_id).await?.map(Json).ok_or_else(unknown)
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

/// Five-minute buckets of history, oldest first; those in which nothing happened are left out
#[utoipa::path(get, path = "/v1/history", tag = "look", params(Period), responses(
    (status = 200, body = Vec<Bucket>),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn history(
    State(shared): State<Shared>,
    Query(Period { hours }): Query<Period>,
) -> Result<Json<Vec<Bucket>>, Problem> {
    match hours.unwrap_or(HOURS_DEFAULT) {
        hours @ 1..=HOURS_MAX => Ok(Json(shared.inspector.history(hours).await?)),
        _ => Err(Problem::bad_request(format!("hours is a number from 1 to {HOURS_MAX}"))),
    }
}
