//! Who an address means: `tel:` URIs and `sip:+E164@domain;user=phone` of one subscriber give one [`UserId`]
//! (CPM-FACTS §2.2 "identity facts"; RFC 3966 §5, RFC 3261 §19.1.4).
//!
//! Aliases that only a provider's tables know are resolved at the edge, not here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The address of one who wants to stay unnamed, also the room in RCS group chats.
pub const ANONYMOUS: &str = "sip:anonymous@anonymous.invalid";

/// Octets of an address that is still looked at.
pub const OCTETS_MAX: usize = 1024;

/// One subscriber, whichever way he is addressed: the key of rows and lanes. It is subscriber data: `Debug`
/// shows nothing of it.
///
/// Its text is itself a URI: `tel:+15550100001`, `tel:5555;phone-context=example.com` or
/// `sip:alice@example.com`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(String);

impl UserId {
    /// The subscriber whom a `tel:`, `sip:` or `sips:` URI addresses; angle brackets and a display name
    /// around it do no harm.
    pub fn parse(address: &str) -> Result<Self, Error> {
        let uri = uri_of(address);
        if uri.len() > OCTETS_MAX {
            return Err(Error::TooLarge("address"));
        }
        let (scheme, rest) = uri.split_once(':').ok_or(Error::Address)?;
        let key = match scheme.to_ascii_lowercase().as_str() {
            "tel" => telephone(rest, None),
            "sip" | "sips" => sip(rest),
            _ => None,
        };
        key.map(UserId).ok_or(Error::Address)
    }

    /// The URI that stands for the subscriber.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for a key by telephone number.
    pub fn is_telephone(&self) -> bool {
        self.0.starts_with("tel:")
    }

    /// The domain of a `sip:` key.
    pub fn domain(&self) -> Option<&str> {
        self.0.strip_prefix("sip:")?.rsplit_once('@').map(|(_, host)| host)
    }

    /// True for [`ANONYMOUS`] and other addresses under `anonymous.invalid` (RFC 3323 §4.1.1.3).
    pub fn is_anonymous(&self) -> bool {
        self.domain() == Some("anonymous.invalid")
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserId(***)")
    }
}

impl TryFrom<String> for UserId {
    type Error = Error;
    fn try_from(value: String) -> Result<Self, Error> {
        UserId::parse(&value)
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> String {
        id.0
    }
}

/// The URI within `"name" <uri>;params`, or the text itself when nothing encloses it.
pub fn uri_of(address: &str) -> &str {
    let text = address.trim();
    // A '<' inside a quoted display name is not the one that opens the URI (RFC 3261 §25.1).
    let after_name = match text.strip_prefix('"') {
        Some(quoted) => end_of_quoted(quoted),
        None => text,
    };
    match after_name.split_once('<') {
        Some((_, inner)) => inner.split_once('>').map_or(inner, |(uri, _)| uri).trim(),
        None => text,
    }
}

/// True when the address says that its owner stays unnamed.
pub fn is_anonymous(address: &str) -> bool {
    UserId::parse(address).is_ok_and(|id| id.is_anonymous())
}

/// What follows the closing quote of a quoted-string whose opening quote is gone.
fn end_of_quoted(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return text.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

/// RFC 3966 §5: visual separators do not count; a local number means something only in its context.
fn telephone(rest: &str, domain: Option<&str>) -> Option<String> {
    let mut parts = rest.split(';');
    let number = parts.next()?;
    let digits = digits(number)?;
    if digits.starts_with('+') {
        return Some(format!("tel:{digits}"));
    }
    let context = parts
        .filter_map(|p| p.split_once('='))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("phone-context").then_some(value));
    let context = match context.or(domain)? {
        global if global.starts_with('+') => self::digits(global)?,
        name => host(name)?,
    };
    Some(format!("tel:{digits};phone-context={context}"))
}

/// RFC 3261 §19.1.6: `sip:<telephone-subscriber>@host;user=phone` means the number. A user part that is a
/// global number means it also without `user=phone`, as RCS clients write it.
fn sip(rest: &str) -> Option<String> {
    let rest = rest.split('?').next()?;
    let (user, hostport) = match rest.split_once('@') {
        Some((user, tail)) => (Some(user), tail),
        None => (None, rest),
    };
    let mut params = hostport.split(';');
    let host = host(strip_port(params.next()?).trim_end_matches('.'))?;
    let Some(user) = user else { return Some(format!("sip:{host}")) };
    let user = unescape(user)?;
    let phone = params.any(|p| p.eq_ignore_ascii_case("user=phone"));
    if (phone || user.starts_with('+'))
        && let Some(key) = telephone(&user, Some(&host))
    {
        return Some(key);
    }
    // A password is no part of who is meant.
    let name = user.split(':').next()?;
    let legal =
        !name.is_empty() && !name.chars().any(|c| c.is_control() || matches!(c, ' ' | '<' | '>' | '"'));
    legal.then(|| format!("sip:{}@{host}", escape(name)))
}

fn digits(number: &str) -> Option<String> {
    let (plus, rest) = match number.strip_prefix('+') {
        Some(rest) => ("+", rest),
        None => ("", number),
    };
    let mut out = String::with_capacity(number.len());
    out.push_str(plus);
    for c in rest.chars() {
        match c {
            '0'..='9' => out.push(c),
            '-' | '.' | '(' | ')' => {}
            // Local numbers may hold more than digits (RFC 3966 §3).
            'a'..='f' | 'A'..='F' | '*' | '#' if plus.is_empty() => out.push(c.to_ascii_lowercase()),
            _ => return None,
        }
    }
    (out.len() > plus.len()).then_some(out)
}

fn strip_port(hostport: &str) -> &str {
    match hostport.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => hostport,
    }
}

fn host(host: &str) -> Option<String> {
    let legal = match host.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']')?;
            !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
        }
        None => host
            .split('.')
            .all(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))),
    };
    legal.then(|| host.to_ascii_lowercase())
}

fn unescape(user: &str) -> Option<String> {
    let mut out = Vec::with_capacity(user.len());
    let mut bytes = user.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// One spelling for one user part: whatever the grammar lets stand unescaped stands so.
fn escape(user: &str) -> String {
    use fmt::Write;
    user.bytes().fold(String::with_capacity(user.len()), |mut out, b| {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(b)),
            b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => out.push(char::from(b)),
            b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/' => out.push(char::from(b)),
            other => _ = write!(out, "%{other:02X}"),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(address: &str) -> String {
        UserId::parse(address).unwrap().into()
    }

    // CPM-FACTS §2.2: both spellings normalise to one subscriber key.
    #[test]
    fn the_spellings_of_one_number_are_one_subscriber() {
        for spelling in [
            "tel:+15550100001",
            "TEL:+1-555-010-0001",
            "tel:+1(555)010.0001;ext=3",
            "sip:+15550100001@ims.example.com;user=phone",
            "sip:+15550100001@ims.example.com",
            "sips:+1-555-0100001@other.example:5061;user=phone;transport=tls",
            "sip:%2B15550100001@ims.example.com;user=phone",
            "sip:+15550100001;npdi@ims.example.com;user=phone",
            "\"A <b>\" <tel:+15550100001>;tag=1",
        ] {
            assert_eq!(key(spelling), "tel:+15550100001", "{spelling}");
        }
    }

    #[test]
    fn local_numbers_live_in_their_context() {
        assert_eq!(key("tel:5550;phone-context=Example.com"), "tel:5550;phone-context=example.com");
        assert_eq!(key("tel:5550;phone-context=+1-555"), "tel:5550;phone-context=+1555");
        assert_eq!(key("sip:5550@example.com;user=phone"), "tel:5550;phone-context=example.com");
        assert!(UserId::parse("tel:5550").is_err());
    }

    // RFC 3261 §19.1.4: the user part is case-sensitive, the host is not; parameters name no one.
    #[test]
    fn sip_addresses_keep_the_case_of_the_user_only() {
        assert_eq!(key("sip:Alice:secret@EXAMPLE.com:5060;gr=urn:uuid:1?Subject=x"), "sip:Alice@example.com");
        assert_ne!(key("sip:alice@example.com"), key("sip:Alice@example.com"));
        assert_eq!(key("sip:%61lice@example.com"), "sip:alice@example.com");
        assert_eq!(key("sip:bob@[2001:DB8::1]:5060"), "sip:bob@[2001:db8::1]");
        assert_eq!(key("sip:grp@example.com;user=phone"), "sip:grp@example.com");
    }

    #[test]
    fn anonymous_is_known() {
        assert!(is_anonymous("<sip:anonymous@anonymous.invalid>"));
        assert!(is_anonymous("\"Anonymous 3\" <sip:anonymous-3@Anonymous.Invalid>"));
        assert!(!is_anonymous("sip:anonymous@example.com"));
        assert_eq!(format!("{:?}", UserId::parse(ANONYMOUS).unwrap()), "UserId(***)");
    }

    #[test]
    fn what_is_no_address_is_none() {
        for bad in [
            "",
            "alice",
            "http://example.com",
            "tel:",
            "tel:+",
            "sip:@x",
            "sip:a b@c",
            "sip:%zz@c",
            "sip:a@c d",
        ] {
            assert!(UserId::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm_and_keys_are_stable(text in "(sip:|tel:|<sip:|)[ -~]{0,40}") {
            if let Ok(id) = UserId::parse(&text) {
                prop_assert_eq!(UserId::parse(id.as_str()), Ok(id));
            }
        }
    }
}
