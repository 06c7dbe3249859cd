//! Makes the data directory of a new server: `initdb`, a password, a locale.

use super::EmbeddedError;
use super::place::give_to;
use super::server::{ROLE, Server, run};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Begin of the name of a data directory that is not complete.
const PARTIAL: &str = "initdb-";

impl Server {
    /// Runs `initdb` if there is no data yet, in a directory that gets its name
    /// only when it is complete. Call it under the lock.
    pub async fn init_if_needed(&self) -> Result<(), EmbeddedError> {
        if self.data.version()?.is_some() {
            return Ok(());
        }
        let root = &self.data.0;
        self.remove_partial()?;
        self.write_password()?;
        let partial = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempdir_in(root)
            .map_err(EmbeddedError::io("create a directory in", root))?;
        give_to(self.user, partial.path())?;
        let mut initdb = self.command("initdb");
        initdb.arg("--pgdata").arg(partial.path());
        initdb.arg("--pwfile").arg(self.data.password());
        initdb.args(["--username", ROLE, "--auth", "scram-sha-256"]);
        initdb.args(["--encoding", "UTF8"]).args(self.locale());
        if !self.durable {
            initdb.arg("--no-sync");
        }
        run(initdb, &self.bin_dir.join("initdb")).await?;
        let pgdata = self.data.pgdata();
        fs::rename(partial.path(), &pgdata).map_err(EmbeddedError::io("create", &pgdata))?;
        sync(root)
    }

    /// Removes what killed runs of `initdb` have left (40 MB each).
    fn remove_partial(&self) -> Result<(), EmbeddedError> {
        let root = &self.data.0;
        let entries = fs::read_dir(root).map_err(EmbeddedError::io("read", root))?;
        for entry in entries.flatten() {
            if entry.file_name().as_bytes().starts_with(PARTIAL.as_bytes()) {
                // An initdb that outlived its program may still write there.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    /// UTF-8 with the order of its bytes, which no update of the system's C
    /// library can change under an index. The wheel is built without ICU;
    /// before 17 only the C library offers it, and macOS's does not.
    fn locale(&self) -> &'static [&'static str] {
        match self.major {
            17.. => &["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
            _ if cfg!(target_os = "macos") => &["--locale=C"],
            _ => &["--locale=C.UTF-8"],
        }
    }

    /// Writes a new random password where only the server's user (and root)
    /// can read it; it must be on disk before the data that needs it.
    fn write_password(&self) -> Result<(), EmbeddedError> {
        let random = Path::new("/dev/urandom");
        let mut bytes = [0_u8; 24];
        File::open(random)
            .and_then(|mut file| file.read_exact(&mut bytes))
            .map_err(EmbeddedError::io("read", random))?;
        let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.data.password();
        // A temporary file is 0600 from the start.
        let mut file = tempfile::NamedTempFile::new_in(&self.data.0)
            .map_err(EmbeddedError::io("create a file in", &self.data.0))?;
        file.write_all(password.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(EmbeddedError::io("write", &path))?;
        give_to(self.user, file.path())?;
        file.persist(&path).map_err(|error| EmbeddedError::io("create", &path)(error.error))?;
        sync(&self.data.0)
    }
}

/// Makes the names in a directory survive a power cut.
fn sync(dir: &Path) -> Result<(), EmbeddedError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(EmbeddedError::io("sync", dir))
}
