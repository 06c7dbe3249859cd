//! The algorithm that the program takes the place of, written anew for the comparison: one recording at
//! a time, vectors as numbers in JSON, 100 inputs a request, and inserts of 50 rows as text. It has no
//! queue, no leases and no checkpoints to keep, and cuts as the program does, which flatters it.

use std::fmt::Write;

use anyhow::Context;
use embedding_recovery::domain::chunking::{Chunk, chunk};
use embedding_recovery::domain::recording::{
    Recording, RecordingKey, Segment, format_timestamp, in_spoken_order, parse_timestamp,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

/// Makes this program the old algorithm; the database's URL and the API's base follow.
pub const COMMAND: &str = "old-algorithm";
/// Inputs of a request.
const REQUEST_INPUTS: usize = 100;
/// Rows of an insert.
const INSERT_ROWS: usize = 50;
const MODEL: &str = "text-embedding-3-small";

/// Embeds every recording of a database.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [url, base_url] = arguments else { anyhow::bail!("a database and an API are needed") };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut connection = PgConnection::connect(url).await?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let calls = sqlx::query(
            "select user_id, recording_id, title, created_at from fathom_calls order by 1, 2",
        )
        .fetch_all(&mut connection)
        .await?;
        for call in calls {
            let key = RecordingKey { user_id: call.try_get(0)?, recording_id: call.try_get(1)? };
            let segments = segments(&mut connection, &key).await?;
            let recording =
                Recording { key, title: call.try_get(2)?, created_at: call.try_get(3)?, segments };
            embed(&mut connection, &client, base_url, &recording).await?;
        }
        Ok(connection.close().await?)
    })
}

async fn segments(
    connection: &mut PgConnection,
    key: &RecordingKey,
) -> anyhow::Result<Vec<Segment>> {
    let rows = sqlx::query(
        "select coalesce(edited_speaker_name, speaker_name), coalesce(edited_text, text, ''), timestamp
         from fathom_transcripts
         where user_id = $1 and recording_id = $2 and is_deleted is not true order by id",
    )
    .bind(&key.user_id)
    .bind(key.recording_id)
    .fetch_all(connection)
    .await?;
    let segments: Result<Vec<Segment>, sqlx::Error> = rows
        .iter()
        .map(|row| {
            let timestamp: Option<String> = row.try_get(2)?;
            let start_secs = timestamp.as_deref().and_then(parse_timestamp);
            Ok(Segment { speaker: row.try_get(0)?, text: row.try_get(1)?, start_secs })
        })
        .collect();
    Ok(in_spoken_order(segments?))
}

async fn embed(
    connection: &mut PgConnection,
    client: &reqwest::Client,
    base_url: &str,
    recording: &Recording,
) -> anyhow::Result<()> {
    let chunks = chunk(recording);
    let mut vectors: Vec<Vec<f32>> = Vec::new();
    for part in chunks.chunks(REQUEST_INPUTS) {
        let inputs: Vec<String> = part.iter().map(|chunk| chunk.embedded_text(recording)).collect();
        let request = client.post(format!("{base_url}/embeddings"));
        let body = json!({ "model": MODEL, "input": inputs }).to_string();
        let request = request.header("content-type", "application/json").body(body);
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        for item in answer["data"].as_array().context("vectors")? {
            let numbers = item["embedding"].as_array().context("numbers")?;
            vectors.push(numbers.iter().filter_map(Value::as_f64).map(|x| x as f32).collect());
        }
    }
    let rows: Vec<(&Chunk, &Vec<f32>)> = chunks.iter().zip(&vectors).collect();
    for rows in rows.chunks(INSERT_ROWS) {
        sqlx::raw_sql(AssertSqlSafe(insert(recording, rows)?)).execute(&mut *connection).await?;
    }
    let done = "update embedding_queue set status = 'completed', completed_at = now()
                where user_id = $1 and recording_id = $2";
    sqlx::query(done)
        .bind(&recording.key.user_id)
        .bind(recording.key.recording_id)
        .execute(connection)
        .await?;
    Ok(())
}

/// One statement, its values written into it.
fn insert(recording: &Recording, rows: &[(&Chunk, &Vec<f32>)]) -> anyhow::Result<String> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let time = |secs: Option<u32>| secs.map_or("null".into(), |s| quoted(&format_timestamp(s)));
    let mut statement = String::from(
        "insert into transcript_chunks (user_id, recording_id, embedding_model, call_title, call_date, \
         chunk_index, chunk_text, speakers, timestamp_start, timestamp_end, embedding) values ",
    );
    for (index, (chunk, vector)) in rows.iter().enumerate() {
        let speakers: Vec<String> =
            chunk.speakers(recording).iter().map(|name| quoted(name)).collect();
        write!(
            statement,
            "{}({}, {}, '{MODEL}', {}, '{}', {}, {}, array[{}]::text[], {}, {}, '[",
            if index == 0 { "" } else { ", " },
            quoted(&recording.key.user_id),
            recording.key.recording_id,
            recording.title.as_deref().map_or("null".into(), quoted),
            recording.created_at.to_rfc3339(),
            chunk.index,
            quoted(&chunk.text(recording)),
            speakers.join(", "),
            time(chunk.start_secs(recording)),
            time(chunk.end_secs(recording)),
        )?;
        for (index, number) in vector.iter().enumerate() {
            write!(statement, "{}{number}", if index == 0 { "" } else { "," })?;
        }
        statement.push_str("]')");
    }
    Ok(statement)
}
