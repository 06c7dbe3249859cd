//! How a run is told to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// 128 + SIGINT, as shells count it.
const SECOND_SIGNAL_EXIT_CODE: i32 = 130;

/// SIGTERM or Ctrl-C. A second one ends the process at once.
#[derive(Debug, Clone)]
pub struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// Listens from now on: a signal that comes before somebody waits for it is not lost.
    ///
    /// # Errors
    /// The system takes no handler.
    pub fn listen() -> io::Result<Self> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (tell, told) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("stopping; a second signal ends the process at once");
            tell.send_replace(true);
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            std::process::exit(SECOND_SIGNAL_EXIT_CODE);
        });
        Ok(Self(told))
    }

    /// Waits for the first signal; returns at once where it has come.
    pub async fn told(&mut self) {
        if self.0.wait_for(|told| *told).await.is_err() {
            // Nobody is there to tell any more: the runtime ends.
            std::future::pending::<()>().await;
        }
    }
}
