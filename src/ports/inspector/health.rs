//! The facts that a verdict is made from, as the overview has them.

use chrono::{DateTime, Utc};

use super::Overview;
use crate::domain::health::{DatabaseTrouble, HealthFacts, PausedPart, ProviderTrouble};
use crate::domain::span::from_secs;

impl Overview {
    /// What [`crate::domain::health::judge`] makes its verdict from.
    pub fn health_facts(&self) -> HealthFacts {
        let span =
            |from: DateTime<Utc>, to: DateTime<Utc>| (to - from).to_std().unwrap_or_default();
        let running = self.in_flight.iter().map(|recording| recording.running_secs);
        let oldest = running.chain(self.oldest_waiting_secs).map(from_secs).max();
        let troubles = self.workers.iter().filter_map(|worker| {
            Some(ProviderTrouble {
                host: worker.host.clone(),
                message: worker.provider_trouble.clone()?,
                asked_in: span(self.at, worker.provider_asked_at?),
            })
        });
        let forbidden = self.workers.iter().filter_map(|worker| {
            Some(DatabaseTrouble {
                host: worker.host.clone(),
                message: worker.database_trouble.clone()?,
            })
        });
        HealthFacts {
            dead_letters: self.tasks.dead_letter,
            dead_letters_permanent: self.dead_letters_permanent,
            retry_queue: self.tasks.failed,
            ready: self.tasks.pending + self.retry_ready,
            since_completion: self.last_completed_at.map(|at| span(at, self.at)),
            oldest_unfinished: oldest,
            workers: self.workers.len() as u64,
            provider_troubles: troubles.collect(),
            database_troubles: forbidden.collect(),
            pauses: self
                .pauses
                .iter()
                .map(|pause| PausedPart {
                    part: pause.part.as_str(),
                    paused_for: span(pause.since, self.at),
                    by: pause.by.clone(),
                })
                .collect(),
        }
    }
}
