//! The Postgres of the benchmark, with its default settings, and databases that are copied from
//! prepared ones, so that each run begins with the same rows.

use std::path::{Path, PathBuf};

use embedding_recovery::embedded::{EmbeddedOptions, EmbeddedPostgres, default_cache_dir};
use embedding_recovery::postgres::PgStore;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;

/// The running server.
pub struct Server {
    postgres: EmbeddedPostgres,
    folder: PathBuf,
}

impl Server {
    /// Starts a new one that counts statements.
    pub async fn start(folder: PathBuf) -> anyhow::Result<Self> {
        let postgres = EmbeddedPostgres::start(options(&folder)).await?;
        let mut connection = PgConnection::connect(postgres.url()).await?;
        sqlx::raw_sql("alter system set shared_preload_libraries = 'pg_stat_statements'")
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        postgres.stop_if_last().await?;
        let postgres = EmbeddedPostgres::start(options(&folder)).await?;
        let server = Self { postgres, folder };
        server.run("create extension pg_stat_statements").await?;
        Ok(server)
    }

    /// Postgres's and pgvector's versions, for people.
    pub async fn describe(&self) -> anyhow::Result<String> {
        let mut connection = PgConnection::connect(self.postgres.url()).await?;
        let told = sqlx::query_scalar(
            "select 'Postgres ' || split_part(current_setting('server_version'), ' ', 1) || ', pgvector '
                || (select default_version from pg_available_extensions where name = 'vector')",
        )
        .fetch_one(&mut connection)
        .await?;
        Ok(told)
    }

    /// A new database: a copy of another, or empty and migrated.
    pub async fn database(&self, name: &str, copy_of: Option<&str>) -> anyhow::Result<Database> {
        let template = copy_of.map(|name| format!(" template {name}")).unwrap_or_default();
        self.run(&format!("create database {name}{template}")).await?;
        let mut url: Url = self.postgres.url().parse()?;
        url.set_path(name);
        let store = PgStore::connect(url.as_str(), 4).await?;
        if copy_of.is_none() {
            store.migrate().await?;
        }
        // What was written so far is not the next run's to write.
        self.run("checkpoint").await?;
        Ok(Database { name: name.to_owned(), url: url.into(), store })
    }

    /// Leaves a database, so that it can be copied.
    pub async fn finish(&self, database: Database) -> anyhow::Result<()> {
        database.store.close().await;
        let end = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = ";
        self.run(&format!("{end}'{}'", database.name)).await
    }

    /// Removes a database.
    pub async fn drop(&self, database: Database) -> anyhow::Result<()> {
        database.store.close().await;
        self.drop_named(&database.name).await
    }

    /// Removes a database that was left.
    pub async fn drop_named(&self, name: &str) -> anyhow::Result<()> {
        self.run(&format!("drop database {name} with (force)")).await
    }

    /// Statements that a database was sent so far.
    pub async fn statements(&self, database: &Database) -> anyhow::Result<i64> {
        let mut connection = PgConnection::connect(self.postgres.url()).await?;
        let statements = sqlx::query_scalar(
            "select coalesce(sum(calls), 0)::bigint from pg_stat_statements
             where dbid = (select oid from pg_database where datname = $1)",
        )
        .bind(&database.name)
        .fetch_one(&mut connection)
        .await?;
        Ok(statements)
    }

    async fn run(&self, statement: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(self.postgres.url()).await?;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Stops it and removes its data.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.postgres.stop_if_last().await?;
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }
}

fn options(folder: &Path) -> EmbeddedOptions {
    EmbeddedOptions {
        data_dir: folder.to_owned(),
        cache_dir: default_cache_dir(),
        bin_dir: None,
        durable: true,
    }
}

/// A database of the benchmark.
pub struct Database {
    name: String,
    /// Where it is.
    pub url: String,
    /// The program's own way to it.
    pub store: PgStore,
}

impl Database {
    /// A connection for statements of the benchmark's own.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }

    /// Runs statements.
    pub async fn execute(&self, statements: &'static str) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql(statements).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Counts.
    pub async fn count(&self, query: &'static str) -> anyhow::Result<u64> {
        let mut connection = self.connect().await?;
        let count: i64 = sqlx::query_scalar(query).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(count.unsigned_abs())
    }
}
