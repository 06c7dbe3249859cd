//! The server and the extension.

use std::time::Duration;

use crate::domain::checkup::{Encryption, Pooling, ServerFacts, VectorFacts};
use crate::postgres::connection::Session;

/// Asks the server. The time-outs must be read before a transaction sets its own.
pub(super) async fn facts(
    connection: &mut Session,
    pooling: Pooling,
) -> Result<ServerFacts, sqlx::Error> {
    let vector = vector(connection).await?;
    sqlx::query!(
        r#"with settings as (select name, setting, reset_val from pg_settings)
           select split_part(current_setting('server_version'), ' ', 1) as "version!",
                  current_setting('server_version_num')::int / 10000 as "major!",
                  current_database() as "database!", current_user as "role!",
                  (select version from pg_stat_ssl where pid = pg_backend_pid() and ssl) as tls,
                  coalesce(inet_server_addr() <<= '127.0.0.0/8' or inet_server_addr() = '::1'
                           or inet_server_addr() = inet_client_addr(), true) as "is_local!",
                  pg_is_in_recovery()
                      or (select reset_val = 'on' from settings where name = 'default_transaction_read_only')
                      as "read_only!",
                  (select reset_val::bigint from settings where name = 'statement_timeout') as "statement!",
                  (select reset_val::bigint from settings where name = 'idle_in_transaction_session_timeout')
                      as "idle!",
                  coalesce((select reset_val::bigint from settings where name = 'transaction_timeout'), 0)
                      as "transaction!",
                  (select sum(case name when 'max_connections' then 1 else -1 end * setting::bigint)
                   from settings where name in
                      ('max_connections', 'superuser_reserved_connections', 'reserved_connections'))::bigint
                      as "connections!",
                  (select rolconnlimit from pg_roles where rolname = current_user) as role_connections"#
    )
    .map(|row| ServerFacts {
        version: row.version,
        major: row.major.unsigned_abs(),
        database: row.database,
        role: row.role,
        encryption: match row.tls {
            Some(protocol) => Encryption::Tls(protocol),
            None if row.is_local => Encryption::LocalPlain,
            None => Encryption::Plain,
        },
        read_only: row.read_only,
        statement_timeout: time_out(row.statement),
        idle_in_transaction_timeout: time_out(row.idle),
        transaction_timeout: time_out(row.transaction),
        connections_max: u32::try_from(row.connections).unwrap_or(0),
        // -1 is no limit.
        role_connections_max: row.role_connections.and_then(|limit| u32::try_from(limit).ok()),
        pooling,
        vector: vector.clone(),
    })
    .fetch_one(connection)
    .await
}

fn time_out(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().filter(|millis| *millis > 0).map(Duration::from_millis)
}

/// Whether the role may create the extension: as a superuser, where the extension is trusted, or by
/// the roles that large providers give in a superuser's place.
async fn vector(connection: &mut Session) -> Result<VectorFacts, sqlx::Error> {
    sqlx::query!(
        r#"select (select extversion from pg_extension where extname = 'vector') as installed,
                  (select default_version from pg_available_extensions where name = 'vector') as available,
                  exists (select from pg_roles r where pg_has_role(current_user, r.oid, 'member')
                          and (r.rolname in ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin')
                               or r.rolname = current_user and r.rolsuper))
                  or exists (select from pg_available_extension_versions v where v.name = 'vector' and v.trusted
                             and has_database_privilege(current_database(), 'create')) as "may_create!""#
    )
    .map(|row| VectorFacts {
        installed: row.installed,
        available: row.available,
        may_create: row.may_create,
    })
    .fetch_one(connection)
    .await
}
