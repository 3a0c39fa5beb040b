//! Feedback: NACK, PLI (RFC 4585 §6), FIR, TMMBR and TMMBN (RFC 5104 §4.2, §4.3.1), REMB (draft-alvestrand-rmcat-remb-03 §2) and transport-wide
//! congestion control (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

use super::{Ssrcs, word};

/// One feedback packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feedback<'a> {
    /// Who speaks.
    pub sender: u32,
    /// About which source; 0 for FIR and REMB, whose entries name them.
    pub media: u32,
    /// The feedback message type.
    pub format: u8,
    /// Feedback control information.
    pub fci: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// RTPFB format 1: lost packets (RFC 4585 §6.2.1).
    pub const NACK: u8 = 1;
    /// RTPFB format 3: the most that may be sent (RFC 5104 §4.2.1).
    pub const TMMBR: u8 = 3;
    /// RTPFB format 4: whose words bind now (RFC 5104 §4.2.2).
    pub const TMMBN: u8 = 4;
    /// RTPFB format 15: transport-wide congestion control.
    pub const TRANSPORT_WIDE: u8 = 15;
    /// PSFB format 1: picture loss indication (RFC 4585 §6.3.1).
    pub const PLI: u8 = 1;
    /// PSFB format 4: full intra request (RFC 5104 §4.3.1).
    pub const FIR: u8 = 4;
    /// PSFB format 15: application layer feedback, of which REMB is one.
    pub const APPLICATION: u8 = 15;

    /// Of a NACK: the sequence numbers that are missing; at most 17 for each four octets.
    pub fn lost(&self) -> impl Iterator<Item = u16> + 'a {
        self.fci.chunks_exact(4).flat_map(|entry| {
            let (pid, mask) = match *entry {
                [p0, p1, m0, m1] => (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([m0, m1])),
                _ => (0, 0),
            };
            // Bit n of BLP stands for PID + n + 1.
            let after = (0..16).filter(move |n| mask >> n & 1 == 1).map(move |n| pid.wrapping_add(n + 1));
            std::iter::once(pid).chain(after)
        })
    }

    /// Of a FIR: each source that a key frame is asked of, and the number of the request.
    pub fn full_intra(&self) -> impl Iterator<Item = (u32, u8)> + 'a {
        self.fci.chunks_exact(8).filter_map(|entry| Some((word(entry, 0)?, *entry.get(4)?)))
    }

    /// Of a TMMBR or TMMBN: its entries.
    pub fn limits(&self) -> impl Iterator<Item = TmmbrEntry> + 'a {
        self.fci.chunks_exact(8).filter_map(|entry| {
            let (ssrc, word) = (word(entry, 0)?, word(entry, 4)?);
            // MxTBR exponent 6, mantissa 17, overhead 9 (RFC 5104 §4.2.1.1); more than 64 bits hold nobody can send.
            let bits = u128::from(word >> 9 & 0x1_ffff) << (word >> 26);
            let bits_per_second = u64::try_from(bits).unwrap_or(u64::MAX);
            Some(TmmbrEntry { ssrc, bits_per_second, overhead: (word & 0x1ff) as u16 })
        })
    }

    /// The sources that FIR entries name.
    pub fn fir_targets(&self) -> impl Iterator<Item = u32> + 'a {
        self.full_intra().map(|(ssrc, _)| ssrc)
    }

    /// Of PSFB format 15: what its sender can receive, if it is a REMB.
    pub fn receiver_estimate(&self) -> Option<ReceiverEstimate<'a>> {
        let ([b'R', b'E', b'M', b'B', count, r0, r1, r2], rest) = self.fci.split_first_chunk::<8>()? else {
            return None;
        };
        let mantissa = u64::from(r0 & 0x03) << 16 | u64::from(*r1) << 8 | u64::from(*r2);
        // More than 64 bits hold is more than anybody can send.
        let bits_per_second = u128::from(mantissa) << (r0 >> 2);
        let ssrcs = rest.get(..4 * usize::from(*count))?;
        Some(ReceiverEstimate {
            bits_per_second: u64::try_from(bits_per_second).unwrap_or(u64::MAX),
            ssrcs: Ssrcs(ssrcs),
        })
    }

    /// Of RTPFB format 15: which packets arrived when.
    pub fn transport_wide(&self) -> Option<TransportWide<'a>> {
        TransportWide::read(self.fci)
    }
}

/// An entry of TMMBR or TMMBN (RFC 5104 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TmmbrEntry {
    /// TMMBR: who is to obey. TMMBN: whose word binds.
    pub ssrc: u32,
    /// The most that may be sent, without the headers below RTP.
    pub bits_per_second: u64,
    /// Octets of each packet's headers, 0..=511.
    pub overhead: u16,
}

/// REMB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceiverEstimate<'a> {
    /// The estimate for all named sources together.
    pub bits_per_second: u64,
    /// The sources.
    pub ssrcs: Ssrcs<'a>,
}

/// Transport-wide feedback whose lengths were checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransportWide<'a> {
    /// Transport-wide sequence number of the first packet that is spoken of.
    pub first: u16,
    /// How many packets are spoken of.
    pub count: u16,
    /// Where the deltas begin, in units of 64 ms, modulo 2^24.
    pub reference: u32,
    /// Counts the feedback packets, so that their loss shows.
    pub number: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

/// What a status symbol says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Symbol {
    Missing,
    Small,
    Large,
}

/// The symbols of a packet status chunk, from the first; at most 8191.
fn symbols(chunk: [u8; 2]) -> impl Iterator<Item = Option<Symbol>> {
    let word = u16::from_be_bytes(chunk);
    let two_bits = |code: u16| match code & 3 {
        0 => Some(Symbol::Missing),
        1 => Some(Symbol::Small),
        2 => Some(Symbol::Large),
        _ => None,
    };
    let (count, kind) = match word >> 14 {
        0 | 1 => (word & 0x1fff, 0),
        2 => (14, 1),
        _ => (7, 2),
    };
    (0..count).map(move |n| match kind {
        0 => two_bits(word >> 13),
        1 => Some(if word >> (13 - n) & 1 == 1 { Symbol::Small } else { Symbol::Missing }),
        _ => two_bits(word >> (12 - 2 * n)),
    })
}

/// What a chunk says in sum of the packets that are left to speak of.
struct Tally {
    packets: usize,
    arrived: usize,
    /// Octets of their deltas.
    octets: usize,
}

/// In a step or a few whatever the run claims: two octets may stand for 8191 packets, and a datagram has room for hundreds
/// of such. `None`: a symbol that has no meaning.
fn tally(chunk: [u8; 2], left: usize) -> Option<Tally> {
    let word = u16::from_be_bytes(chunk);
    let mut sum = Tally { packets: 0, arrived: 0, octets: 0 };
    let mut add = |symbol: Symbol, packets: usize| {
        let (arrived, octets) = match symbol {
            Symbol::Missing => (0, 0),
            Symbol::Small => (packets, packets),
            Symbol::Large => (packets, 2 * packets),
        };
        sum.packets += packets;
        sum.arrived += arrived;
        sum.octets += octets;
    };
    if word >> 15 == 0 {
        if let Some(first) = symbols(chunk).next() {
            add(first?, usize::from(word & 0x1fff).min(left));
        }
    } else {
        for symbol in symbols(chunk).take(left) {
            add(symbol?, 1);
        }
    }
    Some(sum)
}

impl<'a> TransportWide<'a> {
    fn read(fci: &'a [u8]) -> Option<Self> {
        let ([f0, f1, c0, c1, r0, r1, r2, number], rest) = fci.split_first_chunk::<8>()?;
        let count = u16::from_be_bytes([*c0, *c1]);
        let (mut left, mut octets, mut at) = (usize::from(count), 0, 0);
        while left > 0 {
            let chunk = rest.get(at..)?.first_chunk::<2>()?;
            at += 2;
            let tally = tally(*chunk, left)?;
            // A run of no packets would go on for ever.
            if tally.packets == 0 {
                return None;
            }
            octets += tally.octets;
            left -= tally.packets;
        }
        let (chunks, rest) = rest.split_at_checked(at)?;
        Some(TransportWide {
            first: u16::from_be_bytes([*f0, *f1]),
            count,
            reference: u32::from_be_bytes([0, *r0, *r1, *r2]),
            number: *number,
            chunks,
            deltas: rest.get(..octets)?,
        })
    }

    /// How many of the packets that are spoken of have arrived.
    pub fn arrived(&self) -> usize {
        let mut left = usize::from(self.count);
        let chunks = self.chunks.as_chunks::<2>().0.iter();
        let each = chunks.map_while(|chunk| {
            let tally = tally(*chunk, left)?;
            left -= tally.packets;
            Some(tally.arrived)
        });
        each.sum()
    }

    /// Each packet with the moment of its arrival, in units of 250 us since the reference; `None`: it has not arrived.
    pub fn arrivals(&self) -> impl Iterator<Item = (u16, Option<i32>)> + 'a {
        let (first, mut deltas, mut at) = (self.first, self.deltas, 0);
        let chunks = self.chunks.as_chunks::<2>().0.iter();
        let all = chunks.flat_map(|chunk| symbols(*chunk)).take(usize::from(self.count));
        all.enumerate().map(move |(n, symbol)| {
            let octets = match symbol {
                Some(Symbol::Small) => 1,
                Some(Symbol::Large) => 2,
                Some(Symbol::Missing) | None => 0,
            };
            let (delta, rest) = deltas.split_at_checked(octets).unwrap_or_default();
            deltas = rest;
            let arrived = match *delta {
                [small] => Some(i32::from(small)),
                [high, low] => Some(i32::from(i16::from_be_bytes([high, low]))),
                _ => None,
            };
            at += arrived.unwrap_or(0);
            (first.wrapping_add(n as u16), arrived.map(|_| at))
        })
    }
}
