//! Session-ID (RFC 7989 §5): one name for a session from end to end, whatever stands between.

use std::fmt;

use super::{BadHeader, Value, own_header};
use crate::params::Params;
use crate::scan::Scan;

/// Octets of a UUID in this form.
const LENGTH: usize = 32;

/// The two ends' UUIDs, seen by the sender of the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionId {
    /// The sender's: 32 lower-case hexadecimal digits.
    pub local: String,
    /// The other end's; all zeros while it is not known. `None` with a peer from before RFC 7989 (RFC 7329).
    pub remote: Option<String>,
}

impl SessionId {
    /// The UUID of an end that is not known (§4.1).
    pub const NIL: &'static str = "00000000000000000000000000000000";

    /// What the other end says of the same session.
    pub fn reversed(&self) -> SessionId {
        let local = self.remote.clone().unwrap_or_else(|| SessionId::NIL.to_owned());
        SessionId { local, remote: Some(self.local.clone()) }
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Value for SessionId {
    fn parse(bytes: &[u8]) -> Result<SessionId, BadHeader> {
        let bad = |what| BadHeader { header: "Session-ID", what };
        let mut scan = Scan::new(bytes);
        scan.blanks();
        let local = scan.token().filter(|uuid| is_uuid(uuid)).ok_or(bad("no UUID"))?.to_owned();
        let params = Params::parse(&mut scan, "Session-ID")?;
        let remote = match params.get("remote") {
            Some(remote) if is_uuid(remote) => Some(remote.to_owned()),
            Some(_) => return Err(bad("remote is no UUID")),
            None => None,
        };
        Ok(SessionId { local, remote })
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.local)?;
        match &self.remote {
            Some(remote) => write!(f, ";remote={remote}"),
            None => Ok(()),
        }
    }
}

own_header!(SessionId = SessionId, "Session-ID");

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ab30317f1a784dc48ff824d0d3715d86";
    const B: &str = "47755a9de7794ba387653f2099600ef2";

    #[test]
    fn rfc7989_s5_both_ends_see_it_from_their_side() {
        let text = format!("{A};remote={B}");
        let id = SessionId::parse(text.as_bytes()).unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.reversed().to_string(), format!("{B};remote={A}"));
        // §4.1: whose end is not known is nil; §11: a peer of RFC 7329 says its own only.
        let alone = SessionId::parse(A.as_bytes()).unwrap();
        assert_eq!((alone.remote.as_deref(), alone.reversed().local.as_str()), (None, SessionId::NIL));
    }

    #[test]
    fn malformed_session_ids() {
        let long = format!("{A}0");
        for text in [
            "",
            "x",
            &A.to_uppercase(),
            &long,
            &format!("{A};remote=x"),
            &format!("{A};remote={long}"),
            &format!("{A};remote"),
        ] {
            assert!(SessionId::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
