//! Parameters after `;`, of URIs and of header values. Names are compared without regard to case; the order
//! is kept.

use std::borrow::Cow;
use std::fmt;

use crate::scan::{Scan, is_blank, quote, unquote};
use crate::typed::BadHeader;

/// Parameters in order. A value is kept in its wire form: a quoted string keeps its quotes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Params(Vec<(String, Option<String>)>);

impl Params {
    /// True when the parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// The value in wire form; empty for a parameter without one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_deref().unwrap_or_default())
    }

    /// The value without quotes and escapes.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|value| {
            if value.starts_with('"') { unquote(value.as_bytes()).into() } else { Cow::Borrowed(value) }
        })
    }

    /// The value as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(|value| crate::scan::digits(value.as_bytes()))
    }

    /// Sets a parameter to a wire-form value (a token, a host; quote anything else by `set_quoted`), in its
    /// old place or at the end.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        match self.0.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Sets a parameter to a quoted string.
    pub fn set_quoted(&mut self, name: &str, text: &str) {
        self.set(name, Some(&quote(text)));
    }

    /// The same by value, to build on.
    pub fn with(mut self, name: &str, value: Option<&str>) -> Params {
        self.set(name, value);
        self
    }

    pub(crate) fn push(&mut self, name: String, value: Option<String>) {
        self.0.push((name, value));
    }

    /// Removes a parameter; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.0.len() < before
    }

    /// Keeps the parameters whose name passes.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// Name and wire-form value in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads `*( SEMI generic-param )` up to the end of the value.
    pub(crate) fn parse(scan: &mut Scan<'_>, header: &'static str) -> Result<Params, BadHeader> {
        let mut params = Params::default();
        while scan.eat_spaced(b';') {
            let name = scan.token().ok_or(BadHeader { header, what: "parameter without a name" })?;
            let value = if scan.eat_spaced(b'=') { Some(param_value(scan, header)?) } else { None };
            params.push(name.to_owned(), value);
        }
        scan.blanks();
        if scan.is_done() { Ok(params) } else { Err(BadHeader { header, what: "text after the parameters" }) }
    }
}

/// A token, a host or a quoted string; tolerant of what clients put there, but never of a separator.
fn param_value(scan: &mut Scan<'_>, header: &'static str) -> Result<String, BadHeader> {
    if scan.peek() == Some(b'"') {
        let quoted = scan.quoted().ok_or(BadHeader { header, what: "quoted string does not end" })?;
        return Ok(crate::scan::lossy(quoted));
    }
    let plain =
        |b: u8| !is_blank(b) && !b.is_ascii_control() && !matches!(b, b';' | b',' | b'"' | b'<' | b'>');
    match scan.take_while(plain) {
        Some(value) => Ok(crate::scan::lossy(value)),
        None => Err(BadHeader { header, what: "parameter without its value" }),
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            write!(f, ";{name}")?;
            if let Some(value) = value {
                write!(f, "={value}")?;
            }
        }
        Ok(())
    }
}
