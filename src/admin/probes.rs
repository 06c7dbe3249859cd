//! What a cluster asks without a token: is the process alive, and can it work? Nothing else is told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::problem::Problem;
use crate::ports::Vitals;

/// An answer that takes longer is none.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Serves `/livez` and `/readyz` until `stop` says true. Each answers 200, or 503 with the reason.
///
/// # Errors
/// The listener breaks.
pub async fn serve_probes(
    listener: TcpListener,
    vitals: Arc<dyn Vitals>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let live = vitals.clone();
    let router = Router::new()
        .route("/livez", get(async move || answer("alive\n", live.alive()).await))
        .route("/readyz", get(async move || answer("ready\n", vitals.ready()).await));
    axum::serve(listener, router).with_graceful_shutdown(super::until(stop)).await
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
