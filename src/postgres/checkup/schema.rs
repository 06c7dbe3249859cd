//! The schema, the role's rights, and what is stored.

use std::time::Duration;

use super::{DatabaseFacts, server};
use crate::domain::checkup::{Pooling, QueueFacts, SchemaFacts, SchemaState};
use crate::postgres::adoption::differences;
use crate::postgres::connection::Session;
use crate::postgres::schema::{SchemaError, created};
use crate::postgres::{embedding_models, schema, vector_indexes};

/// Where the migrator keeps what it applied.
const MIGRATIONS_TABLE: &str = "_sqlx_migrations";
/// How the names of the source tables begin: the service only reads those.
const SOURCES_PREFIX: &str = "fathom_";
/// What is needed on the program's own tables, and by `import` on the sources.
const WRITING: [&str; 4] = ["select", "insert", "update", "delete"];

/// Looks at everything, in the transaction at hand.
pub(super) async fn look(
    connection: &mut Session,
    pooling: Pooling,
    direct: Result<(), String>,
) -> Result<DatabaseFacts, sqlx::Error> {
    let server = server::facts(&mut *connection, pooling).await?;
    let mut schema = rights(connection, &server.role).await?;
    schema.state = state(connection).await?;
    let (mut model, mut queue) = (None, None);
    if schema.state == SchemaState::Fits && schema.may_use {
        let may_read = |table: &str| {
            let mut missing = schema.missing_rights.iter();
            !missing.any(|(of, rights)| of == table && rights.iter().any(|right| right == "select"))
        };
        let (may_read_model, may_read_queue) =
            (may_read("embedding_models"), may_read("embedding_queue"));
        if may_read_model {
            model = embedding_models::current(&mut *connection).await?;
        }
        if may_read_queue {
            queue = Some(self::queue(connection).await?);
        }
        if let Some(model) = &model {
            schema.index = Some(vector_indexes::index_state(connection, &model.model).await?);
        }
    }
    Ok(DatabaseFacts { server, direct, schema: Some(schema), model, queue })
}

async fn state(connection: &mut Session) -> Result<SchemaState, sqlx::Error> {
    let may_read = sqlx::query_scalar!(
        "select has_table_privilege(to_regclass($1)::oid, 'select')",
        MIGRATIONS_TABLE
    )
    .fetch_one(&mut *connection)
    .await?;
    if may_read == Some(false) {
        return Ok(SchemaState::Unreadable);
    }
    let is_new = match may_read {
        None => true,
        Some(_) => schema::applied(connection).await?.is_empty(),
    };
    Ok(match schema::check(connection).await {
        Ok(()) => SchemaState::Fits,
        Err(SchemaError::Newer { oldest }) => SchemaState::Newer { oldest },
        Err(SchemaError::Outdated { .. }) if is_new => {
            SchemaState::Missing { differences: existing_differences(connection).await? }
        }
        Err(SchemaError::Outdated { missing }) => SchemaState::Outdated { missing },
        Err(SchemaError::Database(error)) => return Err(error),
        Err(error) => return Err(sqlx::Error::Protocol(error.to_string())),
    })
}

/// How tables that are there already do not fit. Rows are counted for it: where the role may not
/// read a table, that it cannot be compared is the difference.
async fn existing_differences(connection: &mut Session) -> Result<Vec<String>, sqlx::Error> {
    let tables: Vec<String> = created("table").into_iter().map(|(name, _)| name.into()).collect();
    let unreadable = sqlx::query_scalar!(
        r#"select name as "name!" from unnest($1::text[]) name
           where not has_table_privilege(to_regclass(name)::oid, 'select')"#,
        &tables
    )
    .fetch_all(&mut *connection)
    .await?;
    match unreadable.is_empty() {
        true => differences(connection).await,
        false => Ok(unreadable.iter().map(|table| format!("{table} may not be read")).collect()),
    }
}

async fn rights(connection: &mut Session, role: &str) -> Result<SchemaFacts, sqlx::Error> {
    let row = sqlx::query!(
        r#"select coalesce(current_schema(), 'public') as "schema!",
                  coalesce(has_schema_privilege(current_schema(), 'usage'), false) as "may_use!",
                  coalesce(has_schema_privilege(current_schema(), 'create'), false) as "may_create!",
                  coalesce((select pg_has_role(current_user, c.relowner, 'usage') from pg_class c
                            where c.oid = to_regclass('transcript_chunks')), true) as "owns_chunks!""#
    )
    .fetch_one(&mut *connection)
    .await?;
    let tables: Vec<&str> = created("table").into_iter().map(|(name, _)| name).collect();
    let (sources, own): (Vec<&str>, Vec<&str>) =
        tables.iter().partition(|name| name.starts_with(SOURCES_PREFIX));
    let views: Vec<&str> = created("view").into_iter().map(|(name, _)| name).collect();
    let read: Vec<&str> = sources.iter().chain(&views).copied().collect();
    let mut missing_rights = missing(connection, &read, &["select"]).await?;
    missing_rights.extend(missing(connection, &own, &WRITING).await?);
    Ok(SchemaFacts {
        // Known only after another look.
        state: SchemaState::Unreadable,
        is_own: false,
        role: role.to_owned(),
        schema: row.schema,
        may_use: row.may_use,
        may_create: row.may_create,
        foreign_tables: foreign(connection, &tables).await?,
        missing_rights,
        missing_import_rights: missing(connection, &sources, &WRITING[1..]).await?,
        missing_triggers: missing_triggers(connection).await?,
        index: None,
        owns_chunks: row.owns_chunks,
    })
}

/// Tables and the rights that the role lacks on each. A table that is not there lacks nothing.
async fn missing(
    connection: &mut Session,
    tables: &[&str],
    rights: &[&str],
) -> Result<Vec<(String, Vec<String>)>, sqlx::Error> {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<String>>();
    sqlx::query!(
        r#"select t.name as "table!", array_agg(r.name order by r.number) as "rights!"
           from unnest($1::text[]) with ordinality as t (name, number),
                unnest($2::text[]) with ordinality as r (name, number)
           where not has_table_privilege(to_regclass(t.name)::oid, r.name)
           group by t.name, t.number order by t.number"#,
        &owned(tables),
        &owned(rights)
    )
    .map(|row| (row.table, row.rights))
    .fetch_all(connection)
    .await
}

/// Those of the tables that are there and belong to others.
async fn foreign(connection: &mut Session, tables: &[&str]) -> Result<Vec<String>, sqlx::Error> {
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    sqlx::query_scalar!(
        r#"select t.name as "name!" from unnest($1::text[]) with ordinality as t (name, number)
           join pg_class c on c.oid = to_regclass(t.name)
           where not pg_has_role(current_user, c.relowner, 'usage') order by t.number"#,
        &tables
    )
    .fetch_all(connection)
    .await
}

/// Triggers on the sources that the migrations create and that do not fire.
async fn missing_triggers(connection: &mut Session) -> Result<Vec<String>, sqlx::Error> {
    let expected: Vec<String> = created("trigger")
        .into_iter()
        .filter(|(_, line)| line.contains(&format!(" on {SOURCES_PREFIX}")))
        .map(|(name, _)| name.to_owned())
        .collect();
    sqlx::query_scalar!(
        r#"select t.name as "name!" from unnest($1::text[]) with ordinality as t (name, number)
           where not exists (select from pg_trigger g join pg_class c on c.oid = g.tgrelid
                             where g.tgname = t.name and g.tgenabled in ('O', 'A')
                               and pg_table_is_visible(c.oid))
           order by t.number"#,
        &expected
    )
    .fetch_all(connection)
    .await
}

async fn queue(connection: &mut Session) -> Result<QueueFacts, sqlx::Error> {
    let count = |count: i64| count.unsigned_abs();
    sqlx::query!(
        r#"select count(*) filter (where status = 'pending') as "waiting!",
                  count(*) filter (where status = 'processing') as "processing!",
                  count(*) filter (where status = 'failed') as "failed!",
                  count(*) filter (where status = 'completed') as "completed!",
                  count(*) filter (where status = 'dead_letter') as "dead!",
                  extract(epoch from clock_timestamp() - min(created_at) filter (where status = 'pending'))
                      ::float8 as oldest_secs
           from embedding_queue"#
    )
    .map(|row| QueueFacts {
        waiting: count(row.waiting),
        processing: count(row.processing),
        failed: count(row.failed),
        completed: count(row.completed),
        dead: count(row.dead),
        oldest: row.oldest_secs.map(|secs| Duration::try_from_secs_f64(secs).unwrap_or_default()),
    })
    .fetch_one(connection)
    .await
}
