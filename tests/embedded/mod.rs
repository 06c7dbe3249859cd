//! The program's own Postgres: found or fetched, started, joined, killed and
//! stopped. Each test has its own data directory and thus its own server; all
//! share one unpacked wheel.

mod finding;
mod killing;
mod running;
mod sharing;

use embedding_recovery::embedded::{
    EmbeddedError, EmbeddedOptions, EmbeddedPostgres, SearchPlaces,
};
use sqlx::{Connection, PgConnection};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for a state that should come about at once.
const DEADLINE: Duration = Duration::from_secs(30);

/// A data directory whose server does not outlive the test, even a failed one.
struct Data {
    parent: TempDir,
    path: PathBuf,
}

impl Data {
    fn new() -> Self {
        Self::named("data")
    }

    /// The data directory is `name` below the temporary directory.
    fn named(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        // Under root the server is nobody, who must get through.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).expect("chmod");
        Self { path: dir.path().join(name), parent: dir }
    }

    fn options(&self) -> EmbeddedOptions {
        EmbeddedOptions {
            data_dir: self.path.clone(),
            cache_dir: cache_dir(),
            bin_dir: None,
            durable: false,
        }
    }

    /// As in production: what is committed survives the death of the server.
    async fn start_durable(&self) -> EmbeddedPostgres {
        let mut options = self.options();
        options.durable = true;
        EmbeddedPostgres::start(options).await.unwrap_or_else(|error| panic!("start: {error}"))
    }

    async fn start(&self) -> EmbeddedPostgres {
        EmbeddedPostgres::start(self.options())
            .await
            .unwrap_or_else(|error| panic!("start: {error}"))
    }

    fn pid_file(&self) -> PathBuf {
        self.path.join("pgdata/postmaster.pid")
    }

    fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.pid_file()).ok()?;
        text.lines().next()?.parse().ok()
    }

    fn server_pid(&self) -> u32 {
        self.pid().expect("the server's pid file")
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            kill("-QUIT", pid);
            let deadline = Instant::now() + DEADLINE;
            while self.pid_file().exists() && is_alive(pid) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// One wheel for all tests and runs of a user. `EMBEDDED_TEST_CACHE` names an
/// unpacked one for a machine without pip.
fn cache_dir() -> PathBuf {
    let uid = own_uid();
    std::env::var_os("EMBEDDED_TEST_CACHE").map_or_else(
        || std::env::temp_dir().join(format!("embedding-recovery-test-cache-{uid}")),
        PathBuf::from,
    )
}

fn is_root() -> bool {
    own_uid() == 0
}

/// std has no `geteuid`, but a file just made belongs to it.
fn own_uid() -> u32 {
    let file = tempfile::tempfile().and_then(|file| file.metadata());
    file.expect("temporary file").uid()
}

fn kill(signal: &str, pid: u32) {
    let mut kill = Command::new("kill");
    kill.arg(signal).arg(pid.to_string()).stderr(Stdio::null());
    kill.status().expect("kill");
}

/// Whether the process runs; a zombie does not.
fn is_alive(pid: u32) -> bool {
    let ps = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output();
    let state = ps.expect("ps").stdout;
    !state.is_empty() && !state.starts_with(b"Z")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn connect(postgres: &EmbeddedPostgres) -> PgConnection {
    PgConnection::connect(postgres.url()).await.expect("connect")
}

async fn run(connection: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.expect(sql);
}

async fn notes(postgres: &EmbeddedPostgres) -> Vec<String> {
    let mut connection = connect(postgres).await;
    let notes = sqlx::query_scalar("select note from kept order by note")
        .fetch_all(&mut connection)
        .await
        .expect("notes");
    connection.close().await.expect("close");
    notes
}

async fn keep_a_note(postgres: &EmbeddedPostgres) {
    let mut connection = connect(postgres).await;
    run(&mut connection, "create table kept (note text)").await;
    run(&mut connection, "insert into kept values ('first')").await;
    connection.close().await.expect("close");
}

/// The error of a start that must fail.
async fn failure(options: EmbeddedOptions, places: &SearchPlaces) -> EmbeddedError {
    match EmbeddedPostgres::start_in(options, places).await {
        Ok(postgres) => panic!("started: {}", postgres.describe()),
        Err(error) => error,
    }
}
