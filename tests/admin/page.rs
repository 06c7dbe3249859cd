//! The page in a real Chromium: what an operator sees, clicks, and is refused.

use chrono::{Duration, Utc};
use embedding_recovery::ports::inspector::*;
use embedding_recovery::ports::operator::{Part, Refusal};
use uuid::Uuid;

use super::looks::away;
use super::{ADMIN_TOKEN, Api, READ_TOKEN};
use crate::fakes::operations::{FakeOperations, dead_letter, quiet};
use crate::harness::browser::Browser;
use crate::harness::eventually;

/// A service with something of everything.
pub(super) fn busy(operations: &FakeOperations) {
    let now = Utc::now();
    let worker_id = Uuid::from_u128(7);
    let mut overview = Overview {
        retry_ready: 2,
        oldest_waiting_secs: Some(187.0),
        dead_letters_permanent: 1,
        next_recovery_at: Some(now + Duration::minutes(42)),
        chunks_last_hour: 18_412,
        completed_last_hour: 241,
        last_completed_at: Some(now - Duration::seconds(9)),
        drain_per_minute: 3.4,
        empty_in_secs: Some(2_280.0),
        first_pass: SuccessRate { tried: 4_102, succeeded: 4_021 },
        recovery: SuccessRate { tried: 38, succeeded: 31 },
        ..quiet()
    };
    overview.tasks.pending = 128;
    overview.tasks.processing = 3;
    overview.tasks.failed = 5;
    overview.tasks.completed = 48_213;
    overview.tasks.dead_letter = 4;
    let worker = |host: &str, trouble: Option<&str>| Worker {
        id: worker_id,
        host: host.into(),
        version: "0.1.0".into(),
        model: "text-embedding-3-small".into(),
        started_at: now - Duration::hours(31),
        slots: 10,
        in_flight: 3,
        provider_trouble: trouble.map(Into::into),
        database_trouble: None,
        provider_paused_until: None,
        provider_asked_at: trouble.map(|_| now + Duration::seconds(48)),
    };
    overview.workers = vec![
        worker("embed-0", None),
        worker("embed-1", Some("rate limited by the provider for 60 s")),
    ];
    overview.workers[0].provider_paused_until = Some(now + Duration::seconds(20));
    let flying = |recording_id, title: &str, chunks: Option<(u32, u32)>| InFlightRecording {
        user_id: "ada".into(),
        recording_id,
        title: Some(title.into()),
        part: Part::Main,
        attempt: 1,
        running_secs: 34.0,
        chunks_stored: chunks.map(|(stored, _)| stored),
        chunks: chunks.map(|(_, chunks)| chunks),
        worker_id,
        lease_ends_at: now + Duration::seconds(86),
    };
    overview.in_flight = vec![
        flying(9_120_331, "Onboarding, Hartmann AG", Some((143, 190))),
        flying(9_120_334, "Weekly pipeline review", Some((12, 61))),
        flying(9_120_340, "Quarterly planning", None),
    ];
    overview.schedules = vec![ScheduleState {
        name: "reconcile text-embedding-3-small".into(),
        cron: Some("*/5 * * * *".into()),
        last_tick: None,
        next_tick: Some(now + Duration::minutes(4)),
    }];
    overview.pauses =
        vec![Pause { part: Part::Recovery, since: now - Duration::minutes(11), by: "ada".into() }];
    let error = "the provider refuses this chunk: maximum context length is 8192 tokens";
    let refused = DeadLetter {
        permanent: true,
        next_attempt_at: None,
        last_error: error.into(),
        fingerprint: "chunk_refused: maximum context length is # tokens".into(),
        ..dead_letter(8_800_014, "Board call <script>alert(1)</script>")
    };
    let rows = vec![
        dead_letter(8_801_442, "All hands, May"),
        dead_letter(8_801_507, "Support escalation 4411"),
        dead_letter(8_802_010, "Eight-hour workshop"),
        refused,
    ];
    let group = |row: &DeadLetter, count, permanent| DeadLetterGroup {
        fingerprint: row.fingerprint.clone(),
        failure_class: None,
        example: row.last_error.clone(),
        count,
        recording_ids: vec![row.recording_id],
        permanent,
        tried_recently: 0,
        chunks: 570,
        chunks_stored: 186,
        oldest_at: Some(now - Duration::hours(5)),
        next_attempt_at: row.next_attempt_at,
    };
    let groups = vec![group(&rows[0], 3, 0), group(&rows[3], 1, 1)];
    let mut state = operations.state();
    state.overview = Some(overview);
    state.dead_letters = DeadLetters { total: 4, groups, rows };
    state.jobs = vec![Job {
        id: worker_id,
        created_at: now - Duration::hours(2),
        requested_by: Some("import".into()),
        tasks: 2_000,
        completed: 1_871,
        dead_letter: 3,
    }];
    state.runs = vec![Run {
        id: worker_id,
        part: Part::Recovery,
        cause: "schedule".into(),
        started_at: now - Duration::minutes(18),
        ended_at: Some(now - Duration::minutes(12)),
        taken: 5,
        completed: 3,
        failed: 2,
        stopped_because: None,
    }];
    state.history = (0..60).map(|age| bucket(now, age)).rev().collect();
}

fn bucket(now: chrono::DateTime<Utc>, age: i64) -> Bucket {
    let wave = ((age * age) % 17) as u64;
    let aligned = now.timestamp() / 300 * 300 - 300 * age;
    Bucket {
        begins_at: chrono::DateTime::from_timestamp(aligned, 0).unwrap(),
        completed: 14 + wave,
        failed: if age % 9 == 3 { 6 } else { 0 },
        p50_secs: Some(11.0 + wave as f64 / 4.0),
        p95_secs: Some(31.0 + wave as f64),
        p99_secs: Some(52.0 + 2.0 * wave as f64),
        ..Bucket::default()
    }
}

const FIRST_RECOVER: &str = "[data-key='recover-8801442-ada']";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_everything_and_follows_by_itself_without_a_complaint() {
    let Some(browser) = Browser::open().await else { return };
    let api = Api::open().await;
    busy(&api.operations);
    browser.client.goto(&api.url("/")).await.unwrap();
    browser.shows("#link", "Live").await;
    for (place, text) in [
        ("#queue", "128"),
        ("#queue", "oldest waits 3 min"),
        ("#queue .findings", "Warning: "),
        ("#parts", "next tick in "),
        ("#parts", "Paused by ada"),
        ("#dead-letters", "a statement ran into statement_timeout"),
        ("#dead-letters", "Board call <script>alert(1)</script>"),
        ("#dead-letters", "812 segments"),
        ("#flight", "143 of 190 chunks"),
        ("#workers", "rate limited by the provider"),
        ("#workers", "Rate limited, goes on"),
        ("#runs", "schedule"),
        ("#jobs", "1,871"),
        ("#flow-told", "attempts failed"),
        ("#times-told", "99 % up to"),
    ] {
        browser.shows(place, text).await;
    }
    assert_eq!(browser.value("document.querySelectorAll('.chart canvas').length").await, 2);
    assert_eq!(browser.value("document.title").await, "4 dead letters – Embedding Recovery");

    if let Some(overview) = &mut api.operations.state().overview {
        overview.tasks.pending = 4_711;
    }
    browser.shows("#queue", "4,711").await;

    // The database goes: what was known stays, and it is said.
    api.operations.state().failure = Some(away());
    browser.shows("#trouble", "connection refused").await;
    assert!(browser.text("#queue").await.contains("4,711"), "the page went blank");
    api.operations.state().failure = None;
    browser.shows("#link", "Live").await;
    eventually("the trouble is over", async || browser.text("#trouble").await.is_empty()).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_recovered_by_a_click_and_a_cause_after_a_question() {
    let Some(browser) = Browser::open().await else { return };
    let api = Api::open().await;
    busy(&api.operations);
    browser.client.goto(&api.url("/")).await.unwrap();
    browser.find(FIRST_RECOVER).await.click().await.unwrap();
    browser.shows("#said", "queued for recovery").await;
    browser.shows(FIRST_RECOVER, "Asked for").await;
    assert_eq!(api.asked(), ["recover 8801442 of ada by api:loopback"]);

    browser.find("[data-key^='cause-statement_timeout']").await.click().await.unwrap();
    browser.shows("#sure", "Recover 3 recordings?").await;
    browser.find("#sure-yes").await.click().await.unwrap();
    browser.shows("#said", "1 were tried within the hour").await;
    let cause = "statement_timeout: a statement ran into statement_timeout";
    assert_eq!(api.asked()[1], format!("recover {cause} by api:loopback"));

    browser.find("[data-key='discard-8800014-ada']").await.click().await.unwrap();
    browser.find("#reason").await.send_keys("a test call").await.unwrap();
    browser.find("#sure-yes").await.click().await.unwrap();
    browser.shows("#said", "Discarded").await;
    assert_eq!(api.asked()[2], "discard 8800014 of ada since a test call by api:loopback");

    browser.find("[data-key='pause-recovery']").await.click().await.unwrap();
    browser.shows("#said", "It goes on").await;
    assert_eq!(api.asked()[3], "resume recovery by api:loopback");
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    let key = embedding_recovery::domain::recording::RecordingKey {
        user_id: "ada".into(),
        recording_id: 8_801_507,
    };
    let lease_ends_at = Utc::now() + Duration::minutes(1);
    api.operations.state().refusal = Some(Refusal::BeingProcessed { key, lease_ends_at });
    browser.find("[data-key='recover-8801507-ada']").await.click().await.unwrap();
    browser.shows("#said", "its lease ends at").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_is_shown_and_with_a_read_token_nothing_is_done() {
    let Some(browser) = Browser::open().await else { return };
    let api = Api::locked().await;
    busy(&api.operations);
    browser.client.goto(&api.url("/")).await.unwrap();
    browser.shows("#gate", "A token is needed").await;
    assert!(!browser.find("#board").await.is_displayed().await.unwrap());
    browser.find("#token").await.send_keys("wrong-token\n").await.unwrap();
    browser.shows("#gate", "not known here").await;
    assert_eq!(browser.text("#board").await, "");

    browser.find("#token").await.send_keys(&format!("{READ_TOKEN}\n")).await.unwrap();
    browser.shows("#queue", "128").await;
    browser.find(FIRST_RECOVER).await.click().await.unwrap();
    browser.shows("#said", "this token may only read").await;
    assert_eq!(api.asked(), Vec::<String>::new());

    browser.find("#forget").await.click().await.unwrap();
    browser.shows("#gate", "A token is needed").await;
    browser.find("#token").await.send_keys(&format!("{ADMIN_TOKEN}\n")).await.unwrap();
    browser.find(FIRST_RECOVER).await.click().await.unwrap();
    browser.shows("#said", "queued for recovery").await;
    assert_eq!(api.asked(), ["recover 8801442 of ada by api:ops"]);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_used_by_keyboard_and_fits_a_phone() {
    let Some(browser) = Browser::open().await else { return };
    let api = Api::open().await;
    busy(&api.operations);
    browser.client.set_window_size(390, 844).await.unwrap();
    browser.client.goto(&api.url("/")).await.unwrap();
    browser.shows("#link", "Live").await;
    let wide = "[...document.querySelectorAll('body *')].filter((node) => !node.closest('.scroll table, dialog') && \
                node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.outerHTML.slice(0, 80))";
    assert_eq!(browser.value(wide).await, serde_json::json!([]), "wider than the phone");

    // The focus stays where it is although what is around it is drawn anew.
    let focus = format!("document.querySelector(\"{FIRST_RECOVER}\").focus()");
    browser.find(FIRST_RECOVER).await;
    browser.client.execute(&focus, Vec::new()).await.unwrap();
    api.operations.state().dead_letters.rows[1].title = Some("Another name".into());
    browser.shows("#dead-letters", "Another name").await;
    let focused = "document.activeElement.dataset.key";
    assert_eq!(browser.value(focused).await, "recover-8801442-ada");
    browser.find(FIRST_RECOVER).await.send_keys("\n").await.unwrap();
    browser.shows("#said", "queued for recovery").await;

    let unnamed = "[...document.querySelectorAll('button, input, progress, [role=img]')].filter((node) => \
                   !node.textContent.trim() && !node.ariaLabel && !node.labels?.length && \
                   !node.getAttribute('aria-labelledby')).map((node) => node.outerHTML)";
    assert_eq!(
        browser.value(unnamed).await,
        serde_json::json!([]),
        "a screen reader is told nothing"
    );
    browser.close().await;
}
