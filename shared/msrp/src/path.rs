//! Paths of MSRP URIs: what To-Path, From-Path and `a=path` hold (RFC 4975 §5.1, §8.2).

use std::fmt;

use bytes::Bytes;

use crate::uri::{MsrpUri, UriError, UriRef};

/// The URIs of a To-Path or From-Path, first hop first, as a view.
#[derive(Clone, Copy)]
pub struct PathRef<'a>(&'a str);

impl<'a> PathRef<'a> {
    /// Reads a list of at least one and at most `uris_max` URIs with blanks between.
    pub fn parse(text: &'a str, uris_max: usize) -> Result<Self, UriError> {
        if memchr::memchr(b' ', text.as_bytes()).is_none() && uris_max > 0 {
            return UriRef::parse(text).map(|_| PathRef(text));
        }
        let mut count = 0;
        for uri in text.split(' ').filter(|uri| !uri.is_empty()) {
            count += 1;
            if count > uris_max {
                return Err(UriError::TooMany);
            }
            UriRef::parse(uri)?;
        }
        if count == 0 { Err(UriError::Scheme) } else { Ok(PathRef(text)) }
    }

    pub(crate) fn checked(text: &'a str) -> Self {
        PathRef(text)
    }

    /// The text as it came.
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// The URIs, first hop first.
    pub fn uris(&self) -> impl Iterator<Item = UriRef<'a>> + use<'a> {
        self.0.split(' ').filter(|uri| !uri.is_empty()).filter_map(|uri| UriRef::parse(uri).ok())
    }

    /// The text of the next hop's URI.
    pub fn first_text(&self) -> &'a str {
        self.0.split(' ').find(|uri| !uri.is_empty()).unwrap_or_default()
    }

    /// The next hop.
    pub fn first(&self) -> Option<UriRef<'a>> {
        UriRef::parse(self.first_text()).ok()
    }

    /// The endpoint.
    pub fn last(&self) -> Option<UriRef<'a>> {
        self.0.rsplit(' ').find(|uri| !uri.is_empty()).and_then(|uri| UriRef::parse(uri).ok())
    }

    /// An owned copy.
    pub fn to_path(&self) -> Path {
        Path { text: Bytes::copy_from_slice(self.0.as_bytes()) }
    }
}

impl fmt::Debug for PathRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.uris()).finish()
    }
}

/// A path with its own text, shared: what `a=path` held, ready to be written into a To-Path.
#[derive(Clone, PartialEq, Eq)]
pub struct Path {
    text: Bytes,
}

impl Path {
    /// Reads a path of at most `uris_max` URIs.
    pub fn parse(text: &str, uris_max: usize) -> Result<Self, UriError> {
        PathRef::parse(text, uris_max).map(|path| path.to_path())
    }

    /// A path of one URI.
    pub fn of(uri: &MsrpUri) -> Path {
        Path { text: Bytes::copy_from_slice(uri.as_str().as_bytes()) }
    }

    /// A path of many URIs, first hop first.
    pub fn join<'a>(uris: impl IntoIterator<Item = &'a str>, uris_max: usize) -> Result<Self, UriError> {
        let text = uris.into_iter().collect::<Vec<_>>().join(" ");
        Path::parse(&text, uris_max)
    }

    /// The same as a view.
    pub fn view(&self) -> PathRef<'_> {
        PathRef(std::str::from_utf8(&self.text).unwrap_or_default())
    }

    /// The text for the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.view().as_str())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_first_and_a_last() {
        let path = Path::parse("msrp://r1:1/a;tcp  msrp://r2:2/b;tcp msrp://e:3/c;tcp", 8).unwrap();
        assert_eq!(path.view().first_text(), "msrp://r1:1/a;tcp");
        assert_eq!(path.view().last().unwrap().session(), Some("c"));
        assert_eq!(path.view().uris().count(), 3);
        assert_eq!(Path::parse("  ", 8), Err(UriError::Scheme));
        let long = vec!["msrp://r:1/a;tcp"; 300].join(" ");
        assert_eq!(Path::parse(&long, 8), Err(UriError::TooMany));
    }
}
