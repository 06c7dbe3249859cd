//! The beginning of a file: unpacked where it is compressed, and looked at without losing it.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::detect::HEAD_BYTES;

/// First bytes of a gzip file (RFC 1952).
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// Some editors begin UTF-8 with it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const BUFFER_BYTES: usize = 1 << 16;

/// An opened file, unpacked.
pub(super) struct Opened {
    /// How it begins.
    pub(super) head: Vec<u8>,
    /// All of it.
    pub(super) reader: Box<dyn BufRead + Send>,
}

/// Opens a stream. Whether it is compressed is told by its first bytes.
///
/// # Errors
/// Not one byte of it can be read.
pub(super) fn open(reader: impl Read + Send + 'static) -> io::Result<Opened> {
    let (magic, rest) = split(reader, GZIP_MAGIC.len() as u64)?;
    let compressed = magic == GZIP_MAGIC;
    let whole = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(magic).chain(rest));
    let unpacked: Box<dyn Read + Send> = match compressed {
        true => Box::new(MultiGzDecoder::new(whole)),
        false => Box::new(whole),
    };
    let (mut head, rest) = split(unpacked, HEAD_BYTES as u64)?;
    if head.starts_with(BYTE_ORDER_MARK) {
        head.drain(..BYTE_ORDER_MARK.len());
    }
    let reader = Cursor::new(head.clone()).chain(rest);
    Ok(Opened { head, reader: Box::new(BufReader::with_capacity(BUFFER_BYTES, reader)) })
}

/// What could not be read behind the head is an error only once the head has been read.
enum Rest<R> {
    Reader(R),
    Error(Option<io::Error>),
}

impl<R: Read> Read for Rest<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Rest::Reader(reader) => reader.read(buffer),
            Rest::Error(error) => error.take().map_or(Ok(0), Err),
        }
    }
}

/// The first bytes, at most `bytes_max`, and what follows them.
fn split<R: Read>(mut reader: R, bytes_max: u64) -> io::Result<(Vec<u8>, Rest<R>)> {
    let mut head = Vec::new();
    match reader.by_ref().take(bytes_max).read_to_end(&mut head) {
        Ok(_) => Ok((head, Rest::Reader(reader))),
        Err(error) if head.is_empty() => Err(error),
        Err(error) => Ok((head, Rest::Error(Some(error)))),
    }
}
