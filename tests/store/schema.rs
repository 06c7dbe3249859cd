//! Migrations: once, by whoever comes first, and never over a later program's schema.

use embedding_recovery::domain::failure::Failure;
use embedding_recovery::ports::Store;
use embedding_recovery::postgres::{PgStore, SchemaError};
use futures::future::join_all;

use super::*;
use crate::harness::within_deadline;

#[tokio::test(flavor = "multi_thread")]
async fn many_replicas_that_migrate_at_once_apply_each_migration_once() {
    let database = TestDatabase::bare().await;
    let replicas = (0..6).map(|_| {
        let store = database.store.clone();
        tokio::spawn(async move { store.migrate().await.unwrap() })
    });
    let mut applied = Vec::new();
    for replica in within_deadline("all migrate", join_all(replicas)).await {
        applied.push(replica.unwrap());
    }
    applied.sort_unstable();
    let migrations = number(&database, "select count(*) from _sqlx_migrations where success").await;
    assert!(migrations >= 4, "{migrations}");
    assert_eq!(applied, [0, 0, 0, 0, 0, migrations as usize]);
    database.store.check_schema().await.unwrap();
}

#[tokio::test]
async fn an_older_schema_is_told_and_migrated() {
    let database = TestDatabase::bare().await;
    let outdated = database.store.check_schema().await.unwrap_err();
    assert!(matches!(outdated, SchemaError::Outdated { missing: 4.. }), "{outdated}");
    assert!(outdated.to_string().contains("embedding-recovery migrate"), "{outdated}");
    database.store.migrate().await.unwrap();
    assert_eq!(database.store.migrate().await.unwrap(), 0);
}

/// What a later program's migration leaves in the migrator's own table.
const LATER: &str =
    "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
     values (9999, 'of a later program', true, '', 0)";

#[tokio::test]
async fn a_newer_schema_that_serves_this_program_is_taken_as_it_is() {
    let database = TestDatabase::new().await;
    database.execute(LATER).await;
    database.store.check_schema().await.unwrap();
    assert_eq!(database.store.migrate().await.unwrap(), 0);
}

#[tokio::test]
async fn a_newer_schema_that_serves_later_programs_only_is_refused_and_left_alone() {
    let database = TestDatabase::new().await;
    database.execute(LATER).await;
    database.execute("update served_programs set oldest_version = '99.0.1'").await;
    for refused in [
        database.store.check_schema().await.unwrap_err(),
        database.store.migrate().await.unwrap_err(),
    ] {
        assert!(matches!(refused, SchemaError::Newer { .. }), "{refused}");
        let told =
            format!("serves version 99.0.1 and later, and this is {}", env!("CARGO_PKG_VERSION"));
        assert!(refused.to_string().contains(&told), "{refused}");
    }
    let known = number(&database, "select count(*) from _sqlx_migrations").await;
    assert!(known >= 5, "{known}");
}

/// The store as a role sees it that owns nothing but what it makes.
pub(super) async fn as_role(database: &TestDatabase, role: &str) -> PgStore {
    let mut url: url::Url = database.url.parse().unwrap();
    url.query_pairs_mut().append_pair("options", &format!("-c role={role}"));
    PgStore::connect(url.as_str(), 2).await.unwrap()
}

/// Source tables of another owner, and a role that may read them and refer to them.
async fn sources_of_another_owner(columns: &str) -> (TestDatabase, String) {
    let database = TestDatabase::bare().await;
    let role = format!("migrator_{}", uuid::Uuid::new_v4().simple());
    database
        .execute(&format!(
            "create extension vector;
             create table fathom_calls (recording_id bigint, user_id text, title text,
                 created_at timestamptz not null default now(), primary key (recording_id, user_id));
             create table fathom_transcripts (id bigserial primary key, recording_id bigint, user_id text,
                 speaker_name text, text text, timestamp text, {columns});
             create role {role};
             grant create, usage on schema public to {role};
             grant select, references on fathom_calls, fathom_transcripts to {role}"
        ))
        .await;
    (database, role)
}

const COLUMNS: &str =
    "speaker_email text, edited_text text, edited_speaker_name text, is_deleted boolean";

pub(super) async fn forget(database: &TestDatabase, store: PgStore, role: &str) {
    store.close().await;
    database.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

#[tokio::test]
async fn a_role_that_may_not_create_triggers_on_the_sources_migrates_and_finds_changes() {
    let (database, role) = sources_of_another_owner(COLUMNS).await;
    let store = as_role(&database, &role).await;
    assert!(store.migrate().await.unwrap() >= 4);
    let triggers = "select count(*) from pg_trigger where not tgisinternal
        and tgrelid in ('fathom_calls'::regclass, 'fathom_transcripts'::regclass)";
    assert_eq!(number(&database, triggers).await, 0);
    plain_calls(&database, "alice", 3).await;
    store.use_model(&model()).await.unwrap();
    assert_eq!(store.reconcile(&model(), 10).await, Ok(3));
    assert!(store.load(&key(1)).await.is_ok());
    assert_eq!(store.load(&key(9)).await.err(), Some(Failure::RecordingDeleted));
    forget(&database, store, &role).await;
}

#[tokio::test]
async fn what_is_missing_in_tables_of_another_owner_stops_the_migration_at_its_begin() {
    let (database, role) = sources_of_another_owner("is_deleted boolean").await;
    let store = as_role(&database, &role).await;
    let refused = store.migrate().await.unwrap_err();
    assert!(refused.to_string().contains("must be owner"), "{refused}");
    let tables = "select count(*) from pg_tables where schemaname = 'public' and tablename not like '\\_sqlx%'";
    assert_eq!(number(&database, tables).await, 2, "nothing was made");
    forget(&database, store, &role).await;
}

#[tokio::test]
async fn a_role_that_may_create_triggers_on_anothers_sources_gets_them() {
    let (database, role) = sources_of_another_owner(COLUMNS).await;
    database.execute(&format!("grant trigger on fathom_calls, fathom_transcripts to {role}")).await;
    let store = as_role(&database, &role).await;
    store.migrate().await.unwrap();
    database.execute("insert into fathom_calls (user_id, recording_id) values ('alice', 1)").await;
    database
        .execute(
            "insert into fathom_transcripts (user_id, recording_id, text) values ('alice', 1, 'a')",
        )
        .await;
    assert_eq!(status(&database, 1).await, "pending");
    forget(&database, store, &role).await;
}
