//! The socket that the server listens on. It listens on nothing else: a TCP
//! port is open to every user of the machine, and may be taken.

use super::EmbeddedError;
use super::place::{DataDir, ServerUser, give_to};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Only a part of the socket's name.
pub(super) const PORT: u16 = 5432;
/// The name that Postgres gives to the socket of `PORT`.
const SOCKET: &str = ".s.PGSQL.5432";
/// Longest path of a socket in bytes: macOS has room for 104 (Linux for 108)
/// with the final NUL.
const PATH_LIMIT: usize = 103;

/// A new, empty directory for the socket that only the server's user (and
/// root) can enter: `run` in the data directory, or one in `/tmp` with a random
/// name if that path is too long or no UTF-8. Whoever joins reads its name
/// from `postmaster.pid`.
pub(super) fn new_dir(data: &DataDir, user: Option<ServerUser>) -> Result<PathBuf, EmbeddedError> {
    let run = data.run();
    let fits = run.join(SOCKET).as_os_str().len() <= PATH_LIMIT && run.to_str().is_some();
    let dir = if fits {
        let _ = fs::remove_dir_all(&run);
        DirBuilder::new().mode(0o700).create(&run).map_err(EmbeddedError::io("create", &run))?;
        run
    } else {
        // Not TMPDIR, which is long on macOS.
        let short = Path::new("/tmp");
        tempfile::Builder::new()
            .prefix("embedding-recovery-")
            .tempdir_in(short)
            .map_err(EmbeddedError::io("create a directory in", short))?
            .keep()
    };
    give_to(user, &dir)?;
    Ok(dir)
}

/// Removes the socket's directory of a server that has ended, as far as it
/// holds nothing foreign; what remains does no harm.
pub(super) fn discard_dir(dir: &Path) {
    let _ = fs::remove_file(dir.join(SOCKET));
    let _ = fs::remove_file(dir.join(SOCKET).with_extension("5432.lock"));
    let _ = fs::remove_dir(dir);
}

/// A URL in libpq's form for sockets: the directory, percent-encoded, as host.
pub(super) fn url(role: &str, password: &str, socket_dir: &Path, database: &str) -> String {
    let mut host = String::new();
    for byte in socket_dir.as_os_str().as_bytes() {
        // Writing to a string cannot fail.
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => write!(host, "{}", char::from(*byte)),
            _ => write!(host, "%{byte:02X}"),
        };
    }
    // The wheel's server is built without TLS, which a socket does not need.
    format!("postgres://{role}:{password}@{host}:{PORT}/{database}?sslmode=disable")
}
