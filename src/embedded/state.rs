//! Tells whether the server of a data directory runs. A killed server leaves
//! `postmaster.pid` behind, and the number in it may by now be somebody else's.

use super::EmbeddedError;
use super::server::Server;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// A connection to a healthy server on this machine takes milliseconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// SQLSTATE `cannot_connect_now`: starting up, recovering or shutting down.
const CANNOT_CONNECT_NOW: &str = "57P03";

/// What a look at the data directory shows.
pub(super) enum State {
    /// It takes connections, on a socket in this directory.
    Up(Box<PgConnection>, PathBuf),
    /// There is a server, but it takes no connections yet or any more.
    Busy,
    /// There is none.
    Absent,
}

/// The parts of `postmaster.pid` that are used.
pub(super) struct PidFile {
    pub pid: u32,
    pub socket_dir: Option<PathBuf>,
}

impl Server {
    /// Looks for the server, without waiting for it.
    pub async fn state(&self) -> Result<State, EmbeddedError> {
        let Some(PidFile { pid, socket_dir }) = self.pid_file() else {
            return Ok(State::Absent);
        };
        if let Some(dir) = socket_dir {
            let options = self.connect_options(&dir)?;
            let connecting = PgConnection::connect_with(&options);
            match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
                Ok(Ok(connection)) => return Ok(State::Up(Box::new(connection), dir)),
                Ok(Err(sqlx::Error::Database(error)))
                    if error.code().as_deref() == Some(CANNOT_CONNECT_NOW) =>
                {
                    return Ok(State::Busy);
                }
                // No socket, nobody behind it, or cut off: ask for the process.
                Ok(Err(sqlx::Error::Io(_))) | Err(_) => {}
                Ok(Err(source)) => return Err(self.refused("connect", source)),
            }
        }
        Ok(match self.is_own_server(pid).await {
            true => State::Busy,
            false => State::Absent,
        })
    }

    /// `None` without a file, or with one that a full disk has left empty.
    pub fn pid_file(&self) -> Option<PidFile> {
        let text = fs::read_to_string(self.data.pid_file()).ok()?;
        let mut lines = text.lines();
        Some(PidFile {
            pid: lines.next()?.trim().parse().ok()?,
            // Line 5, after the data directory, the start time and the port.
            socket_dir: lines.nth(3).filter(|dir| dir.starts_with('/')).map(PathBuf::from),
        })
    }

    /// Whether the process is the server of this data directory, rather than
    /// dead, a zombie, or another program that has got the same number.
    async fn is_own_server(&self, pid: u32) -> bool {
        let command_line = if Path::new("/proc/self/cmdline").exists() {
            fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
        } else {
            let mut ps = Command::new("ps");
            ps.args(["-ww", "-o", "command=", "-p"]).arg(pid.to_string());
            ps.output().await.map(|ran| ran.stdout).unwrap_or_default()
        };
        let command_line = String::from_utf8_lossy(&command_line).replace('\0', " ");
        command_line.contains(&format!("-D {} ", self.data.pgdata().display()))
    }

    fn connect_options(&self, socket_dir: &Path) -> Result<PgConnectOptions, EmbeddedError> {
        let url = self.url(socket_dir, "postgres")?;
        let parsed = url.parse::<PgConnectOptions>();
        let options = parsed.map_err(|source| self.refused("connect", source))?;
        Ok(options.application_name("embedding-recovery (keeps the server up)"))
    }
}
