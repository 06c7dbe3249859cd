//! The recordings in flight, a bar for each, and what they come to.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use console::style;
use indicatif::ProgressBar;

use super::drill::Drill;
use super::screen::{Screen, fit, set_template};
use crate::app::{InFlight, Status};
use crate::domain::recording::RecordingKey;

/// How long a bar that is done, or a worker that is dead, stays to be seen.
const LINGER: Duration = Duration::from_millis(900);
/// With more bars than these, one that is done goes at once.
const BARS_MAX: usize = 8;
/// Between two lines of totals where nothing can move.
const PLAIN_PERIOD: Duration = Duration::from_secs(2);
/// `↻ back, kept 1234`.
const MESSAGE_COLUMNS: usize = 17;
/// `1234/1234`.
const COUNT_COLUMNS: usize = 9;
/// Before the title, between the parts, and one at the end, where terminals wrap.
const SPACES: usize = 6;

/// What is drawn.
pub(super) struct View<'a> {
    screen: &'a Screen,
    recordings_total: usize,
    begun: Instant,
    bars: HashMap<RecordingKey, Bar>,
    totals: Option<ProgressBar>,
    told: Instant,
}

struct Bar {
    bar: Option<ProgressBar>,
    title: String,
    total: u32,
    done: Option<Instant>,
}

impl<'a> View<'a> {
    pub(super) fn new(screen: &'a Screen, recordings_total: usize) -> Self {
        let totals = screen.moving().map(|moving| {
            let totals = moving.add(ProgressBar::new(0));
            set_template(&totals, "{msg}");
            totals
        });
        let now = Instant::now();
        Self { screen, recordings_total, begun: now, bars: HashMap::new(), totals, told: now }
    }

    /// Draws the tree as it is.
    pub(super) fn draw(&mut self, status: &Status, drill: &Drill, now: Instant) {
        for recording in &status.recordings {
            self.draw_recording(recording, drill, now);
        }
        for (key, bar) in &mut self.bars {
            if bar.done.is_none() && !status.recordings.iter().any(|r| r.key == *key) {
                bar.finish(self.screen, now);
            }
        }
        let is_crowded = self.bars.len() > BARS_MAX;
        let is_gone = |bar: &Bar| bar.done.is_some_and(|done| is_crowded || now - done > LINGER);
        for (_, bar) in self.bars.iter().filter(|(_, bar)| is_gone(bar)) {
            bar.clear();
        }
        self.bars.retain(|_, bar| !is_gone(bar));
        self.draw_totals(status, now);
    }

    fn draw_recording(&mut self, recording: &InFlight, drill: &Drill, now: Instant) {
        let Some(chunks) = recording.chunks() else {
            // Before its transcript is cut there is nothing to draw, and after a kill the bar stays.
            return self.draw_message(&recording.key, drill, now);
        };
        if !self.bars.contains_key(&recording.key) {
            let title = recording.title().unwrap_or_else(|| recording.key.to_string());
            let bar = self.new_bar(&title, chunks.total);
            self.bars.insert(recording.key.clone(), bar);
        }
        if let Some(Bar { bar: Some(bar), .. }) = self.bars.get(&recording.key) {
            bar.set_position(chunks.stored.into());
        }
        self.draw_message(&recording.key, drill, now);
    }

    fn draw_message(&self, key: &RecordingKey, drill: &Drill, now: Instant) {
        let Some(Bar { bar: Some(bar), .. }) = self.bars.get(key) else { return };
        let Some(killed) = drill.killed().filter(|_| drill.is_victim(key)) else { return };
        let kept = drill.back().and_then(|back| back.kept);
        bar.set_message(match kept {
            Some(kept) if now - killed.at > LINGER => {
                style(format!("↻ back, kept {kept}")).yellow().to_string()
            }
            _ => style(format!("✗ killed at {}", killed.stored)).red().bold().to_string(),
        });
    }

    fn new_bar(&self, title: &str, total: u32) -> Bar {
        let columns = self.screen.columns();
        let title_columns = (columns * 3 / 8).clamp(12, 38);
        let bar_columns = columns
            .saturating_sub(title_columns + COUNT_COLUMNS + MESSAGE_COLUMNS + SPACES)
            .clamp(4, 40);
        let bar = self.screen.moving().zip(self.totals.as_ref()).map(|(moving, totals)| {
            let bar = moving.insert_before(totals, ProgressBar::new(total.into()));
            set_template(
                &bar,
                &format!(
                    "  {{prefix}} {{bar:{bar_columns}.cyan/238}} {{pos:>4}}/{{len:<4}} {{msg}}"
                ),
            );
            bar.set_prefix(fit(title, title_columns));
            bar
        });
        Bar { bar, title: title.to_owned(), total, done: None }
    }

    fn draw_totals(&mut self, status: &Status, now: Instant) {
        let seconds = (now - self.begun).as_secs_f64();
        let chunks = status.chunks_stored();
        let text = format!(
            "{} of {} recordings   {chunks} chunks   {:.0} chunks/s   {seconds:.1} s",
            status.completed,
            self.recordings_total,
            chunks as f64 / seconds.max(0.1),
        );
        match &self.totals {
            Some(totals) => totals.set_message(format!("  {}", style(text).bold())),
            None if now - self.told >= PLAIN_PERIOD => {
                self.told = now;
                self.screen.line(format!("  {text}"));
            }
            None => {}
        }
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        self.bars.values().for_each(Bar::clear);
        if let Some(totals) = &self.totals {
            totals.finish_and_clear();
        }
    }
}

impl Bar {
    /// Full, and to be seen so for a moment.
    fn finish(&mut self, screen: &Screen, now: Instant) {
        self.done = Some(now);
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.total.into());
                bar.set_message(style("✓ searchable").green().to_string());
            }
            None => screen.line(format!("  done: {} ({} chunks)", self.title, self.total)),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
