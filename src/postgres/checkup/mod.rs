//! What `doctor` asks a database: all of it reads, none of it writes. It goes over connections of its
//! own that work through a pooler too, in one transaction, since a pooler may change the session
//! between two.

mod schema;
mod server;

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use crate::domain::checkup::{Pooling, QueueFacts, SchemaFacts, ServerFacts};
use crate::postgres::StoredModel;

/// A database that answers later is as good as not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// No look takes longer; in the server's notation. Only counting a very large queue takes seconds.
const LOOK_TIMEOUT: &str = "30s";

/// Why a database cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckupError {
    /// PgBouncer refuses a parameter that this program's driver sends.
    #[error("a PgBouncer is in between and refuses a parameter of the connection: {0}")]
    StartupParameter(String),
    /// It does not answer.
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Silent,
    /// It refuses, or the connection breaks.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// All that a database says of itself.
#[derive(Debug)]
pub struct DatabaseFacts {
    /// The server.
    pub server: ServerFacts,
    /// The schema and the role's rights. `None` where a pooler allows no transactions.
    pub schema: Option<SchemaFacts>,
    /// The model that search is on, where there is one and the role may see it.
    pub model: Option<StoredModel>,
    /// The queue, where there is one and the role may see it.
    pub queue: Option<QueueFacts>,
}

/// A look at a database.
pub struct Checkup {
    options: PgConnectOptions,
    connection: PgConnection,
}

impl Checkup {
    /// Connects.
    ///
    /// # Errors
    /// The database cannot be reached or refuses.
    pub async fn connect(url: &str) -> Result<Self, CheckupError> {
        let options: PgConnectOptions = url.parse()?;
        // A pooler may hand the next transaction a session that knows no prepared statement.
        let options =
            options.application_name("embedding-recovery doctor").statement_cache_capacity(0);
        let connection = connect(&options).await?;
        Ok(Self { options, connection })
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// The database's.
    pub async fn look(mut self) -> Result<DatabaseFacts, CheckupError> {
        let pooling = server::pooling(&self.options, &mut self.connection).await?;
        if pooling == Pooling::Statement {
            let server = server::facts(&mut self.connection, pooling).await?;
            return Ok(DatabaseFacts { server, schema: None, model: None, queue: None });
        }
        let mut transaction = self.connection.begin().await?;
        sqlx::raw_sql("set transaction read only").execute(&mut *transaction).await?;
        sqlx::query!("select set_config('statement_timeout', $1, true)", LOOK_TIMEOUT)
            .fetch_one(&mut *transaction)
            .await?;
        let facts = schema::look(&mut transaction, pooling).await?;
        transaction.rollback().await?;
        let _ = self.connection.close().await;
        Ok(facts)
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, CheckupError> {
    let connecting = PgConnection::connect_with(options);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Err(_) => Err(CheckupError::Silent),
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(sqlx::Error::Database(error)))
            if error.message().starts_with("unsupported startup parameter") =>
        {
            Err(CheckupError::StartupParameter(error.message().to_owned()))
        }
        Ok(Err(error)) => Err(error.into()),
    }
}
