//! The rules of the house: who may import whom, where each crate is at home, and what every file of
//! `src/` is like. The sources are read as text; each finding names its file and line.

mod migrations;
mod rules;
mod source;

use rules::{Finding, Layer};
use source::Source;

/// Which layers a layer may name besides itself. What is not listed here does not exist.
const LAYERS: &[Layer] = &[
    Layer { name: "domain", may_use: &[] },
    Layer { name: "ports", may_use: &["domain"] },
    Layer { name: "admin", may_use: &["domain", "ports"] },
    Layer { name: "actors", may_use: &["domain", "ports", "telemetry"] },
    Layer { name: "postgres", may_use: &["domain", "ports"] },
    Layer { name: "embedded", may_use: &["domain", "ports"] },
    Layer { name: "embedders", may_use: &["domain", "ports", "telemetry"] },
    Layer { name: "import", may_use: &["domain", "ports"] },
    Layer { name: "telemetry", may_use: &["domain", "ports"] },
    Layer { name: "config", may_use: &["domain"] },
    Layer {
        name: "app",
        may_use: &[
            "actors",
            "admin",
            "config",
            "domain",
            "embedded",
            "embedders",
            "ports",
            "postgres",
            "telemetry",
        ],
    },
    // The commands over the database and files speak to those directly, through what `app` opened.
    Layer {
        name: "cli",
        may_use: &["app", "config", "domain", "import", "ports", "postgres", "telemetry"],
    },
    Layer { name: "main", may_use: &["cli"] },
];

/// Where a crate may be named: a layer, a file, or a folder with its slash. Others go anywhere but
/// into the domain.
const HOMES: &[(&str, &[&str])] = &[
    ("sqlx", &["src/postgres/", "src/embedded/"]),
    ("pgvector", &["src/postgres/"]),
    (
        "reqwest",
        &[
            "src/embedders/openai.rs",
            "src/embedders/openai/",
            "src/cli/remote.rs",
            "src/cli/remote/",
        ],
    ),
    ("model2vec_rs", &["src/embedders/local.rs"]),
    ("ractor", &["src/actors/"]),
    ("opentelemetry", &["src/telemetry/"]),
    ("opentelemetry_appender_tracing", &["src/telemetry/"]),
    ("opentelemetry_otlp", &["src/telemetry/"]),
    ("opentelemetry_prometheus", &["src/telemetry/metrics/"]),
    ("opentelemetry_sdk", &["src/telemetry/"]),
    ("prometheus", &["src/telemetry/metrics/"]),
    ("tracing_opentelemetry", &["src/telemetry/"]),
    ("tracing_subscriber", &["src/telemetry/"]),
    ("http", &["src/telemetry/environment.rs"]),
    ("flate2", &["src/import/"]),
    ("walkdir", &["src/import/"]),
    ("zip", &["src/embedded/"]),
    ("text_splitter", &["src/domain/"]),
    ("axum", &["src/admin/"]),
    ("hyper_util", &["src/admin/connections.rs"]),
    ("subtle", &["src/admin/"]),
    ("utoipa", &["src/admin/", "src/ports/"]),
    ("utoipa_axum", &["src/admin/"]),
    ("clap", &["src/cli/", "src/config.rs", "src/config/", "src/telemetry/"]),
    ("clap_complete", &["src/cli/"]),
    ("clap_mangen", &["src/cli/"]),
    ("anstream", &["src/cli/"]),
    ("anstyle", &["src/cli/"]),
    ("indicatif", &["src/cli/"]),
    ("console", &["src/cli/"]),
    ("textwrap", &["src/cli/"]),
    ("anyhow", &["src/main.rs", "src/cli/", "src/app.rs", "src/app/"]),
];

/// The crates of the domain: none does IO, reads a clock or throws dice by itself.
const DOMAIN_CRATES: &[&str] = &["chrono", "serde", "uuid", "sha2", "text_splitter", "thiserror"];

/// Who decides when something is due. They are given spans of time, and the database adds its own clock:
/// replicas whose clocks differ by minutes decide alike.
const CLOCKLESS: &[&str] =
    &["src/domain/", "src/ports/", "src/actors/", "src/postgres/", "src/admin/", "src/app/"];
/// What of telemetry tells of work; the rest starts and ends with the program.
const TELLING: &[&str] = &["metrics", "spans"];

/// Lines of a file of `src/`.
const LINES_MAX: usize = 350;

fn assert_none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "rules of the house are broken:\n{}", lines.join("\n"));
}

#[test]
fn imports_point_one_way() {
    assert_none(&rules::imports(&source::all(), LAYERS));
}

#[test]
fn the_domain_does_no_io_and_knows_no_clock_and_no_chance() {
    assert_none(&rules::domain(&source::all(), &source::dependencies(), DOMAIN_CRATES));
}

#[test]
fn each_crate_stays_at_home() {
    assert_none(&rules::homes(&source::all(), HOMES));
    let dependencies = source::dependencies();
    for (name, _) in HOMES {
        assert!(dependencies.contains(&(*name).to_owned()), "{name} is no dependency any more");
    }
}

#[test]
fn nothing_is_decided_by_the_clock_of_a_replica() {
    assert_none(&rules::wall_clock(&source::all(), CLOCKLESS));
}

#[test]
fn actors_and_embedders_take_nothing_from_telemetry_but_what_tells_of_their_work() {
    assert_none(&rules::telling_only(&source::all(), TELLING));
}

#[test]
fn every_file_says_why_it_exists_and_stays_short() {
    assert_none(&rules::opening_and_length(&source::all(), LINES_MAX));
}

#[test]
fn a_panic_unwinds_since_supervision_needs_it() {
    assert_none(&rules::panic_unwinds(&source::manifest()));
}

/// Bad sources, and what must be said of them: a rule that finds nothing here holds nothing.
#[test]
fn every_rule_finds_what_breaks_it() {
    let said = |findings: Vec<Finding>| -> Vec<String> {
        findings.iter().map(|finding| finding.place()).collect()
    };
    let actor = Source::new(
        "src/actors/supervisor/bad.rs",
        "// crate::postgres in a comment\nuse crate::postgres::PgStore;\nconst S: &str = \"crate::app\";\nfn f() { super::super::super::embedders::local::load() }\nuse crate::{domain, app};\n",
    );
    let bad_imports = rules::imports(&[actor], LAYERS);
    assert_eq!(
        said(bad_imports),
        [
            "src/actors/supervisor/bad.rs:2",
            "src/actors/supervisor/bad.rs:4",
            "src/actors/supervisor/bad.rs:5"
        ]
    );
    let homeless = Source::new("src/attic/mod.rs", "//! Why.\n");
    assert_eq!(said(rules::imports(&[homeless], LAYERS)), ["src/attic/mod.rs:1"]);

    let domain = Source::new(
        "src/domain/bad.rs",
        "use std::time::{Duration, Instant};\nfn a() -> f64 { rand::random() }\nfn b() { std::fs::read(\"x\"); }\nfn c() { chrono::Utc::now(); }\nasync fn d() {}\nuse std::{env, fs};\nuse tokio as t;\n",
    );
    let dependencies = ["rand", "chrono", "tokio"].map(String::from);
    let places = said(rules::domain(&[domain], &dependencies, DOMAIN_CRATES));
    assert_eq!(places, (1..=7).map(|line| format!("src/domain/bad.rs:{line}")).collect::<Vec<_>>());

    let skewed = Source::new(
        "src/actors/bad.rs",
        "fn a() { chrono::Utc::now(); }\nuse std::time::SystemTime;\nfn b() { Local::now(); }\nfn c() { Utc::now_utc(); }\nfn d() { Instant::now(); }\n",
    );
    let places = said(rules::wall_clock(&[skewed], CLOCKLESS));
    assert_eq!(places, (1..=3).map(|line| format!("src/actors/bad.rs:{line}")).collect::<Vec<_>>());

    let stray =
        Source::new("src/import/bad.rs", "\nfn f() -> anyhow::Result<()> { sqlx::query(\"\") }\n");
    assert_eq!(said(rules::homes(&[stray], HOMES)), ["src/import/bad.rs:2", "src/import/bad.rs:2"]);

    let telemetry = Source::new(
        "src/actors/bad.rs",
        "use crate::telemetry;\nfn f() { telemetry::spans::chunk(); }\nfn g() { telemetry::start(); }\n",
    );
    assert_eq!(said(rules::telling_only(&[telemetry], TELLING)), ["src/actors/bad.rs:3"]);

    let long = Source::new("src/bad.rs", "use std::fs;\n\n\n");
    assert_eq!(said(rules::opening_and_length(&[long], 2)), ["src/bad.rs:1", "src/bad.rs:3"]);

    let manifest = Source::new("Cargo.toml", "[profile.release]\npanic = \"abort\"\n");
    assert_eq!(said(rules::panic_unwinds(&manifest)), ["Cargo.toml:2"]);
}
