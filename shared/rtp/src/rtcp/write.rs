//! RTCP of our own, packet after packet into one compound (RFC 3550 §6): SR, RR, SDES, BYE, feedback, XR.

use base::UnixTime;
use bytes::Bytes;

use super::{Block, Dlrr, Feedback, Item, SenderInfo, TmmbrEntry, VoipMetrics};

/// NTP time, 32.32 fixed point seconds since 1900.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ntp(pub u64);

impl From<UnixTime> for Ntp {
    fn from(at: UnixTime) -> Self {
        const SECONDS_1900_TO_1970: u64 = 2_208_988_800;
        let (s, ms) = (at.as_millis() / 1000, at.as_millis() % 1000);
        Ntp(((s + SECONDS_1900_TO_1970) << 32) | ((ms << 32) / 1000))
    }
}

/// Octets of the longest compound that we write: with SRTCP's trailer and IPv6 it stays below any MTU.
pub const RTCP_MAX: usize = 1200;

/// Writes a compound packet into room of its own; nothing is allocated before [`RtcpWriter::finish`]. Counts over 31
/// (blocks, sources) are cut off there; a packet that has no room is left out whole, which [`RtcpWriter::is_cut`] tells.
#[derive(Clone)]
pub struct RtcpWriter {
    octets: [u8; RTCP_MAX],
    length: usize,
    cut: bool,
}

impl std::fmt::Debug for RtcpWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RtcpWriter({} octets)", self.length)
    }
}

impl Default for RtcpWriter {
    fn default() -> Self {
        RtcpWriter::new()
    }
}

/// A block of an extended report to write (RFC 3611 §4).
#[derive(Clone, Copy, Debug)]
pub enum WriteExtended<'a> {
    /// Our clock (§4.4).
    ReceiverReference(Ntp),
    /// When we heard others' clocks (§4.5).
    Dlrr(&'a [Dlrr]),
    /// §4.7.
    Voip(VoipMetrics),
}

/// Transport-wide feedback to write.
#[derive(Clone, Copy, Debug)]
pub struct Arrivals<'a> {
    /// Transport-wide sequence number of the first packet.
    pub first: u16,
    /// Where the moments begin, in units of 64 ms; the upper 8 bits are left out.
    pub reference: u32,
    /// Counts the feedback packets.
    pub number: u8,
    /// The moment of each packet, in units of 250 us since the reference; `None`: not arrived. Two that are more than
    /// 8.19 s apart cannot be told: the later one counts as not arrived.
    pub moments: &'a [Option<i32>],
}

impl RtcpWriter {
    /// Empty.
    pub const fn new() -> Self {
        RtcpWriter { octets: [0; RTCP_MAX], length: 0, cut: false }
    }

    fn put(&mut self, octets: &[u8]) {
        match self.octets.get_mut(self.length..self.length + octets.len()) {
            Some(room) if !self.cut => {
                room.copy_from_slice(octets);
                self.length += octets.len();
            }
            _ => self.cut = true,
        }
    }

    fn put_u32(&mut self, word: u32) {
        self.put(&word.to_be_bytes());
    }

    fn pad(&mut self, start: usize) {
        while !(self.length - start).is_multiple_of(4) && !self.cut {
            self.put(&[0]);
        }
    }

    fn packet(&mut self, count: usize, kind: u8, body: impl FnOnce(&mut Self)) -> &mut Self {
        let (start, was_cut) = (self.length, std::mem::take(&mut self.cut));
        self.put(&[0x80 | (count.min(31) as u8), kind, 0, 0]);
        body(self);
        self.pad(start);
        if self.cut {
            self.length = start;
        } else {
            let words = ((self.length - start) / 4 - 1) as u16;
            if let Some(length) = self.octets.get_mut(start + 2..start + 4) {
                length.copy_from_slice(&words.to_be_bytes());
            }
        }
        self.cut |= was_cut;
        self
    }

    /// SR (§6.4.1).
    pub fn sender(&mut self, info: &SenderInfo, blocks: &[Block]) -> &mut Self {
        self.packet(blocks.len(), 200, |w| {
            w.put_u32(info.ssrc);
            w.put(&info.ntp.to_be_bytes());
            w.put_u32(info.timestamp);
            w.put_u32(info.packets);
            w.put_u32(info.octets);
            put_blocks(w, blocks);
        })
    }

    /// RR (§6.4.2).
    pub fn receiver(&mut self, ssrc: u32, blocks: &[Block]) -> &mut Self {
        self.packet(blocks.len(), 201, |w| {
            w.put_u32(ssrc);
            put_blocks(w, blocks);
        })
    }

    /// SDES with one CNAME per source (§6.5); a CNAME over 255 octets is cut.
    pub fn description<'a>(&mut self, cnames: impl ExactSizeIterator<Item = (u32, &'a str)>) -> &mut Self {
        self.packet(cnames.len(), 202, |w| {
            for (ssrc, cname) in cnames.take(31) {
                let start = w.length;
                let name = cname.as_bytes();
                let name = name.get(..name.len().min(255)).unwrap_or_default();
                w.put_u32(ssrc);
                w.put(&[Item::CNAME, name.len() as u8]);
                w.put(name);
                // The list ends with at least one zero octet, then up to the word boundary.
                w.put(&[0]);
                w.pad(start);
            }
        })
    }

    /// BYE (§6.6).
    pub fn bye(&mut self, ssrcs: &[u32]) -> &mut Self {
        self.packet(ssrcs.len(), 203, |w| ssrcs.iter().take(31).for_each(|s| w.put_u32(*s)))
    }

    fn feedback(
        &mut self,
        kind: u8,
        format: u8,
        [sender, media]: [u32; 2],
        fci: impl FnOnce(&mut Self),
    ) -> &mut Self {
        self.packet(usize::from(format), kind, |w| {
            w.put_u32(sender);
            w.put_u32(media);
            fci(w);
        })
    }

    /// NACK (RFC 4585 §6.2.1). Numbers that lie within 16 after one another share an entry when they come in order.
    pub fn nack(&mut self, sender: u32, media: u32, lost: impl Iterator<Item = u16>) -> &mut Self {
        self.feedback(205, Feedback::NACK, [sender, media], |w| {
            let mut entry: Option<(u16, u16)> = None;
            for number in lost {
                match &mut entry {
                    Some((pid, mask)) if (1..=16).contains(&number.wrapping_sub(*pid)) => {
                        *mask |= 1 << (number.wrapping_sub(*pid) - 1);
                    }
                    _ => {
                        put_entry(w, entry.replace((number, 0)));
                    }
                }
            }
            put_entry(w, entry);
        })
    }

    /// PLI (RFC 4585 §6.3.1).
    pub fn picture_loss(&mut self, sender: u32, media: u32) -> &mut Self {
        self.feedback(206, Feedback::PLI, [sender, media], |_| {})
    }

    /// FIR for one source (RFC 5104 §4.3.1); `number` grows with each new request.
    pub fn full_intra(&mut self, sender: u32, media: u32, number: u8) -> &mut Self {
        self.feedback(206, Feedback::FIR, [sender, 0], |w| {
            w.put_u32(media);
            w.put(&[number, 0, 0, 0]);
        })
    }

    /// REMB: what can be received of these sources together; over 255 sources are cut off there. The figure is rounded
    /// down to 18 bits.
    pub fn receiver_estimate(&mut self, sender: u32, bits_per_second: u64, ssrcs: &[u32]) -> &mut Self {
        let exponent = (64 - bits_per_second.leading_zeros()).saturating_sub(18);
        let mantissa = (bits_per_second >> exponent) as u32;
        let count = ssrcs.len().min(255);
        self.feedback(206, Feedback::APPLICATION, [sender, 0], |w| {
            w.put(b"REMB");
            w.put_u32((count as u32) << 24 | exponent << 18 | mantissa);
            ssrcs.iter().take(count).for_each(|s| w.put_u32(*s));
        })
    }

    /// TMMBR (RFC 5104 §4.2.1): the most that each of these sources may send. Figures are rounded down to 17 bits.
    pub fn rate_request(&mut self, sender: u32, entries: &[TmmbrEntry]) -> &mut Self {
        self.feedback(205, Feedback::TMMBR, [sender, 0], |w| put_limits(w, entries))
    }

    /// TMMBN (RFC 5104 §4.2.2): whose words bind the sender now.
    pub fn rate_notification(&mut self, sender: u32, entries: &[TmmbrEntry]) -> &mut Self {
        self.feedback(205, Feedback::TMMBN, [sender, 0], |w| put_limits(w, entries))
    }

    /// Transport-wide feedback, with status vectors of two bits and runs where they are shorter.
    pub fn transport_wide(&mut self, sender: u32, media: u32, arrivals: &Arrivals<'_>) -> &mut Self {
        let count = u16::try_from(arrivals.moments.len()).unwrap_or(u16::MAX);
        let moments = || arrivals.moments.iter().take(usize::from(count)).copied();
        self.feedback(205, Feedback::TRANSPORT_WIDE, [sender, media], |w| {
            w.put(&arrivals.first.to_be_bytes());
            w.put(&count.to_be_bytes());
            w.put_u32(arrivals.reference << 8 | u32::from(arrivals.number));
            let mut symbols = steps(moments()).map(|step| match step {
                None => 0u16,
                Some(0..=255) => 1,
                Some(_) => 2,
            });
            put_statuses(w, &mut symbols);
            for step in steps(moments()).flatten() {
                match u8::try_from(step) {
                    Ok(small) => w.put(&[small]),
                    Err(_) => w.put(&step.to_be_bytes()),
                }
            }
        })
    }

    /// XR (RFC 3611 §2).
    pub fn extended(&mut self, ssrc: u32, blocks: &[WriteExtended<'_>]) -> &mut Self {
        self.packet(0, 207, |w| {
            w.put_u32(ssrc);
            for block in blocks {
                match block {
                    WriteExtended::ReceiverReference(ntp) => {
                        w.put(&[4, 0, 0, 2]);
                        w.put(&ntp.0.to_be_bytes());
                    }
                    WriteExtended::Dlrr(list) => {
                        let [l0, l1] = ((list.len().min(31) * 3) as u16).to_be_bytes();
                        w.put(&[5, 0, l0, l1]);
                        for entry in list.iter().take(31) {
                            w.put_u32(entry.ssrc);
                            w.put_u32(entry.last);
                            w.put_u32(entry.delay);
                        }
                    }
                    WriteExtended::Voip(metrics) => {
                        w.put(&[7, 0, 0, 8]);
                        w.put(&metrics.octets());
                    }
                }
            }
        })
    }

    /// Nothing written yet.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Something had no room.
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// What was written.
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    /// The datagram, copied out.
    pub fn finish(&self) -> Bytes {
        Bytes::copy_from_slice(self.octets())
    }
}

/// From each arrival to the next, in units of 250 us.
fn steps(moments: impl Iterator<Item = Option<i32>>) -> impl Iterator<Item = Option<i16>> {
    let mut last = 0;
    moments.map(move |moment| {
        let step = moment.and_then(|at: i32| i16::try_from(at.wrapping_sub(last)).ok())?;
        last = moment.unwrap_or(last);
        Some(step)
    })
}

/// Packet status chunks: a run where at least seven are alike, else seven symbols of two bits.
fn put_statuses(w: &mut RtcpWriter, symbols: &mut dyn Iterator<Item = u16>) {
    /// The longest run that a chunk can tell.
    const RUN_MAX: u16 = 0x1fff;
    let mut symbols = symbols.peekable();
    let mut held = [0u16; 7];
    let mut count = 0;
    while let Some(symbol) = symbols.next() {
        if let Some(place) = held.get_mut(count) {
            *place = symbol;
        }
        count += 1;
        if count < held.len() && symbols.peek().is_some() {
            continue;
        }
        if held.iter().take(count).all(|s| *s == symbol) {
            let mut run = count as u16;
            while run < RUN_MAX && symbols.next_if_eq(&symbol).is_some() {
                run += 1;
            }
            w.put(&(symbol << 13 | run).to_be_bytes());
        } else {
            let bits = held.iter().take(count).enumerate();
            let vector = bits.fold(0xc000, |word, (n, s)| word | s << (12 - 2 * n));
            w.put(&vector.to_be_bytes());
        }
        (held, count) = ([0; 7], 0);
    }
}

fn put_limits(w: &mut RtcpWriter, entries: &[TmmbrEntry]) {
    for entry in entries {
        let exponent = (64 - entry.bits_per_second.leading_zeros()).saturating_sub(17);
        let mantissa = (entry.bits_per_second >> exponent) as u32;
        w.put_u32(entry.ssrc);
        w.put_u32(exponent << 26 | mantissa << 9 | u32::from(entry.overhead & 0x1ff));
    }
}

fn put_entry(w: &mut RtcpWriter, entry: Option<(u16, u16)>) {
    if let Some((pid, mask)) = entry {
        w.put_u32(u32::from(pid) << 16 | u32::from(mask));
    }
}

fn put_blocks(w: &mut RtcpWriter, blocks: &[Block]) {
    for block in blocks.iter().take(31) {
        w.put_u32(block.ssrc);
        // Clamped to 24 bits with sign (§A.3).
        let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0x00ff_ffff;
        w.put_u32(u32::from(block.fraction_lost) << 24 | lost);
        w.put_u32(block.highest);
        w.put_u32(block.jitter);
        w.put_u32(block.last_sr);
        w.put_u32(block.delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtcp_types::{Compound, Packet};

    #[test]
    fn rtcp_types_reads_what_we_write() {
        // rtcp-types takes the leading zeros of a second chunk's SSRC for padding of the first: none here.
        const SECOND: u32 = 0x0200_0000;
        let info = SenderInfo { ssrc: 1, ntp: 2 << 32, timestamp: 3, packets: 4, octets: 5 };
        let block = Block {
            ssrc: 9,
            fraction_lost: 8,
            cumulative_lost: 77,
            highest: 6,
            jitter: 5,
            last_sr: 4,
            delay: 3,
        };
        let mut writer = RtcpWriter::new();
        writer
            .sender(&info, &[block])
            .receiver(1, &[])
            .description([(1, "a"), (SECOND, "bcd@example")].into_iter())
            .picture_loss(1, 9)
            .full_intra(1, 9, 7)
            .bye(&[1, 2]);
        let wire = writer.finish();
        let kinds: Vec<_> = Compound::parse(&wire).unwrap().map(|p| p.unwrap()).collect();
        let Packet::Sr(sr) = &kinds[0] else { panic!() };
        assert_eq!((sr.ntp_timestamp(), sr.packet_count(), sr.octet_count()), (2 << 32, 4, 5));
        let theirs = sr.report_blocks().next().unwrap();
        assert_eq!((theirs.ssrc(), theirs.fraction_lost(), theirs.cumulative_lost()), (9, 8, 77));
        let Packet::Sdes(sdes) = &kinds[2] else { panic!() };
        let names: Vec<_> =
            sdes.chunks().map(|c| (c.ssrc(), c.items().next().unwrap().value().to_vec())).collect();
        assert_eq!(names, [(1, b"a".to_vec()), (SECOND, b"bcd@example".to_vec())]);
        let Packet::PayloadFeedback(pli) = &kinds[3] else { panic!() };
        assert!(pli.parse_fci::<rtcp_types::Pli>().is_ok());
        let Packet::PayloadFeedback(fir) = &kinds[4] else { panic!() };
        let fir = fir.parse_fci::<rtcp_types::Fir>().unwrap();
        assert_eq!(fir.entries().map(|e| (e.ssrc(), e.sequence())).collect::<Vec<_>>(), [(9, 7)]);
        let Packet::Bye(bye) = &kinds[5] else { panic!() };
        assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(crate::compound(&wire, false).unwrap().count(), 6);
    }

    #[test]
    fn what_has_no_room_is_left_out_whole_and_what_follows_is_not() {
        let mut writer = RtcpWriter::new();
        let long = "n".repeat(255);
        writer.receiver(1, &[]);
        for _ in 0..10 {
            writer.description([(1, long.as_str())].into_iter());
        }
        assert!(writer.is_cut());
        writer.bye(&[1]);
        let wire = writer.finish();
        assert!(wire.len() <= RTCP_MAX);
        let packets: Vec<_> = crate::compound(&wire, false).unwrap().collect();
        assert!(matches!(packets.last(), Some(crate::Packet::Bye(_))), "{packets:?}");
        assert_eq!(packets.len(), 1 + 4 + 1);
        assert!(crate::compound(&wire, false).unwrap().is_full());
    }

    #[test]
    fn rtcp_types_reads_our_feedback() {
        let mut writer = RtcpWriter::new();
        writer.nack(1, 9, [65_535, 0, 3, 15, 16, 100].into_iter());
        let wire = writer.finish();
        assert_eq!(wire.len(), 12 + 3 * 4, "65535 with 0, 3 and 15; 16 alone; 100 alone");
        let Some(Ok(Packet::TransportFeedback(nack))) = Compound::parse(&wire).unwrap().next() else {
            panic!()
        };
        let nack = nack.parse_fci::<rtcp_types::Nack>().unwrap();
        assert_eq!(nack.entries().collect::<Vec<_>>(), [65_535, 0, 3, 15, 16, 100]);
    }

    #[test]
    fn the_most_that_may_be_sent_is_read_as_it_was_written() {
        // RFC 5104 §4.2.1.1: 17 bits and an exponent.
        for (bits, read) in
            [(0, 0), (64_000, 64_000), (131_071, 131_071), (131_073, 131_072), (u64::MAX, 0x1_ffff << 47)]
        {
            let entry = |bits_per_second| TmmbrEntry { ssrc: 7, bits_per_second, overhead: 40 };
            let mut writer = RtcpWriter::new();
            writer.rate_request(1, &[entry(bits)]).rate_notification(1, &[entry(bits)]);
            let wire = writer.finish();
            let all: Vec<_> = crate::compound(&wire, true).unwrap().collect();
            let [crate::Packet::Transport(request), crate::Packet::Transport(notification)] = all[..] else {
                panic!()
            };
            assert_eq!((request.format, notification.format), (Feedback::TMMBR, Feedback::TMMBN));
            for feedback in [request, notification] {
                assert_eq!(feedback.limits().collect::<Vec<_>>(), [entry(read)], "{bits}");
            }
        }
    }

    #[test]
    fn ntp_begins_in_1900() {
        assert_eq!(Ntp::from(UnixTime::from_millis(500)).0, (2_208_988_800 << 32) | (1 << 31));
    }
}
