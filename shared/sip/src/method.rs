//! Methods: RFC 3261 §7.1 and the extensions in use, with any other token kept (RFC 4475 §3.1.1.2).

use std::fmt;

/// A request method. Case-sensitive (RFC 3261 §7.1): `invite` is an unknown method.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Method {
    /// RFC 3261 §13.
    Invite,
    /// RFC 3261 §13.2.2.4 and §17.1.1.3.
    Ack,
    /// RFC 3261 §15.
    Bye,
    /// RFC 3261 §9.
    Cancel,
    /// RFC 3261 §10.
    Register,
    /// RFC 3261 §11.
    Options,
    /// RFC 3428.
    Message,
    /// RFC 3515.
    Refer,
    /// RFC 6665.
    Subscribe,
    /// RFC 6665.
    Notify,
    /// RFC 6086.
    Info,
    /// RFC 3262.
    Prack,
    /// RFC 3311.
    Update,
    /// RFC 3903.
    Publish,
    /// An extension method; always a token.
    Other(Box<str>),
}

impl Method {
    /// Every known method in the order of `Allow` lists.
    pub const KNOWN: [Method; 14] = [
        Method::Invite,
        Method::Ack,
        Method::Bye,
        Method::Cancel,
        Method::Register,
        Method::Options,
        Method::Message,
        Method::Refer,
        Method::Subscribe,
        Method::Notify,
        Method::Info,
        Method::Prack,
        Method::Update,
        Method::Publish,
    ];

    /// Reads a method; `None` when it is not a token.
    pub fn parse(bytes: &[u8]) -> Option<Method> {
        Some(match bytes {
            b"INVITE" => Method::Invite,
            b"ACK" => Method::Ack,
            b"BYE" => Method::Bye,
            b"CANCEL" => Method::Cancel,
            b"REGISTER" => Method::Register,
            b"OPTIONS" => Method::Options,
            b"MESSAGE" => Method::Message,
            b"REFER" => Method::Refer,
            b"SUBSCRIBE" => Method::Subscribe,
            b"NOTIFY" => Method::Notify,
            b"INFO" => Method::Info,
            b"PRACK" => Method::Prack,
            b"UPDATE" => Method::Update,
            b"PUBLISH" => Method::Publish,
            other => Method::Other(crate::scan::token_str(other)?.into()),
        })
    }

    /// The token on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Method::Invite => "INVITE",
            Method::Ack => "ACK",
            Method::Bye => "BYE",
            Method::Cancel => "CANCEL",
            Method::Register => "REGISTER",
            Method::Options => "OPTIONS",
            Method::Message => "MESSAGE",
            Method::Refer => "REFER",
            Method::Subscribe => "SUBSCRIBE",
            Method::Notify => "NOTIFY",
            Method::Info => "INFO",
            Method::Prack => "PRACK",
            Method::Update => "UPDATE",
            Method::Publish => "PUBLISH",
            Method::Other(token) => token,
        }
    }

    /// A label from a closed set, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Method::Invite => "invite",
            Method::Ack => "ack",
            Method::Bye => "bye",
            Method::Cancel => "cancel",
            Method::Register => "register",
            Method::Options => "options",
            Method::Message => "message",
            Method::Refer => "refer",
            Method::Subscribe => "subscribe",
            Method::Notify => "notify",
            Method::Info => "info",
            Method::Prack => "prack",
            Method::Update => "update",
            Method::Publish => "publish",
            Method::Other(_) => "other",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_methods_read_back_and_case_matters() {
        for method in Method::KNOWN {
            assert_eq!(Method::parse(method.as_str().as_bytes()), Some(method));
        }
        assert_eq!(Method::parse(b"invite"), Some(Method::Other("invite".into())));
        assert_eq!(Method::parse(b"RE%47IST%45R"), Some(Method::Other("RE%47IST%45R".into())));
        assert_eq!(Method::parse(b"IN VITE"), None);
        assert_eq!(Method::parse(b""), None);
    }
}
