//! Where the demo writes: lines, and below them what moves. Without a terminal, plain lines only.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

use console::{Term, pad_str, style, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two pictures.
pub(super) const FRAME: Duration = Duration::from_millis(80);
/// Taken where there is no terminal to ask.
const COLUMNS: usize = 80;

/// Standard output.
pub(super) struct Screen {
    moving: Option<MultiProgress>,
    /// An empty line above what moves. A terminal echoes Ctrl-C as `^C`, which pushes all up by a
    /// line that is then not cleared: this one.
    spacer: ProgressBar,
    columns: usize,
}

impl Screen {
    /// Nothing moves on it where log lines come in between (`plain`), or where it is no terminal.
    pub(super) fn new(plain: bool) -> Self {
        let term = Term::stdout();
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let moves = !plain && term.features().is_attended() && !is_dumb;
        let columns = term.size_checked().map_or(COLUMNS, |(_, columns)| columns.into());
        let moving =
            moves.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::term(term, 20)));
        let spacer = match &moving {
            Some(moving) => moving.add(ProgressBar::new(0)),
            None => ProgressBar::hidden(),
        };
        set_template(&spacer, " ");
        spacer.tick();
        Self { moving, spacer, columns }
    }

    /// Takes away what moves, for good.
    pub(super) fn clear(&self) {
        self.spacer.finish_and_clear();
    }

    pub(super) fn moving(&self) -> Option<&MultiProgress> {
        self.moving.as_ref()
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// A line above what moves. That nobody reads any more is no reason to stop half way.
    pub(super) fn line(&self, text: impl Display) {
        let text = text.to_string();
        let _ = match &self.moving {
            Some(moving) => moving.suspend(|| writeln!(std::io::stdout(), "{text}")),
            None => writeln!(std::io::stdout(), "{text}"),
        };
    }

    /// Says what is being done, until [`Step::done`].
    pub(super) fn step(&self, doing: &str) -> Step<'_> {
        let spinner = self.moving.as_ref().map(|moving| {
            let spinner = moving.add(ProgressBar::new_spinner());
            set_template(&spinner, "{spinner:.cyan} {msg}");
            spinner.set_message(doing.to_owned());
            spinner.enable_steady_tick(FRAME);
            spinner
        });
        if spinner.is_none() {
            self.line(format!("- {doing} ..."));
        }
        Step { screen: self, spinner, begun: Instant::now() }
    }
}

/// Something that takes a while.
pub(super) struct Step<'a> {
    screen: &'a Screen,
    spinner: Option<ProgressBar>,
    begun: Instant,
}

impl Step<'_> {
    /// Says how far it is.
    pub(super) fn doing(&self, text: String) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(text);
        }
    }

    /// Says what came of it.
    pub(super) fn done(self, text: &str) {
        let took = style(format!("{:.1} s", self.begun.elapsed().as_secs_f64())).dim();
        self.clear();
        self.screen.line(format!("{} {text}  {took}", style("✓").green()));
    }

    fn clear(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

pub(super) fn set_template(bar: &ProgressBar, template: &str) {
    // A template that cannot be read would leave the default one, which shows as much.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸━"));
    }
}

/// `text` in exactly `columns`: cut with an ellipsis, or filled up.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let cut: Cow<'_, str> = truncate_str(text, columns, "…");
    pad_str(&cut, columns, console::Alignment::Left, None).into_owned()
}
