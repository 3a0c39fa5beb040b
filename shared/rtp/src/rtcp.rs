//! RTCP compound packets as views (RFC 3550 §6, RFC 4585 §6).

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

/// One feedback packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feedback<'a> {
    /// Who speaks.
    pub sender: u32,
    /// About which source; 0 for FIR, whose entries name them.
    pub media: u32,
    /// The feedback message type.
    pub format: u8,
    /// Feedback control information.
    pub fci: &'a [u8],
}

/// One packet of a compound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// SR: the sender and its blocks.
    Sender(SenderInfo, Blocks<'a>),
    /// RR: who reports, and its blocks.
    Receiver(u32, Blocks<'a>),
    /// SDES: its body, chunk after chunk.
    Description(&'a [u8]),
    /// BYE: who leaves.
    Bye(Ssrcs<'a>),
    /// RTPFB (205): NACK and others.
    Transport(Feedback<'a>),
    /// PSFB (206): PLI, FIR and others.
    Payload(Feedback<'a>),
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

impl Feedback<'_> {
    /// PSFB format 1: picture loss indication (RFC 4585 §6.3.1).
    pub const PLI: u8 = 1;
    /// PSFB format 4: full intra request (RFC 5104 §4.3.1).
    pub const FIR: u8 = 4;

    /// The sources that FIR entries name.
    pub fn fir_targets(&self) -> impl Iterator<Item = u32> {
        self.fci.chunks_exact(8).filter_map(|entry| word(entry, 0))
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
        202 => Packet::Description(body),
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
        other => Packet::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtcp_types::prelude::*;

    #[test]
    fn compounds_that_do_not_add_up_are_refused() {
        let rr = [0x80, 201, 0, 1, 0, 0, 0, 9];
        assert_eq!(compound(&rr, false).unwrap().count(), 1);
        assert_eq!(compound(&rr[..7], false).err(), Some(Malformed::Rtcp));
        assert_eq!(compound(&[0x80], false).err(), Some(Malformed::Short));
        assert_eq!(compound(&[0x81, 201, 0, 1, 0, 0, 0, 9], false).err(), Some(Malformed::Rtcp), "no block");
        assert_eq!(compound(&[0x40, 201, 0, 1, 0, 0, 0, 9], false).err(), Some(Malformed::Version));
        assert_eq!(compound(&[0x80, 203, 0, 0], false).err(), Some(Malformed::Rtcp), "BYE comes first");
        assert_eq!(compound(&[0x80, 203, 0, 0], true).unwrap().count(), 1);
        assert_eq!(compound(&[0xa0, 201, 0, 1, 0, 0, 0, 0], false).err(), Some(Malformed::Rtcp), "padding 0");
        assert_eq!(compound(&[0x80, 201, 0xff, 0xff, 0, 0, 0, 0], false).err(), Some(Malformed::Rtcp));
    }

    #[test]
    fn the_sign_of_cumulative_loss_survives() {
        let mut rr = vec![0x81, 201, 0, 7, 0, 0, 0, 9, 0, 0, 0, 1, 3, 0xff, 0xff, 0xfe];
        rr.extend_from_slice(&[0; 16]);
        let Some(Packet::Receiver(9, mut blocks)) = compound(&rr, false).unwrap().next() else { panic!() };
        let block = blocks.next().unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (3, -2));
    }

    proptest! {
        #[test]
        fn octets_of_any_kind_never_panic_and_what_rtcp_types_writes_is_read(
            bytes in prop::collection::vec(any::<u8>(), 0..200), ssrc in any::<u32>(), lost in 0u32..0x80_0000,
        ) {
            for reduced in [false, true] {
                if let Ok(packets) = compound(&bytes, reduced) {
                    for packet in packets {
                        if let Packet::Sender(_, blocks) | Packet::Receiver(_, blocks) = packet { blocks.count(); }
                        if let Packet::Payload(f) = packet { f.fir_targets().count(); }
                    }
                }
            }
            let rr = rtcp_types::ReceiverReport::builder(ssrc).add_report_block(
                rtcp_types::ReportBlock::builder(7).cumulative_lost(lost).interarrival_jitter(5));
            let mut wire = vec![0; 200];
            let length = rr.write_into(&mut wire).unwrap();
            let mut packets = compound(&wire[..length], false).unwrap();
            let Some(Packet::Receiver(by, mut blocks)) = packets.next() else { panic!() };
            let block = blocks.next().unwrap();
            prop_assert_eq!((by, block.ssrc, block.cumulative_lost, block.jitter), (ssrc, 7, lost as i32, 5));
        }
    }
}
