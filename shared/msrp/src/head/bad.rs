//! A head that is bad in a frame that is whole: why, and what it is answered with.

use base::Fault;
use bytes::Bytes;
use thiserror::Error;

use super::Head;
use crate::Status;

/// Why a head is bad although its frame is whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Error)]
pub enum BadReason {
    /// Neither a method nor a status code in the start line.
    #[error("bad start line")]
    Start,
    /// A line without a colon, or a folded one.
    #[error("bad header line")]
    Line,
    /// A line that may stand once stands twice.
    #[error("repeated header")]
    Repeated,
    /// No To-Path or no From-Path.
    #[error("no path")]
    NoPath,
    /// A URI in a path does not parse.
    #[error("bad URI")]
    Uri,
    /// More URIs than the limit.
    #[error("path too long")]
    PathTooLong,
    /// A SEND or REPORT without a Message-ID, or one that is no ident.
    #[error("bad Message-ID")]
    MessageId,
    /// Byte-Range does not parse.
    #[error("bad Byte-Range")]
    ByteRange,
    /// A report header has an unknown value.
    #[error("bad report value")]
    Report,
    /// A REPORT without a Status, or one that does not parse.
    #[error("bad Status")]
    Status,
    /// A body without a Content-Type.
    #[error("no Content-Type")]
    NoContentType,
}

impl BadReason {
    /// Every reason, for metric labels.
    pub const ALL: [BadReason; 11] = [
        BadReason::Start,
        BadReason::Line,
        BadReason::Repeated,
        BadReason::NoPath,
        BadReason::Uri,
        BadReason::PathTooLong,
        BadReason::MessageId,
        BadReason::ByteRange,
        BadReason::Report,
        BadReason::Status,
        BadReason::NoContentType,
    ];

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            BadReason::Start => "start",
            BadReason::Line => "line",
            BadReason::Repeated => "repeated",
            BadReason::NoPath => "no_path",
            BadReason::Uri => "uri",
            BadReason::PathTooLong => "path_too_long",
            BadReason::MessageId => "message_id",
            BadReason::ByteRange => "byte_range",
            BadReason::Report => "report",
            BadReason::Status => "status",
            BadReason::NoContentType => "no_content_type",
        }
    }
}

/// A message whose frame is whole and whose head is bad. The framer skips its body; the connection lives on.
#[derive(Clone, Debug)]
pub struct Bad {
    /// What is wrong.
    pub reason: BadReason,
    /// What could be read; lines after the bad one are missing.
    pub head: Head,
}

impl Bad {
    /// Always [`Fault::Malformed`].
    pub const fn fault(&self) -> Fault {
        Fault::Malformed
    }

    /// The 400 to answer with: `None` for responses and REPORTs, for a SEND that wants no answer, and when no
    /// path back could be read (RFC 4975 §7.2, §10.2).
    pub fn answer(&self) -> Option<Bytes> {
        if self.head.to_path().as_str().is_empty() || self.head.from_path().as_str().is_empty() {
            return None;
        }
        crate::response(&self.head, Status::BAD_REQUEST)
    }
}
