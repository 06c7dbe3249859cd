//! What `doctor` makes of the facts: each is well, a warning or a failure with its way out. Gathering
//! them is the adapters' part, so that every case can be judged here without a server for it.

mod embedding;
mod schema;
mod server;

pub use embedding::{EmbeddingFacts, ModelFacts, judge_embedding, judge_model};
pub use schema::{IndexState, QueueFacts, SchemaFacts, SchemaState, judge_queue, judge_schema};
pub use server::{Encryption, Pooling, ServerFacts, VectorFacts, judge_server};

/// How a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works, and something should be done about it.
    Warning,
    /// It does not work.
    Failure,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: &'static str,
    /// How it weighs.
    pub severity: Severity,
    /// What was found. It has no secret and no transcript text.
    pub message: String,
    /// What to do, where there is something to do.
    pub way_out: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, message: message.into(), way_out: None }
    }

    /// Something should be done.
    pub fn warning(
        check: &'static str,
        message: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        let way_out = Some(way_out.into());
        Self { check, severity: Severity::Warning, message: message.into(), way_out }
    }

    /// It does not work.
    pub fn failure(
        check: &'static str,
        message: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        let way_out = Some(way_out.into());
        Self { check, severity: Severity::Failure, message: message.into(), way_out }
    }
}

/// The weight of the heaviest finding.
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

/// A name as SQL writes it.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match name.chars().all(plain) && name.starts_with(|c: char| !c.is_ascii_digit()) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_finding_counts_and_none_is_well() {
        let ok = Finding::ok("a", "b");
        let warning = Finding::warning("a", "b", "c");
        let failure = Finding::failure("a", "b", "c");
        assert_eq!(worst(&[]), Severity::Ok);
        assert_eq!(worst(&[ok.clone(), warning.clone()]), Severity::Warning);
        assert_eq!(worst(&[failure, warning, ok]), Severity::Failure);
    }

    #[test]
    fn names_are_quoted_where_sql_needs_it() {
        assert_eq!(quoted("calls_1"), "calls_1");
        assert_eq!(quoted("My \"role\""), "\"My \"\"role\"\"\"");
        assert_eq!(quoted("1st"), "\"1st\"");
    }
}
