//! The rules: the alerts have the health model's thresholds, say what to do, and each is tested.

use std::collections::BTreeSet;

use embedding_recovery::domain::health::{Limits, Thresholds};
use serde_json::Value;

use super::expressions::Expression;
use super::{list, string, text, yaml};

/// The files, in the order in which they are evaluated.
pub(super) const FILES: [&str; 2] =
    ["observability/prometheus/rules/recording.yaml", "observability/prometheus/rules/alerts.yaml"];

/// Where the links begin, until somebody puts an address of their own in: the README says so.
const RUNBOOKS: &str = "https://runbooks.example/embedding-recovery/README.md#";

/// A rule of either kind.
pub(super) struct Rule {
    pub expression: Expression,
    /// What it records; `None` of an alert.
    pub record: Option<String>,
    /// Name of the alert; empty of a recording.
    pub alert: String,
    pub document: Value,
}

/// All rules.
pub(super) fn all() -> Vec<Rule> {
    let mut rules = Vec::new();
    for file in FILES {
        let document = yaml(file);
        let groups = list(&document, "/groups").iter();
        for rule in groups.flat_map(|group| list(group, "/rules")) {
            let name = |key: &str| rule[key].as_str().map(String::from);
            let (record, alert) = (name("record"), name("alert").unwrap_or_default());
            let place = format!("{file}: {}", record.as_deref().unwrap_or(&alert));
            let text = string(rule, "/expr").to_owned();
            let expression = Expression { place, text };
            rules.push(Rule { expression, record, alert, document: rule.clone() });
        }
    }
    rules
}

/// The alerts.
pub(super) fn alerts() -> Vec<Rule> {
    all().into_iter().filter(|rule| rule.record.is_none()).collect()
}

fn alert(name: &str) -> Rule {
    let found = alerts().into_iter().find(|rule| rule.alert == format!("EmbeddingRecovery{name}"));
    found.expect(name)
}

/// The anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_alert_says_how_bad_it_is_what_it_means_and_what_to_do() {
    let readme = text("README.md");
    let anchors: BTreeSet<String> =
        readme.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    let alerts = alerts();
    assert_eq!(alerts.len(), 20);
    for rule in alerts {
        let (name, document) = (&rule.alert, &rule.document);
        let severity = string(document, "/labels/severity");
        assert!(["warning", "critical"].contains(&severity), "{name}: {severity}");
        assert!(string(document, "/annotations/summary").len() > 10, "{name}");
        let description = string(document, "/annotations/description");
        assert!(description.ends_with('.'), "{name} must say what it means: {description}");
        let runbook = string(document, "/annotations/runbook_url");
        let anchor = runbook.strip_prefix(RUNBOOKS).unwrap_or_else(|| panic!("{name}: {runbook}"));
        assert!(anchors.contains(anchor), "{name}: the README has no chapter #{anchor}");
        let row = format!("\n| `{name}` | {severity} | ");
        let (_, told) = readme.split_once(&row).unwrap_or_else(|| panic!("no row for {name}"));
        let told = told.lines().next().unwrap();
        assert!(told.contains(&format!("(#{anchor})")), "{name}: the README links elsewhere");
    }
    assert!(readme.contains(RUNBOOKS.trim_end_matches("/README.md#")), "the base is not told");
}

#[test]
fn the_alerts_have_the_thresholds_of_the_health_model() {
    let Thresholds { dead_letters, retry_queue, idle } = Thresholds::default();
    let idle = Limits { warning: idle.warning.as_secs(), critical: idle.critical.as_secs() };
    for (names, limits) in [
        (["DeadLetters", "ManyDeadLetters"], dead_letters),
        (["Retries", "ManyRetries"], retry_queue),
        (["Idle", "IdleForLong"], idle),
    ] {
        let Limits { warning, critical } = limits;
        let [warns, alarms] = names.map(alert);
        let of_the_warning = format!(" >= {warning}) < {critical}");
        assert!(warns.expression.text.ends_with(&of_the_warning), "{:?}", warns.expression);
        assert_eq!(string(&warns.document, "/labels/severity"), "warning");
        let of_the_alarm = format!(" >= {critical}");
        assert!(alarms.expression.text.ends_with(&of_the_alarm), "{:?}", alarms.expression);
        assert_eq!(string(&alarms.document, "/labels/severity"), "critical");
    }
}

#[test]
fn the_rule_of_kubernetes_is_made_of_the_same_rules() {
    let object = yaml("observability/kubernetes/prometheus-rule.yaml");
    assert_eq!(string(&object, "/kind"), "PrometheusRule");
    let groups: Vec<Value> =
        FILES.iter().flat_map(|file| list(&yaml(file), "/groups").to_vec()).collect();
    assert_eq!(list(&object, "/spec/groups"), groups, "`.ci/rules` writes it anew");
}
