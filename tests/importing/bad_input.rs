//! Files that are no recordings, or not all of one.

use serde_json::json;

use super::{gzip, ids_and_refusals, open, read};

fn refusal(content: impl AsRef<[u8]>) -> String {
    open("file", content).err().unwrap().to_string()
}

fn meeting(recording_id: i64) -> String {
    let transcript = json!([{"text": "hello", "timestamp": "00:00:01"}]);
    json!({"recording_id": recording_id, "transcript": transcript}).to_string()
}

#[test]
fn a_file_of_no_known_format_is_told_what_was_tried_and_why_each_failed() {
    let said = refusal("Dear all,\nplease find attached the minutes.\n");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "it is none of the known formats:");
    assert!(lines[1].contains("JSON") && lines[1].contains("does not begin with { or ["));
    assert!(lines[2].contains("WebVTT") && lines[2].contains("first line is not WEBVTT"));
    assert!(lines[3].contains("SubRip") && lines[3].contains("no time like"));
    assert_eq!(lines.len(), 4);
    let page = "<!DOCTYPE html>\n<html><body>Sign in</body></html>";
    for html in [page, &page[16..]] {
        assert!(refusal(html).starts_with("it is none of the known formats but an HTML page"));
    }
    let prose = format!("# Calls\n\nA call looks like this:\n{}\n", meeting(1));
    assert!(refusal(prose).starts_with("it is none of the known formats:"));
    assert_eq!(refusal(""), "it is empty");
    assert_eq!(refusal(" \r\n\n"), "it is empty");
    assert_eq!(refusal(gzip("")), "it is empty");
    let binary: Vec<u8> = (0..=255).cycle().take(4_096).map(|byte| byte & 0xf0).collect();
    assert_eq!(refusal(binary), "it is a binary file");
    assert!(refusal(b"PK\x03\x04rest").starts_with("it is a zip archive"));
    let utf_16: Vec<u8> = "\u{feff}WEBVTT\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(refusal(utf_16), "it is UTF-16: save it as UTF-8");
    assert!(refusal("WEBVTTX\n\n00:01.000 -> 00:02.000").starts_with("it is none"));
    assert!(refusal([0x1f, 0x8b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).contains("gzip"));
}

#[test]
fn a_first_line_that_is_damaged_loses_nothing_of_the_others() {
    for first in
        ["{\"recording_id\": 1, \"transcript\": [", "garbage", "{\"recording_id\": 1,}", "{}"]
    {
        let file = format!("{first}\n{}\n{}\n", meeting(2), meeting(3));
        let (ids, refused) = ids_and_refusals(read("calls.jsonl", file));
        assert_eq!(ids, [2, 3], "{first}");
        assert!(refused[0].starts_with("line 1: not a recording"), "{refused:?}");
    }
}

#[test]
fn of_a_page_that_is_cut_off_what_came_whole_is_kept() {
    let page = format!("{{\"items\":[{},{},{}],\"limit\":3}}", meeting(1), meeting(2), meeting(3));
    for (cut, ids) in [(3, vec![1, 2, 3]), (30, vec![1, 2]), (page.len() - 12, vec![])] {
        let (read, refused) = ids_and_refusals(read("page.json", &page[..page.len() - cut]));
        assert_eq!(read, ids, "{cut}");
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].contains("the JSON ends too early: "), "{refused:?}");
    }
    let (ids, refused) = ids_and_refusals(read("page.json", format!("{page} and more")));
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(
        refused,
        ["item 4: malformed JSON: neither a meeting nor a page nor the end of the file follows"]
    );
}

#[test]
fn a_truncated_gzip_keeps_whole_lines_and_no_part_of_a_webvtt() {
    let lines: String = (1..200).map(|id| meeting(id) + "\n").collect();
    let whole = gzip(&lines);
    let (ids, refused) = ids_and_refusals(read("calls.gz", &whole[..whole.len() / 2]));
    assert!(!ids.is_empty() && ids.len() < 199, "{}", ids.len());
    assert!(refused.last().unwrap().contains("it cannot be read from here on"), "{refused:?}");

    let cues: String = (0..2_000)
        .map(|n| format!("{:02}:{:02}.000 --> 59:59.000\n<v Ann>Number {n}.\n\n", n / 60, n % 60))
        .collect();
    let whole = gzip(format!("WEBVTT\n\n{cues}"));
    let (ids, refused) = ids_and_refusals(read("call.vtt.gz", &whole[..whole.len() - 100]));
    assert_eq!(ids, [] as [i64; 0]);
    assert!(refused[0].contains("it cannot be read from here on"), "{refused:?}");
}

#[test]
fn nesting_without_end_is_refused_and_the_next_meeting_is_read() {
    let bomb = "[".repeat(200_000);
    let deep = format!("{{\"recording_id\":1,\"transcript\":{bomb}{}}}", "]".repeat(200_000));
    let unknown = format!("{{\"recording_id\":2,\"x\":{bomb}{}}}", "]".repeat(200_000));
    for file in [
        format!("{deep}\n{unknown}\n{}", meeting(3)),
        format!("{{\"items\":[{deep},{unknown},{}]}}", meeting(3)),
    ] {
        let (ids, refused) = ids_and_refusals(read("calls", file));
        assert_eq!((ids, refused.len()), (vec![3], 2), "{refused:?}");
    }
    let (ids, refused) = ids_and_refusals(read("calls", format!("[{bomb}")));
    assert_eq!((ids.len(), refused.len()), (0, 1), "{refused:?}");
}

#[test]
fn more_segments_than_any_call_has_are_refused_by_name() {
    let many = vec![json!({"timestamp": "00:00:01"}); 100_001];
    let file = json!({"recording_id": 5, "transcript": many}).to_string();
    let (_, refused) = ids_and_refusals(read("calls", file));
    assert!(
        refused[0].starts_with("line 1: recording 5 has 100001 segments; a recording may have")
    );
    let cues = "00:01.000 --> 00:02.000\nx\n\n".repeat(100_001);
    let (_, refused) = ids_and_refusals(read("call.vtt", format!("WEBVTT\n\n{cues}")));
    assert!(refused[0].starts_with("the file: 100001 segments; a recording may"), "{refused:?}");
}

#[test]
fn a_cue_above_the_limit_is_refused_with_its_line() {
    let words = "word ".repeat(220_000);
    let one_line = format!("WEBVTT\n\n00:01.000 --> 00:02.000\n{words}\n");
    let many_lines = one_line.replace("word word word word ", "word word word word\n");
    for (vtt, said) in [
        (one_line, "the file: line 4 is longer than 1 MB"),
        (many_lines, "the file: the cue on line 3 has 1.0 MB of text; a segment may have 1 MB"),
    ] {
        let (_, refused) = ids_and_refusals(read("call.vtt", vtt));
        assert!(refused[0].starts_with(said), "{refused:?}");
    }
}

#[test]
fn a_stream_of_cues_needs_a_name_for_its_recording() {
    use embedding_recovery::import::Origin;
    let vtt = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi.\n";
    let (_, refused) = ids_and_refusals(open(Origin::default(), vtt).unwrap().collect());
    assert!(refused[0].contains("give it a number with --recording-id"), "{refused:?}");
    let named = Origin { recording_id: Some(9), title: Some("T".into()), ..Origin::default() };
    let read = open(named, vtt).unwrap().next().unwrap().unwrap().recording;
    assert_eq!((read.key.recording_id, read.title.as_deref()), (9, Some("T")));
}
