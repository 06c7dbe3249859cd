//! One call, written in each of the formats, imported from each: the same chunks.

use embedding_recovery::domain::chunking::chunk;
use embedding_recovery::import::Origin;
use embedding_recovery::ports::{ImportChange, Store};
use serde_json::{Value, json};

use super::{gzip, open};
use crate::harness::TestDatabase;

const TITLE: &str = "Kick-off with Acme";
const DATE: &str = "2024-05-01T10:00:00Z";
const RECORDING_ID: i64 = 21_792_013;

/// Turns of two and more segments, long enough for several chunks.
fn call() -> Vec<(u32, &'static str, String)> {
    let speakers = ["Ann Lee", "Bob & Sons", "Ann Lee", "Zoë"];
    (0..80)
        .map(|turn: u32| {
            let mut text = format!("Turn {turn} begins, and 1 < 2 holds.");
            for word in 0..(turn % 7) * 20 {
                text += &format!(" word{word}of{turn}");
            }
            (turn * 47, speakers[turn as usize / 2 % speakers.len()], text)
        })
        .collect()
}

fn time(secs: u32) -> String {
    format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}

fn meeting() -> Value {
    let transcript: Vec<Value> = call()
        .iter()
        .map(|(secs, speaker, text)| json!({"speaker": {"display_name": speaker}, "text": text, "timestamp": time(*secs)}))
        .collect();
    json!({"recording_id": RECORDING_ID, "title": TITLE, "created_at": DATE, "transcript": transcript})
}

fn vtt() -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let cues: Vec<String> = call()
        .iter()
        .map(|(secs, speaker, text)| {
            // Lines are broken for the screen.
            let lines = escape(text).replace(" word", "\nword");
            format!(
                "{}.250 --> {}.000\n<v {}>{lines}</v>\n",
                time(*secs),
                time(secs + 40),
                escape(speaker)
            )
        })
        .collect();
    format!("WEBVTT\n\n{}", cues.join("\n"))
}

fn srt() -> String {
    let cues: Vec<String> = call()
        .iter()
        .enumerate()
        .map(|(index, (secs, speaker, text))| {
            format!(
                "{}\r\n{},250 --> {},000\r\n{speaker}: {text}\r\n",
                index + 1,
                time(*secs),
                time(secs + 40)
            )
        })
        .collect();
    cues.join("\r\n")
}

#[tokio::test]
async fn the_same_call_gives_the_same_chunks_from_every_format() {
    let page = json!({"limit": 10, "next_cursor": null, "items": [meeting()]});
    let files = [
        ("call.jsonl", meeting().to_string().into_bytes()),
        ("call.jsonl.gz", gzip(meeting().to_string())),
        ("page.json", page.to_string().into_bytes()),
        ("meeting.json", serde_json::to_string_pretty(&meeting()).unwrap().into_bytes()),
        ("list.json", json!([meeting()]).to_string().into_bytes()),
        ("Kick-off with Acme.vtt", vtt().into_bytes()),
        ("Kick-off with Acme.vtt.gz", gzip(vtt())),
        ("Kick-off with Acme.srt", srt().into_bytes()),
    ];
    let mut all = Vec::new();
    for (name, content) in files {
        let database = TestDatabase::new().await;
        let is_json = name.contains(".json");
        // The date stands in each chunk's header, and only JSON names it.
        let created_at = if is_json { None } else { DATE.parse().ok() };
        let origin = Origin { created_at, ..Origin::from(name) };
        let read = open(origin, content).unwrap().next().unwrap().unwrap();
        assert_eq!(read.warnings, Vec::<String>::new(), "{name}");
        let mut import = database.store.import(true);
        assert_eq!(import.store(&read.recording).await, Ok(ImportChange::New));
        assert_eq!(import.store(&read.recording).await, Ok(ImportChange::Unchanged));
        let recording = database.store.load(&read.recording.key).await.unwrap().recording;
        let chunks: Vec<_> = chunk(&recording)
            .iter()
            .map(|chunk| {
                let times = (chunk.start_secs(&recording), chunk.end_secs(&recording));
                let text = chunk.embedded_text(&recording);
                (text, chunk.content_hash(&recording), chunk.speakers(&recording), times)
            })
            .collect();
        assert!(chunks.len() > 5, "{name}: {}", chunks.len());
        all.push((name, chunks));
    }
    for (name, chunks) in &all[1..] {
        assert_eq!(chunks, &all[0].1, "{name}");
    }
}
