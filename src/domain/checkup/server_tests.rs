//! Servers of every kind, and what is said of each.

use super::super::{Severity, worst};
use super::*;

fn sound() -> ServerFacts {
    ServerFacts {
        version: "17.2".into(),
        major: 17,
        database: "calls".into(),
        role: "embedder".into(),
        encryption: Encryption::Tls("TLSv1.3".into()),
        read_only: false,
        statement_timeout: Some(Duration::from_secs(8)),
        idle_in_transaction_timeout: None,
        transaction_timeout: None,
        connections_max: 97,
        role_connections_max: None,
        pooling: Pooling::Session,
        vector: VectorFacts { installed: Some("0.8.4".into()), ..VectorFacts::default() },
    }
}

/// The one finding that is not ok, of a server with a pool of 16.
fn found(facts: ServerFacts) -> Finding {
    let findings = judge_server(&facts, 16, None);
    let mut others = findings.into_iter().filter(|finding| finding.severity != Severity::Ok);
    let found = others.next().expect("a finding that is not ok");
    assert_eq!(others.next(), None, "beside {found:?}");
    assert!(found.way_out.is_some(), "{found:?}");
    found
}

fn vector(installed: Option<&str>, available: Option<&str>, may_create: bool) -> ServerFacts {
    let vector = VectorFacts {
        installed: installed.map(String::from),
        available: available.map(String::from),
        may_create,
    };
    ServerFacts { vector, ..sound() }
}

#[test]
fn a_sound_server_has_nothing_to_warn_of() {
    let findings = judge_server(&sound(), 16, None);
    assert_eq!(worst(&findings), Severity::Ok, "{findings:?}");
    assert!(findings.iter().all(|finding| finding.way_out.is_none()));
}

#[test]
fn an_old_postgres_is_a_failure() {
    let old = ServerFacts { version: "14.11".into(), major: 14, ..sound() };
    assert_eq!((found(old.clone()).check, found(old).severity), ("Postgres", Severity::Failure));
    let oldest = ServerFacts { version: "15.0".into(), major: 15, ..sound() };
    assert_eq!(worst(&judge_server(&oldest, 16, None)), Severity::Ok);
}

#[test]
fn each_state_of_pgvector_has_its_way_out() {
    for (facts, severity, way_out) in [
        (vector(Some("0.7.4"), None, true), Severity::Failure, "alter extension vector update"),
        (vector(Some("0.8.3"), None, true), Severity::Warning, "alter extension vector update"),
        (vector(Some("0.8.0"), None, true), Severity::Warning, "alter extension vector update"),
        (vector(None, Some("0.8.6"), true), Severity::Warning, "embedding-recovery migrate"),
        (vector(None, Some("0.8.6"), false), Severity::Failure, "create extension vector"),
        (vector(None, None, true), Severity::Failure, "package postgresql-NN-pgvector"),
    ] {
        let found = found(facts.clone());
        assert_eq!((found.check, found.severity), ("pgvector", severity), "{facts:?}");
        assert!(found.way_out.as_deref().unwrap_or_default().contains(way_out), "{found:?}");
    }
    for newer in ["0.8.4", "0.8.10", "0.10.0", "1.0"] {
        assert_eq!(worst(&judge_server(&vector(Some(newer), None, true), 16, None)), Severity::Ok);
    }
}

#[test]
fn time_outs_that_are_too_short_are_warned_of_with_the_statement_that_mends_them() {
    let millis = |millis| Some(Duration::from_millis(millis));
    let statement = ServerFacts { statement_timeout: millis(299), ..sound() };
    let idle = ServerFacts { idle_in_transaction_timeout: millis(500), ..sound() };
    let transaction = ServerFacts { transaction_timeout: millis(60_000), ..sound() };
    for (facts, way_out) in [
        (statement, "alter role embedder set statement_timeout = '10s'"),
        (idle, "alter role embedder set idle_in_transaction_session_timeout = '10s'"),
        (transaction, "alter role embedder set transaction_timeout = '30min'"),
    ] {
        let found = found(facts);
        assert_eq!((found.severity, found.way_out.as_deref()), (Severity::Warning, Some(way_out)));
    }
    let tested = ServerFacts { statement_timeout: millis(300), ..sound() };
    assert_eq!(worst(&judge_server(&tested, 16, None)), Severity::Ok);
}

#[test]
fn a_pool_must_fit_what_the_server_and_the_role_allow() {
    for (server, role, severity) in [
        (97, None, Severity::Ok),
        (20, None, Severity::Ok),
        (19, None, Severity::Warning),
        (15, None, Severity::Failure),
        (97, Some(10), Severity::Failure),
        (97, Some(17), Severity::Warning),
    ] {
        let facts = ServerFacts { connections_max: server, role_connections_max: role, ..sound() };
        assert_eq!(worst(&judge_server(&facts, 16, None)), severity, "{server} {role:?}");
    }
}

#[test]
fn poolers_plain_text_and_standbys_are_told() {
    for (pooling, no_session, severity) in [
        (Pooling::Session, Some("it leads elsewhere"), Severity::Warning),
        (Pooling::Transaction, Some("a pooler is in between"), Severity::Warning),
        (Pooling::Transaction, None, Severity::Ok),
        (Pooling::Statement, None, Severity::Failure),
    ] {
        let findings = judge_server(&ServerFacts { pooling, ..sound() }, 16, no_session);
        assert_eq!(worst(&findings), severity, "{pooling:?} {no_session:?}");
    }
    let plain = found(ServerFacts { encryption: Encryption::Plain, ..sound() });
    assert_eq!((plain.check, plain.severity), ("encryption", Severity::Warning));
    let local = ServerFacts { encryption: Encryption::LocalPlain, ..sound() };
    assert_eq!(worst(&judge_server(&local, 16, None)), Severity::Ok);
    let standby = found(ServerFacts { read_only: true, ..sound() });
    assert_eq!((standby.check, standby.severity), ("writing", Severity::Failure));
}
