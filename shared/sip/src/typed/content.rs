//! Content-Type, media ranges of Accept, Content-Disposition (RFC 3261 §20.1, §20.11, §20.15).

use std::fmt;

use super::{BadHeader, Value, header, own_header};
use crate::params::Params;
use crate::scan::Scan;

/// `type/subtype` with parameters; `*` is allowed, for Accept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaType {
    /// Type in lower case.
    pub kind: String,
    /// Subtype in lower case.
    pub subtype: String,
    /// Parameters.
    pub params: Params,
}

impl MediaType {
    /// Without parameters.
    pub fn new(kind: &str, subtype: &str) -> MediaType {
        MediaType { kind: kind.into(), subtype: subtype.into(), params: Params::default() }
    }

    /// True for this type: `is("message/cpim")`.
    pub fn is(&self, essence: &str) -> bool {
        essence
            .split_once('/')
            .is_some_and(|(k, s)| k.eq_ignore_ascii_case(&self.kind) && s.eq_ignore_ascii_case(&self.subtype))
    }

    /// `type/subtype` without parameters.
    pub fn essence(&self) -> String {
        format!("{}/{}", self.kind, self.subtype)
    }

    /// True when this media range of an Accept covers the type.
    pub fn covers(&self, other: &MediaType) -> bool {
        (self.kind == "*" || self.kind == other.kind)
            && (self.subtype == "*" || self.subtype == other.subtype)
    }

    /// The `boundary` of a multipart type.
    pub fn boundary(&self) -> Option<String> {
        self.params.text("boundary").map(|b| b.into_owned()).filter(|b| !b.is_empty())
    }
}

impl Value for MediaType {
    fn parse(bytes: &[u8]) -> Result<MediaType, BadHeader> {
        let bad = |what| BadHeader { header: "media type", what };
        let mut scan = Scan::new(bytes);
        scan.blanks();
        let kind = scan.token().ok_or(bad("no type"))?;
        if !scan.eat_spaced(b'/') {
            return Err(bad("no subtype"));
        }
        let subtype = scan.token().ok_or(bad("no subtype"))?;
        Ok(MediaType {
            kind: kind.to_ascii_lowercase(),
            subtype: subtype.to_ascii_lowercase(),
            params: Params::parse(&mut scan, "media type")?,
        })
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.kind, self.subtype, self.params)
    }
}

header! {
    /// What the body is.
    ContentType(MediaType) = ContentType, "Content-Type"
}

/// How the body is to be understood: `session`, `recipient-list`, `notification` ... with parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContentDisposition {
    /// The disposition type in lower case.
    pub kind: String,
    /// `handling` and others.
    pub params: Params,
}

impl ContentDisposition {
    /// Without `handling=optional` a body that is not understood must be refused (RFC 3261 §20.11).
    pub fn is_optional(&self) -> bool {
        self.params.get("handling").is_some_and(|h| h.eq_ignore_ascii_case("optional"))
    }
}

impl Value for ContentDisposition {
    fn parse(bytes: &[u8]) -> Result<ContentDisposition, BadHeader> {
        let mut scan = Scan::new(bytes);
        scan.blanks();
        let kind = scan.token().ok_or(BadHeader { header: "Content-Disposition", what: "no type" })?;
        let kind = kind.to_ascii_lowercase();
        Ok(ContentDisposition { kind, params: Params::parse(&mut scan, "Content-Disposition")? })
    }
}

impl fmt::Display for ContentDisposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind, self.params)
    }
}

own_header!(ContentDisposition = ContentDisposition, "Content-Disposition");
