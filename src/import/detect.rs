//! Which format a file has, told by how it begins.

use super::cues;
use super::json::{Event, Scan};

/// How much of a file is looked at.
pub(super) const HEAD_BYTES: usize = 64 * 1024;

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One meeting a line.
    JsonLines,
    /// A page, a list or an object over several lines.
    Json,
    /// WebVTT.
    Vtt,
    /// SubRip.
    Srt,
}

/// Tells the format by a file's first bytes, unpacked and without a byte order mark.
///
/// # Errors
/// It is none of them: which were tried, and why each was not it, a line each.
pub(super) fn detect(head: &[u8]) -> Result<Format, String> {
    let text = head.trim_ascii_start();
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if let Some(what) = foreign(text) {
        return Err(format!("it is {what}"));
    }
    match text[0] {
        b'{' => return Ok(of_object(text)),
        b'[' => return Ok(Format::Json),
        _ => {}
    }
    if is_vtt(text) {
        return Ok(Format::Vtt);
    }
    if is_srt(text) {
        return Ok(Format::Srt);
    }
    // A first line that is damaged loses nothing of the others. A later one tells nothing: the
    // README of this program shows a meeting.
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    if lines.nth(1).is_some_and(is_meeting_line) {
        return Ok(Format::JsonLines);
    }
    Err(format!(
        "it is none of the known formats{}
  JSON lines, a Fathom page or meeting: it does not begin with {{ or [
  WebVTT: its first line is not WEBVTT
  SubRip (.srt): no time like 00:00:01,000 --> 00:00:04,000 in its first lines",
        if is_html(text) { " but an HTML page, perhaps of a login:" } else { ":" }
    ))
}

/// What cannot be any text that is read here.
fn foreign(text: &[u8]) -> Option<&'static str> {
    if text.starts_with(&[0xff, 0xfe]) || text.starts_with(&[0xfe, 0xff]) {
        return Some("UTF-16: save it as UTF-8");
    }
    if text.starts_with(b"PK\x03\x04") {
        return Some("a zip archive: unpack it, and import the folder");
    }
    // JSON and text have no NUL but inside of words, where it is mended.
    let begin = &text[..text.len().min(512)];
    let nuls = begin.iter().filter(|byte| **byte == 0).count();
    (nuls * 20 > begin.len()).then_some("a binary file")
}

fn is_html(text: &[u8]) -> bool {
    let begin = text[..text.len().min(256)].to_ascii_lowercase();
    [&b"<!doctype html"[..], b"<html"].iter().any(|mark| begin.starts_with(mark))
}

fn is_vtt(text: &[u8]) -> bool {
    let rest = text.strip_prefix(b"WEBVTT");
    rest.is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
}

/// A time in one of the first lines that are not blank; a number and a name may stand before it.
fn is_srt(text: &[u8]) -> bool {
    text.split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter(|line| !line.trim_ascii().is_empty())
        .take(3)
        .any(|line| cues::start_of(&String::from_utf8_lossy(line)).is_some())
}

/// One object a line, or something larger? A first line that is cut off loses nothing of the
/// others, so that its missing end alone does not make it an object over several lines.
fn of_object(text: &[u8]) -> Format {
    let (read, event) = Scan::default().feed(text);
    let rest = &text[read..];
    match event {
        Some(Event::Items) => Format::Json,
        Some(Event::End) if first_line(rest).trim_ascii_start().starts_with(b"{") => Format::Json,
        Some(Event::Newline) if !is_meeting_line(first_line(rest.trim_ascii_start())) => {
            Format::Json
        }
        Some(Event::End | Event::Newline) | None => Format::JsonLines,
    }
}

fn first_line(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

fn is_meeting_line(line: &[u8]) -> bool {
    let name = b"\"recording_id\"";
    line.starts_with(b"{") && line.windows(name.len()).any(|part| part == name)
}
