//! Databases that are not as they should be.

use super::*;
use crate::harness::pooler::PgBouncer;

/// Runs the SQL of a way out, as somebody who may.
async fn follow(database: &TestDatabase, way_out: &str) {
    let (_, statements) = way_out.rsplit_once(": ").expect(way_out);
    database.execute(statements).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_a_failure_without_its_password() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(DIMENSIONS));
    for url in ["postgres://ann:hunter2-hunter2@127.0.0.1:1/calls", "nonsense://hunter2-hunter2"] {
        let report = Report::of(&mut doctor(url, &fake)).await;
        assert_eq!(report.amiss(), [("Postgres", "failure")], "{url}");
        assert_eq!(report.the("embedding").0, "ok", "the rest is looked at all the same");
        let told = format!("{report:?}");
        assert!(!told.contains("ann:hunter2"), "{told}");
    }
    let report = Report::of(&mut doctor(&format!("{}x", database.url), &fake)).await;
    assert_eq!(report.the("Postgres").0, "failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_database_and_an_outdated_one_are_sent_to_migrate() {
    let (database, fake) = (TestDatabase::bare().await, FakeOpenAi::start(DIMENSIONS));
    let report = Report::of(&mut doctor(&database.url, &fake)).await;
    assert_eq!(report.amiss(), [("pgvector", "warning"), ("schema", "failure")]);
    assert_eq!(report.the("schema").2, "run `embedding-recovery migrate`");
    let tables = "select count(*) from pg_tables where schemaname = 'public'";
    assert_eq!(database.value::<i64>(tables).await, 0, "doctor created something");

    let database = TestDatabase::new().await;
    database.execute("delete from _sqlx_migrations where version > 2").await;
    let report = Report::of(&mut doctor(&database.url, &fake)).await;
    assert!(report.the("schema").1.contains("migrations are missing"), "{report:?}");
    database.execute("update served_programs set oldest_version = '99.0.0'").await;
    let report = Report::of(&mut doctor(&database.url, &fake)).await;
    assert!(report.the("schema").1.contains("newer than this program"), "{report:?}");

    let database = TestDatabase::bare().await;
    database.execute("create table fathom_calls (recording_id text, user_id text)").await;
    let report = Report::of(&mut doctor(&database.url, &fake)).await;
    let differs = "fathom_calls.recording_id is text, not bigint";
    assert!(report.the("schema").1.contains(differs), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_few_rights_is_told_the_grants_that_make_it_well() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(DIMENSIONS));
    let url = database.url_of_role("nosuperuser").await;
    let says = "`embedding-recovery doctor` says what to grant";
    let refused = run(program(&["verify"]).env("DATABASE_URL", &url)).await;
    assert!(refused.stderr.contains(says), "{refused:?}");
    let report = Report::of(&mut doctor(&url, &fake)).await;
    assert_eq!(
        report.amiss(),
        [
            ("schema", "failure"),
            ("rights", "failure"),
            ("right to import", "warning"),
            ("search index", "failure")
        ]
    );
    let mut serve = program(&["serve", "--exit-when-idle"]);
    serve
        .env("DATABASE_URL", &url)
        .env("OPENAI_BASE_URL", fake.base_url())
        .env("EMBEDDING_MODEL", "test-model");
    for check in ["schema", "rights", "right to import"] {
        follow(&database, report.the(check).2).await;
    }
    let refused = run(&mut serve).await;
    assert!(refused.stderr.contains(says), "{refused:?}");
    follow(&database, report.the("search index").2).await;
    let report = Report::of(&mut doctor(&url, &fake)).await;
    assert_eq!(report.amiss(), [("search index", "warning")], "the next start builds it");
    let served = run(&mut serve).await;
    assert_eq!(served.code, Some(0), "{served:?}");
    assert_eq!(Report::of(&mut doctor(&url, &fake)).await.amiss(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_migrate_is_told_the_statements_that_let_it() {
    let (database, fake) = (TestDatabase::bare().await, FakeOpenAi::start(DIMENSIONS));
    database
        .execute(
            "create table fathom_calls (recording_id bigint, user_id text);
             create table fathom_transcripts (id bigint, recording_id bigint, user_id text,
                 speaker_name text, text text, timestamp text);
             grant select on fathom_calls, fathom_transcripts to public",
        )
        .await;
    let url = database.url_of_role("nosuperuser").await;
    let report = Report::of(&mut doctor(&url, &fake)).await;
    assert_eq!(
        report.amiss(),
        [
            ("pgvector", "failure"),
            ("schema", "failure"),
            ("right to create", "failure"),
            ("ownership", "warning")
        ]
    );
    let refused = run(program(&["migrate"]).env("DATABASE_URL", &url)).await;
    assert!(refused.stderr.contains("doctor` says what to grant"), "{refused:?}");
    for check in ["pgvector", "right to create", "ownership"] {
        follow(&database, report.the(check).2).await;
    }
    let migrated = run(program(&["migrate"]).env("DATABASE_URL", &url)).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert_eq!(Report::of(&mut doctor(&url, &fake)).await.amiss(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_but_should_be_looked_at_is_a_warning() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(DIMENSIONS));
    let url = database.url_of_role("set statement_timeout = '100ms'").await;
    database
        .execute(
            "alter table fathom_calls disable trigger fathom_calls_updated;
             insert into fathom_calls (user_id, recording_id) values ('ann', 1);
             insert into embedding_queue (user_id, recording_id, status, dead_letter_reason)
             values ('ann', 1, 'dead_letter', 'a reason')",
        )
        .await;
    let mut doctor = doctor(&url, &fake);
    let report = Report::of(doctor.args(["--database-connections", "96"])).await;
    assert_eq!(
        report.amiss(),
        [
            ("statement_timeout", "warning"),
            ("connections", "warning"),
            ("triggers", "warning"),
            ("queue", "warning")
        ]
    );
    assert!(report.the("triggers").1.starts_with("fathom_calls_updated missing or disabled"));
    assert!(report.the("queue").1.ends_with("1 dead letters"), "{report:?}");
    follow(&database, report.the("statement_timeout").2.replacen("alter", ": alter", 1).as_str())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_of_the_stored_model_is_looked_at() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(DIMENSIONS));
    let model = embedding_recovery::ports::Model { name: "test-model".into(), dimensions: 8 };
    database.store.use_model(&model).await.unwrap();
    let of = |report: &Report| report.the("search index").0.to_owned();
    assert_eq!(of(&Report::of(&mut doctor(&database.url, &fake)).await), "ok");
    database
        .execute("update pg_index set indisvalid = false from pg_class c where c.oid = indexrelid and relname like '%hnsw%'")
        .await;
    let report = Report::of(&mut doctor(&database.url, &fake)).await;
    assert!(report.the("search index").1.contains("interrupted"), "{report:?}");
    database.execute("do $$ begin execute (select 'drop index ' || relname from pg_class where relname like '%hnsw%'); end $$").await;
    let report = Report::of(&mut doctor(&database.url, &fake)).await;
    assert!(report.the("search index").1.contains("missing"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_is_told_what_to_set_and_one_in_session_mode_does_no_harm() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(DIMENSIONS));
    for (mode, admin, amiss) in [
        ("transaction", "", vec![("pooler", "warning")]),
        ("transaction", database.url.as_str(), vec![]),
        ("statement", database.url.as_str(), vec![("pooler", "failure")]),
        ("session", "", vec![]),
    ] {
        let Some(pooler) = PgBouncer::before(&database, mode, "").await else { return };
        // Twice: what the first leaves in the pooler's sessions would be in the second's way.
        for _ in 0..2 {
            let mut doctor = doctor(&pooler.url, &fake);
            doctor.env("EMBEDDING_RECOVERY_ADMIN_DATABASE_URL", admin);
            let report = Report::of(&mut doctor).await;
            assert_eq!(report.amiss(), amiss, "{mode} {admin}: {report:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_a_pooler_refuses_is_told() {
    let (database, fake) = (TestDatabase::new().await, FakeOpenAi::start(DIMENSIONS));
    let Some(pooler) = PgBouncer::before(&database, "session", "").await else { return };
    let url = format!("{}?options=-c%20geqo=off", pooler.url);
    let report = Report::of(&mut doctor(&url, &fake)).await;
    assert_eq!(report.amiss(), [("Postgres", "failure")]);
    assert!(report.the("Postgres").2.starts_with("take `options` out"), "{report:?}");
}
