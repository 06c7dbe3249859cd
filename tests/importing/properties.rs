//! Whatever the bytes: an end, no panic, and cues that come back as they were written.

use embedding_recovery::domain::recording::format_timestamp;
use proptest::prelude::*;

use super::{open, read_one, said};

/// Pieces that matter to one of the formats, between arbitrary bytes.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let marks = prop::sample::select(vec![
        "WEBVTT",
        "\n\n",
        "\r\n",
        "\r",
        "00:00:01.000 --> 00:00:02,000",
        "-->",
        "<v ",
        "<v.a Ann>",
        "</v>",
        "<",
        ">",
        "&",
        "&amp;",
        "&#x110000;",
        "&#;",
        "{\\",
        "}",
        "NOTE",
        "STYLE",
        "1\n",
        "Ann: ",
        "{",
        "[",
        "]",
        "\"items\"",
        ":",
        "\"",
        "\\",
        ",",
        "{\"recording_id\":1,\"transcript\":[]}",
        "\u{feff}",
        "\u{1f}\u{8b}",
        "é",
        "\0",
    ]);
    let piece = prop_oneof![
        4 => marks.prop_map(|mark| mark.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic_or_go_on_for_ever(
        start in prop::sample::select(vec!["", "WEBVTT\n", "1\n00:00:01,000 --> 00:00:02,000\n", "{", "[", "{\"items\":["]),
        rest in pieces(),
    ) {
        let content = [start.as_bytes(), &rest].concat();
        if let Ok(recordings) = open("file", &content) {
            prop_assert!(recordings.count() <= content.len() + 1);
        }
    }

    #[test]
    fn cues_come_back_as_they_were_written(
        cues in prop::collection::vec(
            (0..360_000u32, "[A-Za-z][A-Za-z .&<>']{0,20}[a-z]", "[a-z<>&;{}'?!]{1,12}( [a-z<>&;{}'?!]{1,12}){0,6}"),
            1..20,
        ),
        line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        numbered: bool,
    ) {
        let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let mut vtt = format!("WEBVTT{line_end}{line_end}");
        let mut expected = Vec::new();
        for (index, (secs, name, text)) in cues.iter().enumerate() {
            let time = format_timestamp(*secs);
            if numbered {
                vtt += &format!("{index}{line_end}");
            }
            let (name_tag, words) = (escaped(name), escaped(text).replace(' ', line_end));
            vtt += &format!("{time}.500 --> {time}.900 align:left{line_end}<v {name_tag}>{words}</v>{line_end}{line_end}");
            expected.push(format!("{time} {name}: {text}"));
        }
        let read = read_one("call.vtt", vtt);
        prop_assert_eq!(said(&read), expected);
        prop_assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    }
}
