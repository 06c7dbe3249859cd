//! The README's pictures of the page: a lively service, photographed. Drawn only on demand, by
//! `bash .ci/dashboard`, since a picture is new each time.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use embedding_recovery::ports::ImportedRecording;
use serde_json::json;

use super::recovering::page_of;
use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::browser::Browser;
use crate::harness::calls::call;
use crate::harness::program::{run, signal};
use crate::harness::{TestDatabase, eventually};

const TITLES: [&str; 14] = [
    "Weekly pipeline review",
    "Onboarding, Hartmann AG",
    "Quarterly planning",
    "Support escalation",
    "Renewal, Northwind",
    "Design review, search",
    "All hands",
    "Interview, data engineer",
    "Kick-off, Solveig Foods",
    "Retrospective",
    "Demo, Blue Harbour",
    "Security questionnaire",
    "Pricing workshop",
    "Customer council",
];

/// The work spread over the last six hours, as a day's would be, and each attempt as long as its number
/// of chunks would take.
const SPREAD: &str = "
    delete from history;
    update embedding_attempts a set
        started_at = t.ended_at - make_interval(secs => 4 + 2.5 * coalesce(a.chunks, 6) + t.place % 7),
        ended_at = t.ended_at
    from (select id, place, now() - interval '45 seconds' - (4 - number) * interval '100 seconds'
                 - interval '340 minutes' * power((place - 1)::float8 / max(place) over (),
                                                  1.0 + 0.25 * sin(place)) as ended_at
          from (select id, number, dense_rank() over (order by md5(task_id::text)) as place
                from embedding_attempts) ranked) t
    where a.id = t.id";

/// Ends when the page was drawn twice.
const NEXT_FRAMES: &str =
    "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))";

fn titled(recording_id: i64, chunks: usize) -> ImportedRecording {
    let title = TITLES[recording_id as usize % TITLES.len()];
    let part = recording_id / TITLES.len() as i64 % 40 + 1;
    ImportedRecording { title: Some(format!("{title}, no. {part}")), ..call(recording_id, chunks) }
}

/// Recordings of a day: most are done, some are dead letters of two causes.
async fn a_day(database: &TestDatabase, fake: &FakeOpenAi) {
    for (word, reply) in [
        ("call8800014turn1 ", Reply::error(400, "invalid_value", "This content was refused.")),
        ("turn7 ", Reply::error(500, "server_error", "The server had an error.")),
    ] {
        fake.on(move |inputs| inputs.iter().any(|text| text.contains(word)), reply);
    }
    let sick = [8_801_442, 8_802_011].map(|id| titled(id, 8));
    let well = (0..420).map(|nth| titled(9_120_000 + nth * 7, 1 + (nth * nth % 6) as usize));
    let mut calls: Vec<_> = well.collect();
    for (nth, call) in sick.into_iter().enumerate() {
        calls.insert(100 + 100 * nth, call);
    }
    calls.insert(50, titled(8_800_014, 5));
    database.import(&calls).await;
    let ended = run(&mut serve(database, fake, &["--exit-when-idle"])).await;
    assert!(ended.stdout.contains("420 completed, 3 dead letters"), "{ended:?}");
    fake.recover();
    database.execute(SPREAD).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "draws the README's pictures: bash .ci/dashboard"]
async fn the_dashboard_is_drawn_for_the_readme() {
    let browser = Browser::open().await.expect("a browser");
    let database = TestDatabase::new().await;
    let fake = FakeOpenAi::start(8);
    a_day(&database, &fake).await;
    let calls: Vec<_> = (0..60).map(|nth| titled(9_130_000 + nth * 11, 90)).collect();
    database.import(&calls).await;
    // Small requests, so that a recording has several.
    fake.on(|inputs| inputs.len() > 16, Reply::error(400, "too_many_inputs", "At most 16 inputs."));
    fake.on(|_| true, Reply::Delay(Duration::from_millis(900)));
    let work = ["--claim-batch", "3", "--insert-batch", "10"];
    let mut service = serve(&database, &fake, &work).spawn().unwrap();
    let (page, mut log) = page_of(&mut service).await;
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    browser.client.goto(&page).await.unwrap();
    browser.shows("#flight", "of 90 chunks").await;
    let some = "select count(*) > 423 from embedding_queue where status = 'completed'";
    database.wait_until(some).await;
    let halfway = "[...document.querySelectorAll('#flight progress')].some((bar) => bar.position > 0.2 && bar.position < 0.8)";
    eventually("a recording is halfway", async || browser.value(halfway).await == json!(true))
        .await;
    // It stays so for all pictures.
    fake.hold();
    picture(&browser, "dashboard-light.png", "light", (1_060, 1_590)).await;
    picture(&browser, "dashboard-dark.png", "dark", (1_060, 1_590)).await;
    picture(&browser, "dashboard-phone.png", "light", (390, 1_180)).await;
    browser.find("[data-key='explain-dead-8801442-alice']").await.click().await.unwrap();
    browser.shows("#why", "7 of 8 chunks stored").await;
    picture(&browser, "dashboard-explain.png", "light", (860, 620)).await;
    browser.close().await;
    signal(&service, "TERM").await;
}

async fn picture(browser: &Browser, name: &str, scheme: &str, (width, height): (u32, u32)) {
    browser.chromium("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await;
    let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    browser.chromium("Emulation.setEmulatedMedia", media).await;
    let size =
        json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
    browser.chromium("Emulation.setDeviceMetricsOverride", size).await;
    // The charts follow the window's size and the scheme with the next look.
    browser.client.execute_async(NEXT_FRAMES, Vec::new()).await.unwrap();
    let shot = browser.chromium("Page.captureScreenshot", json!({ "format": "png" })).await;
    let bytes = STANDARD.decode(shot["data"].as_str().expect("a picture")).unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::fs::write(docs.join(name), bytes).unwrap();
}
