//! Commands that ask a running service with `--admin-url`: they print what they print over the
//! database, and neither need one nor start one.

mod refusals;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::recovering::{command, page_of, two_dead_letters};
use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::program::{Ended, end_of, program, run, signal};
use crate::harness::proxy::{Proxy, Upstream, Weather};
use crate::harness::{TestDatabase, within_deadline};

const ADMIN_TOKEN: &str = "admin-token-of-a-test";
const READ_TOKEN: &str = "read-token-of-a-test";

/// A running service over two dead letters, 1 and 2, and what asks it.
struct Scene {
    database: TestDatabase,
    fake: FakeOpenAi,
    service: Child,
    url: String,
    _log: Lines<BufReader<ChildStderr>>,
}

impl Scene {
    async fn new() -> Self {
        let (database, fake) = two_dead_letters().await;
        let url = database.url.clone();
        Self::over(database, fake, &url).await
    }

    async fn over(database: TestDatabase, fake: FakeOpenAi, database_url: &str) -> Self {
        let mut service = serve(&database, &fake, &[])
            .env("DATABASE_URL", database_url)
            .env("EMBEDDING_RECOVERY_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("EMBEDDING_RECOVERY_READ_TOKEN", READ_TOKEN)
            .spawn()
            .unwrap();
        let (url, log) = page_of(&mut service).await;
        database.wait_until("select exists (select from workers where alive_until > now())").await;
        Self { database, fake, service, url, _log: log }
    }

    async fn ask(&self, args: &[&str]) -> Ended {
        run(&mut remote(&self.url, ADMIN_TOKEN, args)).await
    }

    /// Asks, and expects this exit code.
    #[track_caller]
    fn told(ended: Ended, code: i32) -> String {
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(!ended.stderr.contains("-token-of-a-test"), "a token is printed: {ended:?}");
        if code == 0 { ended.stdout } else { ended.stderr }
    }

    /// The same command over the service and over the database.
    async fn both(&self, args: &[&str]) -> [Ended; 2] {
        [self.ask(args).await, command(&self.database, &self.fake, args).await]
    }

    async fn end(self) {
        signal(&self.service, "TERM").await;
        assert_eq!(end_of(self.service).await.code, Some(0));
        self.database.assert_sound().await;
    }
}

/// A command that cannot reach any database.
fn remote(url: &str, token: &str, args: &[&str]) -> Command {
    let mut command = program(args);
    command
        .env("EMBEDDING_RECOVERY_ADMIN_URL", url)
        .env("EMBEDDING_RECOVERY_ADMIN_TOKEN", token)
        .env("DATABASE_URL", "postgres://127.0.0.1:1/nowhere");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_letter_and_then_all_are_recovered_by_the_service_that_is_asked() {
    let scene = Scene::new().await;
    for args in [&["recover", "--all", "--dry-run"][..], &["recover", "2", "--dry-run", "--json"]] {
        let [remote, local] = scene.both(args).await;
        assert_eq!(Scene::told(remote, 0), local.stdout, "{args:?}");
    }
    let [remote, local] = scene.both(&["recover", "1"]).await;
    assert!(remote.stderr.contains("it may be tried again at"), "{remote:?}");
    assert_eq!(Scene::told(remote, 1), local.stderr);
    let one = Scene::told(scene.ask(&["recover", "1", "--force", "--wait"]).await, 0);
    assert!(one.starts_with("recording 1: dead_letter after 1 attempts, 7 chunks stored"), "{one}");
    assert!(one.ends_with("done: completed\n"), "{one}");
    let left = Scene::told(scene.ask(&["recover", "--all"]).await, 0);
    assert!(left.contains("0 dead letters are recovered in small steps; 1 were tried within the hour and left alone (--force)"), "{left}");
    let all = scene.ask(&["recover", "--all", "--force", "--wait", "--json"]).await;
    let json = r#"{"recordings":1,"ended":1,"completed":1,"outcome":"completed"}"#;
    assert_eq!(Scene::told(all, 0).trim(), json);
    let by = "select count(*) = 2 from admin_actions
              where requested_by = 'api:admin' and outcome = 'completed'";
    assert!(scene.database.value::<bool>(by).await, "kept with the name of the token");
    let texts: Vec<_> = scene.fake.bought();
    assert_eq!(texts.iter().filter(|text| text.contains("turn")).count(), 18, "bought twice");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_fails_at_the_service_exits_1_with_the_reason() {
    let scene = Scene::new().await;
    let refused = Reply::error(500, "server_error", "The server had an error.");
    scene.fake.on(|inputs| inputs.iter().any(|text| text.contains("turn7 ")), refused);
    let failed = scene.ask(&["recover", "1", "--force", "--wait"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains("done: dead_letter: the provider answers a probe but"));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_paused_resumed_and_run_and_dead_letters_discarded_by_the_service() {
    let scene = Scene::new().await;
    assert_eq!(Scene::told(scene.ask(&["pause"]).await, 0), "paused: main, recovery\n");
    for part in ["main", "recovery"] {
        let refused = Scene::told(scene.ask(&["run", part]).await, 1);
        let way_out = format!("`embedding-recovery resume {part}` lets it go on");
        assert!(refused.contains(&way_out), "{refused}");
    }
    assert_eq!(Scene::told(scene.ask(&["resume"]).await, 0), "goes on: main, recovery\n");
    let discard = ["discard", "1", "--reason", "an empty test call & more"];
    let discarded = Scene::told(scene.ask(&discard).await, 0);
    assert!(discarded.starts_with("recording 1 is discarded: action "), "{discarded}");
    let reason = "select detail ->> 'reason' from admin_actions where action = 'discard'";
    assert_eq!(scene.database.value::<String>(reason).await, discard[3]);
    let [again, local] = scene.both(&discard).await;
    assert!(again.stderr.contains("is no dead letter but not queued"), "{again:?}");
    assert_eq!(Scene::told(again, 1), local.stderr);
    let fingerprint =
        "select failure_fingerprint from embedding_queue where status = 'dead_letter'";
    let fingerprint = scene.database.value::<String>(fingerprint).await;
    let matching = ["recover", "--matching", &fingerprint, "--force", "--wait"];
    assert!(Scene::told(scene.ask(&matching).await, 0).ends_with("done: completed\n"));
    for part in ["main", "recovery"] {
        let run = Scene::told(scene.ask(&["run", part]).await, 0);
        assert!(run.starts_with("run ") && run.lines().count() == 1, "{run}");
    }
    let done = "select count(*) = 3 from runs where ended_at is not null and cause <> 'schedule'";
    scene.database.wait_until(done).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_at_is_the_same_as_over_the_database() {
    let scene = Scene::new().await;
    Scene::told(scene.ask(&["run", "main"]).await, 0);
    scene.database.wait_until("select bool_and(ended_at is not null) from runs").await;
    let looks = [
        &["runs", "--failed"][..],
        &["runs", "--json"],
        &["jobs"],
        &["jobs", "--json", "--limit", "1"],
        &["explain", "1"],
        &["explain", "2", "--user", "ann", "--json"],
        &["explain", "77"],
        &["explain", "77", "--user", "ann"],
    ];
    for args in looks {
        let [remote, local] = scene.both(args).await;
        assert_eq!(remote.code, local.code, "{args:?}: {remote:?} {local:?}");
        assert_eq!((&remote.stdout, &remote.stderr), (&local.stdout, &local.stderr), "{args:?}");
    }
    let [remote, local] = scene.both(&["monitor", "--json"]).await;
    assert_eq!(remote.code, local.code, "{remote:?} {local:?}");
    let [mut remote, mut local] =
        [remote, local].map(|ended| serde_json::from_str::<Value>(&ended.stdout).unwrap());
    for told in [&mut remote, &mut local] {
        // What the time of the look changes.
        let told = told.as_object_mut().unwrap();
        told.retain(|name, _| name != "at" && name != "drain_per_minute");
    }
    assert_eq!(remote, local);
    let page = scene.ask(&["monitor"]).await;
    assert!(page.stdout.contains("Dead letters"), "{page:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_outlasts_a_service_that_is_away_for_a_while() {
    let scene = Scene::new().await;
    let address = url::Url::parse(&scene.url).unwrap().socket_addrs(|| None).unwrap()[0];
    let network = Proxy::start(Upstream::Tcp(address)).await;
    scene.fake.hold();
    let recover = ["recover", "1", "--force", "--wait"];
    let url = format!("http://{}", network.address);
    let mut waiting = remote(&url, ADMIN_TOKEN, &recover).spawn().unwrap();
    let processing = "select status = 'processing' from embedding_queue where recording_id = 1";
    scene.database.wait_until(processing).await;
    network.set(Weather::Cut);
    let mut log = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let said = async {
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains("asking again until there is an answer") {
                return;
            }
        }
        panic!("it ended");
    };
    within_deadline("it says that nobody answers", said).await;
    network.set(Weather::Fine);
    scene.fake.release();
    let ended = end_of(waiting).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.ends_with("done: completed\n"), "{ended:?}");
    scene.end().await;
}

/// `script` of util-linux gives the command a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_waited_for_on_a_terminal_draws_a_bar_and_clears_it() {
    let scene = Scene::new().await;
    let program = env!("CARGO_BIN_EXE_embedding-recovery");
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", &format!("{program} recover --all --force --wait"), "/dev/null"])
        .env("EMBEDDING_RECOVERY_ADMIN_URL", &scene.url)
        .env("EMBEDDING_RECOVERY_ADMIN_TOKEN", ADMIN_TOKEN)
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let drawn = run(&mut terminal).await;
    assert_eq!(drawn.code, Some(0), "{drawn:?}");
    assert!(drawn.stdout.contains("/2 recordings  "), "a bar: {drawn:?}");
    assert!(drawn.stdout.contains("\u{1b}[2K"), "it is drawn over and cleared: {drawn:?}");
    assert!(drawn.stdout.ends_with("done: 2 of 2 completed\r\n"), "{drawn:?}");
    scene.end().await;
}
