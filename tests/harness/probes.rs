//! A running service as a cluster sees it: its log and its probes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::program::{Ended, end_of, signal};
use super::{eventually, within_deadline};

/// A probe that takes longer has failed, as the Deployment says.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the probes of a service are.
#[derive(Clone)]
pub struct Probes {
    address: String,
    client: reqwest::Client,
}

impl Probes {
    /// Status and body of a probe; 0 where nobody answers.
    pub async fn ask(&self, path: &str) -> (u16, String) {
        match self.client.get(format!("{}{path}", self.address)).send().await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(error) => (0, error.to_string()),
        }
    }
}

/// A service and where its probes are.
pub struct Service {
    pub child: Child,
    pub probes: Probes,
    log: Arc<Mutex<String>>,
}

impl Service {
    /// Starts it, and waits until it says where its probes are.
    pub async fn start(mut command: Command) -> Self {
        // Fails only where another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (told, mut address) = watch::channel(None);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = log.clone();
        // Read to the end: a full pipe would hold the service up.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, at)) = line.split_once(" are at http://")
                    && line.contains("probes")
                {
                    let host = at.split('/').next().unwrap_or_default();
                    told.send_replace(Some(format!("http://{host}")));
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let found = within_deadline("the probes", address.wait_for(Option::is_some)).await;
        let address = found.map(|found| found.clone().unwrap());
        let address = address.unwrap_or_else(|_| panic!("it ended: {}", log.lock().unwrap()));
        let client = reqwest::Client::builder().no_proxy().timeout(PROBE_TIMEOUT).build().unwrap();
        Self { child, probes: Probes { address, client }, log }
    }

    /// Status and body of a probe; 0 where nobody answers.
    pub async fn probe(&self, path: &str) -> (u16, String) {
        self.probes.ask(path).await
    }

    /// Waits until `/readyz` answers so, with this in its body.
    pub async fn wait_until_ready_is(&self, status: u16, told: &str) {
        let what = format!("/readyz is {status} with {told:?}");
        let what = format!("{what}, after {:?}", self.probe("/readyz").await);
        eventually(&what, async || {
            let (seen, body) = self.probe("/readyz").await;
            seen == status && body.contains(told)
        })
        .await;
    }

    /// Sends a signal by name.
    pub async fn signal(&self, name: &str) {
        signal(&self.child, name).await;
    }

    /// Waits for its end; its log is in `stderr`.
    pub async fn end(self) -> Ended {
        let Self { child, log, .. } = self;
        let ended = end_of(child).await;
        let stderr = log.lock().unwrap().clone();
        Ended { stderr, ..ended }
    }
}
