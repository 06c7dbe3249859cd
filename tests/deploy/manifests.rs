//! The rules over the overlays, and over manifests that break them.

use serde_json::Value;

use super::rules::{
    monitors, of_kind, pods, pods_are_restricted, ports, references, selectors, volumes,
};
use super::{OVERLAYS, at, monitoring, parsed, rendered, root};

/// What must be there before production is applied; the README says how it gets there.
const PROVIDED: &[(&str, &[&str])] = &[
    ("embedding-recovery-database", &["url"]),
    ("embedding-recovery-openai", &["api-key"]),
    ("embedding-recovery-tokens", &["admin.token", "read.token"]),
];
/// Between the end of the grace for recordings and the kill: settling them, deleting what is dead,
/// and closing.
const CLOSING_SECS: u64 = 30;

fn provided(overlay: &str) -> &'static [(&'static str, &'static [&'static str])] {
    if overlay == "production" { PROVIDED } else { &[] }
}

/// Everything that the rules find.
fn broken(objects: &[Value], provided: &[(&str, &[&str])]) -> Vec<String> {
    [
        selectors(objects),
        ports(objects),
        volumes(objects),
        references(objects, provided),
        pods_are_restricted(objects),
        stopping(objects),
    ]
    .concat()
}

/// Pods that could be killed while they finish what they have.
fn stopping(objects: &[Value]) -> Vec<String> {
    let grace = of_kind(objects, "ConfigMap").find_map(|map| {
        at(map, "/data/EMBEDDING_RECOVERY_GRACE_SECS").as_str()?.parse::<u64>().ok()
    });
    let Some(grace) = grace else { return vec!["no ConfigMap says the grace".into()] };
    let mut broken = Vec::new();
    for pods in pods(objects) {
        let hooks = pods
            .containers()
            .filter_map(|container| at(container, "/lifecycle/preStop/sleep/seconds").as_u64());
        let Some(hook) = hooks.max() else { continue };
        let needed = hook + grace + CLOSING_SECS;
        let given = at(pods.spec, "/terminationGracePeriodSeconds").as_u64().unwrap_or(30);
        if given < needed {
            broken.push(format!("{} is killed after {given} s and needs {needed}", pods.owner));
        }
    }
    broken
}

#[test]
fn everything_that_an_overlay_names_is_there_and_every_pod_is_restricted() {
    for overlay in OVERLAYS {
        let Some(yaml) = rendered(overlay) else { return };
        let found = broken(&parsed(&yaml), provided(overlay));
        assert!(found.is_empty(), "{overlay}:\n{}", found.join("\n"));
    }
}

#[test]
fn every_component_is_in_some_overlay() {
    let mut kinds = Vec::new();
    for overlay in OVERLAYS {
        let Some(yaml) = rendered(overlay) else { return };
        let objects = parsed(&yaml);
        kinds.extend(
            objects.iter().filter_map(|object| at(object, "/kind").as_str()).map(str::to_owned),
        );
    }
    for kind in ["HorizontalPodAutoscaler", "CronJob", "ScaledObject"] {
        assert!(kinds.iter().any(|seen| seen == kind), "{kind} is in none");
    }
}

#[test]
fn an_upgrade_takes_nothing_away_and_production_says_which_program_it_runs() {
    for overlay in OVERLAYS {
        let Some(yaml) = rendered(overlay) else { return };
        let objects = parsed(&yaml);
        let deployment = of_kind(&objects, "Deployment").next().unwrap();
        assert_eq!(at(deployment, "/spec/strategy/rollingUpdate/maxUnavailable"), 0);
        let container = at(deployment, "/spec/template/spec/containers/0");
        let path = |probe: &str| at(container, &format!("/{probe}/httpGet/path")).clone();
        assert_eq!(path("startupProbe"), "/livez");
        assert_eq!(path("livenessProbe"), "/livez");
        assert_eq!(path("readinessProbe"), "/readyz");
        // The scaler's number and the manifest's would fight.
        let scalers = ["ScaledObject", "HorizontalPodAutoscaler"];
        let scalers: usize = scalers.map(|kind| of_kind(&objects, kind).count()).iter().sum();
        assert_eq!(at(deployment, "/spec/replicas").is_null(), scalers == 1, "{overlay}");
        assert_eq!(scalers, usize::from(overlay != "demo"), "{overlay}");
        // Above the longest wait for a migration: a rollout that only waits has not failed.
        assert_eq!(at(deployment, "/spec/progressDeadlineSeconds"), 3600, "{overlay}");
        for pods in pods(&objects).iter().filter(|_| overlay == "production") {
            for container in pods.containers() {
                let image = at(container, "/image").as_str().unwrap();
                let digest = image.split_once("@sha256:").map(|(_, digest)| digest.len());
                assert_eq!(digest, Some(64), "{}: {image}", pods.owner);
            }
        }
        if overlay == "production" {
            assert_eq!(of_kind(&objects, "Secret").count(), 0, "a secret is in the repository");
        }
    }
}

#[test]
fn the_readme_says_how_the_secrets_come_to_be_there() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for (secret, keys) in PROVIDED {
        let (_, rest) = readme.split_once(&format!("secret generic {secret}")).expect(secret);
        let command = rest.split("kubectl").next().unwrap();
        for key in *keys {
            assert!(command.contains(&format!("{key}=")), "{secret}: {key}: {command}");
        }
    }
}

/// A Job cannot be changed: if it named what a setting renames, no setting could be changed beside it.
#[test]
fn no_job_names_a_config_map_whose_name_changes_with_its_content() {
    for overlay in OVERLAYS {
        let Some(yaml) = rendered(overlay) else { return };
        let objects = parsed(&yaml);
        let jobs: Vec<_> = of_kind(&objects, "Job").collect();
        assert_eq!(jobs.len(), 1, "{overlay}");
        assert!(!jobs[0].to_string().contains("configMap"), "{overlay}: {}", jobs[0]);
    }
}

/// What scrapes is applied beside an overlay: it must find that one's Service.
#[test]
fn the_monitor_scrapes_the_service_and_would_not_find_another() {
    let (Some(overlay), Some(monitoring)) = (rendered("production"), monitoring()) else { return };
    let yaml = format!("{overlay}\n---\n{monitoring}");
    let objects = parsed(&yaml);
    assert_eq!(of_kind(&objects, "ServiceMonitor").count(), 1);
    assert_eq!(of_kind(&objects, "PrometheusRule").count(), 1);
    assert_eq!(monitors(&objects), [""; 0]);
    let mistakes: Vec<String> = objects.iter().flat_map(super::objects::mistakes).collect();
    assert!(mistakes.is_empty(), "{mistakes:?}");
    for (from, to, told) in [
        ("port: probes\n    scrape", "port: metrics\n    scrape", "a port \"metrics\""),
        (
            "namespace: embedding-recovery\nspec:\n  endpoints",
            "namespace: a\nspec:\n  endpoints",
            "selects 0",
        ),
    ] {
        assert!(yaml.contains(from), "there is no {from}");
        let found = monitors(&parsed(&yaml.replace(from, to)));
        assert!(found.iter().any(|line| line.contains(told)), "{to}: {found:?}");
    }
}

/// The demo's manifests with one thing wrong at a time.
#[test]
fn every_rule_finds_what_breaks_it() {
    let Some(good) = rendered("demo") else { return };
    for (from, to, told) in [
        (
            "selector:\n    app.kubernetes.io/component: service",
            "selector:\n    app.kubernetes.io/component: servce",
            "selects no pod",
        ),
        ("selector:\n    app.kubernetes.io/component: service\n", "selector:\n", "of 2 owners"),
        ("targetPort: probes", "targetPort: prbes", "names a port \"prbes\""),
        ("port: probes", "port: health", "names a port \"health\""),
        ("name: temporary", "name: temp", "volume temp "),
        ("serviceAccountName: embedding-recovery", "serviceAccountName: a", "no ServiceAccount/a"),
        ("key: password", "key: word", "Secret/postgres has no word"),
        ("name: embedding-recovery-settings-", "name: settings-", "there is no ConfigMap"),
        ("key: url", "key: uri", "has no uri"),
        ("runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot is false"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRoot"),
        ("enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks"),
        ("PeriodSeconds: 75", "PeriodSeconds: 45", "is killed after 45 s"),
        ("GRACE_SECS: \"30\"", "GRACE_SECS: \"300\"", "needs 335"),
    ] {
        assert!(good.contains(from), "the demo has no {from}");
        let found = broken(&parsed(&good.replacen(from, to, 1)), &[]);
        assert!(found.iter().any(|line| line.contains(told)), "{to}: {found:?}");
    }
}
