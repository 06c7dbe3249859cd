//! Migrations expand, then contract: while an upgrade rolls, the old program works on the new schema. What
//! takes something away from it waits for a later release, and says so.

use std::path::Path;

use super::source::is_word;

/// The last migration of the first release: what came before, no released program has seen.
const FIRST_RELEASE: u32 = 14;

/// What an old program would run into.
const CONTRACTING: [&str; 13] = [
    "drop table",
    "drop column",
    "drop view",
    "drop function",
    "drop index",
    "drop trigger",
    "drop type",
    "drop constraint",
    "drop default",
    "drop not null",
    "rename",
    "set not null",
    "add constraint",
];
/// The words with which a migration says that older programs are not served any more.
const SAYS_SO: &str = "update served_programs set oldest_version";

/// Statements that would break programs of the release before; none in a migration that says so.
fn contracting(sql: &str) -> Vec<String> {
    let code: String = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .flat_map(|line| line.split_whitespace().flat_map(|word| [word, " "]))
        .collect::<String>()
        .to_lowercase();
    if code.contains(SAYS_SO) {
        return Vec::new();
    }
    let mut found: Vec<String> = CONTRACTING
        .iter()
        .filter(|words| has_words(&code, words))
        .map(|words| (*words).to_owned())
        .collect();
    let statements = || code.split(';');
    if statements()
        .any(|statement| statement.contains("alter column") && has_words(statement, "type"))
    {
        found.push("a column of another type".into());
    }
    if statements().any(|statement| makes_unique(statement, &code)) {
        found.push("a unique index on a table that is there".into());
    }
    // Rows that the old program inserts do not have it.
    let columns = || statements().flat_map(|s| s.split(',')).filter(|c| has_words(c, "add column"));
    if columns().any(|column| has_words(column, "not null") && !has_words(column, "default")) {
        found.push("a column that must be given".into());
    }
    found
}

/// True where a statement forbids rows that the old program inserts; a table that the same migration
/// creates has none.
fn makes_unique(statement: &str, code: &str) -> bool {
    let Some((_, index)) = statement.split_once("create unique index") else { return false };
    let Some((_, table)) = index.split_once(" on ") else { return false };
    let table = table.split(|c: char| !is_word(c)).next().unwrap_or_default();
    !["create table", "create table if not exists"]
        .iter()
        .any(|create| has_words(code, &format!("{create} {table}")))
}

fn has_words(code: &str, words: &str) -> bool {
    code.match_indices(words).any(|(at, _)| {
        !code[..at].ends_with(is_word) && !code[at + words.len()..].starts_with(is_word)
    })
}

#[test]
fn migrations_after_the_first_release_only_add_or_say_whom_they_serve_no_more() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let number: u32 = name.split('_').next().unwrap().parse().unwrap();
        seen += 1;
        if number > FIRST_RELEASE {
            let found = contracting(&std::fs::read_to_string(&path).unwrap());
            assert!(found.is_empty(), "{name} takes from older programs: {}", found.join(", "));
        }
    }
    assert!(seen >= 9, "only {seen} migrations were found");
}

#[test]
fn a_migration_that_takes_something_away_is_found() {
    for (sql, found) in [
        ("alter table t drop column a;", &["drop column"][..]),
        ("ALTER TABLE t\n    RENAME a TO b", &["rename"]),
        ("alter table t alter column a type bigint", &["a column of another type"]),
        ("alter table t alter a set not null", &["set not null"]),
        (
            "alter table t add column a text, add column b int not null",
            &["a column that must be given"],
        ),
        ("alter table t add constraint c check (a > 0)", &["add constraint"]),
        ("alter table t drop constraint c", &["drop constraint"]),
        (
            "alter table t alter a drop default, alter b drop not null",
            &["drop default", "drop not null"],
        ),
        ("drop trigger r on t; drop type e", &["drop trigger", "drop type"]),
        ("create unique index i on t (a)", &["a unique index on a table that is there"]),
        ("create table t (a int); create unique index i on t (a)", &[]),
        ("drop function f; drop view v", &["drop view", "drop function"]),
        ("alter table t add column a int not null default 0, add column b text", &[]),
        ("create table t (a int not null); -- drop table t\ncreate index i on t (a)", &[]),
        ("update served_programs set oldest_version = '2.0.0'; drop table t", &[]),
    ] {
        assert_eq!(contracting(sql), found, "{sql}");
    }
}
