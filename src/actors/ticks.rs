//! When a cron schedule fires, by the database's clock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;

use super::patience::Outages;
use crate::domain::failure::Failure;
use crate::ports::Store;

/// The longest time to a tick that could not be computed.
pub(super) const TICK_AGAIN: Duration = Duration::from_secs(10);

/// Says when a schedule fires, for whoever looks; ticks do not depend on it.
pub(super) async fn note_cron(store: &dyn Store, outages: &Outages, name: &str, schedule: &Cron) {
    if let Err(failure) = outages.answered(store.note_cron(name, schedule.as_str())).await {
        outages.note(&failure);
        tracing::warn!(error = %failure, schedule = name, "nobody can see when its next tick falls");
    }
}

/// Takes the newest tick of a schedule where it fell while no process was there to take it. A schedule
/// that never fired missed none.
pub(super) async fn take_missed_tick(
    store: &dyn Store,
    outages: &Outages,
    name: &str,
    schedule: &Cron,
) -> Result<bool, Failure> {
    let now = outages.answered(store.now()).await?;
    match schedule.find_previous_occurrence(&now, true) {
        Ok(at) => outages.answered(store.take_missed_tick(name, at)).await,
        Err(_) => Ok(false),
    }
}

/// The next tick of a schedule and the time until then. Ticks are computed from the database's time, so
/// that replicas agree on them. `None` where it cannot be known now: ask again after [`TICK_AGAIN`].
pub(super) async fn next_tick(
    store: &dyn Store,
    outages: &Outages,
    schedule: &Cron,
) -> Option<(Duration, DateTime<Utc>)> {
    match outages.answered(store.now()).await {
        Ok(now) => {
            let at = schedule.find_next_occurrence(&now, false).ok()?;
            Some(((at - now).to_std().unwrap_or_default(), at))
        }
        Err(failure) => {
            outages.note(&failure);
            None
        }
    }
}
