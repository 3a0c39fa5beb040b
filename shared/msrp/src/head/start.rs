//! What the start line opens: a request with its method, or a response with its status (RFC 4975 §9).

use crate::Status;

/// What kind of message a start line opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// A request.
    Request(Method),
    /// A response.
    Response(Status),
}

/// The method of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// RFC 4975 §7.1.
    Send,
    /// RFC 4975 §7.1.2.
    Report,
    /// RFC 4976 §5.
    Auth,
    /// RFC 7701 §7.
    Nickname,
    /// Any other; its name is [`super::Head::method_name`].
    Other,
}

impl Method {
    /// The name on the wire; empty for [`Method::Other`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Send => "SEND",
            Method::Report => "REPORT",
            Method::Auth => "AUTH",
            Method::Nickname => "NICKNAME",
            Method::Other => "",
        }
    }

    /// From the word of a start line.
    pub(super) fn of(word: &[u8]) -> Method {
        match word {
            b"SEND" => Method::Send,
            b"REPORT" => Method::Report,
            b"AUTH" => Method::Auth,
            b"NICKNAME" => Method::Nickname,
            _ => Method::Other,
        }
    }
}
