//! The chunks of current sets against their transcripts: other words, another order, a set too many
//! for one page.

use embedding_recovery::domain::chunking::chunk;

use super::*;

/// What is found, as recording and detail.
async fn found(database: &TestDatabase) -> Vec<(i64, String)> {
    let mut violations = database.store.verify().await.unwrap().violations;
    violations.retain(|violation| violation.invariant == CONTENTS);
    violations.into_iter().map(|violation| (violation.recording_id, violation.detail)).collect()
}

#[tokio::test]
async fn chunks_that_are_not_those_of_their_transcript_are_found() {
    let database = database().await;
    database.import(&[crate::harness::calls::call(1, 3)]).await;
    let task = claim_one(&database).await;
    let recording = database.store.load(&task.key).await.unwrap().recording;
    let chunks = chunk(&recording);
    let texts: Vec<String> = chunks.iter().map(|chunk| chunk.embedded_text(&recording)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let attempt = Attempt::begin(&database, task, &texts).await.unwrap();
    attempt.insert(&database, &rows(&texts)).await.unwrap();
    assert_eq!(attempt.complete(&database).await, Ok(Completion::Completed));
    database.assert_sound().await;
    let swapped = "update transcript_chunks set chunk_index = chunk_index + 10;
        update transcript_chunks set chunk_index = case chunk_index when 11 then 2 when 12 then 1 else 0 end";
    let other = "chunk 1 is not that of the transcript".to_owned();
    database.execute(swapped).await;
    assert_eq!(found(&database).await, [(1, other)]);
    database.execute("delete from transcript_chunks where chunk_index = 2").await;
    let fewer = "2 chunks, and the transcript makes 3".to_owned();
    assert_eq!(found(&database).await, [(1, fewer)]);
    // An edit is under way: the set is of the transcript before it.
    database.execute("update fathom_transcripts set edited_text = 'other words'").await;
    assert_eq!(found(&database).await, []);
    database.execute("delete from fathom_transcripts").await;
    assert_eq!(found(&database).await, []);
}

#[tokio::test]
async fn every_set_is_compared_however_many_pages_there_are() {
    let database = database().await;
    plain_calls(&database, "alice", 230).await;
    // Without words there is no chunk to store.
    database
        .execute(&format!(
            "set embedding_recovery.enqueue = off;
             update fathom_transcripts set is_deleted = true;
             insert into chunk_sets (user_id, recording_id, model, fingerprint, source_digest, state, completed_at, chunks_expected)
             select user_id, recording_id, '{MODEL}', '', recording_digest(user_id, recording_id), 'current', now(), 0 from fathom_calls"
        ))
        .await;
    assert_eq!(found(&database).await, []);
    database
        .execute(
            "set embedding_recovery.enqueue = off;
             create temp table last as select id, recording_id as recording from chunk_sets order by id desc limit 1;
             update fathom_transcripts set is_deleted = false from last where recording_id = recording;
             update chunk_sets s set source_digest = recording_digest(user_id, recording_id) from last where s.id = last.id",
        )
        .await;
    let [(_, detail)] = &found(&database).await[..] else { panic!("one is found") };
    assert_eq!(detail, "0 chunks, and the transcript makes 1");
    // As many as are listed of any invariant.
    database
        .execute(
            "set embedding_recovery.enqueue = off; update fathom_transcripts set is_deleted = false;
             update chunk_sets set source_digest = recording_digest(user_id, recording_id)",
        )
        .await;
    let listed = found(&database).await.len() as i64;
    assert_eq!(listed, embedding_recovery::postgres::VIOLATIONS_MAX);
}
