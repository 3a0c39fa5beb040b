//! RTCP of our own: SR, RR, SDES, BYE, PLI, FIR, one after the other into one compound (RFC 3550 §6).

use base::UnixTime;
use bytes::{BufMut, Bytes, BytesMut};

use crate::{Block, SenderInfo};

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

/// Writes a compound packet. Counts over 31 (blocks, sources) are cut off there.
#[derive(Debug, Default)]
pub struct RtcpWriter {
    buffer: BytesMut,
}

impl RtcpWriter {
    /// Empty.
    pub fn new() -> Self {
        RtcpWriter { buffer: BytesMut::with_capacity(256) }
    }

    fn packet(&mut self, count: usize, kind: u8, body: impl FnOnce(&mut BytesMut)) -> &mut Self {
        let start = self.buffer.len();
        self.buffer.put_u8(0x80 | (count.min(31) as u8));
        self.buffer.put_u8(kind);
        self.buffer.put_u16(0);
        body(&mut self.buffer);
        while !(self.buffer.len() - start).is_multiple_of(4) {
            self.buffer.put_u8(0);
        }
        let words = ((self.buffer.len() - start) / 4 - 1) as u16;
        if let Some(length) = self.buffer.get_mut(start + 2..start + 4) {
            length.copy_from_slice(&words.to_be_bytes());
        }
        self
    }

    /// SR (§6.4.1).
    pub fn sender(&mut self, info: &SenderInfo, blocks: &[Block]) -> &mut Self {
        self.packet(blocks.len(), 200, |b| {
            b.put_u32(info.ssrc);
            b.put_u64(info.ntp);
            b.put_u32(info.timestamp);
            b.put_u32(info.packets);
            b.put_u32(info.octets);
            put_blocks(b, blocks);
        })
    }

    /// RR (§6.4.2).
    pub fn receiver(&mut self, ssrc: u32, blocks: &[Block]) -> &mut Self {
        self.packet(blocks.len(), 201, |b| {
            b.put_u32(ssrc);
            put_blocks(b, blocks);
        })
    }

    /// SDES with one CNAME per source (§6.5); a CNAME over 255 octets is cut.
    pub fn description<'a>(&mut self, cnames: impl ExactSizeIterator<Item = (u32, &'a str)>) -> &mut Self {
        self.packet(cnames.len(), 202, |b| {
            for (ssrc, cname) in cnames.take(31) {
                let start = b.len();
                let name = cname.as_bytes();
                let name = name.get(..name.len().min(255)).unwrap_or_default();
                b.put_u32(ssrc);
                b.put_u8(1);
                b.put_u8(name.len() as u8);
                b.put_slice(name);
                // The list ends with at least one zero octet, then up to the word boundary.
                b.put_u8(0);
                while !(b.len() - start).is_multiple_of(4) {
                    b.put_u8(0);
                }
            }
        })
    }

    /// BYE (§6.6).
    pub fn bye(&mut self, ssrcs: &[u32]) -> &mut Self {
        self.packet(ssrcs.len(), 203, |b| ssrcs.iter().take(31).for_each(|s| b.put_u32(*s)))
    }

    /// PLI (RFC 4585 §6.3.1).
    pub fn picture_loss(&mut self, sender: u32, media: u32) -> &mut Self {
        self.packet(1, 206, |b| {
            b.put_u32(sender);
            b.put_u32(media);
        })
    }

    /// FIR for one source (RFC 5104 §4.3.1); `number` grows with each new request.
    pub fn full_intra(&mut self, sender: u32, media: u32, number: u8) -> &mut Self {
        self.packet(4, 206, |b| {
            b.put_u32(sender);
            b.put_u32(0);
            b.put_u32(media);
            b.put_u8(number);
            b.put_slice(&[0; 3]);
        })
    }

    /// Nothing written yet.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The datagram.
    pub fn finish(self) -> Bytes {
        self.buffer.freeze()
    }
}

fn put_blocks(b: &mut BytesMut, blocks: &[Block]) {
    for block in blocks.iter().take(31) {
        b.put_u32(block.ssrc);
        // Clamped to 24 bits with sign (§A.3).
        let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0x00ff_ffff;
        b.put_u32(u32::from(block.fraction_lost) << 24 | lost);
        b.put_u32(block.highest);
        b.put_u32(block.jitter);
        b.put_u32(block.last_sr);
        b.put_u32(block.delay);
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
    fn ntp_begins_in_1900() {
        assert_eq!(Ntp::from(UnixTime::from_millis(500)).0, (2_208_988_800 << 32) | (1 << 31));
    }
}
