//! Checkers that others wrote, over the rendered manifests; each is shown something that it must
//! refuse, since one that finds nothing may not be looking.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::{OVERLAYS, monitoring, rendered, root, run, tool};
use crate::harness::program::Ended;

/// By the schemas of Kubernetes, of the newest version that the package has.
fn validated(yaml: &str) -> Option<Ended> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rendered.yaml");
    fs::write(&file, yaml).unwrap();
    Some(run(Command::new(tool("kubernetes-validate")?).arg("--strict").arg(file)))
}

/// By models of KEDA's and the Prometheus operator's schemas.
fn custom_validated(yaml: &str) -> Option<Ended> {
    let models = tool("cloudcoil-model-codegen")?;
    let mut command = Command::new(models.with_file_name("python"));
    command.arg(root().join("tests/deploy/custom_objects.py"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap().into())
}

/// By checkov, but for what `deploy/checkov.yaml` leaves out.
fn checkov(name: &str, text: &str) -> Option<Ended> {
    // It passes over folders whose name begins with a dot.
    let folder = tempfile::Builder::new().prefix("checked").tempdir().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    let mut command = Command::new(tool("checkov")?);
    command.args(["--framework", "kubernetes", "dockerfile", "--compact", "--quiet"]);
    command.arg("--skip-download").arg("--config-file").arg(root().join("deploy/checkov.yaml"));
    Some(run(command.arg("--directory").arg(folder.path()).env("LOG_LEVEL", "ERROR")))
}

fn assert_refused(ended: &Ended, told: &str) {
    assert!(ended.code != Some(0), "{told} is accepted: {ended:?}");
    assert!(ended.stdout.contains(told) || ended.stderr.contains(told), "{told}: {ended:?}");
}

#[test]
fn the_schemas_of_kubernetes_accept_every_overlay() {
    for overlay in OVERLAYS {
        let Some(yaml) = rendered(overlay) else { return };
        let Some(ended) = validated(&yaml) else { return };
        assert_eq!(ended.code, Some(0), "{overlay}: {}{}", ended.stdout, ended.stderr);
        let passed = format!("{}{}", ended.stdout, ended.stderr).matches(" passed ").count();
        assert!(passed > 10, "{overlay}: only {passed} objects were looked at");
    }
}

#[test]
fn the_schemas_of_kubernetes_refuse_what_they_do_not_have() {
    let Some(yaml) = rendered("demo") else { return };
    for (from, to, told) in [
        ("minReadySeconds: 5", "minReadySecs: 5", "minReadySecs"),
        ("maxUnavailable: 0", "maxUnavailable: [0]", "maxUnavailable"),
    ] {
        assert!(yaml.contains(from), "the demo has no {from}");
        let Some(ended) = validated(&yaml.replace(from, to)) else { return };
        assert_refused(&ended, told);
    }
}

#[test]
fn the_schemas_of_keda_and_prometheus_accept_ours_and_refuse_what_they_do_not_have() {
    let (Some(overlay), Some(monitoring)) = (rendered("production"), monitoring()) else { return };
    let yaml = format!("{overlay}\n---\n{monitoring}");
    let Some(ended) = custom_validated(&yaml) else { return };
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    // Each in an object of its own; one run takes seconds.
    let mistakes = [
        ("pollingInterval: 30", "pollInterval: 30", ".spec.pollInterval does not exist"),
        ("kind: TriggerAuthentication", "kind: TriggerAuth", "no kind TriggerAuth"),
        ("scrapeTimeout: 10s", "scrapeTime: 10s", ".spec.endpoints[0].scrapeTime does not exist"),
        ("summary:", "summaries: []\n        summary:", "annotations.summaries"),
    ];
    let bad = mistakes.iter().fold(yaml, |yaml, (from, to, _)| {
        assert!(yaml.contains(from), "nothing has {from}");
        yaml.replace(from, to)
    });
    let Some(ended) = custom_validated(&bad) else { return };
    for (_, _, told) in mistakes {
        assert_refused(&ended, told);
    }
}

#[test]
fn checkov_finds_nothing_but_what_is_left_out_for_a_reason() {
    let image = fs::read_to_string(root().join("deploy/Dockerfile")).unwrap();
    for overlay in OVERLAYS {
        let Some(yaml) = rendered(overlay) else { return };
        let Some(ended) = checkov("rendered.yaml", &yaml) else { return };
        assert_eq!(ended.code, Some(0), "{overlay}: {}", ended.stdout);
        assert!(ended.stdout.contains("Passed checks: "), "nothing was looked at: {ended:?}");
    }
    let Some(ended) = checkov("Dockerfile", &image) else { return };
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
}

#[test]
fn checkov_refuses_more_rights_a_writable_file_system_and_an_image_that_runs_as_root() {
    let Some(yaml) = rendered("demo") else { return };
    for (name, text, told) in [
        ("rendered.yaml", yaml.replace("Escalation: false", "Escalation: true"), "CKV_K8S_20"),
        (
            "rendered.yaml",
            yaml.replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
            "CKV_K8S_22",
        ),
        ("Dockerfile", "FROM debian:12\nCMD [\"sh\"]\n".to_owned(), "CKV_DOCKER_3"),
    ] {
        let Some(ended) = checkov(name, &text) else { return };
        assert_refused(&ended, told);
    }
}

#[test]
fn every_check_that_is_left_out_has_a_reason() {
    let settings = fs::read_to_string(root().join("deploy/checkov.yaml")).unwrap();
    let lines: Vec<&str> = settings.lines().map(str::trim).collect();
    let skipped = lines.iter().enumerate().filter(|(_, line)| line.starts_with("- CKV"));
    let reasons: Vec<bool> = skipped.map(|(at, _)| lines[at - 1].starts_with("# ")).collect();
    assert!(reasons.len() > 1 && reasons.iter().all(|reason| *reason), "{settings}");
}
