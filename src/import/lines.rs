//! Lines of a stream, each with its number and a bound on its length.

use std::io::{self, BufRead, ErrorKind};

/// What stands between two line ends.
#[derive(Debug)]
pub(super) enum Line {
    /// The line, without its end.
    Whole(Vec<u8>),
    /// It was longer than the bound and is left out; the next one can be read.
    TooLong,
    /// Nothing can be read any more.
    Unreadable(io::Error),
}

/// Reads lines that end in `\n`, `\r\n` or `\r`, as WebVTT has them.
pub(super) struct Lines<R> {
    reader: R,
    number: u64,
    after_return: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, number: 0, after_return: false }
    }

    /// Number of the line that was read last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self, bytes_max: usize) -> Option<Line> {
        let mut line = Vec::new();
        let mut begun = false;
        let mut too_long = false;
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Some(self.numbered(Line::Unreadable(error))),
            };
            if std::mem::take(&mut self.after_return) && buffer.first() == Some(&b'\n') {
                self.reader.consume(1);
                continue;
            }
            if buffer.is_empty() && !begun {
                return None;
            }
            begun = true;
            let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &buffer[..end.unwrap_or(buffer.len())];
            too_long |= line.len() + part.len() > bytes_max;
            if too_long {
                line = Vec::new();
            } else {
                line.extend_from_slice(part);
            }
            let at_end = end.is_some() || buffer.is_empty();
            self.after_return = end.is_some_and(|end| buffer[end] == b'\r');
            let read = part.len() + usize::from(end.is_some());
            self.reader.consume(read);
            if at_end {
                let whole = if too_long { Line::TooLong } else { Line::Whole(line) };
                return Some(self.numbered(whole));
            }
        }
    }

    fn numbered(&mut self, line: Line) -> Line {
        self.number += 1;
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_end_is_one_end_wherever_the_buffer_breaks() {
        let text = b"a\nb\r\nc\rd\r\n\r\n\ne";
        for capacity in 1..20 {
            let reader = io::BufReader::with_capacity(capacity, &text[..]);
            let mut lines = Lines::new(reader);
            let mut read = Vec::new();
            while let Some(Line::Whole(line)) = lines.next(100) {
                read.push(String::from_utf8_lossy(&line).into_owned());
            }
            assert_eq!(read, ["a", "b", "c", "d", "", "", "e"], "capacity {capacity}");
            assert_eq!(lines.number(), 7);
        }
    }

    #[test]
    fn a_line_above_the_bound_is_left_out_and_the_next_is_read() {
        let reader = io::BufReader::with_capacity(3, &b"12345\n1234\n"[..]);
        let mut lines = Lines::new(reader);
        assert!(matches!(lines.next(4), Some(Line::TooLong)));
        assert!(matches!(lines.next(4), Some(Line::Whole(line)) if line == b"1234"));
        assert!(lines.next(4).is_none());
    }
}
