//! `search` as its user runs it.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::serving::serve;
use super::{calls_file, meeting};
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::program::{Ended, end_of, run};
use crate::harness::{TestDatabase, shared_recordings};

/// `search` over a test's database, with the built-in model.
fn search(database: &TestDatabase, args: &[&str]) -> Command {
    let mut command = database.program(&["search"]);
    command.args(args).env("EMBEDDING_MODEL", "local");
    command
}

/// `search` with the fake API.
fn ask(database: &TestDatabase, fake: &FakeOpenAi, args: &[&str]) -> Command {
    let mut command = database.program(&["search"]);
    command.args(args).env("OPENAI_BASE_URL", fake.base_url());
    command
}

/// Stores calls by the program and embeds them with the built-in model.
async fn embedded(database: &TestDatabase, calls: &[Value]) {
    let directory = tempfile::tempdir().unwrap();
    let path = calls_file(directory.path(), "calls.jsonl", calls);
    assert_eq!(run(&mut database.program(&["import", &path])).await.code, Some(0));
    let mut serve = database.program(&["serve", "--exit-when-idle"]);
    let served = run(serve.env("EMBEDDING_MODEL", "local")).await;
    assert_eq!(served.code, Some(0), "{served:?}");
}

fn answer(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_cannot_be_meant_is_wrong_use() {
    let database = TestDatabase::new().await;
    let long = "word ".repeat(20 * 1024);
    for (args, said) in [
        (&[][..], "QUERY"),
        (&[""], "the query is empty"),
        (&[" ", "\t"], "the query is empty"),
        (&[long.as_str()], "the query has 102400 bytes; at most 8192 are taken"),
        (&["x", "--limit", "0"], "0 is not in 1..=100"),
        (&["x", "--limit", "101"], "101 is not in 1..=100"),
        (&["x", "--since", "soon"], "a date such as 2024-05-31, or a time ago such as 7d"),
        (&["x", "--since", "9999999999999y"], "a date such as 2024-05-31"),
        (&["x", "--since", "300000y"], "a date such as 2024-05-31"),
        (&["x", "--recording", "first"], "invalid value 'first'"),
    ] {
        let ended = run(&mut search(&database, args)).await;
        assert_eq!(ended.code, Some(64), "{said}: {ended:?}");
        assert!(ended.stderr.contains(said), "{said}: {ended:?}");
        assert!(ended.stdout.is_empty() && ended.stderr.len() < 2_000, "{said}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_anything_is_embedded_it_says_what_to_run() {
    let bare = TestDatabase::bare().await;
    let refused = run(&mut search(&bare, &["budget"])).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("run `embedding-recovery migrate`"), "{refused:?}");

    let database = TestDatabase::new().await;
    let registered =
        "insert into embedding_models (name, dimensions) values ('local/minilm-256-v1', 256)";
    for statement in ["select 1", registered] {
        database.execute(statement).await;
        let early = run(&mut search(&database, &["budget", "--json"])).await;
        assert_eq!((early.code, early.stdout.as_str()), (Some(1), ""), "{early:?}");
        assert!(early.stderr.contains("error: nothing is embedded yet"), "{early:?}");
        assert!(early.stderr.contains("embedding-recovery serve --exit-when-idle"), "{early:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_are_printed_for_people_and_as_json() {
    let database = TestDatabase::new().await;
    let calls = [
        meeting(1, &["we must cut the budget", "how much is it?"]),
        meeting(2, &["the weather is nice", "is it?"]),
    ];
    embedded(&database, &calls).await;
    // Neither a key nor a model is needed: the database's own model is the default.
    let found = run(&mut database.program(&["search", "budgets", "cut", "--limit", "1"])).await;
    let expected = "\
1. Call 1
   1.00 · 2024-05-01 · at 00:00:00 · recording 1 · Ann

   Ann: we must *cut* the *budget* how much is it?
";
    assert_eq!((found.code, found.stdout.as_str()), (Some(0), expected), "{found:?}");
    assert_eq!(found.stderr, "");

    let json = run(&mut search(&database, &["--json", "budgets"])).await;
    let answer = answer(&json);
    assert_eq!(answer["words_only"], Value::Null);
    let hits = answer["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 2, "the other call is near to some degree: {json:?}");
    let first = serde_json::json!({
        "score": 1.0, "user_id": "default", "recording_id": 1, "chunk_index": 0, "title": "Call 1",
        "call_date": "2024-05-01T10:00:00Z", "speakers": ["Ann"], "timestamp_start": "00:00:00",
        "passage": [{"text": "Ann: we must cut the ", "matched": false}, {"text": "budget", "matched": true},
                    {"text": " how much is it?", "matched": false}]
    });
    assert_eq!(hits[0], first);

    for none in [&["budget", "--user", "nobody"][..], &["budget", "--since", "1h"]] {
        let ended = run(&mut search(&database, none)).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert_eq!(ended.stderr, "nothing found\n");
        let ended = run(search(&database, none).arg("--json")).await;
        assert_eq!(ended.code, Some(1));
        assert_eq!(ended.stdout, "{\"words_only\":null,\"exact_scan\":false,\"hits\":[]}\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_failure() {
    let database = TestDatabase::new().await;
    embedded(&database, &[meeting(1, &["the budget"])]).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = search(&database, &["budget"]).stdout(Stdio::from(writer)).spawn().unwrap();
    let ended = end_of(child).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_is_down_words_are_searched_and_it_says_so() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    let directory = tempfile::tempdir().unwrap();
    let path = calls_file(directory.path(), "calls.jsonl", &[meeting(1, &["the budget"])]);
    assert_eq!(run(&mut database.program(&["import", &path])).await.code, Some(0));
    assert_eq!(run(&mut serve(&database, &fake, &["--exit-when-idle"])).await.code, Some(0));
    let served = fake.requests().len();

    let found = run(&mut ask(&database, &fake, &["budget"])).await;
    assert_eq!((found.code, found.stderr.as_str()), (Some(0), ""), "{found:?}");
    assert_eq!(fake.requests().len(), served + 1, "one request, and no probe");

    fake.on(|_| true, Reply::error(401, "invalid_api_key", "Incorrect API key provided"));
    let found = run(&mut ask(&database, &fake, &["budget", "--json"])).await;
    assert_eq!(found.code, Some(0), "{found:?}");
    assert_eq!(answer(&found)["hits"][0]["recording_id"], 1);
    let warned = "warning: only words are searched, since the query cannot be embedded: the provider refuses the key";
    assert!(found.stderr.starts_with(warned), "{found:?}");
    assert!(answer(&found)["words_only"].as_str().unwrap().starts_with("the provider refuses"));

    let missed = run(&mut ask(&database, &fake, &["nowhere"])).await;
    assert_eq!(missed.code, Some(1), "{missed:?}");
    assert!(missed.stderr.contains("only words are searched"), "{missed:?}");

    let url = fake.base_url().to_owned();
    drop(fake);
    let found = run(search(&database, &["budget"])
        .env_remove("EMBEDDING_MODEL")
        .env("OPENAI_BASE_URL", url))
    .await;
    assert_eq!(found.code, Some(0), "{found:?}");
    assert!(found.stderr.contains("the provider is unavailable"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_than_the_databases_is_refused_with_the_way_out() {
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    let directory = tempfile::tempdir().unwrap();
    let path = calls_file(directory.path(), "calls.jsonl", &[meeting(1, &["the budget"])]);
    assert_eq!(run(&mut database.program(&["import", &path])).await.code, Some(0));
    assert_eq!(run(&mut serve(&database, &fake, &["--exit-when-idle"])).await.code, Some(0));
    let other_length = FakeOpenAi::start(9);
    for mut refused in [
        search(&database, &["budget"]),
        {
            let mut named = ask(&database, &fake, &["budget"]);
            named.env("EMBEDDING_MODEL", "another");
            named
        },
        {
            let mut sized = ask(&database, &fake, &["budget"]);
            sized.env("EMBEDDING_DIMENSIONS", "16");
            sized
        },
        ask(&database, &other_length, &["budget"]),
    ] {
        let ended = run(&mut refused).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        let said = "this database holds vectors of text-embedding-3-small with 8 dimensions, and you ask for ";
        assert!(ended.stderr.contains(said), "{ended:?}");
        let way_out = "Set EMBEDDING_MODEL=text-embedding-3-small and EMBEDDING_DIMENSIONS=8";
        assert!(ended.stderr.contains(way_out), "{ended:?}");
    }
    let keyless = run(&mut database.program(&["search", "budget"])).await;
    assert_eq!(keyless.code, Some(64), "{keyless:?}");
    assert!(keyless.stderr.contains("no API key: set OPENAI_API_KEY"), "{keyless:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oxygen_tank_is_found_in_apollo_13() {
    let Some(recordings) = shared_recordings() else { return };
    let database = TestDatabase::new().await;
    let recordings = recordings.to_str().unwrap();
    assert_eq!(run(&mut database.program(&["import", recordings])).await.code, Some(0));
    let mut serve = database.program(&["serve", "--exit-when-idle"]);
    assert_eq!(run(serve.env("EMBEDDING_MODEL", "local")).await.code, Some(0));
    let found = run(&mut search(&database, &["oxygen tank pressure problem"])).await;
    assert_eq!(found.code, Some(0), "{found:?}");
    assert!(found.stdout.starts_with("1. Apollo 13"), "{}", found.stdout);
    let narrowed = ["oxygen tank pressure problem", "--speaker", "lovell", "--json"];
    let hits = answer(&run(&mut search(&database, &narrowed)).await);
    let hits = hits["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 5);
    for hit in hits {
        assert!(hit["speakers"].to_string().contains("Jim Lovell"), "{hit}");
    }
}
