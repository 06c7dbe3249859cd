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
use crate::ports::inspector::Inspector;

/// The database answers sooner, or the service counts as not ready. So do the metrics.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// What Prometheus reads.
#[derive(Debug, Clone, Copy)]
pub struct Exposition {
    /// Writes it down.
    pub write: fn() -> Result<String, String>,
    /// Its content type.
    pub content_type: &'static str,
}

/// Serves `/livez`, `/readyz` and `/metrics` until `stop` says true.
///
/// # Errors
/// The listener breaks.
pub async fn serve_probes(
    listener: TcpListener,
    inspector: Arc<dyn Inspector>,
    exposition: Exposition,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(async move || ready(inspector.as_ref()).await))
        .route("/metrics", get(async move || metrics(exposition).await));
    axum::serve(listener, router).with_graceful_shutdown(super::until(stop)).await
}

async fn ready(inspector: &dyn Inspector) -> Result<&'static str, Problem> {
    // The cheapest question there is: one look into an index.
    match tokio::time::timeout(ANSWER_TIME, inspector.find(0, None)).await {
        Ok(Ok(_)) => Ok("ready\n"),
        Ok(Err(failure)) => Err(Problem::unavailable(failure.to_string())),
        Err(_) => Err(Problem::unavailable("the database does not answer")),
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
