//! What can be done over HTTP. Each action goes to the [`Operator`](crate::ports::operator::Operator),
//! which keeps it with the name of the token that asked.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Shared;
use super::extract::{Body, Query, RecordingId, Trace};
use super::problem::Problem;
use super::token::Caller;
use crate::ports::operator::{Part, RecoverMany, RecoverRecording, Recovering, RecoveringMany};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RecoverOne {
    /// Owner of the recording; needed only where several users hold one of this number.
    user_id: Option<String>,
    /// Take it in any state but under a live lease, and although it was tried within the hour.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RecoverGroup {
    /// Only those of this cause; all where it is left out.
    fingerprint: Option<String>,
    /// Those too that were tried within the hour.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichParts {
    /// What to pause or resume.
    part: Parts,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Parts {
    Main,
    Recovery,
    Both,
}

impl Parts {
    fn each(self) -> &'static [Part] {
        match self {
            Parts::Main => &[Part::Main],
            Parts::Recovery => &[Part::Recovery],
            Parts::Both => &Part::ALL,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Discarding {
    /// Why; kept with the action
    reason: String,
    /// Owner of the recording; needed only where several users hold one of this number
    user_id: Option<String>,
}

/// A run that was started.
#[derive(Serialize, ToSchema)]
pub(super) struct Started {
    /// Row of `runs`.
    run_id: Uuid,
}

/// An action that was done.
#[derive(Serialize, ToSchema)]
pub(super) struct Discarded {
    /// Row of `admin_actions`, which keeps the dead letter.
    action_id: Uuid,
}

/// Recover one recording now
#[utoipa::path(post, path = "/v1/recordings/{id}/recover", tag = "act",
    params(("id" = i64, Path, description = "Number of the recording")),
    request_body(content = Option<RecoverOne>), responses(
    (status = 202, body = Recovering),
    (status = 404, body = Problem, content_type = "application/problem+json",
        description = "Nobody holds a recording of this number"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "It is being processed, was tried within the hour, or is no dead letter"),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn recover(
    State(shared): State<Shared>,
    caller: Caller,
    Trace(trace): Trace,
    RecordingId(recording_id): RecordingId,
    Body(RecoverOne { user_id, force }): Body<RecoverOne>,
) -> Result<(StatusCode, Json<Recovering>), Problem> {
    let requested_by = caller.name;
    let request = RecoverRecording { recording_id, user_id, force, requested_by, trace };
    Ok((StatusCode::ACCEPTED, Json(shared.operator.recover(request).await?)))
}

/// Recover dead letters now: those of one cause, or all
#[utoipa::path(post, path = "/v1/dead-letters/recover", tag = "act",
    request_body(content = Option<RecoverGroup>), responses(
    (status = 202, body = RecoveringMany),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn recover_many(
    State(shared): State<Shared>,
    caller: Caller,
    Trace(trace): Trace,
    Body(RecoverGroup { fingerprint, force }): Body<RecoverGroup>,
) -> Result<(StatusCode, Json<RecoveringMany>), Problem> {
    let request = RecoverMany { fingerprint, force, requested_by: caller.name, trace };
    Ok((StatusCode::ACCEPTED, Json(shared.operator.recover_many(request).await?)))
}

/// Start a run over dead letters that are due
#[utoipa::path(post, path = "/v1/recovery/run", tag = "act", responses(
    (status = 202, body = Started),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "Recovery is paused"),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn run_recovery(
    State(shared): State<Shared>,
    caller: Caller,
) -> Result<(StatusCode, Json<Started>), Problem> {
    start(&shared, Part::Recovery, &caller).await
}

/// Reconcile and poll the queue now
#[utoipa::path(post, path = "/v1/main/run", tag = "act", responses(
    (status = 202, body = Started),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "The main pipeline is paused"),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn run_main(
    State(shared): State<Shared>,
    caller: Caller,
) -> Result<(StatusCode, Json<Started>), Problem> {
    start(&shared, Part::Main, &caller).await
}

async fn start(
    shared: &Shared,
    part: Part,
    caller: &Caller,
) -> Result<(StatusCode, Json<Started>), Problem> {
    let run_id = shared.operator.run(part, &caller.name).await?;
    Ok((StatusCode::ACCEPTED, Json(Started { run_id })))
}

/// Begin nothing more of these parts, in any replica
#[utoipa::path(post, path = "/v1/pause", tag = "act", request_body = WhichParts, responses(
    (status = 204, description = "Paused"),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn pause(
    State(shared): State<Shared>,
    caller: Caller,
    Body(WhichParts { part }): Body<WhichParts>,
) -> Result<StatusCode, Problem> {
    for part in part.each() {
        shared.operator.pause(*part, &caller.name).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Let these parts go on
#[utoipa::path(post, path = "/v1/resume", tag = "act", request_body = WhichParts, responses(
    (status = 204, description = "They go on"),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn resume(
    State(shared): State<Shared>,
    caller: Caller,
    Body(WhichParts { part }): Body<WhichParts>,
) -> Result<StatusCode, Problem> {
    for part in part.each() {
        shared.operator.resume(*part, &caller.name).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a dead letter for good; what is searchable of the recording stays so
#[utoipa::path(delete, path = "/v1/dead-letters/{id}", tag = "act",
    params(("id" = i64, Path, description = "Number of the recording"), Discarding), responses(
    (status = 200, body = Discarded),
    (status = 404, body = Problem, content_type = "application/problem+json",
        description = "Nobody holds a recording of this number"),
    (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn discard(
    State(shared): State<Shared>,
    caller: Caller,
    RecordingId(recording_id): RecordingId,
    Query(Discarding { reason, user_id }): Query<Discarding>,
) -> Result<Json<Discarded>, Problem> {
    let reason = reason.trim();
    if reason.is_empty() {
        return Err(Problem::bad_request("reason is empty; say why the dead letter is discarded"));
    }
    let user_id = user_id.as_deref();
    let action_id = shared.operator.discard(recording_id, user_id, reason, &caller.name).await?;
    Ok(Json(Discarded { action_id }))
}
