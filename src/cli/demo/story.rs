//! What the demo says: on the way, and when all is done. Every number is of this run.

use std::path::Path;
use std::time::Duration;

use console::{style, truncate_str};

use super::drill::{Back, Drill, Killed};
use super::screen::Screen;
use crate::app::demo::Pace;
use crate::cli::search;
use crate::postgres::{Hit, Report};

/// The samples, in a clone of the repository.
const SAMPLES: &str = "samples/calls.jsonl";

/// Of a title in a line of 60.
const TITLE_COLUMNS: usize = 32;

/// What happened.
pub(super) struct Story {
    report: Report,
    chunks_bought: u64,
    took: Duration,
    drilled: Option<(Killed, Back)>,
    answer: Option<(String, Vec<Hit>)>,
}

/// `13 recordings`.
pub(super) fn recordings(count: u64) -> String {
    match count {
        1 => "1 recording".into(),
        _ => format!("{count} recordings"),
    }
}

/// How fast the work is made.
pub(super) fn of_the_pace(pace: &Pace) -> String {
    let Pace { recordings_at_once, requests_at_once, inputs_max, latency } = pace;
    format!(
        "{} the built-in model, slowed down to the pace of an API:\n  \
         {inputs_max} chunks a request and {:.2} s for each,\n  \
         {recordings_at_once} recordings at once, {requests_at_once} requests of each",
        style("✓").green(),
        latency.as_secs_f64(),
    )
}

pub(super) fn of_the_kill(title: &str, killed: &Killed) -> String {
    let Killed { stored, total, .. } = killed;
    let title = truncate_str(title, TITLE_COLUMNS, "…");
    format!(
        "\n{} killed the worker of \"{title}\"\n  at chunk {stored} of {total}",
        style("✗").red().bold()
    )
}

pub(super) fn of_the_return(back: &Back) -> String {
    let millis = back.after.as_millis();
    let what = match back.kept {
        Some(kept) => format!("{kept} chunks kept"),
        None => "and it is done already".into(),
    };
    format!("{} back after {millis} ms in the same attempt, {what}", style("↻").yellow())
}

impl Story {
    pub(super) fn new(drill: &Drill, report: Report, chunks_bought: u64, took: Duration) -> Self {
        let drilled = drill.killed().zip(drill.back());
        Self { report, chunks_bought, took, drilled, answer: None }
    }

    /// Whether all that must hold does.
    pub(super) fn is_sound(&self) -> bool {
        self.report.violations.is_empty()
    }

    /// What happened, in numbers.
    pub(super) fn tell(&self, screen: &Screen) {
        let Report { chunks, recordings, tasks, violations, .. } = &self.report;
        let seconds = self.took.as_secs_f64();
        screen.line(format!(
            "{} searchable: {}, {chunks} chunks, {:.0} chunks/s, {seconds:.1} s",
            style("✓").green(),
            self::recordings(*recordings),
            *chunks as f64 / seconds.max(0.1),
        ));
        if tasks.dead_letter > 0 {
            let dead = self::recordings(tasks.dead_letter);
            screen.line(format!("{} could not be embedded: {dead}", style("!").yellow()));
        }
        screen.line(self.of_the_drill());
        match violations.len() {
            0 => screen.line(format!(
                "{} verify: every invariant holds in what is stored",
                style("✓").green()
            )),
            count => screen.line(format!("{} verify: {count} violations", style("✗").red())),
        }
    }

    fn of_the_drill(&self) -> String {
        let Some((killed, back)) = &self.drilled else {
            return format!("{} no worker was killed: they were too quick", style("!").yellow());
        };
        let again = self.chunks_bought.saturating_sub(self.report.chunks);
        let kept = back.kept.map(|kept| format!(" kept {kept} and")).unwrap_or_default();
        format!(
            "{} the worker that was killed at chunk {} came back,\n \
             {kept} bought {again} again: those on their way when it died",
            style("✓").green(),
            killed.stored,
        )
    }

    pub(super) fn answer(&mut self, question: &str, hits: Vec<Hit>) {
        self.answer = Some((question.to_owned(), hits));
    }

    /// The answer, and where to go from here.
    ///
    /// # Errors
    /// Standard output cannot be written to.
    pub(super) fn tell_the_end(&self, screen: &Screen) -> anyhow::Result<()> {
        if let Some((question, hits)) = &self.answer {
            screen.line(format!("\n{} {}\n", style("?").cyan().bold(), style(question).bold()));
            search::print(hits)?;
        }
        let program = std::env::args().next().unwrap_or_else(|| "embedding-recovery".into());
        let calls = match Path::new(SAMPLES).exists() {
            true => SAMPLES,
            false => "calls.jsonl",
        };
        screen.line(format!("\n{}", style("Try next").bold()));
        for arguments in [
            format!("import {calls}"),
            "serve --exit-when-idle".into(),
            "search \"who pays for standing time?\"".into(),
        ] {
            screen.line(format!("  {}", style(format!("{program} {arguments}")).cyan()));
        }
        screen.line(
            "These keep what they store. DATABASE_URL makes them use your\n\
             Postgres, and OPENAI_API_KEY a real model.",
        );
        screen.line(style("Of the demo nothing is left: Postgres stopped, data removed.").dim());
        Ok(())
    }
}
