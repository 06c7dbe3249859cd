//! What every test stands on: one Postgres for the whole run, a database of its own for each test,
//! the program as a child process, and waiting for a state with a deadline.

pub mod browser;
pub mod calls;
pub mod pooler;
pub mod probes;
pub mod program;
pub mod proxy;
pub mod service;
pub mod tls;

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use embedding_recovery::embedded::{EmbeddedOptions, EmbeddedPostgres, default_cache_dir};
use embedding_recovery::postgres::PgStore;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

/// No state that a test waits for takes longer, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);
/// Name of the migrated database that the others are copied from.
const TEMPLATE: &str = "embedding_recovery_test_template";

/// A database of one test's own, dropped with it.
pub struct TestDatabase {
    pub url: String,
    pub pool: PgPool,
    pub store: PgStore,
    name: String,
}

impl TestDatabase {
    /// A migrated, empty database.
    pub async fn new() -> Self {
        Self::copy_of(Some(TEMPLATE)).await
    }

    /// A database without any table.
    pub async fn bare() -> Self {
        Self::copy_of(None).await
    }

    async fn copy_of(template: Option<&str>) -> Self {
        let name = format!("embedding_recovery_test_{}", Uuid::new_v4().simple());
        let template = template.map(|name| format!(" template {name}")).unwrap_or_default();
        admin(&format!("create database {name}{template}")).await;
        let url = server_url(&name);
        let pool = PgPool::connect(&url).await.unwrap();
        let store = PgStore::connect(&url, 12).await.unwrap();
        Self { url, pool, store, name }
    }

    /// A URL of this database for a role of its own, with these settings.
    pub async fn url_of_role(&self, settings: &str) -> String {
        let role = format!("{}_role", self.name);
        self.execute(&format!(
            "create role {role} superuser login password 'test'; alter role {role} {settings}"
        ))
        .await;
        let mut url: url::Url = self.url.parse().unwrap();
        url.set_username(&role).unwrap();
        url.set_password(Some("test")).unwrap();
        url.to_string()
    }

    /// One value of a query.
    pub async fn value<T>(&self, query: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// Runs statements.
    pub async fn execute(&self, statements: &str) {
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&self.pool).await.unwrap();
    }

    /// Waits until a query says true.
    pub async fn wait_until(&self, query: &'static str) {
        eventually(query, async || self.value::<bool>(query).await).await;
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let name = self.name.clone();
        // The test's own runtime may be going down: another one does it.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                admin(&format!("drop database {name} with (force)")).await;
                admin(&format!("drop role if exists {name}_role")).await;
            });
        });
        let _ = dropping.join();
    }
}

/// Waits until `condition` holds; fails naming `what` at the deadline.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < DEADLINE, "still not true after {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a future; fails naming `what` at the deadline.
pub async fn within_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("nothing after {DEADLINE:?}: {what}"),
    }
}

/// Says that a test looks at less than it could, where a runner that keeps what passing tests print does
/// not hide it. Fails where `TEST_NOTHING_SKIPPED` says that everything which can be had is here.
pub fn skipped(what: &str) {
    let is_denied = std::env::var_os("TEST_NOTHING_SKIPPED").is_some_and(|value| value == "1");
    assert!(!is_denied, "skipped, and nothing may be: {what}");
    skipped_for_good_reason(what);
}

/// The same where what is missing cannot be had everywhere: it fails nowhere.
pub fn skipped_for_good_reason(what: &str) {
    // Not `eprintln!`, whose lines the runner keeps.
    let _ = std::io::stderr().write_all(format!("skipped: {what}\n").as_bytes());
}

/// The shared recordings, or `None` with a printed reason.
pub fn shared_recordings() -> Option<PathBuf> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings/recordings.jsonl.gz");
    if !path.exists() {
        skipped_for_good_reason(&format!("{} is not here", path.display()));
        return None;
    }
    Some(path)
}

async fn admin(statement: &str) {
    let mut connection = PgConnection::connect(&server_url("postgres")).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The URL of a database on the one server of this run: the one that `TEST_DATABASE_URL` names, or
/// an embedded one that is started now.
fn server_url(database: &str) -> String {
    static SERVER: OnceLock<String> = OnceLock::new();
    let base = SERVER.get_or_init(|| {
        std::thread::spawn(|| {
            // Kept for the whole run: the server handle lives on it.
            let runtime = Box::leak(Box::new(tokio::runtime::Runtime::new().unwrap()));
            runtime.block_on(start_server())
        })
        .join()
        .unwrap()
    });
    let mut url: url::Url = base.parse().unwrap();
    url.set_path(database);
    url.to_string()
}

async fn start_server() -> String {
    let url = match std::env::var("TEST_DATABASE_URL") {
        Ok(url) => url,
        Err(_) => start_embedded().await,
    };
    let mut admin: url::Url = url.parse().unwrap();
    admin.set_path("postgres");
    let mut connection = PgConnection::connect(admin.as_str()).await.unwrap();
    let recreate =
        format!("drop database if exists {TEMPLATE} with (force); create database {TEMPLATE}");
    for statement in recreate.split("; ") {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
    }
    let mut template = admin;
    template.set_path(TEMPLATE);
    let store = PgStore::connect(template.as_str(), 4).await.unwrap();
    store.migrate().await.unwrap();
    store.close().await;
    url
}

async fn start_embedded() -> String {
    // Below the system's folder for temporary files, which the server's user can reach.
    let directory =
        std::env::temp_dir().join(format!("embedding-recovery-test-{}", std::process::id()));
    let options = EmbeddedOptions {
        data_dir: directory.clone(),
        cache_dir: default_cache_dir(),
        bin_dir: None,
        durable: false,
    };
    let server = Box::leak(Box::new(EmbeddedPostgres::start(options).await.unwrap()));
    stop_with_this_process(&directory);
    server.url().to_owned()
}

/// A shell that waits for the end of this process, however it ends, then kills the server and
/// removes its data. Its standard input is a pipe that only this process holds.
fn stop_with_this_process(data_dir: &std::path::Path) {
    let script = r#"trap "" INT TERM; read -r _; kill -QUIT "$(head -n 1 "$0/pgdata/postmaster.pid")"; sleep 1; rm -rf "$0""#;
    let watcher = Command::new("sh")
        .args(["-c", script])
        .arg(data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Box::leak(Box::new(watcher));
}
