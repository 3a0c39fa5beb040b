//! Header fields in order, as an index over the bytes that arrived. Nothing is copied or interpreted until
//! someone asks. Fields added later live in a small arena beside.
//!
//! The index is one vector of 16-byte entries: one allocation for a message, and a message stays small
//! enough to be moved through queues.

use std::fmt;
use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};

use crate::name::{self, Name};
use crate::scan::{Commas, trim};
use crate::typed::{BadHeader, Header, Value};

/// Where one field stands. Offsets into `raw` or, if `own`, into the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name_at: u32,
    pub(crate) at: u32,
    pub(crate) len: u32,
    pub(crate) name_len: u16,
    pub(crate) tag: u8,
    pub(crate) own: bool,
}

/// The header fields of a message.
#[derive(Clone, Default)]
pub struct Headers {
    raw: Bytes,
    own: Vec<u8>,
    fields: Vec<Field>,
}

impl Headers {
    /// No fields.
    pub fn new() -> Headers {
        Headers::default()
    }

    pub(crate) fn indexed(raw: Bytes, fields: Vec<Field>) -> Headers {
        Headers { raw, own: Vec::new(), fields }
    }

    pub(crate) fn raw(&self) -> &Bytes {
        &self.raw
    }

    fn slice(&self, own: bool, at: u32, len: usize) -> &[u8] {
        let source: &[u8] = if own { &self.own } else { &self.raw };
        let at = at as usize;
        source.get(at..at + len).unwrap_or_default()
    }

    fn value_of(&self, field: &Field) -> &[u8] {
        self.slice(field.own, field.at, field.len as usize)
    }

    /// The name as it is written out: known ones in the long form, others as they came.
    fn name_of(&self, field: &Field) -> &str {
        match name::text_of(field.tag) {
            Some(text) => text,
            None => {
                let bytes = self.slice(field.own, field.name_at, usize::from(field.name_len));
                std::str::from_utf8(bytes).unwrap_or_default()
            }
        }
    }

    #[inline]
    fn is(&self, field: &Field, name: &Name) -> bool {
        field.tag == name.tag()
            && (field.tag != name::OTHER || self.name_of(field).eq_ignore_ascii_case(name.as_str()))
    }

    /// The whole value of the first field of that name: no split, octets as they came (folds are blanks).
    pub fn first(&self, name: &Name) -> Option<&[u8]> {
        self.fields(name).next()
    }

    /// The same as text; `None` also when it is not UTF-8.
    pub fn text(&self, name: &Name) -> Option<&str> {
        self.first(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The whole values of all fields of that name.
    pub fn fields<'a>(&'a self, name: &Name) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let name = name.clone();
        self.fields.iter().filter(move |f| self.is(f, &name)).map(|f| self.value_of(f))
    }

    /// The values of all fields of that name; of comma lists the elements (RFC 3261 §7.3.1).
    pub fn values<'a>(&'a self, name: &Name) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let list = name.is_list();
        self.fields(name).flat_map(move |value| {
            let (elements, whole) = match list {
                true if value.is_empty() => (Commas::none(), None),
                true => (Commas::new(value), None),
                false => (Commas::none(), Some(value)),
            };
            elements.chain(whole)
        })
    }

    /// The list elements that are text: option tags, methods, event packages.
    pub fn tokens<'a>(&'a self, name: &Name) -> impl Iterator<Item = &'a str> + use<'a> {
        self.values(name).filter_map(|v| std::str::from_utf8(v).ok()).filter(|v| !v.is_empty())
    }

    /// True when the list holds the token, without regard to case: `has_token(&Name::Supported, "timer")`.
    pub fn has_token(&self, name: &Name, token: &str) -> bool {
        self.tokens(name).any(|t| t.eq_ignore_ascii_case(token))
    }

    /// True when there is such a field.
    pub fn has(&self, name: &Name) -> bool {
        self.first(name).is_some()
    }

    /// How many fields of that name there are.
    pub fn count(&self, name: &Name) -> usize {
        self.fields(name).count()
    }

    /// The first value, read as `V`; for headers whose type does not name them: `one::<NameAddr>(&Name::Path)`.
    pub fn one<V: Value>(&self, name: &Name) -> Result<Option<V>, BadHeader> {
        self.values(name).next().map(V::parse).transpose()
    }

    /// Every value, read as `V`.
    pub fn many<V: Value>(&self, name: &Name) -> Result<Vec<V>, BadHeader> {
        self.values(name).map(V::parse).collect()
    }

    /// The first value of `H`: `typed::<CSeq>()`.
    pub fn typed<H: Header>(&self) -> Result<Option<H>, BadHeader> {
        self.one(&H::NAME)
    }

    /// The first value of `H`; an error when there is none.
    pub fn must<H: Header>(&self) -> Result<H, BadHeader> {
        self.typed()?.ok_or(BadHeader { header: H::LABEL, what: "is missing" })
    }

    /// Every value of `H`: `all::<Contact>()`.
    pub fn all<H: Header>(&self) -> Result<Vec<H>, BadHeader> {
        self.many(&H::NAME)
    }

    /// Adds a field at the end. Line ends in the value become blanks, so that no value can smuggle a field.
    pub fn push(&mut self, name: Name, value: impl AsRef<[u8]>) {
        let field = self.store(&name, value.as_ref());
        self.fields.push(field);
    }

    /// Adds a typed value at the end.
    pub fn add<H: Header>(&mut self, value: &H) {
        self.push(H::NAME, value.to_string());
    }

    /// Adds a field in front of all others, as Via and Record-Route want it.
    pub fn prepend(&mut self, name: Name, value: impl AsRef<[u8]>) {
        let field = self.store(&name, value.as_ref());
        self.fields.insert(0, field);
    }

    /// Puts the value in the place of the first field of that name and removes the others; adds it when there
    /// was none.
    pub fn set(&mut self, name: Name, value: impl AsRef<[u8]>) {
        let field = self.store(&name, value.as_ref());
        let Some(at) = self.fields.iter().position(|f| self.is(f, &name)) else {
            self.fields.push(field);
            return;
        };
        self.remove_after(&name, at + 1);
        if let Some(slot) = self.fields.get_mut(at) {
            *slot = field;
        }
    }

    /// Sets a typed value.
    pub fn put<H: Header>(&mut self, value: &H) {
        self.set(H::NAME, value.to_string());
    }

    /// Puts a value in the place of the first field of that name and leaves the others.
    pub fn replace_first(&mut self, name: &Name, value: impl AsRef<[u8]>) {
        let field = self.store(name, value.as_ref());
        if let Some(at) = self.fields.iter().position(|f| self.is(f, name))
            && let Some(slot) = self.fields.get_mut(at)
        {
            *slot = field;
        }
    }

    /// Puts a new first element into the place of the first element of a list header; without one it is
    /// added. The other elements keep their octets.
    pub fn replace_first_value(&mut self, name: &Name, value: &str) {
        let mut elements = self.first(name).map(Commas::new).unwrap_or(Commas::none());
        let had = elements.next().is_some();
        let mut joined = value.as_bytes().to_vec();
        for element in elements {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(element);
        }
        if had { self.replace_first(name, joined) } else { self.push(name.clone(), joined) }
    }

    /// Removes the first element of a list header (the topmost Via, the topmost Route).
    pub fn remove_first_value(&mut self, name: &Name) {
        let Some(at) = self.fields.iter().position(|f| self.is(f, name)) else { return };
        let Some(field) = self.fields.get(at).copied() else { return };
        let rest: Vec<&[u8]> = Commas::new(self.value_of(&field)).skip(1).collect();
        if rest.is_empty() {
            self.fields.remove(at);
            return;
        }
        let rest = rest.join(&b", "[..]);
        self.replace_first(name, rest);
    }

    /// Removes every field of that name; says how many there were.
    pub fn remove(&mut self, name: &Name) -> usize {
        self.remove_after(name, 0)
    }

    fn remove_after(&mut self, name: &Name, from: usize) -> usize {
        let before = self.fields.len();
        let mut fields = std::mem::take(&mut self.fields);
        let mut at = 0;
        fields.retain(|f| {
            at += 1;
            at <= from || !self.is(f, name)
        });
        self.fields = fields;
        before - self.fields.len()
    }

    /// Copies all fields of that name from another message, octets as they are, to the end.
    pub fn copy(&mut self, from: &Headers, name: &Name) {
        if self.raw.is_empty() {
            self.raw = from.raw.clone();
        }
        let shared = self.raw.as_ptr() == from.raw.as_ptr() && self.raw.len() == from.raw.len();
        for field in from.fields.iter().filter(|f| from.is(f, name)) {
            let field = if shared && !field.own { *field } else { self.store(name, from.value_of(field)) };
            self.fields.push(field);
        }
    }

    /// Name and value in order; known names in their long form.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|f| (self.name_of(f), self.value_of(f)))
    }

    /// Name and value in order, the name as a [`Name`].
    pub fn named(&self) -> impl Iterator<Item = (Name, &[u8])> {
        self.fields.iter().map(|f| {
            let name = name::name_of(f.tag).cloned().unwrap_or_else(|| Name::from(self.name_of(f)));
            (name, self.value_of(f))
        })
    }

    /// Which known headers there are, in one pass; or the first that stands twice though it may stand once
    /// only (RFC 4475 §3.3.8).
    pub(crate) fn present(&self) -> Result<Present, &'static Name> {
        let mut present = Present::default();
        for field in &self.fields {
            let Some(name) = name::name_of(field.tag) else { continue };
            if !present.note(field.tag) && name.is_single() {
                return Err(name);
            }
        }
        Ok(present)
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn store(&mut self, name: &Name, value: &[u8]) -> Field {
        let position = |own: &Vec<u8>| u32::try_from(own.len()).unwrap_or(u32::MAX);
        let name_at = position(&self.own);
        let mut name_len = 0;
        if name.tag() == name::OTHER {
            let text = name.as_str().as_bytes();
            name_len = u16::try_from(text.len()).unwrap_or(u16::MAX);
            self.own.extend_from_slice(text);
        }
        let at = position(&self.own);
        let value = trim(value);
        self.own.extend(value.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        Field { name_at, at, len, name_len, tag: name.tag(), own: true }
    }

    /// Bytes that writing takes, about.
    pub(crate) fn write_len(&self) -> usize {
        self.fields.iter().map(|f| self.name_of(f).len() + f.len as usize + 4).sum::<usize>() + 32
    }

    /// Writes all fields but Content-Length, which is written from the body that is there: one length, and
    /// the right one (RFC 3261 §20.14).
    pub(crate) fn write(&self, out: &mut BytesMut, body_len: usize) {
        for field in &self.fields {
            if field.tag == Name::ContentLength.tag() {
                continue;
            }
            out.put_slice(self.name_of(field).as_bytes());
            out.put_slice(b": ");
            out.put_slice(self.value_of(field));
            out.put_slice(b"\r\n");
        }
        // Writing into a growing buffer does not fail.
        let _ = write!(out, "Content-Length: {body_len}\r\n\r\n");
    }
}

/// A set of known header names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Present([u64; 4]);

impl Present {
    /// Adds a tag; says whether it was new.
    fn note(&mut self, tag: u8) -> bool {
        let bit = 1u64 << (tag % 64);
        let Some(word) = self.0.get_mut(usize::from(tag / 64)) else { return true };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// True when the header is there.
    pub(crate) fn has(&self, name: &Name) -> bool {
        let tag = name.tag();
        self.0.get(usize::from(tag / 64)).is_some_and(|word| word & (1u64 << (tag % 64)) != 0)
    }
}

/// Equal when names (without case) and values agree in order.
impl PartialEq for Headers {
    fn eq(&self, other: &Headers) -> bool {
        self.len() == other.len()
            && self
                .iter()
                .zip(other.iter())
                .all(|((an, av), (bn, bv))| an.eq_ignore_ascii_case(bn) && av == bv)
    }
}

impl Eq for Headers {}

/// Values are subscriber data: only the number of fields is shown.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Headers({})", self.fields.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::typed::Via;

    fn text(headers: &Headers) -> Vec<String> {
        headers.iter().map(|(n, v)| format!("{n}: {}", String::from_utf8_lossy(v))).collect()
    }

    #[test]
    fn order_is_kept_through_edits() {
        let mut h = Headers::new();
        h.push(Name::To, "a");
        h.push("X-One".into(), "1");
        h.push(Name::Contact, "<sip:a>, <sip:b>");
        h.push("x-one".into(), "2");
        h.prepend(Name::Via, "v");
        h.set("X-ONE".into(), "3");
        h.set(Name::Subject, "s");
        assert_eq!(text(&h), ["Via: v", "To: a", "X-ONE: 3", "Contact: <sip:a>, <sip:b>", "Subject: s"]);
        assert_eq!(h.values(&Name::Contact).count(), 2);
        assert_eq!(h.remove(&Name::Contact), 1);
        assert_eq!(h.len(), 4);
    }

    #[test]
    fn no_value_smuggles_a_field() {
        let mut h = Headers::new();
        h.push(Name::Subject, "a\r\nVia: evil\n\nbody");
        let mut out = BytesMut::new();
        h.write(&mut out, 0);
        assert_eq!(&out[..], b"Subject: a  Via: evil  body\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn the_first_element_of_a_list_is_replaced_and_removed_alone() {
        let mut h = Headers::new();
        h.push(Name::Via, "SIP/2.0/UDP a;branch=1 , SIP/2.0/TCP b;branch=2");
        h.replace_first_value(&Name::Via, "SIP/2.0/UDP a;branch=1;received=192.0.2.1");
        let all = h.all::<Via>().unwrap();
        assert_eq!(
            (all.len(), all[0].params.get("received"), all[1].branch()),
            (2, Some("192.0.2.1"), Some("2"))
        );
        h.remove_first_value(&Name::Via);
        assert_eq!(text(&h), ["Via: SIP/2.0/TCP b;branch=2"]);
        h.remove_first_value(&Name::Via);
        assert!(h.is_empty());
    }

    #[test]
    fn single_headers_that_repeat_are_found() {
        let mut h = Headers::new();
        h.push(Name::Via, "a");
        h.push(Name::Via, "b");
        h.push(Name::CSeq, "1 INVITE");
        assert!(h.present().is_ok_and(|p| p.has(&Name::Via) && !p.has(&Name::To)));
        h.push("cseq".into(), "1 INVITE");
        assert_eq!(h.present().err(), Some(&Name::CSeq));
    }
}
