//! Services while the model changes: those of the old one go over, those of the next one join.

use embedding_recovery::ports::Model;

use super::reembedding::{MORE, OLD, embedded, reembed, searchable};
use super::serving::serve;
use crate::fakes::openai::FakeOpenAi;
use crate::harness::calls::call;
use crate::harness::program::{end_of, run, signal};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_goes_over_to_the_new_model_by_itself() {
    let database = embedded(2).await;
    let fake = FakeOpenAi::start(8);
    let service = serve(&database, &fake, &[]).spawn().unwrap();
    database.import(&[call(3, 3)]).await;
    database.wait_until("select count(distinct recording_id) = 3 from searchable_chunks").await;
    let to = ["--model", OLD, "--dimensions", "16", "--yes"];
    let done = run(&mut reembed(&database, &fake, &to)).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(searchable(&database).await, format!("{OLD}@16 3"));
    database.import(&[call(4, 3)]).await;
    database.wait_until("select count(distinct recording_id) = 4 from searchable_chunks").await;
    assert_eq!(searchable(&database).await, format!("{OLD}@16 4"));
    signal(&service, "TERM").await;
    let ended = end_of(service).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("another model took its place"), "{ended:?}");
    let settings = format!("set EMBEDDING_MODEL={OLD} and EMBEDDING_DIMENSIONS=16");
    assert!(ended.stderr.contains(&settings), "{ended:?}");
    database.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_set_to_the_next_model_joins_and_search_stays_on_the_old_one() {
    let database = embedded(3).await;
    let fake = FakeOpenAi::start(MORE);
    let next = Model { name: "big".into(), dimensions: MORE as u32 };
    database.store.begin_reembedding(&next).await.unwrap();
    let mut joining = serve(&database, &fake, &["--exit-when-idle"]);
    let joined = run(joining.env("EMBEDDING_MODEL", "big")).await;
    assert_eq!(joined.stdout, "done: 3 completed, 0 dead letters, 0 open\n", "{joined:?}");
    assert_eq!(searchable(&database).await, format!("{OLD} 3"));
    let bought = fake.bought().len();
    let done = run(&mut reembed(&database, &fake, &["--model", "big", "--yes"])).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.stdout.contains("\n0 of 3 recordings to embed: about 0 chunks, 0 tokens\n"),
        "{done:?}"
    );
    assert_eq!(fake.bought().len(), bought + 1, "a probe only");
    assert_eq!(searchable(&database).await, "big 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_next_model_is_cancelled_ends_and_says_why() {
    let database = embedded(1).await;
    let fake = FakeOpenAi::start(MORE);
    let next = Model { name: "big".into(), dimensions: MORE as u32 };
    database.store.begin_reembedding(&next).await.unwrap();
    let service = serve(&database, &fake, &[]).env("EMBEDDING_MODEL", "big").spawn().unwrap();
    database
        .wait_until("select count(*) = 1 from chunk_sets where model = 'big' and state = 'current'")
        .await;
    assert_eq!(run(&mut database.program(&["reembed", "--cancel"])).await.code, Some(0));
    let ended = end_of(service).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.starts_with("cannot go on: the re-embedding with big was cancelled"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_model_takes_over_without_a_key_and_services_follow_to_it() {
    let database = embedded(2).await;
    let done = run(&mut database.program(&["reembed", "--model", "local", "--yes"])).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(searchable(&database).await, "local/minilm-256-v1 2");
    let fake = FakeOpenAi::start(8);
    database.import(&[call(3, 3)]).await;
    let served = run(&mut serve(&database, &fake, &["--exit-when-idle"])).await;
    assert_eq!(served.code, Some(0), "{served:?}");
    assert!(served.stderr.contains("follows it: set EMBEDDING_MODEL=local"), "{served:?}");
    assert_eq!(searchable(&database).await, "local/minilm-256-v1 3");
    assert!(fake.requests().is_empty(), "the old provider is not even asked");
    // Back to a provider that cannot be reached without a key.
    let back = ["--model", "big", "--yes"];
    let back = run(&mut reembed(&database, &FakeOpenAi::start(MORE), &back)).await;
    assert_eq!(back.code, Some(0), "{back:?}");
    let mut keyless = database.program(&["serve", "--exit-when-idle"]);
    let refused = run(keyless.env("EMBEDDING_MODEL", "local")).await;
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(
        refused.stderr.contains("set EMBEDDING_MODEL=big and EMBEDDING_DIMENSIONS=16"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("no API key"), "{refused:?}");
}
