//! The RTP header over the octets of a datagram (RFC 3550 §5.1).

use base::Fault;

use crate::Elements;

/// Why a datagram is no RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// Shorter than 12 octets.
    #[error("shorter than the fixed header")]
    Short,
    /// Another version than 2.
    #[error("version is not 2")]
    Version,
    /// CSRC list, extension or padding reach beyond the end.
    #[error("csrc list, extension or padding beyond the end")]
    Header,
    /// An RTCP length, count or first packet does not fit (RFC 3550 §A.2).
    #[error("rtcp lengths do not fit")]
    Rtcp,
}

impl Malformed {
    /// Always the sender's.
    pub const fn fault(self) -> Fault {
        Fault::Malformed
    }
}

/// An RTP packet whose lengths were checked: nothing of it reaches beyond the datagram.
#[derive(Clone, Copy, Debug)]
pub struct RtpView<'a> {
    bytes: &'a [u8],
    head: [u8; 12],
    extension: (u16, &'a [u8]),
    payload: &'a [u8],
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

#[inline]
fn word<const AT: usize>(head: &[u8; 12]) -> u32 {
    head.get(AT..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

impl<'a> RtpView<'a> {
    /// Checks a datagram.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let head = *bytes.first_chunk::<12>().ok_or(Malformed::Short)?;
        let [first, ..] = head;
        if first >> 6 != 2 {
            return Err(Malformed::Version);
        }
        let mut at = 12 + 4 * usize::from(first & 0x0f);
        let mut extension = (0, &[][..]);
        if first & 0x10 != 0 {
            let profile = u16_at(bytes, at).ok_or(Malformed::Header)?;
            let words = usize::from(u16_at(bytes, at + 2).ok_or(Malformed::Header)?);
            let body = bytes.get(at + 4..at + 4 + 4 * words).ok_or(Malformed::Header)?;
            extension = (profile, body);
            at += 4 + 4 * words;
        }
        let mut payload = bytes.get(at..).ok_or(Malformed::Header)?;
        if first & 0x20 != 0 {
            // The last octet counts the padding, itself included; zero or more than there is is malformed (§A.1).
            let padding = usize::from(*payload.last().ok_or(Malformed::Header)?);
            if padding == 0 {
                return Err(Malformed::Header);
            }
            let kept = payload.len().checked_sub(padding).ok_or(Malformed::Header)?;
            payload = payload.get(..kept).ok_or(Malformed::Header)?;
        }
        Ok(RtpView { bytes, head, extension, payload })
    }

    /// The fixed header.
    pub const fn head(&self) -> &[u8; 12] {
        &self.head
    }

    /// The marker bit.
    #[inline]
    pub const fn marker(&self) -> bool {
        let [_, second, ..] = self.head;
        second & 0x80 != 0
    }

    /// The payload type, 0..=127.
    #[inline]
    pub const fn payload_type(&self) -> u8 {
        let [_, second, ..] = self.head;
        second & 0x7f
    }

    /// The sequence number.
    #[inline]
    pub const fn sequence(&self) -> u16 {
        let [_, _, a, b, ..] = self.head;
        u16::from_be_bytes([a, b])
    }

    /// The timestamp, in units of the payload's clock.
    #[inline]
    pub fn timestamp(&self) -> u32 {
        word::<4>(&self.head)
    }

    /// The synchronisation source.
    #[inline]
    pub fn ssrc(&self) -> u32 {
        word::<8>(&self.head)
    }

    /// Whether there is a header extension.
    #[inline]
    pub const fn is_extended(&self) -> bool {
        let [first, ..] = self.head;
        first & 0x10 != 0
    }

    /// The contributing sources.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + 'a {
        let [first, ..] = self.head;
        let count = usize::from(first & 0x0f);
        let list = self.bytes.get(12..12 + 4 * count).unwrap_or_default();
        list.chunks_exact(4).filter_map(|c| c.first_chunk().map(|b| u32::from_be_bytes(*b)))
    }

    /// The elements of the header extension (RFC 8285); none if there is no extension or it is of another profile.
    pub fn elements(&self) -> Elements<'a> {
        Elements::new(self.extension.0, self.extension.1)
    }

    /// The payload without its padding.
    #[inline]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        let fixed = [0x80, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        let with = |first: u8, rest: &[u8]| {
            let mut packet = fixed.to_vec();
            packet[0] = first;
            packet.extend_from_slice(rest);
            RtpView::parse(&packet).map(|v| v.payload().len())
        };
        assert_eq!(with(0x80, &[1, 2]), Ok(2));
        assert_eq!(RtpView::parse(&fixed[..11]).err(), Some(Malformed::Short));
        assert_eq!(with(0x40, &[]), Err(Malformed::Version));
        assert_eq!(with(0x8f, &[0; 59]), Err(Malformed::Header), "15 CSRCs need 60 octets");
        assert_eq!(with(0x8f, &[0; 60]), Ok(0));
        assert_eq!(with(0x90, &[0xbe, 0xde]), Err(Malformed::Header));
        assert_eq!(with(0x90, &[0xbe, 0xde, 0xff, 0xff, 0, 0, 0, 0]), Err(Malformed::Header));
        assert_eq!(with(0x90, &[0xbe, 0xde, 0, 1, 0, 0, 0, 0, 9]), Ok(1));
        assert_eq!(with(0xa0, &[]), Err(Malformed::Header), "padding without an octet");
        assert_eq!(with(0xa0, &[7, 0]), Err(Malformed::Header), "padding of zero");
        assert_eq!(with(0xa0, &[7, 3]), Err(Malformed::Header), "more padding than payload");
        assert_eq!(with(0xa0, &[7, 1]), Ok(1));
    }

    proptest! {
        // What rtp-types accepts we accept, with the same reading.
        #[test]
        fn reads_as_rtp_types_does(bytes in prop::collection::vec(any::<u8>(), 0..120), fix in any::<bool>()) {
            let mut bytes = bytes;
            if fix && let Some(first) = bytes.first_mut() { *first = 0x80 | (*first & 0x3f); }
            let ours = RtpView::parse(&bytes);
            if let Ok(theirs) = rtp_types::RtpPacket::parse(&bytes) {
                let ours = ours.map_err(|e| TestCaseError::fail(e.to_string()))?;
                prop_assert_eq!(ours.ssrc(), theirs.ssrc());
                prop_assert_eq!(ours.sequence(), theirs.sequence_number());
                prop_assert_eq!(ours.timestamp(), theirs.timestamp());
                prop_assert_eq!(ours.payload_type(), theirs.payload_type());
                prop_assert_eq!(ours.marker(), theirs.marker_bit());
                prop_assert_eq!(ours.payload(), theirs.payload());
                prop_assert!(ours.csrcs().eq(theirs.csrc()));
            }
        }
    }
}
