//! The headers of digest authentication (RFC 3261 §20.6, §20.7, §20.27, §20.28, §20.44; RFC 7616 §3.5).

use std::fmt;

use super::Algorithm;
use crate::scan::{Scan, lossy, quote, unquote};
use crate::typed::{BadHeader, Value, header, own_header};

/// `name=value` pairs after a scheme. Values are without quotes.
fn pairs(scan: &mut Scan<'_>, header: &'static str) -> Result<Vec<(String, String)>, BadHeader> {
    let bad = |what| BadHeader { header, what };
    let mut pairs = Vec::new();
    loop {
        scan.blanks();
        let name = scan.token().ok_or(bad("parameter without a name"))?.to_ascii_lowercase();
        if !scan.eat_spaced(b'=') {
            return Err(bad("parameter without a value"));
        }
        let value = match scan.peek() {
            Some(b'"') => unquote(scan.quoted().ok_or(bad("quoted string does not end"))?),
            _ => lossy(scan.take_while(|b| b != b',' && !crate::scan::is_blank(b)).unwrap_or_default()),
        };
        // RFC 7616 §3.3: no parameter more than once.
        if pairs.iter().any(|(known, _)| *known == name) {
            return Err(bad("parameter stands twice"));
        }
        pairs.push((name, value));
        if !scan.eat_spaced(b',') {
            break;
        }
    }
    scan.blanks();
    if scan.is_done() { Ok(pairs) } else { Err(bad("text after the parameters")) }
}

fn digest_pairs(bytes: &[u8], header: &'static str) -> Result<Vec<(String, String)>, BadHeader> {
    let mut scan = Scan::new(bytes);
    scan.blanks();
    if !scan.token().is_some_and(|scheme| scheme.eq_ignore_ascii_case("Digest")) || !scan.blanks() {
        return Err(BadHeader { header, what: "scheme is not Digest" });
    }
    pairs(&mut scan, header)
}

fn take(pairs: &mut Vec<(String, String)>, name: &str) -> Option<String> {
    let at = pairs.iter().position(|(n, _)| n == name)?;
    Some(pairs.remove(at).1)
}

/// What a server demands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    /// The realm.
    pub realm: String,
    /// The nonce.
    pub nonce: String,
    /// The algorithm as written; MD5 when it is missing.
    pub algorithm: Option<String>,
    /// The qop values offered.
    pub qop: Vec<String>,
    /// The nonce was too old, the password right.
    pub stale: bool,
    /// To be given back.
    pub opaque: Option<String>,
}

impl Challenge {
    /// The algorithm, when it is supported.
    pub fn known_algorithm(&self) -> Option<Algorithm> {
        self.algorithm.as_deref().map_or(Some(Algorithm::Md5), Algorithm::parse)
    }
}

impl Value for Challenge {
    fn parse(bytes: &[u8]) -> Result<Challenge, BadHeader> {
        let bad = |what| BadHeader { header: "challenge", what };
        let mut pairs = digest_pairs(bytes, "challenge")?;
        let qop = take(&mut pairs, "qop").unwrap_or_default();
        Ok(Challenge {
            realm: take(&mut pairs, "realm").ok_or(bad("no realm"))?,
            nonce: take(&mut pairs, "nonce").ok_or(bad("no nonce"))?,
            algorithm: take(&mut pairs, "algorithm"),
            qop: qop.split(',').map(|q| q.trim().to_owned()).filter(|q| !q.is_empty()).collect(),
            stale: take(&mut pairs, "stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
            opaque: take(&mut pairs, "opaque"),
        })
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest realm={}, nonce={}", quote(&self.realm), quote(&self.nonce))?;
        if let Some(algorithm) = &self.algorithm {
            write!(f, ", algorithm={algorithm}")?;
        }
        if !self.qop.is_empty() {
            write!(f, ", qop={}", quote(&self.qop.join(",")))?;
        }
        if self.stale {
            f.write_str(", stale=true")?;
        }
        match &self.opaque {
            Some(opaque) => write!(f, ", opaque={}", quote(opaque)),
            None => Ok(()),
        }
    }
}

/// What a client shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The realm.
    pub realm: String,
    /// The nonce; empty in the first REGISTER of an IMS client, which only tells its name.
    pub nonce: String,
    /// The digest-uri.
    pub uri: String,
    /// The response.
    pub response: String,
    /// The algorithm as written; MD5 when it is missing.
    pub algorithm: Option<String>,
    /// The client's nonce.
    pub cnonce: Option<String>,
    /// As given.
    pub opaque: Option<String>,
    /// The qop taken.
    pub qop: Option<String>,
    /// The count as written: eight hexadecimal digits.
    pub nc: Option<String>,
}

impl Credentials {
    /// The algorithm, when it is supported.
    pub fn known_algorithm(&self) -> Option<Algorithm> {
        self.algorithm.as_deref().map_or(Some(Algorithm::Md5), Algorithm::parse)
    }

    /// The count as a number.
    pub fn count(&self) -> Option<u32> {
        let nc = self.nc.as_deref()?;
        u32::from_str_radix(nc, 16).ok().filter(|_| nc.len() == 8 && !nc.starts_with('+'))
    }
}

impl Value for Credentials {
    fn parse(bytes: &[u8]) -> Result<Credentials, BadHeader> {
        let bad = |what| BadHeader { header: "credentials", what };
        let mut pairs = digest_pairs(bytes, "credentials")?;
        Ok(Credentials {
            username: take(&mut pairs, "username").ok_or(bad("no username"))?,
            realm: take(&mut pairs, "realm").ok_or(bad("no realm"))?,
            nonce: take(&mut pairs, "nonce").ok_or(bad("no nonce"))?,
            uri: take(&mut pairs, "uri").ok_or(bad("no uri"))?,
            response: take(&mut pairs, "response").ok_or(bad("no response"))?,
            algorithm: take(&mut pairs, "algorithm"),
            cnonce: take(&mut pairs, "cnonce"),
            opaque: take(&mut pairs, "opaque"),
            qop: take(&mut pairs, "qop"),
            nc: take(&mut pairs, "nc"),
        })
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Digest username={}, realm={}, nonce={}, uri={}, response={}",
            quote(&self.username),
            quote(&self.realm),
            quote(&self.nonce),
            quote(&self.uri),
            quote(&self.response)
        )?;
        if let Some(algorithm) = &self.algorithm {
            write!(f, ", algorithm={algorithm}")?;
        }
        if let Some(cnonce) = &self.cnonce {
            write!(f, ", cnonce={}", quote(cnonce))?;
        }
        if let Some(opaque) = &self.opaque {
            write!(f, ", opaque={}", quote(opaque))?;
        }
        if let Some(qop) = &self.qop {
            write!(f, ", qop={qop}")?;
        }
        match &self.nc {
            Some(nc) => write!(f, ", nc={nc}"),
            None => Ok(()),
        }
    }
}

header! {
    /// RFC 3261 §20.7. Other schemes than Digest do not read as one.
    Authorization(Credentials) = Authorization, "Authorization"
}
header! {
    /// RFC 3261 §20.28.
    ProxyAuthorization(Credentials) = ProxyAuthorization, "Proxy-Authorization"
}
header! {
    /// RFC 3261 §20.44.
    WwwAuthenticate(Challenge) = WwwAuthenticate, "WWW-Authenticate"
}
header! {
    /// RFC 3261 §20.27.
    ProxyAuthenticate(Challenge) = ProxyAuthenticate, "Proxy-Authenticate"
}

/// What a server tells after success (RFC 7616 §3.5): it knows the password too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuthenticationInfo {
    /// The nonce to use next.
    pub nextnonce: Option<String>,
    /// The qop.
    pub qop: Option<String>,
    /// The server's response.
    pub rspauth: Option<String>,
    /// The client's nonce.
    pub cnonce: Option<String>,
    /// The count.
    pub nc: Option<String>,
}

impl Value for AuthenticationInfo {
    fn parse(bytes: &[u8]) -> Result<AuthenticationInfo, BadHeader> {
        let mut pairs = pairs(&mut Scan::new(bytes), "Authentication-Info")?;
        Ok(AuthenticationInfo {
            nextnonce: take(&mut pairs, "nextnonce"),
            qop: take(&mut pairs, "qop"),
            rspauth: take(&mut pairs, "rspauth"),
            cnonce: take(&mut pairs, "cnonce"),
            nc: take(&mut pairs, "nc"),
        })
    }
}

impl fmt::Display for AuthenticationInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |v: &Option<String>| v.as_deref().map(quote);
        let parts = [
            ("nextnonce", quoted(&self.nextnonce)),
            ("qop", self.qop.clone()),
            ("rspauth", quoted(&self.rspauth)),
            ("cnonce", quoted(&self.cnonce)),
            ("nc", self.nc.clone()),
        ];
        let mut comma = "";
        for (name, value) in parts.iter().filter_map(|(n, v)| v.as_ref().map(|v| (n, v))) {
            write!(f, "{comma}{name}={value}")?;
            comma = ", ";
        }
        Ok(())
    }
}

own_header!(AuthenticationInfo = AuthenticationInfo, "Authentication-Info");
