//! `name-addr` and `addr-spec` with parameters: From, To, Contact, Route and their kin (RFC 3261 §20.10,
//! §20.20, §20.34, RFC 3325, 3515, 3892, 7044).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BadHeader, Value, header};
use crate::headers::Headers;
use crate::name::Name;
use crate::params::Params;
use crate::scan::{Scan, is_blank, is_token, lossy, quote, trim, unquote};
use crate::uri::Uri;

/// `[display-name] <URI> *(;param)`, or a bare URI with header parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameAddr {
    /// The display name without quotes.
    pub display: Option<String>,
    /// The URI.
    pub uri: Uri,
    /// Parameters of the header, not of the URI.
    pub params: Params,
}

impl NameAddr {
    /// An address without display name and parameters.
    pub fn new(uri: Uri) -> NameAddr {
        NameAddr { display: None, uri, params: Params::default() }
    }

    /// The same with a `tag`.
    pub fn with_tag(mut self, tag: &str) -> NameAddr {
        self.params.set("tag", Some(tag));
        self
    }

    /// The `tag` parameter.
    pub fn tag(&self) -> Option<&str> {
        self.params.get("tag")
    }

    /// The `expires` parameter of a Contact in seconds; a value that is no number counts as 3600
    /// (RFC 3261 §10.2.1.1), one above 2^32-1 as 2^32-1.
    pub fn expires(&self) -> Option<u32> {
        let value = self.params.get("expires")?;
        Some(match crate::scan::digits(value.as_bytes()) {
            Some(seconds) => u32::try_from(seconds).unwrap_or(u32::MAX),
            None if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => u32::MAX,
            None => 3600,
        })
    }

    /// The `q` parameter in thousandths (RFC 3261 §20.10); 1000 without one, as absent means no preference.
    pub fn q_thousandths(&self) -> u16 {
        self.params.get("q").and_then(q_thousandths).unwrap_or(1000)
    }

    /// The `+sip.instance` parameter with its angle brackets and without its quotes (RFC 5626 §4.1).
    pub fn instance(&self) -> Option<String> {
        self.params.text("+sip.instance").map(|v| v.into_owned()).filter(|v| !v.is_empty())
    }

    /// The `reg-id` parameter (RFC 5626 §4.2).
    pub fn reg_id(&self) -> Option<u64> {
        self.params.number("reg-id")
    }

    /// True with a feature tag, with or without a value: `has_feature("isfocus")`.
    pub fn has_feature(&self, tag: &str) -> bool {
        self.params.has(tag)
    }
}

fn q_thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{fraction:0<3}").parse::<u16>().ok()?;
    let q = whole.parse::<u16>().ok()?.checked_mul(1000)?.checked_add(thousandths)?;
    (q <= 1000).then_some(q)
}

const fn bad(what: &'static str) -> BadHeader {
    BadHeader { header: "address", what }
}

impl Value for NameAddr {
    fn parse(bytes: &[u8]) -> Result<NameAddr, BadHeader> {
        let bytes = trim(bytes);
        let mut scan = Scan::new(bytes);
        let display = if scan.peek() == Some(b'"') {
            let quoted = scan.quoted().ok_or(bad("quoted string does not end"))?;
            scan.blanks();
            if scan.peek() != Some(b'<') {
                return Err(bad("display name without an address in angle brackets"));
            }
            Some(unquote(quoted))
        } else if memchr::memchr(b'<', bytes).is_some() {
            // Tokens and blanks; octets above ASCII are tolerated, as real clients send names unquoted.
            let name = scan.take_while(|b| b != b'<').map(trim).unwrap_or_default();
            if !name.iter().all(|b| is_token(*b) || is_blank(*b) || !b.is_ascii()) {
                return Err(bad("display name must be quoted"));
            }
            (!name.is_empty()).then(|| lossy(name))
        } else {
            return addr_spec(scan);
        };
        if !scan.eat(b'<') {
            return Err(bad("no address"));
        }
        let uri = scan.take_while(|b| b != b'>').unwrap_or_default();
        if !scan.eat(b'>') {
            return Err(bad("angle bracket is not closed"));
        }
        let uri = Uri::parse(uri).map_err(|e| bad(e.0))?;
        Ok(NameAddr { display, uri, params: Params::parse(&mut scan, "address")? })
    }
}

/// A URI without angle brackets: what follows `;` belongs to the header, and a `?` or `,` must not stand in
/// it (RFC 3261 §20, RFC 4475 §3.1.2.13).
fn addr_spec(mut scan: Scan<'_>) -> Result<NameAddr, BadHeader> {
    let uri = scan.take_while(|b| b != b';' && !is_blank(b)).ok_or(bad("no address"))?;
    if memchr::memchr2(b'?', b',', uri).is_some() {
        return Err(bad("URI must stand in angle brackets"));
    }
    let uri = Uri::parse(uri).map_err(|e| bad(e.0))?;
    Ok(NameAddr { display: None, uri, params: Params::parse(&mut scan, "address")? })
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(display) = &self.display {
            write!(f, "{} ", quote(display))?;
        }
        write!(f, "<{}>{}", self.uri, self.params)
    }
}

impl std::str::FromStr for NameAddr {
    type Err = BadHeader;
    fn from_str(text: &str) -> Result<NameAddr, BadHeader> {
        NameAddr::parse(text.as_bytes())
    }
}

impl Serialize for NameAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NameAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NameAddr, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

header! {
    /// RFC 3261 §20.20.
    From(NameAddr) = From, "From"
}
header! {
    /// RFC 3261 §20.39.
    To(NameAddr) = To, "To"
}
header! {
    /// RFC 3261 §20.10. A `*` does not read as one: see [`Contacts`].
    Contact(NameAddr) = Contact, "Contact"
}
header! {
    /// RFC 3261 §20.34.
    Route(NameAddr) = Route, "Route"
}
header! {
    /// RFC 3261 §20.30.
    RecordRoute(NameAddr) = RecordRoute, "Record-Route"
}
header! {
    /// RFC 3327.
    Path(NameAddr) = Path, "Path"
}
header! {
    /// RFC 3608.
    ServiceRoute(NameAddr) = ServiceRoute, "Service-Route"
}
header! {
    /// RFC 3325 §9.1. Believe it from trusted peers only.
    PAssertedIdentity(NameAddr) = PAssertedIdentity, "P-Asserted-Identity"
}
header! {
    /// RFC 3325 §9.2.
    PPreferredIdentity(NameAddr) = PPreferredIdentity, "P-Preferred-Identity"
}
header! {
    /// RFC 7315 §4.1.
    PAssociatedUri(NameAddr) = PAssociatedUri, "P-Associated-URI"
}
header! {
    /// RFC 5502.
    PServedUser(NameAddr) = PServedUser, "P-Served-User"
}
header! {
    /// RFC 3515 §2.1.
    ReferTo(NameAddr) = ReferTo, "Refer-To"
}
header! {
    /// RFC 3892 §3.
    ReferredBy(NameAddr) = ReferredBy, "Referred-By"
}
header! {
    /// RFC 3261 §20.31.
    ReplyTo(NameAddr) = ReplyTo, "Reply-To"
}
header! {
    /// RFC 7044 §5.
    HistoryInfo(NameAddr) = HistoryInfo, "History-Info"
}

/// The Contact headers of a REGISTER (RFC 3261 §10.2.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contacts {
    /// `*`: all of them, and it stands alone.
    All,
    /// The addresses; none when the header is missing.
    Some(Vec<NameAddr>),
}

impl Contacts {
    /// Reads the Contact headers of a message.
    pub fn of(headers: &Headers) -> Result<Contacts, BadHeader> {
        let mut values = headers.values(&Name::Contact);
        if values.any(|v| v == b"*") {
            if headers.values(&Name::Contact).count() > 1 {
                return Err(BadHeader { header: "Contact", what: "* does not stand alone" });
            }
            return Ok(Contacts::All);
        }
        let all = headers.all::<Contact>()?;
        Ok(Contacts::Some(all.into_iter().map(|c| c.0).collect()))
    }
}
