//! `[name] <uri>` (RFC 3862 §4.1).

use std::borrow::Cow;
use std::fmt;

use super::header::unescape;
use crate::Error;

/// A CPIM address.
#[derive(Clone, PartialEq, Eq)]
pub struct Address<'a> {
    /// The formal name; empty when there is none.
    pub name: Cow<'a, str>,
    /// The URI, without its angle brackets.
    pub uri: Cow<'a, str>,
}

impl<'a> Address<'a> {
    /// An address without a name.
    pub fn uri(uri: impl Into<Cow<'a, str>>) -> Self {
        Address { name: Cow::Borrowed(""), uri: uri.into() }
    }

    /// Reads the raw value of a header.
    pub fn parse(raw: &'a str) -> Result<Self, Error> {
        let text = raw.trim_matches(' ');
        let inner = text.strip_suffix('>').ok_or(Error::Address)?;
        // The URI is what the last '<' opens: a name in quotes may hold one.
        let (name, uri) = inner.rsplit_once('<').ok_or(Error::Address)?;
        if uri.is_empty() || !uri.contains(':') || uri.contains(['>', ' ', '"']) {
            return Err(Error::Address);
        }
        let name = name.trim_matches(' ');
        let name = match name.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"').ok_or(Error::Address)?,
            None => name,
        };
        Ok(Address { name: unescape(name)?, uri: unescape(uri)? })
    }
}

impl fmt::Debug for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(***)")
    }
}
