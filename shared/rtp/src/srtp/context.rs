//! The two directions of a leg: what we protect, and what a peer protected.

use super::seal::{Place, RTCP_HEAD, Session};
use super::streams::{Config, Progress, Streams};
use super::window::{RTCP_LAST, RTP_LAST, guess};
use super::{AwsLc, Crypto, Keying, SrtpError, Suite};
use crate::Malformed;

/// What we send under one master key.
#[derive(Debug)]
pub struct Outbound<C: Crypto = AwsLc> {
    suite: Suite,
    session: Session<C>,
    streams: Streams,
    /// The SRTCP index at which a source begins.
    rtcp_first: u32,
}

/// What a peer sends under one master key.
#[derive(Debug)]
pub struct Inbound<C: Crypto = AwsLc> {
    suite: Suite,
    session: Session<C>,
    streams: Streams,
}

/// Where the fixed fields of an RTP packet are: its header's octets, its sequence number, its source. Padding is not
/// looked at: in a protected packet its count is encrypted.
#[inline]
fn head(bytes: &[u8]) -> Result<(usize, u16, u32), Malformed> {
    let [first, _, s0, s1, _, _, _, _, c0, c1, c2, c3] =
        *bytes.first_chunk::<12>().ok_or(Malformed::Short)?;
    if first >> 6 != 2 {
        return Err(Malformed::Version);
    }
    let mut octets = 12 + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let extension = bytes.get(octets..).and_then(|b| b.first_chunk::<4>()).ok_or(Malformed::Header)?;
        let [_, _, w0, w1] = *extension;
        octets += 4 + 4 * usize::from(u16::from_be_bytes([w0, w1]));
    }
    if octets > bytes.len() {
        return Err(Malformed::Header);
    }
    Ok((octets, u16::from_be_bytes([s0, s1]), u32::from_be_bytes([c0, c1, c2, c3])))
}

/// The sender of an RTCP packet, protected or not: under whose index it goes (RFC 3711 §3.4).
#[inline]
pub fn rtcp_sender(bytes: &[u8]) -> Result<u32, Malformed> {
    let [first, _, _, _, c0, c1, c2, c3] = *bytes.first_chunk::<RTCP_HEAD>().ok_or(Malformed::Short)?;
    if first >> 6 != 2 {
        return Err(Malformed::Version);
    }
    Ok(u32::from_be_bytes([c0, c1, c2, c3]))
}

impl<C: Crypto> Outbound<C> {
    /// A context of a master key.
    pub fn new(keying: &Keying, config: Config) -> Result<Self, SrtpError> {
        let (session, streams) = (Session::new(keying)?, Streams::new(config));
        // RFC 3711 §3.4: the index begins at zero.
        Ok(Outbound { suite: keying.suite(), session, streams, rtcp_first: 0 })
    }

    /// Its suite.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Protects the RTP packet in the first `length` octets of `buffer`, which has room for
    /// [`Suite::rtp_octets`] more; the length that it has now. An index is never used twice: a packet with a
    /// sequence number that was sent already is [`SrtpError::Replayed`], and nothing of `buffer` has changed then.
    #[inline]
    pub fn rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get(..length).ok_or(SrtpError::Room)?;
        let (head, sequence, ssrc) = head(packet)?;
        if buffer.len() < length + self.suite.rtp_octets() {
            return Err(SrtpError::Room);
        }
        let at = match self.streams.find(ssrc) {
            Some(at) => at,
            None => self.streams.add(ssrc)?,
        };
        let (window, bits) = self.streams.rtp(at).ok_or(SrtpError::Sources)?;
        let index = if window.fresh {
            u64::from(sequence)
        } else {
            guess(window.highest, sequence).ok_or(SrtpError::Old)?
        };
        if index > RTP_LAST {
            return Err(SrtpError::UsedUp);
        }
        window.check(bits, index)?;
        window.mark(bits, index);
        self.session.seal_rtp(buffer, head, length, Place { ssrc, index })
    }

    /// Protects the RTCP compound in the first `length` octets of `buffer`, which has room for
    /// [`Suite::rtcp_octets`] more; the length that it has now.
    pub fn rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, SrtpError> {
        let ssrc = rtcp_sender(buffer.get(..length).ok_or(SrtpError::Room)?)?;
        if buffer.len() < length + self.suite.rtcp_octets() {
            return Err(SrtpError::Room);
        }
        let at = self.streams.add(ssrc)?;
        let (window, bits) = self.streams.rtcp(at).ok_or(SrtpError::Sources)?;
        let index = if window.fresh { u64::from(self.rtcp_first) } else { window.highest + 1 };
        // RFC 3711 §9.2: 2^31 packets, then the key is used up.
        if index > RTCP_LAST {
            return Err(SrtpError::UsedUp);
        }
        window.mark(bits, index);
        self.session.seal_rtcp(buffer, length, Place { ssrc, index })
    }

    /// How far each source has come.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        self.streams.export()
    }

    /// Lets sources begin with that SRTCP index: for a key that was in use before, when nobody knows how far.
    pub fn begin_rtcp_at(&mut self, index: u32) {
        self.rtcp_first = index & !(1 << 31);
    }

    /// Goes on from where a source was, never back. `rtcp_skip` SRTCP indices are left out, for state that may be older
    /// than the last packet sent: an index must not be used twice. (An RTP index follows from its packet's sequence
    /// number: whoever numbers a stream himself leaves numbers out.)
    pub fn resume(&mut self, progress: &Progress, rtcp_skip: u32) -> Result<(), SrtpError> {
        let rtcp_index = progress.rtcp_index.saturating_add(rtcp_skip).min(1 << 31).max(self.rtcp_first);
        let seen = if rtcp_skip == 0 { progress.rtcp_seen } else { u64::MAX };
        self.streams.import(&Progress { rtcp_index, rtcp_seen: seen, ..*progress })
    }
}

impl<C: Crypto> Inbound<C> {
    /// A context of a master key.
    pub fn new(keying: &Keying, config: Config) -> Result<Self, SrtpError> {
        let (session, streams) = (Session::new(keying)?, Streams::new(config));
        Ok(Inbound { suite: keying.suite(), session, streams })
    }

    /// Its suite.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Authenticates and decrypts an SRTP packet in place; the octets that are RTP now. After an error the packet is
    /// worthless, and nothing of it is remembered (RFC 3711 §3.3: the state moves only for what is authentic).
    #[inline]
    pub fn rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let (head, sequence, ssrc) = head(packet)?;
        self.session.open_length(packet.len(), head)?;
        let known = self.streams.find(ssrc);
        let index = match known.and_then(|at| self.streams.rtp(at)) {
            Some((window, bits)) if !window.fresh => {
                let index = guess(window.highest, sequence).ok_or(SrtpError::Old)?;
                window.check(bits, index)?;
                index
            }
            _ => u64::from(sequence),
        };
        if index > RTP_LAST {
            return Err(SrtpError::UsedUp);
        }
        if known.is_none() && !self.streams.has_room() {
            return Err(SrtpError::Sources);
        }
        let length = self.session.open_rtp(packet, head, Place { ssrc, index })?;
        let at = match known {
            Some(at) => at,
            None => self.streams.add(ssrc)?,
        };
        if let Some((window, bits)) = self.streams.rtp(at) {
            window.mark(bits, index);
        }
        Ok(length)
    }

    /// The same for SRTCP.
    pub fn rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = rtcp_sender(packet)?;
        let index = self.session.rtcp_index(packet)?;
        let known = self.streams.find(ssrc);
        if let Some((window, bits)) = known.and_then(|at| self.streams.rtcp(at)) {
            window.check(bits, index)?;
        }
        if known.is_none() && !self.streams.has_room() {
            return Err(SrtpError::Sources);
        }
        let length = self.session.open_rtcp(packet, Place { ssrc, index })?;
        let at = self.streams.add(ssrc)?;
        if let Some((window, bits)) = self.streams.rtcp(at) {
            window.mark(bits, index);
        }
        Ok(length)
    }

    /// How far each source has come.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        self.streams.export()
    }

    /// Goes on from where a source was; never back.
    pub fn resume(&mut self, progress: &Progress) -> Result<(), SrtpError> {
        self.streams.import(progress)
    }
}
