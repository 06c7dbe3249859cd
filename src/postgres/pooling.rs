//! Whether a pooler is in between, told by what only a pooler does: two connections that are both open
//! get the same session of the server, or one connection gets another session than before.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};

use crate::domain::checkup::Pooling;

/// Times that two connections are tried for sharing a session: a pooler in use may give each another
/// one by chance.
const ROUNDS: usize = 5;
/// As many new sessions in a row for as many new connections are no pooler's, which has some ready.
const FRESH_ROUNDS: usize = 2;

/// Finds out with `connection` and some more with the same options, one after the other.
pub(super) async fn pooling(
    options: &PgConnectOptions,
    connection: &mut PgConnection,
) -> Result<Pooling, sqlx::Error> {
    let mut fresh_in_a_row = 0;
    for _ in 0..ROUNDS {
        let before = session(connection).await?;
        let mut other = PgConnection::connect_with(options).await?;
        // Keeps its session while the first connection asks again.
        let mut transaction = match other.begin().await {
            Ok(transaction) => transaction,
            Err(sqlx::Error::Database(_)) => return Ok(Pooling::Statement),
            Err(error) => return Err(error),
        };
        let others = session(&mut transaction).await?;
        let after = session(connection).await?;
        transaction.rollback().await?;
        let _ = other.close().await;
        if before.pid == others.pid || before.pid != after.pid {
            return Ok(Pooling::Transaction);
        }
        fresh_in_a_row = if others.began > before.asked { fresh_in_a_row + 1 } else { 0 };
        if fresh_in_a_row == FRESH_ROUNDS {
            break;
        }
    }
    Ok(Pooling::Session)
}

/// What answered, by the server's clock in seconds.
struct Answered {
    pid: i32,
    began: f64,
    asked: f64,
}

/// By the simple protocol, which needs one round trip and so one session.
async fn session(connection: &mut PgConnection) -> Result<Answered, sqlx::Error> {
    let row = sqlx::raw_sql(
        "select pid, extract(epoch from backend_start)::float8, \
                extract(epoch from clock_timestamp())::float8 \
         from pg_stat_get_activity(pg_backend_pid())",
    )
    .fetch_one(connection)
    .await?;
    Ok(Answered { pid: row.try_get(0)?, began: row.try_get(1)?, asked: row.try_get(2)? })
}
