//! `doctor`: is everything there that the service needs, and what to do where it is not.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde_json::json;

use super::serve::Settings;
use super::settings::{Parsed, Source, unknown_variables, values};
use crate::app;
use crate::config::DatabaseArgs;
use crate::domain::checkup::{Finding, Severity, worst};

/// Widest name of a check that others are aligned with.
const CHECK_WIDTH_MAX: usize = 20;

/// Look at the settings, the database and the embedding API, and say what to do where something is
/// wrong.
///
/// Changes nothing, and embeds one short text. The program's own Postgres is started only where it
/// was set up before. Exit codes: 0 all is well; 1 there are warnings; 2 something does not work; 64
/// wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery doctor
  embedding-recovery doctor --database-url postgres://db/calls --json | jq .findings")]
pub(super) struct Args {
    /// Print one JSON object
    #[arg(long, env = "EMBEDDING_RECOVERY_JSON")]
    json: bool,

    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(
    database: &DatabaseArgs,
    args: &Args,
    parsed: &Parsed,
) -> anyhow::Result<ExitCode> {
    let mut findings = settings(parsed);
    findings.extend(app::examine(database, &args.settings.embedder).await);
    match args.json {
        true => super::print_bytes(as_json(&findings).as_bytes())?,
        false => print(&findings),
    }
    Ok(match worst(&findings) {
        Severity::Ok => ExitCode::SUCCESS,
        Severity::Warning => ExitCode::from(1),
        Severity::Failure => ExitCode::from(2),
    })
}

/// What is set and by whom; what is wrong with it.
fn settings(parsed: &Parsed) -> Vec<Finding> {
    const CHECK: &str = "setting";
    let root = super::command();
    let mut findings = Vec::new();
    for refused in &parsed.refused {
        findings.push(Finding::failure(
            CHECK,
            refused.to_string(),
            "correct it: every other command refuses it (`embedding-recovery config --markdown` has \
             what each may be)",
        ));
    }
    for variable in unknown_variables(&root) {
        findings.push(Finding::warning(
            CHECK,
            format!("{variable} is set, and no setting has this name"),
            "correct the name (`embedding-recovery config --markdown` has all), or unset it",
        ));
    }
    let mut defaults = 0;
    for value in values(&root, parsed) {
        match value.source {
            Source::Flag | Source::Variable => {
                let shown = value.value.as_deref().unwrap_or_default();
                let told = format!("{} {shown} ({})", value.flag, value.origin());
                findings.push(Finding::ok(CHECK, told));
            }
            Source::Default | Source::Unset => defaults += 1,
        }
    }
    findings
        .push(Finding::ok(CHECK, format!("{defaults} others are not set or have their defaults")));
    findings
}

fn as_json(findings: &[Finding]) -> String {
    let told: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "check": finding.check,
                "severity": name(finding.severity),
                "message": finding.message,
                "way_out": finding.way_out,
            })
        })
        .collect();
    format!("{}\n", json!({ "result": name(worst(findings)), "findings": told }))
}

fn name(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Warning => "warning",
        Severity::Failure => "failure",
    }
}

/// Colours go only to a terminal, and not where NO_COLOR is set: the printing macro sees to it.
fn print(findings: &[Finding]) {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let width = width.min(CHECK_WIDTH_MAX);
    for Finding { check, severity, message, way_out } in findings {
        let colour = match severity {
            Severity::Ok => AnsiColor::Green,
            Severity::Warning => AnsiColor::Yellow,
            Severity::Failure => AnsiColor::Red,
        };
        let style = Style::new().fg_color(Some(colour.into()));
        anstream::println!("{style}{:7}{style:#}  {check:width$}  {message}", name(*severity));
        if let Some(way_out) = way_out {
            anstream::println!("{:7}  {:width$}  -> {way_out}", "", "");
        }
    }
    let count = |wanted| findings.iter().filter(|finding| finding.severity == wanted).count();
    match (count(Severity::Failure), count(Severity::Warning)) {
        (0, 0) => anstream::println!("all is well"),
        (failures, warnings) => anstream::println!("{failures} failures, {warnings} warnings"),
    }
}
