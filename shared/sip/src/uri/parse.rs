//! Reading URIs and writing their parts with escapes (RFC 3261 §19.1.2 and §25.1, RFC 3966 §3).

use std::borrow::Cow;
use std::fmt;

use super::{BadUri, Host, HostPort, Scheme, Uri};
use crate::class;
use crate::params::Params;

/// What may stand in a URI of a scheme that is carried whole: no blank, no bracket that would end it.
pub(super) const fn is_opaque(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"')
}

/// What a tel number may hold (RFC 3966 §3): digits, separators, and `*`, `#`, `A`-`F` of local numbers.
const fn is_number(b: u8) -> bool {
    b.is_ascii_hexdigit() || matches!(b, b'+' | b'-' | b'.' | b'(' | b')' | b'*' | b'#')
}

pub(super) fn uri(bytes: &[u8]) -> Result<Uri, BadUri> {
    let colon = memchr::memchr(b':', bytes).ok_or(BadUri("no scheme"))?;
    let (scheme, rest) = bytes.split_at_checked(colon).ok_or(BadUri("no scheme"))?;
    let rest = rest.get(1..).unwrap_or_default();
    match scheme {
        s if s.eq_ignore_ascii_case(b"sip") => sip(Scheme::Sip, rest),
        s if s.eq_ignore_ascii_case(b"sips") => sip(Scheme::Sips, rest),
        s if s.eq_ignore_ascii_case(b"tel") => tel(rest),
        [first, others @ ..]
            if first.is_ascii_alphabetic()
                && others.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) =>
        {
            if rest.is_empty() || !rest.iter().all(|b| is_opaque(*b)) {
                return Err(BadUri("character that no URI has"));
            }
            let scheme = Scheme::Other(ascii(scheme)?.to_ascii_lowercase().into());
            Ok(Uri { user: Some(ascii(rest)?.to_owned()), ..Uri::bare(scheme) })
        }
        _ => Err(BadUri("scheme is no name")),
    }
}

fn sip(scheme: Scheme, rest: &[u8]) -> Result<Uri, BadUri> {
    let mut uri = Uri::bare(scheme);
    // The user part may hold `;` and `?`, but an `@` only escaped: the first one ends it.
    let after_user = match memchr::memchr(b'@', rest).and_then(|at| rest.split_at_checked(at)) {
        Some((userinfo, host)) => {
            let (user, password) =
                match memchr::memchr(b':', userinfo).and_then(|at| userinfo.split_at_checked(at)) {
                    Some((user, password)) => (user, Some(password.get(1..).unwrap_or_default())),
                    None => (userinfo, None),
                };
            if user.is_empty() {
                return Err(BadUri("empty user"));
            }
            uri.user = Some(escaped(user, class::USER)?);
            uri.password = password.map(|p| escaped(p, class::PASSWORD)).transpose()?;
            host.get(1..).unwrap_or_default()
        }
        None => rest,
    };
    let (before_headers, headers) = split(after_user, b'?');
    let (hostport, params) = split(before_headers, b';');
    let HostPort { host, port } = HostPort::parse(hostport)?;
    (uri.host, uri.port) = (host, port);
    if let Some(params) = params {
        uri.params = params_of(params)?;
    }
    if let Some(headers) = headers {
        for header in headers.split(|b| *b == b'&') {
            let (name, value) = split(header, b'=');
            if name.is_empty() {
                return Err(BadUri("header without a name"));
            }
            uri.headers.push((
                escaped(name, class::HEADER)?,
                escaped(value.unwrap_or_default(), class::HEADER_VALUE)?,
            ));
        }
    }
    Ok(uri)
}

fn tel(rest: &[u8]) -> Result<Uri, BadUri> {
    let (number, params) = split(rest, b';');
    if !number.iter().any(|b| b.is_ascii_hexdigit() || matches!(b, b'*' | b'#'))
        || !number.iter().all(|b| is_number(*b))
    {
        return Err(BadUri("not a telephone number"));
    }
    // RFC 3966 §3: `+` only in front, and then digits and separators only.
    if let [b'+', global @ ..] = number
        && !global.iter().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'(' | b')'))
    {
        return Err(BadUri("not a global telephone number"));
    }
    if number.iter().skip(1).any(|b| *b == b'+') {
        return Err(BadUri("plus inside a telephone number"));
    }
    let mut uri = Uri { user: Some(ascii(number)?.to_owned()), host: Host::None, ..Uri::bare(Scheme::Tel) };
    if let Some(params) = params {
        uri.params = params_of(params)?;
    }
    Ok(uri)
}

fn params_of(bytes: &[u8]) -> Result<Params, BadUri> {
    let mut params = Params::default();
    for param in bytes.split(|b| *b == b';') {
        let (name, value) = split(param, b'=');
        if name.is_empty() {
            return Err(BadUri("parameter without a name"));
        }
        let mut name = Cow::Borrowed(checked(name, class::PARAM)?);
        // RFC 3261 §19.1.4: an escaped character is the character, so `%6C%72` is `lr` (RFC 4475 §3.1.1.3).
        if name.contains('%') {
            let decoded = decode(&name).into_owned();
            if class::all(decoded.as_bytes(), class::UNRESERVED) {
                name = decoded.into();
            }
        }
        let value = value.map(|v| checked(v, class::PARAM_VALUE)).transpose()?;
        // RFC 3261 §19.1.1: a parameter name must not appear more than once. baresip adds `lr` to a route that
        // has it: a flag said twice is still that flag, and it is written once.
        if params.has(&name) {
            let flag = params.iter().any(|(n, v)| v.is_none() && n.eq_ignore_ascii_case(&name));
            if flag && value.is_none() {
                continue;
            }
            return Err(BadUri("parameter stands twice"));
        }
        params.push(&name, value);
    }
    Ok(params)
}

fn split(bytes: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(at, bytes).and_then(|at| bytes.split_at_checked(at)) {
        Some((head, tail)) => (head, tail.get(1..)),
        None => (bytes, None),
    }
}

fn ascii(bytes: &[u8]) -> Result<&str, BadUri> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Ok(text),
        _ => Err(BadUri("not ASCII")),
    }
}

/// The same as a part of its own.
fn escaped(bytes: &[u8], class: u8) -> Result<String, BadUri> {
    checked(bytes, class).map(str::to_owned)
}

/// Text whose octets are all of the class or whole escapes.
fn checked(bytes: &[u8], class: u8) -> Result<&str, BadUri> {
    if !class::all(bytes, class) {
        let mut rest = bytes;
        while let [first, tail @ ..] = rest {
            rest = match (first, tail) {
                (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => tail,
                (b'%', _) => return Err(BadUri("escape without two hexadecimal digits")),
                (b, tail) if class::is(*b, class) => tail,
                _ => return Err(BadUri("character that must be escaped")),
            };
        }
    }
    ascii(bytes)
}

/// Writes a part: octets outside `allowed` are escaped, whole escapes stay.
pub(super) fn write_escaped(
    f: &mut fmt::Formatter<'_>,
    text: &str,
    allowed: impl Fn(u8) -> bool,
) -> fmt::Result {
    use fmt::Write;
    if text.bytes().all(&allowed) {
        return f.write_str(text);
    }
    let bytes = text.as_bytes();
    for (at, b) in bytes.iter().enumerate() {
        let is_escape = || {
            *b == b'%'
                && bytes.get(at + 1).is_some_and(u8::is_ascii_hexdigit)
                && bytes.get(at + 2).is_some_and(u8::is_ascii_hexdigit)
        };
        if allowed(*b) || is_escape() {
            f.write_char(char::from(*b))?;
        } else {
            write!(f, "%{b:02X}")?;
        }
    }
    Ok(())
}

fn escape(text: &str, allowed: impl Fn(u8) -> bool) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if allowed(b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

pub(super) fn escape_user(text: &str) -> String {
    escape(text, |b| class::is(b, class::USER) && b != b'#')
}

pub(super) fn escape_header(text: &str) -> String {
    escape(text, |b| class::is(b, class::HEADER) && b != b'?')
}

/// Takes escapes off.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    String::from_utf8_lossy(&decode_octets(text)).into_owned().into()
}

/// Takes escapes off, octets as they are.
pub(super) fn decode_octets(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        if let (b'%', [high, low, tail @ ..]) = (first, tail)
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            out.push(high << 4 | low);
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}
