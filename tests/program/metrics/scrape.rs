//! Reads `/metrics` as Prometheus does.

use std::collections::BTreeMap;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// A running service, and where its metrics are.
pub struct Service {
    pub child: Child,
    url: String,
    /// Kept, so that the service can go on writing.
    _log: Lines<BufReader<ChildStderr>>,
}

impl Service {
    /// Starts it, and waits until it says where it listens and that it serves.
    pub async fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut url = None;
        loop {
            let line = log.next_line().await.unwrap().expect("a service says that it serves");
            url = url.or_else(|| told_url(&line));
            if line.contains(" serving ") {
                let url = url.expect("it says where its metrics are before");
                return Self { child, url, _log: log };
            }
        }
    }

    /// Reads the metrics.
    pub async fn scrape(&self) -> Scrape {
        Scrape::of_service(&self.url).await
    }
}

/// Where the metrics are, if this line of a service's log says it.
pub fn told_url(line: &str) -> Option<String> {
    let (_, told) = line.split_once("probes and metrics are at ")?;
    Some(told.trim().to_owned())
}

/// A line of the text.
#[derive(Debug)]
pub struct Sample {
    name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    /// True where it has these labels, and maybe others.
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels
            .iter()
            .all(|(name, value)| self.labels.get(*name).is_some_and(|known| known == value))
    }
}

/// What was read.
#[derive(Debug)]
pub struct Scrape {
    pub text: String,
    kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

impl Scrape {
    /// Reads the metrics at `url`.
    pub async fn of_service(url: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4");
        Self::read(answer.text().await.unwrap())
    }

    fn read(text: String) -> Self {
        let (mut kinds, mut samples) = (BTreeMap::new(), Vec::new());
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                let before = kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} is told twice");
            } else if !line.starts_with('#') && !line.is_empty() {
                samples.push(sample(line));
            }
        }
        Self { text, kinds, samples }
    }

    /// Type of a metric.
    pub fn kind(&self, name: &str) -> Option<&str> {
        self.kinds.get(name).map(String::as_str)
    }

    /// Metrics that were told.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// Samples of a metric; of a histogram all its series.
    pub fn of(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            let rest = sample.name.strip_prefix(name);
            rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
        })
    }

    /// The sample of exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| {
            sample.name == name && sample.labels.len() == labels.len() && sample.has(labels)
        };
        self.samples.iter().find(fits).map(|sample| sample.value)
    }

    /// All samples of a series together.
    pub fn sum(&self, series: &str) -> f64 {
        let samples = self.samples.iter().filter(|sample| sample.name == series);
        samples.map(|sample| sample.value).sum()
    }
}

/// `name{label="value",…} number`. No value that the service tells has a quotation mark in it.
fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').expect(line).split_terminator("\",");
    let labels = labels.filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once("=\"").expect(line);
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    Sample { name: name.into(), labels: labels.collect(), value: value.parse().expect(line) }
}
