//! The page in a real browser over the running program and its database: what is seen there is what
//! happens, and what is clicked there is done.

use serde_json::Value;
use tokio::process::Child;

use super::recovering::page_of;
use super::serving::serve;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::browser::Browser;
use crate::harness::calls::call;
use crate::harness::program::signal;
use crate::harness::proxy::{Proxy, Weather};
use crate::harness::{TestDatabase, eventually};

const ADMIN_TOKEN: &str = "admin-token-of-a-test";
const READ_TOKEN: &str = "read-token-of-a-test";

/// A running service behind a network, with its page open.
struct Scene {
    database: TestDatabase,
    network: Proxy,
    fake: FakeOpenAi,
    service: Child,
    browser: Browser,
}

impl Scene {
    /// Calls 1 to 3 fail, 10 to 14 do not, and all of them wait for the provider. `None` where no
    /// browser is installed.
    async fn open() -> Option<Self> {
        let browser = Browser::open().await?;
        let database = TestDatabase::new().await;
        let (network, url) = database.behind_proxy().await;
        let fake = FakeOpenAi::start(8);
        fake.on(
            |inputs| inputs.iter().any(|text| text.contains("turn7 ")),
            Reply::error(500, "server_error", "The server had an error."),
        );
        let calls = [1, 2, 3].map(|id| call(id, 8)).into_iter();
        let calls: Vec<_> = calls.chain((10..15).map(|id| call(id, 2))).collect();
        database.import(&calls).await;
        database.execute("update embedding_queue set max_attempts = 1").await;
        let mut service = serve(&database, &fake, &[])
            .env("DATABASE_URL", url)
            .env("EMBEDDING_RECOVERY_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("EMBEDDING_RECOVERY_READ_TOKEN", READ_TOKEN)
            .spawn()
            .unwrap();
        let (page, mut log) = page_of(&mut service).await;
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        browser.client.goto(&page).await.unwrap();
        Some(Self { database, network, fake, service, browser })
    }

    async fn click(&self, selector: &str) {
        self.browser.find(selector).await.click().await.unwrap();
    }

    async fn enter(&self, token: &str) {
        self.browser.find("#token").await.send_keys(&format!("{token}\n")).await.unwrap();
        self.browser.shows("#link", "Live").await;
    }

    /// Waits until the queue's numbers are these: pending, processing, retry, completed, dead.
    async fn counts(&self, expected: [u64; 5]) {
        let numbers =
            "[...document.querySelectorAll('#queue dd')].map((node) => +node.firstChild.data)";
        eventually(&format!("the page shows {expected:?}"), async || {
            self.browser.value(numbers).await == Value::from(expected.to_vec())
        })
        .await;
    }

    /// The page wrote nothing to the console but Chromium's own notes of answers that refuse.
    async fn assert_content(&self) {
        let complaints = self.browser.complaints().await;
        let refusal = |line: &String| line.contains("Failed to load resource");
        assert!(complaints.iter().all(refusal), "{complaints:?}");
    }

    async fn end(self) {
        self.assert_content().await;
        self.browser.close().await;
        signal(&self.service, "TERM").await;
        self.database.assert_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_the_queue_is_seen_on_the_page_and_mended_by_clicks() {
    let Some(scene) = Scene::open().await else { return };
    let Scene { database, fake, browser, .. } = &scene;
    browser.shows("#gate", "A token is needed").await;
    scene.enter(ADMIN_TOKEN).await;
    scene.counts([0, 0, 0, 5, 3]).await;
    browser.shows("#dead-letters", "3 recordings of 1 cause").await;
    browser.shows("#times-told", "Lately half took").await;

    // One is explained, then recovered although it was tried just now.
    scene.click("[data-key='explain-dead-1-alice']").await;
    browser.shows("#why", "Call 1").await;
    browser.shows("#why", "7 of 8 chunks stored").await;
    browser.shows("#why", "embedding-recovery recover 1").await;
    scene.click("#why-close").await;
    fake.recover();
    scene.click("[data-key='recover-1-alice']").await;
    browser.shows("#sure", "tried within the last hour").await;
    scene.click("#sure-yes").await;
    scene.counts([0, 0, 0, 6, 2]).await;
    browser.shows("#runs", "request").await;

    // The others together, an hour later.
    let hour_ago = "update embedding_attempts set started_at = started_at - interval '2 hours', \
                    ended_at = ended_at - interval '2 hours'";
    database.execute(hour_ago).await;
    scene.click("[data-key^='cause-']").await;
    browser.shows("#sure", "Recover 2 recordings?").await;
    scene.click("#sure-yes").await;
    scene.counts([0, 0, 0, 8, 0]).await;
    browser.shows("#dead-letters", "None").await;
    // The refused one too.
    let kept = "select count(*) = 3 and count(outcome) = 3 from admin_actions where requested_by = 'api:admin'";
    database.wait_until(kept).await;

    // Paused, nothing is begun; resumed, all of it is.
    scene.click("[data-key='pause-main']").await;
    browser.shows("#parts", "Paused by api:admin").await;
    database.import(&[call(20, 2)]).await;
    scene.counts([1, 0, 0, 8, 0]).await;
    browser.find("#seek-id").await.send_keys("20\n").await.unwrap();
    browser.shows("#why", "embedding-recovery resume main").await;
    scene.click("#why-close").await;
    scene.click("[data-key='pause-main']").await;
    scene.counts([0, 0, 0, 9, 0]).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_reads_acts_not_and_a_database_that_goes_away_leaves_no_blank_page() {
    let Some(scene) = Scene::open().await else { return };
    let Scene { database, fake, browser, network, .. } = &scene;
    browser.find("#token").await.send_keys("wrong-token\n").await.unwrap();
    browser.shows("#gate", "not known here").await;
    assert_eq!(browser.text("#board").await, "");
    scene.enter(READ_TOKEN).await;
    scene.counts([0, 0, 0, 5, 3]).await;
    scene.click("[data-key='pause-main']").await;
    browser.shows("#said", "this token may only read").await;
    assert_eq!(database.value::<i64>("select count(*) from pauses").await, 0);

    network.set(Weather::Cut);
    browser.shows("#trouble", "What is shown is the last that was known").await;
    browser.shows("#link", "No news").await;
    scene.counts([0, 0, 0, 5, 3]).await;
    network.set(Weather::Fine);
    eventually("the trouble is over", async || browser.text("#trouble").await.is_empty()).await;
    database.import(&[call(20, 2)]).await;
    scene.counts([0, 0, 0, 6, 3]).await;

    // What is in flight is seen while it is, and explained.
    fake.hold();
    database.import(&[call(21, 2)]).await;
    scene.click("[data-key='explain-flight-21-alice']").await;
    browser.shows("#why", "Processing").await;
    fake.release();
    browser.shows("#why", "Completed").await;
    scene.counts([0, 0, 0, 7, 3]).await;
    scene.end().await;
}
