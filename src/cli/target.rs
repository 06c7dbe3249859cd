//! Whom a command asks: the database, or a running service. Both answer through the same ports.

use super::remote::Remote;
use crate::app::Database;
use crate::config::{DatabaseArgs, ServiceArgs};
use crate::domain::failure::Failure;
use crate::ports::inspector::Inspector;
use crate::ports::operator::Operator;

/// What answers.
pub(super) enum Target {
    /// The database itself.
    Database(Box<Database>),
    /// A running service.
    Service(Remote),
}

impl Target {
    /// The service that `--admin-url` names, of which nothing is asked yet; else the database, opened.
    ///
    /// # Errors
    /// Settings that cannot be meant, or a database that cannot be opened.
    pub async fn open(database: &DatabaseArgs, service: &ServiceArgs) -> anyhow::Result<Self> {
        match service.service()? {
            Some(service) => Ok(Self::Service(Remote::new(&service)?)),
            None => Ok(Self::Database(Box::new(Database::open(database).await?))),
        }
    }

    /// Acts.
    pub fn operator(&self) -> &dyn Operator {
        match self {
            Self::Database(database) => &database.store,
            Self::Service(remote) => remote,
        }
    }

    /// Reads.
    pub fn inspector(&self) -> &dyn Inspector {
        match self {
            Self::Database(database) => &database.store,
            Self::Service(remote) => remote,
        }
    }

    /// True where a process is alive that does what is asked for: a service that answers is one.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_served(&self) -> Result<bool, Failure> {
        match self {
            Self::Database(database) => database.store.is_served().await,
            Self::Service(_) => Ok(true),
        }
    }

    /// Closes a database that was opened.
    ///
    /// # Errors
    /// An own server does not stop.
    pub async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Database(database) => database.close().await,
            Self::Service(_) => Ok(()),
        }
    }
}
