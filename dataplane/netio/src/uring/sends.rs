//! Sends of one batch, put together by socket: datagrams of one size to one peer leave by one request and go through
//! the kernel's stack as one (UDP GSO).
//!
//! Order holds for each socket: a chain takes datagrams of one length until a shorter one or a limit closes it, and
//! the next datagram begins another. Where batches hold nothing to put together (one packet for each socket, the usual
//! relay) the sends go straight to the ring; from time to time a batch is tried again.

use std::io;

use super::user;
use crate::gathered::{SEGMENTS_BYTES_MAX, SEGMENTS_MAX};
use crate::ring::{Place, Ring};

/// Fewer datagrams than this leave one by one: two together cost more than two alone (DESIGN §4).
const TOGETHER_MIN: usize = 3;
/// Batches that are not tried after one that held nothing to put together.
const SKIPPED: u8 = 15;

/// A datagram that waits.
#[derive(Clone, Copy, Debug)]
struct Part {
    place: Place,
    length: u32,
    next: u32,
}

/// Datagrams for one socket.
#[derive(Clone, Copy, Debug)]
struct Chain {
    socket: u32,
    serial: u32,
    file: u32,
    first: u32,
    last: u32,
    count: u32,
    bytes: usize,
    segment: u32,
    open: bool,
}

/// What a send goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct To {
    pub(super) socket: u32,
    pub(super) serial: u32,
    pub(super) file: u32,
    /// The kernel has not refused to cut for it.
    pub(super) gso: bool,
}

#[derive(Debug)]
pub(super) struct Sends {
    parts: Vec<Part>,
    chains: Vec<Chain>,
    /// By socket: its newest chain, if the chain says so too.
    newest: Vec<u32>,
    on: bool,
    /// This batch is put together.
    collects: bool,
    skip: u8,
    /// This batch had something to try, and something that left together.
    tried: bool,
    together: bool,
    /// Requests in the ring since the last enter, and a quarter of what joined others.
    direct: usize,
    joined: usize,
}

impl Sends {
    pub(super) fn new(on: bool) -> Self {
        Sends {
            parts: Vec::new(),
            chains: Vec::new(),
            newest: Vec::new(),
            on,
            collects: false,
            skip: 0,
            tried: false,
            together: false,
            direct: 0,
            joined: 0,
        }
    }

    /// A batch begins with so many datagrams; nothing waits any more.
    pub(super) fn begin(&mut self, datagrams: usize) {
        if std::mem::take(&mut self.tried) && !self.together {
            self.skip = SKIPPED;
        }
        self.together = false;
        self.collects = self.on && datagrams >= TOGETHER_MIN && self.skip == 0;
        self.skip = self.skip.saturating_sub(u8::from(datagrams >= TOGETHER_MIN));
    }

    /// Sends that wait, in the ring or here.
    pub(super) fn queued(&self) -> usize {
        self.direct + self.chains.len() + self.joined / 4
    }

    /// An enter has submitted everything.
    pub(super) fn entered(&mut self) {
        self.direct = 0;
    }

    /// Sends a datagram, or keeps it for [`Sends::flush`].
    #[inline]
    pub(super) fn send(&mut self, ring: &mut Ring, to: To, place: Place, length: u32) -> io::Result<()> {
        if !self.collects || length == 0 {
            // What waits came before it.
            if !self.chains.is_empty() {
                self.flush(ring)?;
            }
            self.direct += 1;
            return push(ring, to.file, place, length, user::pack(user::SEND, to.serial, to.socket));
        }
        self.collect(to, place, length);
        Ok(())
    }

    fn collect(&mut self, to: To, place: Place, length: u32) {
        let at = self.parts.len() as u32;
        self.parts.push(Part { place, length, next: u32::MAX });
        let index = to.socket as usize;
        if self.newest.len() <= index {
            self.newest.resize(index + 1, u32::MAX);
        }
        let Some(newest) = self.newest.get_mut(index) else { return };
        let chain = self.chains.get_mut(*newest as usize).filter(|chain| {
            (chain.socket, chain.serial) == (to.socket, to.serial)
                && chain.open
                && length <= chain.segment
                && (chain.count as usize) < SEGMENTS_MAX
                && chain.bytes + length as usize <= SEGMENTS_BYTES_MAX
        });
        if let Some(chain) = chain {
            if let Some(last) = self.parts.get_mut(chain.last as usize) {
                last.next = at;
            }
            chain.last = at;
            chain.count += 1;
            chain.bytes += length as usize;
            chain.open = length == chain.segment;
            self.joined += 1;
            return;
        }
        *newest = self.chains.len() as u32;
        self.chains.push(Chain {
            socket: to.socket,
            serial: to.serial,
            file: to.file,
            first: at,
            last: at,
            count: 1,
            bytes: length as usize,
            segment: length,
            open: to.gso,
        });
    }

    /// Hands everything that waits to the ring.
    pub(super) fn flush(&mut self, ring: &mut Ring) -> io::Result<()> {
        if self.chains.is_empty() {
            return Ok(());
        }
        self.tried = true;
        let mut done = Ok(());
        for chain in &self.chains {
            let count = chain.count as usize;
            let mut parts = Walk { parts: &self.parts, at: chain.first, left: count };
            let result = if count >= TOGETHER_MIN {
                self.together = true;
                self.direct += 1;
                let user = user::pack(user::TOGETHER, chain.count, chain.socket);
                ring.send_gathered(chain.file, parts, chain.segment as u16, user)
            } else {
                self.direct += count;
                let user = user::pack(user::SEND, chain.serial, chain.socket);
                parts.try_for_each(|(place, length)| push(ring, chain.file, place, length, user))
            };
            done = done.and(result);
        }
        self.parts.clear();
        self.chains.clear();
        self.joined = 0;
        done
    }
}

/// The parts of a chain, in order.
struct Walk<'a> {
    parts: &'a [Part],
    at: u32,
    left: usize,
}

impl Iterator for Walk<'_> {
    type Item = (Place, u32);

    fn next(&mut self) -> Option<Self::Item> {
        let part = self.parts.get(self.at as usize).filter(|_| self.left > 0)?;
        (self.at, self.left) = (part.next, self.left - 1);
        Some((part.place, part.length))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Walk<'_> {}

fn push(ring: &mut Ring, file: u32, place: Place, length: u32, user: u64) -> io::Result<()> {
    match place {
        Place::Received { buffer, start } => {
            ring.send_received(file, buffer, (u32::from(start), length), user)
        }
        Place::Slot(slot) => ring.send_slot(file, slot, length, user),
    }
}
