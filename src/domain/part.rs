//! The two parts of the work. Each is claimed for, paused and settled by its own rules.

use serde::{Deserialize, Serialize};

/// A part of the work that can be run at once, paused and resumed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Claims of tasks that are ready, and the reconciliation at each tick.
    Main,
    /// Runs over dead letters.
    Recovery,
}

impl Part {
    /// Both, in the order in which reports list them.
    pub const ALL: [Part; 2] = [Part::Main, Part::Recovery];

    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Main => "main",
            Part::Recovery => "recovery",
        }
    }

    /// The part of a stored word; the tables' checks know no other.
    pub fn of(word: &str) -> Self {
        if word == "recovery" { Part::Recovery } else { Part::Main }
    }
}
