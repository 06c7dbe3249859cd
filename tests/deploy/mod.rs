//! The manifests and the image: what a cluster would refuse, or what would not work in it, is found
//! here, where there is no cluster. `.ci/deploy-tools` installs what renders and checks them.

mod checkers;
mod image;
mod kubelet;
mod laptop;
mod manifests;
mod objects;
mod rehearsal;
mod rules;
mod settings;
mod workflows;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::program::Ended;
use crate::harness::{skipped, skipped_for_good_reason};

/// Everything that can be applied: the overlays of the repository, and one of the components that neither
/// of them takes.
const OVERLAYS: [&str; 3] = ["demo", "production", "other"];
/// What is in that one.
const OTHER: &str = "
resources: [../demo]
components: [../../components/horizontal-pod-autoscaler, ../../components/cluster-cron]
";

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program that `.ci/deploy-tools` installs, or `None`, said once, where it did not.
pub fn tool(name: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let found = ["deploy-tools", "deploy-tools-checkov"]
        .iter()
        .map(|folder| target.join(folder).join("bin").join(name))
        .find(|path| path.exists());
    if found.is_none() {
        let what = format!("no {name}; `bash .ci/deploy-tools` installs it");
        // It takes minutes to install, so that it is not everywhere.
        if name == "checkov" { skipped_for_good_reason(&what) } else { skipped(&what) }
    }
    found
}

/// The objects of an overlay as `kubectl apply -k` would send them, as YAML; `None` without kubectl.
pub fn rendered(overlay: &str) -> Option<String> {
    if overlay != "other" {
        return rendered_folder(&root().join("deploy/kubernetes/overlays").join(overlay));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut copy = Command::new("cp");
    let copied = copy.arg("-r").arg(root().join("deploy/kubernetes")).arg(folder.path()).status();
    assert!(copied.unwrap().success());
    let overlay = folder.path().join("kubernetes/overlays/other");
    std::fs::create_dir(&overlay).unwrap();
    std::fs::write(overlay.join("kustomization.yaml"), OTHER).unwrap();
    rendered_folder(&overlay)
}

/// The same of what the Prometheus operator and Grafana read.
fn monitoring() -> Option<String> {
    rendered_folder(&root().join("observability/kubernetes"))
}

/// The same of any folder with a kustomization.
fn rendered_folder(folder: &Path) -> Option<String> {
    let ended = run(Command::new(tool("kubectl")?).arg("kustomize").arg(folder));
    assert_eq!(ended.code, Some(0), "{}: {}", folder.display(), ended.stderr);
    Some(ended.stdout)
}

/// The objects in a text of YAML documents.
pub fn parsed(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

/// What is at a JSON pointer of an object, or null.
pub fn at<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

/// The texts in a list.
fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `kind/name` of an object.
fn name(object: &Value) -> String {
    let part = |pointer| at(object, pointer).as_str().unwrap_or("?");
    format!("{}/{}", part("/kind"), part("/metadata/name"))
}

fn run(command: &mut Command) -> Ended {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")).into()
}
