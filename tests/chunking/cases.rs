//! Single transcripts: the exact text of a small one, the absurd ones, hashes and fingerprints.

use embedding_recovery::domain::chunking::{chunk, fingerprint};
use embedding_recovery::domain::recording::Recording;

use super::check::{check, recording, segment};

#[test]
fn a_transcript_without_text_has_no_chunk() {
    assert!(chunk(&recording(Vec::new())).is_empty());
    assert!(chunk(&recording(vec![segment("Ann", ""), segment("Bob", " \n")])).is_empty());
}

#[test]
fn a_small_recording_is_one_chunk_with_a_line_a_turn_under_its_header() {
    let mut segments = vec![
        segment("Ann", "Shall we\nstart?"),
        segment("Bob", " "),
        segment(" Ann ", "Yes."),
        segment("Bob", "Yes."),
        segment("", "(laughter)"),
    ];
    segments[1].start_secs = Some(3);
    segments[2].start_secs = Some(5);
    segments[3].start_secs = Some(9);
    let recording = recording(segments);
    let chunks = chunk(&recording);
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].text(&recording), "Ann: Shall we start? Yes.\nBob: Yes.\n(laughter)");
    assert_eq!(
        chunks[0].embedded_text(&recording),
        "Weekly | 2024-05-01 | Ann, Bob\nAnn: Shall we start? Yes.\nBob: Yes.\n(laughter)"
    );
    assert_eq!(chunks[0].speakers(&recording), ["Ann", "Bob"]);
    assert_eq!(
        (chunks[0].start_secs(&recording), chunks[0].end_secs(&recording)),
        (Some(5), Some(9))
    );
}

#[test]
fn absurd_titles_and_hundreds_of_endless_names_stay_within_the_limit() {
    let segments =
        (0..300).map(|index| segment(&format!("{index} {}", "ñ ".repeat(3_000)), "Yes."));
    let title = Some(format!("{}\n{}", "t".repeat(9_000), "👩‍👧".repeat(900)));
    let recording = Recording { title, ..recording(segments.collect()) };
    let chunks = check(&recording).expect("everything holds");
    let embedded = chunks[0].embedded_text(&recording);
    let header = embedded.lines().next().expect("a header");
    assert!(header.contains("…") && header.ends_with(" more"), "{header}");
    assert!(header.len() < 600, "{} bytes", header.len());
}

#[test]
fn text_without_words_or_sentences_is_cut_between_graphemes() {
    let family = "👩‍👩‍👧‍👦";
    let units = ["a", "漢", family, "e\u{301}\u{302}", "\r\n.", ".", "ภาษา", "a b ", "ab. "];
    for unit in units {
        let recording = recording(vec![segment("Ann", &unit.repeat(100_000 / unit.len()))]);
        let chunks = check(&recording).expect("everything holds");
        assert!((42..=70).contains(&chunks.len()), "{} chunks of {unit:?}", chunks.len());
        let broken = ['\u{200d}', '\u{301}', '\u{302}'];
        for chunk in &chunks {
            let words = chunk.text(&recording);
            let words = words.strip_prefix("Ann: ").expect("the speaker is repeated");
            assert!(!words.starts_with(broken) && !words.ends_with('\u{200d}'), "{unit:?} is cut");
        }
    }
}

#[test]
fn a_fingerprint_names_the_chunks_and_their_order() {
    let (a, b) = ([1; 32], [2; 32]);
    let named = |hashes: &[[u8; 32]]| fingerprint(hashes, &[]);
    assert_eq!(named(&[a, b]).len(), 64);
    assert_eq!(named(&[a, b]), named(&[a, b]));
    assert_ne!(named(&[a, b]), named(&[b, a]));
    assert_ne!(named(&[a]), named(&[a, a]));
    assert_ne!(named(&[]), named(&[[0; 32]]));
    let timed = |start, end| fingerprint(&[a], &[(start, end)]);
    assert_ne!(timed(Some(0), None), timed(None, Some(0)));
    assert_ne!(timed(Some(0), None), timed(None, None));
    assert_ne!(timed(Some(1), Some(2)), timed(Some(1), Some(3)));
}

#[test]
fn a_hash_changes_with_title_speaker_and_words_and_with_nothing_else() {
    let first = recording(vec![segment("Ann", "Hello there.")]);
    let hash = |recording: &Recording| chunk(recording)[0].content_hash(recording);
    let mut other = first.clone();
    other.segments[0].start_secs = Some(7);
    other.key.user_id = "v".into();
    assert_eq!(hash(&first), hash(&other));
    for changed in [
        Recording { title: Some("Daily".into()), ..first.clone() },
        recording(vec![segment("Bob", "Hello there.")]),
        recording(vec![segment("Ann", "Hello here.")]),
    ] {
        assert_ne!(hash(&first), hash(&changed));
    }
}

#[test]
fn an_edit_at_the_end_leaves_the_chunks_before_it_as_they_were() {
    let segments = |last: &str| {
        let mut segments: Vec<_> = (0..400)
            .map(|index| segment(["Ann", "Bob"][index % 2], "That is all there is to say."))
            .collect();
        segments.push(segment("Cy", last));
        recording(segments)
    };
    let (before, after) = (segments("Bye."), segments("Goodbye."));
    let (old, new) = (chunk(&before), chunk(&after));
    assert_eq!(old.len(), new.len());
    assert_eq!(old[..old.len() - 1], new[..new.len() - 1]);
}
