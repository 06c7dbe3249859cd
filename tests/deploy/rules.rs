//! What must fit within the objects of an overlay: names that one uses and another has, and what every
//! pod keeps to. Each rule returns what breaks it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{at, list, name};

/// A template of pods and whose it is.
pub struct Pods<'a> {
    /// `kind/name` of its owner.
    pub owner: String,
    /// Labels of the pods.
    labels: &'a Value,
    /// Their specification.
    pub spec: &'a Value,
    /// Names of volumes that come from claim templates.
    claims: BTreeSet<&'a str>,
}

impl<'a> Pods<'a> {
    /// Containers that start before or run in the pods.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["/initContainers", "/containers"].into_iter().flat_map(|part| list(at(spec, part)))
    }

    fn port_names(&self) -> BTreeSet<&'a str> {
        self.containers()
            .flat_map(|container| list(at(container, "/ports")))
            .filter_map(|port| at(port, "/name").as_str())
            .collect()
    }
}

/// Every template of pods among the objects.
pub fn pods(objects: &[Value]) -> Vec<Pods<'_>> {
    let template = |object: &Value| match at(object, "/kind").as_str() {
        Some("Deployment" | "StatefulSet" | "Job") => Some("/spec/template"),
        Some("CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    };
    let owners = objects.iter().filter_map(|object| Some((object, template(object)?)));
    owners
        .map(|(object, template)| Pods {
            owner: name(object),
            labels: at(object, &format!("{template}/metadata/labels")),
            spec: at(object, &format!("{template}/spec")),
            claims: list(at(object, "/spec/volumeClaimTemplates"))
                .iter()
                .filter_map(|claim| at(claim, "/metadata/name").as_str())
                .collect(),
        })
        .collect()
}

/// Objects of a kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| at(object, "/kind") == kind)
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().into_iter().flatten();
    wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Selectors that select no pod, and Services whose pods are not of one owner.
pub fn selectors(objects: &[Value]) -> Vec<String> {
    let pods = pods(objects);
    let mut broken = Vec::new();
    let mut check = |who: String, selector: &Value, one_owner: bool| {
        let owners = pods.iter().filter(|pods| selects(selector, pods.labels)).count();
        match owners {
            0 => broken.push(format!("{who} selects no pod: {selector}")),
            2.. if one_owner => broken.push(format!("{who} selects pods of {owners} owners")),
            _ => {}
        }
    };
    for service in of_kind(objects, "Service") {
        check(name(service), at(service, "/spec/selector"), true);
    }
    for kind in ["Deployment", "StatefulSet", "PodDisruptionBudget"] {
        for object in of_kind(objects, kind) {
            check(name(object), at(object, "/spec/selector/matchLabels"), true);
        }
    }
    for policy in of_kind(objects, "NetworkPolicy") {
        check(name(policy), at(policy, "/spec/podSelector/matchLabels"), false);
        for peer in peers(policy).filter(|peer| at(peer, "/namespaceSelector").is_null()) {
            if !at(peer, "/podSelector").is_null() {
                check(name(policy), at(peer, "/podSelector/matchLabels"), false);
            }
        }
    }
    for pods in &pods {
        for spread in list(at(pods.spec, "/topologySpreadConstraints")) {
            let selector = at(spread, "/labelSelector/matchLabels");
            check(format!("{} spreads", pods.owner), selector, true);
        }
    }
    broken
}

/// Who a policy lets in, and whom it lets be reached.
fn peers(policy: &Value) -> impl Iterator<Item = &Value> {
    let rules = |way: &str| list(at(policy, &format!("/spec/{way}"))).iter();
    let from = rules("ingress").flat_map(|rule| list(at(rule, "/from")));
    from.chain(rules("egress").flat_map(|rule| list(at(rule, "/to"))))
}

/// Monitors that select no Service, or a port that those selected do not have.
pub fn monitors(objects: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    for monitor in of_kind(objects, "ServiceMonitor") {
        let selector = at(monitor, "/spec/selector/matchLabels");
        let services: Vec<&Value> = of_kind(objects, "Service")
            .filter(|service| selects(selector, at(service, "/metadata/labels")))
            .filter(|service| {
                at(service, "/metadata/namespace") == at(monitor, "/metadata/namespace")
            })
            .collect();
        if services.len() != 1 {
            broken.push(format!("{} selects {} Services", name(monitor), services.len()));
        }
        let ports: BTreeSet<Option<&str>> = services
            .iter()
            .flat_map(|service| list(at(service, "/spec/ports")))
            .map(|port| at(port, "/name").as_str())
            .collect();
        for endpoint in list(at(monitor, "/spec/endpoints")) {
            let port = at(endpoint, "/port");
            if !ports.contains(&port.as_str()) {
                broken.push(format!("{} names a port {port}, which no Service has", name(monitor)));
            }
        }
    }
    broken
}

/// Ports that are named and that no selected pod has.
pub fn ports(objects: &[Value]) -> Vec<String> {
    let pods = pods(objects);
    let mut broken = Vec::new();
    let mut check = |who: String, port: &Value, known: &BTreeSet<&str>| {
        if port.as_str().is_some_and(|port| !known.contains(port)) {
            broken.push(format!("{who} names a port {port}, which no pod has"));
        }
    };
    let known = |selector: &Value| -> BTreeSet<&str> {
        let selected = pods.iter().filter(|pods| selects(selector, pods.labels));
        selected.flat_map(Pods::port_names).collect()
    };
    for service in of_kind(objects, "Service") {
        for port in list(at(service, "/spec/ports")) {
            check(name(service), at(port, "/targetPort"), &known(at(service, "/spec/selector")));
        }
    }
    for policy in of_kind(objects, "NetworkPolicy") {
        let known = known(at(policy, "/spec/podSelector/matchLabels"));
        for rule in list(at(policy, "/spec/ingress")) {
            for port in list(at(rule, "/ports")) {
                check(name(policy), at(port, "/port"), &known);
            }
        }
    }
    for pods in &pods {
        for container in pods.containers() {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let port = at(container, &format!("/{probe}/httpGet/port"));
                check(format!("{}'s {probe}", pods.owner), port, &pods.port_names());
            }
        }
    }
    broken
}

/// Mounts of a volume that is not there, and volumes that nobody mounts.
pub fn volumes(objects: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    for pods in pods(objects) {
        let names = |part: &str, of: &'_ Value| -> Vec<String> {
            let found = list(at(of, part)).iter().filter_map(|one| at(one, "/name").as_str());
            found.map(str::to_owned).collect()
        };
        let mut there: BTreeSet<String> = names("/volumes", pods.spec).into_iter().collect();
        there.extend(pods.claims.iter().map(|claim| (*claim).to_owned()));
        let mounted: BTreeSet<String> =
            pods.containers().flat_map(|container| names("/volumeMounts", container)).collect();
        for volume in there.symmetric_difference(&mounted) {
            broken.push(format!("{}: volume {volume} is not both there and mounted", pods.owner));
        }
    }
    broken
}

/// ConfigMaps, Secrets, their keys, accounts and targets that are named and not there. `provided` are
/// Secrets, with their keys, that come from elsewhere.
pub fn references(objects: &[Value], provided: &[(&str, &[&str])]) -> Vec<String> {
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for object in objects {
        let data = at(object, "/data").as_object().into_iter().flatten();
        keys.insert(name(object), data.map(|(key, _)| key.clone()).collect());
    }
    for (secret, with) in provided {
        let with = with.iter().map(|key| (*key).to_owned()).collect();
        keys.insert(format!("Secret/{secret}"), with);
    }
    let mut broken = Vec::new();
    let mut check = |who: &str, kind: &str, named: &Value, key: &Value| {
        let Some(named) = named.as_str() else { return };
        match (keys.get(&format!("{kind}/{named}")), key.as_str()) {
            (None, _) => broken.push(format!("{who}: there is no {kind}/{named}")),
            (Some(keys), Some(key)) if !keys.contains(key) => {
                broken.push(format!("{who}: {kind}/{named} has no {key}"));
            }
            _ => {}
        }
    };
    for pods in pods(objects) {
        let who = pods.owner.as_str();
        check(who, "ServiceAccount", at(pods.spec, "/serviceAccountName"), &Value::Null);
        for volume in list(at(pods.spec, "/volumes")) {
            let secret = at(volume, "/secret/secretName");
            check(who, "Secret", secret, &Value::Null);
            for item in list(at(volume, "/secret/items")) {
                check(who, "Secret", secret, at(item, "/key"));
            }
            check(who, "ConfigMap", at(volume, "/configMap/name"), &Value::Null);
        }
        for container in pods.containers() {
            for from in list(at(container, "/envFrom")) {
                check(who, "ConfigMap", at(from, "/configMapRef/name"), &Value::Null);
                check(who, "Secret", at(from, "/secretRef/name"), &Value::Null);
            }
            for variable in list(at(container, "/env")) {
                let secret = at(variable, "/valueFrom/secretKeyRef");
                let needed = at(secret, "/optional") != true;
                let key = if needed { at(secret, "/key") } else { &Value::Null };
                check(who, "Secret", at(secret, "/name"), key);
            }
        }
    }
    for object in objects {
        let who = name(object);
        let target = at(object, "/spec/scaleTargetRef");
        let kind = at(target, "/kind").as_str().unwrap_or("Deployment");
        check(&who, kind, at(target, "/name"), &Value::Null);
        for trigger in list(at(object, "/spec/triggers")) {
            let authentication = at(trigger, "/authenticationRef/name");
            check(&who, "TriggerAuthentication", authentication, &Value::Null);
        }
        for secret in list(at(object, "/spec/secretTargetRef")) {
            check(&who, "Secret", at(secret, "/name"), at(secret, "/key"));
        }
    }
    broken
}

/// Pods that would not be admitted at the restricted level, or that do without what every pod has.
pub fn pods_are_restricted(objects: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    for pods in pods(objects) {
        let mut must = |value: &Value, wanted: Value, what: &str| {
            if *value != wanted {
                broken.push(format!("{}: {what} is {value}, not {wanted}", pods.owner));
            }
        };
        let spec = |pointer| at(pods.spec, pointer);
        must(spec("/automountServiceAccountToken"), false.into(), "automountServiceAccountToken");
        must(spec("/enableServiceLinks"), false.into(), "enableServiceLinks");
        must(spec("/securityContext/runAsNonRoot"), true.into(), "runAsNonRoot");
        let seccomp = spec("/securityContext/seccompProfile/type");
        must(seccomp, "RuntimeDefault".into(), "seccompProfile");
        for container in pods.containers() {
            let security = |name: &str| at(container, &format!("/securityContext/{name}"));
            must(security("allowPrivilegeEscalation"), false.into(), "allowPrivilegeEscalation");
            must(security("readOnlyRootFilesystem"), true.into(), "readOnlyRootFilesystem");
            must(security("capabilities/drop"), serde_json::json!(["ALL"]), "capabilities/drop");
            for resource in ["requests/cpu", "requests/memory", "limits/memory"] {
                let given = at(container, &format!("/resources/{resource}")).is_string();
                must(&given.into(), true.into(), resource);
            }
        }
    }
    broken
}
