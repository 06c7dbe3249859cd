//! Ticks of recovery's schedule: one replica begins a run at each, and none is lost for an outage or a
//! restart, since the next one may be hours away.

use chrono::{DateTime, Utc};
use ractor::{ActorProcessingErr, ActorRef};

use super::{RecoveryArguments, RecoveryMessage, RecoveryState};
use crate::actors::ticks::{TICK_AGAIN, next_tick, note_cron, take_missed_tick};
use crate::ports::Occasion;

/// Begins the name of this schedule among those that replicas share. The model ends it.
const SCHEDULE: &str = "recovery";

impl RecoveryState {
    /// A tick that fell while nobody was there is made up for at once: the next one may be hours away.
    pub(super) async fn arm(&mut self, myself: &ActorRef<RecoveryMessage>) {
        let RecoveryArguments { store, outages, schedule, .. } = &self.arguments;
        let name = self.arguments.schedule_name();
        match take_missed_tick(&**store, outages, &name, schedule).await {
            Ok(missed) => {
                self.arguments.arm_next(myself).await;
                if missed {
                    tracing::info!(schedule = name, "making up for a tick that was missed");
                    self.begin_tick(myself).await;
                }
            }
            Err(failure) => {
                outages.note(&failure);
                myself.send_after(TICK_AGAIN, || RecoveryMessage::Arm);
            }
        }
    }

    /// One replica begins a run at each tick. Whether this one does is asked until it is known.
    pub(super) async fn tick(
        &mut self,
        myself: &ActorRef<RecoveryMessage>,
        at: DateTime<Utc>,
    ) -> Result<(), ActorProcessingErr> {
        let RecoveryArguments { store, outages, .. } = &self.arguments;
        match outages.answered(store.take_tick(&self.arguments.schedule_name(), at)).await {
            Ok(true) => self.begin_tick(myself).await,
            Ok(false) => {}
            Err(failure) => {
                outages.note(&failure);
                myself.send_after(TICK_AGAIN, move || RecoveryMessage::Tick(at));
                return Ok(());
            }
        }
        Ok(myself.cast(RecoveryMessage::Arm)?)
    }

    async fn begin_tick(&mut self, myself: &ActorRef<RecoveryMessage>) {
        self.occasion = Occasion::Tick;
        self.look(myself).await;
    }
}

impl RecoveryArguments {
    fn schedule_name(&self) -> String {
        format!("{SCHEDULE} {}", self.model_name)
    }

    pub(super) async fn note_cron(&self) {
        note_cron(&*self.store, &self.outages, &self.schedule_name(), &self.schedule).await;
    }

    async fn arm_next(&self, myself: &ActorRef<RecoveryMessage>) {
        match next_tick(&*self.store, &self.outages, &self.schedule).await {
            Some((after, at)) => {
                myself.send_after(after, move || RecoveryMessage::Tick(at));
            }
            None => {
                myself.send_after(TICK_AGAIN, || RecoveryMessage::Arm);
            }
        }
    }
}
