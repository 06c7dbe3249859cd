//! The outline of JSON, a buffer at a time: where a value ends, and whether it is a page.

/// What was met while scanning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The list under the key `items` of the outermost object begins; its bracket is read.
    Items,
    /// A line ends outside of any string.
    Newline,
    /// The value is over. What ends a bare value in a list (`,` or `]`) is not read.
    End,
}

/// What stood last in the outermost object, as far as it tells a key.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Before {
    #[default]
    Other,
    Items,
    ItemsColon,
}

/// Looks at brackets and strings only; what is wrong between them is for the parser to find.
#[derive(Debug, Default)]
pub(super) struct Scan {
    depth: u64,
    in_string: bool,
    escaped: bool,
    in_list: bool,
    /// The string that is being read, or was read last, in the outermost object; cut short.
    name: Vec<u8>,
    before: Before,
}

/// Name of the list in a page.
const ITEMS: &[u8] = b"items";

impl Scan {
    /// At the first byte of an element of a list, which may be no object.
    pub(super) fn inside_a_list() -> Self {
        Self { in_list: true, ..Self::default() }
    }

    /// Behind the opening bracket of an object.
    pub(super) fn inside_an_object() -> Self {
        Self { depth: 1, ..Self::default() }
    }

    /// Reads up to the next event: how many bytes, and which it was. Without an event all bytes are
    /// read.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Option<Event>) {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_string {
                at += self.string(&bytes[at..]);
                continue;
            }
            let byte = bytes[at];
            if self.in_list && self.depth == 0 && matches!(byte, b',' | b']') {
                return (at, Some(Event::End));
            }
            at += 1;
            let before = std::mem::take(&mut self.before);
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.name.clear();
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    if byte == b'[' && before == Before::ItemsColon {
                        return (at, Some(Event::Items));
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return (at, Some(Event::End));
                    }
                }
                b':' if before == Before::Items => self.before = Before::ItemsColon,
                b'\n' => {
                    self.before = before;
                    return (at, Some(Event::Newline));
                }
                byte if byte.is_ascii_whitespace() => self.before = before,
                _ => {}
            }
        }
        (at, None)
    }

    /// Reads on in a string, up to its end; returns how many bytes.
    fn string(&mut self, bytes: &[u8]) -> usize {
        if std::mem::take(&mut self.escaped) {
            return 1;
        }
        let end = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        let part = &bytes[..end.unwrap_or(bytes.len())];
        let room = (ITEMS.len() + 1).saturating_sub(self.name.len());
        self.name.extend_from_slice(&part[..part.len().min(room)]);
        match end {
            None => return bytes.len(),
            Some(end) if bytes[end] == b'\\' => {
                self.escaped = true;
                // No name that is looked for is written with an escape.
                self.name.clear();
                self.name.push(b'\\');
            }
            Some(_) => {
                self.in_string = false;
                if self.depth == 1 && self.name == ITEMS {
                    self.before = Before::Items;
                }
            }
        }
        part.len() + 1
    }
}
