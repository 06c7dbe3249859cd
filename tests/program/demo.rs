//! `demo`, from its first line to the last thing it leaves: nothing.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use uuid::Uuid;

use super::{calls_file, meeting};
use crate::harness::program::{Ended, program, run, signal};
use crate::harness::within_deadline;

/// A data directory that is not there; the demo's own is beside it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("embedding-recovery-{}", Uuid::new_v4().simple())))
    }

    fn demo(&self, args: &[&str]) -> Command {
        let data_dir = self.0.to_string_lossy();
        program(&[&["demo", "--data-dir", &*data_dir], args].concat())
    }

    fn demo_dir(&self) -> PathBuf {
        let mut dir = self.0.clone().into_os_string();
        dir.push("-demo");
        dir.into()
    }

    /// Whether any process was started with this place in its arguments.
    fn has_processes(&self) -> bool {
        let found = std::process::Command::new("pgrep").arg("-f").arg(self.demo_dir()).output();
        found.unwrap().status.success()
    }

    fn assert_empty(&self) {
        assert!(!self.has_processes(), "something still runs in {}", self.demo_dir().display());
        for dir in [self.demo_dir(), self.0.clone()] {
            assert!(!dir.exists(), "{} is still there", dir.display());
        }
    }
}

/// A demo under way, and what it said so far.
struct Watched {
    child: Child,
    stdout: BufReader<ChildStdout>,
    said: String,
}

impl Watched {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, said: String::new() }
    }

    async fn until_it_says(&mut self, text: &str) {
        while !self.said.contains(text) {
            let read = within_deadline(text, self.stdout.read_line(&mut self.said)).await.unwrap();
            assert!(read > 0, "it ended without saying {text}:\n{}", self.said);
        }
    }

    async fn end(mut self) -> Ended {
        within_deadline("the end", self.stdout.read_to_string(&mut self.said)).await.unwrap();
        let status = within_deadline("the end", self.child.wait()).await.unwrap();
        Ended { code: status.code(), stdout: self.said, stderr: String::new() }
    }
}

/// The number that stands behind `before`.
fn number_after(text: &str, before: &str) -> u64 {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in:\n{text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {before:?} in:\n{text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_embeds_survives_a_kill_answers_and_leaves_nothing() {
    let place = Place::new();
    let mut command = place.demo(&[]);
    command.env("DATABASE_URL", "postgres://ann:hush@nowhere.example/calls");
    command.env("OPENAI_API_KEY", "hush").env("EMBEDDING_MODEL", "").env("NO_COLOR", "1");
    let shown = run(&mut command).await;
    let said = &shown.stdout;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("ignored here: DATABASE_URL, OPENAI_API_KEY\n"), "{said}");
    assert!(!said.contains("hush"), "{said}");
    assert!(!said.contains(['\x1b', '\r']), "control characters in:\n{said}");

    let killed_at = number_after(said, "at chunk ");
    let total = number_after(said, &format!("at chunk {killed_at} of "));
    let kept = number_after(said, "in the same attempt, ");
    let again = number_after(said, &format!("kept {kept} and bought "));
    assert!(total > 500 && killed_at >= total / 3, "{said}");
    assert!(kept >= killed_at && kept < total, "{said}");
    assert!(again > 0 && again <= 64, "more than was in flight is bought again: {said}");
    assert!(said.contains("searchable: 13 recordings"), "{said}");
    assert!(said.contains("every invariant holds"), "{said}");

    let (_, answer) = said.split_once("why did the gate tablets stop working?").expect(said);
    let first_title = answer.lines().find(|line| line.contains(": ")).unwrap();
    assert!(first_title.contains("Post-mortem: the morning the gate tablets stopped"), "{said}");
    for command in ["import samples/calls.jsonl", "serve --exit-when-idle", "search "] {
        assert!(answer.contains(&format!("embedding-recovery {command}")), "{command} in: {said}");
    }
    place.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_at_any_moment_ends_the_demo_and_leaves_nothing() {
    for (moment, name) in [
        ("Embedding Recovery", "INT"),
        ("finding a Postgres", "TERM"),
        ("storing sample calls", "INT"),
        ("chunks a request", "HUP"),
        ("killed the worker", "INT"),
    ] {
        let place = Place::new();
        let mut watched = Watched::start(&mut place.demo(&[]));
        watched.until_it_says(moment).await;
        signal(&watched.child, name).await;
        let ended = watched.end().await;
        assert_eq!(ended.code, Some(130), "SIG{name} at {moment:?}: {}", ended.stdout);
        assert!(ended.stdout.contains("interrupted: Postgres is stopped"), "{}", ended.stdout);
        place.assert_empty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_demos_do_not_meet_and_what_a_killed_one_leaves_is_cleared_by_the_next() {
    let place = Place::new();
    let mut first = Watched::start(&mut place.demo(&[]));
    first.until_it_says("storing sample calls").await;
    let second = run(&mut place.demo(&[])).await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("a demo is running in"), "{second:?}");

    first.until_it_says("of 13 recordings").await;
    signal(&first.child, "KILL").await;
    assert_eq!(first.end().await.code, None);
    assert!(place.has_processes(), "the server should have outlived it");
    // What a person has put there is not the demo's to remove.
    let foreign = place.demo_dir().join("notes.txt");
    std::fs::write(&foreign, "mine").unwrap();

    let mut third = Watched::start(&mut place.demo(&[]));
    third.until_it_says("done: ").await;
    signal(&third.child, "INT").await;
    assert_eq!(third.end().await.code, Some(130));
    assert!(!place.has_processes());
    let left: Vec<_> = std::fs::read_dir(place.demo_dir()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "mine");
    std::fs::remove_dir_all(place.demo_dir()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_takes_recordings_of_its_user() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::new();
    let mut calls = vec![meeting(2, &[]), json!({"recording_id": -1})];
    let parrot = "the parrot in the lobby of the bank knows the code of the vault ".repeat(100);
    calls.push(meeting(1, &[&parrot]));
    let path = calls_file(directory.path(), "calls.jsonl", &calls);
    let shown = run(&mut place.demo(&["--recordings", &path, "--question", "parrot code"])).await;
    let said = &shown.stdout;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(said.contains("line 2: "), "{said}");
    assert!(said.contains("queued: 2 recordings, and 1 refused"), "{said}");
    assert!(said.contains("searchable: 1 recording,"), "{said}");
    assert!(said.contains("could not be embedded: 1 recording\n"), "{said}");
    let (_, answer) = said.split_once("? parrot code").expect(said);
    assert!(answer.contains("Call 1"), "{said}");
    place.assert_empty();

    for (name, lines, reason) in [
        ("none.jsonl", None, "cannot read"),
        ("bad.jsonl", Some("{\"recording_id\": -1}\n"), "has no recording that can be shown"),
    ] {
        let path = directory.path().join(name);
        if let Some(lines) = lines {
            std::fs::write(&path, lines).unwrap();
        }
        let refused = run(&mut place.demo(&["--recordings", &path.to_string_lossy()])).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(reason), "{refused:?}");
        place.assert_empty();
    }
}
