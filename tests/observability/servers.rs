//! A Prometheus and an Alertmanager of a test's own, over the files that ship, with their times cut
//! short; gone when dropped.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use super::rules::FILES;
use super::{path, tools, yaml};
use crate::harness::eventually;

/// A server and its data.
struct Server {
    child: Child,
    _directory: TempDir,
    url: Url,
    client: reqwest::Client,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free now.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts a command with these files, of which the first is its configuration, and waits until it
    /// is ready.
    async fn start(mut command: Command, files: &[(String, Value)]) -> Self {
        // Fails only where another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        for (name, document) in files {
            let file = directory.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            // JSON is YAML.
            std::fs::write(&file, document.to_string()).unwrap();
        }
        let address = format!("127.0.0.1:{}", free_port());
        command
            .arg(format!("--config.file={}", directory.path().join(&files[0].0).display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .current_dir(directory.path())
            .stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let url = Url::parse(&format!("http://{address}/")).unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let server = Self { child, _directory: directory, url, client };
        let ready = server.url.join("-/ready").unwrap();
        eventually("the server is ready", async || {
            let answer = server.client.get(ready.clone()).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        server
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let mut url = self.url.join(path).unwrap();
        url.query_pairs_mut().extend_pairs(query);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).expect(&text)
    }
}

/// A Prometheus that looks every second.
pub(super) struct Prometheus(Server);

impl Prometheus {
    /// Scrapes `targets` by the shipped configuration and rules, where no alert waits before it fires;
    /// `None`, with a printed reason, where it is not installed.
    pub async fn start(targets: &[String], alertmanager: Option<&str>) -> Option<Self> {
        let mut command = tools::tool("prometheus")?;
        let mut configuration = yaml("observability/prometheus/prometheus.yaml");
        configuration["global"] = json!({ "scrape_interval": "1s", "evaluation_interval": "1s" });
        configuration["scrape_configs"][0]["static_configs"][0]["targets"] = targets.into();
        configuration["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] =
            alertmanager.into_iter().collect();
        let mut files = vec![("prometheus.yaml".to_owned(), configuration)];
        for file in FILES {
            let mut document = yaml(file);
            let groups = document["groups"].as_array_mut().unwrap();
            for rule in groups.iter_mut().flat_map(|group| group["rules"].as_array_mut().unwrap()) {
                rule.as_object_mut().unwrap().remove("for");
            }
            let name = path(file).file_name().unwrap().to_string_lossy().into_owned();
            files.push((format!("rules/{name}"), document));
        }
        command.arg("--storage.tsdb.path=data");
        Some(Self(Server::start(command, &files).await))
    }

    /// The samples that an expression has now: labels and values. Values that are no numbers do not
    /// count.
    pub async fn samples(&self, expression: &str) -> Vec<(Value, f64)> {
        let answer = self.0.get("api/v1/query", &[("query", expression)]).await;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let result = &answer["data"]["result"];
        let value = |sample: &Value| sample["value"][1].as_str().unwrap().parse().unwrap();
        let samples = result.as_array().unwrap_or_else(|| panic!("{expression}: {answer}")).iter();
        samples
            .map(|sample| (sample["metric"].clone(), value(sample)))
            .filter(|(_, value): &(Value, f64)| !value.is_nan())
            .collect()
    }

    /// What is wrong with the rules that were evaluated.
    pub async fn sick_rules(&self) -> Vec<String> {
        let answer = self.0.get("api/v1/rules", &[]).await;
        let groups = answer["data"]["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
        rules.filter(|rule| rule["health"] != "ok").map(Value::to_string).collect()
    }
}

/// An Alertmanager that tells at once.
pub(super) struct Alertmanager(Server);

impl Alertmanager {
    /// Routes as the shipped configuration does; every receiver is a webhook at this address with its
    /// name behind it. `None`, with a printed reason, where it is not installed.
    pub async fn start(webhooks: &str) -> Option<Self> {
        // The second is Debian's name for it.
        let mut command = tools::either(&["alertmanager", "prometheus-alertmanager"])?;
        let mut configuration = yaml("observability/alertmanager/alertmanager.yaml");
        configuration["global"] = json!({});
        for time in ["group_wait", "group_interval"] {
            configuration["route"][time] = "1s".into();
        }
        for receiver in configuration["receivers"].as_array_mut().unwrap() {
            let name = receiver["name"].as_str().unwrap().to_owned();
            let url = format!("{webhooks}/{name}");
            *receiver = json!({ "name": name, "webhook_configs": [{ "url": url }] });
        }
        command.arg("--storage.path=data").arg("--cluster.listen-address=");
        let files = [("alertmanager.yaml".to_owned(), configuration)];
        Some(Self(Server::start(command, &files).await))
    }

    /// Host and port.
    pub fn address(&self) -> String {
        let url = &self.0.url;
        format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())
    }
}
