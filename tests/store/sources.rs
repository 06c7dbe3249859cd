//! Loading: the transcript as it was spoken and edited.

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::ports::Store;
use embedding_recovery::postgres::TRANSCRIPT_BYTES_MAX;

use super::*;

async fn with_segments(values: &str) -> TestDatabase {
    let database = TestDatabase::new().await;
    database
        .execute(&format!(
            "insert into fathom_calls (user_id, recording_id, title, created_at)
             values ('alice', 1, 'Title', '2024-01-01Z'), ('bob', 1, 'Bob''s', '2025-01-01Z');
             insert into fathom_transcripts
                 (user_id, recording_id, timestamp, speaker_name, text, edited_speaker_name, edited_text, is_deleted)
             values {values}"
        ))
        .await;
    database
}

async fn loaded(database: &TestDatabase) -> Vec<(String, String, Option<u32>)> {
    let source = database.store.load(&key(1)).await.unwrap();
    let segments = source.recording.segments;
    segments.into_iter().map(|s| (s.speaker.unwrap_or_default(), s.text, s.start_secs)).collect()
}

#[tokio::test]
async fn segments_come_by_time_and_then_by_insertion_never_by_text() {
    let database = with_segments(
        "('alice', 1, '00:00:09', 'A', 'late', null, null, false),
         ('alice', 1, '00:00:05', 'A', 'z first', null, null, false),
         ('alice', 1, '00:00:05', 'A', 'a second', null, null, false),
         ('alice', 1, null, 'A', 'timeless', null, null, false),
         ('alice', 1, '10:00:00', 'A', 'ten hours', null, null, false),
         ('alice', 1, '9:00:00', 'A', 'malformed', null, null, false),
         ('bob', 1, '00:00:01', 'B', 'another user', null, null, false)",
    )
    .await;
    let texts: Vec<String> = loaded(&database).await.into_iter().map(|s| s.1).collect();
    assert_eq!(texts, ["z first", "a second", "timeless", "late", "ten hours", "malformed"]);
    let source = database.store.load(&key(1)).await.unwrap();
    assert_eq!(source.recording.title.as_deref(), Some("Title"));
    assert_eq!(source.recording.created_at.to_rfc3339(), "2024-01-01T00:00:00+00:00");
    let bobs = database.store.load(&user_key("bob", 1)).await.unwrap();
    assert_eq!(
        (bobs.recording.segments.len(), bobs.recording.title.as_deref()),
        (1, Some("Bob's"))
    );
}

#[tokio::test]
async fn edited_text_and_speaker_win_and_deleted_segments_are_skipped() {
    let database = with_segments(
        "('alice', 1, '00:00:01', 'Ann', 'raw', 'Anna', 'edited', false),
         ('alice', 1, '00:00:02', 'Ann', 'gone', null, null, true),
         ('alice', 1, '00:00:03', null, 'said', null, null, false),
         ('alice', 1, '00:00:04', ' ', null, null, null, false)",
    )
    .await;
    assert_eq!(
        loaded(&database).await,
        [
            ("Anna".into(), "edited".into(), Some(1)),
            (String::new(), "said".into(), Some(3)),
            (String::new(), String::new(), Some(4)),
        ]
    );
}

#[tokio::test]
async fn a_call_without_segments_is_missing_and_one_with_deleted_segments_is_empty() {
    let database = with_segments("('bob', 1, '00:00:02', 'Ann', 'gone', null, null, true)").await;
    assert_eq!(database.store.load(&key(1)).await.err(), Some(Failure::TranscriptMissing));
    let empty = database.store.load(&user_key("bob", 1)).await.unwrap();
    assert_eq!(empty.recording.segments, []);
    assert_eq!(database.store.load(&key(2)).await.err(), Some(Failure::RecordingDeleted));
}

#[tokio::test]
async fn a_transcript_beyond_the_limit_is_refused_and_deleted_text_does_not_count() {
    let database = with_segments(
        "('alice', 1, null, 'A', repeat('x', 16777216), null, null, false),
         ('alice', 1, null, 'A', repeat('y', 16777216), null, null, false),
         ('alice', 1, null, 'A', repeat('z', 16777216), null, null, true)",
    )
    .await;
    assert_eq!(TRANSCRIPT_BYTES_MAX, 2 * 16_777_216);
    assert_eq!(database.store.load(&key(1)).await.unwrap().recording.segments.len(), 2);
    database
        .execute(
            "insert into fathom_transcripts (user_id, recording_id, text) values ('alice', 1, 'é')",
        )
        .await;
    assert_eq!(
        database.store.load(&key(1)).await.err(),
        Some(Failure::TranscriptTooLarge {
            bytes: TRANSCRIPT_BYTES_MAX + 2,
            bytes_max: TRANSCRIPT_BYTES_MAX
        })
    );
}

#[tokio::test]
async fn the_digest_changes_with_everything_a_chunk_is_made_from_and_with_nothing_else() {
    let database = with_segments("('alice', 1, '00:00:01', 'Ann', 'raw', null, null, false)").await;
    let mut digests = vec![database.store.load(&key(1)).await.unwrap().digest];
    for change in [
        "update fathom_calls set title = 'Another' where user_id = 'alice'",
        "update fathom_calls set created_at = created_at + interval '1 s' where user_id = 'alice'",
        "update fathom_transcripts set text = 'other'",
        "update fathom_transcripts set edited_text = 'edited'",
        "update fathom_transcripts set speaker_name = 'Bob'",
        "update fathom_transcripts set edited_speaker_name = 'Bobby'",
        "update fathom_transcripts set timestamp = '00:00:02'",
        "update fathom_transcripts set is_deleted = true",
        "insert into fathom_transcripts (user_id, recording_id, text) values ('alice', 1, '')",
    ] {
        database.execute(change).await;
        let digest = database.store.load(&key(1)).await.unwrap().digest;
        assert!(!digests.contains(&digest), "{change}");
        digests.push(digest);
    }
    database.execute("update fathom_transcripts set speaker_email = 'a@example.com'").await;
    database
        .execute("update fathom_transcripts set text = 'hidden' where edited_text is not null")
        .await;
    database
        .execute("update fathom_calls set title = 'Bob changes his' where user_id = 'bob'")
        .await;
    assert_eq!(database.store.load(&key(1)).await.unwrap().digest, digests[digests.len() - 1]);
}
