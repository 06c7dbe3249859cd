//! Whether a pooler is in between, told by what only a pooler does: two connections that are both open
//! get the same session of the server, or one connection gets another session than before.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use crate::domain::checkup::Pooling;

/// Times that two connections are tried for sharing a session: a pooler in use may give each another
/// one by chance.
const ROUNDS: usize = 5;
/// A setting that a connection begins with, of a value that nobody else knows. A session that has it is
/// the connection's own; a pooler refuses the setting or drops it.
const MARK: &str = "embedding_recovery.mark";

/// Finds out with `connection` and some more with the same options, one after the other. Straight to
/// the server it takes one more.
pub(super) async fn pooling(
    options: &PgConnectOptions,
    connection: &mut PgConnection,
) -> Result<Pooling, sqlx::Error> {
    for _ in 0..ROUNDS {
        let mark = Uuid::new_v4().to_string();
        let before = session(connection).await?;
        let mut other = connect_marked(options, &mark).await?;
        // Keeps its session while the first connection asks again.
        let mut transaction = match other.begin().await {
            Ok(transaction) => transaction,
            Err(error) if allows_no_transaction(&error) => return Ok(Pooling::Statement),
            Err(error) => return Err(error),
        };
        let others = session(&mut transaction).await?;
        let after = session(connection).await?;
        transaction.rollback().await?;
        let _ = other.close().await;
        if before.pid == others.pid || before.pid != after.pid {
            return Ok(Pooling::Transaction);
        }
        if others.mark == Some(mark) {
            break;
        }
    }
    Ok(Pooling::Session)
}

/// Connects with the mark, or without where it is refused.
async fn connect_marked(
    options: &PgConnectOptions,
    mark: &str,
) -> Result<PgConnection, sqlx::Error> {
    match PgConnection::connect_with(&options.clone().options([(MARK, mark)])).await {
        Err(sqlx::Error::Database(_)) => PgConnection::connect_with(options).await,
        connected => connected,
    }
}

/// PgBouncer's words in statement mode; it has no code of its own for that.
fn allows_no_transaction(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(refused) if refused.message().contains("statement pooling"))
}

/// What a session says of itself.
struct Session {
    pid: i32,
    mark: Option<String>,
}

/// By the simple protocol, which needs one round trip and so one session.
async fn session(connection: &mut PgConnection) -> Result<Session, sqlx::Error> {
    let row =
        sqlx::raw_sql("select pg_backend_pid(), current_setting('embedding_recovery.mark', true)")
            .fetch_one(connection)
            .await?;
    Ok(Session { pid: row.try_get(0)?, mark: row.try_get(1)? })
}
