//! Connections of both listeners. Whoever connects may send nothing, or half a request: neither holds a
//! connection for long, and there are never more than a bound of them.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Until the head of a request is there, the first one and each that follows it.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Connections of a listener at once; more wait to be accepted. Four times the pages that may be open.
const CONNECTIONS_MAX: usize = 256;
/// After a connection could not be accepted: without files left, the next try would fail too.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Serves `router` until `stop` says true and the requests that are under way are answered.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let connections = GracefulShutdown::new();
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stopped = pin!(super::until(stop));
    loop {
        let accepting = async {
            // The semaphore is never closed.
            let seat = seats.clone().acquire_owned().await.map_err(io::Error::other)?;
            io::Result::Ok((seat, listener.accept().await?.0))
        };
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            () = &mut stopped => break,
        };
        match accepted {
            Ok((seat, stream)) => {
                let service = TowerToHyperService::new(router.clone());
                let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
                let connection = connections.watch(connection);
                tokio::spawn(async move {
                    // A connection that breaks is the other side's matter.
                    let _ = connection.await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
    Ok(())
}
