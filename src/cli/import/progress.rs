//! The bar of an import: bytes of the files, as they lie on the disk, and recordings. Only on a
//! terminal.

use std::io::Read;

use indicatif::{ProgressBar, ProgressStyle};

use crate::import::Found;

/// The bar, or a spinner where the size of what is read is not known.
pub(super) struct Progress {
    bar: ProgressBar,
    recordings: u64,
}

impl Progress {
    /// Begins a bar over these files.
    pub(super) fn over(found: &[Found]) -> anyhow::Result<Self> {
        let sizes: Option<Vec<u64>> = found
            .iter()
            .filter_map(|found| match found {
                Found::StandardInput => Some(None),
                Found::File { bytes, .. } => Some(*bytes),
                Found::Nothing { .. } => None,
            })
            .collect();
        let (bar, template) = match sizes {
            Some(sizes) => (
                ProgressBar::new(sizes.iter().sum()),
                "{wide_bar} {bytes}/{total_bytes}, {msg}, {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {msg}"),
        };
        let bar =
            bar.with_style(ProgressStyle::with_template(template)?).with_message("0 recordings");
        Ok(Self { bar, recordings: 0 })
    }

    /// Counts what is read from a file.
    pub(super) fn reading<R: Read + Send + 'static>(&self, file: R) -> impl Read + Send + 'static {
        self.bar.wrap_read(file)
    }

    /// Counts a recording.
    pub(super) fn recording(&mut self) {
        self.recordings += 1;
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{} recordings", self.recordings));
        }
    }

    /// A line on standard error, above the bar.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// A line on standard output, above the bar.
    pub(super) fn print(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    /// Takes the bar away.
    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}
