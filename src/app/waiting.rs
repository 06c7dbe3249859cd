//! Waiting for the database at the start. In a cluster a service comes up before its database, and before
//! the migration of its schema, as often as not: it waits for both, and says what it waits for.

use std::time::{Duration, Instant};

use super::{Database, ServiceVitals, StopSignal, told};
use crate::config::DatabaseArgs;
use crate::postgres::may_pass;

/// First wait between two tries; doubled up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(250);
/// The longest wait: how late the database is noticed.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two log lines that say the same.
const TELL_PERIOD: Duration = Duration::from_secs(30);

impl Database {
    /// Opens the database as [`Database::open`] does, and, with `patient`, waits where it is away or its
    /// schema is to be migrated. `None` where the service was told to stop meanwhile.
    ///
    /// # Errors
    /// What no waiting cures: a refused login, a database that is not there, a schema that serves later
    /// programs only.
    pub async fn open_for_service(
        args: &DatabaseArgs,
        patient: bool,
        vitals: &ServiceVitals,
        stop: &mut StopSignal,
    ) -> anyhow::Result<Option<Self>> {
        // The program's own is started by this very process.
        let patient = patient && args.url().is_some();
        tokio::select! {
            opened = wait_out(patient, |reason| vitals.wait(reason), async || Self::open(args).await) => {
                opened.map(Some)
            }
            () = stop.told() => Ok(None),
        }
    }

    /// Waits, as a service does, until the database is there and somebody else has migrated its schema;
    /// `false` where it was told to stop meanwhile.
    ///
    /// # Errors
    /// As [`Database::open_for_service`].
    pub async fn wait_for_schema(
        args: &DatabaseArgs,
        stop: &mut StopSignal,
    ) -> anyhow::Result<bool> {
        let looking = wait_out(
            true,
            |_| {},
            async || {
                let database = Self::connect(args).await?;
                let checked = database.store.check_schema().await;
                database.close().await?;
                Ok(checked?)
            },
        );
        tokio::select! {
            there = looking => there.map(|()| true),
            () = stop.told() => Ok(false),
        }
    }
}

/// Repeats a step of the start, with `patient`, until it succeeds or fails for a reason that waiting
/// does not cure. `on_wait` is told each reason.
pub(super) async fn wait_out<T>(
    patient: bool,
    on_wait: impl Fn(String),
    mut step: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut wait = WAIT_FIRST;
    let mut said: Option<(String, Instant)> = None;
    loop {
        let error = match step().await {
            Err(error) if patient && error.chain().any(may_pass) => error,
            ended => return ended,
        };
        let reason = format!("waiting for the database: {}", told(&error));
        let is_news =
            said.as_ref().is_none_or(|(last, at)| *last != reason || at.elapsed() >= TELL_PERIOD);
        if is_news {
            tracing::warn!("{reason}");
            said = Some((reason.clone(), Instant::now()));
        }
        on_wait(reason);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}
