//! A rolling upgrade as the Deployment has it, without a cluster: its own commands, environment, probes
//! and times, three pods replaced one by one while recordings come in.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::kubelet::{Kubelet, Pod};
use super::rules::of_kind;
use super::settings::environments;
use super::{parsed, rendered};
use crate::chaos::checker::Evidence;
use crate::chaos::watcher::Watcher;
use crate::fakes::openai::{FakeOpenAi, Reply};
use crate::harness::calls::call;
use crate::harness::program::{program, run};
use crate::harness::proxy::Weather;
use crate::harness::{TestDatabase, eventually};

/// Pods at a time, besides the one that comes.
const PODS: usize = 3;
/// Time that the API takes: long enough that every pod has requests in flight when it is told to stop.
const API_LATENCY: Duration = Duration::from_millis(300);
/// Between two recordings that come in.
const ARRIVAL: Duration = Duration::from_millis(100);
/// Chunks of each recording, and of the first, which is in flight for a while.
const CHUNKS: (usize, usize) = (4, 600);

/// What containers of the Deployment and the Job run, over a test's database and API.
struct Containers {
    found: BTreeMap<String, (Vec<String>, BTreeMap<String, String>)>,
    secrets: tempfile::TempDir,
    database_url: String,
    api_url: String,
}

impl Containers {
    fn of(objects: &[Value], database_url: &str, api: &FakeOpenAi) -> Self {
        Self {
            found: environments(objects),
            secrets: tempfile::tempdir().unwrap(),
            database_url: database_url.to_owned(),
            api_url: api.base_url().to_owned(),
        }
    }

    /// The command of a container: what the manifests set, but for what only a cluster has. Addresses are
    /// of this machine, and what lies in Secrets lies in a folder.
    fn command(&self, name: &str) -> Command {
        let (args, variables) = self.found.get(name).unwrap_or_else(|| panic!("no {name}"));
        let mut command = program(&args.iter().map(String::as_str).collect::<Vec<_>>());
        for (variable, value) in variables {
            let value = match variable.as_str() {
                "DATABASE_URL" => self.database_url.clone(),
                // An optional key of a Secret.
                "EMBEDDING_RECOVERY_ADMIN_DATABASE_URL" => continue,
                // No collector is there, which costs nothing but telemetry.
                name if name.ends_with("_ENDPOINT") => "http://127.0.0.1:9".to_owned(),
                name if name.ends_with("_LISTEN") => "127.0.0.1:0".to_owned(),
                name if name.ends_with("_FILE") => self.secret(value),
                _ => value.clone(),
            };
            command.env(variable, value);
        }
        command.env("OPENAI_BASE_URL", &self.api_url);
        command
    }

    /// A file of a Secret.
    fn secret(&self, path: &str) -> String {
        let file = self.secrets.path().join(Path::new(path).file_name().unwrap());
        std::fs::write(&file, format!("a secret of the rehearsal: {path}").replace(' ', "-"))
            .unwrap();
        file.to_string_lossy().into_owned()
    }

    /// Its init containers, then the pod.
    async fn pod(&self, kubelet: &Kubelet, name: String) -> Pod {
        let waited = run(&mut self.command("Deployment/embedding-recovery wait-for-schema")).await;
        assert_eq!(waited.code, Some(0), "{waited:?}");
        let serve = self.command("Deployment/embedding-recovery embedding-recovery");
        kubelet.start(name, serve).await
    }
}

/// Recordings come in until they are told to stop; returns how many did.
async fn arrive(database_url: String, stopped: tokio::sync::watch::Receiver<bool>) -> i64 {
    let store = embedding_recovery::postgres::PgStore::connect(&database_url, 1).await.unwrap();
    let mut import = store.import(true);
    let mut count = 0;
    while !*stopped.borrow() {
        count += 1;
        let chunks = if count == 1 { CHUNKS.1 } else { CHUNKS.0 };
        import.store(&call(count, chunks)).await.unwrap();
        tokio::time::sleep(ARRIVAL).await;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_by_the_deployment_loses_nothing_and_uses_no_attempt() {
    let Some(yaml) = rendered("production") else { return };
    let objects = parsed(&yaml);
    let kubelet = Kubelet::of(of_kind(&objects, "Deployment").next().unwrap());
    let database = TestDatabase::bare().await;
    let fake = FakeOpenAi::start(8);
    fake.on(|_| true, Reply::Delay(API_LATENCY));
    let containers = Containers::of(&objects, &database.url, &fake);
    let migrated = run(&mut containers.command("Job/embedding-recovery-migrate migrate")).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");

    let mut old = Vec::new();
    for index in 0..PODS {
        old.push(containers.pod(&kubelet, format!("old {index}")).await);
    }
    for pod in &mut old {
        pod.wait_until_ready().await;
    }
    let watcher = Watcher::start(&database.url);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let arriving = tokio::spawn(arrive(database.url.clone(), stopped));
    database.wait_until("select count(*) > 10 from embedding_attempts").await;

    // One more comes; when it is ready and stays so, an old one goes, and the next comes at once.
    let (mut new, mut ending) = (Vec::new(), JoinSet::new());
    for (index, leaving) in old.into_iter().enumerate() {
        let mut pod = containers.pod(&kubelet, format!("new {index}")).await;
        pod.wait_until_ready().await;
        tokio::time::sleep(kubelet.min_ready).await;
        new.push(pod);
        ending.spawn(leaving.end());
    }
    let mut ended = ending.join_all().await;
    stop.send_replace(true);
    let arrived = arriving.await.unwrap();
    database.wait_until("select bool_and(status = 'completed') from embedding_queue").await;
    let mut ending = JoinSet::new();
    new.into_iter().for_each(|pod| drop(ending.spawn(pod.end())));
    ended.extend(ending.join_all().await);

    for ended in &ended {
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let sightings = watcher.stop().await;
    let evidence = Evidence {
        database_url: &database.url,
        sightings: &sightings,
        purchases: &fake.purchases(),
        network: Duration::from_secs(1),
        awakenings: &[],
        // Nothing may use an attempt.
        own_faults: &[],
    };
    println!("{arrived} recordings; {}", evidence.summary().await);
    let mut wrong = evidence.complaints().await;
    wrong.extend(kubelet.complaints());
    assert_eq!(wrong, [""; 0]);
    let completed =
        "select count(*) from embedding_queue where status = 'completed' and attempts = 1";
    assert_eq!(
        database.value::<i64>(completed).await,
        arrived,
        "all are complete at the first attempt"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_its_database_is_taken_out_and_one_that_hangs_would_be_restarted() {
    let Some(yaml) = rendered("production") else { return };
    let objects = parsed(&yaml);
    let kubelet = Kubelet::of(of_kind(&objects, "Deployment").next().unwrap());
    let database = TestDatabase::new().await;
    let (network, url) = database.over_a_network().await;
    let fake = FakeOpenAi::start(8);
    let containers = Containers::of(&objects, &url, &fake);
    let mut pod = containers.pod(&kubelet, "pod".into()).await;
    pod.wait_until_ready().await;
    assert_eq!(kubelet.complaints(), [""; 0]);
    let told = async |what: &str| {
        let told = || kubelet.complaints().iter().any(|complaint| complaint.contains(what));
        eventually(what, async || told()).await;
    };
    network.set(Weather::Cut);
    told("pod is not ready any more: 503").await;
    network.set(Weather::Fine);
    pod.wait_until_ready().await;
    assert_eq!(kubelet.complaints().len(), 1, "no restart would help: {:?}", kubelet.complaints());
    pod.signal("STOP").await;
    told("pod would be restarted").await;
    pod.signal("CONT").await;
    assert_eq!(pod.end().await.code, Some(0));
}
