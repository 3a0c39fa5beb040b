//! What can be wrong with a session description, and what SIP says about it.

use base::Fault;
use thiserror::Error;

/// Why a description was not taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Error)]
pub enum SdpError {
    /// More octets than the limit.
    #[error("description too long")]
    TooLong,
    /// More lines than the limit.
    #[error("too many lines")]
    TooManyLines,
    /// More media lines than the limit.
    #[error("too many media lines")]
    TooManyMedia,
    /// More formats in a media line than the limit.
    #[error("too many formats")]
    TooManyFormats,
    /// A line that is no line of a description, or lines that must not repeat.
    #[error("bad line")]
    Line,
    /// No o= line, or one that does not parse.
    #[error("bad o= line")]
    Origin,
    /// A c= line that does not parse.
    #[error("bad c= line")]
    Connection,
    /// An m= line that does not parse.
    #[error("bad m= line")]
    Media,
    /// A known attribute with a value that does not parse.
    #[error("bad attribute")]
    Attribute,
    /// A media line that is used and has no address.
    #[error("no address")]
    NoAddress,
    /// A message line without what RFC 4975 §8 demands.
    #[error("message line without path or accept-types")]
    NoPath,
    /// An answer, or a later offer, whose lines do not fit those before (RFC 3264 §6, §8).
    #[error("lines do not match the offer")]
    Mismatch,
    /// An answer that accepts a line with a format that was not offered.
    #[error("format not offered")]
    FormatNotOffered,
    /// No line of the offer can be accepted.
    #[error("nothing acceptable")]
    NothingAcceptable,
}

impl SdpError {
    /// Every reason, for metric labels.
    pub const ALL: [SdpError; 14] = [
        SdpError::TooLong,
        SdpError::TooManyLines,
        SdpError::TooManyMedia,
        SdpError::TooManyFormats,
        SdpError::Line,
        SdpError::Origin,
        SdpError::Connection,
        SdpError::Media,
        SdpError::Attribute,
        SdpError::NoAddress,
        SdpError::NoPath,
        SdpError::Mismatch,
        SdpError::FormatNotOffered,
        SdpError::NothingAcceptable,
    ];

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            SdpError::TooLong => "too_long",
            SdpError::TooManyLines => "too_many_lines",
            SdpError::TooManyMedia => "too_many_media",
            SdpError::TooManyFormats => "too_many_formats",
            SdpError::Line => "line",
            SdpError::Origin => "origin",
            SdpError::Connection => "connection",
            SdpError::Media => "media",
            SdpError::Attribute => "attribute",
            SdpError::NoAddress => "no_address",
            SdpError::NoPath => "no_path",
            SdpError::Mismatch => "mismatch",
            SdpError::FormatNotOffered => "format_not_offered",
            SdpError::NothingAcceptable => "nothing_acceptable",
        }
    }

    /// The family of fault.
    pub const fn fault(self) -> Fault {
        match self {
            SdpError::TooLong
            | SdpError::TooManyLines
            | SdpError::TooManyMedia
            | SdpError::TooManyFormats => Fault::Refused,
            SdpError::Line
            | SdpError::Origin
            | SdpError::Connection
            | SdpError::Media
            | SdpError::Attribute
            | SdpError::NoAddress
            | SdpError::NoPath => Fault::Malformed,
            SdpError::Mismatch | SdpError::FormatNotOffered => Fault::Misbehaved,
            SdpError::NothingAcceptable => Fault::Unsupported,
        }
    }

    /// The SIP status that refuses a request with such a description: 488 for what cannot be used as it is
    /// (RFC 3261 §21.4.26), 400 for one that is legal by itself and illegal in this dialog.
    pub const fn sip_status(self) -> u16 {
        match self.fault() {
            Fault::Malformed | Fault::Unsupported | Fault::Refused => 488,
            Fault::Misbehaved => 400,
            Fault::Unavailable => 500,
        }
    }
}
