//! Each object, against the types of Kubernetes itself: a field that does not exist is a mistake that a
//! cluster passes over in silence.

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{OVERLAYS, at, name, parsed, rendered};

/// Kinds that others define; `checkers.rs` has their schemas.
const CUSTOM: [&str; 4] =
    ["ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PrometheusRule"];

/// What is wrong with an object by the types: an unknown kind, a value of another type, or fields that
/// the type does not have.
pub fn mistakes(object: &Value) -> Vec<String> {
    let kind = at(object, "/kind").as_str().unwrap_or_default();
    let version = at(object, "/apiVersion").as_str().unwrap_or_default();
    let found = match (version, kind) {
        ("apps/v1", "Deployment") => strictly::<Deployment>(object),
        ("apps/v1", "StatefulSet") => strictly::<StatefulSet>(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => {
            strictly::<HorizontalPodAutoscaler>(object)
        }
        ("batch/v1", "CronJob") => strictly::<CronJob>(object),
        ("batch/v1", "Job") => strictly::<Job>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => strictly::<NetworkPolicy>(object),
        ("policy/v1", "PodDisruptionBudget") => strictly::<PodDisruptionBudget>(object),
        ("v1", "ConfigMap") => strictly::<ConfigMap>(object),
        ("v1", "Namespace") => strictly::<Namespace>(object),
        ("v1", "Secret") => strictly::<Secret>(object),
        ("v1", "Service") => strictly::<Service>(object),
        ("v1", "ServiceAccount") => strictly::<ServiceAccount>(object),
        (_, kind) if CUSTOM.contains(&kind) => Vec::new(),
        _ => vec![format!("nobody here knows {kind} of {version}")],
    };
    found.into_iter().map(|mistake| format!("{}: {mistake}", name(object))).collect()
}

fn strictly<T: DeserializeOwned>(object: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let parsed = serde_ignored::deserialize::<_, _, T>(object, |path| {
        unknown.push(format!("{path} does not exist"));
    });
    unknown.extend(parsed.err().map(|error| error.to_string()));
    unknown
}

#[test]
fn every_object_has_only_fields_that_kubernetes_knows() {
    for overlay in OVERLAYS {
        let Some(yaml) = rendered(overlay) else { return };
        let objects = parsed(&yaml);
        assert!(objects.len() > 10, "{overlay} has only {} objects", objects.len());
        let found: Vec<String> = objects.iter().flat_map(mistakes).collect();
        assert!(found.is_empty(), "{overlay}:\n{}", found.join("\n"));
    }
}

#[test]
fn a_field_of_another_name_type_or_depth_is_found() {
    let good = "
apiVersion: v1
kind: Service
metadata: {name: api}
spec:
  selector: {app: api}
  ports: [{name: api, port: 8080}]
";
    assert_eq!(mistakes(&parsed(good)[0]), [""; 0]);
    for (from, to, told) in [
        ("selector:", "selectors:", ".selectors does not exist"),
        ("port: 8080", "port: 8080, target: 1", ".target does not exist"),
        ("port: 8080", "port: http", "invalid type"),
        ("kind: Service", "kind: Servce", "nobody here knows Servce"),
        ("apiVersion: v1", "apiVersion: v2", "nobody here knows Service of v2"),
    ] {
        let bad = good.replace(from, to);
        let found = mistakes(&parsed(&bad)[0]);
        assert!(found.iter().any(|mistake| mistake.contains(told)), "{to}: {found:?}");
    }
}
