//! `search`: one statement that takes every query, finds by words and by meaning, and goes through the
//! index.

use embedding_recovery::postgres::{Hit, SearchMode, SearchRequest};

use super::*;

/// A search by words alone.
fn words(query: &str) -> SearchRequest {
    SearchRequest {
        text: query.into(),
        embedding: None,
        user_id: None,
        recording_id: None,
        since: None,
        speaker: None,
        limit: 10,
        mode: SearchMode::Hybrid,
    }
}

/// A search by words and by the vector that the chunk of `text` has.
fn hybrid(query: &str, text: &str) -> SearchRequest {
    SearchRequest { embedding: row(0, text).embedding, ..words(query) }
}

async fn search(database: &TestDatabase, request: &SearchRequest) -> Vec<Hit> {
    database.store.search(request).await.unwrap()
}

fn joined(hit: &Hit) -> String {
    hit.passage.iter().map(|span| span.text.as_str()).collect()
}

fn matched(hit: &Hit) -> Vec<&str> {
    hit.passage.iter().filter(|span| span.matched).map(|span| span.text.as_str()).collect()
}

async fn found(database: &TestDatabase, request: &SearchRequest) -> Vec<String> {
    search(database, request).await.iter().map(joined).collect()
}

#[tokio::test]
async fn no_query_is_an_error_of_the_database() {
    let database = database().await;
    import_and_embed(&database, 1, &["the tank's pressure & <b>more</b> | less !"]).await;
    for query in [
        "",
        " \t\n",
        "the of and to",
        "会議の予算",
        "🙂 🙂",
        "... ?!",
        "\"unbalanced quote",
        "it's",
        "a & b | !c <-> (d",
        ":* tank:*",
        "back\\slash \\' 'quote''s",
        "nul \0 nul",
        "\u{2}\u{3}\u{feff}",
        "$1 %s -- ; drop table x",
        "https://example.com/a?b=c&d=e me@example.com 1.5e10 -7",
        &"word ".repeat(1_600),
        &(0..1_300).map(|n| format!("w{n} ")).collect::<String>(),
        &"x".repeat(8_000),
    ] {
        for mode in [SearchMode::Hybrid, SearchMode::Vector, SearchMode::Text] {
            let by_words = database.store.search(&SearchRequest { mode, ..words(query) }).await;
            assert!(by_words.is_ok(), "{query:?} in {mode:?}: {by_words:?}");
            let both = SearchRequest { mode, ..hybrid(query, "x") };
            assert!(database.store.search(&both).await.is_ok(), "{query:?} in {mode:?}");
        }
    }
    assert_eq!(search(&database, &words("TANKS")).await.len(), 1);
    assert_eq!(search(&database, &words("the of")).await, []);
}

#[tokio::test]
async fn nothing_is_found_where_nothing_was_embedded() {
    let database = TestDatabase::new().await;
    assert_eq!(search(&database, &words("budget")).await, []);
    assert_eq!(search(&database, &hybrid("budget", "budget")).await, []);
    assert!(!database.store.has_searchable_chunks().await.unwrap());
    database.import(&[call(1, &["the budget"])]).await;
    assert_eq!(search(&database, &words("budget")).await, []);
}

#[tokio::test]
async fn a_question_finds_what_has_most_of_its_words_and_the_rare_word_counts_most() {
    let database = database().await;
    let most = "We saw that the oxygen tank lost pressure.";
    let rare = "Oxygen is what we breathe.";
    let common =
        ["The tank is full.", "The tank is empty.", "The tank is new.", "The tank is red."];
    let texts = [&[most, rare][..], &common].concat();
    import_and_embed(&database, 1, &texts).await;
    let hits = search(&database, &words("Why did the pressure in the oxygen tank fall?")).await;
    let found: Vec<String> = hits.iter().map(joined).collect();
    assert_eq!(found[..2], [most, rare]);
    assert_eq!(found.len(), 6);
    assert_eq!(matched(&hits[0]), ["oxygen", "tank", "pressure"]);
    assert_eq!(matched(&hits[1]), ["Oxygen"]);
    assert!(hits.windows(2).all(|pair| pair[0].score > pair[1].score), "{hits:?}");
}

#[tokio::test]
async fn the_first_by_words_and_by_meaning_has_score_1_and_either_alone_is_found() {
    let database = database().await;
    let texts = ["a red apple", "a green pear", "a yellow plum"];
    import_and_embed(&database, 1, &texts).await;
    let both = search(&database, &hybrid("apple", texts[0])).await;
    assert_eq!((joined(&both[0]).as_str(), both[0].score), (texts[0], 1.0));
    assert_eq!(both.len(), 3, "every chunk is near to some degree");

    let crossed = search(&database, &hybrid("apple", texts[1])).await;
    let first_two: Vec<String> = crossed[..2].iter().map(joined).collect();
    assert_eq!(first_two, texts[..2], "of two alike, the one with the words is first");
    assert!(crossed[0].score < 1.0, "{crossed:?}");

    let by =
        async |mode| found(&database, &SearchRequest { mode, ..hybrid("apple", texts[1]) }).await;
    assert_eq!(by(SearchMode::Text).await, [texts[0]]);
    assert_eq!(by(SearchMode::Vector).await[0], texts[1]);
    let limited = SearchRequest { limit: 1, ..hybrid("apple", texts[0]) };
    assert_eq!(found(&database, &limited).await, [texts[0]]);
}

#[tokio::test]
async fn filters_hold_for_words_and_for_vectors() {
    let database = database().await;
    let text = "the budget of the year";
    for (user, recording_id, speaker, date) in [
        ("ann", 1, "Ann O'Neil", "2024-05-01"),
        ("ann", 2, "Bob 100%", "2024-06-01"),
        ("bob", 1, "Cy", "2024-07-01"),
    ] {
        let key = user_key(user, recording_id);
        database.import(&[ImportedRecording { key, ..super::call(recording_id, &[text]) }]).await;
        let task = claim_one(&database).await;
        let attempt = Attempt::begin(&database, task, &[text]).await.unwrap();
        let rows = [ChunkRow { speakers: vec![speaker.into()], ..row(0, text) }];
        attempt.insert(&database, &rows).await.unwrap();
        attempt.complete(&database).await.unwrap();
        database
            .execute(&format!(
                "update transcript_chunks set call_date = '{date}Z' where user_id = '{user}' and recording_id = {recording_id}"
            ))
            .await;
    }
    let all = || hybrid("budget", text);
    let speaker = |name: &str| SearchRequest { speaker: Some(name.into()), ..all() };
    let user = |name: &str| SearchRequest { user_id: Some(name.into()), ..all() };
    let recording = |id| SearchRequest { recording_id: Some(id), ..all() };
    let since = |date: &str| SearchRequest { since: date.parse().ok(), ..all() };
    for (request, expected) in [
        (all(), vec!["ann1", "ann2", "bob1"]),
        (user("ann"), vec!["ann1", "ann2"]),
        (user("nobody"), vec![]),
        (recording(1), vec!["ann1", "bob1"]),
        (SearchRequest { user_id: Some("bob".into()), ..recording(1) }, vec!["bob1"]),
        (recording(-1), vec![]),
        (since("2024-06-01T00:00:00Z"), vec!["ann2", "bob1"]),
        (speaker("o'nEIL"), vec!["ann1"]),
        (speaker("100%"), vec!["ann2"]),
        (speaker("%"), vec!["ann2"]),
        (speaker("_"), vec![]),
    ] {
        for mode in [SearchMode::Hybrid, SearchMode::Vector, SearchMode::Text] {
            let request = SearchRequest { mode, ..request.clone() };
            let hits = search(&database, &request).await;
            let mut found: Vec<String> =
                hits.iter().map(|hit| format!("{}{}", hit.user_id, hit.recording_id)).collect();
            found.sort();
            assert_eq!(found, expected, "{request:?}");
        }
    }
}

#[tokio::test]
async fn a_passage_is_the_whole_chunk_whatever_it_holds() {
    let database = database().await;
    let text = "Ann: <b>Tanks</b> & tank-like, 'tank'; http://tank.example/tank?a=b\u{1}&c &amp; H<sub>2</sub>\nBob: x\ttank";
    import_and_embed(&database, 1, &[text]).await;
    let hits = search(&database, &words("tank")).await;
    assert_eq!(joined(&hits[0]), text);
    assert!(matched(&hits[0]).len() >= 3, "{hits:?}");
    assert!(matched(&hits[0]).iter().all(|word| word.to_lowercase().contains("tank")), "{hits:?}");
    assert_eq!(hits[0].title.as_deref(), Some("Call 1"));
    assert_eq!(hits[0].speakers, ["Ann", "Bob \"B\" \\ {x,y}"]);
    assert_eq!(hits[0].timestamp_start.as_deref(), Some("00:00:00"));
    assert_eq!(hits[0].call_date, "2024-05-01T10:00:00Z".parse().ok());

    let forged = "marks \u{2}of\u{3} a \u{3}forger\u{2}";
    import_and_embed(&database, 2, &[forged]).await;
    let hits = search(&database, &words("forgers")).await;
    assert_eq!(
        (joined(&hits[0]).as_str(), matched(&hits[0])),
        ("marks of a forger", vec!["forger"])
    );
}

#[tokio::test]
async fn what_an_edit_took_out_is_not_found_any_more() {
    let database = database().await;
    import_and_embed(&database, 1, &["the old budget"]).await;
    import_and_embed(&database, 1, &["the new plan"]).await;
    assert_eq!(search(&database, &words("budget")).await, []);
    assert_eq!(found(&database, &hybrid("plan", "the old budget")).await, ["the new plan"]);
}
