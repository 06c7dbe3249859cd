//! The triggers on the source tables: a change finds the queue by itself.

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::domain::task::Settlement;
use embedding_recovery::ports::{ClaimOf, Store};
use futures::future::join_all;
use sqlx::{AssertSqlSafe, Connection};

use super::*;
use crate::harness::within_deadline;

/// Five embedded calls whose tasks are completed.
async fn embedded() -> TestDatabase {
    let database = database().await;
    for recording in 1..=5 {
        import_and_embed(&database, recording, &["one", "two"]).await;
    }
    assert_eq!(open_tasks(&database).await, "");
    database
}

/// Recordings with an open task.
async fn open_tasks(database: &TestDatabase) -> String {
    text(
        database,
        "select coalesce(string_agg(concat(user_id, recording_id), ' ' order by user_id, recording_id), '')
         from embedding_queue where status <> 'completed'",
    )
    .await
}

#[tokio::test]
async fn every_change_of_what_is_embedded_opens_a_task_for_its_recording_alone() {
    let database = embedded().await;
    for change in [
        "insert into fathom_transcripts (user_id, recording_id, text) values ('alice', 3, 'new')",
        "delete from fathom_transcripts where recording_id = 3 and text = 'new'",
        "update fathom_transcripts set text = 'other' where recording_id = 3 and text = 'one'",
        "update fathom_transcripts set edited_text = 'edited' where recording_id = 3",
        "update fathom_transcripts set speaker_name = 'Zoe' where recording_id = 3",
        "update fathom_transcripts set edited_speaker_name = 'Zoë' where recording_id = 3",
        "update fathom_transcripts set timestamp = '01:00:00' where recording_id = 3",
        "update fathom_transcripts set is_deleted = true where recording_id = 3",
        "update fathom_calls set title = 'Another' where recording_id = 3",
        "update fathom_calls set created_at = now() where recording_id = 3",
    ] {
        database.execute(change).await;
        assert_eq!(open_tasks(&database).await, "alice3", "{change}");
        database.execute("delete from embedding_queue where status = 'pending'").await;
    }
}

#[tokio::test]
async fn an_update_that_changes_nothing_embedded_opens_no_task() {
    let database = embedded().await;
    database.execute("alter table fathom_calls add column starred boolean").await;
    for change in [
        "update fathom_transcripts set text = text, edited_text = edited_text",
        "update fathom_transcripts set speaker_email = 'ann@example.com'",
        "update fathom_calls set title = title",
        "update fathom_calls set starred = true",
        "update fathom_transcripts set text = 'x' where recording_id = 99",
        "delete from fathom_transcripts where recording_id = 99",
        "insert into fathom_transcripts (user_id, recording_id, text) values ('nobody', 1, 'no such call')",
    ] {
        database.execute(change).await;
        assert_eq!(open_tasks(&database).await, "", "{change}");
    }
}

#[tokio::test]
async fn one_statement_over_many_recordings_opens_a_task_for_each_that_changed() {
    let database = embedded().await;
    database
        .execute("update fathom_transcripts set text = case when recording_id % 2 = 0 then 'even' else text end")
        .await;
    assert_eq!(open_tasks(&database).await, "alice2 alice4");
    database
        .execute("update fathom_transcripts set recording_id = 5 where recording_id = 1 and text = 'one'")
        .await;
    assert_eq!(open_tasks(&database).await, "alice1 alice2 alice4 alice5", "both lost and gained");
}

#[tokio::test]
async fn a_change_revives_a_dead_letter_with_all_its_attempts() {
    let database = database().await;
    database.import(&[call(1, &["one"])]).await;
    bury(&database, &claim_one(&database).await).await;
    database
        .execute(
            "update embedding_queue set releases = 9, crashes = 2, crashes_alone = 1, attempts = 4",
        )
        .await;
    database.execute("update fathom_transcripts set speaker_email = 'x'").await;
    assert_eq!(status(&database, 1).await, "dead_letter", "that was no change");
    database.execute("update fathom_transcripts set text = 'right now'").await;
    let columns = "select concat_ws(' ', status, attempts, releases, crashes, crashes_alone,
        dead_letter_permanent, dead_letter_reason, next_retry_at) from embedding_queue";
    assert_eq!(text(&database, columns).await, "pending 0 0 0 0 f");
}

#[tokio::test]
async fn a_change_while_it_is_worked_on_marks_the_task() {
    let database = database().await;
    database.import(&[call(1, &["one"])]).await;
    let dirty = "select concat_ws(' ', status, dirty) from embedding_queue";
    database.execute("update fathom_transcripts set text = 'two'").await;
    assert_eq!(text(&database, dirty).await, "pending f", "it is not begun yet");
    let task = claim_one(&database).await;
    database.execute("update fathom_transcripts set text = 'three'").await;
    assert_eq!(text(&database, dirty).await, "processing t");
    let settlement = Settlement::DeadLetter { permanent: true };
    database.store.settle(&task.lease, &Failure::Panicked, &settlement).await.unwrap();
    assert_eq!(text(&database, dirty).await, "pending f", "what failed may be right now");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_of_the_same_recordings_do_not_deadlock() {
    let database = embedded().await;
    let columns = ["text", "edited_text", "speaker_name", "edited_speaker_name"];
    let editors = columns.iter().enumerate().map(|(at, column)| {
        let url = database.url.clone();
        // Each has segments of its own, so that they meet at the queue alone, in opposite orders.
        let order = if at % 2 == 0 { "asc" } else { "desc" };
        let change = format!(
            "with ordered as (select id from fathom_transcripts where timestamp = '00:0{at}:00' order by recording_id {order} for update)
             update fathom_transcripts t set {column} = 'v' || random() from ordered where t.id = ordered.id"
        );
        tokio::spawn(async move {
            let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
            for _ in 0..60 {
                sqlx::raw_sql(AssertSqlSafe(change.clone())).execute(&mut connection).await?;
            }
            Ok::<_, sqlx::Error>(())
        })
    });
    database
        .execute(
            "insert into fathom_transcripts (user_id, recording_id, text, timestamp)
             select 'alice', r, 'more', '00:0' || m || ':00' from generate_series(1, 5) r, generate_series(2, 3) m",
        )
        .await;
    let editors: Vec<_> = editors.collect();
    for edited in within_deadline("the editors end", join_all(editors)).await {
        edited.unwrap().unwrap();
    }
    assert_eq!(open_tasks(&database).await, "alice1 alice2 alice3 alice4 alice5");
    assert_eq!(claim(&database, ClaimOf::Healthy(9)).await.len(), 5);
}

#[tokio::test]
async fn whoever_writes_transcripts_needs_no_right_on_the_queue() {
    let database = embedded().await;
    let role = format!("importer_{}", uuid::Uuid::new_v4().simple());
    database
        .execute(&format!(
            "create role {role}; grant select, insert, update on fathom_calls, fathom_transcripts to {role};
             set role {role};
             update fathom_transcripts set text = 'theirs' where recording_id = 2;
             reset role"
        ))
        .await;
    assert_eq!(open_tasks(&database).await, "alice2");
    database.execute(&format!("drop owned by {role}; drop role {role}")).await;
}
