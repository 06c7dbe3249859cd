//! What a bad day happens to: a Postgres of its own, an API, the networks to both, and replicas of
//! the program that are started again when they end, as Kubernetes would.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use embedding_recovery::embedded::{EmbeddedOptions, EmbeddedPostgres, default_cache_dir};
use embedding_recovery::import::Recordings;
use embedding_recovery::ports::ImportedRecording;
use embedding_recovery::postgres::PgStore;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::{Child, Command};

use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::calls::{USER, call};
use crate::harness::program::program;
use crate::harness::proxy::{Proxy, Upstream, Weather};
use crate::harness::shared_recordings;

/// Length of a lease: short, so that a storm sees many of them end.
pub const LEASE: Duration = Duration::from_secs(3);
/// Time that the API takes for a good answer.
const API_LATENCY: Duration = Duration::from_millis(100);
/// Calm after the storm until everything is completed or dead.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);
/// A younger process may not listen to signals yet, and a signal simply ends it.
const INFANCY: Duration = Duration::from_secs(10);
/// Dimensions of the vectors.
const DIMENSIONS: usize = 64;

/// A process of the program.
struct Replica {
    child: Child,
    born_at: Instant,
}

pub struct Town {
    directory: tempfile::TempDir,
    server: EmbeddedPostgres,
    pub api: FakeOpenAi,
    pub to_database: Proxy,
    pub to_api: Proxy,
    replicas: Vec<Replica>,
    /// When a stopped process went on: what it was about to send is sent then.
    pub awakenings: Vec<Instant>,
}

impl Town {
    pub async fn build(replicas: usize) -> Self {
        let directory = tempfile::Builder::new().permissions(reachable()).tempdir().unwrap();
        let server = EmbeddedPostgres::start(options(&directory)).await.unwrap();
        let store = PgStore::connect(server.url(), 4).await.unwrap();
        store.migrate().await.unwrap();
        store.close().await;
        let api = FakeOpenAi::start(DIMENSIONS);
        let to_api = Proxy::start(Upstream::Tcp(api.address())).await;
        let to_database = Proxy::start(socket(&directory)).await;
        let mut town = Self {
            directory,
            server,
            api,
            to_database,
            to_api,
            replicas: Vec::new(),
            awakenings: Vec::new(),
        };
        town.api_is_well();
        for _ in 0..replicas {
            let replica = town.spawn_replica();
            town.replicas.push(replica);
        }
        town
    }

    /// Where tests reach the server, whatever the weather.
    pub fn database_url(&self) -> &str {
        self.server.url()
    }

    /// How many replicas there are.
    pub fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// The longest real call and others; made ones where there are none.
    pub fn calls(&self, count: usize) -> Vec<ImportedRecording> {
        let Some(path) = shared_recordings() else {
            return (1..=count as i64).map(|id| call(id, if id == 1 { 500 } else { 20 })).collect();
        };
        let read = Recordings::open(&path, USER).unwrap();
        let mut calls: Vec<ImportedRecording> = read.map(|read| read.unwrap().recording).collect();
        let bytes = |call: &ImportedRecording| -> usize {
            call.segments.iter().map(|segment| segment.text.len()).sum()
        };
        let longest = calls.iter().enumerate().max_by_key(|(_, call)| bytes(call));
        let longest = longest.map(|(at, _)| at).unwrap();
        calls.swap(0, longest);
        calls.truncate(count);
        calls
    }

    /// Stores and enqueues a call, as somebody who waits for the database.
    pub async fn import(&self, call: &ImportedRecording) {
        loop {
            if let Ok(store) = PgStore::connect(self.database_url(), 1).await {
                let imported = store.import(true).store(call).await;
                store.close().await;
                if imported.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs statements as an administrator; false where the server is away.
    pub async fn execute(&self, statements: &str) -> bool {
        let Ok(mut connection) = PgConnection::connect(self.database_url()).await else {
            return false;
        };
        let ran = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        let ran = ran.execute(&mut connection).await.is_ok();
        let _ = connection.close().await;
        ran
    }

    /// The API answers well.
    pub fn api_is_well(&self) {
        self.api.recover();
        self.api.on(|_| true, Reply::Delay(API_LATENCY));
        self.api.release();
    }

    /// The API answers everything so.
    pub fn api_replies(&self, reply: Reply) {
        self.api.recover();
        self.api.on(|_| true, reply);
    }

    /// Sends a signal to a replica.
    pub async fn signal(&self, replica: usize, name: &str) {
        if let Some(id) = self.replicas[replica].child.id() {
            send(name, id).await;
        }
    }

    /// Stops the server with a signal to the postmaster and starts it again.
    pub async fn restart_server(&mut self, name: &str, away: Duration) {
        send(name, postmaster(&self.directory)[0].parse().unwrap()).await;
        tokio::time::sleep(away).await;
        self.server = EmbeddedPostgres::start(options(&self.directory)).await.unwrap();
        self.to_database.lead_to(socket(&self.directory));
    }

    /// Starts replicas that ended again.
    pub fn raise_the_dead(&mut self) {
        for at in 0..self.replicas.len() {
            if !matches!(self.replicas[at].child.try_wait(), Ok(None)) {
                self.replicas[at] = self.spawn_replica();
            }
        }
    }

    /// Fine weather until every task is completed or dead.
    pub async fn wait_until_settled(&mut self) {
        self.to_api.set(Weather::Fine);
        self.to_database.set(Weather::Fine);
        self.api_is_well();
        let begun = Instant::now();
        let open =
            "select count(*) from embedding_queue where status not in ('completed', 'dead_letter')";
        let mut connection = PgConnection::connect(self.database_url()).await.unwrap();
        loop {
            self.raise_the_dead();
            let open: i64 = sqlx::query_scalar(open).fetch_one(&mut connection).await.unwrap();
            if open == 0 {
                return;
            }
            let waited = begun.elapsed();
            assert!(waited < SETTLE_LIMIT, "{open} tasks are open {waited:?} after the storm");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Tells the replicas to stop; returns the exit codes of those that did not end well.
    pub async fn stop(&mut self) -> Vec<Option<i32>> {
        let mut ended_badly = Vec::new();
        for mut replica in std::mem::take(&mut self.replicas) {
            let infant = replica.born_at.elapsed() < INFANCY;
            if let Some(id) = replica.child.id() {
                send("TERM", id).await;
            }
            let ended = tokio::time::timeout(Duration::from_secs(60), replica.child.wait()).await;
            let code = ended.expect("a replica ends when it is told to").unwrap().code();
            if code != Some(0) && !(infant && code.is_none()) {
                ended_badly.push(code);
            }
        }
        ended_badly
    }

    fn spawn_replica(&self) -> Replica {
        let mut url: url::Url = "postgres://x/".parse().unwrap();
        let own: url::Url = self.server.url().parse().unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.to_database.address.port())).unwrap();
        url.set_username(own.username()).unwrap();
        url.set_password(own.password()).unwrap();
        url.set_path(own.path());
        let lease = LEASE.as_secs().to_string();
        let mut command: Command = program(&["serve", "--log-format", "json"]);
        command
            .args(["--lease-secs", &lease, "--stall-secs", "20", "--grace-secs", "2"])
            .args(["--retry-delays", "100ms,200ms,400ms", "--schedule", "*/2 * * * * *"])
            .env("DATABASE_URL", url.as_str())
            .env("OPENAI_BASE_URL", format!("http://{}/v1", self.to_api.address))
            .env("OPENAI_API_KEY", "sk-test-key");
        let log = self.directory.path().join("replicas.log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Replica { child: command.spawn().unwrap(), born_at: Instant::now() }
    }

    /// What the replicas logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("replicas.log")).unwrap_or_default()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        if let Some(pid) = postmaster(&self.directory).first() {
            let _ = std::process::Command::new("kill").args(["-QUIT", pid]).status();
        }
    }
}

fn options(directory: &tempfile::TempDir) -> EmbeddedOptions {
    EmbeddedOptions {
        data_dir: directory.path().join("data"),
        cache_dir: default_cache_dir(),
        bin_dir: None,
        // A server that is killed must lose nothing that was committed.
        durable: true,
    }
}

/// The server's user must get through.
fn reachable() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o711)
}

/// The server's own note of itself: its process first, its socket's directory on the fifth line.
fn postmaster(directory: &tempfile::TempDir) -> Vec<String> {
    let note = directory.path().join("data/pgdata/postmaster.pid");
    let text = std::fs::read_to_string(note).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn socket(directory: &tempfile::TempDir) -> Upstream {
    Upstream::Unix(PathBuf::from(&postmaster(directory)[4]).join(".s.PGSQL.5432"))
}

async fn send(signal: &str, pid: u32) {
    let pid = pid.to_string();
    // The process may have ended meanwhile.
    let _ = Command::new("kill").args([&format!("-{signal}"), &pid]).output().await;
}
