//! The monitor again and again: in place on a terminal, page after page elsewhere.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use console::{Term, truncate_str};

use super::{Look, exit_code, print};
use crate::domain::health::{HealthState, Thresholds};
use crate::ports::inspector::Inspector;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Leaves the user's own screen alone while this one is drawn on.
const OTHER_SCREEN: &str = "\u{1b}[?1049h";
/// Gives it back.
const OWN_SCREEN: &str = "\u{1b}[?1049l";
/// Puts the cursor into the first column of the first row.
const TO_THE_TOP: &str = "\u{1b}[H";
/// Ends colours and clears what the line held before.
const CLEAR_LINE: &str = "\u{1b}[0m\u{1b}[K";
/// Clears the rest of the screen.
const CLEAR_BELOW: &str = "\u{1b}[J";

/// Looks until Ctrl-C or SIGTERM, and ends with what was seen last. That nothing answers is said, and
/// asked again.
pub(super) async fn watch(
    inspector: &dyn Inspector,
    thresholds: &Thresholds,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let term = Term::stdout();
    let in_place = !json && term.features().is_attended();
    if in_place {
        let _ = term.write_str(OTHER_SCREEN).and_then(|()| term.hide_cursor());
    }
    let mut stopped = std::pin::pin!(told_to_stop());
    let mut state = HealthState::Critical;
    let ended = loop {
        let look = tokio::select! {
            look = Look::take(inspector, thresholds) => look,
            () = &mut stopped => break Ok(()),
        };
        let page = match &look {
            Ok(look) => look.printed(json)?,
            // Whoever reads objects gets nothing else.
            Err(failure) if json => {
                eprintln!("nothing to look at: {failure}");
                String::new()
            }
            Err(failure) => format!("nothing to look at: {failure}\n"),
        };
        state = look.map_or(HealthState::Critical, |look| look.health.state);
        match in_place {
            true => draw(&term, &page),
            false => print(&page),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stopped => break Ok(()),
        }
    };
    if in_place {
        let _ = term.show_cursor().and_then(|()| term.write_str(OWN_SCREEN));
    }
    ended.map(|()| exit_code(state))
}

/// Ctrl-C or SIGTERM: either leaves the terminal as it was.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! { _ = terminate.recv() => {}, _ = interrupt => {} },
        Err(_) => drop(interrupt.await),
    }
}

fn draw(term: &Term, page: &str) {
    let (rows, columns) = term.size();
    let mut out = anstream::stdout().lock();
    let _ = out
        .write_all(frame(page, rows.into(), columns.into()).as_bytes())
        .and_then(|()| out.flush());
}

/// Line over line, so that nothing flickers; what does not fit is cut off, so that nothing scrolls.
fn frame(page: &str, rows: usize, columns: usize) -> String {
    let lines = page.lines().take(rows.saturating_sub(1));
    let drawn = lines.map(|line| format!("{}{CLEAR_LINE}\n", truncate_str(line, columns, "…")));
    format!("{TO_THE_TOP}{}{CLEAR_BELOW}", drawn.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_terminal_and_leaves_nothing_of_the_one_before() {
        let frame = frame("one line that is long\ntwo\nthree\n", 3, 8);
        let lines: Vec<&str> = frame.lines().collect();
        assert_eq!(lines.len(), 3, "two lines, and the one that the cursor stands in: {frame:?}");
        assert_eq!(lines[0], format!("{TO_THE_TOP}one lin…{CLEAR_LINE}"));
        assert_eq!(lines[1], format!("two{CLEAR_LINE}"));
        assert_eq!(lines[2], CLEAR_BELOW);
    }
}
