//! The lines of a head as places in its block (RFC 4975 §9).

use crate::octets::{NAME, are};

/// A part of the block. A head is at most 65535 octets long.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    from: u16,
    to: u16,
}

impl Span {
    pub(super) fn range(self) -> std::ops::Range<usize> {
        usize::from(self.from)..usize::from(self.to)
    }

    pub(super) fn is_set(self) -> bool {
        self.to != 0
    }
}

pub(super) fn span(from: usize, to: usize) -> Span {
    // The framer bounds a head to 65535 octets.
    let cut = |n| u16::try_from(n).unwrap_or(u16::MAX);
    Span { from: cut(from), to: cut(to) }
}

/// Walks header lines.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    /// From the first header line on.
    pub(super) fn of(rest: &'a [u8]) -> Self {
        Headers { rest }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let end = line_end(self.rest, 0)?;
            let line = self.rest.get(..end)?;
            self.rest = self.rest.get(end + 2..)?;
            if let Some((name, value)) = split_line(line) {
                return Some((name, line.get(value)?));
            }
        }
    }
}

/// Where the line that begins at `at` ends, without its CRLF. The framer has checked that each LF follows a CR.
pub(super) fn line_end(block: &[u8], at: usize) -> Option<usize> {
    let lf = memchr::memchr(b'\n', block.get(at..)?)?;
    (at + lf).checked_sub(1)
}

/// Name and the place of the value, blanks around it cut.
pub(super) fn split_line(line: &[u8]) -> Option<(&[u8], std::ops::Range<usize>)> {
    let colon = memchr::memchr(b':', line)?;
    let name = line.get(..colon)?;
    let is_name = !name.is_empty() && are(name, NAME);
    let blank = |c: &u8| matches!(c, b' ' | b'\t');
    let value = line.get(colon + 1..)?;
    let leading = value.iter().take_while(|c| blank(c)).count();
    let trailing = value.iter().skip(leading).rev().take_while(|c| blank(c)).count();
    is_name.then_some((name, colon + 1 + leading..line.len() - trailing))
}

/// quoted-string of RFC 4975 §9 with RFC 3261's escapes.
pub(super) fn unquote(value: &[u8]) -> Option<String> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut octets = Vec::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner {
        match (escaped, c) {
            (false, b'\\') => escaped = true,
            (false, b'"') => return None,
            _ => {
                octets.push(*c);
                escaped = false;
            }
        }
    }
    if escaped { None } else { String::from_utf8(octets).ok() }
}
