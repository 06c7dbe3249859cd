//! `import`: what it stores, and what it says of bad input.

use std::io::Write;

use serde_json::json;

use super::{calls_file, meeting};
use crate::harness::TestDatabase;
use crate::harness::program::{file, run};

#[tokio::test(flavor = "multi_thread")]
async fn importing_a_file_twice_changes_nothing_and_an_edited_call_is_a_change() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let calls = [meeting(1, &["hello there"]), meeting(2, &["good morning", "and to you"])];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for call in &calls {
        writeln!(gzip, "{call}").unwrap();
    }
    let path = file(directory.path(), "calls.jsonl.gz", &gzip.finish().unwrap());

    let first = run(&mut database.program(&["import", &path])).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.stdout.starts_with("2 new, 0 changed, 0 unchanged, 0 refused"), "{first:?}");
    let again = run(&mut database.program(&["import", &path])).await;
    assert!(again.stdout.starts_with("0 new, 0 changed, 2 unchanged"), "{again:?}");
    assert_eq!(database.value::<i64>("select count(*) from embedding_queue").await, 2);
    assert_eq!(database.value::<i64>("select count(*) from fathom_transcripts").await, 3);

    database.execute("update embedding_queue set status = 'completed', completed_at = now()").await;
    let edited = [calls[0].clone(), meeting(2, &["good morning", "and to you too"])];
    let path = calls_file(directory.path(), "edited.jsonl", &edited);
    let changed = run(&mut database.program(&["import", "--json", &path])).await;
    let summary: serde_json::Value = serde_json::from_str(&changed.stdout).unwrap();
    assert_eq!((&summary["changed"], &summary["unchanged"]), (&json!(1), &json!(1)), "{changed:?}");
    let pending = "select array_agg(recording_id) from embedding_queue where status = 'pending'";
    assert_eq!(database.value::<Vec<i64>>(pending).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_named_and_lose_nothing_of_the_others() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut line = |bytes: Vec<u8>| lines.push(bytes);
    line(meeting(1, &["good"]).to_string().into_bytes());
    line(b"{\"recording_id\": 2, \"transcript\": [".to_vec());
    line(meeting(-3, &["negative"]).to_string().into_bytes());
    line(meeting(1, &["a second time"]).to_string().into_bytes());
    line(meeting(5, &["with a nul \0 in it"]).to_string().into_bytes());
    let mut invalid = meeting(6, &["not @ utf8"]).to_string().into_bytes();
    *invalid.iter_mut().find(|byte| **byte == b'@').unwrap() = 0xff;
    line(invalid);
    line(
        json!({"recording_id": 7, "transcript": [
            {"text": "a", "timestamp": "00:00:01"}, {"text": "b", "timestamp": "ten past"}, {"text": "c"}]})
        .to_string()
        .into_bytes(),
    );
    line(b"{\"title\": \"a call without an id\"}".to_vec());
    line(meeting(9, &["the last"]).to_string().into_bytes());
    let path = file(directory.path(), "calls.jsonl", &lines.join(&b'\n'));

    let imported = run(&mut database.program(&["import", &path])).await;
    assert_eq!(imported.code, Some(1), "{imported:?}");
    assert!(
        imported.stdout.starts_with("5 new, 0 changed, 0 unchanged, 4 refused"),
        "{imported:?}"
    );
    for said in [
        "calls.jsonl: line 2: not a recording: the JSON ends too early",
        "calls.jsonl: line 3: recording_id -3 is negative",
        "calls.jsonl: line 4: recording 1 came before with other words (",
        "calls.jsonl: line 5: warning: recording 5: NUL characters were removed",
        "calls.jsonl: line 6: warning: recording 6: invalid UTF-8 was replaced",
        "calls.jsonl: line 7: warning: recording 7: segment 1 has a timestamp that is not HH:MM:SS",
        "calls.jsonl: line 7: warning: recording 7: segment 2 has no timestamp",
        "calls.jsonl: line 8: not a recording: a field is missing",
    ] {
        assert!(imported.stderr.contains(said), "not said: {said}\n{}", imported.stderr);
    }
    let stored = "select array_agg(recording_id order by recording_id) from fathom_calls";
    assert_eq!(database.value::<Vec<i64>>(stored).await, [1, 5, 6, 7, 9]);
    let text = "select text from fathom_transcripts where recording_id = 5";
    assert_eq!(database.value::<String>(text).await, "with a nul  in it");
    let times =
        "select count(*) from fathom_transcripts where recording_id = 7 and timestamp is null";
    assert_eq!(database.value::<i64>(times).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_of_50_mb_is_refused_by_name_and_the_next_call_is_stored() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let monster = "word ".repeat(10 * 1024 * 1024);
    let calls = [meeting(1, &["short", &monster]), meeting(2, &["fine"])];
    let path = calls_file(directory.path(), "calls.jsonl", &calls);
    let imported = run(&mut database.program(&["import", &path])).await;
    assert_eq!(imported.code, Some(1), "{}", imported.stderr);
    let said = "calls.jsonl: line 1: segment 1 has 50.0 MB of text; a segment may have 1 MB";
    assert!(imported.stderr.contains(said), "{}", imported.stderr);
    assert!(!imported.stderr.contains("word word"), "the transcript is quoted");
    assert_eq!(database.value::<i64>("select recording_id from fathom_calls").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_enqueue_holds_back_and_enqueue_missing_makes_up_for_it() {
    let database = TestDatabase::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = calls_file(directory.path(), "calls.jsonl", &[meeting(1, &["hello"])]);
    let imported = run(&mut database.program(&["import", "--no-enqueue", &path])).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
    assert_eq!(database.value::<i64>("select count(*) from embedding_queue").await, 0);
    let enqueued = run(&mut database.program(&["enqueue", "--missing"])).await;
    assert!(enqueued.stdout.ends_with(": 1 tasks\n"), "{enqueued:?}");
    assert_eq!(database.value::<i64>("select count(*) from embedding_queue").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_named() {
    let database = TestDatabase::new().await;
    let imported = run(&mut database.program(&["import", "no-such-file.jsonl"])).await;
    assert_eq!(imported.code, Some(1));
    assert!(imported.stderr.contains("cannot read no-such-file.jsonl: "), "{imported:?}");
}
