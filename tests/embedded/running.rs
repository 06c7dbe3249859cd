//! One process, one server: start, restart, settings and odd directories.

use super::{Data, connect, keep_a_note, notes, run};
use sqlx::{Connection, PgConnection};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

#[tokio::test]
async fn a_fresh_start_gives_a_database_with_pgvector_and_a_restart_keeps_its_data() {
    let data = Data::new();
    let postgres = data.start().await;
    assert!(postgres.describe().ends_with(", started"), "{}", postgres.describe());
    let mut connection = connect(&postgres).await;
    run(&mut connection, "create extension vector").await;
    let distance: f64 = sqlx::query_scalar("select '[1,2]'::vector <-> '[4,6]'")
        .fetch_one(&mut connection)
        .await
        .expect("distance");
    assert!((distance - 5.0).abs() < 1e-9);
    let settings: Vec<String> = sqlx::query_scalar(
        "select current_setting(name) from unnest(array['server_encoding', \
         'max_connections', 'listen_addresses', 'fsync']) as name",
    )
    .fetch_all(&mut connection)
    .await
    .expect("settings");
    assert_eq!(settings, ["UTF8", "100", "", "off"]);
    let upper: String = sqlx::query_scalar("select upper('ärger')")
        .fetch_one(&mut connection)
        .await
        .expect("upper");
    assert_eq!(upper, "ÄRGER");
    connection.close().await.expect("close");
    keep_a_note(&postgres).await;
    assert!(postgres.stop_if_last().await.expect("stop"));
    assert!(!data.pid_file().exists());
    assert!(!postgres.stop_if_last().await.expect("second stop"));

    let again = data.start().await;
    assert!(again.describe().ends_with(", started"), "{}", again.describe());
    assert_eq!(notes(&again).await, ["first"]);
    assert!(again.stop_if_last().await.expect("stop"));
}

#[tokio::test]
async fn durable_data_is_written_with_fsync_on() {
    let data = Data::new();
    let postgres = data.start_durable().await;
    let mut connection = connect(&postgres).await;
    let on: Vec<String> = sqlx::query_scalar(
        "select current_setting(name) from unnest(array['fsync', \
         'synchronous_commit', 'full_page_writes']) as name",
    )
    .fetch_all(&mut connection)
    .await
    .expect("settings");
    assert_eq!(on, ["on", "on", "on"]);
    connection.close().await.expect("close");
    assert!(postgres.stop_if_last().await.expect("stop"));
}

#[tokio::test]
async fn only_the_owner_can_read_the_password_and_reach_the_socket() {
    let data = Data::new();
    let postgres = data.start().await;
    let mode = |name: &str| {
        let found = fs::metadata(data.path.join(name)).expect(name);
        found.mode() & 0o777
    };
    assert_eq!(mode("password"), 0o600);
    assert_eq!(mode("run"), 0o700);
    assert_eq!(mode("pgdata"), 0o700);
    assert_eq!(mode("server.log"), 0o600);
    let password = fs::read_to_string(data.path.join("password")).expect("password");
    let wrong = postgres.url().replace(&password, "wrong");
    assert!(PgConnection::connect(&wrong).await.is_err());
    assert!(!postgres.describe().contains(&password));
    assert!(postgres.stop_if_last().await.expect("stop"));
}

#[tokio::test]
async fn a_data_directory_with_a_long_path_gets_a_short_socket() {
    let data = Data::named(&"long".repeat(40));
    let postgres = data.start().await;
    assert!(postgres.url().contains("@%2Ftmp%2Fembedding%2Drecovery%2D"), "not in /tmp");
    keep_a_note(&postgres).await;
    let joined = data.start().await;
    assert!(joined.describe().ends_with("joined the running server"));
    assert_eq!(notes(&joined).await, ["first"]);
    let text = fs::read_to_string(data.pid_file()).expect("pid file");
    let socket_dir = PathBuf::from(text.lines().nth(4).expect("line 5"));
    assert!(socket_dir.is_dir());
    assert!(!postgres.stop_if_last().await.expect("stop"));
    assert!(joined.stop_if_last().await.expect("stop"));
    assert!(!socket_dir.exists());
}

#[tokio::test]
async fn a_data_directory_may_have_any_name() {
    let data = Data::named("it's, \"$x\" `%20` ü");
    let postgres = data.start().await;
    keep_a_note(&postgres).await;
    assert_eq!(notes(&postgres).await, ["first"]);
    assert!(data.path.join("run").is_dir());
    assert!(postgres.stop_if_last().await.expect("stop"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_server_does_not_get_the_environment_of_the_program() {
    let data = Data::new();
    let postgres = data.start().await;
    let path = format!("/proc/{}/environ", data.server_pid());
    let text = fs::read_to_string(path).expect("environment");
    let names = text.split_terminator('\0').filter_map(|pair| pair.split('=').next());
    let known = ["LC_ALL", "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ"];
    // Postgres sets the other LC_ variables and its own for itself.
    let foreign: Vec<&str> = names
        .filter(|name| !known.contains(name) && !name.starts_with("LC_") && !name.starts_with("PG"))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert!(postgres.stop_if_last().await.expect("stop"));
}
