//! Adoption of tables that exist already: every way in which they do not fit, named before anything
//! is changed.

use super::connection::Session;

/// Columns that must have this type where their table exists already. Missing ones are added,
/// except those marked as needed: their values cannot be invented.
const EXPECTED: &[(&str, &str, &str, bool)] = &[
    ("fathom_calls", "recording_id", "bigint", true),
    ("fathom_calls", "user_id", "text", true),
    ("fathom_calls", "title", "text", false),
    ("fathom_calls", "created_at", "timestamp with time zone", false),
    ("fathom_transcripts", "id", "bigint", true),
    ("fathom_transcripts", "recording_id", "bigint", true),
    ("fathom_transcripts", "user_id", "text", true),
    ("fathom_transcripts", "speaker_name", "text", true),
    ("fathom_transcripts", "speaker_email", "text", false),
    ("fathom_transcripts", "text", "text", true),
    ("fathom_transcripts", "timestamp", "text", true),
    ("fathom_transcripts", "edited_text", "text", false),
    ("fathom_transcripts", "edited_speaker_name", "text", false),
    ("fathom_transcripts", "is_deleted", "boolean", false),
    ("embedding_jobs", "id", "uuid", true),
    ("embedding_jobs", "created_at", "timestamp with time zone", false),
    ("embedding_jobs", "requested_by", "text", false),
    ("embedding_jobs", "priority", "integer", false),
    ("embedding_queue", "id", "uuid", true),
    ("embedding_queue", "user_id", "text", true),
    ("embedding_queue", "job_id", "uuid", false),
    ("embedding_queue", "recording_id", "bigint", true),
    ("embedding_queue", "status", "text", true),
    ("embedding_queue", "attempts", "integer", false),
    ("embedding_queue", "max_attempts", "integer", false),
    ("embedding_queue", "last_error", "text", false),
    ("embedding_queue", "next_retry_at", "timestamp with time zone", false),
    ("embedding_queue", "locked_at", "timestamp with time zone", false),
    ("embedding_queue", "worker_id", "uuid", false),
    ("embedding_queue", "completed_at", "timestamp with time zone", false),
    ("embedding_queue", "created_at", "timestamp with time zone", false),
    ("embedding_queue", "priority", "integer", false),
    ("transcript_chunks", "user_id", "text", true),
    ("transcript_chunks", "recording_id", "bigint", true),
    ("transcript_chunks", "chunk_text", "text", true),
    ("transcript_chunks", "chunk_index", "integer", true),
    ("transcript_chunks", "speakers", "ARRAY", false),
    ("transcript_chunks", "timestamp_start", "text", false),
    ("transcript_chunks", "timestamp_end", "text", false),
    ("transcript_chunks", "call_title", "text", false),
    ("transcript_chunks", "call_date", "timestamp with time zone", false),
    ("transcript_chunks", "embedding", "vector", true),
    ("transcript_chunks", "embedding_model", "text", false),
];

/// Names each way in which tables that exist already do not fit.
pub(super) async fn differences(connection: &mut Session) -> Result<Vec<String>, sqlx::Error> {
    let found: Vec<(String, String, String)> = sqlx::query!(
        r#"select table_name as "table!", column_name as "column!",
                  case when data_type = 'USER-DEFINED' then udt_name else data_type end as "type!"
           from information_schema.columns where table_schema = current_schema()"#
    )
    .map(|row| (row.table, row.column, row.r#type))
    .fetch_all(&mut *connection)
    .await?;
    let mut differences = Vec::new();
    for (table, column, expected, needed) in EXPECTED {
        if !found.iter().any(|(of, ..)| of == table) {
            continue;
        }
        match found.iter().find(|(of, name, _)| of == table && name == column) {
            Some((_, _, actual)) if actual != expected => {
                differences.push(format!("{table}.{column} is {actual}, not {expected}"));
            }
            None if *needed => {
                differences.push(format!("{table} has no column {column} ({expected})"))
            }
            _ => {}
        }
    }
    let has =
        |table: &str, column: &str| found.iter().any(|(of, name, _)| of == table && name == column);
    if has("transcript_chunks", "chunk_text") && !has("transcript_chunks", "id") {
        differences.push("transcript_chunks has no column id (of any type)".into());
    }
    differences.extend(foreign_rules(connection).await?);
    if differences.is_empty() {
        differences.extend(unfit_rows(connection, &found).await?);
    }
    Ok(differences)
}

/// Rules of an earlier system that rows of this program would break: a unique index makes an edited
/// recording's new chunks, or a second task after a completed one, collide with the old; a check
/// may not know a state; a column that must be filled is not; and rows are referred to by id.
async fn foreign_rules(connection: &mut Session) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"with written as (
               select oid, relname as name from pg_class
               where relname in ('embedding_jobs', 'embedding_queue', 'transcript_chunks')
                 and relkind in ('r', 'p') and pg_table_is_visible(oid)
           ), keys as (
               select w.name, i.indexrelid, i.indisprimary,
                      (select array_agg(a.attname::text) from pg_attribute a
                       where a.attrelid = w.oid and a.attnum = any(i.indkey)) as columns
               from written w join pg_index i on i.indrelid = w.oid
               where i.indisunique and i.indpred is null
           )
           select format('%s has the unique index %s, which would refuse new rows: drop it',
                         name, indexrelid::regclass) as "difference!"
           from keys where columns <> '{id}'
           union all
           select format('%s.id is not its primary key', name) from written w
           where name <> 'transcript_chunks' and not exists (
               select from keys k where k.name = w.name and k.indisprimary and k.columns = '{id}')
           union all
           select format('%s has the check %s, which may refuse new rows: drop it', w.name, c.conname)
           from written w join pg_constraint c on c.conrelid = w.oid and c.contype = 'c'
           union all
           select format('%s.%s must be filled, which this program does not: give it a default', w.name, a.attname)
           from written w join pg_attribute a on a.attrelid = w.oid
           where a.attnum > 0 and not a.attisdropped and a.attnotnull and not a.atthasdef and a.attidentity = ''
             and not (w.name, a.attname) in (
                 ('embedding_jobs', 'id'), ('embedding_jobs', 'created_at'),
                 ('embedding_jobs', 'requested_by'), ('embedding_jobs', 'priority'),
                 ('embedding_queue', 'id'), ('embedding_queue', 'user_id'), ('embedding_queue', 'recording_id'),
                 ('embedding_queue', 'status'), ('embedding_queue', 'attempts'),
                 ('embedding_queue', 'max_attempts'), ('embedding_queue', 'priority'),
                 ('embedding_queue', 'created_at'),
                 ('transcript_chunks', 'user_id'), ('transcript_chunks', 'recording_id'),
                 ('transcript_chunks', 'chunk_index'), ('transcript_chunks', 'chunk_text'),
                 ('transcript_chunks', 'embedding'), ('transcript_chunks', 'embedding_model'),
                 ('transcript_chunks', 'speakers'), ('transcript_chunks', 'call_date'))"#
    )
    .fetch_all(connection)
    .await
}

/// Rows that the keys and checks would refuse. Not checked queries: the tables may not exist.
async fn unfit_rows(
    connection: &mut Session,
    found: &[(String, String, String)],
) -> Result<Vec<String>, sqlx::Error> {
    let mut differences = Vec::new();
    for (table, unfit, what) in [
        (
            "fathom_calls",
            "select count(*) from (select from fathom_calls group by user_id, recording_id
             having count(*) > 1 or bool_or(user_id is null or recording_id is null)) d",
            "recordings without a user or more than once for one user",
        ),
        (
            "embedding_queue",
            "select count(*) from (select from embedding_queue where status <> 'completed'
             group by user_id, recording_id having count(*) > 1) d",
            "recordings with more than one open task: keep one of each, delete the others",
        ),
        (
            "embedding_queue",
            "select count(*) from embedding_queue where status is null or status not in
             ('pending', 'processing', 'completed', 'failed', 'dead_letter')",
            "tasks in a state that this program does not know",
        ),
    ] {
        if !found.iter().any(|(of, ..)| of == table) {
            continue;
        }
        let count: i64 = sqlx::query_scalar(unfit).fetch_one(&mut *connection).await?;
        if count > 0 {
            differences.push(format!("{table} has {count} {what}"));
        }
    }
    Ok(differences)
}
