//! The server is killed, or its files are not as it left them.

use super::{Data, connect, failure, is_alive, is_root, keep_a_note, kill, notes, until};
use embedding_recovery::embedded::{EmbeddedError, EmbeddedPostgres, SearchPlaces};
use sqlx::Connection;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A process of the server's user that is not the server: Postgres, going by
/// the number alone, takes it for one. Ends with the test.
struct Stranger(Child);

impl Stranger {
    fn spawn(data: &Data) -> Self {
        let mut sleep = Command::new("sleep");
        sleep.arg("600").current_dir("/").stdout(Stdio::null());
        if is_root() {
            let owner = fs::metadata(data.path.join("pgdata")).expect("pgdata");
            sleep.uid(owner.uid());
        }
        Self(sleep.spawn().expect("sleep"))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn after_kill_9_of_the_server_nothing_committed_is_lost() {
    let data = Data::new();
    let postgres = data.start_durable().await;
    keep_a_note(&postgres).await;
    let pid = data.server_pid();
    // A backend that outlives the postmaster for a moment.
    let mut busy = connect(&postgres).await;
    kill("-KILL", pid);
    until("the server is dead", || !is_alive(pid)).await;
    assert!(data.pid_file().exists());

    let again = data.start_durable().await;
    assert!(again.describe().ends_with(", started"), "{}", again.describe());
    assert_eq!(notes(&again).await, ["first"]);
    assert!(busy.ping().await.is_err());
    // The first handle's own connection died with the old server.
    assert!(!postgres.stop_if_last().await.expect("stop"), "the other handle is still there");
    assert!(again.stop_if_last().await.expect("stop"));
}

#[tokio::test]
async fn a_backend_that_outlives_the_killed_server_only_delays_the_start() {
    let data = Data::new();
    let postgres = data.start().await;
    let mut client = connect(&postgres).await;
    let backend: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut client).await.expect("pid");
    let backend = backend.cast_unsigned();
    // Stopped, it cannot see that the server is gone, and keeps its memory.
    kill("-STOP", backend);
    let pid = data.server_pid();
    kill("-KILL", pid);
    until("the server is dead", || !is_alive(pid)).await;

    let options = data.options();
    let starting = tokio::spawn(EmbeddedPostgres::start(options));
    let log = data.path.join("server.log");
    until("a start was refused", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("shared memory block"))
    })
    .await;
    kill("-CONT", backend);
    let again = starting.await.expect("join").expect("start");
    assert!(again.stop_if_last().await.expect("stop"));
}

#[tokio::test]
async fn a_live_server_that_cannot_be_reached_yet_is_waited_for_and_not_replaced() {
    let data = Data::new();
    let postgres = data.start().await;
    let pid = data.server_pid();
    let socket = data.path.join("run/.s.PGSQL.5432");
    let aside = data.path.join("aside");
    fs::rename(&socket, &aside).expect("rename");

    let starting = tokio::spawn(EmbeddedPostgres::start(data.options()));
    until("the start is under way", || {
        let lock = File::open(data.path.join("lock")).expect("lock");
        lock.try_lock().is_err()
    })
    .await;
    fs::rename(&aside, &socket).expect("rename back");
    let joined = starting.await.expect("join").expect("start");
    assert!(joined.describe().ends_with("joined the running server"));
    assert_eq!(data.server_pid(), pid);
    assert!(!postgres.stop_if_last().await.expect("stop"));
    assert!(joined.stop_if_last().await.expect("stop"));
}

#[tokio::test]
async fn a_stop_after_the_server_was_killed_has_nothing_to_do() {
    let data = Data::new();
    let postgres = data.start().await;
    let pid = data.server_pid();
    kill("-KILL", pid);
    until("the server is dead", || !is_alive(pid)).await;
    assert!(!postgres.stop_if_last().await.expect("stop"));
}

#[tokio::test]
async fn a_pid_file_with_the_number_of_another_process_is_stale() {
    let data = Data::new();
    let postgres = data.start_durable().await;
    keep_a_note(&postgres).await;
    let pid = data.server_pid();
    let text = fs::read_to_string(data.pid_file()).expect("pid file");
    kill("-KILL", pid);
    until("the server is dead", || !is_alive(pid)).await;

    let mut stranger = Stranger::spawn(&data);
    let number = stranger.0.id().to_string();
    fs::write(data.pid_file(), text.replacen(&pid.to_string(), &number, 1)).expect("pid file");

    let again = data.start_durable().await;
    assert!(again.describe().ends_with(", started"), "{}", again.describe());
    assert_eq!(notes(&again).await, ["first"]);
    assert!(again.stop_if_last().await.expect("stop"));
    assert!(matches!(stranger.0.try_wait(), Ok(None)), "the stranger was left alone");
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_the_end_of_its_log() {
    let data = Data::new();
    let postgres = data.start().await;
    assert!(postgres.stop_if_last().await.expect("stop"));
    let conf = data.path.join("pgdata/postgresql.conf");
    let text = fs::read_to_string(&conf).expect("conf");
    fs::write(&conf, text + "\nno_such_setting = 1\n").expect("conf");
    let error = failure(data.options(), &SearchPlaces::of_this_machine()).await;
    assert!(matches!(error, EmbeddedError::Start { .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_killed_initdb_leaves_nothing_that_counts() {
    let data = Data::new();
    fs::create_dir_all(data.path.join("initdb-killed")).expect("directory");
    fs::write(data.path.join("initdb-killed/PG_VERSION"), "18").expect("file");
    let postgres = data.start().await;
    assert!(!data.path.join("initdb-killed").exists());
    assert!(postgres.stop_if_last().await.expect("stop"));
}
