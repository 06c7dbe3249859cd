//! The collector's configuration, Grafana's provisioning, the objects for Kubernetes and the compose
//! file: that what they refer to exists. None of their own programs can be had here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{list, path, string, text, yaml};
use crate::harness::program::{program, run};

const COLLECTOR: &str = "observability/collector.yaml";
const COMPOSE: &str = "deploy/compose.yaml";

/// Variables of OpenTelemetry that the program reads.
const OF_OPENTELEMETRY: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_METRICS_EXPORTER"];

fn map<'a>(value: &'a Value, pointer: &str) -> &'a Map<String, Value> {
    let found = value.pointer(pointer).and_then(Value::as_object);
    found.unwrap_or_else(|| panic!("nothing at {pointer} of {value}"))
}

/// The names of a kind of component that pipelines use (left) and that are set up (right).
fn used_and_known(kind: &str, uses: &[&str]) -> (BTreeSet<String>, BTreeSet<String>) {
    let collector = yaml(COLLECTOR);
    let connectors: BTreeSet<String> = map(&collector, "/connectors").keys().cloned().collect();
    let known = map(&collector, kind).keys().cloned().collect();
    let mut used = BTreeSet::new();
    for pipeline in map(&collector, "/service/pipelines").values() {
        for list_of in uses {
            let names = list(pipeline, list_of).iter().map(|name| name.as_str().unwrap());
            used.extend(names.map(String::from));
        }
    }
    if kind != "/connectors" {
        used = &used - &connectors;
    } else {
        used = &used & &connectors;
    }
    (used, known)
}

#[test]
fn every_component_of_the_collector_is_used_and_every_used_one_is_there() {
    for (kind, uses) in [
        ("/receivers", "/receivers"),
        ("/processors", "/processors"),
        ("/exporters", "/exporters"),
        // A connector ends one pipeline and begins another.
        ("/connectors", "/exporters"),
        ("/connectors", "/receivers"),
    ] {
        let (used, known) = used_and_known(kind, &[uses]);
        assert_eq!(used, known, "{kind} in {uses}");
    }
}

#[test]
fn the_collector_keeps_errors_retries_recoveries_slow_attempts_and_a_share_of_the_rest() {
    let collector = yaml(COLLECTOR);
    let policies: BTreeMap<&str, &str> = list(&collector, "/processors/tail_sampling/policies")
        .iter()
        .map(|policy| {
            let kind = string(policy, "/type");
            assert!(policy[kind].is_object(), "{policy} has no settings of its type");
            (string(policy, "/name"), kind)
        })
        .collect();
    let expected = [
        ("errors", "status_code"),
        ("retries", "numeric_attribute"),
        ("recoveries", "string_attribute"),
        ("slow attempts", "latency"),
        ("a share of the rest", "probabilistic"),
    ];
    assert_eq!(policies, BTreeMap::from(expected));
    // Span metrics count what was not dropped yet.
    let exporters = list(&collector, "/service/pipelines/traces/exporters");
    assert!(exporters.contains(&"spanmetrics".into()), "{exporters:?}");
    let processors = list(&collector, "/service/pipelines/traces/processors");
    assert!(!processors.contains(&"tail_sampling".into()), "{processors:?}");
}

/// The attributes of spans that the collector and the dashboards decide by.
fn attributes_asked_for() -> BTreeSet<String> {
    let collector = yaml(COLLECTOR);
    let policies = list(&collector, "/processors/tail_sampling/policies").iter();
    let mut asked: BTreeSet<String> = policies
        .filter_map(|policy| policy[string(policy, "/type")]["key"].as_str())
        .map(String::from)
        .collect();
    // TraceQL: `span.` and a name.
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    for query in text("observability/grafana/dashboards/traces.json").split("span.").skip(1) {
        asked.insert(query.chars().take_while(|c| is_part(*c)).collect());
    }
    asked
}

#[test]
fn the_attributes_that_traces_are_picked_by_are_those_of_the_service() {
    let spans = text("src/telemetry/spans.rs");
    let asked = attributes_asked_for();
    assert!(asked.len() >= 5, "{asked:?}");
    for name in asked {
        let set = [format!("\"{name}\""), format!(" {name} = ")];
        assert!(set.iter().any(|set| spans.contains(set)), "no span has {name}");
    }
}

#[test]
fn the_dashboards_find_the_sources_that_are_provisioned() {
    let sources = yaml("observability/grafana/provisioning/datasources/datasources.yaml");
    let kinds: Vec<&str> =
        list(&sources, "/datasources").iter().map(|source| string(source, "/type")).collect();
    assert_eq!(kinds, ["prometheus", "tempo", "loki"]);
    let dashboards = yaml("observability/grafana/provisioning/dashboards/dashboards.yaml");
    assert_eq!(list(&dashboards, "/providers").len(), 1);
}

/// The environment of a service of the compose file, its variables at their defaults.
fn environment(service: &Value) -> BTreeMap<String, String> {
    let value = |value: &Value| {
        let text = value.as_str().expect("text");
        match text.strip_prefix("${").and_then(|text| text.strip_suffix('}')) {
            Some(variable) => {
                let (_, default) = variable.split_once('-').expect("a default");
                default.to_owned()
            }
            None => text.to_owned(),
        }
    };
    let entries = map(service, "/environment").iter();
    entries.map(|(name, text)| (name.clone(), value(text))).collect()
}

#[tokio::test]
async fn the_compose_file_sets_only_what_the_program_understands() {
    let compose = yaml(COMPOSE);
    let told = run(&mut program(&["config", "--markdown"])).await.stdout;
    for service in ["migrate", "embedding-recovery"] {
        let service = &compose["services"][service];
        let environment = environment(service);
        assert!(environment.len() >= 4, "{environment:?}");
        for name in environment.keys() {
            let known =
                told.contains(&format!("`{name}`")) || OF_OPENTELEMETRY.contains(&name.as_str());
            assert!(known, "the program has no setting {name}");
        }
        let command = string(service, "/command/0");
        let mut config = program(&["config", "--json"]);
        let ended = run(config.envs(&environment)).await;
        assert_eq!(ended.code, Some(0), "{command}: {ended:?}");
        let help = run(&mut program(&[command, "--help"])).await;
        assert_eq!(help.code, Some(0), "there is no command {command}");
    }
}

#[test]
fn the_compose_file_mounts_what_exists_and_publishes_to_this_machine_only() {
    let compose = yaml(COMPOSE);
    let mut mounts = 0;
    for (name, service) in map(&compose, "/services") {
        for volume in list(service, "/volumes") {
            let from = volume.as_str().unwrap().split(':').next().unwrap();
            if let Some(from) = from.strip_prefix("../") {
                assert!(path(from).exists(), "{name} mounts {from}");
                mounts += 1;
            }
        }
        for port in list(service, "/ports") {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
        for needed in service["depends_on"].as_object().into_iter().flat_map(Map::keys) {
            assert!(compose["services"][needed].is_object(), "{name} waits for {needed}");
        }
    }
    assert!(mounts >= 6, "{mounts}");
    let targets = yaml("observability/prometheus/prometheus.yaml");
    for (pointer, service) in [
        ("/scrape_configs/0/static_configs/0/targets/0", "embedding-recovery"),
        ("/alerting/alertmanagers/0/static_configs/0/targets/0", "alertmanager"),
    ] {
        let (host, _) = string(&targets, pointer).split_once(':').unwrap();
        assert_eq!(host, service);
        assert!(compose["services"][service].is_object(), "{service}");
    }
}

#[test]
fn what_kubernetes_is_given_exists_and_scrapes_the_port_of_the_probes() {
    let folder = "observability/kubernetes";
    let kustomization = yaml(&format!("{folder}/kustomization.yaml"));
    for resource in list(&kustomization, "/resources") {
        let resource = path(folder).join(resource.as_str().unwrap());
        assert!(resource.exists(), "{}", resource.display());
    }
    let monitor = yaml(&format!("{folder}/service-monitor.yaml"));
    assert_eq!(string(&monitor, "/spec/endpoints/0/port"), "probes");
    let labels = map(&monitor, "/spec/selector/matchLabels");
    assert_eq!(labels["app.kubernetes.io/name"], "embedding-recovery");
}

#[test]
fn ports_of_the_files_are_those_of_the_program() {
    let default = ":9464";
    let scraped = yaml("observability/prometheus/prometheus.yaml");
    let target = string(&scraped, "/scrape_configs/0/static_configs/0/targets/0");
    assert!(target.ends_with(default), "{target}");
    let row = text("README.md");
    let row = row.lines().find(|line| line.contains("`EMBEDDING_RECOVERY_PROBE_LISTEN`")).unwrap();
    assert!(row.contains(default), "{row}");
}
