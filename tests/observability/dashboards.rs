//! The dashboards: each panel answers a question, and Grafana can load them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::expressions::Expression;
use super::{list, names, string, text};

const FOLDER: &str = "observability/grafana/dashboards";

/// A dashboard and the name of its file.
fn all() -> Vec<(String, Value)> {
    let read = |name: String| {
        let document = serde_json::from_str(&text(&format!("{FOLDER}/{name}"))).expect(&name);
        (name, document)
    };
    names(FOLDER, ".json").into_iter().map(read).collect()
}

/// The panels that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = list(dashboard, "/panels").iter();
    panels.filter(|panel| string(panel, "/type") != "row").collect()
}

/// Every PromQL expression of every panel.
pub(super) fn expressions() -> Vec<Expression> {
    let mut expressions = Vec::new();
    for (name, dashboard) in all() {
        for panel in panels(&dashboard) {
            for target in list(panel, "/targets") {
                if string(target, "/datasource/type") == "prometheus" {
                    let place = format!("{name}: {}", string(panel, "/title"));
                    let text = string(target, "/expr").to_owned();
                    expressions.push(Expression { place, text });
                }
            }
        }
    }
    expressions
}

#[test]
fn every_panel_answers_a_question_in_a_unit() {
    for (name, dashboard) in all() {
        assert!(panels(&dashboard).len() >= 8, "{name} is nearly empty");
        for panel in panels(&dashboard) {
            let place = format!("{name}: {}", string(panel, "/title"));
            let description = string(panel, "/description");
            assert!(description.contains('?'), "{place} answers no question: {description}");
            assert!(!list(panel, "/targets").is_empty(), "{place} asks for nothing");
            if string(panel, "/datasource/type") == "prometheus" {
                let unit = panel.pointer("/fieldConfig/defaults/unit");
                assert!(unit.is_some_and(Value::is_string), "{place} has no unit");
            }
        }
    }
}

#[test]
fn every_panel_reads_from_a_source_that_can_be_chosen() {
    for (name, dashboard) in all() {
        let variables: BTreeSet<&str> = list(&dashboard, "/templating/list")
            .iter()
            .inspect(|variable| assert_eq!(string(variable, "/type"), "datasource"))
            .map(|variable| string(variable, "/name"))
            .collect();
        for panel in panels(&dashboard) {
            let sources = list(panel, "/targets").iter().chain([panel]);
            for source in sources.map(|target| &target["datasource"]) {
                let kind = string(source, "/type");
                assert_eq!(string(source, "/uid"), format!("${{{kind}}}"), "{name}");
                assert!(variables.contains(kind), "{name} has no variable for {kind}");
            }
        }
    }
}

#[test]
fn no_two_panels_share_an_id_or_a_place() {
    let mut uids = BTreeSet::new();
    for (name, dashboard) in all() {
        assert!(uids.insert(string(&dashboard, "/uid").to_owned()), "{name}");
        let mut ids = BTreeSet::new();
        let mut cells = BTreeSet::new();
        for panel in list(&dashboard, "/panels") {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {}", panel["id"]);
            let side = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(side("x") + side("w") <= 24, "{name}: {panel}");
            for x in side("x")..side("x") + side("w") {
                for y in side("y")..side("y") + side("h") {
                    assert!(cells.insert((x, y)), "{name}: {} overlaps", panel["title"]);
                }
            }
        }
    }
}

#[test]
fn the_readme_says_which_question_each_dashboard_answers() {
    let readme = text("README.md");
    let files = text(&format!("{FOLDER}/kustomization.yaml"));
    for (name, dashboard) in all() {
        let title = string(&dashboard, "/title").strip_prefix("Embedding Recovery / ").unwrap();
        let row = format!("\n| {title} | {} |", string(&dashboard, "/description"));
        assert!(readme.contains(&row), "the README has no row:{row}");
        assert!(files.contains(&format!("- {name}\n")), "the ConfigMap has no {name}");
    }
}
