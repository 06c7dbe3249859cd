//! Where the demo keeps its database: beside the data of the program, never in them, and only while
//! it runs.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// A directory that one demo at a time holds, by a lock that ends with the process.
pub(super) struct Place {
    dir: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Place {
    /// Takes `<data_dir>-demo`. What another demo left in it stays for the caller to clear.
    ///
    /// # Errors
    /// A demo is running there, or the directory cannot be made.
    pub(super) fn claim(data_dir: &Path) -> anyhow::Result<Self> {
        let data_dir = std::path::absolute(data_dir)?;
        let Some(name) = data_dir.file_name() else {
            bail!("--data-dir {} has no name to put the demo beside", data_dir.display());
        };
        let name: OsString = [name, "-demo".as_ref()].into_iter().collect();
        let dir = data_dir.with_file_name(name);
        let lock = dir.join("lock");
        loop {
            create(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&lock);
            let held = match opened {
                // A demo that ends has just removed the directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.with_context(|| format!("cannot open {}", lock.display()))?,
            };
            match held.try_lock() {
                Ok(()) if is_still_at(&held, &lock)? => {
                    return Ok(Self { dir, lock, _held: held });
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => bail!(
                    "a demo is running in {}: wait for its end, or give this one another --data-dir",
                    dir.display()
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", lock.display()));
                }
            }
        }
    }

    /// For the server's data.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    /// Gives the place up. Nothing foreign in it is touched.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.lock);
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Whatever the umask: under root the server is another user, who must get through.
fn create(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).create(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))
}

/// False where the file was removed between its opening and its locking.
fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let file = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (file.dev(), file.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
