//! Every way to the database, and the one place that knows of poolers. Through a pooler in transaction
//! mode two transactions may have different sessions, so a statement has no name there and runs within
//! a transaction; else sessions and statements are used as the driver does by itself.

mod executor;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Execute, Executor, PgConnection, PgPool, Postgres, Row};

use super::pooling::pooling;
use crate::domain::checkup::Pooling;
use executor::Answer;

/// A connection must come within this time, or the database counts as unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A session that was used within this time is not asked whether it still lives: with every use, that would
/// be as many questions more as there are statements by themselves. Where it died meanwhile, the statement
/// fails as one under way would have.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// A database that answers later is as good as not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a database cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// PgBouncer refuses a parameter that the URL or `PGOPTIONS` asks for.
    #[error("a PgBouncer is in between and refuses a parameter of the connection: {0}")]
    StartupParameter(String),
    /// It allows no transactions.
    #[error(
        "a pooler in statement mode is in between: set its pool_mode to transaction or session"
    )]
    StatementPooling,
    /// It does not answer.
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Silent,
    /// It refuses, or the connection breaks.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// The connections of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Open, and free.
    pub idle: u32,
    /// In use.
    pub used: u32,
    /// As many as there may be.
    pub max: u32,
}

/// Why migrations and index builds get no session of their own.
#[derive(Debug, thiserror::Error)]
enum NoSession {
    #[error(
        "a pooler in transaction mode is in between, and migrations and index builds need a session \
         of their own: set --admin-database-url (EMBEDDING_RECOVERY_ADMIN_DATABASE_URL) to a URL that \
         goes straight to the server"
    )]
    Pooled,
    #[error(
        "--admin-database-url (EMBEDDING_RECOVERY_ADMIN_DATABASE_URL) leads to another database than \
         --database-url"
    )]
    Elsewhere,
}

/// How this program connects to `url`. PgBouncer refuses a connection that asks for
/// `extra_float_digits`, as the driver does by default; numbers come in binary, which has no digits.
fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    Ok(options.application_name("embedding-recovery").extra_float_digits(None))
}

/// One connection, within [`CONNECT_TIMEOUT`].
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, ConnectError> {
    let connecting = PgConnection::connect_with(options);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Err(_) => Err(ConnectError::Silent),
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(sqlx::Error::Database(error)))
            if error.message().starts_with("unsupported startup parameter") =>
        {
            Err(ConnectError::StartupParameter(error.message().to_owned()))
        }
        Ok(Err(error)) => Err(error.into()),
    }
}

/// Tells a database from those of other names and other servers. By the simple protocol, which a pooler
/// does no harm.
async fn database(connection: &mut PgConnection) -> Result<(String, f64), sqlx::Error> {
    let row = sqlx::raw_sql(
        "select current_database()::text, extract(epoch from pg_postmaster_start_time())::float8",
    )
    .fetch_one(connection)
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The connections of this process. As an executor it runs a statement by itself.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pool: PgPool,
    pooling: Pooling,
    options: PgConnectOptions,
    /// The way straight to the server, where it was told.
    admin_url: Option<String>,
}

impl Pool {
    /// Connects with at most `connections_max` connections, and finds out what is in between.
    pub(super) async fn open(url: &str, connections_max: u32) -> Result<Self, ConnectError> {
        let options = options(url)?;
        // The pool would try again until its time-out and then not say why.
        let mut first = connect(&options).await?;
        let pooling = pooling(&options, &mut first).await?;
        first.close().await?;
        let for_pool = match pooling {
            Pooling::Session => options.clone(),
            Pooling::Transaction | Pooling::Statement => {
                options.clone().statement_cache_capacity(0)
            }
        };
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|session, about| {
                Box::pin(async move {
                    if about.idle_for > TRUSTED_FOR {
                        session.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(for_pool)
            .await?;
        Ok(Self { pool, pooling, options, admin_url: None })
    }

    /// What is in between.
    pub(super) fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// How it is used now.
    pub(super) fn connections(&self) -> Connections {
        // Two looks: what is given back between them must not count as less than nothing.
        let (size, idle) = (self.pool.size(), self.pool.num_idle() as u32);
        let max = self.pool.options().get_max_connections();
        Connections { idle, used: size.saturating_sub(idle), max }
    }

    /// What takes a session of its own goes over `url`.
    pub(super) fn with_admin_url(self, url: &str) -> Self {
        Self { admin_url: Some(url.to_owned()), ..self }
    }

    /// The pool where its sessions can wait for notifications, `None` through a pooler.
    pub(super) fn notifying(&self) -> Option<&PgPool> {
        (self.pooling == Pooling::Session).then_some(&self.pool)
    }

    /// A session for statements, each by itself.
    pub(super) async fn acquire(&self) -> Result<Session, sqlx::Error> {
        let connection = self.pool.acquire().await?;
        Ok(Session { held: Held::Pooled(connection), pooling: self.pooling })
    }

    /// A session that no pool has, for locks, settings and builds that outlast transactions.
    ///
    /// # Errors
    /// No connection, each way leads through a pooler in transaction mode, or the one that was told
    /// leads elsewhere.
    pub(super) async fn direct(&self) -> Result<Session, sqlx::Error> {
        let refused = |why: NoSession| sqlx::Error::Configuration(why.into());
        let (mut connection, pooling) = match &self.admin_url {
            None => (PgConnection::connect_with(&self.options).await?, self.pooling),
            Some(url) => {
                let options = options(url)?;
                let mut connection = PgConnection::connect_with(&options).await?;
                let pooling = pooling(&options, &mut connection).await?;
                (connection, pooling)
            }
        };
        if pooling != Pooling::Session {
            return Err(refused(NoSession::Pooled));
        }
        if self.admin_url.is_some()
            && database(&mut connection).await?
                != database(&mut *self.pool.acquire().await?).await?
        {
            return Err(refused(NoSession::Elsewhere));
        }
        Ok(Session { held: Held::Own(connection), pooling })
    }

    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        self.begin_with("begin").await
    }

    /// Begins with a statement of its own: of another isolation.
    pub(super) async fn begin_with(
        &self,
        statement: &'static str,
    ) -> Result<Transaction, sqlx::Error> {
        let begun = self.pool.begin_with(statement).await?;
        Ok(Transaction(Session { held: Held::Transaction(begun), pooling: self.pooling }))
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// One connection. As an executor it runs a statement in the transaction at hand, or by itself.
#[derive(Debug)]
pub(super) struct Session {
    held: Held,
    pooling: Pooling,
}

#[derive(Debug)]
enum Held {
    Own(PgConnection),
    Pooled(PoolConnection<Postgres>),
    Transaction(sqlx::Transaction<'static, Postgres>),
}

impl Session {
    /// The driver's connection, for the migrator: knows nothing of poolers.
    pub(super) fn driver(&mut self) -> &mut PgConnection {
        match &mut self.held {
            Held::Own(connection) => connection,
            Held::Pooled(connection) => connection,
            Held::Transaction(transaction) => transaction,
        }
    }

    /// Ends the session: closes a connection that no pool has, else gives it back to its pool.
    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        match self.held {
            Held::Own(connection) => connection.close().await,
            Held::Pooled(_) | Held::Transaction(_) => Ok(()),
        }
    }

    fn in_transaction(&self) -> bool {
        matches!(self.held, Held::Transaction(_))
    }

    /// Runs a statement in a transaction of its own, for a pooler gives no session without one.
    async fn run_alone<'q, E>(&mut self, statement: E) -> Result<Vec<Answer>, sqlx::Error>
    where
        E: Execute<'q, Postgres> + 'q,
    {
        let mut transaction = self.driver().begin().await?;
        let answers = transaction.fetch_many(statement).try_collect().await?;
        transaction.commit().await?;
        Ok(answers)
    }
}

/// A session in a transaction, which is undone when this is dropped.
#[derive(Debug)]
pub(super) struct Transaction(Session);

impl Transaction {
    /// Keeps what was done.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self.0.held {
            Held::Transaction(transaction) => transaction.commit().await,
            Held::Own(_) | Held::Pooled(_) => Ok(()),
        }
    }
}

impl Deref for Transaction {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}
