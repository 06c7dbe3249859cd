//! The image. Nothing here can build one; what can be read of it is held against what it depends on.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::rules::{of_kind, pods};
use super::{at, parsed, rendered, root, run, tool};
use crate::harness::program::Ended;

fn dockerfile() -> String {
    fs::read_to_string(root().join("deploy/Dockerfile")).unwrap()
}

fn linted(text: &str) -> Option<Ended> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Dockerfile");
    fs::write(&file, text).unwrap();
    Some(run(Command::new(tool("hadolint")?).arg(file)))
}

#[test]
fn the_dockerfile_is_one_that_the_linter_accepts() {
    let Some(ended) = linted(&dockerfile()) else { return };
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
}

#[test]
fn the_linter_refuses_an_image_without_a_version_and_packages_without_one() {
    for (bad, told) in [
        ("FROM debian\n", "DL3006"),
        ("FROM debian:12\nRUN apt-get install -y curl\n", "DL3008"),
        ("FROM debian:12\nENTRYPOINT serve\n", "DL3025"),
    ] {
        let Some(ended) = linted(bad) else { return };
        assert!(ended.code != Some(0) && ended.stdout.contains(told), "{bad}: {ended:?}");
    }
}

#[test]
fn the_image_has_the_version_and_the_compiler_of_the_manifest() {
    let (image, manifest) = (dockerfile(), fs::read_to_string(root().join("Cargo.toml")).unwrap());
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(image.contains(&format!("FROM rust:{rust}-")), "not Rust {rust}");
    assert!(manifest.contains(&format!("rust-version = \"{rust}\"")));
    assert!(image.contains(concat!("ARG VERSION=", env!("CARGO_PKG_VERSION"), "\n")));
}

/// Names of users mean nothing to the kubelet, which must know that it is not root.
#[test]
fn the_image_runs_as_the_user_of_the_manifests() {
    let image = dockerfile();
    let user = image.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    let Some(yaml) = rendered("production") else { return };
    let objects = parsed(&yaml);
    let mut owners = 0;
    for pods in pods(&objects) {
        let id = |name| at(pods.spec, &format!("/securityContext/{name}")).as_u64().unwrap();
        assert_eq!(user, format!("{}:{}", id("runAsUser"), id("runAsGroup")), "{}", pods.owner);
        owners += 1;
    }
    assert_eq!(owners, 2);
    // And it listens where the image says that it does.
    let deployment = of_kind(&objects, "Deployment").next().unwrap();
    for (index, port) in ["8080", "9464"].iter().enumerate() {
        let pointer = format!("/spec/template/spec/containers/0/ports/{index}/containerPort");
        assert_eq!(at(deployment, &pointer).to_string(), *port);
        assert!(image.contains("EXPOSE 8080 9464\n"));
    }
}

/// What is not let into the context cannot be copied: each path that is must exist.
#[test]
fn the_context_has_only_what_the_build_reads() {
    let ignored = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let rules: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(rules[0], "*", "everything is left out first");
    for rule in &rules[1..] {
        let path = rule.strip_prefix('!').expect("then only let in");
        assert!(root().join(path).exists(), "{path} is not there");
    }
    let is_let_in = |path: &str| {
        let rules = rules.iter().filter_map(|rule| rule.strip_prefix('!'));
        rules.into_iter().any(|rule| Path::new(path).starts_with(rule))
    };
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let targets = manifest.lines().filter_map(|line| line.strip_prefix("path = \""));
    let targets: Vec<&str> = targets.map(|path| path.trim_end_matches('"')).collect();
    assert!(targets.len() >= 3, "{targets:?}");
    for path in targets {
        assert!(is_let_in(path), "Cargo.toml names {path}, which the build would not find");
    }
    let included = included_files();
    assert!(included.iter().any(|path| path == "samples/calls.jsonl"), "{included:?}");
    for path in included {
        assert!(is_let_in(&path), "the source has {path} in it, which the build would not find");
    }
}

/// The files that the source takes in as they are, from the root of the repository.
fn included_files() -> Vec<String> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(root().join("src")) {
        let path = entry.unwrap().into_path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        for macro_name in ["include_bytes!(", "include_str!("] {
            for rest in source.split(macro_name).skip(1) {
                let name = rest.split('"').nth(1).unwrap();
                let file = path.parent().unwrap().join(name).canonicalize().unwrap();
                let file = file.strip_prefix(root().canonicalize().unwrap()).unwrap();
                found.push(file.to_string_lossy().into_owned());
            }
        }
    }
    found
}

#[test]
fn the_licences_of_what_is_linked_are_told_with_their_texts() {
    let ended = run(Command::new("bash").arg("deploy/licences").current_dir(root()));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let parts: Vec<&str> = ended.stdout.split("\n================ ").skip(1).collect();
    assert!(parts.len() > 150, "only {} packages", parts.len());
    for package in ["tokio ", "sqlx ", "ring ", "uPlot", "all-MiniLM-L6-v2"] {
        assert!(parts.iter().any(|part| part.starts_with(package)), "{package} is missing");
    }
    // Of the tests alone: not in the program.
    assert!(!parts.iter().any(|part| part.starts_with("fantoccini ")));
    let without = parts.iter().filter(|part| part.contains("carries no text")).count();
    assert!(
        without < parts.len() / 10,
        "{without} packages have no text: are they looked for right?"
    );
    for part in parts {
        let (head, rest) = part.split_once('\n').unwrap();
        assert!(head.contains(": ") && !rest.trim().is_empty(), "{head}");
    }
}
