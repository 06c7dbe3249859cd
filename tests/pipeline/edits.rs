//! Transcripts that change: while nothing happens, while they are worked on, and under readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::scene::Scene;
use crate::fakes::openai::Reply;
use crate::harness::calls::call;
use crate::harness::{eventually, within_deadline};

/// Edits one turn of call 1: one chunk has another text.
fn edit_of(turn: usize) -> String {
    format!(
        "update fathom_transcripts set edited_text = replace(text, 'call1turn{turn} ', 'call1turn{turn} edited ')
         where recording_id = 1 and text like 'call1turn{turn} %'"
    )
}

async fn edit(scene: &Scene, turn: usize) {
    scene.database.execute(&edit_of(turn)).await;
}

/// Chunks of the current set that hold the edit.
const EDITED: &str = "select count(*) from searchable_chunks
    where recording_id = $1 and chunk_text like '% edited %'";

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_in_flight_ends_with_the_new_text_and_buys_only_what_changed() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 10)]).await;
    scene.fake.hold();
    let tree = scene.serve().await;
    scene.fake.wait_for_requests(1).await;
    edit(&scene, 7).await;
    scene.fake.release();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["superseded", "completed"]);
    assert_eq!(scene.task(1).await.summary(), ("completed", 1, 0), "no attempt is used");
    assert_eq!((scene.searchable(1).await, scene.count(EDITED, 1).await), (10, 1));
    assert_eq!(scene.bought_once(), 10 + 1);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_is_reverted_in_flight_buys_nothing_more() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    scene.fake.hold();
    let tree = scene.serve().await;
    scene.fake.wait_for_requests(1).await;
    edit(&scene, 1).await;
    scene.database.execute("update fathom_transcripts set edited_text = null").await;
    scene.fake.release();
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(1).await, ["completed"]);
    assert_eq!((scene.searchable(1).await, scene.count(EDITED, 1).await), (6, 0));
    assert_eq!(scene.bought_once(), 6);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_brings_a_dead_recording_back_to_life() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6)]).await;
    scene.fake.on(
        |inputs| inputs.iter().any(|input| input.contains("call1turn2 word")),
        Reply::error(400, "invalid_value", "This input is invalid."),
    );
    let tree = scene.serve().await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!(counts.dead_letter, 1);
    edit(&scene, 2).await;
    scene.wait_for_task(1, |task| task.status == "completed").await;
    assert_eq!((scene.searchable(1).await, scene.count(EDITED, 1).await), (6, 1));
    assert_eq!(scene.bought_once(), 6);
    scene.end(tree).await;
}

/// Of the recording that is read while it is embedded anew.
const CHUNKS: i64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_one_whole_set_at_every_instant_of_a_re_embedding() {
    let scene = Scene::with(8, 2).await;
    scene.database.import(&[call(1, CHUNKS as usize)]).await;
    let mut settings = scene.settings();
    settings.insert_rows = 1;
    let tree = scene.database.serve(settings).await;
    scene.database.wait_until_settled(&tree).await;

    let (samples, stop) = (watch::Sender::new(0), Arc::new(AtomicBool::new(false)));
    let reader = tokio::spawn(read(scene.database.pool.clone(), samples.clone(), stop.clone()));
    let retitled = "update fathom_calls set title = 'Another title'".to_owned();
    for (requests, change) in [edit_of(1), edit_of(5), retitled, edit_of(9)].iter().enumerate() {
        scene.fake.hold();
        scene.database.execute(change).await;
        scene.fake.wait_for_requests(scene.fake.requests().len() + 1).await;
        // Look while a set is being built, and, as the reader goes on, at the swap.
        let before = *samples.borrow();
        let mut looked = samples.subscribe();
        let looks = looked.wait_for(|samples| *samples >= before + 3);
        within_deadline("looks", looks).await.unwrap();
        scene.fake.release();
        scene.database.wait_until_settled(&tree).await;
        assert!(scene.stored(1).await >= CHUNKS, "change {requests}");
    }
    stop.store(true, Ordering::Relaxed);
    let seen = reader.await.unwrap();
    assert_eq!(seen, [0, 1, 2, 3], "the edits appear one after another");
    assert_eq!(scene.count("select count(*) from searchable_chunks where recording_id = $1 and call_title = 'Another title'", 1).await, CHUNKS);
    assert_eq!(scene.bought_once(), CHUNKS as usize * 2 + 3);
    scene.end(tree).await;
}

/// Looks at call 1 until told to stop; returns how many edits it saw, one after another.
async fn read(
    pool: sqlx::PgPool,
    samples: watch::Sender<usize>,
    stop: Arc<AtomicBool>,
) -> Vec<i64> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (chunks, edited, sets): (i64, i64, i64) = sqlx::query_as(
            "select count(*), count(*) filter (where chunk_text like '% edited %'),
                    count(distinct chunk_set_id)
             from searchable_chunks where recording_id = 1",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!((chunks, sets), (CHUNKS, 1), "partly, mixed or not at all");
        samples.send_modify(|samples| *samples += 1);
        if seen.last() != Some(&edited) {
            seen.push(edited);
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_segments_are_all_deleted_is_completed_with_nothing_to_search() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 4), call(2, 1)]).await;
    scene
        .database
        .execute("update fathom_transcripts set is_deleted = true where recording_id = 2")
        .await;
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.attempts(2).await, ["completed"]);
    assert_eq!(scene.searchable(1).await, 4);
    scene.database.execute("update fathom_transcripts set is_deleted = true").await;
    eventually("nothing is left to search", async || scene.searchable(1).await == 0).await;
    scene.database.wait_until_settled(&tree).await;
    assert_eq!(scene.task(1).await.summary(), ("completed", 1, 0));
    assert_eq!(scene.bought_once(), 4);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_deleted_before_its_claim_or_in_flight_is_dead_at_once_and_says_so() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 6), call(2, 3)]).await;
    scene.database.execute("delete from fathom_calls where recording_id = 2").await;
    scene.fake.hold();
    let tree = scene.serve().await;
    scene.fake.wait_for_requests(1).await;
    scene.database.execute("delete from fathom_calls where recording_id = 1").await;
    scene.fake.release();
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!(counts.dead_letter, 2);
    for recording_id in [1, 2] {
        let task = scene.task(recording_id).await;
        assert_eq!(task.summary(), ("dead_letter", 1, 0));
        assert_eq!(task.dead_letter_reason.as_deref(), Some("the recording was deleted"));
        assert!(task.dead_letter_permanent);
        assert_eq!(scene.attempts(recording_id).await, ["dead_letter recording_deleted"]);
        assert_eq!(scene.stored(recording_id).await, 0);
    }
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_without_segments_is_tried_again_and_then_waits_for_a_person() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 0)]).await;
    let tree = scene.serve().await;
    scene.database.wait_until_settled(&tree).await;
    let task = scene.task(1).await;
    assert_eq!(task.summary(), ("dead_letter", 4, 0));
    assert!(task.dead_letter_reason.unwrap().starts_with("transcript missing"));
    assert!(task.dead_letter_permanent);
    assert_eq!(scene.attempts(1).await[..3], ["retry transcript_missing"; 3]);
    scene.end(tree).await;
}
