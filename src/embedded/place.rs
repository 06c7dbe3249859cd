//! Where the program's own Postgres keeps its files, and as whom it runs.
//! Postgres refuses to run as root, so under root the server is `nobody`: the
//! data must then lie where nobody can get to, and yet nobody else may read it.

use super::EmbeddedError;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// Name of the program's directories and of its database's sockets.
const NAME: &str = "embedding-recovery";

/// Where the data goes without `--data-dir`: `/var/lib/embedding-recovery` for
/// root; for others below `XDG_DATA_HOME` or `~/.local/share` (macOS:
/// `~/Library/Application Support`).
pub fn default_data_dir() -> PathBuf {
    let home =
        if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    default_dir("/var/lib", "XDG_DATA_HOME", home)
}

/// Where the unpacked wheel goes: `/var/cache/embedding-recovery` for root; for
/// others below `XDG_CACHE_HOME` or `~/.cache` (macOS: `~/Library/Caches`).
pub fn default_cache_dir() -> PathBuf {
    let home = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    default_dir("/var/cache", "XDG_CACHE_HOME", home)
}

/// A user without a home directory gets the current one; if even the user
/// cannot be told, it is taken not to be root, and the start gives the error.
fn default_dir(of_root: &str, xdg: &str, below_home: &str) -> PathBuf {
    if matches!(own_uid(), Ok(0)) {
        return Path::new(of_root).join(NAME);
    }
    // The XDG specification says to ignore a relative path.
    let xdg = std::env::var_os(xdg).map(PathBuf::from).filter(|dir| dir.is_absolute());
    xdg.or_else(|| std::env::home_dir().map(|home| home.join(below_home)))
        .unwrap_or_default()
        .join(NAME)
}

/// Our effective uid. std has no `geteuid`, but a file just made belongs to it.
fn own_uid() -> io::Result<u32> {
    Ok(tempfile::tempfile()?.metadata()?.uid())
}

/// The user that the server runs as when the program is root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerUser {
    pub uid: u32,
    pub gid: u32,
}

impl ServerUser {
    /// `None` when the program is not root: the server is then the same user.
    pub fn needed() -> Result<Option<Self>, EmbeddedError> {
        let temp = std::env::temp_dir();
        if own_uid().map_err(EmbeddedError::io("create a file in", &temp))? != 0 {
            return Ok(None);
        }
        let passwd = Path::new("/etc/passwd");
        let text = fs::read_to_string(passwd).map_err(EmbeddedError::io("read", passwd))?;
        let nobody = text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            match fields[..] {
                ["nobody", _, uid, gid, ..] => Some(Self { uid: number(uid)?, gid: number(gid)? }),
                _ => None,
            }
        });
        nobody.map(Some).ok_or(EmbeddedError::NoNobody)
    }

    /// The first directory on the way to `dir` (itself included) that the user
    /// may not enter. By mode bits alone: access lists are not looked at.
    pub fn blocked_at(self, dir: &Path) -> Option<PathBuf> {
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
        let mut ancestors: Vec<&Path> = dir.ancestors().collect();
        ancestors.reverse();
        ancestors
            .into_iter()
            .find(|dir| {
                fs::metadata(dir).is_ok_and(|found| {
                    let needed = match found {
                        _ if found.uid() == self.uid => 0o100,
                        _ if found.gid() == self.gid => 0o010,
                        _ => 0o001,
                    };
                    found.mode() & needed == 0
                })
            })
            .map(Path::to_path_buf)
    }
}

/// macOS writes nobody's number as -2, meaning the same bits unsigned.
fn number(field: &str) -> Option<u32> {
    field.parse().ok().or_else(|| field.parse::<i32>().ok().map(i32::cast_unsigned))
}

/// Creates `dir` with its parents if need be, and gives its real path.
///
/// `mode` is given to a directory that is new or empty and so has no other use;
/// missing parents become 0755, whatever the umask. With `user`, it must be
/// possible for that user to get there.
///
/// # Errors
/// `Io`, or `Unreachable` for `user`; `what` names the directory in it.
pub(super) fn prepare_dir(
    dir: &Path,
    mode: u32,
    user: Option<ServerUser>,
    what: &'static str,
) -> Result<PathBuf, EmbeddedError> {
    let absolute = std::path::absolute(dir).map_err(EmbeddedError::io("find", dir))?;
    let blocked_at = |dir: &Path| user.and_then(|user| user.blocked_at(dir));
    let unreachable = |blocker| EmbeddedError::Unreachable { dir: absolute.clone(), blocker, what };
    // Before anything is created; the directory itself may yet be opened.
    let mut parents = absolute.ancestors().skip(1);
    if let Some(blocker) = parents.find(|dir| dir.exists()).and_then(blocked_at) {
        return Err(unreachable(blocker));
    }
    let missing: Vec<&Path> = absolute.ancestors().filter(|dir| !dir.exists()).collect();
    fs::create_dir_all(&absolute).map_err(EmbeddedError::io("create", dir))?;
    for new in missing {
        set_mode(new, 0o755)?;
    }
    let dir = fs::canonicalize(dir).map_err(EmbeddedError::io("find", dir))?;
    let mut entries = fs::read_dir(&dir).map_err(EmbeddedError::io("read", &dir))?;
    if entries.next().is_none() {
        // A mounted volume may belong to someone else and still be writable.
        let _ = set_mode(&dir, mode);
    }
    match blocked_at(&dir) {
        Some(blocker) => Err(unreachable(blocker)),
        None => Ok(dir),
    }
}

/// Sets the permission bits of `path`.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), EmbeddedError> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(EmbeddedError::io("set the permissions of", path))
}

/// Gives `path` (never what a link there points to) to the server's user.
pub(super) fn give_to(user: Option<ServerUser>, path: &Path) -> Result<(), EmbeddedError> {
    match user {
        Some(user) => lchown(path, Some(user.uid), Some(user.gid))
            .map_err(EmbeddedError::io("change the owner of", path)),
        None => Ok(()),
    }
}

/// The files in one data directory. All of it but `pgdata` and `run` belongs
/// to the user of the program, so that nobody else can swap a name for a link.
#[derive(Clone, Debug)]
pub(super) struct DataDir(pub PathBuf);

impl DataDir {
    /// What Postgres itself calls the data directory.
    pub fn pgdata(&self) -> PathBuf {
        self.0.join("pgdata")
    }

    /// Holds the password of the superuser; 0600.
    pub fn password(&self) -> PathBuf {
        self.0.join("password")
    }

    /// Locked while a process starts, joins or leaves the server.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Log of the server since its last start.
    pub fn log(&self) -> PathBuf {
        self.0.join("server.log")
    }

    /// Directory of the socket, unless its path is too long; 0700.
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Written by the running server; outlives it when it is killed.
    pub fn pid_file(&self) -> PathBuf {
        self.pgdata().join("postmaster.pid")
    }

    /// The version that wrote the data; `None` when there is no data yet.
    pub fn version(&self) -> Result<Option<String>, EmbeddedError> {
        let path = self.pgdata().join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EmbeddedError::io("read", &path)(error)),
        }
    }
}

/// The regular file `name` in the first directory of the list `path` that has it.
pub(super) fn on_path(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
