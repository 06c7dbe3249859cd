//! What is measured. Every case begins with a fresh copy of a prepared database, so that all of one kind
//! write the same rows on the same server.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;

use crate::api::Api;
use crate::child::{self, Taken};
use crate::old;
use crate::rows::{self, Means, Row, Table};
use crate::server::{Database, Server};

/// What a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Rows only.
    Raw { means: Means, table: Table, connections: usize, live_index: bool },
    /// The program.
    Program(Program),
    /// The algorithm before it.
    Old { api_millis: u64 },
}

/// How the program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `serve` without a vector index, as beside a backlog load.
    NoIndex { api_millis: u64, traced: bool },
    /// `serve` into an index that is there from the beginning.
    LiveIndex,
    /// `backlog load`: the index is built at the end.
    Backlog,
    /// `serve` with the built-in model, without a vector index.
    LocalModel,
    /// `serve` over many recordings of one sentence, without a vector index.
    Tiny,
    /// `serve` over ten recordings of many chunks at once, without a vector index.
    Long,
}

/// What came out of one run of a case.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// From its start to its end.
    pub wall: Duration,
    /// Chunks that were stored, or recordings where these are tiny.
    pub units: u64,
    /// Of a child process.
    pub taken: Option<Taken>,
    /// Requests to the API.
    pub requests: u64,
    /// Statements to the database.
    pub statements: u64,
}

impl Measured {
    /// Units a second.
    pub fn rate(&self) -> f64 {
        self.units as f64 / self.wall.as_secs_f64()
    }
}

impl Case {
    /// For people and programs.
    pub fn name(self) -> String {
        match self {
            Self::Raw { means, table, connections, live_index } => {
                let means = match means {
                    Means::Copy => "COPY",
                    Means::Unnest => "unnest",
                };
                let table = match (table, live_index) {
                    (Table::Bare, _) => "bare table",
                    (Table::OwnWithoutWords, _) => "no words",
                    (Table::Own, false) => "its table",
                    (Table::Own, true) => "live HNSW",
                };
                format!("{means}, {table}, {connections} conn.")
            }
            Self::Program(Program::NoIndex { api_millis: 0, traced: false }) => "program".into(),
            Self::Program(Program::NoIndex { api_millis, traced: false }) => {
                format!("program, {api_millis} ms API")
            }
            Self::Program(Program::NoIndex { traced: true, .. }) => "program, traced".into(),
            Self::Program(Program::LiveIndex) => "program, live HNSW".into(),
            Self::Program(Program::Backlog) => "program, backlog load".into(),
            Self::Program(Program::LocalModel) => "program, local model".into(),
            Self::Program(Program::Tiny) => "program, tiny recordings".into(),
            Self::Program(Program::Long) => "program, long recordings".into(),
            Self::Old { api_millis: 0 } => "old algorithm".into(),
            Self::Old { api_millis } => format!("old algorithm, {api_millis} ms API"),
        }
    }

    /// What its rate counts.
    pub fn unit(self) -> &'static str {
        if self == Self::Program(Program::Tiny) { "tasks" } else { "chunks" }
    }

    fn has_live_index(self) -> bool {
        matches!(self, Self::Raw { live_index: true, .. } | Self::Program(Program::LiveIndex))
    }
}

/// What every case is run with.
pub struct Bench<'a> {
    pub server: &'a Server,
    pub api: Api,
    /// What is stored without a vector index: much, so that the start of a run is a small part of it.
    pub plain: Work,
    /// What is stored under a vector index, or has one built: that is slow.
    pub indexed: Work,
    /// Where children write their errors to.
    pub errors: std::path::PathBuf,
}

/// What most cases store.
pub struct Work {
    /// The database with the calls, which are queued.
    pub calls: &'static str,
    /// The database with the sets of all their chunks, and none of the chunks.
    pub sets: &'static str,
    /// All rows that the program stores.
    pub rows: Vec<Row>,
}

/// Recordings of one sentence.
pub const TINY_CALLS: &str = "tiny_calls";
/// Calls of which nothing was stored, though each has something to say.
const WITHOUT_CHUNKS: &str = "select count(*) from fathom_calls c where not exists
    (select from searchable_chunks s where (s.user_id, s.recording_id) = (c.user_id, c.recording_id))";
/// Ten recordings of many chunks.
pub const LONG_CALLS: &str = "long_calls";

impl Bench<'_> {
    /// Runs a case once.
    pub async fn run(&self, case: Case) -> anyhow::Result<Measured> {
        let template = match case {
            Case::Raw { .. } => self.work(case).sets,
            Case::Program(Program::Tiny) => TINY_CALLS,
            Case::Program(Program::Long) => LONG_CALLS,
            Case::Program(_) | Case::Old { .. } => self.work(case).calls,
        };
        let database = self.server.database("measured", Some(template)).await?;
        let measured = self.measure(case, &database).await;
        self.server.drop(database).await?;
        measured
    }

    fn work(&self, case: Case) -> &Work {
        let is_indexed = case.has_live_index() || case == Case::Program(Program::Backlog);
        if is_indexed { &self.indexed } else { &self.plain }
    }

    async fn measure(&self, case: Case, database: &Database) -> anyhow::Result<Measured> {
        if case.has_live_index() {
            let name = "text-embedding-3-small".into();
            let dimensions = crate::DIMENSIONS as u32;
            database
                .store
                .use_model(&embedding_recovery::ports::Model { name, dimensions })
                .await?;
        }
        if matches!(case, Case::Raw { table: Table::OwnWithoutWords, .. }) {
            database.execute(rows::DROP_WORDS).await?;
        }
        let (requests, statements) =
            (self.api.requests().await?, self.server.statements(database).await?);
        let (wall, taken) = match case {
            Case::Raw { means, table, connections, .. } => {
                let rows = &self.work(case).rows;
                (rows::write(database, rows, table, means, connections).await?, None)
            }
            Case::Program(program) => {
                let taken = self.program(program, database).await?;
                (taken.wall, Some(taken))
            }
            Case::Old { api_millis } => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([old::COMMAND, &database.url, &self.api.base_url(api_millis)]);
                let taken = child::run(&mut command, &self.errors)?;
                (taken.wall, Some(taken))
            }
        };
        let statements = self.server.statements(database).await? - statements;
        let requests = self.api.requests().await? - requests;
        let units = self.units(case, database).await?;
        Ok(Measured { wall, units, taken, requests, statements: statements.unsigned_abs() })
    }

    /// Counts what was stored, and makes sure that nothing was left out.
    async fn units(&self, case: Case, database: &Database) -> anyhow::Result<u64> {
        let all = self.work(case).rows.len() as u64;
        let (stored, expected) = match case {
            Case::Raw { table: Table::Bare, .. } => {
                (database.count("select count(*) from bare_chunks").await?, all)
            }
            Case::Raw { .. } | Case::Old { .. } => {
                (database.count("select count(*) from transcript_chunks").await?, all)
            }
            Case::Program(program) => {
                let left = "select count(*) from embedding_queue where status <> 'completed'";
                let sound = database.store.verify().await?.violations.is_empty();
                ensure!(database.count(left).await? == 0 && sound, "{} is not sound", case.name());
                ensure!(
                    database.count(WITHOUT_CHUNKS).await? == 0,
                    "{}: calls are left",
                    case.name()
                );
                let stored = database.count("select count(*) from searchable_chunks").await?;
                let of_other_calls = matches!(program, Program::Tiny | Program::Long);
                (stored, if of_other_calls { stored } else { all })
            }
        };
        ensure!(stored == expected, "{}: {stored} rows of {expected}", case.name());
        match case {
            Case::Program(Program::Tiny) => {
                database.count("select count(*) from embedding_queue").await
            }
            _ => Ok(stored),
        }
    }

    /// Runs the program until everything is done.
    pub async fn program(&self, program: Program, database: &Database) -> anyhow::Result<Taken> {
        // As long as somebody loads a backlog, nobody builds an index.
        let load = match program {
            Program::LiveIndex | Program::Backlog => None,
            _ => Some(database.store.begin_backlog_load().await?),
        };
        let api_millis = match program {
            Program::NoIndex { api_millis, .. } => api_millis,
            _ => 0,
        };
        let mut command = child::program(&database.url);
        match program {
            Program::Backlog => command.args(["backlog", "load", "--yes"]),
            _ => command.args(["serve", "--exit-when-idle"]),
        };
        match program {
            Program::LocalModel => command.env("EMBEDDING_MODEL", "local"),
            _ => command
                .env("OPENAI_BASE_URL", self.api.base_url(api_millis))
                .env("OPENAI_API_KEY", "none"),
        };
        let is_traced = matches!(program, Program::NoIndex { traced: true, .. });
        let traced_before = self.api.traced().await?;
        if is_traced {
            // Traces alone: their cost is what is asked for. The receiver takes them over HTTP.
            command
                .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", self.api.traces_url())
                .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        }
        if program == Program::LiveIndex {
            // A quarter of them insert: as many as the raw inserts that it is compared with.
            command.env("EMBEDDING_RECOVERY_DATABASE_CONNECTIONS", "8");
        }
        let taken = child::run(&mut command, &self.errors)?;
        ensure!((self.api.traced().await? > traced_before) == is_traced, "traces: {is_traced}");
        if let Some(load) = load {
            load.end().await?;
        }
        Ok(taken)
    }
}
