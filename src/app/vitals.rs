//! How the service is, for the probes, from the first moment to the last.

use async_trait::async_trait;
use tokio::sync::watch;

use crate::actors::Pulse;
use crate::ports::Vitals;
use crate::postgres::PgStore;

/// What the service is about.
enum Stage {
    /// It waits for something, or starts.
    Starting(String),
    /// It works.
    Serving(Box<Working>),
    /// It was told to stop, or has nothing left to do.
    Stopping,
}

/// What a service that works is felt by.
struct Working {
    pulse: Pulse,
    store: PgStore,
}

/// How the service is: told by itself, read by the probes.
pub struct ServiceVitals(watch::Sender<Stage>);

impl ServiceVitals {
    /// Of a service that begins.
    pub fn starting() -> Self {
        Self(watch::Sender::new(Stage::Starting("starting".into())))
    }

    /// It cannot work yet, for this reason.
    pub(super) fn wait(&self, reason: impl Into<String>) {
        self.0.send_replace(Stage::Starting(reason.into()));
    }

    /// It works.
    pub(super) fn serve(&self, pulse: Pulse, store: PgStore) {
        self.0.send_replace(Stage::Serving(Box::new(Working { pulse, store })));
    }

    /// It goes down.
    pub(super) fn stop(&self) {
        self.0.send_replace(Stage::Stopping);
    }

    /// The tree that is alive where its Supervisor answers. Before and after there is none, and what is
    /// waited for then is not cured by a restart.
    fn pulse(&self) -> Option<Pulse> {
        match &*self.0.borrow() {
            Stage::Serving(working) => Some(working.pulse.clone()),
            Stage::Starting(_) | Stage::Stopping => None,
        }
    }

    /// The database that must answer, once everything else is well.
    fn working(&self) -> Result<PgStore, String> {
        match &*self.0.borrow() {
            Stage::Starting(reason) => Err(reason.clone()),
            Stage::Serving(working) => working.pulse.renewal().map(|()| working.store.clone()),
            Stage::Stopping => Err("stopping".into()),
        }
    }
}

#[async_trait]
impl Vitals for ServiceVitals {
    async fn alive(&self) -> Result<(), String> {
        match self.pulse() {
            Some(pulse) if !pulse.beats().await => Err("the supervisor does not answer".into()),
            Some(_) | None => Ok(()),
        }
    }

    async fn ready(&self) -> Result<(), String> {
        let store = self.working()?;
        // The cheapest question there is: one look into an index.
        store.find_recordings(0, None).await.map(drop).map_err(|failure| failure.to_string())
    }
}
