//! What the manifests set, asked of the program itself: it must know each setting and be able to mean
//! each value, and its commands must be what the containers run.

use std::collections::BTreeMap;

use embedding_recovery::ports::ImportedRecording;
use serde_json::Value;

use super::rules::{of_kind, pods};
use super::{OVERLAYS, at, list, name, parsed, rendered, root};
use crate::harness::TestDatabase;
use crate::harness::calls::call;
use crate::harness::program::{program, run};

/// What containers of the program are given, by their names.
pub fn environments(
    objects: &[Value],
) -> BTreeMap<String, (Vec<String>, BTreeMap<String, String>)> {
    let mut found = BTreeMap::new();
    for pods in pods(objects) {
        let ours = pods.containers().filter(|container| {
            at(container, "/image")
                .as_str()
                .is_some_and(|image| image.contains("embedding-recovery"))
        });
        for container in ours {
            let mut variables = BTreeMap::new();
            for from in list(at(container, "/envFrom")) {
                let map = format!("ConfigMap/{}", at(from, "/configMapRef/name").as_str().unwrap());
                let map = of_kind(objects, "ConfigMap").find(|object| name(object) == map).unwrap();
                for (variable, value) in at(map, "/data").as_object().unwrap() {
                    variables.insert(variable.clone(), value.as_str().unwrap().to_owned());
                }
            }
            for variable in list(at(container, "/env")) {
                // What a Secret holds is not there to be read; any URL will do.
                let value = at(variable, "/value").as_str().unwrap_or("postgres://db/calls");
                variables.insert(at(variable, "/name").as_str().unwrap().into(), value.into());
            }
            let args = list(at(container, "/args")).iter();
            let args = args.map(|arg| arg.as_str().unwrap().to_owned()).collect();
            let who = format!("{} {}", pods.owner, at(container, "/name").as_str().unwrap());
            found.insert(who, (args, variables));
        }
    }
    found
}

/// What is wrong with a container's settings and command, by the program.
async fn refused(args: &[String], variables: &BTreeMap<String, String>) -> Option<String> {
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--help"]).collect();
    let known = run(&mut program(&args)).await;
    if known.code != Some(0) {
        return Some(known.stderr);
    }
    let reference = run(&mut program(&["config", "--markdown"])).await.stdout;
    // Those of OpenTelemetry are a standard of their own.
    let ours = variables.keys().filter(|variable| !variable.starts_with("OTEL_"));
    let mut unknown =
        ours.filter(|variable| !reference.contains(&format!("| `{}` |", variable.as_str())));
    if let Some(variable) = unknown.next() {
        return Some(format!("{variable} is no setting"));
    }
    let mut config = program(&["config"]);
    // A key that lies in a file is not here; whether it is a key is not at issue.
    let given = variables.iter().filter(|(variable, _)| !variable.ends_with("_FILE"));
    config.envs(given);
    // Nor do all have one: who sends a message embeds nothing.
    if !variables.contains_key("EMBEDDING_MODEL") {
        config.env("OPENAI_API_KEY", "a-key");
    }
    let told = run(&mut config).await;
    (told.code != Some(0)).then_some(told.stdout + &told.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_knows_every_setting_and_every_command_of_the_manifests() {
    for overlay in OVERLAYS {
        let Some(yaml) = rendered(overlay) else { return };
        let found = environments(&parsed(&yaml));
        let containers = if overlay == "other" { 4 } else { 3 };
        assert_eq!(found.len(), containers, "{overlay}: {:?}", found.keys());
        for (who, (args, variables)) in &found {
            assert!(variables.contains_key("DATABASE_URL"), "{overlay}: {who} has no settings");
            assert_eq!(refused(args, variables).await, None, "{overlay}: {who}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_a_value_and_a_command_that_the_program_does_not_know_are_found() {
    let refuses = async |command: &str, variable: &str, value: &str| {
        let variables = [(variable, value), ("EMBEDDING_MODEL", "local")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let args: Vec<String> = command.split(' ').map(str::to_owned).collect();
        refused(&args, &variables.into()).await
    };
    assert_eq!(refuses("serve", "EMBEDDING_RECOVERY_LEASE_SECS", "60").await, None);
    for (command, variable, value, told) in [
        ("serve", "EMBEDDING_RECOVERY_LEASE_SECONDS", "60", "is no setting"),
        ("serve", "EMBEDDING_RECOVERY_LEASE_SECS", "a minute", "lease-secs"),
        ("serv", "EMBEDDING_RECOVERY_LEASE_SECS", "60", "serv"),
        ("migrate --await", "EMBEDDING_RECOVERY_LEASE_SECS", "60", "--await"),
    ] {
        let refused = refuses(command, variable, value).await;
        assert!(refused.as_ref().is_some_and(|why| why.contains(told)), "{command}: {refused:?}");
    }
}

/// The adapter's rule is applied to another cluster's part: nothing else holds it to the scaler.
#[tokio::test(flavor = "multi_thread")]
async fn the_adapter_gives_the_scaler_its_number_from_a_metric_of_the_program() {
    let component = root().join("deploy/kubernetes/components/horizontal-pod-autoscaler");
    let read = |name: &str| std::fs::read_to_string(component.join(name)).unwrap();
    let rules = &parsed(&read("adapter-rules.yaml"))[0];
    let scaler = &parsed(&read("horizontal-pod-autoscaler.yaml"))[0];
    let asked = at(scaler, "/spec/metrics/0/external/metric/name");
    assert_eq!(at(rules, "/externalRules/0/name/as"), asked);
    let series = at(rules, "/externalRules/0/seriesQuery").as_str().unwrap();
    let (metric, labels) = series.split_once('{').unwrap();
    let reference = run(&mut program(&["config", "--metrics"])).await.stdout;
    let line = reference.lines().find(|line| line.starts_with(&format!("| `{metric}` |")));
    let line = line.expect(metric);
    assert!(line.contains("| `state` |") && line.contains("`pending`"), "{line}");
    assert!(labels.contains("state=\"pending\""), "{labels}");
}

/// The query of the scaler, in a database with tasks in each state that counts or does not.
#[tokio::test(flavor = "multi_thread")]
async fn the_scaler_counts_what_could_be_worked_on_now() {
    let Some(yaml) = rendered("production") else { return };
    let objects = parsed(&yaml);
    let scaled = of_kind(&objects, "ScaledObject").next().unwrap();
    let query = at(scaled, "/spec/triggers/0/metadata/query").as_str().unwrap();
    let database = TestDatabase::new().await;
    let calls: Vec<ImportedRecording> = (1..=5).map(|id| call(id, 1)).collect();
    database.import(&calls).await;
    database
        .execute(
            "update embedding_queue set status = 'failed', next_retry_at = now() - interval '1 s' where recording_id = 1;
             update embedding_queue set status = 'failed', next_retry_at = now() + interval '1 h' where recording_id = 2;
             update embedding_queue set status = 'completed', completed_at = now() where recording_id = 3",
        )
        .await;
    let counted: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()))
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(counted, 3, "two are pending and one is due");
}
