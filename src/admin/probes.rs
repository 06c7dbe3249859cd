//! What a cluster asks without a token: is the process alive, can it work, and how does it fare in
//! numbers? Nothing else is told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::problem::Problem;
use crate::ports::Vitals;

/// An answer that takes longer is none.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// What Prometheus reads.
#[derive(Debug, Clone, Copy)]
pub struct Exposition {
    /// Writes it down.
    pub write: fn() -> Result<String, String>,
    /// Its content type.
    pub content_type: &'static str,
}

/// Serves `/livez`, `/readyz` and `/metrics` until `stop` says true. Each answers 200, or 503 with the
/// reason.
///
/// # Errors
/// The listener breaks.
pub async fn serve_probes(
    listener: TcpListener,
    vitals: Arc<dyn Vitals>,
    exposition: Exposition,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let live = vitals.clone();
    let router = Router::new()
        .route("/livez", get(async move || answer("alive\n", live.alive()).await))
        .route("/readyz", get(async move || answer("ready\n", vitals.ready()).await))
        .route("/metrics", get(async move || metrics(exposition).await));
    super::connections::serve(listener, router, stop).await
}

async fn answer(
    well: &'static str,
    asked: impl Future<Output = Result<(), String>>,
) -> Result<&'static str, Problem> {
    match tokio::time::timeout(ANSWER_TIME, asked).await {
        Ok(Ok(())) => Ok(well),
        Ok(Err(reason)) => Err(Problem::unavailable(reason)),
        Err(_) => Err(Problem::unavailable(format!("no answer within {ANSWER_TIME:?}"))),
    }
}

/// Written on a thread of its own, for it takes locks that others hold for a moment.
async fn metrics(exposition: Exposition) -> Result<impl IntoResponse, Problem> {
    let writing = tokio::task::spawn_blocking(exposition.write);
    match tokio::time::timeout(ANSWER_TIME, writing).await {
        Ok(Ok(Ok(text))) => Ok(([(CONTENT_TYPE, exposition.content_type)], text)),
        Ok(Ok(Err(error))) => Err(Problem::unavailable(error)),
        Ok(Err(_)) | Err(_) => Err(Problem::unavailable("the metrics could not be written")),
    }
}
