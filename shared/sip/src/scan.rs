//! Lexing after RFC 3261 §25.1: tokens, white space, quoted strings, comma lists. Folds are blanks already
//! (see `frame`), so white space here is SP and HT.

use crate::class;

/// `token` characters.
#[inline]
pub(crate) fn is_token(b: u8) -> bool {
    class::is(b, class::TOKEN)
}

/// SP or HT.
#[inline]
pub(crate) const fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// The bytes as text when they are a token.
pub(crate) fn token_str(bytes: &[u8]) -> Option<&str> {
    if bytes.is_empty() || !class::all(bytes, class::TOKEN) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// Without white space at both ends.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

/// Digits only, and no more than fit: `1*DIGIT` read into 64 bits. A sign, a blank, a digit that is not
/// ASCII or an overflow gives `None`.
pub(crate) fn digits(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0u64, |n, b| {
        if !b.is_ascii_digit() {
            return None;
        }
        n.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    })
}

/// Text of octets that ought to be UTF-8; what is not becomes U+FFFD. The header itself keeps the octets.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A reader over one header value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Scan { rest: bytes }
    }

    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) const fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Takes `b` if it is next.
    #[inline]
    pub(crate) fn eat(&mut self, b: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == b => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// `LWS b LWS`, as SLASH, SEMI, EQUAL and COMMA are defined.
    #[inline]
    pub(crate) fn eat_spaced(&mut self, b: u8) -> bool {
        let before = *self;
        self.blanks();
        if self.eat(b) {
            self.blanks();
            return true;
        }
        *self = before;
        false
    }

    /// Skips white space; says whether there was any.
    #[inline]
    pub(crate) fn blanks(&mut self) -> bool {
        let before = self.rest.len();
        while let [first, rest @ ..] = self.rest
            && is_blank(*first)
        {
            self.rest = rest;
        }
        self.rest.len() < before
    }

    /// Takes the longest run of matching octets, if there is one.
    #[inline]
    pub(crate) fn take_while(&mut self, matches: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|b| !matches(*b)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        (!run.is_empty()).then_some(run)
    }

    /// Takes a token as text.
    #[inline]
    pub(crate) fn token(&mut self) -> Option<&'a str> {
        self.take_while(is_token).and_then(|run| std::str::from_utf8(run).ok())
    }

    /// Takes a quoted string with its quotes; `None` (and nothing taken) when it does not end.
    pub(crate) fn quoted(&mut self) -> Option<&'a [u8]> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let mut at = 1;
        loop {
            match self.rest.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        let (quoted, rest) = self.rest.split_at_checked(at + 1)?;
        self.rest = rest;
        Some(quoted)
    }
}

/// The text of a quoted string, with its quotes given, escapes removed; a line end in it (a fold, RFC 3261
/// §7.3.1) is a blank.
pub(crate) fn unquote(quoted: &[u8]) -> String {
    let inner = match quoted {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    };
    if !inner.iter().any(|b| matches!(b, b'\\' | b'\r' | b'\n')) {
        return lossy(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut escaped = false;
    for b in inner {
        if *b == b'\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            out.push(if matches!(b, b'\r' | b'\n') { b' ' } else { *b });
        }
    }
    lossy(&out)
}

/// A quoted string of the text: quotes, backslashes and NUL (which only a quoted-pair may carry, RFC 3261
/// §25.1) escaped, line ends made blanks.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' | '\0' => {
                out.push('\\');
                out.push(c);
            }
            '\r' | '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Splits at commas that stand outside quoted strings and angle brackets. Empty elements are yielded, so
/// that a typed reader can refuse them (RFC 4475 §3.1.2.1).
#[derive(Clone, Debug)]
pub(crate) struct Commas<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Commas<'a> {
    pub(crate) const fn new(value: &'a [u8]) -> Self {
        Commas { rest: Some(value) }
    }

    pub(crate) const fn none() -> Self {
        Commas { rest: None }
    }
}

impl<'a> Iterator for Commas<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let value = self.rest?;
        if memchr::memchr(b',', value).is_none() {
            self.rest = None;
            return Some(trim(value));
        }
        let (mut quoted, mut escaped, mut angle) = (false, false, false);
        let comma = value.iter().position(|b| {
            match b {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' if !angle => quoted = !quoted,
                b'<' if !quoted => angle = true,
                b'>' if !quoted => angle = false,
                b',' => return !quoted && !angle,
                _ => {}
            }
            false
        });
        match comma.and_then(|at| Some((value.get(..at)?, value.get(at + 1..)?))) {
            Some((element, rest)) => {
                self.rest = Some(rest);
                Some(trim(element))
            }
            None => {
                self.rest = None;
                Some(trim(value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_respect_quotes_and_brackets() {
        let split = |v: &'static str| {
            Commas::new(v.as_bytes()).map(|e| std::str::from_utf8(e).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(
            split(r#""a, \" b" <sip:x,y@z>;q=1 , <sip:b>"#),
            [r#""a, \" b" <sip:x,y@z>;q=1"#, "<sip:b>"]
        );
        assert_eq!(split("a,,b"), ["a", "", "b"]);
        assert_eq!(split(""), [""]);
    }

    #[test]
    fn a_quoted_text_reads_back_with_nul_and_without_line_ends() {
        let read = unquote(b"\"\\\0a\\\"\r\n b\"");
        assert_eq!(read, "\0a\"   b");
        assert_eq!(unquote(quote(&read).as_bytes()), read);
    }

    #[test]
    fn quoted_strings_end_or_are_none() {
        let mut s = Scan::new(br#""a\"b" rest"#);
        assert_eq!(unquote(s.quoted().unwrap()), "a\"b");
        assert_eq!(s.rest(), b" rest");
        assert!(Scan::new(br#""open\""#).quoted().is_none());
        assert_eq!(quote("a\"\\\r\n"), r#""a\"\\  ""#);
    }

    #[test]
    fn digits_are_ascii_and_fit() {
        assert_eq!(digits(b"0042"), Some(42));
        assert_eq!(digits(b"18446744073709551616"), None);
        for bad in ["", "+1", "-1", " 1", "1 ", "٣", "１"] {
            assert_eq!(digits(bad.as_bytes()), None, "{bad}");
        }
    }
}
