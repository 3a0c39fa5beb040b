//! SDES chunks and items (RFC 3550 §6.5).

use super::word;

/// What an SDES item says (RFC 3550 §12.2, RFC 9143 §15.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item<'a> {
    /// The item's type; [`Item::CNAME`] is the one that must be there.
    pub kind: u8,
    /// Its text, as it came.
    pub text: &'a [u8],
}

impl Item<'_> {
    /// The canonical name of the end point (RFC 3550 §6.5.1).
    pub const CNAME: u8 = 1;
    /// The media line's identification (RFC 9143 §15.1).
    pub const MID: u8 = 15;
}

/// One chunk: a source and its items.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk<'a> {
    /// Whom the items describe.
    pub ssrc: u32,
    items: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The items, in order.
    pub fn items(&self) -> Items<'a> {
        Items(self.items)
    }

    /// The canonical name, if it is there.
    pub fn cname(&self) -> Option<&'a [u8]> {
        self.items().find(|item| item.kind == Item::CNAME).map(|item| item.text)
    }
}

/// The items of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let ([kind, length], rest) = self.0.split_first_chunk::<2>()?;
        let (text, rest) = rest.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        Some(Item { kind: *kind, text })
    }
}

/// The chunks of an SDES packet; lengths were checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunks<'a> {
    rest: &'a [u8],
    count: usize,
}

impl<'a> Chunks<'a> {
    /// Checks that `count` chunks fill `body`.
    pub(super) fn new(body: &'a [u8], count: usize) -> Option<Self> {
        let chunks = Chunks { rest: body, count };
        let mut walk = chunks;
        while walk.count > 0 {
            walk.next()?;
        }
        walk.rest.is_empty().then_some(chunks)
    }

    /// No chunk.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        self.count = self.count.checked_sub(1)?;
        let ssrc = word(self.rest, 0)?;
        let list = self.rest.get(4..)?;
        let mut at = 0;
        // The list ends with an octet of zero; the next chunk begins at a word (§6.5).
        while *list.get(at)? != 0 {
            at += 2 + usize::from(*list.get(at + 1)?);
        }
        let end = (4 + at + 1).next_multiple_of(4);
        let items = list.get(..at)?;
        self.rest = self.rest.get(end..)?;
        Some(Chunk { ssrc, items })
    }
}
