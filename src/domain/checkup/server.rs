//! The Postgres server, the extension, and what stands between it and this program.

use std::time::Duration;

use super::{Finding, quoted};

/// Oldest major version that the program's SQL is tested with.
const OLDEST_MAJOR: u32 = 15;
/// pgvector's changelog: the first version without the known corruptions of HNSW indexes.
const VECTOR_SOUND: (u32, u32, u32) = (0, 8, 4);
/// The first version with `hnsw.iterative_scan`, which filtered searches need (its changelog).
const VECTOR_OLDEST: (u32, u32, u32) = (0, 8, 0);
/// Inserts of even one row take longer under load.
const STATEMENT_TIMEOUT_SHORT: Duration = Duration::from_millis(300);
/// A transaction of this program is never idle for longer than a few statements take.
const IDLE_TIMEOUT_SHORT: Duration = Duration::from_secs(1);
/// Loading a transcript and swapping a set may take this long.
const TRANSACTION_TIMEOUT_SHORT: Duration = Duration::from_secs(120);
/// Connections besides the pool's: of migrations, the index's build and other clients.
const CONNECTIONS_SPARE: u32 = 4;

/// Whether the connection to the server is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// With this protocol.
    Tls(String),
    /// It is not, and never leaves the host.
    LocalPlain,
    /// It is not, and goes over a network.
    Plain,
}

/// What stands between this program and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Nothing that would show.
    Session,
    /// Each transaction may get another session.
    Transaction,
    /// Each statement may, and there are no transactions.
    Statement,
}

/// The extension `vector`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VectorFacts {
    /// Version in this database.
    pub installed: Option<String>,
    /// Version that the server could create.
    pub available: Option<String>,
    /// The role may create it.
    pub may_create: bool,
}

/// What a server says of itself, of the database and of the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// For people: `16.3`.
    pub version: String,
    /// Major version.
    pub major: u32,
    /// Name of the database.
    pub database: String,
    /// Name of the role.
    pub role: String,
    /// Whether the connection is encrypted.
    pub encryption: Encryption,
    /// A standby, or a database or role that is set to read only.
    pub read_only: bool,
    /// Of the role; `None` where there is none.
    pub statement_timeout: Option<Duration>,
    /// Of the role; `None` where there is none.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// Of the role, since Postgres 17; `None` where there is none.
    pub transaction_timeout: Option<Duration>,
    /// Connections that ordinary roles may have, all of them together.
    pub connections_max: u32,
    /// Connections that this role may have.
    pub role_connections_max: Option<u32>,
    /// What stands between.
    pub pooling: Pooling,
    /// The extension.
    pub vector: VectorFacts,
}

/// Judges a server for a pool of `pool_connections`. `no_session` says why migrations and index builds
/// get no session of their own, where they get none.
pub fn judge_server(
    facts: &ServerFacts,
    pool_connections: u32,
    no_session: Option<&str>,
) -> Vec<Finding> {
    let mut findings = vec![version(facts), encryption(facts)];
    if facts.read_only {
        findings.push(Finding::failure(
            "writing",
            "the database is read only: a standby, or default_transaction_read_only is on",
            "give the URL of the primary server, or of a role that may write",
        ));
    }
    findings.push(vector(facts));
    findings.extend(time_outs(facts));
    findings.push(connections(facts, pool_connections));
    findings.push(pooling(facts.pooling, no_session));
    findings
}

fn version(facts: &ServerFacts) -> Finding {
    let ServerFacts { version, database, role, .. } = facts;
    if facts.major < OLDEST_MAJOR {
        return Finding::failure(
            "Postgres",
            format!("version {version} is older than {OLDEST_MAJOR}, the oldest that is supported"),
            format!("upgrade the server to Postgres {OLDEST_MAJOR} or newer"),
        );
    }
    Finding::ok("Postgres", format!("version {version}, database {database}, role {role}"))
}

fn encryption(facts: &ServerFacts) -> Finding {
    match &facts.encryption {
        Encryption::Tls(protocol) => Finding::ok("encryption", protocol.clone()),
        Encryption::LocalPlain => Finding::ok("encryption", "none needed: the server is local"),
        Encryption::Plain => Finding::warning(
            "encryption",
            "transcripts cross the network in clear text",
            "add ?sslmode=verify-full to the database URL (sslmode=require where its certificate \
             cannot be checked)",
        ),
    }
}

fn vector(facts: &ServerFacts) -> Finding {
    let VectorFacts { installed, available, may_create } = &facts.vector;
    let update = "install the newer package on the server, then run: alter extension vector update";
    match (installed, available) {
        (Some(version), _) if parse(version) < VECTOR_OLDEST => Finding::failure(
            "pgvector",
            format!("version {version} cannot search with filters; 0.8.0 is the oldest that can"),
            update,
        ),
        (Some(version), _) if parse(version) < VECTOR_SOUND => Finding::warning(
            "pgvector",
            format!("version {version}: indexes can be corrupted; 0.8.4 has that fixed"),
            update,
        ),
        (Some(version), _) => Finding::ok("pgvector", format!("version {version}")),
        (None, Some(version)) if *may_create => Finding::warning(
            "pgvector",
            format!("version {version} is there, but not created in this database"),
            "run `embedding-recovery migrate`, which creates it",
        ),
        (None, Some(version)) => Finding::failure(
            "pgvector",
            format!("version {version} is there, but {} may not create it", facts.role),
            format!(
                "as a superuser, in the database {}: create extension vector",
                quoted(&facts.database)
            ),
        ),
        (None, None) => Finding::failure(
            "pgvector",
            "the server does not have it",
            "install it on the server: package postgresql-NN-pgvector, or your provider's switch",
        ),
    }
}

/// The numbers of a version; what is none counts as 0.
fn parse(version: &str) -> (u32, u32, u32) {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

fn time_outs(facts: &ServerFacts) -> Vec<Finding> {
    let alter = |name: &str, value: &str| {
        format!("alter role {} set {name} = '{value}'", quoted(&facts.role))
    };
    let mut findings = vec![match facts.statement_timeout {
        Some(short) if short < STATEMENT_TIMEOUT_SHORT => Finding::warning(
            "statement_timeout",
            format!(
                "{short:?} is below 300 ms, the shortest that is tested: inserts may fail row by row"
            ),
            alter("statement_timeout", "10s"),
        ),
        Some(limit) => {
            Finding::ok("statement_timeout", format!("{limit:?}; the size of inserts adapts to it"))
        }
        None => Finding::ok("statement_timeout", "none; the size of inserts follows their speed"),
    }];
    let others = [
        (
            "idle_in_transaction_session_timeout",
            facts.idle_in_transaction_timeout,
            IDLE_TIMEOUT_SHORT,
            "10s",
        ),
        ("transaction_timeout", facts.transaction_timeout, TRANSACTION_TIMEOUT_SHORT, "30min"),
    ];
    for (name, limit, short, better) in others {
        if let Some(limit) = limit.filter(|limit| *limit < short) {
            findings.push(Finding::warning(
                name,
                format!("{limit:?} may end sessions in the middle of their work"),
                alter(name, better),
            ));
        }
    }
    findings
}

fn connections(facts: &ServerFacts, pool: u32) -> Finding {
    let allowed = facts.role_connections_max.unwrap_or(u32::MAX).min(facts.connections_max);
    let fewer = allowed.saturating_sub(CONNECTIONS_SPARE).max(1);
    let told = format!("{pool} of {allowed} that the server allows");
    let way_out = format!(
        "--database-connections {fewer} or less, shared out among replicas, or a larger \
         max_connections (or connection limit of the role) on the server"
    );
    match pool {
        pool if pool > allowed => Finding::failure("connections", told, way_out),
        pool if pool > fewer => {
            Finding::warning("connections", format!("{told}: none is left for others"), way_out)
        }
        _ => Finding::ok("connections", told),
    }
}

fn pooling(pooling: Pooling, no_session: Option<&str>) -> Finding {
    match (pooling, no_session) {
        (Pooling::Statement, _) => Finding::failure(
            "pooler",
            "a pooler in statement mode is in between: it allows no transactions",
            "set pool_mode = transaction or session for this database in pgbouncer.ini",
        ),
        (Pooling::Session | Pooling::Transaction, Some(problem)) => Finding::warning(
            "pooler",
            format!("migrations and index builds cannot run: {problem}"),
            "set --admin-database-url (EMBEDDING_RECOVERY_ADMIN_DATABASE_URL) to a URL of this \
             database that goes straight to the server",
        ),
        (Pooling::Session, None) => Finding::ok("pooler", "none in transaction mode"),
        (Pooling::Transaction, None) => Finding::ok(
            "pooler",
            "in transaction mode; migrations and index builds go straight to the server",
        ),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
