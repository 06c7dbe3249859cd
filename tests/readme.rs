//! What the README says and could rot: settings, paths, tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::program;

/// Commands whose settings are told.
const COMMANDS: [&str; 8] =
    ["", "demo", "migrate", "import", "enqueue", "serve", "search", "verify"];
/// How the names of the program's own variables begin.
const PREFIXES: [&str; 4] = ["EMBEDDING_", "OPENAI_", "DATABASE_", "TEST_DATABASE_"];
/// Named in the README, and no setting of the program: the tests read it.
const OF_THE_TESTS: &str = "TEST_DATABASE_URL";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// The part of the README under a heading, up to the next one of its rank.
fn section<'a>(readme: &'a str, heading: &str) -> &'a str {
    let rank = heading.split(' ').next().unwrap();
    let (_, rest) = readme.split_once(&format!("\n{heading}\n")).expect(heading);
    rest.split(&format!("\n{rank} ")).next().unwrap()
}

/// Words of capitals, digits and underscores that begin like a variable of ours.
fn variables(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(|c: char| !is_part(c))
        .filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

/// Long flags in backquotes, or in the help at the start of a line.
fn flags(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
        .filter(|word| word.starts_with("--") && word.len() > 3)
        .collect()
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

async fn help(command: &str) -> String {
    let args: Vec<&str> = [command, "--help"].into_iter().filter(|arg| !arg.is_empty()).collect();
    let ended = program::run(&mut program::program(&args)).await;
    assert_eq!(ended.code, Some(0), "{command} --help: {}", ended.stderr);
    ended.stdout
}

async fn all_help() -> String {
    let mut text = String::new();
    for command in COMMANDS {
        text += &help(command).await;
    }
    text
}

#[tokio::test]
async fn every_setting_is_in_the_readme_and_in_the_help() {
    let (readme, help) = (readme(), all_help().await);
    let mut told = variables(&readme);
    assert!(told.remove(OF_THE_TESTS), "the README does not say {OF_THE_TESTS}");
    let known = variables(&help);
    assert!(known.len() > 15, "the help names only {known:?}");
    assert_eq!(told, known, "variables in the README (left) and in --help (right)");

    let told = flags(section(&readme, "## Settings"));
    let known = flags(&help);
    let unknown: Vec<_> = told.difference(&known).filter(|flag| **flag != "--help").collect();
    assert!(unknown.is_empty(), "--help does not know {unknown:?}");
    let exempt = ["--help", "--version", "--json", "--recording", "--missing", "--all"];
    let untold: Vec<_> = known.difference(&told).filter(|flag| !exempt.contains(flag)).collect();
    assert!(untold.is_empty(), "the README's settings do not name {untold:?}");
}

#[tokio::test]
async fn every_command_is_in_the_readme() {
    let (readme, help) = (readme(), help("").await);
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() >= 5, "{commands:?}");
    for command in commands {
        assert!(readme.contains(&format!("\n| `{command}")), "the README has no row for {command}");
    }
}

#[test]
fn every_path_in_the_readme_exists() {
    let readme = readme();
    let folders = ["src/", "tests/", "migrations/", ".ci/", ".github/"];
    let paths: Vec<&str> = quoted(&readme)
        .filter(|word| folders.iter().any(|folder| word.starts_with(folder)))
        .collect();
    assert!(paths.len() > 20, "the tour is short: {paths:?}");
    for path in paths {
        assert!(root().join(path).exists(), "the README names {path}, which does not exist");
    }
    for word in ["LICENSE", ".sqlx"] {
        assert!(readme.contains(&format!("`{word}`")) && root().join(word).exists(), "{word}");
    }
}

#[test]
fn every_test_in_the_table_of_guarantees_exists() {
    let readme = readme();
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        read_all(&root().join(folder), &mut sources);
    }
    let rows: Vec<&str> = section(&readme, "## Guarantees")
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit())
        .collect();
    assert_eq!(rows.len(), 10, "the guarantees are ten");
    for row in rows {
        let held_by = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let tests: Vec<&str> = quoted(held_by).collect();
        assert!(!tests.is_empty(), "no test holds: {row}");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "there is no test {test}");
        }
    }
}

#[test]
fn exactly_one_command_is_marked_as_the_test_command() {
    let readme = readme();
    let marked: Vec<&str> = readme.split("<!-- test -->\n").skip(1).collect();
    assert_eq!(marked.len(), 1);
    let block = marked[0].strip_prefix("```sh\n").expect("a fenced block follows the marker");
    let command = block.split("\n```").next().unwrap();
    assert_eq!(command.lines().count(), 1);
    assert!(command.starts_with("cargo test"), "{command}");
}

fn read_all(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *text += &fs::read_to_string(path).unwrap();
        }
    }
}
