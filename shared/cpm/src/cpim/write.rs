//! Writes CPIM messages.

use base::UnixTime;
use bytes::Bytes;

use super::{Address, CORE, CPM, IMDN};

/// Builds a message: core headers first, then those of other namespaces, each namespace declared before its
/// first use.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    message: Vec<u8>,
    content: Vec<u8>,
    declared: Vec<(String, String)>,
}

impl Builder {
    /// A message from one to another.
    pub fn new(from: &Address<'_>, to: &Address<'_>) -> Self {
        Builder::default().address("From", from).address("To", to)
    }

    /// Both ends anonymous, as one-to-one chat does (CPM-FACTS §2.4).
    pub fn anonymous() -> Self {
        let nobody = Address::uri(crate::address::ANONYMOUS);
        Builder::new(&nobody, &nobody)
    }

    /// `From`, `To` or `cc`.
    pub fn address(mut self, name: &str, address: &Address<'_>) -> Self {
        self.message.extend_from_slice(name.as_bytes());
        self.message.extend_from_slice(b": ");
        push_address(&mut self.message, address);
        self.message.extend_from_slice(b"\r\n");
        self
    }

    /// When the message was sent (RFC 3862 §4.4).
    pub fn date_time(self, at: UnixTime) -> Self {
        self.header(CORE, "", "DateTime", &at.to_string())
    }

    /// A disposition header (RFC 5438 §6), e.g. `Message-ID`.
    pub fn imdn(self, name: &str, value: &str) -> Self {
        self.header(IMDN, "imdn", name, value)
    }

    /// Says what the body is, for networks that cannot look into it.
    pub fn payload_type(self, media_type: &str) -> Self {
        self.header(CPM, "cpm", "Payload-Type", media_type)
    }

    /// Any header; `prefix` is bound to `namespace` when it is not yet, and ignored for the core namespace.
    /// Names are the caller's constants; values are escaped.
    pub fn header(mut self, namespace: &str, prefix: &str, name: &str, value: &str) -> Self {
        if namespace != CORE {
            let known = self.declared.iter().any(|(p, n)| p == prefix && n == namespace);
            if !known {
                self.line(&["NS: ", prefix, " <", namespace, ">"]);
                self.declared.push((prefix.to_owned(), namespace.to_owned()));
            }
            self.message.extend_from_slice(prefix.as_bytes());
            self.message.push(b'.');
        }
        let value = escape(value);
        self.line(&[name, ": ", &value]);
        self
    }

    /// A MIME header of the body. Control characters in the value are dropped: nothing can add a line.
    pub fn mime(mut self, name: &str, value: &str) -> Self {
        self.content.extend_from_slice(name.as_bytes());
        self.content.extend_from_slice(b": ");
        self.content.extend(value.bytes().filter(|b| !b.is_ascii_control()));
        self.content.extend_from_slice(b"\r\n");
        self
    }

    /// The whole message: headers, Content-Type, Content-Length and the body.
    pub fn build(self, content_type: &str, body: &[u8]) -> Bytes {
        let mut out =
            self.mime("Content-Type", content_type).mime("Content-Length", &body.len().to_string()).head();
        out.extend_from_slice(body);
        Bytes::from(out)
    }

    /// Only the headers with both empty lines, for a body that is sent behind it.
    pub fn head(mut self) -> Vec<u8> {
        self.message.extend_from_slice(b"\r\n");
        self.message.append(&mut self.content);
        self.message.extend_from_slice(b"\r\n");
        self.message
    }

    fn line(&mut self, parts: &[&str]) {
        for part in parts {
            self.message.extend_from_slice(part.as_bytes());
        }
        self.message.extend_from_slice(b"\r\n");
    }
}

pub(super) fn push_address(out: &mut Vec<u8>, address: &Address<'_>) {
    if !address.name.is_empty() {
        out.push(b'"');
        out.extend_from_slice(escape(&address.name).replace('"', "\\\"").as_bytes());
        out.extend_from_slice(b"\" ");
    }
    out.push(b'<');
    // Nothing in a URI may end it early or add a header.
    out.extend(
        address
            .uri
            .chars()
            .filter(|c| !c.is_control() && !matches!(c, '<' | '>' | ' ' | '"' | '\\'))
            .flat_map(|c| {
                let mut buffer = [0; 4];
                c.encode_utf8(&mut buffer).as_bytes().to_vec()
            }),
    );
    out.push(b'>');
}

/// Escapes control characters and the backslash (RFC 3862 §3.3.2).
pub fn escape(value: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out
}
