//! Schemas and roles of every kind, and what is said of each.

use super::super::{Severity, worst};
use super::*;

fn sound() -> SchemaFacts {
    SchemaFacts {
        state: SchemaState::Fits,
        is_own: false,
        role: "worker".into(),
        schema: "public".into(),
        may_use: true,
        may_create: true,
        foreign_tables: Vec::new(),
        missing_rights: Vec::new(),
        missing_import_rights: Vec::new(),
        missing_triggers: Vec::new(),
        index: Some(IndexState::Valid),
        owns_chunks: true,
    }
}

/// Check, weight and way out of the findings that are not ok.
fn found(facts: &SchemaFacts) -> Vec<(&'static str, Severity, String)> {
    let findings = judge_schema(facts).into_iter();
    findings
        .filter(|finding| finding.severity != Severity::Ok)
        .map(|finding| (finding.check, finding.severity, finding.way_out.expect("a way out")))
        .collect()
}

#[test]
fn a_sound_schema_has_nothing_to_warn_of() {
    assert_eq!(found(&sound()), []);
}

#[test]
fn what_is_not_migrated_is_a_failure_except_in_the_programs_own_database() {
    let missing = SchemaState::Missing { differences: Vec::new() };
    for state in [missing, SchemaState::Outdated { missing: 2 }] {
        let facts = SchemaFacts { state, index: None, ..sound() };
        let way_out = "run `embedding-recovery migrate`".to_owned();
        assert_eq!(found(&facts), [("schema", Severity::Failure, way_out)]);
        assert_eq!(found(&SchemaFacts { is_own: true, ..facts }), []);
    }
    for is_own in [true, false] {
        let state = SchemaState::Newer { oldest: "9.0.0".parse().expect("a version") };
        let newer = SchemaFacts { state, is_own, ..sound() };
        assert_eq!(worst(&judge_schema(&newer)), Severity::Failure);
        let differences = vec!["fathom_calls.title is integer, not text".to_owned()];
        let state = SchemaState::Missing { differences };
        let differs = SchemaFacts { state, is_own, ..sound() };
        assert_eq!(worst(&judge_schema(&differs)), Severity::Failure);
    }
}

#[test]
fn a_role_that_may_not_migrate_is_told_what_to_grant() {
    let state = SchemaState::Missing { differences: Vec::new() };
    let facts = SchemaFacts {
        state,
        may_create: false,
        foreign_tables: vec!["fathom_calls".into(), "Odd".into()],
        ..sound()
    };
    let found = found(&facts);
    let grant = "as its owner: grant usage, create on schema public to worker";
    assert_eq!(found[1], ("right to create", Severity::Failure, grant.into()));
    assert_eq!((found[2].0, found[2].1), ("ownership", Severity::Warning));
    let statements =
        "alter table fathom_calls owner to worker; alter table \"Odd\" owner to worker";
    assert!(found[2].2.ends_with(statements), "{found:?}");
}

#[test]
fn a_role_that_may_not_serve_is_told_what_to_grant() {
    let rights = vec!["insert".to_owned(), "update".to_owned()];
    let lacking = |table: &str| vec![(table.to_owned(), rights.clone())];
    let serve = SchemaFacts { missing_rights: lacking("chunk_sets"), ..sound() };
    let way_out = "as their owner: grant insert, update on chunk_sets to worker".to_owned();
    assert_eq!(found(&serve), [("rights", Severity::Failure, way_out)]);
    let import = SchemaFacts { missing_import_rights: lacking("fathom_calls"), ..sound() };
    let way_out = "as their owner: grant insert, update on fathom_calls to worker".to_owned();
    assert_eq!(found(&import), [("right to import", Severity::Warning, way_out)]);
    let unusable = SchemaFacts { may_use: false, role: "My role".into(), ..sound() };
    let way_out = "as its owner: grant usage on schema public to \"My role\"".to_owned();
    assert_eq!(found(&unusable), [("rights", Severity::Failure, way_out)]);
}

#[test]
fn without_triggers_the_ticks_are_told() {
    let facts = SchemaFacts { missing_triggers: vec!["fathom_calls_updated".into()], ..sound() };
    let (check, severity, _) = found(&facts).remove(0);
    assert_eq!((check, severity), ("triggers", Severity::Warning));
}

#[test]
fn an_index_that_must_be_built_is_a_failure_only_for_a_role_that_may_not() {
    for (index, owns_chunks, severity) in [
        (Some(IndexState::Missing), true, Severity::Warning),
        (Some(IndexState::Missing), false, Severity::Failure),
        (Some(IndexState::Invalid), true, Severity::Warning),
        (Some(IndexState::Invalid), false, Severity::Failure),
        (Some(IndexState::Valid), false, Severity::Ok),
        (Some(IndexState::Impossible), false, Severity::Warning),
        (Some(IndexState::Postponed), false, Severity::Warning),
        (None, true, Severity::Ok),
        (None, false, Severity::Failure),
    ] {
        let facts = SchemaFacts { index, owns_chunks, ..sound() };
        assert_eq!(worst(&judge_schema(&facts)), severity, "{index:?} {owns_chunks}");
    }
}

#[test]
fn building_the_index_takes_the_table_and_the_schema() {
    let facts = SchemaFacts { index: None, owns_chunks: false, may_create: false, ..sound() };
    let (check, severity, way_out) = found(&facts).remove(0);
    assert_eq!((check, severity), ("search index", Severity::Failure));
    let both =
        ": alter table transcript_chunks owner to worker; grant create on schema public to worker";
    assert!(way_out.ends_with(both), "{way_out}");
    let serving = SchemaFacts { may_create: false, ..sound() };
    assert_eq!(found(&serving), [], "once it is built, nothing is created any more");
}

#[test]
fn the_queue_is_told_and_dead_letters_are_warned_of() {
    let idle = QueueFacts { completed: 7, ..QueueFacts::default() };
    assert_eq!(judge_queue(&idle).severity, Severity::Ok);
    let dead = QueueFacts {
        waiting: 3,
        dead: 1,
        oldest: Some(Duration::from_secs(7_300)),
        ..QueueFacts::default()
    };
    let finding = judge_queue(&dead);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.message.starts_with("3 waiting (oldest 2 h), 0 in work"), "{finding:?}");
}
