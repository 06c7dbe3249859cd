//! What the gauges show: the last level that was set, until it is set anew or taken away. A gauge
//! of the library would show its last value for ever; what is not known any more must not be shown.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::AsyncInstrument;

use super::names::Metric;

type Level = (Vec<KeyValue>, f64);

/// The levels of all gauges, by their names.
#[derive(Default)]
pub(super) struct Levels(Mutex<HashMap<&'static str, Vec<Level>>>);

impl Levels {
    /// Sets a gauge, for these values of its attributes.
    pub(super) fn set(&self, metric: &Metric, attributes: &[KeyValue], value: f64) {
        let mut levels = self.lock();
        let levels = levels.entry(metric.name).or_default();
        match levels.iter_mut().find(|(known, _)| known == attributes) {
            Some((_, known)) => *known = value,
            None => levels.push((attributes.to_vec(), value)),
        }
    }

    /// Shows these levels of a gauge, and none that it had before.
    pub(super) fn show(&self, metric: &Metric, levels: impl IntoIterator<Item = Level>) {
        let levels = levels.into_iter().collect();
        self.lock().insert(metric.name, levels);
    }

    /// Tells a reader the levels of a gauge.
    pub(super) fn observe(&self, name: &str, reader: &dyn AsyncInstrument<f64>) {
        for (attributes, value) in self.lock().get(name).into_iter().flatten() {
            reader.observe(*value, attributes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Vec<Level>>> {
        // A panic while the lock is held leaves plain numbers: still good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
