//! What Prometheus's and Alertmanager's own tools say about the files; a printed skip where they are
//! not installed.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::rules::{FILES, alerts};
use super::{list, names, path, string, text, yaml};
use crate::harness::skipped;

const FOLDER: &str = "observability/prometheus";

/// A tool by name, or `None` with a printed reason.
pub(super) fn tool(name: &str) -> Option<Command> {
    either(&[name])
}

/// A tool by the first of its names that is installed.
pub(super) fn either(names: &[&str]) -> Option<Command> {
    let is_there = |name: &str| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let found = names.iter().find(|name| is_there(name));
    if found.is_none() {
        skipped(&format!("{} is not installed", names[0]));
    }
    found.map(Command::new)
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Whether `promtool` with these arguments is content in a folder, and what it says.
fn promtool(args: &[&str], folder: &Path) -> Option<(bool, String)> {
    let output = tool("promtool")?.args(args).current_dir(folder).output().unwrap();
    Some((output.status.success(), told(&output)))
}

fn amtool(file: &Path) -> Option<(bool, String)> {
    let output = tool("amtool")?.arg("check-config").arg(file).output().unwrap();
    Some((output.status.success(), told(&output)))
}

/// The tests of the rules, as `promtool` is told them.
fn tests() -> Vec<String> {
    let names = names(&format!("{FOLDER}/tests"), ".yaml");
    names.into_iter().map(|name| format!("tests/{name}")).collect()
}

#[test]
fn promtool_accepts_the_configuration_and_every_rule() {
    let folder = path(FOLDER);
    let Some((well, told)) = promtool(&["check", "config", "prometheus.yaml"], &folder) else {
        return;
    };
    assert!(well, "{told}");
    assert!(told.contains("20 rules found"), "the rules are not read: {told}");
}

#[test]
fn every_alert_fires_on_its_series_and_is_silent_below() {
    let tests = tests();
    let mut args = vec!["test", "rules"];
    args.extend(tests.iter().map(String::as_str));
    let Some((well, told)) = promtool(&args, &path(FOLDER)) else { return };
    assert!(well, "{told}");
}

/// A copy of rules and tests in which one alert has another expression.
fn altered(alert: &str, expression: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["rules", "tests"] {
        std::fs::create_dir(copy.path().join(folder)).unwrap();
    }
    for test in tests() {
        std::fs::write(copy.path().join(&test), text(&format!("{FOLDER}/{test}"))).unwrap();
    }
    for file in FILES {
        let mut document = yaml(file);
        for group in document["groups"].as_array_mut().unwrap() {
            for rule in group["rules"].as_array_mut().unwrap() {
                if rule["alert"] == alert {
                    rule["expr"] = expression.into();
                }
            }
        }
        let to = copy.path().join("rules").join(Path::new(file).file_name().unwrap());
        // JSON is YAML.
        std::fs::write(to, document.to_string()).unwrap();
    }
    copy
}

#[test]
fn every_alert_is_expected_by_one_look_and_not_by_another() {
    let looks: Vec<Value> = tests()
        .iter()
        .flat_map(|test| list(&yaml(&format!("{FOLDER}/{test}")), "/tests").to_vec())
        .flat_map(|group| list(&group, "/promql_expr_test").to_vec())
        .collect();
    // Each look names all that fire then: an alert that never or always fires is found by one.
    for look in &looks {
        let expression = look["expr"].as_str().unwrap();
        assert!(expression.starts_with("sum by (alertname, ") && expression.contains("ALERTS{"));
    }
    for alert in alerts() {
        let labels = format!("alertname=\"{}\"", alert.alert);
        let expects = |look: &&Value| {
            let mut samples = list(look, "/exp_samples").iter();
            samples.any(|sample| string(sample, "/labels").contains(&labels))
        };
        let expecting = looks.iter().filter(expects).count();
        assert!(expecting > 0 && expecting < looks.len(), "{}: {expecting}", alert.alert);
    }
}

#[test]
fn an_alert_that_never_or_always_fires_fails_its_tests() {
    let tests = tests();
    let mut args = vec!["test", "rules"];
    args.extend(tests.iter().map(String::as_str));
    let unaltered = altered("none", "");
    let Some((well, told)) = promtool(&args, unaltered.path()) else { return };
    assert!(well, "the copy itself is refused: {told}");
    for expression in ["vector(1) > 1", "vector(1)"] {
        let copy = altered("EmbeddingRecoveryPaused", expression);
        let (well, told) = promtool(&args, copy.path()).unwrap();
        assert!(!well && told.contains("FAILED"), "{expression} is not noticed: {told}");
    }
}

#[test]
fn promtool_refuses_a_rule_that_is_no_promql() {
    let folder = tempfile::tempdir().unwrap();
    let rules =
        json!({ "groups": [{ "name": "a", "rules": [{ "record": "b", "expr": "sum(" }] }] });
    std::fs::write(folder.path().join("rules.yaml"), rules.to_string()).unwrap();
    let Some((well, told)) = promtool(&["check", "rules", "rules.yaml"], folder.path()) else {
        return;
    };
    assert!(!well && told.contains("parse error"), "{told}");
}

#[test]
fn amtool_accepts_the_routes_and_refuses_one_without_its_receiver() {
    let file = "observability/alertmanager/alertmanager.yaml";
    let Some((well, told)) = amtool(&path(file)) else { return };
    assert!(well, "{told}");
    let mut document = yaml(file);
    document["route"]["routes"][0]["receiver"] = "nobody".into();
    let broken = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(broken.path(), document.to_string()).unwrap();
    let (well, told) = amtool(broken.path()).unwrap();
    assert!(!well && told.contains("nobody"), "{told}");
}

#[test]
fn secrets_of_the_receivers_are_files_and_all_three_are_there() {
    let document = yaml("observability/alertmanager/alertmanager.yaml");
    let mut files: Vec<&Value> = vec![&document["global"]["smtp_auth_password_file"]];
    let mut mails = 0;
    for receiver in list(&document, "/receivers") {
        let slack = list(receiver, "/slack_configs").iter();
        files.extend(slack.map(|config| &config["api_url_file"]));
        mails += list(receiver, "/email_configs").len();
    }
    let named: Vec<&str> = files.iter().map(|file| file.as_str().expect("a file")).collect();
    for secret in ["smtp_password", "slack_webhook_url", "discord_webhook_url"] {
        assert!(named.contains(&format!("/run/secrets/{secret}").as_str()), "{named:?}");
    }
    assert_eq!(mails, 1);
}

/// This very binary, where no tool is on the PATH.
#[test]
fn a_test_that_skips_says_so_past_the_runner_and_fails_where_nothing_may_be_skipped() {
    let without_tools = |denied: Option<&str>| {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "observability::tools::promtool_refuses_a_rule_that_is_no_promql"]);
        test.env("PATH", "").env_remove("TEST_NOTHING_SKIPPED");
        test.envs(denied.map(|value| ("TEST_NOTHING_SKIPPED", value))).output().unwrap()
    };
    let passed = without_tools(None);
    assert!(passed.status.success(), "{passed:?}");
    assert!(String::from_utf8_lossy(&passed.stdout).contains("1 passed"), "{passed:?}");
    let said = String::from_utf8_lossy(&passed.stderr);
    assert!(said.contains("skipped: promtool is not installed\n"), "{said}");
    let failed = without_tools(Some("1"));
    assert!(!failed.status.success(), "{failed:?}");
    assert!(told(&failed).contains("nothing may be"), "{failed:?}");
}
