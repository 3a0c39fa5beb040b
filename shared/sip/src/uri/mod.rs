//! URIs: sip and sips (RFC 3261 §19), tel (RFC 3966), and others kept whole so that they can be refused with
//! 416 or carried (RFC 4475 §3.3.2 to §3.3.4).

mod compare;
mod host;
mod parse;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use host::{Host, HostPort};

use crate::class;
use crate::params::Params;
use crate::peer::Transport;

/// A URI scheme.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// Any other, in lower case.
    Other(Box<str>),
}

impl Scheme {
    /// The name before the colon.
    pub fn as_str(&self) -> &str {
        match self {
            Scheme::Sip => "sip",
            Scheme::Sips => "sips",
            Scheme::Tel => "tel",
            Scheme::Other(name) => name,
        }
    }
}

/// A URI in its parts. The parts hold the wire form (escapes in place); [`Uri::user_decoded`] takes them off.
///
/// `==` compares part by part; [`Uri::equivalent`] follows RFC 3261 §19.1.4 and RFC 3966 §5.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Uri {
    /// The scheme.
    pub scheme: Scheme,
    /// User part of sip and sips; the number of a tel URI as written, `+` and separators included;
    /// everything after the colon for other schemes.
    pub user: Option<String>,
    /// Password, which RFC 3261 §19.1.1 advises against.
    pub password: Option<String>,
    /// Host; `Host::None` for tel and other schemes.
    pub host: Host,
    /// Port, when one is written.
    pub port: Option<u16>,
    /// Parameters after `;`.
    pub params: Params,
    /// Header fields after `?`, in wire form.
    pub headers: Vec<(String, String)>,
}

/// A URI that does not parse: says what is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed URI: {0}")]
pub struct BadUri(pub &'static str);

impl Uri {
    fn bare(scheme: Scheme) -> Uri {
        Uri {
            scheme,
            user: None,
            password: None,
            host: Host::None,
            port: None,
            params: Params::default(),
            headers: Vec::new(),
        }
    }

    /// Reads a URI. Strict about hosts, ports and escapes, since routing and identity hang on them.
    pub fn parse(bytes: &[u8]) -> Result<Uri, BadUri> {
        parse::uri(bytes)
    }

    /// `sip:user@host`; the user is escaped as needed.
    pub fn sip(user: &str, host: &str) -> Uri {
        let (host, port) = match HostPort::parse(host.as_bytes()) {
            Ok(hp) => (hp.host, hp.port),
            Err(_) => (Host::Name(host.into()), None),
        };
        let user = (!user.is_empty()).then(|| parse::escape_user(user));
        Uri { user, host, port, ..Uri::bare(Scheme::Sip) }
    }

    /// `tel:number`.
    pub fn tel(number: &str) -> Uri {
        Uri { user: Some(number.to_owned()), ..Uri::bare(Scheme::Tel) }
    }

    /// `sip:anonymous@anonymous.invalid` (RFC 3323 §4.1.1.3).
    pub fn anonymous() -> Uri {
        Uri::sip("anonymous", "anonymous.invalid")
    }

    /// True for sip and sips.
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// True for `sips:`.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::Sips
    }

    /// The user part with escapes taken off; octets that are not UTF-8 become U+FFFD.
    pub fn user_decoded(&self) -> Option<Cow<'_, str>> {
        self.user.as_deref().map(parse::decode)
    }

    /// The `transport` parameter, where it names one that is known.
    pub fn transport(&self) -> Option<Transport> {
        self.params.get("transport").and_then(Transport::parse)
    }

    /// True with the `lr` parameter: a loose router (RFC 3261 §19.1.1).
    pub fn is_loose_router(&self) -> bool {
        self.params.has("lr")
    }

    /// The `gr` parameter (RFC 5627); empty for a temporary GRUU's bare `gr`.
    pub fn gr(&self) -> Option<&str> {
        self.params.get("gr")
    }

    /// Comparison by RFC 3261 §19.1.4 for sip and sips, RFC 3966 §5 for tel, octets for the rest.
    pub fn equivalent(&self, other: &Uri) -> bool {
        compare::equivalent(self, other)
    }

    /// The URI of the resource alone: no parameters (but `user` and `gr` stay), no headers, no password.
    /// Address-of-record lookups use it (RFC 3261 §10.3 step 5).
    pub fn address_of_record(&self) -> Uri {
        let mut aor = self.clone();
        aor.password = None;
        aor.headers.clear();
        if self.scheme != Scheme::Tel {
            aor.params.retain(|name| name.eq_ignore_ascii_case("user"));
        }
        aor
    }

    /// Header fields of the URI, decoded: what a REFER target or a list entry asks to put into the request
    /// (RFC 3261 §19.1.5, CPM `Session-Replaces`).
    pub fn decoded_headers(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.headers.iter().map(|(name, value)| (parse::decode(name), parse::decode(value)))
    }

    /// Removes and returns a header field of the URI, decoded.
    pub fn take_header(&mut self, name: &str) -> Option<String> {
        let at = self.headers.iter().position(|(n, _)| parse::decode(n).eq_ignore_ascii_case(name))?;
        let (_, value) = self.headers.remove(at);
        Some(parse::decode(&value).into_owned())
    }

    /// Adds a header field, escaped as needed.
    pub fn add_header(&mut self, name: &str, value: &str) {
        self.headers.push((parse::escape_header(name), parse::escape_header(value)));
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme.as_str())?;
        if let Some(user) = &self.user {
            match self.scheme {
                Scheme::Sip | Scheme::Sips => parse::write_escaped(f, user, |b| class::is(b, class::USER))?,
                _ => parse::write_escaped(f, user, parse::is_opaque)?,
            }
            if let Some(password) = &self.password {
                f.write_str(":")?;
                parse::write_escaped(f, password, |b| class::is(b, class::PASSWORD))?;
            }
            if self.is_sip() {
                f.write_str("@")?;
            }
        }
        write!(f, "{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        for (name, value) in self.params.iter() {
            f.write_str(";")?;
            parse::write_escaped(f, name, |b| class::is(b, class::PARAM))?;
            if let Some(value) = value {
                f.write_str("=")?;
                parse::write_escaped(f, value, |b| class::is(b, class::PARAM_VALUE))?;
            }
        }
        for (at, (name, value)) in self.headers.iter().enumerate() {
            f.write_str(if at == 0 { "?" } else { "&" })?;
            parse::write_escaped(f, name, |b| class::is(b, class::HEADER))?;
            f.write_str("=")?;
            parse::write_escaped(f, value, |b| class::is(b, class::HEADER_VALUE))?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Uri {
    type Err = BadUri;
    fn from_str(text: &str) -> Result<Uri, BadUri> {
        Uri::parse(text.as_bytes())
    }
}

impl Serialize for Uri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uri {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
