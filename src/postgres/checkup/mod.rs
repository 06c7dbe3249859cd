//! What `doctor` asks a database: all of it reads, none of it writes. It goes over connections of its
//! own that work through a pooler too, in one transaction, since a pooler may change the session
//! between two.

mod schema;
mod server;

use crate::domain::checkup::{Pooling, QueueFacts, SchemaFacts, ServerFacts};
use crate::postgres::connection::Pool;
use crate::postgres::{ConnectError, StoredModel};

/// No look takes longer; in the server's notation. Only counting a very large queue takes seconds.
const LOOK_TIMEOUT: &str = "30s";

/// All that a database says of itself.
#[derive(Debug)]
pub struct DatabaseFacts {
    /// The server.
    pub server: ServerFacts,
    /// Whether migrations and index builds get a session of their own, or why not.
    pub direct: Result<(), String>,
    /// The schema and the role's rights. `None` where a pooler allows no transactions.
    pub schema: Option<SchemaFacts>,
    /// The model that search is on, where there is one and the role may see it.
    pub model: Option<StoredModel>,
    /// The queue, where there is one and the role may see it.
    pub queue: Option<QueueFacts>,
}

/// A look at a database.
pub struct Checkup {
    pool: Pool,
}

impl Checkup {
    /// Connects. `admin_url` is the way for migrations and index builds, where it is another.
    ///
    /// # Errors
    /// The database cannot be reached or refuses.
    pub async fn connect(url: &str, admin_url: Option<&str>) -> Result<Self, ConnectError> {
        let pool = Pool::open(url, 1).await?;
        Ok(Self {
            pool: match admin_url {
                Some(url) => pool.with_admin_url(url),
                None => pool,
            },
        })
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// The database's.
    pub async fn look(self) -> Result<DatabaseFacts, ConnectError> {
        let facts = self.facts().await;
        self.pool.close().await;
        Ok(facts?)
    }

    async fn facts(&self) -> Result<DatabaseFacts, sqlx::Error> {
        let pooling = self.pool.pooling();
        let direct = match self.pool.direct().await {
            Ok(session) => session.close().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if pooling == Pooling::Statement {
            let server = server::facts(&mut self.pool.acquire().await?, pooling).await?;
            return Ok(DatabaseFacts { server, direct, schema: None, model: None, queue: None });
        }
        let mut transaction = self.pool.begin_with("begin read only").await?;
        sqlx::query!("select set_config('statement_timeout', $1, true)", LOOK_TIMEOUT)
            .fetch_one(&mut *transaction)
            .await?;
        schema::look(&mut transaction, pooling, direct).await
    }
}
