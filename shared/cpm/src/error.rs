//! What can be wrong with a peer's document.

use base::Fault;

/// Why a document was not taken. Holds nothing of the document itself, so it may be logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// A line that is no header: no colon, an empty or illegal name.
    #[error("malformed header line")]
    Header,
    /// A control character, or bytes that are not UTF-8, where text is due (RFC 3862 §3.2).
    #[error("illegal characters")]
    Characters,
    /// A `\` that begins no known escape (RFC 3862 §3.3.2).
    #[error("malformed escape")]
    Escape,
    /// A header name with a prefix that no NS header declared before (RFC 3862 §3.4).
    #[error("undeclared header prefix")]
    Prefix,
    /// A header that must be there is missing; the name says which.
    #[error("missing {0}")]
    Missing(&'static str),
    /// A header or element that may be there once is there twice.
    #[error("repeated {0}")]
    Repeated(&'static str),
    /// An address that is no `[name] <uri>`.
    #[error("malformed address")]
    Address,
    /// A value that is none of those its grammar allows.
    #[error("malformed value of {0}")]
    Value(&'static str),
    /// XML that was not read.
    #[error("XML: {0}")]
    Xml(XmlFault),
    /// A document of another kind than the one asked for.
    #[error("not a {0} document")]
    Kind(&'static str),
    /// More than the configured limit.
    #[error("too large: {0}")]
    TooLarge(&'static str),
}

/// Why XML was not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum XmlFault {
    /// Not well-formed.
    #[error("not well-formed")]
    Syntax,
    /// A document type declaration: never accepted (entity expansion).
    #[error("document type declaration")]
    Dtd,
    /// Not UTF-8.
    #[error("not UTF-8")]
    Utf8,
}

impl Error {
    /// The family of fault (DESIGN §7): what the peer may be told.
    pub const fn fault(self) -> Fault {
        match self {
            Error::Kind(_) => Fault::Unsupported,
            Error::TooLarge(_) => Fault::Refused,
            _ => Fault::Malformed,
        }
    }

    /// The label in metrics: a closed set.
    pub const fn label(self) -> &'static str {
        match self {
            Error::Header => "header",
            Error::Characters => "characters",
            Error::Escape => "escape",
            Error::Prefix => "prefix",
            Error::Missing(_) => "missing",
            Error::Repeated(_) => "repeated",
            Error::Address => "address",
            Error::Value(_) => "value",
            Error::Xml(_) => "xml",
            Error::Kind(_) => "kind",
            Error::TooLarge(_) => "too_large",
        }
    }
}
