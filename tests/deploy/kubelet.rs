//! What a cluster does to a pod: it probes it by the periods and thresholds of the Deployment, and ends it
//! by the hook, the signal and the time that the Deployment gives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::at;
use crate::harness::probes::{Probes, Service};
use crate::harness::program::Ended;
use crate::harness::within_deadline;

/// Periods pass so much faster than in a cluster; thresholds and time-outs are its own.
const SPEED: u32 = 3;

/// A probe as the Deployment has it.
#[derive(Clone)]
struct Probe {
    path: String,
    period: Duration,
    timeout: Duration,
    failures_max: u32,
}

impl Probe {
    fn of(container: &Value, name: &str) -> Self {
        let probe = at(container, &format!("/{name}"));
        let number = |field: &str, default| at(probe, field).as_u64().unwrap_or(default);
        Self {
            path: at(probe, "/httpGet/path").as_str().unwrap().to_owned(),
            period: Duration::from_secs(number("/periodSeconds", 10)) / SPEED,
            timeout: Duration::from_secs(number("/timeoutSeconds", 1)),
            failures_max: number("/failureThreshold", 3) as u32,
        }
    }

    /// Asks once, a period later; true where all is well, and what was said.
    async fn ask(&self, probes: &Probes) -> (bool, String) {
        tokio::time::sleep(self.period).await;
        match tokio::time::timeout(self.timeout, probes.ask(&self.path)).await {
            Ok((status, said)) => (status == 200, format!("{status} {said}")),
            Err(_) => (false, format!("no answer within {:?}", self.timeout)),
        }
    }
}

/// How the cluster is told to treat pods.
#[derive(Clone)]
pub struct Kubelet {
    startup: Probe,
    liveness: Probe,
    readiness: Probe,
    hook: Duration,
    grace: Duration,
    /// Time that a new pod must stay ready.
    pub min_ready: Duration,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Kubelet {
    pub fn of(deployment: &Value) -> Self {
        let container = at(deployment, "/spec/template/spec/containers/0");
        let secs = |object: &Value, pointer: &str| {
            Duration::from_secs(
                at(object, pointer).as_u64().unwrap_or_else(|| panic!("no {pointer}")),
            )
        };
        Self {
            startup: Probe::of(container, "startupProbe"),
            liveness: Probe::of(container, "livenessProbe"),
            readiness: Probe::of(container, "readinessProbe"),
            hook: secs(container, "/lifecycle/preStop/sleep/seconds"),
            grace: secs(deployment, "/spec/template/spec/terminationGracePeriodSeconds"),
            min_ready: secs(deployment, "/spec/minReadySeconds") / SPEED,
            complaints: Arc::default(),
        }
    }

    /// What a cluster would have done that nobody wants.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    fn complain(&self, what: String) {
        self.complaints.lock().unwrap().push(what);
    }

    /// Starts a pod and probes it from then on.
    pub async fn start(&self, name: String, command: Command) -> Pod {
        let service = Service::start(command).await;
        let (ready, is_ready) = watch::channel(false);
        let (ending, is_ending) = watch::channel(false);
        let probing = ProbedPod {
            kubelet: self.clone(),
            name: name.clone(),
            probes: service.probes.clone(),
            ending: is_ending,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { probing.probe(ready).await });
        Pod { name, service, kubelet: self.clone(), ready: is_ready, ending, _probing: tasks }
    }
}

/// A pod as its probes see it.
struct ProbedPod {
    kubelet: Kubelet,
    name: String,
    probes: Probes,
    ending: watch::Receiver<bool>,
}

impl ProbedPod {
    async fn probe(&self, ready: watch::Sender<bool>) {
        let startup = &self.kubelet.startup;
        let mut failures = 0;
        while !startup.ask(&self.probes).await.0 {
            failures += 1;
            if failures == startup.failures_max {
                return self.kubelet.complain(format!("{} does not start", self.name));
            }
        }
        tokio::join!(self.stay_alive(), self.stay_ready(ready));
    }

    async fn stay_alive(&self) {
        let mut failures = 0;
        loop {
            let (well, said) = self.kubelet.liveness.ask(&self.probes).await;
            failures = if well { 0 } else { failures + 1 };
            if failures == self.kubelet.liveness.failures_max {
                self.kubelet.complain(format!("{} would be restarted: {said}", self.name));
            }
        }
    }

    async fn stay_ready(&self, ready: watch::Sender<bool>) {
        let mut failures = 0;
        loop {
            let (well, said) = self.kubelet.readiness.ask(&self.probes).await;
            failures = if well { 0 } else { failures + 1 };
            if well {
                ready.send_replace(true);
            } else if failures >= self.kubelet.readiness.failures_max && *ready.borrow() {
                ready.send_replace(false);
                if !*self.ending.borrow() {
                    self.kubelet.complain(format!("{} is not ready any more: {said}", self.name));
                }
            }
        }
    }
}

/// A running pod.
pub struct Pod {
    name: String,
    service: Service,
    kubelet: Kubelet,
    ready: watch::Receiver<bool>,
    ending: watch::Sender<bool>,
    _probing: JoinSet<()>,
}

impl Pod {
    /// Waits until it is ready.
    pub async fn wait_until_ready(&mut self) {
        let ready = self.ready.wait_for(|ready| *ready);
        within_deadline(&format!("{} is ready", self.name), ready).await.unwrap();
    }

    /// Sends it a signal by name.
    pub async fn signal(&self, name: &str) {
        self.service.signal(name).await;
    }

    /// Ends it as a cluster does: the hook, the signal, and a kill where that takes too long. It is
    /// probed until the end.
    pub async fn end(self) -> Ended {
        let Self { name, service, kubelet, ending, _probing, .. } = self;
        ending.send_replace(true);
        tokio::time::sleep(kubelet.hook / SPEED).await;
        service.signal("TERM").await;
        match tokio::time::timeout(kubelet.grace - kubelet.hook, service.end()).await {
            Ok(ended) => ended,
            Err(_) => panic!("{name} would be killed after {:?}", kubelet.grace),
        }
    }
}
