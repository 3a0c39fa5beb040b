//! When two URIs name the same thing: RFC 3261 §19.1.4, RFC 3966 §5.

use super::parse::decode_octets;
use super::{Scheme, Uri};

pub(super) fn equivalent(a: &Uri, b: &Uri) -> bool {
    if a.scheme != b.scheme {
        return false;
    }
    match a.scheme {
        Scheme::Sip | Scheme::Sips => sip(a, b),
        Scheme::Tel => tel(a, b),
        Scheme::Other(_) => a.user == b.user,
    }
}

fn octets(part: Option<&str>) -> Option<Vec<u8>> {
    part.map(decode_octets)
}

fn sip(a: &Uri, b: &Uri) -> bool {
    octets(a.user.as_deref()) == octets(b.user.as_deref())
        && octets(a.password.as_deref()) == octets(b.password.as_deref())
        && a.host == b.host
        && a.port == b.port
        && params_match(a, b)
        && params_match(b, a)
        && headers_match(a, b)
}

/// A parameter in both must match; `user`, `ttl`, `method` and `maddr` must then be in both or in none.
fn params_match(a: &Uri, b: &Uri) -> bool {
    a.params.iter().all(|(name, value)| {
        if !b.params.has(name) {
            return !["user", "ttl", "method", "maddr"].iter().any(|m| name.eq_ignore_ascii_case(m));
        }
        let mine = decode_octets(value.unwrap_or_default());
        let theirs = decode_octets(b.params.get(name).unwrap_or_default());
        mine.eq_ignore_ascii_case(&theirs)
    })
}

/// Header components are never ignored; their order is.
fn headers_match(a: &Uri, b: &Uri) -> bool {
    let sorted = |uri: &Uri| {
        let mut all: Vec<_> = uri
            .headers
            .iter()
            .map(|(n, v)| (decode_octets(n).to_ascii_lowercase(), decode_octets(v)))
            .collect();
        all.sort();
        all
    };
    a.headers.len() == b.headers.len() && sorted(a) == sorted(b)
}

fn tel(a: &Uri, b: &Uri) -> bool {
    let number = |uri: &Uri| {
        let user = uri.user.as_deref().unwrap_or_default();
        let global = user.starts_with('+');
        (global, plain(user))
    };
    // Parameters: same set in any order, values without case; a phone-context that is a number and `isub`,
    // `ext` without visual separators (RFC 3966 §5).
    let params = |uri: &Uri| {
        let mut all: Vec<_> = uri
            .params
            .iter()
            .map(|(name, value)| {
                let (name, value) =
                    (name.to_ascii_lowercase(), value.unwrap_or_default().to_ascii_lowercase());
                let bare =
                    name == "ext" || name == "isub" || (name == "phone-context" && value.starts_with('+'));
                (name, if bare { plain(&value) } else { value })
            })
            .collect();
        all.sort();
        all
    };
    number(a) == number(b) && params(a) == params(b)
}

/// Without visual separators.
fn plain(number: &str) -> String {
    number.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).map(|c| c.to_ascii_lowercase()).collect()
}
