//! What the README says and could rot: settings, paths, tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::fakes::openai::FakeOpenAi;
use crate::harness::{TestDatabase, program};

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

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

async fn told_by(args: &[&str]) -> String {
    let ended = program::run(&mut program::program(args)).await;
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    ended.stdout
}

#[tokio::test]
async fn the_settings_are_those_that_the_program_tells() {
    let (readme, told) = (readme(), told_by(&["config", "--markdown"]).await);
    let (_, rest) = readme.split_once("<!-- settings -->\n").expect("the marker");
    let (settings, _) = rest.split_once("<!-- end of settings -->").expect("the end marker");
    assert_eq!(settings.trim(), told.trim(), "`.ci/settings` writes them anew");

    let mut named = variables(&readme);
    assert!(named.remove(OF_THE_TESTS), "the README does not say {OF_THE_TESTS}");
    let known = variables(&told);
    assert!(known.len() > 15, "only {known:?}");
    assert_eq!(named, known, "variables in the README (left) and known ones (right)");
}

#[tokio::test]
async fn the_metrics_are_those_that_the_program_tells() {
    let (readme, told) = (readme(), told_by(&["config", "--metrics"]).await);
    let (_, rest) = readme.split_once("<!-- metrics -->\n").expect("the marker");
    let (metrics, _) = rest.split_once("<!-- end of metrics -->").expect("the end marker");
    assert_eq!(metrics.trim(), told.trim(), "`.ci/settings` writes them anew");
}

#[tokio::test]
async fn the_value_of_every_setting_says_its_unit_or_kind() {
    let told = told_by(&["config", "--markdown"]).await;
    let rows: Vec<Vec<&str>> = told
        .lines()
        .filter(|line| line.starts_with("| `--"))
        .map(|line| line.trim_matches('|').split(" | ").collect())
        .collect();
    assert!(rows.len() > 20, "{told}");
    for row in rows {
        assert_eq!(row.len(), 5, "{row:?}");
        let (value, help) = (row[2].trim(), row[4].trim());
        assert!(value.len() > 1, "{row:?}: a value called N tells no unit: name it after that");
        assert!(!help.is_empty(), "{row:?} says nothing");
    }
}

#[tokio::test]
async fn every_command_is_in_the_readme() {
    let (readme, help) = (readme(), told_by(&["--help"]).await);
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
    let folders =
        ["src/", "tests/", "migrations/", ".ci/", ".github/", "deploy/", "observability/"];
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

/// The rows of a section's table whose last column names the tests that hold them.
fn held_rows(heading: &str) -> usize {
    let readme = readme();
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        read_all(&root().join(folder), &mut sources);
    }
    let rows: Vec<&str> = section(&readme, heading)
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip_while(|line| !line.ends_with("| held by |"))
        .skip(2)
        .collect();
    for row in &rows {
        let held_by = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let tests: Vec<&str> = quoted(held_by).collect();
        assert!(!tests.is_empty(), "no test holds: {row}");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "there is no test {test}");
        }
    }
    rows.len()
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    assert_eq!(held_rows("## Guarantees"), 10, "the guarantees are ten");
}

#[test]
fn every_failure_names_tests_that_exist() {
    assert!(held_rows("## When something fails") > 20);
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

/// The commands of the first blocks under a heading of the README, without what goes before them.
fn commands(heading: &str, program: &str) -> Vec<Vec<String>> {
    let readme = readme();
    let (_, rest) = readme.split_once(&format!("{heading}\n")).expect(heading);
    let block = rest.split("```sh\n").nth(1).unwrap().split("\n```").next().unwrap();
    let args = |line: &str| line.strip_prefix(program).map(|args| args.trim().to_owned());
    let lines = block.lines().filter_map(args);
    lines.map(|args| args.split_whitespace().map(str::to_owned).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_for_ones_own_calls_do_what_the_readme_says() {
    let directory = tempfile::Builder::new().permissions(reachable()).tempdir().unwrap();
    let readme = readme();
    let example = readme.split("```json\n").nth(1).unwrap().split("\n```").next().unwrap();
    fs::write(directory.path().join("calls.jsonl.gz"), example).unwrap();
    let commands = commands("### Your own calls", "cargo run --release --");
    assert_eq!(commands.len(), 3);
    for args in &commands {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = program::program(&args);
        command.current_dir(directory.path()).arg("--data-dir").arg(directory.path().join("data"));
        let ended = program::run(&mut command).await;
        assert_eq!(ended.code, Some(0), "{args:?}: {}{}", ended.stdout, ended.stderr);
        if args[0] == "search" {
            assert!(ended.stdout.contains("Kick-off"), "{}", ended.stdout);
        }
    }
}

fn reachable() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o711)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_for_ones_own_database_do_what_the_readme_says() {
    let (database, fake) = (TestDatabase::bare().await, FakeOpenAi::start(8));
    let commands = commands("### Your own database", "embedding-recovery");
    assert_eq!(commands.len(), 3);
    for args in &commands {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = database.program(&args);
        command.env("OPENAI_API_KEY", "sk-…").env("OPENAI_BASE_URL", fake.base_url());
        if args == ["serve"] {
            command.arg("--exit-when-idle");
        }
        let ended = program::run(&mut command).await;
        // `doctor` warns that nothing is embedded yet.
        let well = ended.code == Some(0) || args == ["doctor"] && ended.code == Some(1);
        assert!(well, "{args:?}: {}{}", ended.stdout, ended.stderr);
    }
}
