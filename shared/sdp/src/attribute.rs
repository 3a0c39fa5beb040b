//! Attributes that several kinds of media line share.

use std::fmt;

/// An attribute that has no type of its own here. The value is trimmed.
#[derive(Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Name, as written.
    pub name: String,
    /// What follows the colon, if there is one.
    pub value: Option<String>,
}

impl Attribute {
    /// `a=name`
    pub fn flag(name: &str) -> Self {
        Attribute { name: name.to_owned(), value: None }
    }

    /// `a=name:value`
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Attribute { name: name.to_owned(), value: Some(value.into()) }
    }
}

/// Values may name subscribers, keys or files.
impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a={}", self.name)
    }
}

/// A b= line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bandwidth {
    /// `AS` (kbit/s), `TIAS`, `RS`, `RR` (bit/s) and others.
    pub kind: String,
    /// The number.
    pub value: u64,
}

impl Bandwidth {
    /// A `b=AS` line.
    pub fn kbps(kbps: u64) -> Self {
        Bandwidth { kind: "AS".to_owned(), value: kbps }
    }
}

/// An a=group line (RFC 5888, RFC 9143).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// `BUNDLE`, `LS` and others.
    pub semantics: String,
    /// The a=mid values.
    pub mids: Vec<String>,
}

/// a=setup (RFC 4145 §4; for MSRP RFC 6135 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Setup {
    /// Will open the connection.
    Active,
    /// Will wait for the connection.
    Passive,
    /// Either.
    ActPass,
    /// Not now.
    HoldConn,
}

impl Setup {
    /// The value on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Setup::Active => "active",
            Setup::Passive => "passive",
            Setup::ActPass => "actpass",
            Setup::HoldConn => "holdconn",
        }
    }

    pub(crate) fn parse(value: &str) -> Option<Setup> {
        [Setup::Active, Setup::Passive, Setup::ActPass, Setup::HoldConn]
            .into_iter()
            .find(|setup| value.eq_ignore_ascii_case(setup.as_str()))
    }
}

/// a=fingerprint (RFC 8122 §5).
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The hash, in capitals: `SHA-256`.
    pub hash: String,
    /// The digest of the certificate.
    pub octets: Vec<u8>,
}

impl Fingerprint {
    /// Of a SHA-256 digest.
    pub fn sha256(digest: [u8; 32]) -> Self {
        Fingerprint { hash: "SHA-256".to_owned(), octets: digest.to_vec() }
    }

    /// Reads the value: a name of a hash, a blank, pairs of hex digits with colons.
    pub fn parse(value: &str) -> Option<Self> {
        let (hash, digits) = value.split_once(' ')?;
        let octet = |pair: &str| {
            let hex = pair.len() == 2 && pair.bytes().all(|c| c.is_ascii_hexdigit());
            hex.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
        };
        let octets: Option<Vec<u8>> = digits.trim().split(':').map(octet).collect();
        let hash = hash.to_ascii_uppercase();
        let octets = octets.filter(|o| !o.is_empty() && o.len() <= 64)?;
        let length = match hash.as_str() {
            "SHA-1" => 20,
            "SHA-224" => 28,
            "SHA-256" => 32,
            "SHA-384" => 48,
            "SHA-512" => 64,
            _ => octets.len(),
        };
        (octets.len() == length).then_some(Fingerprint { hash, octets })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.hash)?;
        for (i, octet) in self.octets.iter().enumerate() {
            write!(f, "{}{octet:02X}", if i == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8122_s5_fingerprints() {
        let text = format!("SHA-256 {}", ["4A"; 32].join(":"));
        let print = Fingerprint::parse(&text.to_lowercase()).unwrap();
        assert_eq!(print, Fingerprint::sha256([0x4a; 32]));
        assert_eq!(print.to_string(), text);
        for bad in ["", "SHA-256", "SHA-256 4A", "SHA-256 4A:AD", "sha-1 +1:22", "x y", "x "] {
            assert_eq!(Fingerprint::parse(bad), None, "{bad}");
        }
    }
}
