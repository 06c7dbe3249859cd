//! Meetings out of JSON that is not one to a line: Fathom API pages, lists, objects written over
//! many lines, and any of these one after the other.
//!
//! Only brackets and strings are looked at here, so that a page of any size takes the memory of one
//! meeting, and a meeting that is wrong inside loses nothing of the others.

use std::io::{self, BufRead, ErrorKind};

use super::Place;
use super::json::{Event, Scan};

/// What was found where a meeting should be.
#[derive(Debug)]
pub(super) enum Value {
    /// The bytes of one JSON value.
    Whole(Vec<u8>),
    /// It was longer than the bound and is left out; the next one can be read.
    TooLong,
    /// Nothing can be read from here on, for this reason.
    Broken(String),
}

/// Where in the document the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    List,
    Page,
}

/// Reads meetings wherever they stand in the document.
pub(super) struct Values<R> {
    reader: R,
    within: Within,
    pages: u32,
    items: u32,
    bytes_max: usize,
}

impl<R: BufRead> Values<R> {
    /// A value above `bytes_max` is left out.
    pub(super) fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader, within: Within::Nothing, pages: 0, items: 0, bytes_max }
    }

    /// Where the value that was read last stands.
    pub(super) fn place(&self) -> Place {
        Place::Item { page: self.pages, item: self.items }
    }

    /// The next meeting; `None` at the end of the document.
    pub(super) fn next(&mut self) -> Option<Value> {
        match self.find_next() {
            Ok(value) => value,
            Err(error) => Some(Value::Broken(format!("it cannot be read from here on: {error}"))),
        }
    }

    fn find_next(&mut self) -> io::Result<Option<Value>> {
        loop {
            let Some(byte) = self.peek()? else {
                return Ok((self.within != Within::Nothing).then(|| {
                    self.items = self.items.saturating_add(1);
                    cut_off("the list of meetings has no end")
                }));
            };
            match (self.within, byte) {
                (Within::Nothing, b'[') => {
                    self.reader.consume(1);
                    self.begin(Within::List);
                }
                (Within::Nothing, b'{') => {
                    if let Some(value) = self.object_or_page()? {
                        return Ok(Some(value));
                    }
                }
                (Within::Nothing, _) => {
                    self.items = self.items.saturating_add(1);
                    return Ok(Some(Value::Broken(
                        "malformed JSON: neither a meeting nor a page nor the end of the file follows".into(),
                    )));
                }
                (_, b',') => self.reader.consume(1),
                (Within::List, b']') => {
                    self.reader.consume(1);
                    self.within = Within::Nothing;
                }
                (Within::Page, b']') => {
                    self.reader.consume(1);
                    self.within = Within::Nothing;
                    if !self.skip_rest_of_page()? {
                        return Ok(Some(cut_off("the page has no end")));
                    }
                }
                _ => {
                    self.items = self.items.saturating_add(1);
                    return self.element().map(Some);
                }
            }
        }
    }

    fn begin(&mut self, within: Within) {
        self.within = within;
        self.pages = self.pages.saturating_add(1);
        self.items = 0;
    }

    /// An object that is a meeting, or `None` where it is a page, whose items are next.
    fn object_or_page(&mut self) -> io::Result<Option<Value>> {
        let mut captured = Captured::new(self.bytes_max);
        let mut scan = Scan::default();
        loop {
            match self.feed(&mut scan, &mut captured)? {
                Some(Event::Items) => {
                    self.begin(Within::Page);
                    return Ok(None);
                }
                Some(Event::End) => {
                    self.items = self.items.saturating_add(1);
                    return Ok(Some(captured.value()));
                }
                Some(Event::Newline) => {}
                None => {
                    self.items = self.items.saturating_add(1);
                    return Ok(Some(cut_off("a meeting has no end")));
                }
            }
        }
    }

    /// One element of a list: an object, or what stands there instead.
    fn element(&mut self) -> io::Result<Value> {
        let mut captured = Captured::new(self.bytes_max);
        let mut scan = Scan::inside_a_list();
        loop {
            match self.feed(&mut scan, &mut captured)? {
                Some(Event::End) => return Ok(captured.value()),
                Some(Event::Items | Event::Newline) => {}
                None => return Ok(cut_off("a meeting has no end")),
            }
        }
    }

    /// True where the page has an end.
    fn skip_rest_of_page(&mut self) -> io::Result<bool> {
        let mut nothing = Captured::new(0);
        let mut scan = Scan::inside_an_object();
        loop {
            match self.feed(&mut scan, &mut nothing)? {
                Some(Event::End) => return Ok(true),
                Some(Event::Items | Event::Newline) => {}
                None => return Ok(false),
            }
        }
    }

    /// Reads up to the next event; `None` at the end of the file.
    fn feed(&mut self, scan: &mut Scan, captured: &mut Captured) -> io::Result<Option<Event>> {
        loop {
            let buffer = fill(&mut self.reader)?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let (read, event) = scan.feed(buffer);
            captured.extend(&buffer[..read]);
            self.reader.consume(read);
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            let buffer = fill(&mut self.reader)?;
            let Some(&first) = buffer.first() else { return Ok(None) };
            match buffer.iter().position(|byte| !byte.is_ascii_whitespace()) {
                Some(0) => return Ok(Some(first)),
                Some(blanks) => self.reader.consume(blanks),
                None => {
                    let blanks = buffer.len();
                    self.reader.consume(blanks);
                }
            }
        }
    }
}

/// [`BufRead::fill_buf`] that no signal interrupts.
fn fill<R: BufRead>(reader: &mut R) -> io::Result<&[u8]> {
    loop {
        match reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    reader.fill_buf()
}

fn cut_off(what: &str) -> Value {
    Value::Broken(format!("the JSON ends too early: {what}"))
}

/// The bytes of one value, as far as the bound allows.
struct Captured {
    bytes: Vec<u8>,
    bytes_max: usize,
    too_long: bool,
}

impl Captured {
    fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max, too_long: false }
    }

    fn extend(&mut self, part: &[u8]) {
        self.too_long |= self.bytes.len() + part.len() > self.bytes_max;
        if self.too_long {
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(part);
        }
    }

    fn value(self) -> Value {
        if self.too_long { Value::TooLong } else { Value::Whole(self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read with a bound of 12 bytes, wherever the buffer breaks.
    fn read(document: &str) -> Vec<String> {
        let all = |capacity| {
            let reader = io::BufReader::with_capacity(capacity, document.as_bytes());
            let mut values = Values::new(reader, 12);
            let mut read = Vec::new();
            while let Some(value) = values.next() {
                let place = values.place();
                match value {
                    Value::Whole(value) => {
                        read.push(format!("{place}: {}", String::from_utf8_lossy(&value)))
                    }
                    Value::TooLong => read.push(format!("{place}: too long")),
                    Value::Broken(reason) => return [read, vec![reason]].concat(),
                }
            }
            read
        };
        let read = all(1);
        for capacity in 2..40 {
            assert_eq!(all(capacity), read, "capacity {capacity}");
        }
        read
    }

    #[test]
    fn a_value_above_the_bound_is_left_out_and_the_next_is_read() {
        let page = r#"{"next":"a page may be as long as it likes","items":[{"a":"123456"},{"b":"\"]}"}, {"c":1} ]} {"d":2}"#;
        let items = ["item 1: too long", "item 2: {\"b\":\"\\\"]}\"}", "item 3: {\"c\":1}"];
        assert_eq!(read(page)[..3], items);
        assert_eq!(read(page)[3..], ["item 4: {\"d\":2}"]);
        assert_eq!(
            read(r#"{"a":"1234567890"}[{"b":1},2]"#),
            ["item 1: too long", "item 1: {\"b\":1}", "item 2: 2"]
        );
    }

    #[test]
    fn only_the_outermost_key_items_with_a_list_makes_a_page() {
        for meeting in [r#"{"items":1}"#, r#"{"a":"items"}"#, r#"["items"]"#] {
            assert_eq!(read(meeting).len(), 1, "{meeting}");
        }
        assert_eq!(read(r#"{"x":{"items":[1,2]}}"#), ["item 1: too long"]);
        assert_eq!(read("{\"items\" :\n [ 1]}"), ["item 1: 1"]);
    }
}
