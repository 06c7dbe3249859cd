//! Imports: again changes nothing, and only what differs is touched.

use embedding_recovery::domain::task::Settlement;
use embedding_recovery::ports::{ImportChange, Store};
use futures::future::join_all;
use sqlx::Connection;

use super::*;
use crate::harness::within_deadline;

const TEXTS: [&str; 3] = ["one", "two", "three"];

/// Identity and version of each segment's row.
async fn versions(database: &TestDatabase) -> Vec<(i64, String)> {
    sqlx::query_as("select id, xmin::text from fathom_transcripts order by id")
        .fetch_all(&database.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_import_is_new_then_unchanged_and_opens_one_task() {
    let database = database().await;
    let calls = [call(1, &TEXTS), call(2, &TEXTS)];
    assert_eq!(database.import(&calls).await, [ImportChange::New; 2]);
    let before = (versions(&database).await, everything(&database).await);
    assert_eq!(database.import(&calls).await, [ImportChange::Unchanged; 2]);
    assert_eq!((versions(&database).await, everything(&database).await), before);
    let stored = "select string_agg(concat_ws('|', speaker_name, text, timestamp), ' ' order by id)
        from fathom_transcripts where recording_id = 2";
    assert_eq!(
        text(&database, stored).await,
        "Ann|one|00:00:00 Ann|two|00:01:00 Ann|three|00:02:00"
    );
    assert_eq!(number(&database, "select count(*) from embedding_queue").await, 2);
}

#[tokio::test]
async fn a_changed_segment_touches_its_own_row_and_edits_of_the_others_stay() {
    let database = database().await;
    import_and_embed(&database, 1, &TEXTS).await;
    database
        .execute("update fathom_transcripts set edited_text = 'edited ' || text, edited_speaker_name = 'Anna'")
        .await;
    embed(&database, &["x"]).await;
    let before = versions(&database).await;
    assert_eq!(database.import(&[call(1, &TEXTS)]).await, [ImportChange::Unchanged]);
    assert_eq!(
        database.import(&[call(1, &["one", "TWO", "three"])]).await,
        [ImportChange::Changed]
    );
    let after = versions(&database).await;
    let touched: Vec<bool> = before.iter().zip(&after).map(|(old, new)| old != new).collect();
    assert_eq!(touched, [false, true, false]);
    let edits =
        "select string_agg(concat_ws('|', text, edited_text, edited_speaker_name), ' ' order by id)
        from fathom_transcripts";
    assert_eq!(text(&database, edits).await, "one|edited one|Anna TWO three|edited three|Anna");
    assert_eq!(status(&database, 1).await, "pending");
}

#[tokio::test]
async fn a_shorter_or_longer_transcript_keeps_the_rows_that_fit() {
    let database = database().await;
    database.import(&[call(1, &TEXTS)]).await;
    let first = versions(&database).await;
    assert_eq!(database.import(&[call(1, &["one"])]).await, [ImportChange::Changed]);
    assert_eq!(versions(&database).await, first[..1]);
    assert_eq!(database.import(&[call(1, &TEXTS)]).await, [ImportChange::Changed]);
    let texts = "select string_agg(text, ' ' order by id) from fathom_transcripts";
    assert_eq!(text(&database, texts).await, "one two three");
    assert_eq!(versions(&database).await[0], first[0]);
}

#[tokio::test]
async fn a_changed_title_or_date_is_a_change_and_a_missing_date_is_not() {
    let database = database().await;
    database.import(&[call(1, &TEXTS)]).await;
    let undated = ImportedRecording { created_at: None, ..call(1, &TEXTS) };
    assert_eq!(database.import(&[undated]).await, [ImportChange::Unchanged]);
    let retitled = ImportedRecording { title: None, ..call(1, &TEXTS) };
    assert_eq!(database.import(&[retitled]).await, [ImportChange::Changed]);
    let redated =
        ImportedRecording { created_at: "2024-05-02T10:00:00Z".parse().ok(), ..call(1, &TEXTS) };
    assert_eq!(database.import(&[redated]).await, [ImportChange::Changed]);
}

#[tokio::test]
async fn the_same_number_of_two_users_is_two_recordings() {
    let database = database().await;
    let bobs = ImportedRecording { key: user_key("bob", 1), ..call(1, &["other"]) };
    let changes = database.import(&[call(1, &TEXTS), bobs]).await;
    assert_eq!(changes, [ImportChange::New; 2]);
    assert_eq!(number(&database, "select count(*) from embedding_queue").await, 2);
    let found = database.store.find_recordings(1, None).await.unwrap();
    assert_eq!(found, [user_key("alice", 1), user_key("bob", 1)]);
    let bobs = database.store.find_recordings(1, Some("bob")).await.unwrap();
    assert_eq!(bobs, [user_key("bob", 1)]);
    assert_eq!(database.store.find_recordings(7, None).await.unwrap(), []);
}

#[tokio::test]
async fn holding_back_opens_no_task_and_the_triggers_stay_on_for_others() {
    let database = database().await;
    let mut import = database.store.import(false);
    assert_eq!(import.store(&call(1, &TEXTS)).await, Ok(ImportChange::New));
    assert_eq!(import.store(&call(1, &["one"])).await, Ok(ImportChange::Changed));
    assert_eq!(import.job_id(), None);
    assert_eq!(number(&database, "select count(*) from embedding_queue").await, 0);
    assert_eq!(number(&database, "select count(*) from embedding_jobs").await, 0);
    database.execute("update fathom_transcripts set text = 'by hand'").await;
    assert_eq!(number(&database, "select count(*) from embedding_queue").await, 1);
}

#[tokio::test]
async fn an_import_is_one_job_for_what_changed() {
    let database = database().await;
    import_and_embed(&database, 1, &TEXTS).await;
    let mut import = database.store.import(true);
    for recording in 1..=4 {
        import.store(&call(recording, &TEXTS)).await.unwrap();
    }
    let job = import.job_id().unwrap();
    let progress = format!(
        "select concat_ws(' ', requested_by, tasks, completed, dead_letter) from embedding_job_progress where job_id = '{job}'"
    );
    assert_eq!(text(&database, &progress).await, "import 3 0 0");
    assert_eq!(number(&database, "select count(*) from embedding_jobs").await, 2);
    let mut unchanged = database.store.import(true);
    unchanged.store(&call(1, &TEXTS)).await.unwrap();
    assert_eq!(unchanged.job_id(), None);
}

#[tokio::test]
async fn a_changed_import_revives_a_dead_letter() {
    let database = database().await;
    database.import(&[call(1, &TEXTS)]).await;
    let task = claim_one(&database).await;
    let dead = Settlement::DeadLetter { permanent: true };
    database.store.settle(&task.lease, &Failure::Panicked, &dead).await.unwrap();
    database.import(&[call(1, &TEXTS)]).await;
    assert_eq!(status(&database, 1).await, "dead_letter");
    database.import(&[call(1, &["better"])]).await;
    assert_eq!(status(&database, 1).await, "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_of_the_same_calls_at_once_give_one_set_of_segments() {
    let database = database().await;
    let imports = (0..6).map(|_| {
        let store = database.store.clone();
        tokio::spawn(async move {
            let mut import = store.import(true);
            let mut changes = Vec::new();
            for recording in 1..=20 {
                changes.push(import.store(&call(recording, &TEXTS)).await.unwrap());
            }
            changes
        })
    });
    let mut new = 0;
    for changes in join_all(imports).await {
        for change in changes.unwrap() {
            assert_ne!(change, ImportChange::Changed);
            new += u32::from(change == ImportChange::New);
        }
    }
    assert_eq!(new, 20);
    assert_eq!(number(&database, "select count(*) from fathom_transcripts").await, 60);
    assert_eq!(number(&database, "select count(*) from embedding_queue").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_that_both_find_a_call_without_segments_add_them_once() {
    let database = database().await;
    database.import(&[call(1, &[])]).await;
    // Both wait: one for the segments, the other for the first, which holds the call.
    let mut holder = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    sqlx::raw_sql("lock table fathom_transcripts in access exclusive mode")
        .execute(&mut *held)
        .await
        .unwrap();
    let imports: Vec<_> = (0..2)
        .map(|_| {
            let store = database.store.clone();
            tokio::spawn(async move { store.import(true).store(&call(1, &TEXTS)).await.unwrap() })
        })
        .collect();
    wait_for_blocked(&database, 2).await;
    held.rollback().await.unwrap();
    let mut changes = Vec::new();
    for change in within_deadline("both imports", join_all(imports)).await {
        changes.push(change.unwrap());
    }
    let changed = changes.iter().filter(|change| **change == ImportChange::Changed).count();
    assert_eq!(changed, 1, "{changes:?}");
    assert_eq!(number(&database, "select count(*) from fathom_transcripts").await, 3);
}

#[tokio::test]
async fn a_recording_that_cannot_be_stored_leaves_nothing_of_itself() {
    let database = database().await;
    let mut broken = call(1, &TEXTS);
    broken.segments[1].text = "nul \0 in it".into();
    let mut import = database.store.import(true);
    let failure = import.store(&broken).await.unwrap_err();
    assert!(matches!(failure, Failure::DatabaseRefuses { .. }), "{failure}");
    assert!(!failure.to_string().contains("nul"), "no transcript text in a message: {failure}");
    assert_eq!(import.job_id(), None);
    for table in ["fathom_calls", "fathom_transcripts", "embedding_queue", "embedding_jobs"] {
        assert_eq!(number(&database, &format!("select count(*) from {table}")).await, 0, "{table}");
    }
    assert_eq!(import.store(&call(2, &TEXTS)).await, Ok(ImportChange::New));
}
