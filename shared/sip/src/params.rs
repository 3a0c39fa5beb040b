//! Parameters after `;`, of URIs and of header values. Names are compared without regard to case; the order
//! is kept.

use std::borrow::Cow;
use std::fmt;

use crate::scan::{Scan, is_blank, quote, unquote};
use crate::typed::BadHeader;

/// Parameters in order. A value is kept in its wire form: a quoted string keeps its quotes.
///
/// They are one text, `;name=value;name`, without blanks, and read anew when asked for: a message has many of them, and
/// few are looked at.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Params(String);

/// Reads one parameter after the other; see [`Params`].
struct Each<'a>(&'a str);

impl<'a> Iterator for Each<'a> {
    type Item = (&'a str, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.strip_prefix(';')?;
        let end = rest.find([';', '=']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at_checked(end)?;
        let Some(value) = rest.strip_prefix('=') else {
            self.0 = rest;
            return Some((name, None));
        };
        let quoted = Scan::new(value.as_bytes()).quoted().map(<[u8]>::len);
        let end = quoted.or_else(|| value.find(';')).unwrap_or(value.len());
        let (value, rest) = value.split_at_checked(end)?;
        self.0 = rest;
        Some((name, Some(value)))
    }
}

impl Params {
    /// True when the parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// The value in wire form; empty for a parameter without one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.unwrap_or_default())
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
        if !self.has(name) {
            return self.push(name, value);
        }
        let mut set = Params(String::with_capacity(self.0.len()));
        let mut done = false;
        for (old_name, old) in self.iter() {
            let this = !done && old_name.eq_ignore_ascii_case(name);
            done |= this;
            set.push(old_name, if this { value } else { old });
        }
        *self = set;
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

    pub(crate) fn push(&mut self, name: &str, value: Option<&str>) {
        self.0.push(';');
        self.0.push_str(name);
        if let Some(value) = value {
            self.0.push('=');
            self.0.push_str(value);
        }
    }

    /// Removes a parameter; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let had = self.has(name);
        if had {
            self.retain(|n| !n.eq_ignore_ascii_case(name));
        }
        had
    }

    /// Keeps the parameters whose name passes.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let mut kept = Params::default();
        self.iter().filter(|(name, _)| keep(name)).for_each(|(name, value)| kept.push(name, value));
        *self = kept;
    }

    /// Name and wire-form value in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        Each(&self.0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads `*( SEMI generic-param )` up to the end of the value.
    pub(crate) fn parse(scan: &mut Scan<'_>, header: &'static str) -> Result<Params, BadHeader> {
        let mut params = Params::default();
        while scan.eat_spaced(b';') {
            if params.0.capacity() == 0 {
                params.0.reserve_exact(scan.rest().len() + 1);
            }
            let name = scan.token().ok_or(BadHeader { header, what: "parameter without a name" })?;
            let value = if scan.eat_spaced(b'=') { Some(param_value(scan, header)?) } else { None };
            params.push(name, value.as_deref());
        }
        scan.blanks();
        if scan.is_done() { Ok(params) } else { Err(BadHeader { header, what: "text after the parameters" }) }
    }
}

/// A token, a host or a quoted string; tolerant of what clients put there, but never of a separator.
fn param_value<'a>(scan: &mut Scan<'a>, header: &'static str) -> Result<Cow<'a, str>, BadHeader> {
    if scan.peek() == Some(b'"') {
        let quoted = scan.quoted().ok_or(BadHeader { header, what: "quoted string does not end" })?;
        return Ok(String::from_utf8_lossy(quoted));
    }
    let plain =
        |b: u8| !is_blank(b) && !b.is_ascii_control() && !matches!(b, b';' | b',' | b'"' | b'<' | b'>');
    match scan.take_while(plain) {
        Some(value) => Ok(String::from_utf8_lossy(value)),
        None => Err(BadHeader { header, what: "parameter without its value" }),
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_were_written() {
        let mut scan = Scan::new(b" ; a = 1;b;c=\"x;y=\\\"z\" ;d=;".as_slice());
        assert!(Params::parse(&mut scan, "test").is_err());
        let mut scan = Scan::new(b" ; a = 1;b;C=\"x;y=\\\"z\" ;d=e=f".as_slice());
        let mut params = Params::parse(&mut scan, "test").unwrap();
        let all: Vec<_> = params.iter().collect();
        let quoted = "\"x;y=\\\"z\"";
        assert_eq!(all, [("a", Some("1")), ("b", None), ("C", Some(quoted)), ("d", Some("e=f"))]);
        assert_eq!(
            (params.len(), params.get("B"), params.text("c").as_deref()),
            (4, Some(""), Some("x;y=\"z"))
        );
        params.set("B", Some("2"));
        params.set("n", None);
        assert!(params.remove("A") && !params.remove("a"));
        assert_eq!(params.to_string(), format!(";b=2;C={quoted};d=e=f;n"));
        params.set("b", Some(""));
        assert_eq!(params.get("b"), Some(""));
        assert_eq!(params.iter().map(|(name, _)| name).collect::<String>(), "bCdn");
    }
}
