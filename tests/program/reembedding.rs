//! `reembed`: the cost first, then all the way, however often it is interrupted.

use std::collections::HashSet;
use std::time::Duration;

use tokio::process::Command;

use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply, hash_of};
use crate::harness::calls::call;
use crate::harness::program::{end_of, run, signal};
use crate::harness::{TestDatabase, eventually};

/// The new model's vectors are longer, so that none can be taken for the old one's.
pub(super) const MORE: usize = 16;

/// `reembed` over a test's database and the fake API, with short waits.
pub(super) fn reembed(database: &TestDatabase, fake: &FakeOpenAi, more: &[&str]) -> Command {
    let mut command = database.program(&["reembed", "--retry-delays", "50ms,50ms,50ms"]);
    command.args(more).env("OPENAI_BASE_URL", fake.base_url()).env("OPENAI_API_KEY", "sk-test-key");
    command
}

/// Recordings of three chunks each, embedded with the old model.
pub(super) async fn embedded(recordings: i64) -> TestDatabase {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    let calls: Vec<_> = (1..=recordings).map(|id| call(id, 3)).collect();
    database.import(&calls).await;
    assert_eq!(run(&mut serve(&database, &fake, &["--exit-when-idle"])).await.code, Some(0));
    database
}

/// Whether the inputs are of this call.
fn is_call(recording_id: i64) -> impl Fn(&[String]) -> bool {
    let text = format!("call{recording_id}turn");
    move |inputs| inputs.iter().any(|input| input.contains(&text))
}

/// Models whose chunks search sees, and of how many recordings.
pub(super) async fn searchable(database: &TestDatabase) -> String {
    database
        .value("select concat_ws(' ', string_agg(distinct embedding_model, ' '), count(distinct recording_id))
                from searchable_chunks")
        .await
}

pub(super) const OLD: &str = "text-embedding-3-small";

#[tokio::test(flavor = "multi_thread")]
async fn the_cost_is_told_first_and_yes_goes_all_the_way() {
    let database = embedded(3).await;
    let fake = FakeOpenAi::start(MORE);
    let told = run(&mut reembed(&database, &fake, &["--model", "big"])).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.starts_with("from text-embedding-3-small (8 dimensions)\nto big (16 dimensions)\n3 of 3 recordings to embed: about 9 chunks, "), "{told:?}");
    assert!(told.stdout.ends_with("nothing was changed; add --yes to begin\n"), "{told:?}");
    assert_eq!(fake.bought().len(), 1, "a probe only");
    assert_eq!(database.value::<i64>("select count(*) from embedding_models").await, 1);

    // One that the old model does not have is waited for too.
    database.import(&[call(4, 3)]).await;
    fake.on(is_call(4), Reply::Delay(Duration::from_millis(1_500)));
    let done = run(&mut reembed(&database, &fake, &["--model", "big", "--yes"])).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("done: search is on big now; 12 chunks, "), "{done:?}");
    assert_eq!(searchable(&database).await, "big 4");
    let left = "select (select count(*) from transcript_chunks where embedding_model <> 'big')
        + (select count(*) from pg_indexes where indexdef like '%hnsw%' and indexdef not like '%big%')";
    assert_eq!(database.value::<i64>(left).await, 0, "nothing of the old model is left");
    let indexes = "select count(*) from pg_indexes where indexdef like '%hnsw%halfvec(16)%big%'";
    assert_eq!(database.value::<i64>(indexes).await, 1);
    database.assert_sound().await;

    let again = run(&mut reembed(&database, &fake, &["--model", "big", "--yes"])).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(
        again.stderr.contains("search is on big with 16 dimensions already: nothing to do"),
        "{again:?}"
    );

    // A service that is still set to the old model follows, and says what to set.
    database.import(&[call(5, 3)]).await;
    let served = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(served.code, Some(0), "{served:?}");
    assert!(
        served.stderr.contains("set EMBEDDING_MODEL=big and EMBEDDING_DIMENSIONS=16"),
        "{served:?}"
    );
    assert_eq!(searchable(&database).await, "big 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_begin_is_refused_before_anything_is_written() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(MORE);
    let nothing = run(&mut reembed(&database, &fake, &["--model", "big", "--yes"])).await;
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    assert!(nothing.stderr.contains("nothing was embedded yet"), "{nothing:?}");
    let nothing = run(&mut reembed(&database, &fake, &["--cancel"])).await;
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    assert!(nothing.stderr.contains("nothing to cancel"), "{nothing:?}");
    for wrong in
        [&[][..], &["--cancel", "--model", "big"], &["--model", "local", "--dimensions", "8"]]
    {
        assert_eq!(run(&mut reembed(&database, &fake, wrong)).await.code, Some(64), "{wrong:?}");
    }
    let database = embedded(1).await;
    fake.script([Reply::error(404, "model_not_found", "The model `bog` does not exist")]);
    let unknown = run(&mut reembed(&database, &fake, &["--model", "bog", "--yes"])).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("refuses the key or the model"), "{unknown:?}");
    assert_eq!(database.value::<i64>("select count(*) from embedding_models").await, 1);
    let mut bare = database.program(&["reembed", "--model", "big"]);
    assert_eq!(run(&mut bare).await.code, Some(64), "no key");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_and_run_twice_at_once_it_buys_nothing_twice() {
    let database = embedded(12).await;
    let fake = FakeOpenAi::start(MORE);
    fake.on(|inputs| inputs.len() > 1, Reply::Delay(Duration::from_millis(100)));
    let patient = ["--model", "big", "--yes", "--lease-secs", "2", "--claim-batch", "2"];
    let child = reembed(&database, &fake, &patient).spawn().unwrap();
    database
        .wait_until(
            "select count(*) >= 4 from chunk_sets where model = 'big' and state = 'current'",
        )
        .await;
    signal(&child, "KILL").await;
    assert_eq!(end_of(child).await.code, None, "it was killed");
    assert_eq!(searchable(&database).await, format!("{OLD} 12"));
    let told = run(&mut reembed(&database, &fake, &["--model", "big"])).await;
    assert!(told.stdout.ends_with("nothing was changed; add --yes to go on\n"), "{told:?}");
    assert!(!told.stdout.contains("12 of 12"), "{told:?}");

    let (mut one, mut other) =
        (reembed(&database, &fake, &patient), reembed(&database, &fake, &patient));
    for ended in <[_; 2]>::from(tokio::join!(run(&mut one), run(&mut other))) {
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("done: search is on big now"), "{ended:?}");
    }
    assert_eq!(searchable(&database).await, "big 12");
    let probe = hash_of(embedding_recovery::embedders::openai::PROBE_TEXT);
    let bought: Vec<u64> = fake.bought_hashes().into_iter().filter(|hash| *hash != probe).collect();
    // Only what was on its way when it was killed: two recordings at once, of three chunks.
    let twice = bought.len() - bought.iter().collect::<HashSet<_>>().len();
    assert!(bought.len() >= 36 && twice <= 6, "{twice} of {} bought twice", bought.len());
    let workers = "select count(distinct a.worker_id) from embedding_attempts a
        join embedding_queue q on q.id = a.task_id where q.for_model = 'big'";
    assert_eq!(database.value::<i64>(workers).await, 3, "the two shared the work");
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_is_refused_meanwhile_and_a_cancel_ends_the_run() {
    let database = embedded(4).await;
    let fake = FakeOpenAi::start(MORE);
    let yes = ["--model", "big", "--yes"];
    let child = reembed(&database, &fake, &yes).spawn().unwrap();
    eventually("it embeds", async || fake.requests().len() > 1).await;
    fake.hold();
    database.import(&[call(9, 3)]).await;
    let held = FakeOpenAi::start(32);
    let refused = run(&mut reembed(&database, &held, &["--model", "bigger", "--yes"])).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("a re-embedding with big (16 dimensions) is under way"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("reembed --cancel"), "{refused:?}");
    let cancelled = run(&mut database.program(&["reembed", "--cancel"])).await;
    assert_eq!(cancelled.code, Some(0), "{cancelled:?}");
    assert!(cancelled.stdout.starts_with("cancelled: search stays as it is"), "{cancelled:?}");
    let ended = end_of(child).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.ends_with("cancelled elsewhere: search stays as it is\n"), "{ended:?}");
    assert_eq!(searchable(&database).await, format!("{OLD} 4"));
    let left = "select (select count(*) from chunk_sets where model = 'big')
        + (select count(*) from embedding_queue where for_model = 'big' and status <> 'completed')";
    assert_eq!(database.value::<i64>(left).await, 0);
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_gives_its_leases_back_and_says_how_to_go_on() {
    let database = embedded(3).await;
    let fake = FakeOpenAi::start(MORE);
    fake.on(|inputs| inputs.len() > 1, Reply::Hang);
    let child =
        reembed(&database, &fake, &["--model", "big", "--yes", "--grace-secs", "0"]).spawn();
    let child = child.unwrap();
    database
        .wait_until("select count(*) = 3 from embedding_queue where status = 'processing'")
        .await;
    signal(&child, "TERM").await;
    let ended = end_of(child).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("stopped: 0 of 3 recordings have big\n"), "{ended:?}");
    assert!(
        ended.stdout.contains("the same command goes on; `embedding-recovery reembed --cancel`"),
        "{ended:?}"
    );
    let given_back = "select count(*) from embedding_queue
        where for_model = 'big' and status = 'pending' and attempts = 0";
    assert_eq!(database.value::<i64>(given_back).await, 3);
    assert_eq!(searchable(&database).await, format!("{OLD} 3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_that_the_new_model_refuses_hold_it_up_until_they_are_left() {
    let database = embedded(3).await;
    let fake = FakeOpenAi::start(MORE);
    fake.on(
        |inputs| inputs.iter().any(|input| input.contains("call2turn1 ")),
        Reply::error(400, "invalid_value", "this input is refused"),
    );
    let held_up = run(&mut reembed(&database, &fake, &["--model", "big", "--yes"])).await;
    assert_eq!(held_up.code, Some(1), "{held_up:?}");
    assert!(held_up.stdout.contains("held up: big failed on 1 of the recordings"), "{held_up:?}");
    assert!(
        held_up
            .stdout
            .contains("\n  recording 2 of user alice: chunk 1 is refused by the provider"),
        "{held_up:?}"
    );
    assert!(held_up.stdout.contains("--leave-dead"), "{held_up:?}");
    assert_eq!(searchable(&database).await, format!("{OLD} 3"));
    let enqueued = run(&mut database.program(&["enqueue", "--recording", "2"])).await;
    assert_eq!(enqueued.code, Some(0), "{enqueued:?}");
    let left = ["--model", "big", "--yes", "--leave-dead"];
    let left = run(&mut reembed(&database, &fake, &left)).await;
    assert_eq!(left.code, Some(0), "{left:?}");
    assert_eq!(searchable(&database).await, "big 2");
    database.assert_sound().await;
}
