//! Whatever a transcript is, no word of it is lost, and every chunk is of a size that is useful and
//! that any provider takes: the properties, over transcripts made by chance.

mod cases;
mod check;
mod real;

use embedding_recovery::domain::chunking::{Chunk, OVERLAP_BYTES_MAX, TARGET_BYTES};
use embedding_recovery::domain::recording::{Recording, Segment, in_spoken_order};
use proptest::prelude::*;

use self::check::{check, recording, segment};

fn any_speaker() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        2 => Just(None),
        8 => prop::sample::select(vec!["Ann", "Bob", "Zoë Łuk", " Ann ", "李雷", "  "])
            .prop_map(|name| Some(name.to_string())),
        1 => "[a-z]{1,30}".prop_map(Some),
        1 => "\\PC{0,200}".prop_map(Some),
        1 => (1usize..5_000).prop_map(|bytes| Some("n".repeat(bytes))),
    ]
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "([A-Za-z']{1,9}[ ,]){0,12}[a-z]{0,9}[.?!]?",
        1 => prop::sample::select(vec!["", " ", "\n\t ", "yes", "Ja.", "嗯。"]).prop_map(String::from),
        1 => "(([a-z]{1,9} ){2,15}[a-z]{1,5}[.?!][ \n]){10,60}",
        1 => "\\PC{0,300}",
        1 => "(\\PC|[\r\n\t\u{2028}]){0,300}",
        1 => ("[a.漢👩‍👧é\u{301}]", 1usize..4_000).prop_map(|(unit, times)| unit.repeat(times)),
        1 => (1usize..6_000).prop_map(|bytes| format!("one{}two", " ".repeat(bytes))),
        1 => "([ก-ฮ]{1,40}|[一-鿿]{1,40}。|[а-я]{1,9} ){0,80}",
    ]
}

prop_compose! {
    fn any_segments()(
        parts in prop::collection::vec((any_speaker(), any_text(), prop::option::of(0u32..9_000)), 0..60)
    ) -> Vec<Segment> {
        let segments =
            parts.into_iter().map(|(speaker, text, start_secs)| Segment { speaker, text, start_secs });
        in_spoken_order(segments.collect())
    }
}

proptest! {
    #[test]
    fn no_word_is_lost_order_and_bounds_are_kept_and_times_and_speakers_are_right(
        segments in any_segments(), title in prop::option::of("\\PC{0,400}|[a\n\u{301}]{0,3000}")
    ) {
        check(&Recording { title, ..recording(segments) })?;
    }

    #[test]
    fn many_tiny_turns_make_chunks_of_about_the_target(
        sizes in prop::collection::vec(1usize..40, 500..900)
    ) {
        let segments = sizes.iter().enumerate().map(|(index, bytes)| {
            segment(["Ann", "Bob", "Cy"][index % 3], &"w".repeat(*bytes))
        });
        let recording = recording(segments.collect());
        let chunks = check(&recording)?;
        for chunk in &chunks[..chunks.len() - 1] {
            let bytes = chunk.text(&recording).len();
            prop_assert!(bytes.abs_diff(TARGET_BYTES) <= 60, "{bytes} bytes");
        }
        for chunk in &chunks[1..] {
            let end = chunks[chunk.index as usize - 1].end;
            let overlap = Chunk { end, ..chunk.clone() }.text(&recording).len();
            prop_assert!(overlap + 60 >= OVERLAP_BYTES_MAX, "{overlap} bytes of overlap");
        }
    }

    #[test]
    fn a_long_turn_of_sentences_is_cut_only_behind_sentences(
        words in prop::collection::vec(3usize..25, 40..150), sentences in 1usize..20
    ) {
        let sentence = |words: &usize| format!("So{}.", " it is".repeat(*words));
        let written: Vec<_> = words.iter().map(sentence).collect();
        let segments = written.chunks(sentences).map(|part| segment("Ann", &part.join(" ")));
        let recording = recording(segments.collect());
        for chunk in check(&recording)? {
            let text = chunk.text(&recording);
            prop_assert!(text.starts_with("Ann: ") && text.ends_with('.'), "{text}");
            prop_assert!((900..=2_800).contains(&text.len()), "{} bytes", text.len());
        }
    }
}
