//! What of a passage is shown: the stretch around most of the query's words, as long as a paragraph.
//! A passage is a whole chunk, some 2,000 bytes, and a page of five of those would not be read.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::postgres::{Hit, Span};

/// Characters of an excerpt: six lines of a narrow terminal.
const CHARACTERS_MAX: usize = 480;
/// What a turn costs beside its words: a page of "Okay." is no shorter than its lines.
const CHARACTERS_PER_TURN: usize = 20;

/// A word with what stands directly at it; a part of it can match.
pub(super) type Word = Vec<Span>;

/// A turn, or what is shown of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Who speaks, where the excerpt begins behind the words that say so.
    pub(super) speaker: Option<String>,
    /// True where the turn's first words are left out.
    pub(super) begins_cut: bool,
    /// Its words.
    pub(super) words: Vec<Word>,
    /// True where its last words are left out.
    pub(super) ends_cut: bool,
}

/// The turns of a hit's excerpt.
pub(super) fn excerpt(hit: &Hit) -> Vec<Turn> {
    let turns = turns(&hit.passage);
    let places: Vec<(usize, &Word)> = turns
        .iter()
        .enumerate()
        .flat_map(|(turn, words)| words.iter().map(move |word| (turn, word)))
        .collect();
    if places.is_empty() {
        return Vec::new();
    }
    let shown = grow(&places, densest(&places));
    let (mut begins, mut excerpt) = (0, Vec::new());
    for words in &turns {
        let ends = begins + words.len();
        let from = (*shown.start()).clamp(begins, ends) - begins;
        let to = (*shown.end() + 1).clamp(begins, ends) - begins;
        if from < to {
            excerpt.extend(cut(words, from, to, &hit.speakers));
        }
        begins = ends;
    }
    excerpt
}

/// The words of each turn. Control characters count as white space: what was said must not steer the
/// reader's terminal.
fn turns(passage: &[Span]) -> Vec<Vec<Word>> {
    let (mut turns, mut words, mut word) = (Vec::new(), Vec::new(), Word::new());
    let end = Span { text: "\n".into(), matched: false };
    for span in passage.iter().chain([&end]) {
        for character in span.text.chars() {
            if character.is_whitespace() || character.is_control() {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                if character == '\n' {
                    turns.push(std::mem::take(&mut words));
                }
                continue;
            }
            match word.last_mut().filter(|part| part.matched == span.matched) {
                Some(part) => part.text.push(character),
                None => word.push(Span { text: character.into(), matched: span.matched }),
            }
        }
    }
    turns
}

/// From one matching word to another: the stretch with most different ones that fits. The first word
/// where none matches.
fn densest(places: &[(usize, &Word)]) -> RangeInclusive<usize> {
    let matches = |index: usize| places[index].1.iter().filter(|part| part.matched);
    let (mut best, mut best_count) = (0..=0, (0, 0));
    for start in (0..places.len()).filter(|start| matches(*start).count() > 0) {
        let (mut different, mut count) = (HashSet::new(), 0);
        let mut length = 0;
        for end in start..places.len() {
            length += cost(places, end, end.checked_sub(1).filter(|before| *before >= start));
            if length > CHARACTERS_MAX {
                break;
            }
            for part in matches(end) {
                different.insert(part.text.to_lowercase());
                count += 1;
            }
            if matches(end).count() > 0 && (different.len(), count) > best_count {
                (best, best_count) = (start..=end, (different.len(), count));
            }
        }
    }
    best
}

/// Adds words before and behind, as many on each side as fit.
fn grow(places: &[(usize, &Word)], core: RangeInclusive<usize>) -> RangeInclusive<usize> {
    let (mut start, mut end) = (*core.start(), *core.end());
    let neighbour = |index: usize| (index > start).then(|| index - 1);
    let mut length: usize = core.map(|index| cost(places, index, neighbour(index))).sum();
    let (mut before, mut behind) = (0, 0);
    loop {
        let left = start.checked_sub(1).map(|index| cost(places, index, Some(start)));
        let right = (end + 1 < places.len()).then(|| cost(places, end + 1, Some(end)));
        let (cost, is_left) = match (left, right) {
            (Some(left), Some(right)) if before + left <= behind + right => (left, true),
            (_, Some(right)) => (right, false),
            (Some(left), None) => (left, true),
            (None, None) => break,
        };
        length += cost;
        if length > CHARACTERS_MAX {
            break;
        }
        if is_left {
            (start, before) = (start - 1, before + cost);
        } else {
            (end, behind) = (end + 1, behind + cost);
        }
    }
    start..=end
}

/// Characters of a word and the space behind it, and of its turn where its neighbour in the excerpt
/// is of another one.
fn cost(places: &[(usize, &Word)], index: usize, neighbour: Option<usize>) -> usize {
    let (turn, word) = places[index];
    let is_alone = neighbour.is_none_or(|neighbour| places[neighbour].0 != turn);
    let characters: usize = word.iter().map(|part| part.text.chars().count()).sum();
    characters + 1 + if is_alone { CHARACTERS_PER_TURN } else { 0 }
}

/// The words `from..to` of a turn; nothing where those only say who speaks. A speaker's name is shown
/// whole.
fn cut(words: &[Word], from: usize, to: usize, speakers: &[String]) -> Option<Turn> {
    let label = speakers.iter().map(|speaker| format!("{speaker}:")).find(|label| {
        let mut label = label.split_whitespace();
        words.iter().map(text).zip(&mut label).all(|(word, part)| word == part)
            && label.next().is_none()
    });
    let label_words = label.as_deref().map_or(0, |label| label.split_whitespace().count());
    if to <= label_words && to < words.len() {
        return None;
    }
    let from = if from <= label_words { 0 } else { from };
    Some(Turn {
        speaker: label.filter(|_| from > 0),
        begins_cut: from > 0,
        words: words[from..to].to_vec(),
        ends_cut: to < words.len(),
    })
}

fn text(word: &Word) -> String {
    word.iter().map(|part| part.text.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The excerpt as text: a turn a line, `…` where words are left out, `*word*` where one matches.
    fn shown(passage: &str, speakers: &[&str]) -> Vec<String> {
        let passage = passage
            .split('*')
            .enumerate()
            .map(|(index, text)| Span { text: text.into(), matched: index % 2 == 1 });
        let hit = Hit {
            score: 1.0,
            user_id: "alice".into(),
            recording_id: 1,
            chunk_index: 0,
            title: None,
            call_date: None,
            speakers: speakers.iter().map(|speaker| (*speaker).into()).collect(),
            timestamp_start: None,
            passage: passage.collect(),
        };
        let turn = |turn: Turn| {
            let words = turn.words.iter().map(text).collect::<Vec<_>>().join(" ");
            let speaker = turn.speaker.map(|speaker| speaker + " ").unwrap_or_default();
            let (begins, ends) = (["", "… "], ["", " …"]);
            let begins = begins[usize::from(turn.begins_cut)];
            format!("{speaker}{begins}{words}{}", ends[usize::from(turn.ends_cut)])
        };
        excerpt(&hit).into_iter().map(turn).collect()
    }

    #[test]
    fn a_short_passage_is_shown_whole_and_an_empty_one_not_at_all() {
        assert_eq!(
            shown("Ann: yes\n\nBob:  *no*\tway", &["Ann", "Bob"]),
            ["Ann: yes", "Bob: no way"]
        );
        assert_eq!(shown("", &[]), [""; 0]);
        assert_eq!(shown(" \n ", &[]), [""; 0]);
    }

    #[test]
    fn without_a_match_it_begins_at_the_beginning() {
        let lines = shown(&format!("Ann: first {}", "word ".repeat(300)), &["Ann"]);
        assert!(
            lines[0].starts_with("Ann: first word") && lines[0].ends_with("word …"),
            "{lines:?}"
        );
        assert!((400..=500).contains(&lines[0].len()), "{lines:?}");
    }

    #[test]
    fn it_is_cut_around_most_different_words_and_still_says_who_speaks() {
        let far = "word ".repeat(200);
        let passage =
            format!("Ann Lee: *tank* *tank* *tank* {far}the *tank* lost *pressure* {far}");
        let lines = shown(&passage, &["Bob", "Ann Lee"]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("Ann Lee: … word word"), "{lines:?}");
        assert!(lines[0].contains("the tank lost pressure"), "{lines:?}");
        let (before, behind) = lines[0].split_once("the tank lost pressure").unwrap_or_default();
        assert!(before.len().abs_diff(behind.len()) < 40, "{lines:?}");
    }

    #[test]
    fn a_speaker_is_not_named_without_a_word_of_his() {
        for words in 60..120 {
            let passage = format!("Ann: *tank* {}\nBob Long Name: at last", "word ".repeat(words));
            let lines = shown(&passage, &["Ann", "Bob Long Name"]);
            assert!(
                lines.iter().all(|line| !line.trim_end_matches([' ', '…']).ends_with(':')),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn many_short_turns_make_no_long_page() {
        let lines = shown(&"Ann: *okay*\nBob: yes\n".repeat(100), &["Ann", "Bob"]);
        assert!((10..=20).contains(&lines.len()), "{}", lines.len());
    }
}
