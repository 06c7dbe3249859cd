//! sqlx's errors in the domain's words. SQLSTATE codes are from the PostgreSQL manual, appendix A.

use std::error::Error;

use super::connection::ConnectError;
use super::embedding_models::ModelError;
use super::schema::SchemaError;
use crate::domain::failure::Failure;

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                from_sqlstate(&code, database.message())
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => {
                Failure::DatabaseUnavailable { message: error.to_string() }
            }
            _ => Failure::DatabaseRefuses { message: error.to_string() },
        }
    }
}

/// `insufficient_privilege`.
const FORBIDDEN: &str = "42501";

/// What the role may not do, where that is the cause of an error.
pub(super) fn forbidden(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(sqlx::Error::Database(refused)) = error.downcast_ref()
            && refused.code().as_deref() == Some(FORBIDDEN)
        {
            return Some(refused.message().to_owned());
        }
        cause = error.source();
    }
    None
}

/// What the server itself said, where an error is that alone: without the driver's words before it, and
/// the line of the server's source behind it.
pub fn server_message<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a str> {
    let driver = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(ConnectError::Database(driver)), _) => Some(driver),
        (_, Some(SchemaError::Database(driver))) => Some(driver),
        _ => error.downcast_ref(),
    };
    match driver {
        Some(sqlx::Error::Database(refused)) => Some(refused.message()),
        _ => None,
    }
}

/// Classes of states in which a server takes no connection or no work now: 08 connection, 53 resources,
/// 57P operator intervention (starting up, shutting down), 58 system error; 25006 is read-only after a
/// failover, 55000 a database that somebody closed for a while.
const AWAY: [&str; 6] = ["08", "53", "57P", "58", "25006", "55000"];

/// True where an error at the start may pass by itself: nobody answers, the server takes no connections
/// now, or the schema is still to be migrated. A refused login is no such thing, nor is a database that is
/// not there: who waits for them waits for other settings, and those need another start.
pub fn may_pass(error: &(dyn Error + 'static)) -> bool {
    let driver = match error.downcast_ref() {
        Some(ConnectError::Silent) => return true,
        Some(ConnectError::Database(driver)) => Some(driver),
        Some(ConnectError::StartupParameter(_) | ConnectError::StatementPooling) | None => None,
    };
    let driver = driver.or(match error.downcast_ref() {
        Some(SchemaError::Outdated { .. }) => return true,
        Some(SchemaError::Database(driver)) => Some(driver),
        _ => None,
    });
    let driver = driver.or(match error.downcast_ref() {
        Some(ModelError::Database(driver)) => Some(driver),
        _ => None,
    });
    match driver.or_else(|| error.downcast_ref()) {
        Some(sqlx::Error::Database(refused)) => {
            refused.code().is_some_and(|code| AWAY.iter().any(|class| code.starts_with(class)))
        }
        Some(
            sqlx::Error::Io(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed,
        ) => true,
        Some(_) => false,
        None => matches!(error.downcast_ref(), Some(Failure::DatabaseUnavailable { .. })),
    }
}

/// Classifies a server's error. Messages are the primary ones only: details can hold row values,
/// and those are transcript text.
fn from_sqlstate(code: &str, message: &str) -> Failure {
    let message = format!("{message} ({code})");
    match code {
        FORBIDDEN => Failure::DatabaseForbids { message },
        "57014" => Failure::StatementTimeout,
        "40001" | "40P01" => Failure::Collision,
        // A row that chunks refer to is gone, and only the deletion of its call removes one.
        "23503" => Failure::RecordingDeleted,
        // Read-only after a failover, or not the database that it was.
        "25006" => Failure::DatabaseUnavailable { message },
        // Idle or lock time-outs end the session's work, not the data.
        "25P03" | "55P03" => Failure::DatabaseUnavailable { message },
        // The database takes no connections, or is gone: somebody works on it.
        "55000" | "3D000" => Failure::DatabaseUnavailable { message },
        // 08 connection, 28 login (a password that is being replaced), 53 resources (disk full,
        // memory, connections), 57P operator intervention, 58 system error.
        _ if ["08", "28", "53", "57P", "58"].iter().any(|class| code.starts_with(class)) => {
            Failure::DatabaseUnavailable { message }
        }
        _ => Failure::DatabaseRefuses { message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::Fault;

    #[test]
    fn outages_are_the_databases_fault_and_refusals_are_not() {
        for code in [
            "08006", "28000", "28P01", "3D000", "53100", "53300", "55000", "57P01", "57P03",
            "25006", "40001", "40P01", "42501",
        ] {
            assert_eq!(from_sqlstate(code, "m").fault(), Fault::Database, "{code}");
        }
        assert_eq!(from_sqlstate("57014", "m"), Failure::StatementTimeout);
        assert_eq!(from_sqlstate("23503", "m"), Failure::RecordingDeleted);
        for code in ["22000", "42703", "23514"] {
            assert_eq!(from_sqlstate(code, "m").fault(), Fault::Item, "{code}");
        }
    }
}
