//! The workflows of GitHub: nobody runs them here, so they are at least read by a linter.

use std::fs;
use std::process::Command;

use super::{root, run, tool};
use crate::harness::program::Ended;

fn linted(text: &str) -> Option<Ended> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("workflow.yml");
    fs::write(&file, text).unwrap();
    // What it would run besides is not everywhere: the answer must not depend on it.
    let mut lint = Command::new(tool("actionlint")?);
    Some(run(lint.args(["-shellcheck=", "-pyflakes="]).arg(file).current_dir(root())))
}

#[test]
fn every_workflow_is_one_that_the_linter_accepts() {
    let mut workflows = 0;
    for entry in fs::read_dir(root().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let Some(ended) = linted(&fs::read_to_string(&path).unwrap()) else { return };
        assert_eq!(ended.code, Some(0), "{}: {}", path.display(), ended.stdout);
        workflows += 1;
    }
    assert!(workflows >= 2, "only {workflows} workflows");
}

#[test]
fn the_linter_refuses_a_step_that_waits_for_a_job_that_is_not_there() {
    let bad = "on: push\njobs:\n  a:\n    needs: b\n    runs-on: ubuntu-24.04\n    steps:\n      - run: 'true'\n";
    let Some(ended) = linted(bad) else { return };
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("\"b\""), "{ended:?}");
}

/// The program is released by the same tools from the workflow and in the image.
#[test]
fn the_image_and_the_release_take_the_same_versions_of_tools() {
    let image = fs::read_to_string(root().join("deploy/Dockerfile")).unwrap();
    let release = fs::read_to_string(root().join(".github/workflows/release.yml")).unwrap();
    let version = |text: &str| -> String {
        let (_, rest) = text.split_once("cargo-auditable@").expect("cargo-auditable");
        rest.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(version(&image), version(&release));
}
