//! What is a recording's own fault and nobody else's: it uses its attempts, and its neighbours do not
//! notice.

use super::scene::Scene;
use crate::harness::calls::call;

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_database_refuses_uses_the_recordings_attempts_and_keeps_the_others() {
    let scene = Scene::new().await;
    scene
        .database
        .execute(
            "create function refuse() returns trigger language plpgsql as $$ begin
                 if new.chunk_text like '%call1turn2 %' then
                     raise check_violation using message = 'the test says so';
                 end if;
                 return new;
             end $$;
             create trigger refuse before insert on transcript_chunks
                 for each row execute function refuse()",
        )
        .await;
    scene.database.import(&[call(1, 4), call(2, 4)]).await;
    let tree = scene.serve().await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (1, 1));
    let task = scene.task(1).await;
    assert_eq!(task.summary(), ("dead_letter", 4, 0));
    assert_eq!(task.failure_class.as_deref(), Some("database_refuses"));
    assert!(!task.dead_letter_permanent);
    assert_eq!(scene.attempts(2).await, ["completed"]);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcript_that_is_too_large_is_dead_at_once_and_says_so() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 4), call(2, 4)]).await;
    scene
        .database
        .execute(
            "update fathom_transcripts set text = repeat('x', 16777216) where recording_id = 1",
        )
        .await;
    let tree = scene.serve().await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (1, 1));
    let task = scene.task(1).await;
    assert_eq!(task.summary(), ("dead_letter", 1, 0));
    assert!(task.dead_letter_permanent);
    assert!(task.dead_letter_reason.unwrap().contains("bytes of text; at most"));
    scene.end(tree).await;
}
