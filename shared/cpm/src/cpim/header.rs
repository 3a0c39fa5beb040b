//! One header line (RFC 3862 §3.2 to §3.4).

use std::borrow::Cow;

use crate::Error;

/// A header with its prefix resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The namespace URN that the prefix, or the default in force, stands for.
    pub namespace: &'a str,
    /// The name without its prefix; case-sensitive.
    pub name: &'a str,
    /// What stands between the colon and the value, e.g. `;lang=en` of a Subject.
    pub params: &'a str,
    /// The value with its escapes.
    pub raw: &'a str,
}

impl std::fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Header({}: ***)", self.name)
    }
}

impl<'a> Header<'a> {
    /// The value with its escapes undone (RFC 3862 §3.3.2).
    pub fn value(&self) -> Result<Cow<'a, str>, Error> {
        unescape(self.raw)
    }

    /// True for this name in this namespace.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.name == name
    }
}

/// A line cut at its colon: name with prefix, parameters, raw value.
pub(super) struct Line<'a> {
    pub(super) prefix: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) params: &'a str,
    pub(super) raw: &'a str,
}

impl<'a> Line<'a> {
    /// Cuts a line. One space after the colon belongs to the syntax; a missing one is forgiven.
    pub(super) fn cut(line: &'a str) -> Result<Line<'a>, Error> {
        let (full_name, rest) = line.split_once(':').ok_or(Error::Header)?;
        let (prefix, name) = match full_name.split_once('.') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, full_name),
        };
        if !is_name(name) || prefix.is_some_and(|p| !is_name(p)) {
            return Err(Error::Header);
        }
        if rest.chars().any(char::is_control) {
            return Err(Error::Characters);
        }
        let (params, raw) = match rest.strip_prefix(';') {
            Some(_) => rest.split_once(' ').ok_or(Error::Header)?,
            None => ("", rest),
        };
        Ok(Line { prefix, name, params, raw: raw.trim_matches(' ') })
    }
}

/// RFC 3862 §3.2: no controls, no separators. A second dot stays part of the name.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, ':' | ';' | '<' | '>' | '"' | ','))
}

/// Undoes `\uXXXX`, `\\`, `\"` and `\'`, and the short forms of control characters.
pub(super) fn unescape(raw: &str) -> Result<Cow<'_, str>, Error> {
    if !raw.contains('\\') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, tail)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = tail.chars();
        match chars.next().ok_or(Error::Escape)? {
            'u' => {
                let digits = tail.get(1..5).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
                let code = digits.and_then(|d| u32::from_str_radix(d, 16).ok()).ok_or(Error::Escape)?;
                // Surrogates name no character.
                out.push(char::from_u32(code).ok_or(Error::Escape)?);
                rest = tail.get(5..).unwrap_or_default();
                continue;
            }
            c @ ('\\' | '"' | '\'') => out.push(c),
            'b' => out.push('\u{8}'),
            't' => out.push('\t'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            _ => return Err(Error::Escape),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}
