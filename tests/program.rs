//! The program as its user runs it.

mod backlog;
mod commands;
mod config;
mod demo;
mod doctor;
mod following;
mod import_files;
mod imports;
mod killed;
pub mod metrics;
mod migrating;
mod monitoring;
mod once;
mod page;
mod pictures;
mod pooled;
mod probing;
mod proxies;
mod real_servers;
mod recovering;
mod recovering_together;
mod reembedding;
mod remote;
mod searching;
mod serving;
mod starting;
mod stopping;
mod upgrading;

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::program::file;

/// A call in the shape of the shared file.
fn meeting(recording_id: i64, texts: &[&str]) -> Value {
    let transcript: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            json!({
                "speaker": {"display_name": "Ann"},
                "text": text,
                "timestamp": format!("00:00:{index:02}"),
            })
        })
        .collect();
    json!({
        "recording_id": recording_id,
        "title": format!("Call {recording_id}"),
        "created_at": "2024-05-01T10:00:00Z",
        "transcript": transcript,
    })
}

/// A file of calls, one a line.
fn calls_file(directory: &Path, name: &str, calls: &[Value]) -> String {
    let lines: String = calls.iter().map(|call| format!("{call}\n")).collect();
    file(directory, name, lines.as_bytes())
}
