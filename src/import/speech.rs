//! The text of a cue: who says what in it. Tags and entities are those of WebVTT and the few that
//! SubRip files have; any other `<` is a character like the others.

/// Words of one speaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Speech {
    /// Who speaks, where a voice tag says so.
    pub(super) speaker: Option<String>,
    /// What is said, on one line.
    pub(super) text: String,
}

/// Longest tag, its brackets included.
const MARKUP_BYTES_MAX: usize = 512;
/// Longest name that `Name: text` may begin with, in characters and in words.
const NAME_CHARS_MAX: usize = 60;
const NAME_WORDS_MAX: usize = 6;

/// Divides the text of a cue by its voice tags. What is empty is left out.
pub(super) fn of_cue(text: &str) -> Vec<Speech> {
    let mut spoken = Vec::new();
    let mut current = Speech { speaker: None, text: String::new() };
    let mut rest = text;
    while let Some(at) = rest.find(['<', '&', '{']) {
        current.text.push_str(&rest[..at]);
        rest = &rest[at..];
        match markup(rest) {
            Some((Markup::Voice(speaker), length)) => {
                finish(&mut current, speaker, &mut spoken);
                rest = &rest[length..];
            }
            Some((Markup::Text(text), length)) => {
                current.text.push_str(&text);
                rest = &rest[length..];
            }
            None => {
                current.text.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    current.text.push_str(rest);
    finish(&mut current, None, &mut spoken);
    spoken
}

/// Ends what `current` says and begins what `speaker` says.
fn finish(current: &mut Speech, speaker: Option<String>, spoken: &mut Vec<Speech>) {
    let next = Speech { speaker, text: String::new() };
    let Speech { speaker, text } = std::mem::replace(current, next);
    let text = on_one_line(&text);
    if !text.is_empty() {
        spoken.push(Speech { speaker, text });
    }
}

/// Lines of a cue are broken for the screen.
fn on_one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

enum Markup {
    /// From here on somebody speaks, or, at the end of a voice, nobody known.
    Voice(Option<String>),
    /// What stands for this text.
    Text(String),
}

/// The markup that `text` begins with, and its length in bytes.
fn markup(text: &str) -> Option<(Markup, usize)> {
    match text.as_bytes().first()? {
        b'&' => {
            let length = text.bytes().take(12).position(|byte| byte == b';')? + 1;
            let character = entity(&text[1..length - 1])?;
            Some((Markup::Text(character.into()), length))
        }
        // SubRip's place on the screen, as in {\an8}.
        b'{' if text.starts_with("{\\") => Some((Markup::Text(String::new()), end(text, b'}')?)),
        b'{' => None,
        _ => {
            let length = end(text, b'>')?;
            Some((tag(&text[1..length - 1])?, length))
        }
    }
}

/// Length of the markup that `text` begins with, up to its closing character. The bound, and that
/// no other may begin inside, keep the time that it takes in step with the text.
fn end(text: &str, close: u8) -> Option<usize> {
    let open = text.as_bytes()[0];
    let inside = text.bytes().take(MARKUP_BYTES_MAX).skip(1);
    let at = inside.clone().position(|byte| byte == close || byte == open)?;
    (inside.clone().nth(at) == Some(close)).then_some(at + 2)
}

/// What a tag stands for; `None` where it is none that is known.
fn tag(inside: &str) -> Option<Markup> {
    let name_end = inside
        .find(|c: char| c == '.' || c.is_whitespace() || (c == '/' && !inside.starts_with('/')))
        .unwrap_or(inside.len());
    let (name, rest) = inside.split_at(name_end);
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "v" => {
            // Classes stand between the name of the tag and the name of the speaker.
            let annotation = rest.find(char::is_whitespace).map_or("", |at| &rest[at..]);
            let speaker = on_one_line(&decoded(annotation));
            Some(Markup::Voice((!speaker.is_empty()).then_some(speaker)))
        }
        "/v" => Some(Markup::Voice(None)),
        "br" => Some(Markup::Text("\n".into())),
        "c" | "i" | "b" | "u" | "s" | "lang" | "ruby" | "rt" | "font" | "/c" | "/i" | "/b"
        | "/u" | "/s" | "/lang" | "/ruby" | "/rt" | "/font" => Some(Markup::Text(String::new())),
        _ => {
            let is_time = inside.contains(':')
                && inside.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'));
            is_time.then(|| Markup::Text(String::new()))
        }
    }
}

fn decoded(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        match markup(rest) {
            Some((Markup::Text(text), length)) => {
                decoded.push_str(&text);
                rest = &rest[length..];
            }
            _ => {
                decoded.push('&');
                rest = &rest[1..];
            }
        }
    }
    decoded + rest
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        "lrm" => Some('\u{200e}'),
        "rlm" => Some('\u{200f}'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

/// Takes `Name: text` for a speaker where no voice tag names one and at least half of all that is
/// said begins so, as Zoom writes it. Elsewhere a colon is only a colon.
pub(super) fn name_by_prefix<'a>(spoken: impl Iterator<Item = &'a mut Speech>) {
    let mut spoken: Vec<&mut Speech> = spoken.collect();
    let named = spoken.iter().filter(|speech| prefix(&speech.text).is_some()).count();
    if named * 2 < spoken.len() || spoken.iter().any(|speech| speech.speaker.is_some()) {
        return;
    }
    for speech in &mut spoken {
        if let Some((name, text)) = prefix(&speech.text) {
            let (name, text) = (name.to_owned(), text.to_owned());
            **speech = Speech { speaker: Some(name), text };
        }
    }
}

fn prefix(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once(": ")?;
    let like_a_name = name.chars().next().is_some_and(char::is_alphanumeric)
        && name.chars().count() <= NAME_CHARS_MAX
        && name.split_whitespace().count() <= NAME_WORDS_MAX
        && !name.contains(['?', '!', ';', ',', '"', ':']);
    (like_a_name && !rest.trim().is_empty()).then(|| (name.trim(), rest.trim()))
}
