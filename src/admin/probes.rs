//! What a cluster asks without a token: is the process alive, and can it work? Nothing else is told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::problem::Problem;
use crate::ports::inspector::Inspector;

/// The database answers sooner, or the service counts as not ready.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Serves `/livez` and `/readyz` until `stop` says true.
///
/// # Errors
/// The listener breaks.
pub async fn serve_probes(
    listener: TcpListener,
    inspector: Arc<dyn Inspector>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(async move || ready(inspector.as_ref()).await));
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
