//! Byte-Range (RFC 4975 §7.1.1, §9).

use std::fmt;

use bytes::BytesMut;
use thiserror::Error;

/// The value is no byte range: not of the grammar, or its numbers do not fit together or into 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("not a byte range")]
pub struct RangeError;

/// Which octets of a message a chunk carries, or a report speaks of. Counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ByteRange {
    /// The first octet, from 1.
    pub start: u64,
    /// The last octet, `None` for `*`: the chunk may be interrupted. `start - 1` when it carries nothing.
    pub end: Option<u64>,
    /// Octets of the whole message, `None` for `*`: not known yet.
    pub total: Option<u64>,
}

impl ByteRange {
    /// What a SEND without a body carries: `1-0/0`.
    pub const EMPTY: ByteRange = ByteRange { start: 1, end: Some(0), total: Some(0) };
    /// What a SEND without the header is taken for: the message from its start.
    pub const OPEN: ByteRange = ByteRange { start: 1, end: None, total: None };

    /// Octets `start` to `end` of `total`.
    pub const fn new(start: u64, end: u64, total: u64) -> ByteRange {
        ByteRange { start, end: Some(end), total: Some(total) }
    }

    /// Reads the header's value. Start is at least 1, end at least start - 1 and at most total.
    pub fn parse(value: &[u8]) -> Result<ByteRange, RangeError> {
        let dash = memchr::memchr(b'-', value).ok_or(RangeError)?;
        let slash = memchr::memchr(b'/', value).ok_or(RangeError)?;
        let start = number(value.get(..dash).ok_or(RangeError)?)?;
        let end = star_or_number(value.get(dash + 1..slash).ok_or(RangeError)?)?;
        let total = star_or_number(value.get(slash + 1..).ok_or(RangeError)?)?;
        let range = ByteRange { start, end, total };
        if range.is_sound() { Ok(range) } else { Err(RangeError) }
    }

    fn is_sound(&self) -> bool {
        let Some(before) = self.start.checked_sub(1) else { return false };
        let end = self.end.unwrap_or(before);
        end >= before && self.total.is_none_or(|total| end <= total)
    }

    /// The last octet of a chunk that begins at `start` and really carried `len` octets: the data counts, not
    /// the header (RFC 4975 §7.1.1). `None` when that leaves 64 bits.
    pub const fn end_of(&self, len: u64) -> Option<u64> {
        match self.start.checked_sub(1) {
            Some(before) => before.checked_add(len),
            None => None,
        }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.start)?;
        match self.end {
            Some(end) => write!(f, "{end}/")?,
            None => f.write_str("*/")?,
        }
        match self.total {
            Some(total) => write!(f, "{total}"),
            None => f.write_str("*"),
        }
    }
}

impl ByteRange {
    /// The same as it is displayed; each chunk has one.
    pub(crate) fn put(&self, buffer: &mut BytesMut) {
        put_number(buffer, self.start);
        for (mark, number) in [(b"-", self.end), (b"/", self.total)] {
            buffer.extend_from_slice(mark);
            match number {
                Some(number) => put_number(buffer, number),
                None => buffer.extend_from_slice(b"*"),
            }
        }
    }
}

fn put_number(buffer: &mut BytesMut, mut number: u64) {
    let mut digits = [0; 20];
    let mut blank = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        blank -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    buffer.extend_from_slice(digits.get(blank..).unwrap_or_default());
}

fn star_or_number(text: &[u8]) -> Result<Option<u64>, RangeError> {
    if text == b"*" { Ok(None) } else { number(text).map(Some) }
}

fn number(text: &[u8]) -> Result<u64, RangeError> {
    if text.is_empty() {
        return Err(RangeError);
    }
    text.iter().try_fold(0u64, |sum, c| match c {
        b'0'..=b'9' => sum.checked_mul(10).and_then(|s| s.checked_add(u64::from(c - b'0'))).ok_or(RangeError),
        _ => Err(RangeError),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4975_s9_ranges_are_read_and_written() {
        for text in [
            "1-*/*",
            "1-0/0",
            "1-39/39",
            "2049-*/1048576",
            "2147483648-2147483648/2147483648",
            "4294967296-4294967297/4294967298",
            "1-18446744073709551615/18446744073709551615",
            "18446744073709551615-*/*",
        ] {
            let range = ByteRange::parse(text.as_bytes()).unwrap();
            assert_eq!(range.to_string(), text);
            let mut buffer = BytesMut::new();
            range.put(&mut buffer);
            assert_eq!(buffer, text.as_bytes());
        }
    }

    #[test]
    fn hostile_numbers_are_refused() {
        for text in [
            "",
            "-",
            "1-",
            "1-1",
            "/",
            "1/1-1",
            "0-0/0",
            "0-*/*",
            "-1-2/3",
            "1--2/3",
            "1-2/-3",
            "+1-2/3",
            "1-2/3/4",
            "1 -2/3",
            "5-3/9",
            "1-10/9",
            "*-1/1",
            "1-x/9",
            "1-18446744073709551616/*",
            "18446744073709551616-*/*",
            "1-*/99999999999999999999999999",
            "\u{661}-2/3",
        ] {
            assert_eq!(ByteRange::parse(text.as_bytes()), Err(RangeError), "{text}");
        }
    }

    #[test]
    fn the_computed_end_does_not_overflow() {
        let far = ByteRange::parse(b"18446744073709551615-*/*").unwrap();
        assert_eq!(far.end_of(1), Some(u64::MAX));
        assert_eq!(far.end_of(2), None);
        assert_eq!(ByteRange::EMPTY.end_of(0), Some(0));
    }
}
