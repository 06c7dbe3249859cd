//! A real Chromium, driven by chromedriver; what the page writes to its console is kept.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{eventually, skipped};

/// A window of its own, with an empty profile; gone when closed.
pub struct Browser {
    pub client: Client,
    driver_url: String,
    driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// `None`, with a printed reason, where no browser is installed.
    pub async fn open() -> Option<Self> {
        let Some(mut driver) = start_driver() else {
            skipped("chromedriver is not installed");
            return None;
        };
        // For the requests below; fails only where another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = port_of(&mut driver);
        let profile = tempfile::tempdir().unwrap();
        let mut args: Vec<String> = [
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "disable-dev-shm-usage",
            "no-proxy-server",
        ]
        .map(|flag| format!("--{flag}"))
        .into();
        args.push(format!("--user-data-dir={}", profile.path().display()));
        let capabilities = json!({
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let driver_url = format!("http://127.0.0.1:{port}");
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&driver_url)
            .await
            .unwrap();
        Some(Self { client, driver_url, driver, _profile: profile })
    }

    /// The element, once it is there.
    pub async fn find(&self, selector: &str) -> Element {
        let wait = self.client.wait().at_most(Duration::from_secs(60));
        wait.for_element(Locator::Css(selector)).await.unwrap_or_else(|error| {
            panic!("{selector} does not appear: {error}");
        })
    }

    /// What an element shows.
    pub async fn text(&self, selector: &str) -> String {
        match self.client.find(Locator::Css(selector)).await {
            // It may be drawn anew between the two questions.
            Ok(element) => element.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Waits until an element shows this text.
    pub async fn shows(&self, selector: &str, text: &str) {
        let what = format!("{selector} shows {text:?}");
        eventually(&what, async || self.text(selector).await.contains(text)).await;
    }

    /// The value of an expression in the page.
    pub async fn value(&self, expression: &str) -> Value {
        self.client.execute(&format!("return {expression}"), Vec::new()).await.unwrap()
    }

    /// What was written to the console since the last call, warnings and errors only.
    pub async fn complaints(&self) -> Vec<String> {
        let session = self.client.session_id().await.unwrap().unwrap();
        let url = format!("{}/session/{session}/se/log", self.driver_url);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(url).json(&json!({ "type": "browser" })).send().await.unwrap();
        let log: Value = answer.json().await.unwrap();
        let entries = log["value"].as_array().expect("the log");
        let bad = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        entries.iter().filter(bad).map(|entry| entry["message"].to_string()).collect()
    }

    /// A command of Chromium's own.
    pub async fn chromium(&self, command: &str, params: Value) -> Value {
        let session = self.client.session_id().await.unwrap().unwrap();
        let url = format!("{}/session/{session}/goog/cdp/execute", self.driver_url);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let body = json!({ "cmd": command, "params": params });
        let answer = client.post(url).json(&body).send().await.unwrap();
        let mut answer: Value = answer.json().await.unwrap();
        answer["value"].take()
    }

    /// Closes the window and ends the driver.
    pub async fn close(mut self) {
        self.client.clone().close().await.unwrap();
        self.driver.kill().unwrap();
        self.driver.wait().unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !matches!(self.driver.try_wait(), Ok(Some(_))) {
            // After a failed test: told by a signal, the driver takes its browser along.
            let _ = Command::new("kill").arg(self.driver.id().to_string()).status();
            let _ = self.driver.wait();
        }
    }
}

fn start_driver() -> Option<Child> {
    Command::new("chromedriver")
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

/// The port that the driver says it listens on.
fn port_of(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let told = lines.find_map(|line| {
        let line = line.ok()?;
        let (_, port) = line.split_once("successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    // The rest is read away, so that the driver never waits for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    told.expect("chromedriver says its port")
}
