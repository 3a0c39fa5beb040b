//! Finds the end-line behind a body (RFC 4975 §7.1, §9), also when it comes in pieces.

use std::sync::LazyLock;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;

use crate::{Flag, Tid};

/// Where in the end-line's pattern the stream stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub(super) tid: Tid,
    /// Octets of the pattern that have been seen.
    pub(super) matched: usize,
    /// The pattern's first two octets were those of the empty line before the body, not of the body.
    pub(super) borrowed: bool,
    /// The flag that was seen, once `matched` is past it.
    pub(super) flag: Flag,
    /// Give nothing out.
    pub(super) skip: bool,
    /// Octets that the body may still have.
    pub(super) left: u64,
}

/// What opens every end-line that follows a body.
const OPENING: &[u8] = b"\r\n-------";

static FIND_OPENING: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(OPENING));

/// Octets of body, then octets of the pattern, whole or as far as the input goes.
pub(super) struct Found {
    pub(super) body: usize,
    pub(super) pattern: usize,
    pub(super) flag: Flag,
}

/// Octets that [`opening_from`] looks at in one go.
const STRIDE: usize = 256;

/// Before here there is no opening, nor the start of one that goes on. Seven hyphens in a row fill at least one of the
/// words of four octets, wherever they begin: looking at words, and at nothing but whether they are hyphens, costs half
/// of what looking for the opening does, and a body is seldom anything else than octets without one.
fn opening_from(input: &[u8]) -> usize {
    const HYPHENS: u32 = u32::from_ne_bytes(*b"----");
    let (strides, _) = input.as_chunks::<STRIDE>();
    let with = strides.iter().position(|stride| {
        let (words, _) = stride.as_chunks::<4>();
        words.iter().fold(false, |found, word| found | (u32::from_ne_bytes(*word) == HYPHENS))
    });
    // The first octets of the opening may stand before the word that showed its hyphens.
    (with.unwrap_or(strides.len()) * STRIDE).saturating_sub(OPENING.len())
}

impl Tail {
    /// The pattern is: CRLF, seven hyphens, the transaction id, a flag, CRLF.
    fn len(&self) -> usize {
        OPENING.len() + self.tid.as_bytes().len() + 3
    }

    pub(super) fn is_whole(&self) -> bool {
        self.matched == self.len()
    }

    /// Whether `octet` can stand at place `at` of the pattern.
    fn fits(&self, at: usize, octet: u8) -> bool {
        let tid = self.tid.as_bytes();
        if let Some(expected) = OPENING.get(at) {
            return *expected == octet;
        }
        let at = at - OPENING.len();
        match tid.get(at) {
            Some(expected) => *expected == octet,
            None => match at - tid.len() {
                0 => Flag::from_octet(octet).is_some(),
                1 => octet == b'\r',
                _ => octet == b'\n',
            },
        }
    }

    /// Takes octets as long as they follow the pattern. When one does not, what was held back proves to be
    /// body and comes back, and the pattern begins anew: with the last CR if that was the last octet seen (the
    /// only place where the pattern can begin inside itself), else with the octet that did not fit.
    pub(super) fn follow(&mut self, input: &mut Bytes) -> Bytes {
        let flag_place = self.len() - 3;
        let mut taken = 0;
        for octet in input.iter().take(self.len() - self.matched) {
            if !self.fits(self.matched, *octet) {
                input.advance(taken);
                return self.give_back();
            }
            if self.matched == flag_place {
                self.flag = Flag::from_octet(*octet).unwrap_or(Flag::Last);
            }
            self.matched += 1;
            taken += 1;
        }
        input.advance(taken);
        Bytes::new()
    }

    /// The octets held back, written anew from the pattern.
    fn give_back(&mut self) -> Bytes {
        let again = usize::from(self.matched + 1 == self.len());
        let mut held = BytesMut::with_capacity(self.matched);
        held.extend_from_slice(OPENING);
        held.extend_from_slice(self.tid.as_bytes());
        held.extend_from_slice(&[self.flag.octet(), b'\r']);
        held.truncate(self.matched - again);
        if self.borrowed {
            held.advance(2);
        }
        (self.matched, self.borrowed) = (again, false);
        held.freeze()
    }

    /// Looks for the end-line in octets of the body.
    pub(super) fn search(&self, input: &[u8]) -> Found {
        let mut from = opening_from(input);
        while let Some(at) = input.get(from..).and_then(|rest| FIND_OPENING.find(rest)) {
            let begin = from + at;
            let candidate = input.get(begin..).unwrap_or_default();
            let fitting =
                candidate.iter().take(self.len()).enumerate().take_while(|(i, c)| self.fits(*i, **c)).count();
            if fitting == candidate.len().min(self.len()) {
                let flag = candidate.get(self.len() - 3).and_then(|c| Flag::from_octet(*c));
                return Found { body: begin, pattern: fitting, flag: flag.unwrap_or(Flag::Last) };
            }
            from = begin + OPENING.len();
        }
        let edge =
            (1..OPENING.len()).rev().find(|n| OPENING.get(..*n).is_some_and(|start| input.ends_with(start)));
        let pattern = edge.unwrap_or(0);
        Found { body: input.len() - pattern, pattern, flag: Flag::Last }
    }
}
