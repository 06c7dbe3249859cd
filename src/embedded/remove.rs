//! Takes a data directory away, with the server that may still run on it: for data that were never
//! meant to stay.

use super::place::{DataDir, ServerUser};
use super::server::{Server, Stop};
use super::state::State;
use super::{EmbeddedError, EmbeddedOptions, EmbeddedPostgres, SearchPlaces, find};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long something that was just killed may still write below the directory.
const WRITERS_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two tries.
const POLL: Duration = Duration::from_millis(20);

impl EmbeddedPostgres {
    /// Stops the server of `options.data_dir`, whoever uses it, and removes the directory with all
    /// data. A directory that is not there is no error.
    ///
    /// # Errors
    /// `Locked`, `Program` if the server does not stop, `Io`, or those of the search for the
    /// programs of Postgres, which is made only where a server has left its `postmaster.pid`.
    pub async fn remove(options: &EmbeddedOptions) -> Result<(), EmbeddedError> {
        let Ok(dir) = fs::canonicalize(&options.data_dir) else { return Ok(()) };
        let data = DataDir(dir);
        if data.pid_file().exists() {
            let user = ServerUser::needed()?;
            let places = SearchPlaces::of_this_machine();
            let found = find::find(options, &places, &data, user).await?;
            let (bin_dir, major, durable) = (found.bin_dir, found.major, options.durable);
            let server = Server { bin_dir, major, data: data.clone(), user, durable };
            let _lock = server.lock().await?;
            if !matches!(server.state().await?, State::Absent) {
                server.stop(Stop::Immediate).await?;
            }
        }
        remove_all(&data.0).await
    }
}

async fn remove_all(dir: &Path) -> Result<(), EmbeddedError> {
    let deadline = Instant::now() + WRITERS_LIMIT;
    loop {
        match fs::remove_dir_all(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Somebody has written there meanwhile.
            Err(error)
                if error.kind() == io::ErrorKind::DirectoryNotEmpty
                    && Instant::now() < deadline =>
            {
                tokio::time::sleep(POLL).await;
            }
            Err(error) => return Err(EmbeddedError::io("remove", dir)(error)),
        }
    }
}
