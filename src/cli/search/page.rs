//! Hits on a page for people: whose call, when, and the excerpt with the query's words marked.

use console::{Style, measure_text_width};
use textwrap::Options;

use super::excerpt::{Turn, excerpt};
use crate::postgres::Hit;

/// Wider lines than this are hard to read, however wide the terminal is.
const WIDTH_MAX: usize = 100;
/// Narrower ones are no lines.
const WIDTH_MIN: usize = 24;
/// Most speakers that are named.
const SPEAKERS_MAX: usize = 3;

/// How a page looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Columns of the terminal.
    pub(super) width: usize,
    /// Matching words are coloured; otherwise they stand between asterisks.
    pub(super) colored: bool,
}

impl Look {
    /// The page of these hits, a blank line between two of them.
    pub(super) fn page(self, hits: &[Hit]) -> String {
        let one_user = hits.iter().all(|hit| hit.user_id == hits[0].user_id);
        let width = hits.len().to_string().len();
        let hits = hits.iter().zip(1..).map(|(hit, place)| {
            let place = format!("{place:>width$}. ");
            self.hit(hit, &place, one_user)
        });
        hits.collect::<Vec<_>>().join("\n")
    }

    fn hit(self, hit: &Hit, place: &str, one_user: bool) -> String {
        let margin = " ".repeat(place.len());
        let title = hit.title.as_deref().map(printable);
        let title = title.filter(|title| !title.is_empty()).unwrap_or_else(|| "(no title)".into());
        let mut lines = self.wrapped(&self.styled(Style::new().bold(), &title), place, &margin);
        for line in self.packed(facts(hit, one_user), margin.len()) {
            lines += &self.wrapped(&line, &margin, &margin);
        }
        lines.push('\n');
        for turn in excerpt(hit) {
            let behind = format!("{margin}  ");
            lines += &self.wrapped(&self.turn(&turn), &margin, &behind);
        }
        lines
    }

    fn turn(self, turn: &Turn) -> String {
        let words = turn.words.iter().map(|word| {
            let parts = word.iter().map(|part| match part.matched {
                true => self.marked(&part.text),
                false => part.text.clone(),
            });
            parts.collect()
        });
        let speaker = turn.speaker.clone().into_iter();
        let begins = turn.begins_cut.then(|| "…".to_owned());
        let ends = turn.ends_cut.then(|| "…".to_owned());
        speaker.chain(begins).chain(words).chain(ends).collect::<Vec<String>>().join(" ")
    }

    fn marked(self, text: &str) -> String {
        if self.colored {
            self.styled(Style::new().red().bold(), text)
        } else {
            format!("*{text}*")
        }
    }

    fn styled(self, style: Style, text: &str) -> String {
        style.force_styling(self.colored).apply_to(text).to_string()
    }

    /// Facts side by side, as many on a line as fit, none divided.
    fn packed(self, facts: Vec<String>, margin: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for fact in facts {
            match lines.last_mut() {
                Some(line)
                    if margin + measure_text_width(line) + 3 + measure_text_width(&fact)
                        <= self.width() =>
                {
                    *line += " · ";
                    *line += &fact;
                }
                _ => lines.push(fact),
            }
        }
        lines
    }

    fn width(self) -> usize {
        self.width.clamp(WIDTH_MIN, WIDTH_MAX)
    }

    /// The text in lines of the page's width, each with its newline.
    fn wrapped(self, text: &str, first_margin: &str, margin: &str) -> String {
        let options =
            Options::new(self.width()).initial_indent(first_margin).subsequent_indent(margin);
        textwrap::fill(text, options) + "\n"
    }
}

/// Score, date, time in the call, recording and speakers, as far as they are known.
fn facts(hit: &Hit, one_user: bool) -> Vec<String> {
    let user =
        if one_user { String::new() } else { format!(" of user {}", printable(&hit.user_id)) };
    let facts = [
        Some(format!("{:.2}", hit.score)),
        hit.call_date.map(|date| date.format("%Y-%m-%d").to_string()),
        hit.timestamp_start.as_deref().map(|start| format!("at {}", printable(start))),
        Some(format!("recording {}{user}", hit.recording_id)),
        speakers(&hit.speakers),
    ];
    facts.into_iter().flatten().collect()
}

fn speakers(names: &[String]) -> Option<String> {
    let shown: Vec<String> = names.iter().take(SPEAKERS_MAX).map(|name| printable(name)).collect();
    match (shown.is_empty(), names.len().saturating_sub(SPEAKERS_MAX)) {
        (true, _) => None,
        (false, 0) => Some(shown.join(", ")),
        (false, more) => Some(format!("{} and {more} more", shown.join(", "))),
    }
}

/// On one line, and without control characters: what a source holds must not steer the terminal.
fn printable(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Span;

    const PLAIN: Look = Look { width: 60, colored: false };
    const COLORED: Look = Look { width: 60, colored: true };

    /// `*word*` matches.
    fn hit(passage: &str) -> Hit {
        let spans = passage
            .split('*')
            .enumerate()
            .map(|(index, text)| Span { text: text.into(), matched: index % 2 == 1 });
        Hit {
            score: 0.876,
            user_id: "alice".into(),
            recording_id: 7,
            chunk_index: 3,
            title: Some("Weekly review".into()),
            call_date: "2024-05-01T10:00:00Z".parse().ok(),
            speakers: ["Ann Lee", "Bob"].map(String::from).into(),
            timestamp_start: Some("00:12:00".into()),
            passage: spans.filter(|span| !span.text.is_empty()).collect(),
        }
    }

    #[test]
    fn a_page_names_the_call_and_marks_the_words() {
        let page = PLAIN.page(&[hit("Ann Lee: The *budget* is small.\nBob: Whose *budgets*?")]);
        let expected = "1. Weekly review
   0.88 · 2024-05-01 · at 00:12:00 · recording 7
   Ann Lee, Bob

   Ann Lee: The *budget* is small.
   Bob: Whose *budgets*?
";
        assert_eq!(page, expected);
    }

    #[test]
    fn what_is_unknown_leaves_no_hole() {
        let bare = Hit {
            title: Some(" \n".into()),
            call_date: None,
            speakers: vec![],
            timestamp_start: None,
            ..hit("no names here")
        };
        let page = PLAIN.page(&[bare]);
        assert_eq!(page, "1. (no title)\n   0.88 · recording 7\n\n   no names here\n");
    }

    #[test]
    fn users_are_named_where_there_are_several() {
        let other = Hit { user_id: "bob".into(), ..hit("b") };
        let page = PLAIN.page(&[hit("a"), other]);
        assert!(page.contains("7 of user alice"), "{page}");
        assert!(page.contains("7 of user bob"), "{page}");
    }

    #[test]
    fn no_line_is_wider_than_the_page_in_any_script() {
        let long = "Ann Lee: ".to_owned()
            + &"word *match* 会議の予算は小さい ".repeat(20)
            + &"x".repeat(300)
            + " *"
            + &"予".repeat(200)
            + "*";
        for look in [PLAIN, COLORED] {
            for width in [24, 37, 60, 80, 100] {
                for line in (Look { width, ..look }).page(&[hit(&long)]).lines() {
                    assert!(measure_text_width(line) <= width, "{width}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn colours_come_only_where_asked_for_and_never_from_the_transcript() {
        let nasty = Hit {
            title: Some("\u{1b}]0;title\u{7}x".into()),
            speakers: vec!["\u{1b}[31mEve".into()],
            ..hit("Eve: \u{1b}[2J\u{9b}31m *hi*\r\n\u{8}there")
        };
        let page = PLAIN.page(std::slice::from_ref(&nasty));
        assert!(!page.replace('\n', "").contains(char::is_control), "{page:?}");
        let page = COLORED.page(&[nasty]);
        assert!(page.contains("\u{1b}[31m\u{1b}[1mhi\u{1b}[0m"), "{page:?}");
    }
}
