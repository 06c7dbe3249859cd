//! Why a recording is where it is, and the dead letters beyond the first look, on the page in a real
//! browser.

use chrono::{Duration, Utc};
use embedding_recovery::ports::inspector::{AttemptRecord, DeadLetterGroup, DeadLetters};
use embedding_recovery::ports::operator::Part;
use serde_json::json;
use uuid::Uuid;

use super::looks::{away, explanation};
use super::page::busy;
use super::{Api, READ_TOKEN};
use crate::fakes::operations::dead_letter;
use crate::harness::browser::Browser;
use crate::harness::eventually;

const ESCAPE: &str = "\u{e00c}";
const TITLE: &str = "[data-key='explain-dead-8801442-ada']";
const FOCUSED: &str = "document.activeElement.dataset.key ?? document.activeElement.id";

fn attempt(number: u32, trace_id: Option<&str>) -> AttemptRecord {
    AttemptRecord {
        number,
        part: Part::Main,
        started_at: Utc::now() - Duration::minutes(18),
        took_secs: Some(20.0),
        outcome: Some("dead_letter".into()),
        failure_class: Some("statement_timeout".into()),
        message: Some("a statement ran into <b>statement_timeout</b>".into()),
        trace_id: trace_id.map(Into::into),
        worker_id: Uuid::from_u128(7),
        tokens: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_explains_a_recording_and_escape_leads_back_to_where_it_was() {
    let Some(browser) = Browser::open().await else { return };
    let api = Api::open().await;
    busy(&api.operations);
    let mut told = explanation("ada", 8_801_442);
    told.attempts = vec![attempt(1, None), attempt(2, Some("4bf92f35"))];
    api.operations.state().explanations = vec![told];
    browser.client.goto(&api.url("/")).await.unwrap();
    browser.find(TITLE).await.send_keys("\n").await.unwrap();
    for text in [
        "Quarterly review",
        "Recording 8801442 of ada",
        "Dead letter",
        "the next recovery",
        "embedding-recovery recover 8801442",
        "62 of 190 chunks stored, 0 searchable",
        "31,000 tokens by attempts that completed",
        "a statement ran into <b>statement_timeout</b>",
    ] {
        browser.shows("#why", text).await;
    }
    assert_eq!(browser.value(FOCUSED).await, "why-title");
    let said = "document.querySelector('#why-said').textContent";
    assert_eq!(browser.value(said).await, "Dead letter. Waits for: the next recovery");
    let link = "document.querySelector('#why a').href";
    assert_eq!(browser.value(link).await, "https://traces.example/4bf92f35");

    // It follows what happens, and says where it cannot.
    api.operations.state().explanations[0].state = Some("processing".into());
    api.operations.state().explanations[0].waits_for = "its worker".into();
    eventually("the change is said", async || {
        browser.value(said).await == "Processing. Waits for: its worker"
    })
    .await;
    api.operations.state().failure = Some(away());
    browser.shows("#why-stale", "This is the last that was known").await;
    assert!(browser.text("#why-told").await.contains("its worker"), "it went blank");
    api.operations.state().failure = None;
    eventually("it is known again", async || browser.text("#why-stale").await.is_empty()).await;

    browser.find("#why-close").await.send_keys(ESCAPE).await.unwrap();
    eventually("closed", async || browser.value(FOCUSED).await == TITLE[11..TITLE.len() - 2]).await;
    assert!(!browser.find("#why").await.is_displayed().await.unwrap());
    // A browser's own note of each answer that is no 200 is no complaint of the page.
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|line| line.contains("503")), "{complaints:?}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_typed_is_explained_whoever_holds_it_and_whatever_is_typed() {
    let Some(browser) = Browser::open().await else { return };
    let api = Api::locked().await;
    busy(&api.operations);
    api.operations.state().explanations =
        vec![explanation("ada", 7), explanation("bob", 7), explanation("bob", 8)];
    browser.client.goto(&api.url("/")).await.unwrap();
    browser.find("#token").await.send_keys(&format!("{READ_TOKEN}\n")).await.unwrap();
    browser.shows("#link", "Live").await;
    browser.find("#seek-id").await.send_keys("8\n").await.unwrap();
    browser.shows("#why", "Recording 8 of bob").await;
    browser.find("#why-close").await.click().await.unwrap();
    eventually("the focus is back", async || browser.value(FOCUSED).await == "seek-id").await;

    for (typed, said) in [("9", "no recording 9 is stored"), ("9999999999999999999", "Bad Request")]
    {
        browser.find("#seek-id").await.clear().await.unwrap();
        browser.find("#seek-id").await.send_keys(&format!("{typed}\n")).await.unwrap();
        browser.shows("#said", said).await;
    }

    browser.find("#seek-id").await.clear().await.unwrap();
    browser.find("#seek-id").await.send_keys("7\n").await.unwrap();
    browser.find("#whose-users button[value=bob]").await.click().await.unwrap();
    browser.shows("#why", "Recording 7 of bob").await;
    // On a phone all of it fits.
    browser.client.set_window_size(390, 844).await.unwrap();
    let wide = "[...document.querySelectorAll('#why *, header *')].filter((node) => !node.closest('.scroll table') && \
                node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.outerHTML.slice(0, 80))";
    assert_eq!(browser.value(wide).await, json!([]), "wider than the phone");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_beyond_the_first_look_are_paged_and_stay_up_to_date() {
    let Some(browser) = Browser::open().await else { return };
    let api = Api::open().await;
    let rows: Vec<_> = (1..=120).map(|id| dead_letter(id, &format!("Call {id}"))).collect();
    let group = DeadLetterGroup {
        fingerprint: rows[0].fingerprint.clone(),
        failure_class: None,
        example: rows[0].last_error.clone(),
        count: 120,
        recording_ids: (1..=10).collect(),
        permanent: 0,
        tried_recently: 0,
        chunks: 0,
        chunks_stored: 0,
        oldest_at: None,
        next_attempt_at: None,
    };
    api.operations.state().dead_letters = DeadLetters { total: 120, groups: vec![group], rows };
    browser.client.goto(&api.url("/")).await.unwrap();
    browser.shows(".pager", "50 of 120 shown").await;
    browser.find(".pager button").await.click().await.unwrap();
    browser.shows(".pager", "1 to 50 of 120").await;
    for range in ["51 to 100 of 120", "101 to 120 of 120"] {
        browser.find("[data-key^='page-on']").await.click().await.unwrap();
        browser.shows(".pager", range).await;
    }
    browser.find("[data-key='recover-120-ada']").await.click().await.unwrap();
    browser.shows("#said", "queued for recovery").await;
    let focused = browser.value(FOCUSED).await;
    assert_eq!(focused, "recover-120-ada", "the focus stays over redraws");
    {
        // Most are recovered: the page that is open is no more.
        let mut state = api.operations.state();
        state.dead_letters.rows.truncate(70);
        state.dead_letters.total = 70;
        state.dead_letters.groups[0].count = 70;
    }
    browser.shows(".pager", "51 to 70 of 70").await;
    browser.find("[data-key^='page-back']").await.click().await.unwrap();
    browser.shows(".pager", "1 to 50 of 70").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}
