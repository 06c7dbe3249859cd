//! WebVTT and SubRip, as the standard has them and as programs write them.

use super::{gzip, read, read_one, said};

#[test]
fn voices_names_notes_styles_settings_and_entities_are_those_of_webvtt() {
    let vtt = "\u{feff}WEBVTT - made for a test
Kind: captions

STYLE
::cue { color: red }

REGION
id:fred

NOTE nobody says this

NOTE
nor this,
over two lines

intro
00:01.500 --> 00:03.000 align:start position:10%
<v Ann Lee>Good <b>morning</b>,
everyone.</v>

01:00:02.000 --> 01:00:04.000
<v.loud.first Bob &amp; Co>Is 1 &lt; 2 &amp;&amp; x<y?
<00:00:01.000><c.yellow>Yes</c>&#33; &#x263A; &unknown; AT&T

00:00:09.000 --> 00:00:10.000
nobody known <i>speaks</i>

00:00:11.000 --> 00:00:12.000
<v Ann Lee>One.</v> <v Bob>Two.</v>
<v>Three.
";
    let read = read_one("kick-off.vtt", vtt);
    assert_eq!(
        said(&read),
        [
            "00:00:01 Ann Lee: Good morning, everyone.",
            "01:00:02 Bob & Co: Is 1 < 2 && x<y? Yes! ☺ &unknown; AT&T",
            "00:00:09 ?: nobody known speaks",
            "00:00:11 Ann Lee: One.",
            "00:00:11 Bob: Two.",
            "00:00:11 ?: Three.",
        ]
    );
    assert_eq!(read.warnings, Vec::<String>::new());
    assert_eq!(read.recording.title.as_deref(), Some("kick-off"));
    assert_eq!((read.recording.created_at, read.recording.created_at_presumed), (None, None));
}

#[test]
fn subrip_is_read_with_commas_points_any_line_end_and_missing_numbers() {
    let plain = "1
00:00:01,000 --> 00:00:02,500
<i>Hello</i> there,
{\\an8}you.

00:00:03.000 --> 00:00:04.000
No number.

3
00:00:05,000 --> 00:00:06,000 X1:10 X2:20
Before a gap.

After it.

4
00:00:07,000 --> 00:00:08,000
No gap
5
00:00:09,000 --> 00:00:10,000
at all.
";
    let expected = [
        "00:00:01 ?: Hello there, you.",
        "00:00:03 ?: No number.",
        "00:00:05 ?: Before a gap. After it.",
        "00:00:07 ?: No gap",
        "00:00:09 ?: at all.",
    ];
    let crlf = format!("\u{feff}{}", plain.replace('\n', "\r\n"));
    for srt in [plain, &crlf, &plain.replace('\n', "\r"), plain.strip_prefix("1\n").unwrap()] {
        let read = read_one("call.srt", srt);
        assert_eq!(said(&read), expected, "{srt:?}");
        assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
        assert!(read.warnings[0].ends_with("no cue names its speaker; it is stored without"));
    }
    assert_eq!(read_one("call.srt.gz", gzip(plain)), read_one("call.srt", plain));
}

#[test]
fn a_name_and_a_colon_are_a_speaker_only_where_most_cues_have_them_and_no_voice_is_tagged() {
    let zoom = "WEBVTT

1
00:00:01.000 --> 00:00:02.000
Jane Doe: Hello: all of you.

2
00:00:03.000 --> 00:00:04.000
Dr. Q. Smith: Hi.

3
00:00:05.000 --> 00:00:06.000
somebody coughs
";
    let read = read_one("zoom.vtt", zoom);
    assert_eq!(
        said(&read),
        [
            "00:00:01 Jane Doe: Hello: all of you.",
            "00:00:03 Dr. Q. Smith: Hi.",
            "00:00:05 ?: somebody coughs",
        ]
    );
    assert_eq!(read.warnings, Vec::<String>::new());
    let few = zoom.replace("Dr. Q. Smith: Hi.", "And: so on, he said; well").replace(
        "somebody coughs",
        "Note this, it is no name, it is a sentence of many words: it stays",
    );
    let few = few.replace("And: so", "And so");
    assert_eq!(said(&read_one("few.vtt", few))[0], "00:00:01 ?: Jane Doe: Hello: all of you.");
    let tagged = zoom.replace("somebody", "<v Ann>somebody");
    let read = read_one("tagged.vtt", tagged);
    assert_eq!(
        said(&read)[1..],
        ["00:00:03 ?: Dr. Q. Smith: Hi.", "00:00:05 Ann: somebody coughs"]
    );
}

#[test]
fn what_is_said_is_kept_where_its_time_cannot_be_read() {
    let vtt = "WEBVTT

00:00:01.000 --> 00:00:02.000
<v Ann>One.

a name
00:99:03.000 --> 00:00:04.000
<v Ann>Two.

this has no time
at all

00:00:05.000 --> 00:00:06.000
<v Ann>From A --> to B.
00:00:07.000 --> 00:00:08.000
<v Ann>Four.

00:00:09.000 --> 00:00:10.000

99999:00:00.000 --> 99999:00:01.000
<v Ann>Beyond all time.
";
    let read = read_one("call.vtt", vtt);
    assert_eq!(
        said(&read),
        [
            "00:00:01 Ann: One.",
            "? Ann: Two.",
            "00:00:05 Ann: From A --> to B.",
            "00:00:07 Ann: Four.",
            "? Ann: Beyond all time.",
        ]
    );
    let id = read.recording.key.recording_id;
    assert_eq!(
        read.warnings,
        [
            format!("recording {id}: line 10: what has no time is no cue and is left out"),
            format!(
                "recording {id}: the cue on line 7 has no timestamp; it takes the time of the one before"
            ),
            format!(
                "recording {id}: the cue on line 20 has no timestamp; it takes the time of the one before"
            ),
        ]
    );
}

#[test]
fn one_name_in_either_format_is_one_recording_and_a_number_is_its_id() {
    let vtt = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi.\n";
    let srt = "1\n00:00:01,000 --> 00:00:02,000\nAnn: Hi.\n";
    let one = read_one("Kick-off.vtt", vtt).recording;
    assert_eq!(one, read_one("Kick-off.srt", srt).recording);
    assert_ne!(one.key, read_one("kick-off.vtt", vtt).recording.key);
    assert_eq!(read_one("21792013.vtt", vtt).recording.key.recording_id, 21_792_013);
}

#[test]
fn invalid_utf_8_and_nul_are_mended_with_a_warning() {
    let mut vtt = b"WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>caf\xe9 and \0 nul\n".to_vec();
    vtt.extend(b"\n00:03.000 --> 00:04.000\n<v A\0nn>bye\n");
    let read = read_one("latin.vtt", &vtt);
    assert_eq!(said(&read), ["00:00:01 Ann: caf\u{fffd} and  nul", "00:00:03 Ann: bye"]);
    assert_eq!(read.warnings.len(), 3, "{:?}", read.warnings);
    assert!(read.warnings[0].ends_with("invalid UTF-8 was replaced by U+FFFD"));
}

#[test]
fn markup_that_is_none_costs_no_time_and_stays() {
    let text = "<".repeat(400_000) + &"{\\".repeat(100_000) + &"&a".repeat(100_000);
    let vtt = format!("WEBVTT\n\n00:01.000 --> 00:02.000\n{text}\n");
    let read = read_one("call.vtt", vtt);
    assert_eq!(read.recording.segments[0].text.len(), text.len());
}

#[test]
fn a_file_without_words_is_refused() {
    for vtt in ["WEBVTT", "WEBVTT\n", "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann></v>\n"] {
        let all = read("call.vtt", vtt);
        let said = all[0].as_ref().unwrap_err().to_string();
        assert_eq!(said, "the file: there is no cue with words in it", "{vtt:?}");
    }
}
