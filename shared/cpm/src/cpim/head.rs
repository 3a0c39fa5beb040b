//! The view of a CPIM message's headers.
//!
//! ```text
//!            bytes so far                      verdict
//! ─────────────────────────────────────────────────────────────
//!  no empty line yet, below the limit   ->   Progress::More
//!  no empty line yet, at the limit      ->   TooLarge (413 in MSRP)
//!  both empty lines                     ->   Progress::Done(Head), body from head.body_offset()
//! ```

use std::ops::Range;

use arrayvec::ArrayVec;

use super::header::Line;
use super::{Address, CORE, Header};
use crate::{Error, Limits};

/// NS headers of one message.
const NAMESPACES_MAX: usize = 16;

/// Headers that a security decision hangs on: a default namespace that would hide them is refused.
const GUARDED: [&str; 3] = ["From", "To", "cc"];

/// How far the bytes of a first chunk reach.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Both header parts are there.
    Done(Head<'a>),
    /// More bytes are needed; ask again with all of them.
    More,
}

/// The headers of a CPIM message, checked whole. A view: it borrows the bytes and allocates nothing.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// CPIM headers, each line with its CRLF.
    message: &'a str,
    /// MIME headers of the body, each line with its CRLF.
    content: &'a str,
    body_offset: usize,
}

impl std::fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head").field("body_offset", &self.body_offset).finish_non_exhaustive()
    }
}

impl<'a> Head<'a> {
    /// Reads the headers at the beginning of a message, as far as it has come.
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Progress<'a>, Error> {
        let window = bytes.get(..limits.cpim_head_octets_max).unwrap_or(bytes);
        let Some((message_end, content_start)) = empty_line(window, 0) else {
            return short(bytes, limits);
        };
        let Some((content_end, body_offset)) = empty_line(window, content_start) else {
            return short(bytes, limits);
        };
        let text = |range: Range<usize>| {
            let part = window.get(range).unwrap_or_default();
            std::str::from_utf8(part).map_err(|_| Error::Characters)
        };
        let head =
            Head { message: text(0..message_end)?, content: text(content_start..content_end)?, body_offset };
        head.check(limits)?;
        Ok(Progress::Done(head))
    }

    /// Reads a message that is there as a whole, e.g. the body of a MESSAGE.
    pub fn parse_whole(bytes: &'a [u8], limits: &Limits) -> Result<Head<'a>, Error> {
        match Head::parse(bytes, limits)? {
            Progress::Done(head) => Ok(head),
            Progress::More => Err(Error::Missing("empty line")),
        }
    }

    /// Where the body begins, counted from the first CPIM header.
    pub fn body_offset(&self) -> usize {
        self.body_offset
    }

    /// The CPIM headers in order, prefixes resolved; NS headers are left out.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> {
        Headers { rest: self.message, namespaces: Namespaces::default() }
            .filter_map(Result::ok)
            .map(|(h, _)| h)
    }

    /// The first header of this name in this namespace.
    pub fn header(&self, namespace: &str, name: &str) -> Option<Header<'a>> {
        self.headers().find(|h| h.is(namespace, name))
    }

    /// The sender (RFC 3862 §4.1). Never more than one.
    pub fn from(&self) -> Result<Address<'a>, Error> {
        let header = self.header(CORE, "From").ok_or(Error::Missing("From"))?;
        Address::parse(header.raw)
    }

    /// The recipients: every address of every To header (RFC 3862 §4.2).
    pub fn to(&self) -> impl Iterator<Item = Result<Address<'a>, Error>> {
        self.headers().filter(|h| h.is(CORE, "To")).flat_map(|h| addresses(h.raw)).map(Address::parse)
    }

    /// The only recipient. A room takes exactly one (RFC 7701 §6.1).
    pub fn only_to(&self) -> Result<Address<'a>, Error> {
        let mut all = self.to();
        let first = all.next().ok_or(Error::Missing("To"))??;
        if all.next().is_some() { Err(Error::Repeated("To")) } else { Ok(first) }
    }

    /// When it was sent, as written (RFC 3862 §4.4).
    pub fn date_time(&self) -> Option<&'a str> {
        self.header(CORE, "DateTime").map(|h| h.raw)
    }

    /// A MIME header of the body; the name compares without regard to case. Folded values keep their folds.
    pub fn mime(&self, name: &str) -> Option<&'a str> {
        mime_fields(self.content)
            .filter_map(|field| field.split_once(':'))
            .find_map(|(n, value)| n.trim_end().eq_ignore_ascii_case(name).then(|| value.trim()))
    }

    /// The type of the body; text/plain when nothing says (RFC 2045 §5.2).
    pub fn content_type(&self) -> &'a str {
        self.mime("Content-Type").unwrap_or("text/plain")
    }

    /// The octets of the whole line of the From header, CRLF included.
    pub fn from_line(&self) -> Option<Range<usize>> {
        let headers = Headers { rest: self.message, namespaces: Namespaces::default() };
        let (_, line) = headers.filter_map(Result::ok).find(|(h, _)| h.is(CORE, "From"))?;
        let start = self.message.len() - line.0;
        Some(start..start + line.1)
    }

    /// The header part anew with another sender, for a participant who is anonymous to the others
    /// (CPM-FACTS §2.15). The body follows unchanged from [`Head::body_offset`] on.
    pub fn with_from(&self, bytes: &[u8], sender: &Address<'_>) -> Result<Vec<u8>, Error> {
        let line = self.from_line().ok_or(Error::Missing("From"))?;
        let (before, after) = (bytes.get(..line.start), bytes.get(line.end..self.body_offset));
        let (Some(before), Some(after)) = (before, after) else { return Err(Error::Missing("From")) };
        // The prefix under which the header stood stays, whatever it was bound to.
        let old = bytes.get(line).unwrap_or_default();
        let name = old.split(|b| *b == b':').next().unwrap_or_default();
        let mut out = Vec::with_capacity(self.body_offset + 64);
        out.extend_from_slice(before);
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        super::write::push_address(&mut out, sender);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(after);
        Ok(out)
    }

    /// Every line once: syntax, prefixes, counts; what later lookups rely on.
    fn check(&self, limits: &Limits) -> Result<(), Error> {
        let (mut count, mut senders) = (0, 0);
        for header in (Headers { rest: self.message, namespaces: Namespaces::default() }) {
            let (header, _) = header?;
            count += 1;
            if count > limits.cpim_headers_max {
                return Err(Error::TooLarge("CPIM headers"));
            }
            if header.is(CORE, "From") {
                senders += 1;
            } else if header.namespace != CORE && GUARDED.contains(&header.name) && header.params.is_empty() {
                // Another namespace's "From" would be taken for the real one by readers that know no NS.
                return Err(Error::Repeated("From, To or cc"));
            }
        }
        if senders > 1 {
            return Err(Error::Repeated("From"));
        }
        if mime_fields(self.content).count() > limits.cpim_headers_max {
            return Err(Error::TooLarge("MIME headers"));
        }
        let headed = |field: &str| field.split_once(':').is_some_and(|(name, _)| !name.trim().is_empty());
        if mime_fields(self.content).all(headed) { Ok(()) } else { Err(Error::Header) }
    }
}

fn short<'a>(bytes: &[u8], limits: &Limits) -> Result<Progress<'a>, Error> {
    if bytes.len() < limits.cpim_head_octets_max {
        Ok(Progress::More)
    } else {
        Err(Error::TooLarge("CPIM head"))
    }
}

/// The empty line that ends a block which begins at `from`: (end of the block, where the next begins).
/// A block may be empty: then the empty line is its first.
fn empty_line(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let block = bytes.get(from..)?;
    if block.starts_with(b"\r\n") {
        return Some((from, from + 2));
    }
    block.windows(4).position(|w| w == b"\r\n\r\n").map(|at| (from + at + 2, from + at + 4))
}

/// The values of a comma list of addresses: commas inside `<>` and quotes do not count.
fn addresses(raw: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut enclosed) = (false, false);
    raw.split(move |c| {
        match c {
            '"' if !enclosed => quoted = !quoted,
            '<' if !quoted => enclosed = true,
            '>' if !quoted => enclosed = false,
            ',' if !quoted && !enclosed => return true,
            _ => {}
        }
        false
    })
}

/// MIME fields: a line that begins with a blank belongs to the one before (RFC 5322 §2.2.3).
fn mime_fields(content: &str) -> impl Iterator<Item = &str> {
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        loop {
            let tail = rest.get(end..).unwrap_or_default();
            end += tail.find("\r\n").map_or(tail.len(), |at| at + 2);
            match rest.as_bytes().get(end) {
                Some(b' ' | b'\t') => {}
                _ => break,
            }
        }
        let (field, tail) = rest.split_at_checked(end)?;
        rest = tail;
        Some(field)
    })
}

/// Prefixes in force, and the default namespace (RFC 3862 §3.4). `None` is the default's key.
#[derive(Default)]
struct Namespaces<'a> {
    bound: ArrayVec<(Option<&'a str>, &'a str), NAMESPACES_MAX>,
}

impl<'a> Namespaces<'a> {
    /// `NS: prefix <urn>` binds, or binds anew; `NS: <urn>` changes the default.
    fn declare(&mut self, raw: &'a str) -> Result<(), Error> {
        let (prefix, urn) = raw.split_once('<').ok_or(Error::Value("NS"))?;
        let urn = urn.strip_suffix('>').filter(|u| !u.is_empty()).ok_or(Error::Value("NS"))?;
        let prefix = Some(prefix.trim_matches(' ')).filter(|p| !p.is_empty());
        if let Some(slot) = self.bound.iter_mut().find(|(p, _)| *p == prefix) {
            slot.1 = urn;
            return Ok(());
        }
        self.bound.try_push((prefix, urn)).map_err(|_| Error::TooLarge("NS headers"))
    }

    fn resolve(&self, prefix: Option<&'a str>) -> Result<&'a str, Error> {
        match (self.bound.iter().find(|(p, _)| *p == prefix), prefix) {
            (Some((_, urn)), _) => Ok(urn),
            (None, None) => Ok(CORE),
            (None, Some(_)) => Err(Error::Prefix),
        }
    }
}

/// Walks the lines; yields each header with (octets from its line to the end of the block, octets of the line).
struct Headers<'a> {
    rest: &'a str,
    namespaces: Namespaces<'a>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<(Header<'a>, (usize, usize)), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let place = self.rest.len();
            let (line, rest) = self.rest.split_once("\r\n").unwrap_or((self.rest, ""));
            self.rest = rest;
            match self.header(line) {
                Ok(None) => {}
                Ok(Some(header)) => return Some(Ok((header, (place, place - rest.len())))),
                Err(error) => {
                    self.rest = "";
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl<'a> Headers<'a> {
    /// `None` for a namespace declaration.
    fn header(&mut self, line: &'a str) -> Result<Option<Header<'a>>, Error> {
        let line = Line::cut(line)?;
        // NS keeps its meaning whatever the default namespace is, or nobody could ever change it back.
        if line.prefix.is_none() && line.name == "NS" {
            self.namespaces.declare(line.raw)?;
            return Ok(None);
        }
        let namespace = self.namespaces.resolve(line.prefix)?;
        Ok(Some(Header { namespace, name: line.name, params: line.params, raw: line.raw }))
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
