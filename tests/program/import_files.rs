//! `import` over folders, standard input and large files, and `--dry-run`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::killed::peak_memory_kib;
use super::{calls_file, meeting};
use crate::harness::TestDatabase;
use crate::harness::program::{Ended, end_of, file, run};

const VTT: &str = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Shall we begin?\n";

async fn import(database: &TestDatabase, args: &[&str]) -> Ended {
    run(&mut database.program(&[&["import"], args].concat())).await
}

async fn import_from_stdin(database: &TestDatabase, args: &[&str], content: &[u8]) -> Ended {
    let mut command = database.program(&[&["import", "-"], args].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(content).await.unwrap();
    drop(stdin);
    end_of(child).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_all_its_files_in_order_and_what_is_none_loses_nothing_of_the_others() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("calls");
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    fs::create_dir(folder.join(".hidden")).unwrap();
    let calls = [meeting(1, &["one"]), meeting(2, &["two"])];
    calls_file(&folder, "b.jsonl", &calls);
    // The same call once more is no harm, another version of it is.
    calls_file(&folder, "c.jsonl", &[calls[1].clone(), meeting(1, &["uno"])]);
    file(&folder, "deep/er/21792013.vtt", VTT.as_bytes());
    file(&folder, "deep/notes.txt", b"Nothing that anybody said.\n");
    file(&folder, "deep/empty.srt", b"");
    file(&folder, ".hidden/99.vtt", VTT.as_bytes());
    file(&folder, ".98.vtt", VTT.as_bytes());
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("..", folder.join("deep/loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.join("deep/dangling")).unwrap();
        std::os::unix::fs::symlink("er/21792013.vtt", folder.join("deep/77.vtt")).unwrap();
    }
    let imported = import(&database, &[&folder.to_string_lossy()]).await;
    assert_eq!(imported.code, Some(1), "{imported:?}");
    let refused = if cfg!(unix) { 4 } else { 3 };
    let new = if cfg!(unix) { 4 } else { 3 };
    let said = format!("{new} new, 0 changed, 1 unchanged, {refused} refused, 0 warnings\n");
    assert!(imported.stdout.starts_with(&said), "{imported:?}");
    for said in [
        "c.jsonl: line 2: recording 1 came before with other words (",
        "b.jsonl: line 1); this one is left out",
        "notes.txt: it is none of the known formats:\n  JSON",
        "empty.srt: it is empty",
    ] {
        assert!(imported.stderr.contains(said), "not said: {said}\n{}", imported.stderr);
    }
    assert!(!imported.stderr.contains("anybody"), "the file is quoted: {}", imported.stderr);
    let ids = "select array_agg(recording_id order by recording_id) from fathom_calls where recording_id not in (77)";
    assert_eq!(database.value::<Vec<i64>>(ids).await, [1, 2, 21_792_013]);
    let text = "select text from fathom_transcripts where recording_id = 1";
    assert_eq!(database.value::<String>(text).await, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_folder_is_an_error() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let imported = import(&database, &[&directory.path().to_string_lossy()]).await;
    assert_eq!(imported.code, Some(1), "{imported:?}");
    assert!(imported.stderr.contains("the folder has no files"), "{imported:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webvtt_is_dated_by_its_file_once_and_touching_it_changes_nothing() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "Kick-off.vtt", VTT.as_bytes());
    let written = |secs| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
        File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    written(1_700_000_000);
    assert!(import(&database, &[&path]).await.stdout.starts_with("1 new"));
    written(1_800_000_000);
    let again = import(&database, &[&path]).await;
    assert!(again.stdout.starts_with("0 new, 0 changed, 1 unchanged, 0 refused"), "{again:?}");
    let date = "select extract(epoch from created_at)::bigint from fathom_calls";
    assert_eq!(database.value::<i64>(date).await, 1_700_000_000);
    let dated = import(&database, &[&path, "--date", "2024-05-01"]).await;
    assert!(dated.stdout.starts_with("0 new, 1 changed"), "{dated:?}");
    assert_eq!(database.value::<i64>(date).await, 1_714_521_600);
    assert_eq!(database.value::<String>("select title from fathom_calls").await, "Kick-off");

    file(directory.path(), "Kick-off.vtt", VTT.replace("begin", "go on").as_bytes());
    let edited = import(&database, &[&path]).await;
    assert!(edited.stdout.starts_with("0 new, 1 changed"), "{edited:?}");
    assert_eq!(
        database.value::<String>("select text from fathom_transcripts").await,
        "Shall we go on?"
    );
    assert_eq!(database.value::<i64>("select count(*) from fathom_calls").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_told_by_its_content_and_cues_need_a_name() {
    let database = TestDatabase::new().await;
    let page = json!({"items": [meeting(1, &["one"]), meeting(2, &["two"])], "limit": 2});
    let imported = import_from_stdin(&database, &[], page.to_string().as_bytes()).await;
    assert!(imported.stdout.starts_with("2 new"), "{imported:?}");
    let nameless = import_from_stdin(&database, &[], VTT.as_bytes()).await;
    assert_eq!(nameless.code, Some(1));
    let said = "standard input: WebVTT and SubRip name no recording";
    assert!(nameless.stderr.contains(said), "{nameless:?}");
    let named = ["--recording-id", "7", "--title", "Seventh"];
    let named = import_from_stdin(&database, &named, VTT.as_bytes()).await;
    assert_eq!(named.code, Some(0), "{named:?}");
    let title = "select title from fathom_calls where recording_id = 7";
    assert_eq!(database.value::<String>(title).await, "Seventh");
    let nothing = import_from_stdin(&database, &[], b"").await;
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("cannot read standard input: it is empty"), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_for_several_files_is_wrong_use() {
    let database = TestDatabase::new().await;
    let named = import(&database, &["a.vtt", "b.vtt", "--recording-id", "1"]).await;
    assert_eq!(named.code, Some(64), "{named:?}");
    assert!(named.stderr.contains("there are several files"), "{named:?}");
    let dated = import(&database, &["a.vtt", "--date", "yesterday"]).await;
    assert_eq!(dated.code, Some(64), "{dated:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_change_and_writes_nothing() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let before = [meeting(1, &["one"]), meeting(2, &["two"]), meeting(3, &["three", "and more"])];
    let path = calls_file(directory.path(), "before.jsonl", &before);
    import(&database, &["--no-enqueue", &path]).await;
    let tables = "select md5(string_agg(t, ' ' order by t)) from (
        select c::text || c.xmin t from fathom_calls c union all
        select s::text || s.xmin from fathom_transcripts s union all
        select q::text from embedding_queue q union all
        select j::text from embedding_jobs j) all_rows";
    let stored: String = database.value(tables).await;

    let mut retitled = before[1].clone();
    retitled["title"] = json!("Second \u{1b}[31m");
    let after = [
        before[0].clone(),
        retitled,
        meeting(3, &["three"]),
        meeting(4, &["new"]),
        meeting(4, &["new"]),
        meeting(-1, &["refused"]),
    ];
    let path = calls_file(directory.path(), "after.jsonl", &after);
    let dry = import(&database, &["--dry-run", &path]).await;
    assert_eq!(dry.code, Some(1), "{dry:?}");
    let lines: Vec<&str> = dry.stdout.lines().collect();
    let at = |line: u32| format!("({path}: line {line})");
    assert_eq!(
        lines,
        [
            format!("changed: recording 2 \"Second \\u{{1b}}[31m\", 1 segments {}", at(2)),
            format!("changed: recording 3 \"Call 3\", 1 segments {}", at(3)),
            format!("new: recording 4 \"Call 4\", 1 segments {}", at(4)),
            "1 new, 2 changed, 2 unchanged, 1 refused, 0 warnings".into(),
            "a dry run: nothing was written".into(),
        ]
    );
    let dry = import(&database, &["--dry-run", "--json", &path]).await;
    let summary: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!(summary["dry_run"], json!(true));
    assert_eq!(summary["job_id"], Value::Null);
    assert_eq!(
        summary["recordings"],
        json!([
            {"recording_id": 2, "change": "changed"},
            {"recording_id": 3, "change": "changed"},
            {"recording_id": 4, "change": "new"},
        ])
    );
    assert_eq!(database.value::<String>(tables).await, stored);

    let real = import(&database, &[&path]).await;
    assert!(real.stdout.starts_with("1 new, 2 changed, 2 unchanged, 1 refused"), "{real:?}");
    assert_eq!(database.value::<i64>("select count(*) from embedding_queue").await, 3);
}

/// How much is read in the test of memory: a release build is some ten times as fast.
const BIG_BYTES: usize = if cfg!(debug_assertions) { 64 << 20 } else { 512 << 20 };
/// Resident memory that reading a file of any size may take.
const MEMORY_KIB_MAX: u64 = 48 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_however_large_a_file_or_a_page_is() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    // Small enough that a few of them do not show, large enough that all together would.
    let texts = vec!["words ".repeat(2_000); 80];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let call = meeting(0, &texts).to_string();
    let calls = BIG_BYTES / call.len();
    for (name, begin, between, end) in
        [("calls.jsonl", "", "\n", "\n"), ("page.json", "{\"items\":[", ",", "],\"limit\":9}")]
    {
        let path = directory.path().join(name);
        let mut file = BufWriter::new(File::create(&path).unwrap());
        file.write_all(begin.as_bytes()).unwrap();
        for id in 1..=calls {
            let id = format!("\"recording_id\":{id}");
            let between = if id.ends_with(":1") { "" } else { between };
            write!(file, "{between}{}", call.replacen("\"recording_id\":0", &id, 1)).unwrap();
        }
        file.write_all(end.as_bytes()).unwrap();
        file.flush().unwrap();
        let command = ["import", "--dry-run", "--json", &path.to_string_lossy()];
        let mut child = database.program(&command).spawn().unwrap();
        let mut peak = 0;
        while child.try_wait().unwrap().is_none() {
            peak = peak.max(peak_memory_kib(&child).unwrap_or(0));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let ended = end_of(child).await;
        let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(summary["new"], json!(calls), "{}", ended.stderr);
        println!("{name}: {peak} KiB");
        assert!(peak > 0 && peak < MEMORY_KIB_MAX, "{name}: {peak} KiB for {BIG_BYTES} bytes");
        fs::remove_file(path).unwrap();
    }
}
