//! RTCP compound packets as views (RFC 3550 §6), and their writer. Nothing is copied or allocated by a view; what it
//! walks was checked to end within the datagram.

mod description;
mod extended;
mod feedback;
mod write;

pub use description::{Chunk, Chunks, Item, Items};
pub use extended::{Dlrr, DlrrList, Extended, ExtendedBlocks, VoipMetrics};
pub use feedback::{Feedback, ReceiverEstimate, TmmbrEntry, TransportWide};
pub use write::{Arrivals, Ntp, RTCP_MAX, RtcpWriter, WriteExtended};

use crate::Malformed;

/// What a sender report says about its sender (RFC 3550 §6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderInfo {
    /// The sender.
    pub ssrc: u32,
    /// NTP time of the report, 32.32 fixed point.
    pub ntp: u64,
    /// RTP timestamp of the same moment.
    pub timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload octets sent.
    pub octets: u32,
}

impl SenderInfo {
    /// The middle 32 bits of the NTP time: LSR.
    pub const fn ntp_middle(&self) -> u32 {
        (self.ntp >> 16) as u32
    }
}

/// A report block.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Block {
    /// The source that it is about.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the beginning; 24 bits with sign on the wire.
    pub cumulative_lost: i32,
    /// Highest sequence number with its cycles.
    pub highest: u32,
    /// Interarrival jitter in units of the clock.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time; 0 if none came.
    pub last_sr: u32,
    /// Since then, in 1/65536 s.
    pub delay: u32,
}

/// One packet of a compound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// SR: the sender and its blocks.
    Sender(SenderInfo, Blocks<'a>),
    /// RR: who reports, and its blocks.
    Receiver(u32, Blocks<'a>),
    /// SDES: its chunks.
    Description(Chunks<'a>),
    /// BYE: who leaves.
    Bye(Ssrcs<'a>),
    /// RTPFB (205): NACK and others.
    Transport(Feedback<'a>),
    /// PSFB (206): PLI, FIR and others.
    Payload(Feedback<'a>),
    /// XR (207): who reports, and the blocks (RFC 3611 §2).
    Extended(u32, ExtendedBlocks<'a>),
    /// Anything else, by its packet type.
    Other(u8),
}

/// The report blocks of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks<'a>(&'a [u8]);

/// A list of sources.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ssrcs<'a>(&'a [u8]);

impl Iterator for Blocks<'_> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        let (block, rest) = self.0.split_first_chunk::<24>()?;
        self.0 = rest;
        let lost = word(block, 4)?;
        Some(Block {
            ssrc: word(block, 0)?,
            fraction_lost: (lost >> 24) as u8,
            // Sign extension from 24 bits.
            cumulative_lost: ((lost << 8) as i32) >> 8,
            highest: word(block, 8)?,
            jitter: word(block, 12)?,
            last_sr: word(block, 16)?,
            delay: word(block, 20)?,
        })
    }
}

impl Iterator for Ssrcs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (ssrc, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*ssrc))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// A compound packet whose lengths were checked.
#[derive(Clone, Copy, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl Compound<'_> {
    /// What RFC 3550 §6.1 asks of every compound: a report comes first, and a CNAME is in it. Reduced-size RTCP
    /// (RFC 5506) need not be so.
    pub fn is_full(&self) -> bool {
        let mut packets = *self;
        let reports = matches!(packets.next(), Some(Packet::Sender(..) | Packet::Receiver(..)));
        let names = |packet: Packet<'_>| match packet {
            Packet::Description(mut chunks) => chunks.any(|chunk| chunk.cname().is_some()),
            _ => false,
        };
        reports && packets.any(names)
    }
}

impl<'a> Compound<'a> {
    /// Each packet with its octets.
    pub fn with_octets(mut self) -> impl Iterator<Item = (&'a [u8], Packet<'a>)> {
        std::iter::from_fn(move || {
            let before = self.rest;
            let packet = self.next()?;
            Some((before.get(..before.len() - self.rest.len())?, packet))
        })
    }
}

/// Checks a datagram as a compound packet (RFC 3550 §A.2): version 2 throughout, padding on the last only, lengths
/// that add up. `reduced` accepts any first packet (RFC 5506), otherwise it must be SR or RR.
pub fn compound(bytes: &[u8], reduced: bool) -> Result<Compound<'_>, Malformed> {
    let first_type = *bytes.get(1).ok_or(Malformed::Short)?;
    if !reduced && !matches!(first_type, 200 | 201) {
        return Err(Malformed::Rtcp);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let [first, _, l0, l1] = *rest.first_chunk::<4>().ok_or(Malformed::Rtcp)?;
        if first >> 6 != 2 {
            return Err(Malformed::Version);
        }
        let length = 4 * (usize::from(u16::from_be_bytes([l0, l1])) + 1);
        let (packet, after) = rest.split_at_checked(length).ok_or(Malformed::Rtcp)?;
        if first & 0x20 != 0 {
            let padding = usize::from(packet.last().copied().unwrap_or(0));
            if !after.is_empty() || padding == 0 || padding % 4 != 0 || padding + 4 > length {
                return Err(Malformed::Rtcp);
            }
        }
        read(packet).ok_or(Malformed::Rtcp)?;
        rest = after;
    }
    Ok(Compound { rest: bytes })
}

impl<'a> Iterator for Compound<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let [_, _, l0, l1] = *self.rest.first_chunk::<4>()?;
        let length = 4 * (usize::from(u16::from_be_bytes([l0, l1])) + 1);
        let (packet, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        read(packet)
    }
}

fn read(packet: &[u8]) -> Option<Packet<'_>> {
    let [first, kind, ..] = *packet.first_chunk::<4>()?;
    let mut body = packet.get(4..)?;
    if first & 0x20 != 0 {
        let padding = usize::from(*packet.last()?);
        body = body.get(..body.len().checked_sub(padding)?)?;
    }
    let count = usize::from(first & 0x1f);
    let blocks = |from: usize| body.get(from..from + 24 * count).map(Blocks);
    Some(match kind {
        200 => {
            let info = SenderInfo {
                ssrc: word(body, 0)?,
                ntp: u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?),
                timestamp: word(body, 12)?,
                packets: word(body, 16)?,
                octets: word(body, 20)?,
            };
            Packet::Sender(info, blocks(24)?)
        }
        201 => Packet::Receiver(word(body, 0)?, blocks(4)?),
        202 => Packet::Description(Chunks::new(body, count)?),
        203 => Packet::Bye(Ssrcs(body.get(..4 * count)?)),
        205 | 206 => {
            let feedback = Feedback {
                sender: word(body, 0)?,
                media: word(body, 4)?,
                format: first & 0x1f,
                fci: body.get(8..)?,
            };
            if kind == 205 { Packet::Transport(feedback) } else { Packet::Payload(feedback) }
        }
        207 => Packet::Extended(word(body, 0)?, ExtendedBlocks::new(body.get(4..)?)?),
        other => Packet::Other(other),
    })
}

#[cfg(test)]
mod tests;
