//! Several processes on one data directory.

use super::{Data, cache_dir, is_alive};
use embedding_recovery::embedded::{EmbeddedOptions, EmbeddedPostgres};
use sqlx::{Connection, PgConnection};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Names the data directory for [`child_process`].
const CHILD_DIR: &str = "EMBEDDED_TEST_CHILD_DIR";

/// Not a test by itself: the second process of the tests that need one. It
/// starts or joins, says so, and leaves when its input ends.
#[tokio::test]
async fn child_process() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let postgres = EmbeddedPostgres::start(EmbeddedOptions {
        data_dir: PathBuf::from(dir),
        cache_dir: cache_dir(),
        bin_dir: None,
        durable: false,
    })
    .await
    .expect("start");
    println!("\nCHILD {}", postgres.describe());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("stdin");
    let stopped = postgres.stop_if_last().await.expect("stop");
    println!("\nCHILD stopped={stopped}");
}

/// This test binary again, running only [`child_process`].
struct Child {
    process: std::process::Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Child {
    fn spawn(data: &Data) -> Self {
        let name = match module_path!().split_once("::") {
            Some((_, module)) => format!("{module}::child_process"),
            None => "child_process".to_owned(),
        };
        let mut process = Command::new(std::env::current_exe().expect("test binary"))
            .args(["--exact", &name, "--nocapture"])
            .env(CHILD_DIR, &data.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("second process");
        let output = BufReader::new(process.stdout.take().expect("stdout"));
        Self { process, output }
    }

    /// The next thing that the child says.
    fn says(&mut self) -> String {
        let lines = self.output.by_ref().lines().map_while(Result::ok);
        lines
            .filter_map(|line| line.strip_prefix("CHILD ").map(str::to_owned))
            .next()
            .expect("the second process to say something")
    }

    /// Has it leave, and gives what it says then.
    fn leave(mut self) -> String {
        drop(self.process.stdin.take());
        let said = self.says();
        assert!(self.process.wait().expect("wait").success());
        said
    }
}

#[tokio::test]
async fn a_second_process_joins_and_the_last_one_out_stops_the_server() {
    let data = Data::new();
    let postgres = data.start().await;
    let pid = data.server_pid();
    let mut child = Child::spawn(&data);
    let said = child.says();
    assert!(said.ends_with("joined the running server"), "{said}");
    assert_eq!(data.server_pid(), pid);

    assert!(!postgres.stop_if_last().await.expect("stop"), "the child is still there");
    assert!(is_alive(pid));
    assert_eq!(child.leave(), "stopped=true");
    assert!(!data.pid_file().exists());
}

#[tokio::test]
async fn processes_that_start_at_once_share_one_server_and_may_leave_at_once() {
    let data = Data::new();
    let mut children: Vec<Child> = (0..3).map(|_| Child::spawn(&data)).collect();
    let said: Vec<String> = children.iter_mut().map(Child::says).collect();
    let started = said.iter().filter(|said| said.ends_with(", started")).count();
    assert_eq!(started, 1, "{said:?}");
    for child in &mut children {
        drop(child.process.stdin.take());
    }
    let said: Vec<String> = children.into_iter().map(Child::leave).collect();
    let stopped = said.iter().filter(|said| *said == "stopped=true").count();
    assert_eq!(stopped, 1, "{said:?}");
    assert!(!data.pid_file().exists());
}

#[tokio::test]
async fn the_server_outlives_a_killed_program_and_is_joined() {
    let data = Data::new();
    let mut child = Child::spawn(&data);
    assert!(child.says().ends_with(", started"));
    let pid = data.server_pid();
    child.process.kill().expect("kill -9");
    let status = child.process.wait().expect("wait");
    assert_eq!(status.signal(), Some(9));

    let postgres = data.start().await;
    assert!(postgres.describe().ends_with("joined the running server"));
    assert_eq!(data.server_pid(), pid);
    assert!(postgres.stop_if_last().await.expect("stop"), "the dead child still counts");
}

#[tokio::test]
async fn the_server_stays_while_another_client_is_connected_to_any_database() {
    let data = Data::new();
    let postgres = data.start().await;
    let elsewhere = postgres.url().replace("/embedding_recovery?", "/template1?");
    let client = PgConnection::connect(&elsewhere).await.expect("connect");
    assert!(!postgres.stop_if_last().await.expect("stop"));
    assert!(is_alive(data.server_pid()));
    client.close().await.expect("close");

    let last = data.start().await;
    assert!(last.describe().ends_with("joined the running server"));
    assert!(last.stop_if_last().await.expect("stop"));
}

#[tokio::test]
async fn ctrl_c_in_the_terminal_does_not_reach_the_server() {
    let data = Data::new();
    let postgres = data.start().await;
    let pid = data.server_pid().to_string();
    let ps = Command::new("ps").args(["-o", "pgid=", "-p", &pid]).output().expect("ps");
    assert_eq!(String::from_utf8_lossy(&ps.stdout).trim(), pid);
    assert!(postgres.stop_if_last().await.expect("stop"));
}
