//! The schema, what the role may do with it, the search index, and the queue at a glance.

use std::time::Duration;

use super::{Finding, quoted};
use crate::domain::program_version::ProgramVersion;

/// What state the schema is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaState {
    /// What this program was built for.
    Fits,
    /// Never migrated. What of the tables that are there already does not fit, one sentence each.
    Missing {
        /// Empty where nothing stands against a migration.
        differences: Vec<String>,
    },
    /// Migrations are missing.
    Outdated {
        /// How many.
        missing: usize,
    },
    /// The role may not read which migrations were applied.
    Unreadable,
    /// It serves later programs only.
    Newer {
        /// The oldest program that it serves.
        oldest: ProgramVersion,
    },
}

/// The state of the stored model's HNSW index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexState {
    /// Searches use it.
    Valid,
    /// A build that was interrupted left it.
    Invalid,
    /// There is none.
    Missing,
    /// There is none until the backlog load that is under way ends.
    Postponed,
    /// The model has more dimensions than an index takes.
    Impossible,
}

/// What a database says of the schema and of the role's rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaFacts {
    /// Its state.
    pub state: SchemaState,
    /// The server is the program's own, which every command migrates.
    pub is_own: bool,
    /// Name of the role.
    pub role: String,
    /// Name of the schema that tables are created in.
    pub schema: String,
    /// The role may use the schema.
    pub may_use: bool,
    /// The role may create tables in it.
    pub may_create: bool,
    /// Tables that a migration may have to change, of another owner.
    pub foreign_tables: Vec<String>,
    /// Rights that are missing: the table and what may not be done with it.
    pub missing_rights: Vec<(String, Vec<String>)>,
    /// Rights on the source tables that only `import` needs, and that are missing.
    pub missing_import_rights: Vec<(String, Vec<String>)>,
    /// Triggers that would tell of changes and are missing or disabled.
    pub missing_triggers: Vec<String>,
    /// State of the index, where a model is stored.
    pub index: Option<IndexState>,
    /// The role owns the table of chunks, and so may build the index; true where there is none.
    pub owns_chunks: bool,
}

/// Judges a schema.
pub fn judge_schema(facts: &SchemaFacts) -> Vec<Finding> {
    let mut findings = vec![state(facts)];
    findings.extend(match facts.state {
        SchemaState::Newer { .. } => Vec::new(),
        SchemaState::Missing { .. } | SchemaState::Outdated { .. } => to_migrate(facts),
        SchemaState::Fits | SchemaState::Unreadable => to_serve(facts),
    });
    findings
}

fn state(facts: &SchemaFacts) -> Finding {
    const CHECK: &str = "schema";
    match &facts.state {
        SchemaState::Fits => Finding::ok(CHECK, "up to date"),
        SchemaState::Unreadable => Finding::failure(
            CHECK,
            format!("{} may not read _sqlx_migrations, which has its version", facts.role),
            format!("as its owner: grant select on _sqlx_migrations to {}", quoted(&facts.role)),
        ),
        SchemaState::Newer { oldest } => Finding::failure(
            CHECK,
            format!("newer than this program: it serves version {oldest} and later"),
            "install the newer program",
        ),
        SchemaState::Missing { differences } if !differences.is_empty() => Finding::failure(
            CHECK,
            format!("tables of these names do not fit: {}", differences.join("; ")),
            "change or rename what is named, or use another database or schema",
        ),
        SchemaState::Missing { .. } | SchemaState::Outdated { .. } if facts.is_own => {
            Finding::ok(CHECK, "not up to date; the next command brings it there")
        }
        SchemaState::Missing { .. } => {
            Finding::failure(CHECK, "not there", "run `embedding-recovery migrate`")
        }
        SchemaState::Outdated { missing } => Finding::failure(
            CHECK,
            format!("older than this program: {missing} migrations are missing"),
            "run `embedding-recovery migrate`",
        ),
    }
}

/// What a migration needs.
fn to_migrate(facts: &SchemaFacts) -> Vec<Finding> {
    let (role, schema) = (quoted(&facts.role), quoted(&facts.schema));
    let mut findings = vec![match facts.may_create {
        true => Finding::ok("right to create", format!("tables in schema {}", facts.schema)),
        false => Finding::failure(
            "right to create",
            format!("{} may not create tables in schema {}", facts.role, facts.schema),
            format!("as its owner: grant usage, create on schema {schema} to {role}"),
        ),
    }];
    if !facts.foreign_tables.is_empty() {
        let tables = facts.foreign_tables.join(", ");
        let statements: Vec<String> = facts
            .foreign_tables
            .iter()
            .map(|table| format!("alter table {} owner to {role}", quoted(table)))
            .collect();
        findings.push(Finding::warning(
            "ownership",
            format!("{tables} belong to others: columns, keys and triggers cannot be added there"),
            format!("run migrate as their owner, or: {}", statements.join("; ")),
        ));
    }
    findings
}

/// What the service needs.
fn to_serve(facts: &SchemaFacts) -> Vec<Finding> {
    let mut findings = vec![rights(facts)];
    if !facts.missing_import_rights.is_empty() {
        findings.push(Finding::warning(
            "right to import",
            format!("{} may not write to the source tables: `import` fails", facts.role),
            grants(&facts.missing_import_rights, &facts.role),
        ));
    }
    findings.push(match facts.missing_triggers.is_empty() {
        true => Finding::ok("triggers", "changes of transcripts are seen at once"),
        false => Finding::warning(
            "triggers",
            format!(
                "{} missing or disabled: changes are found at the ticks of --schedule, and an edit \
                 does not bring a dead letter back",
                facts.missing_triggers.join(", ")
            ),
            "as the owner of fathom_calls and fathom_transcripts: run the `create trigger` statements \
             of migrations/0004_changes.sql, or `alter table … enable trigger`",
        ),
    });
    findings.push(index(facts));
    findings
}

fn rights(facts: &SchemaFacts) -> Finding {
    const CHECK: &str = "rights";
    let (role, schema) = (quoted(&facts.role), quoted(&facts.schema));
    if !facts.may_use {
        return Finding::failure(
            CHECK,
            format!("{} may not use schema {}", facts.role, facts.schema),
            format!("as its owner: grant usage on schema {schema} to {role}"),
        );
    }
    if facts.missing_rights.is_empty() {
        return Finding::ok(CHECK, format!("{} may do all that `serve` needs", facts.role));
    }
    let told: Vec<String> = facts
        .missing_rights
        .iter()
        .map(|(table, rights)| format!("{} on {table}", rights.join(", ")))
        .collect();
    Finding::failure(
        CHECK,
        format!("{} lacks {}", facts.role, told.join("; ")),
        grants(&facts.missing_rights, &facts.role),
    )
}

fn grants(missing: &[(String, Vec<String>)], role: &str) -> String {
    let role = quoted(role);
    let statements: Vec<String> = missing
        .iter()
        .map(|(table, rights)| {
            format!("grant {} on {} to {role}", rights.join(", "), quoted(table))
        })
        .collect();
    format!("as their owner: {}", statements.join("; "))
}

fn index(facts: &SchemaFacts) -> Finding {
    const CHECK: &str = "search index";
    let built = "`serve` builds it at its next start";
    let (told, needs_build) = match facts.index {
        Some(IndexState::Valid) => return Finding::ok(CHECK, "there and valid"),
        Some(IndexState::Impossible) => {
            return Finding::warning(
                CHECK,
                "the model has more than 4000 dimensions: search looks at every chunk",
                "set EMBEDDING_DIMENSIONS to less, with another database",
            );
        }
        Some(IndexState::Postponed) => {
            return Finding::warning(
                CHECK,
                "a backlog load is under way: search looks at every chunk until it ends",
                "wait for it; where it is broken off, `serve` builds the index",
            );
        }
        Some(IndexState::Invalid) => ("left invalid by a build that was interrupted", true),
        Some(IndexState::Missing) => ("missing: search looks at every chunk", true),
        None => ("nothing is embedded yet", false),
    };
    // To create an index takes both.
    let (role, schema) = (quoted(&facts.role), quoted(&facts.schema));
    let lacking: Vec<String> = [
        (!facts.owns_chunks, format!("alter table transcript_chunks owner to {role}")),
        (!facts.may_create, format!("grant create on schema {schema} to {role}")),
    ]
    .into_iter()
    .filter_map(|(lacks, statement)| lacks.then_some(statement))
    .collect();
    if !lacking.is_empty() {
        return Finding::failure(
            CHECK,
            format!(
                "{told}; {} may not build it: that takes the table transcript_chunks and the right to \
                 create in schema {}",
                facts.role, facts.schema
            ),
            format!("start `serve` once as the role that migrated, or: {}", lacking.join("; ")),
        );
    }
    match needs_build {
        true => Finding::warning(CHECK, told, built),
        false => Finding::ok(CHECK, format!("{told}; {built}")),
    }
}

/// The queue at a glance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// Tasks that wait for a worker.
    pub waiting: u64,
    /// Tasks in work.
    pub processing: u64,
    /// Tasks that wait for a retry.
    pub failed: u64,
    /// Tasks that are done.
    pub completed: u64,
    /// Tasks that were given up.
    pub dead: u64,
    /// Age of the task that waits for the longest time.
    pub oldest: Option<Duration>,
}

/// Tells the queue.
pub fn judge_queue(facts: &QueueFacts) -> Finding {
    const CHECK: &str = "queue";
    let QueueFacts { waiting, processing, failed, completed, dead, oldest } = facts;
    let age = match oldest {
        Some(age) if age.as_secs() >= 3_600 => format!(" (oldest {} h)", age.as_secs() / 3_600),
        Some(age) if age.as_secs() >= 60 => format!(" (oldest {} min)", age.as_secs() / 60),
        Some(age) => format!(" (oldest {} s)", age.as_secs()),
        None => String::new(),
    };
    let told = format!(
        "{waiting} waiting{age}, {processing} in work, {failed} to be retried, {completed} completed, \
         {dead} dead letters"
    );
    match dead {
        0 => Finding::ok(CHECK, told),
        _ => Finding::warning(
            CHECK,
            told,
            "select recording_id, dead_letter_reason from embedding_queue where status = \
             'dead_letter'; when it is mended: `embedding-recovery enqueue --recording ID`",
        ),
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
