//! What a trace shows of people: of a number its last two digits, of a name nothing.

use sip::{Scheme, Uri};

/// Digits in a row that are a number for all we know.
const NUMBER_MIN: usize = 7;
/// What shows the last two digits has at least so many characters.
const TAIL_MIN: usize = 6;

/// How names and numbers are shown.
#[derive(Debug)]
pub(super) struct Mask {
    on: bool,
    /// User parts that are nobody's: the conference factory.
    open: Vec<String>,
}

impl Mask {
    pub(super) fn new(on: bool, open: Vec<String>) -> Mask {
        Mask { on, open }
    }

    /// The user part of an address, or a number.
    pub(super) fn user(&self, user: &str) -> String {
        let bare = user.split([';', ':']).next().unwrap_or_default();
        // An ad-hoc group's name is drawn by us and says nothing of anybody.
        if !self.on || bare.starts_with("grp-") || self.open.iter().any(|open| open == bare) {
            return bare.to_owned();
        }
        if bare.chars().count() < TAIL_MIN {
            return "***".to_owned();
        }
        let mut last: Vec<char> = bare.chars().rev().take(2).collect();
        last.reverse();
        if !last.iter().all(char::is_ascii_digit) {
            return "***".to_owned();
        }
        format!("***{}", last.into_iter().collect::<String>())
    }

    /// An address, without parameters.
    pub(super) fn uri(&self, uri: &Uri) -> String {
        let scheme = uri.scheme.as_str();
        let user = uri.user.as_deref().map(|user| self.user(user));
        match (&uri.scheme, user) {
            (Scheme::Sip | Scheme::Sips, Some(user)) => format!("{scheme}:{user}@{}", uri.host),
            (Scheme::Sip | Scheme::Sips, None) => format!("{scheme}:{}", uri.host),
            (_, user) => format!("{scheme}:{}", user.unwrap_or_default()),
        }
    }

    /// Words of a peer (a phrase, a warning, a body): addresses and numbers in them are masked.
    pub(super) fn text(&self, text: &str) -> String {
        if !self.on {
            return text.to_owned();
        }
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(c) = rest.chars().next() {
            let taken = self.address(rest, &mut out).or_else(|| number(rest, &mut out));
            let octets = taken.unwrap_or_else(|| {
                out.push(c);
                c.len_utf8()
            });
            rest = rest.get(octets..).unwrap_or_default();
        }
        out
    }

    /// A URI at the beginning: how many octets of it were taken.
    fn address(&self, text: &str, out: &mut String) -> Option<usize> {
        let schemes = ["sips:", "sip:", "tel:", "im:", "pres:", "mailto:"];
        let scheme = schemes.iter().find(|scheme| {
            text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })?;
        let rest = text.get(scheme.len()..)?;
        let ends = |c: char| c.is_whitespace() || "<>\"',;?@".contains(c);
        let user = rest.get(..rest.find(ends).unwrap_or(rest.len()))?;
        let named = rest.get(user.len()..).is_some_and(|after| after.starts_with('@'));
        if user.is_empty() || !(named || scheme.starts_with("tel")) {
            return None;
        }
        out.push_str(text.get(..scheme.len())?);
        out.push_str(&self.user(user));
        Some(scheme.len() + user.len())
    }
}

/// A run of digits at the beginning that is long enough for a number: how many octets of it were taken.
fn number(text: &str, out: &mut String) -> Option<usize> {
    let plus = usize::from(text.starts_with('+'));
    let rest = text.get(plus..)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let least = if plus == 1 { TAIL_MIN - 1 } else { NUMBER_MIN };
    if digits < least {
        // All of them, or the end of a long run would look like a short one.
        let whole = text.get(..plus + digits).filter(|whole| !whole.is_empty())?;
        out.push_str(whole);
        return Some(whole.len());
    }
    out.push_str("***");
    out.push_str(rest.get(digits - 2..digits)?);
    Some(plus + digits)
}
