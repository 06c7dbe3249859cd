//! Does search find what people ask for? Questions about the shared recordings, each written for one
//! passage, are asked by vector, by words and by both. Prints how often the passage is among the first
//! ten and how often its recording is the first; fails where both together are worse than the better
//! of the two. `tests/bench/README.md` says how to run it and what came out.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use embedding_recovery::app::{self, Database, Ended, ServiceVitals, StopSignal};
use embedding_recovery::config::{DatabaseArgs, EmbedderArgs, WorkArgs};
use embedding_recovery::import::Recordings;
use embedding_recovery::postgres::{Hit, SearchMode, SearchRequest};
use serde_json::{Value, json};

/// Recording, tab, words by which its passage is known, tab, question. Of two lines the first was there
/// to choose constants with, the second to confirm them.
const QUESTIONS: &str = include_str!("questions.tsv");
/// Hits that count.
const FIRST: u32 = 10;
const LISTS: [(&str, SearchMode); 3] =
    [("vector", SearchMode::Vector), ("words", SearchMode::Text), ("both", SearchMode::Hybrid)];

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    embedder: EmbedderArgs,
    #[command(flatten)]
    work: WorkArgs,
}

struct Question {
    recording_id: i64,
    /// All of them, in lower case, stand in the passage.
    passage: Vec<&'static str>,
    text: &'static str,
}

/// How many questions found what they were for: of the lines to choose with, and to confirm with.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Found {
    passage: [usize; 2],
    recording: [usize; 2],
}

fn main() -> anyhow::Result<ExitCode> {
    let recordings =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings/recordings.jsonl.gz");
    if !recordings.exists() {
        println!("skipped: {} is not here", recordings.display());
        return Ok(ExitCode::SUCCESS);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let is_configured = ["OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "OPENAI_BASE_URL"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let mut embedders = vec![vec!["--embedding-model", "local"]];
    if is_configured {
        embedders.push(vec![]);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let mut reports = Vec::new();
    for embedder in embedders {
        let directory = Directory::new()?;
        let data_dir = directory.0.to_str().context("a path in UTF-8")?;
        // An empty URL is none: never anybody's own database.
        let given = ["retrieval", "--database-url", "", "--data-dir", data_dir];
        let settings = Settings::try_parse_from(given.into_iter().chain(embedder))?;
        reports.push(runtime.block_on(measure(&settings, &recordings))?);
    }
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", Value::from_iter(reports.iter().map(as_json)));
    } else {
        reports.iter().for_each(print);
    }
    let is_good = |(_, found): &(String, [Found; 3])| {
        let [vector, words, both] = found.map(|found| found.passage.iter().sum::<usize>());
        both >= vector.max(words)
    };
    Ok(if reports.iter().all(is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A folder that the server's user can reach, gone afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new() -> std::io::Result<Self> {
        let name = format!("embedding-recovery-retrieval-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The model's name, and what each of the lists found.
async fn measure(settings: &Settings, recordings: &Path) -> anyhow::Result<(String, [Found; 3])> {
    let database = Database::open(&settings.database).await?;
    let measured = ask(&database, settings, recordings).await;
    database.close().await?;
    measured
}

async fn ask(
    database: &Database,
    settings: &Settings,
    recordings: &Path,
) -> anyhow::Result<(String, [Found; 3])> {
    let mut import = database.store.import(true);
    for read in Recordings::open(recordings, "default")? {
        import.store(&read.map_err(|refused| anyhow::anyhow!("{refused}"))?.recording).await?;
    }
    let (vitals, mut stop) = (ServiceVitals::starting(), StopSignal::listen()?);
    let Settings { embedder, work, .. } = settings;
    let served = app::serve(database, embedder, work, true, &vitals, &mut stop).await?;
    anyhow::ensure!(matches!(served, Ended::Idle(counts) if counts.dead_letter == 0), "{served:?}");
    let model = database.store.stored_model().await?.context("a model")?.name;
    let mut found = [Found::default(); 3];
    for (line, question) in questions().iter().enumerate() {
        for (found, (_, mode)) in found.iter_mut().zip(LISTS) {
            let request = SearchRequest {
                text: question.text.into(),
                embedding: None,
                user_id: None,
                recording_id: None,
                since: None,
                speaker: None,
                limit: FIRST,
                mode,
            };
            let hits = app::search(database, &settings.embedder, &request).await?.hits;
            let is_first =
                hits.first().is_some_and(|hit| hit.recording_id == question.recording_id);
            found.passage[line % 2] += usize::from(hits.iter().any(|hit| question.is_for(hit)));
            found.recording[line % 2] += usize::from(is_first);
        }
    }
    Ok((model, found))
}

fn questions() -> Vec<Question> {
    let question = |line: &'static str| {
        let mut fields = line.split('\t');
        let mut field = || fields.next().unwrap();
        Question {
            recording_id: field().parse().unwrap(),
            passage: field().split("; ").collect(),
            text: field(),
        }
    };
    QUESTIONS.lines().map(question).collect()
}

impl Question {
    fn is_for(&self, hit: &Hit) -> bool {
        let text: String = hit.passage.iter().map(|span| span.text.to_lowercase()).collect();
        hit.recording_id == self.recording_id && self.passage.iter().all(|word| text.contains(word))
    }
}

fn print((model, found): &(String, [Found; 3])) {
    let questions = questions().len();
    println!("{model}: {questions} questions, half of them held out\n");
    println!("             passage in the first {FIRST}      recording first");
    println!("          chosen  held out    all      chosen  held out    all");
    for ((name, _), Found { passage, recording }) in LISTS.iter().zip(found) {
        let row = |[chosen, held_out]: [usize; 2]| {
            format!("{chosen:>6}  {held_out:>8}  {:>5}", chosen + held_out)
        };
        println!("{name:<10}{}    {}", row(*passage), row(*recording));
    }
    println!();
}

fn as_json((model, found): &(String, [Found; 3])) -> Value {
    let counts = |[chosen, held_out]: [usize; 2]| json!({ "chosen": chosen, "held_out": held_out, "all": chosen + held_out });
    let lists = LISTS.iter().zip(found).map(|((name, _), Found { passage, recording })| {
        let found = json!({ "passage_in_first_10": counts(*passage), "recording_first": counts(*recording) });
        ((*name).to_owned(), found)
    });
    json!({ "model": model, "questions": questions().len(), "lists": Value::from_iter(lists) })
}
