//! What a message holds, whichever way it was written. Dictionaries keep the order of their keys and may repeat them:
//! Kamailio does both.

use std::fmt;

use base::Fault;

/// The bounds of one message.
pub(crate) const DEPTH_MAX: usize = 16;
pub(crate) const ITEMS_MAX: usize = 4096;

/// A value.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Integer(i64),
    /// Octets; text as a rule.
    String(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// Keys with values.
    Dictionary(Vec<(Vec<u8>, Value)>),
}

/// Why octets are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// They end too early; on a stream, more may come.
    #[error("incomplete")]
    Incomplete,
    /// They do not parse.
    #[error("bad syntax")]
    Syntax,
    /// Deeper than is taken.
    #[error("too deep")]
    Depth,
    /// More values than are taken.
    #[error("too many values")]
    Items,
}

impl Malformed {
    /// Always the writer's fault.
    pub const fn fault(self) -> Fault {
        Fault::Malformed
    }
}

impl Value {
    /// An empty dictionary.
    pub const fn dictionary() -> Value {
        Value::Dictionary(Vec::new())
    }

    /// With one more key, where this is a dictionary.
    #[must_use]
    pub fn with(mut self, key: impl AsRef<[u8]>, value: impl Into<Value>) -> Value {
        if let Value::Dictionary(pairs) = &mut self {
            pairs.push((key.as_ref().to_vec(), value.into()));
        }
        self
    }

    /// The first value of a key. A blank and a hyphen in a key are one, and so are small letters and capitals.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pairs().iter().find(|(name, _)| same(name, key.as_bytes())).map(|(_, value)| value)
    }

    fn pairs(&self) -> &[(Vec<u8>, Value)] {
        match self {
            Value::Dictionary(pairs) => pairs,
            _ => &[],
        }
    }

    /// Every value of a key.
    pub fn all<'v>(&'v self, key: &'v str) -> impl Iterator<Item = &'v Value> {
        self.pairs().iter().filter(move |(name, _)| same(name, key.as_bytes())).map(|(_, value)| value)
    }

    /// The octets of a key's string.
    pub fn octets(&self, key: &str) -> Option<&[u8]> {
        match self.get(key)? {
            Value::String(octets) => Some(octets),
            _ => None,
        }
    }

    /// A key's string, where it is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.octets(key).and_then(|octets| std::str::from_utf8(octets).ok())
    }

    /// A key's number; digits in a string are one too.
    pub fn number(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            Value::Integer(number) => Some(*number),
            Value::String(octets) => std::str::from_utf8(octets).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// The words of a key: of its string, its list, or of both where the key repeats.
    pub fn words<'v>(&'v self, key: &'v str) -> impl Iterator<Item = &'v str> {
        let strings = self.all(key).flat_map(|value| match value {
            Value::List(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        });
        strings.filter_map(|value| match value {
            Value::String(octets) => std::str::from_utf8(octets).ok(),
            _ => None,
        })
    }

    /// Whether one of a key's words is this one.
    pub fn has(&self, key: &str, word: &str) -> bool {
        self.words(key).any(|is| same(is.as_bytes(), word.as_bytes()))
    }
}

/// Words that mean the same: `trust-address`, `Trust address`.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let plain = |c: &u8| if matches!(c, b'-' | b'_') { b' ' } else { c.to_ascii_lowercase() };
    a.len() == b.len() && a.iter().map(plain).eq(b.iter().map(plain))
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.as_bytes().to_vec())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text.into_bytes())
    }
}

impl From<Vec<u8>> for Value {
    fn from(octets: Vec<u8>) -> Self {
        Value::String(octets)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Integer(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Value::List(items)
    }
}

/// Call-IDs, tags and descriptions stay out of logs: the shape alone is shown.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Integer(_) => f.write_str("integer"),
            Value::String(octets) => write!(f, "string({})", octets.len()),
            Value::List(items) => f.debug_list().entries(items).finish(),
            Value::Dictionary(pairs) => f.debug_list().entries(pairs.iter().map(|(_, value)| value)).finish(),
        }
    }
}
