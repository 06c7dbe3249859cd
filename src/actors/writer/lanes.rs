//! The ways on which rows go to the database, and how many may be on each. Those that are written
//! patiently have ways of their own, so that their slow inserts neither stall the others nor make
//! these small; and so do dead letters, whose inserts may be the slowest there are.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::domain::part::Part;
use crate::telemetry::metrics::{Lane, metrics};

/// Rows on their way to the database, all recordings together: at 1,536 dimensions some 8 MB.
const QUICK_ROWS_MAX: usize = 1_024;
/// Of recordings that are written patiently, and so slowly: two requests' worth.
const PATIENT_ROWS_MAX: usize = 256;
/// Of dead letters, likewise.
const RECOVERY_ROWS_MAX: usize = 256;

/// Which lane a recording's rows go, and the permits that they travel with.
#[derive(Clone)]
pub(in super::super) struct Lanes {
    quick: Arc<Semaphore>,
    patient: Arc<Semaphore>,
    recovery: Arc<Semaphore>,
    small_batches_above: u32,
}

impl Lanes {
    /// A recording of more chunks than this is written patiently from the start.
    pub(in super::super) fn new(small_batches_above: u32) -> Self {
        let permits = |lane| Arc::new(Semaphore::new(rows_max(lane)));
        Self {
            quick: permits(Lane::Quick),
            patient: permits(Lane::Patient),
            recovery: permits(Lane::Recovery),
            small_batches_above,
        }
    }

    /// The lane of a recording of so many chunks.
    pub(in super::super) fn lane_of(&self, part: Part, chunks: u32) -> Lane {
        match part {
            Part::Recovery => Lane::Recovery,
            Part::Main if chunks > self.small_batches_above => Lane::Patient,
            Part::Main => Lane::Quick,
        }
    }

    /// Says how many rows are on their way.
    pub(in super::super) fn measure(&self) {
        for lane in Lane::ALL {
            let max = rows_max(lane);
            let used = max.saturating_sub(self.permits(lane).available_permits());
            metrics().permits(lane, used, max);
        }
    }

    /// The permits of a lane.
    pub(in super::super) fn permits(&self, lane: Lane) -> Arc<Semaphore> {
        match lane {
            Lane::Quick => self.quick.clone(),
            Lane::Patient => self.patient.clone(),
            Lane::Recovery => self.recovery.clone(),
        }
    }
}

fn rows_max(lane: Lane) -> usize {
    match lane {
        Lane::Quick => QUICK_ROWS_MAX,
        Lane::Patient => PATIENT_ROWS_MAX,
        Lane::Recovery => RECOVERY_ROWS_MAX,
    }
}
