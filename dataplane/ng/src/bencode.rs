//! Bencode: `i42e`, `4:spam`, `l…e`, `d…e`. Keys come in any order and are written in the order that they have.

use crate::value::{DEPTH_MAX, ITEMS_MAX, Malformed, Value};

/// Reads one value off the front; also how many octets it took.
pub(crate) fn read(octets: &[u8]) -> Result<(Value, usize), Malformed> {
    let mut reader = Reader { octets, at: 0, items: 0 };
    let value = reader.value(0)?;
    Ok((value, reader.at))
}

/// Appends a value.
pub(crate) fn write(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::Integer(number) => into.extend_from_slice(format!("i{number}e").as_bytes()),
        Value::String(octets) => string(octets, into),
        Value::List(items) => {
            into.push(b'l');
            items.iter().for_each(|item| write(item, into));
            into.push(b'e');
        }
        Value::Dictionary(pairs) => {
            into.push(b'd');
            for (key, value) in pairs {
                string(key, into);
                write(value, into);
            }
            into.push(b'e');
        }
    }
}

fn string(octets: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(format!("{}:", octets.len()).as_bytes());
    into.extend_from_slice(octets);
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
    items: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Result<u8, Malformed> {
        self.octets.get(self.at).copied().ok_or(Malformed::Incomplete)
    }

    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed::Depth);
        }
        self.items += 1;
        if self.items > ITEMS_MAX {
            return Err(Malformed::Items);
        }
        match self.peek()? {
            b'i' => {
                self.at += 1;
                self.number(b'e').map(Value::Integer)
            }
            b'0'..=b'9' => self.string().map(Value::String),
            b'l' => {
                self.at += 1;
                let mut items = Vec::new();
                while self.peek()? != b'e' {
                    items.push(self.value(depth + 1)?);
                }
                self.at += 1;
                Ok(Value::List(items))
            }
            b'd' => {
                self.at += 1;
                let mut pairs = Vec::new();
                while self.peek()? != b'e' {
                    let key = self.string()?;
                    pairs.push((key, self.value(depth + 1)?));
                }
                self.at += 1;
                Ok(Value::Dictionary(pairs))
            }
            _ => Err(Malformed::Syntax),
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        if !self.peek()?.is_ascii_digit() {
            return Err(Malformed::Syntax);
        }
        let length = usize::try_from(self.number(b':')?).map_err(|_| Malformed::Syntax)?;
        let end = self.at.checked_add(length).ok_or(Malformed::Syntax)?;
        let octets = self.octets.get(self.at..end).ok_or(Malformed::Incomplete)?.to_vec();
        self.at = end;
        Ok(octets)
    }

    /// Digits, with a sign or without, up to `end`.
    fn number(&mut self, end: u8) -> Result<i64, Malformed> {
        // Longer ones do not fit anyway.
        const DIGITS_MAX: usize = 20;
        let rest = self.octets.get(self.at..).unwrap_or_default();
        let length = match rest.iter().take(DIGITS_MAX + 1).position(|c| *c == end) {
            Some(length) => length,
            None if rest.len() > DIGITS_MAX => return Err(Malformed::Syntax),
            None if rest.iter().all(|c| c.is_ascii_digit() || *c == b'-') => {
                return Err(Malformed::Incomplete);
            }
            None => return Err(Malformed::Syntax),
        };
        let digits = rest.get(..length).and_then(|digits| std::str::from_utf8(digits).ok());
        let number = digits.filter(|digits| !digits.starts_with('+')).and_then(|digits| digits.parse().ok());
        self.at += length + 1;
        number.ok_or(Malformed::Syntax)
    }
}
