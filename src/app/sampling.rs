//! Looks at the database for the gauges, which no reader of metrics could wait for.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::ports::inspector::Inspector;
use crate::postgres::PgStore;
use crate::telemetry::metrics::metrics;

/// Between two looks: as often as Prometheus reads by the shipped configuration.
const PERIOD: Duration = Duration::from_secs(15);
/// A look that takes longer has failed.
const LOOK_TIME: Duration = Duration::from_secs(10);

/// Looks until it is dropped.
pub(super) struct Sampling(JoinHandle<()>);

impl Sampling {
    /// Looks at once, and then again and again.
    pub(super) fn start(store: PgStore) -> Self {
        Self(tokio::spawn(async move {
            loop {
                look(&store).await;
                tokio::time::sleep(PERIOD).await;
            }
        }))
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What it cannot see is shown as unknown: an old number is worse than none.
async fn look(store: &PgStore) {
    let connections = store.connections();
    metrics().connections(connections.idle, connections.used, connections.max);
    let seen = match tokio::time::timeout(LOOK_TIME, store.overview()).await {
        Ok(Ok(overview)) => Some(overview),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the database could not be looked at");
            None
        }
        Err(_) => None,
    };
    metrics().database(seen.as_ref());
}
