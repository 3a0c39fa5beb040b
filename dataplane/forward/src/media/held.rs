//! Packets that the engine makes of the datagram just handled, where it does not go out with another fixed header at most:
//! protected ones, those of a protected one that was opened, those with other header extension ids (RFC 8285) or with a
//! CSRC more. Held here until the driver has sent them.

use rtp::srtp::{Outbound, SrtpError, TRAILER_MAX};

use super::arrive::Packet;
use super::guard::with_keys;
use super::{Guard, Media, Tx};
use crate::{Drop, HEAD_BYTES, Output, SocketId};

/// Octets of a packet with what protection adds to it, as large as they come.
pub(crate) const HELD_BYTES: usize = 2048 + TRAILER_MAX;
/// Contributing sources that a header has room for (RFC 3550 §5.1).
const CSRCS_MAX: u8 = 15;

/// What of a packet becomes another.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Edit {
    /// The fixed header.
    pub(crate) head: Option<[u8; HEAD_BYTES]>,
    /// A contributing source ahead of the others.
    pub(crate) contributor: Option<u32>,
}

/// What a leg's peer calls the header extension elements that it agreed to, and what its context calls them; 0: not agreed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ExtensionIds {
    to_context: [u8; 256],
    to_peer: [u8; 256],
}

impl ExtensionIds {
    /// From what control put, which was checked.
    pub(crate) fn new(put: &contract::Extensions) -> Self {
        let mut ids = ExtensionIds { to_context: [0; 256], to_peer: [0; 256] };
        for id in &put.ids {
            if let (Ok(peer), Ok(context)) = (u8::try_from(id.peer), u8::try_from(id.context)) {
                ids.to_context.iter_mut().skip(usize::from(peer)).take(1).for_each(|to| *to = context);
                ids.to_peer.iter_mut().skip(usize::from(context)).take(1).for_each(|to| *to = peer);
            }
        }
        ids
    }

    /// What one leg's peer calls the element that another's calls `id`; `None`: one of them has not agreed to it.
    fn map(from: Option<&Self>, to: Option<&Self>, id: u8) -> Option<u8> {
        let of = |table: &[u8; 256], id: u8| table.get(usize::from(id)).copied().filter(|id| *id != 0);
        let context = from.map_or(Some(id), |ids| of(&ids.to_context, id))?;
        to.map_or(Some(context), |ids| of(&ids.to_peer, context))
    }
}

/// See above.
#[derive(Debug, Default)]
pub(crate) struct Held {
    octets: Vec<u8>,
    /// Where the opened datagram lies as it came, once a plain target wants it.
    whole: Option<(u32, u32)>,
}

impl Held {
    pub(crate) fn get(&self, at: u32, length: u32) -> &[u8] {
        let at = at as usize;
        self.octets.get(at..at + length as usize).unwrap_or_default()
    }

    pub(crate) fn clear(&mut self) {
        self.octets.clear();
        self.whole = None;
    }

    /// Makes room, so that the packet loop need not.
    pub(super) fn reserve(&mut self, octets: usize) {
        self.octets.reserve(octets);
    }

    /// Copies a packet with what becomes another, and with room behind it.
    pub(super) fn copy(&mut self, bytes: &[u8], edit: &Edit, room: usize) -> (u32, u32) {
        let at = self.octets.len();
        match bytes.split_first_chunk::<HEAD_BYTES>() {
            Some((head, rest)) => {
                self.octets.extend_from_slice(&edit.head.unwrap_or(*head));
                if let (Some(ssrc), Some(first)) = (edit.contributor, self.octets.get_mut(at)) {
                    *first += 1; // CC: the caller has looked that there is room for one.
                    self.octets.extend_from_slice(&ssrc.to_be_bytes());
                }
                self.octets.extend_from_slice(rest);
            }
            None => self.octets.extend_from_slice(bytes),
        }
        let length = self.octets.len() - at;
        self.octets.resize(at + length + room, 0);
        (at as u32, length as u32)
    }

    fn at_mut(&mut self, at: u32) -> &mut [u8] {
        self.octets.get_mut(at as usize..).unwrap_or_default()
    }

    /// Writes the line into the last copy, where the packet has a place for it; its length then.
    fn name_line(&mut self, at: u32, length: u32, id: u8, mid: &[u8]) -> u32 {
        /// RFC 8285 §4: the extension's head, and an element of the two-byte form in whole words.
        const MORE: usize = 4 + 2 + 16 + 2;
        self.octets.resize(self.octets.len() + MORE, 0);
        let longer = rtp::add_element(self.at_mut(at), length as usize, id, mid);
        // Protection wants its room behind the packet and nothing else.
        let length = longer.unwrap_or(length as usize);
        self.octets.truncate(at as usize + length);
        self.octets.resize(at as usize + length + TRAILER_MAX, 0);
        length as u32
    }

    /// Protects the last copy, which has room behind it.
    fn seal(
        &mut self,
        (at, length): (u32, u32),
        protect: impl FnOnce(&mut [u8], usize) -> Result<usize, SrtpError>,
    ) -> Result<(u32, u32), Drop> {
        let length = protect(self.at_mut(at), length as usize).map_err(|_| Drop::SrtpUnsent)?;
        self.octets.truncate(at as usize + length);
        Ok((at, length as u32))
    }

    /// A packet once more, or anew: as it is, or protected.
    pub(super) fn again(
        &mut self,
        packet: &[u8],
        outbound: Option<&mut Outbound>,
    ) -> Result<(u32, u32), Drop> {
        match outbound {
            Some(outbound) => {
                self.protect(packet, &Edit::default(), |room, length| outbound.rtp(room, length))
            }
            None => Ok(self.copy(packet, &Edit::default(), 0)),
        }
    }

    /// Copies and protects.
    pub(super) fn protect(
        &mut self,
        bytes: &[u8],
        edit: &Edit,
        protect: impl FnOnce(&mut [u8], usize) -> Result<usize, SrtpError>,
    ) -> Result<(u32, u32), Drop> {
        let copy = self.copy(bytes, edit, TRAILER_MAX);
        self.seal(copy, protect)
    }
}

impl Media {
    /// Sends a packet of the leg `from` to a target, as it came where nothing stands against that.
    pub(crate) fn send_copy(
        &mut self,
        (from, target, socket): (u32, u32, SocketId),
        (packet, bytes): (&Packet<'_>, &[u8]),
        edit: &Edit,
        tx: &mut Tx<'_>,
    ) -> Result<(), Drop> {
        let Media { legs, held, now, .. } = self;
        let view = &packet.view;
        let row = legs.get(target as usize).ok_or(Drop::NoTarget)?;
        let (from_ids, ids) =
            (legs.get(from as usize).and_then(|row| row.extensions.as_deref()), row.extensions.as_deref());
        let map = |id| ExtensionIds::map(from_ids, ids, id);
        let renames = (from_ids.is_some() || ids.is_some())
            && view.is_extended()
            && view.elements().any(|(id, _)| map(id) != Some(id));
        let contributor =
            edit.contributor.filter(|_| view.head().first().is_some_and(|b| b & 0x0f < CSRCS_MAX));
        let edit = Edit { contributor, ..*edit };
        let guarded = row.guard.is_some();
        let (at, length) = if guarded
            || renames
            || contributor.is_some()
            || (packet.opened && edit.head.is_some())
        {
            let copy = held.copy(bytes, &edit, if guarded { TRAILER_MAX } else { 0 });
            if renames {
                rtp::map_extensions(held.at_mut(copy.0).get_mut(..copy.1 as usize).unwrap_or_default(), map);
            }
            copy
        } else if packet.opened {
            // Plain targets of one protected packet share what it held.
            match held.whole {
                Some(whole) => whole,
                None => {
                    let whole = held.copy(bytes, &edit, 0);
                    *held.whole.insert(whole)
                }
            }
        } else {
            let output = match edit.head {
                Some(head) => Output::ForwardPatched { socket, head },
                None => Output::Forward { socket },
            };
            let kept = row.kept;
            if !tx.push(output) {
                return Err(Drop::Outbox);
            }
            if kept && let Some(repair) = legs.get_mut(target as usize).and_then(|row| row.repair.as_mut()) {
                repair.keep(*now, bytes, edit.head.as_ref(), false);
            }
            return Ok(());
        };
        let (row, carrier) = with_keys(legs, target).ok_or(Drop::NoTarget)?;
        let mut repair = row.repair.as_mut();
        let (at, length) = match &mut row.guard {
            Some(guard) => {
                let length = match &guard.mid {
                    Some((id, mid)) => held.name_line(at, length, *id, mid),
                    None => length,
                };
                let keys: &mut Guard = match carrier {
                    Some(carrier) => carrier.guard.as_deref_mut().ok_or(Drop::NoTarget)?,
                    None => guard,
                };
                let outbound = keys.outbound.as_mut().ok_or(Drop::NoTarget)?;
                if let Some(repair) = repair.take_if(|repair| repair.is_kept_clear(held.get(at, length))) {
                    repair.keep(*now, held.get(at, length), None, false);
                }
                held.seal((at, length), |room, length| outbound.rtp(room, length))?
            }
            None => (at, length),
        };
        if !tx.push(Output::SendHeld { socket, at, length }) {
            return Err(Drop::Outbox);
        }
        if let Some(repair) = repair {
            repair.keep(*now, held.get(at, length), None, guarded);
        }
        Ok(())
    }
}
