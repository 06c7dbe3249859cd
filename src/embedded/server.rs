//! Sets up, starts, joins and stops the server of one data directory.
//!
//! The server outlives the program, so nothing here trusts that the last run
//! ended well: what counts is whether a connection succeeds, and only without
//! one whether the process named in `postmaster.pid` is really this server.

use super::EmbeddedError;
use super::place::{DataDir, ServerUser};
use super::socket::{self, PORT};
use super::state::State;
use sqlx::PgConnection;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Longest start that is waited for: the recovery after a kill replays up to
/// `max_wal_size` (1 GB) of log.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for another process that starts or stops the server; longer
/// than either of these may take.
const LOCK_LIMIT: Duration = Duration::from_secs(150);
/// Pause between two looks at a state that is waited for.
const POLL: Duration = Duration::from_millis(20);
/// Longest shutdown that is waited for, in seconds as `pg_ctl` takes them.
const STOP_SECONDS: &str = "60";
/// The superuser.
pub(super) const ROLE: &str = "postgres";
/// What Postgres gets of our environment: how to find its libraries, and the
/// time zone that `initdb` writes down.
const KEPT_ENV: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ"];
/// How much of the log goes into an error.
const TAIL_LINES: usize = 15;

/// The server of one data directory, running or not.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub bin_dir: PathBuf,
    pub major: u32,
    pub data: DataDir,
    pub user: Option<ServerUser>,
    pub durable: bool,
}

/// A connection to the running server, and how it came about.
pub(super) struct Running {
    pub connection: PgConnection,
    pub socket_dir: PathBuf,
    pub started_here: bool,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// Clients are cut off, and all is written to disk.
    Fast,
    /// As if it was killed: for data that nobody needs any more.
    Immediate,
}

impl Server {
    /// Waits until no other process starts, joins or leaves this server. The
    /// lock ends with the file, thus also when the program is killed.
    pub async fn lock(&self) -> Result<File, EmbeddedError> {
        let path = self.data.lock();
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(EmbeddedError::io("open", &path))?;
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let seconds = LOCK_LIMIT.as_secs();
                    return Err(EmbeddedError::Locked { path, seconds });
                }
                Err(TryLockError::Error(source)) => {
                    return Err(EmbeddedError::io("lock", &path)(source));
                }
            }
        }
    }

    /// A connection to the server, which is started if it does not run. Call it
    /// under the lock.
    pub async fn start_or_join(&self) -> Result<Running, EmbeddedError> {
        let deadline = Instant::now() + START_LIMIT;
        let mut started_here = false;
        let mut child: Option<(Child, PathBuf)> = None;
        while Instant::now() < deadline {
            match self.state().await? {
                State::Up(connection, socket_dir) => {
                    return Ok(Running { connection: *connection, socket_dir, started_here });
                }
                State::Busy => {}
                State::Absent => match &mut child {
                    None => {
                        child = Some(self.spawn()?);
                        started_here = true;
                    }
                    Some((running, socket_dir)) => {
                        if !matches!(running.try_wait(), Ok(None)) {
                            socket::discard_dir(socket_dir);
                            self.may_retry()?;
                            child = None;
                        }
                    }
                },
            }
            tokio::time::sleep(POLL).await;
        }
        Err(EmbeddedError::NotReady {
            pid: self.pid_file().map_or("unknown".to_owned(), |file| file.pid.to_string()),
            data_dir: self.data.0.clone(),
            log: self.data.log(),
            seconds: START_LIMIT.as_secs(),
        })
    }

    /// After kill -9 of the server its backends live on for a moment, and with
    /// them the shared memory; a start in that moment fails and is repeated.
    fn may_retry(&self) -> Result<(), EmbeddedError> {
        let log = self.data.log();
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        if text.contains("pre-existing shared memory block") {
            return Ok(());
        }
        let tail = tail(&text);
        Err(EmbeddedError::Start { log, tail })
    }

    /// Starts the server in its own process group, so that Ctrl-C in the
    /// terminal does not reach it, with no shell between that a path could upset.
    /// Gives the directory of its socket too.
    fn spawn(&self) -> Result<(Child, PathBuf), EmbeddedError> {
        let pid_file = self.data.pid_file();
        if let Some(dir) = self.pid_file().and_then(|file| file.socket_dir) {
            socket::discard_dir(&dir);
        }
        // Stale, as `state` has found. Postgres itself goes by the number
        // alone. If we were wrong it still refuses, by its shared memory.
        let _ = fs::remove_file(&pid_file);
        let socket_dir = socket::new_dir(&self.data, self.user)?;
        let path = self.data.log();
        let _ = fs::remove_file(&path);
        let log = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(EmbeddedError::io("create", &path))?;
        let second = log.try_clone().map_err(EmbeddedError::io("open", &path))?;
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(self.data.pgdata());
        for setting in self.settings(&socket_dir) {
            postgres.args(["-c", &setting]);
        }
        let spawned =
            postgres.process_group(0).kill_on_drop(false).stdout(log).stderr(second).spawn();
        match spawned {
            Ok(child) => Ok((child, socket_dir)),
            Err(error) => Err(EmbeddedError::Program {
                program: self.bin_dir.join("postgres"),
                output: error.to_string(),
            }),
        }
    }

    /// What differs from `initdb`'s settings; nothing is written to the data.
    fn settings(&self, socket_dir: &Path) -> Vec<String> {
        // A list, in which a name in quotes may hold a comma.
        let socket_dir = socket_dir.to_string_lossy().replace('"', "\"\"");
        let mut settings = vec![
            "listen_addresses=".to_owned(),
            format!("port={PORT}"),
            format!("unix_socket_directories=\"{socket_dir}\""),
            "unix_socket_permissions=0700".to_owned(),
            "max_connections=100".to_owned(),
            // Twice the default, for vector indexes; taken only as it is used.
            "shared_buffers=256MB".to_owned(),
        ];
        if !self.durable {
            let off = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];
            settings.extend(off.map(str::to_owned));
        }
        settings
    }

    /// Stops the server and waits for its end. Call it under the lock.
    pub async fn stop(&self, how: Stop) -> Result<(), EmbeddedError> {
        let socket_dir = self.pid_file().and_then(|file| file.socket_dir);
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        let mut pg_ctl = self.command("pg_ctl");
        pg_ctl.args(["stop", "-w", "-t", STOP_SECONDS, "-m", mode, "-D"]);
        // A second Ctrl-C in the terminal does not reach it, and the stop is done.
        pg_ctl.arg(self.data.pgdata()).process_group(0);
        run(pg_ctl, &self.bin_dir.join("pg_ctl")).await?;
        if let Some(dir) = socket_dir {
            socket::discard_dir(&dir);
        }
        Ok(())
    }

    /// The URL of a database on the running server.
    ///
    /// # Errors
    /// `Io` if the password cannot be read.
    pub fn url(&self, socket_dir: &Path, database: &str) -> Result<String, EmbeddedError> {
        let path = self.data.password();
        let password = fs::read_to_string(&path).map_err(EmbeddedError::io("read", &path))?;
        Ok(socket::url(ROLE, &password, socket_dir, database))
    }

    /// A program of this Postgres, as the server's user; quiet and in English,
    /// which `may_retry` reads.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(program));
        // The user may have no right to enter the current directory.
        command.current_dir("/").stdin(Stdio::null());
        // The server stays, and the keys of the program are not its business.
        command.env_clear().env("LC_ALL", "C");
        for name in KEPT_ENV {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// For `map_err` after a statement to the running server.
    pub fn refused(&self, doing: &'static str, source: sqlx::Error) -> EmbeddedError {
        EmbeddedError::Database {
            doing,
            data_dir: self.data.0.clone(),
            log: self.data.log(),
            source,
        }
    }
}

/// Runs a program of Postgres to its end.
pub(super) async fn run(mut command: Command, program: &Path) -> Result<(), EmbeddedError> {
    let failed = |output: String| EmbeddedError::Program { program: program.to_path_buf(), output };
    let ran = command.kill_on_drop(true).output().await;
    let ran = ran.map_err(|error| failed(error.to_string()))?;
    if ran.status.success() {
        return Ok(());
    }
    let text = [ran.stdout, ran.stderr].concat();
    Err(failed(tail(&String::from_utf8_lossy(&text))))
}

/// The last lines, where Postgres's programs and log say what went wrong.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
