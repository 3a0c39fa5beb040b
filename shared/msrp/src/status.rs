//! Status codes of responses and of REPORT (RFC 4975 §10, RFC 4976 §6, RFC 7701 §9).

use std::fmt;

use base::Fault;

/// A three-digit status code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Status(pub u16);

impl Status {
    /// Done.
    pub const OK: Status = Status(200);
    /// Unintelligible.
    pub const BAD_REQUEST: Status = Status(400);
    /// AUTH needs credentials (RFC 4976).
    pub const UNAUTHORIZED: Status = Status(401);
    /// Not allowed.
    pub const FORBIDDEN: Status = Status(403);
    /// No such recipient in the room (RFC 7701 §6.1).
    pub const NOT_FOUND: Status = Status(404);
    /// A downstream transaction timed out.
    pub const TIMEOUT: Status = Status(408);
    /// Stop sending this message.
    pub const STOP: Status = Status(413);
    /// Media type not understood: do not send it again in this session.
    pub const UNSUPPORTED_TYPE: Status = Status(415);
    /// Expires out of range (RFC 4976).
    pub const INTERVAL_OUT_OF_BOUNDS: Status = Status(423);
    /// Nickname malformed (RFC 7701 §7.1).
    pub const NICKNAME_MALFORMED: Status = Status(424);
    /// Nickname reserved or in use (RFC 7701 §7.1).
    pub const NICKNAME_IN_USE: Status = Status(425);
    /// The recipient takes no private messages (RFC 7701 §6.2).
    pub const NO_PRIVATE_MESSAGES: Status = Status(428);
    /// No such session.
    pub const NO_SESSION: Status = Status(481);
    /// Method not understood.
    pub const UNKNOWN_METHOD: Status = Status(501);
    /// The session is bound to another connection.
    pub const OTHER_CONNECTION: Status = Status(506);

    /// True for 2xx.
    pub const fn is_success(self) -> bool {
        self.0 >= 200 && self.0 < 300
    }

    /// True when the whole session is broken by it, not the one message (RFC 4975 §10.5, §10.9, §10.11).
    pub const fn breaks_session(self) -> bool {
        matches!(self, Status::TIMEOUT | Status::NO_SESSION | Status::OTHER_CONNECTION)
    }

    /// The comment that goes with it; empty for codes that have none here.
    pub const fn comment(self) -> &'static str {
        match self {
            Status::OK => "OK",
            Status::BAD_REQUEST => "Bad Request",
            Status::UNAUTHORIZED => "Unauthorized",
            Status::FORBIDDEN => "Forbidden",
            Status::NOT_FOUND => "Recipient Not Found",
            Status::TIMEOUT => "Request Timeout",
            Status::STOP => "Stop Sending Message",
            Status::UNSUPPORTED_TYPE => "Media Type Not Supported",
            Status::INTERVAL_OUT_OF_BOUNDS => "Interval Out Of Bounds",
            Status::NICKNAME_MALFORMED => "Malformed Nickname",
            Status::NICKNAME_IN_USE => "Nickname Reserved Or In Use",
            Status::NO_PRIVATE_MESSAGES => "Private Messages Not Supported",
            Status::NO_SESSION => "Session Does Not Exist",
            Status::UNKNOWN_METHOD => "Unknown Method",
            Status::OTHER_CONNECTION => "Session Already Bound",
            _ => "",
        }
    }

    /// The answer that a family of fault gets where no closer code applies.
    pub const fn of_fault(fault: Fault) -> Status {
        match fault {
            Fault::Malformed => Status::BAD_REQUEST,
            Fault::Misbehaved | Fault::Refused => Status::FORBIDDEN,
            Fault::Unsupported => Status::UNKNOWN_METHOD,
            Fault::Unavailable => Status::TIMEOUT,
        }
    }

    /// Three digits.
    pub(crate) fn parse(text: &[u8]) -> Option<Status> {
        let [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = text else { return None };
        let digit = |octet: &u8| u16::from(octet - b'0');
        Some(Status(digit(a) * 100 + digit(b) * 10 + digit(c)))
    }

    /// The value of a Status header: namespace, code, comment. A namespace other than 000 says nothing that
    /// we know, and gives `Some(None)` (RFC 4975 §7.1.4, §9).
    pub(crate) fn parse_header(value: &[u8]) -> Option<Option<Status>> {
        let mut parts = value.splitn(3, |c| *c == b' ');
        let namespace = Status::parse(parts.next()?)?;
        let code = Status::parse(parts.next()?)?;
        Some((namespace.0 == 0).then_some(code))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4975_s9_status_header() {
        assert_eq!(Status::parse_header(b"000 200 OK"), Some(Some(Status::OK)));
        assert_eq!(Status::parse_header(b"000 408"), Some(Some(Status::TIMEOUT)));
        assert_eq!(Status::parse_header(b"001 200 OK"), Some(None));
        for bad in ["", "000", "200 OK", "000 20 OK", "000 2000", "000  200", "-00 200"] {
            assert_eq!(Status::parse_header(bad.as_bytes()), None, "{bad}");
        }
    }
}
