//! One packet under its session keys: SRTP (RFC 3711 §3.1, RFC 7714 §8) and SRTCP (RFC 3711 §3.4, RFC 7714 §9).
//!
//! ```text
//! SRTP,  AES-CM:  header | encrypted payload | tag                    tag over all before it and ROC
//! SRTP,  GCM:     header | encrypted payload | tag                    header is the associated data
//! SRTCP, AES-CM:  8 octets | encrypted rest | E, index | tag          tag over all before it
//! SRTCP, GCM:     8 octets | encrypted rest | tag | E, index          8 octets, E and index are associated data
//! ```

use std::fmt;

use super::derive::{Label, derive};
use super::{Aead, CounterMode, Crypto, Keying, Mac, SrtpError, Suite};
use crate::Malformed;

/// Octets of RTCP that are never encrypted: the first packet's header and its sender.
pub(super) const RTCP_HEAD: usize = 8;
/// The E bit: what follows the first eight octets is encrypted.
const ENCRYPTED: u32 = 1 << 31;
const RTCP_TAG: usize = 10;
const GCM_TAG: usize = 16;

/// The keys of one protocol.
enum Keys<C: Crypto> {
    CounterMode { cipher: C::Counter, mac: C::Mac, salt: [u8; 14], tag: usize },
    Gcm { cipher: C::Aead, salt: [u8; 12] },
}

/// The session keys of one master key. Never printed.
pub(super) struct Session<C: Crypto> {
    rtp: Keys<C>,
    rtcp: Keys<C>,
}

impl<C: Crypto> fmt::Debug for Session<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// What says where a packet stands in its stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) ssrc: u32,
    pub(super) index: u64,
}

impl<C: Crypto> Keys<C> {
    fn new(keying: &Keying, labels: [Label; 3], tag: usize) -> Result<Self, SrtpError> {
        let suite = keying.suite();
        let [cipher_label, auth_label, salt_label] = labels;
        let (cipher, octets) = derive::<C>(keying, cipher_label, suite.key_octets())?;
        let cipher = cipher.get(..octets).ok_or(SrtpError::Cipher)?;
        let (salt, _) = derive::<C>(keying, salt_label, suite.salt_octets())?;
        if suite.is_aead() {
            let cipher = C::aead(cipher).ok_or(SrtpError::Cipher)?;
            return Ok(Keys::Gcm { cipher, salt: *salt.first_chunk().ok_or(SrtpError::Cipher)? });
        }
        // n_a is 160 bits whatever the length of the cipher's key (RFC 3711 §8.2, RFC 6188 §4).
        let (mac, octets) = derive::<C>(keying, auth_label, 20)?;
        let mac = mac.get(..octets).and_then(C::mac).ok_or(SrtpError::Cipher)?;
        let cipher = C::counter(cipher).ok_or(SrtpError::Cipher)?;
        Ok(Keys::CounterMode { cipher, mac, salt: *salt.first_chunk().ok_or(SrtpError::Cipher)?, tag })
    }
}

/// IV of AES-CM (RFC 3711 §4.1.1): (k_s * 2^16) XOR (SSRC * 2^64) XOR (i * 2^16).
#[inline]
fn counter_iv(salt: &[u8; 14], at: Place) -> [u8; 16] {
    let mut octets = [0; 16];
    octets.iter_mut().zip(salt).for_each(|(to, from)| *to = *from);
    let iv = u128::from_be_bytes(octets) ^ (u128::from(at.ssrc) << 64) ^ (u128::from(at.index) << 16);
    iv.to_be_bytes()
}

/// IV of GCM (RFC 7714 §8.1, §9.1): two zeros, SSRC, 48 bits of index, XOR salt.
#[inline]
fn gcm_iv(salt: &[u8; 12], at: Place) -> [u8; 12] {
    let mut octets = [0; 16];
    octets.iter_mut().skip(4).zip(salt).for_each(|(to, from)| *to = *from);
    let iv = u128::from_be_bytes(octets) ^ (u128::from(at.ssrc) << 48) ^ u128::from(at.index);
    let [_, _, _, _, iv @ ..] = iv.to_be_bytes();
    iv
}

impl<C: Crypto> Session<C> {
    pub(super) fn new(keying: &Keying) -> Result<Self, SrtpError> {
        let tag = if matches!(keying.suite(), Suite::AesCm128HmacSha1_32 | Suite::AesCm256HmacSha1_32) {
            4
        } else {
            10
        };
        Ok(Session {
            rtp: Keys::new(keying, [Label::RtpCipher, Label::RtpAuth, Label::RtpSalt], tag)?,
            rtcp: Keys::new(keying, [Label::RtcpCipher, Label::RtcpAuth, Label::RtcpSalt], RTCP_TAG)?,
        })
    }

    /// From session keys, as the vectors of RFC 7714 have them.
    #[cfg(test)]
    pub(super) fn of_gcm(key: &[u8], salt: &[u8; 12]) -> Self {
        let keys = || Keys::Gcm { cipher: C::aead(key).unwrap(), salt: *salt };
        Session { rtp: keys(), rtcp: keys() }
    }

    /// Protects the RTP packet in the first `length` octets, whose header takes `head`; the new length.
    #[inline]
    pub(super) fn seal_rtp(
        &self,
        buffer: &mut [u8],
        head: usize,
        length: usize,
        at: Place,
    ) -> Result<usize, SrtpError> {
        match &self.rtp {
            Keys::CounterMode { cipher, mac, salt, tag } => {
                let (packet, rest) = buffer.split_at_mut_checked(length).ok_or(SrtpError::Room)?;
                let room = rest.get_mut(..*tag).ok_or(SrtpError::Room)?;
                let payload = packet.get_mut(head..).ok_or(SrtpError::Room)?;
                if !cipher.apply(&counter_iv(salt, at), payload) {
                    return Err(SrtpError::Cipher);
                }
                let rollover = ((at.index >> 16) as u32).to_be_bytes();
                put(room, &mac.sign(packet, &rollover));
                Ok(length + tag)
            }
            Keys::Gcm { cipher, salt } => {
                let (packet, rest) = buffer.split_at_mut_checked(length).ok_or(SrtpError::Room)?;
                let room = rest.get_mut(..GCM_TAG).ok_or(SrtpError::Room)?;
                let (head, payload) = packet.split_at_mut_checked(head).ok_or(SrtpError::Room)?;
                put(room, &cipher.seal(&gcm_iv(salt, at), head, payload).ok_or(SrtpError::Cipher)?);
                Ok(length + GCM_TAG)
            }
        }
    }

    /// The length of an SRTP packet without its tag.
    #[inline]
    pub(super) fn open_length(&self, length: usize, head: usize) -> Result<usize, SrtpError> {
        let tag = match &self.rtp {
            Keys::CounterMode { tag, .. } => *tag,
            Keys::Gcm { .. } => GCM_TAG,
        };
        let clear = length.checked_sub(tag).filter(|clear| *clear >= head);
        clear.ok_or(SrtpError::Malformed(Malformed::Short))
    }

    /// Authenticates and decrypts the SRTP packet; its new length.
    #[inline]
    pub(super) fn open_rtp(&self, bytes: &mut [u8], head: usize, at: Place) -> Result<usize, SrtpError> {
        let length = self.open_length(bytes.len(), head)?;
        let (packet, tag) = bytes.split_at_mut_checked(length).ok_or(SrtpError::Room)?;
        match &self.rtp {
            Keys::CounterMode { cipher, mac, salt, .. } => {
                let rollover = ((at.index >> 16) as u32).to_be_bytes();
                // RFC 3711 §3.3: authentication before decryption.
                if !mac.verify(packet, &rollover, tag) {
                    return Err(SrtpError::Unauthentic);
                }
                let payload = packet.get_mut(head..).ok_or(SrtpError::Room)?;
                if !cipher.apply(&counter_iv(salt, at), payload) {
                    return Err(SrtpError::Cipher);
                }
            }
            Keys::Gcm { cipher, salt } => {
                let tag: &[u8; GCM_TAG] = tag.first_chunk().ok_or(SrtpError::Room)?;
                let (head, payload) = packet.split_at_mut_checked(head).ok_or(SrtpError::Room)?;
                if !cipher.open(&gcm_iv(salt, at), head, payload, tag) {
                    return Err(SrtpError::Unauthentic);
                }
            }
        }
        Ok(length)
    }

    /// Protects the RTCP packet in the first `length` octets; the new length. It is always encrypted.
    pub(super) fn seal_rtcp(&self, buffer: &mut [u8], length: usize, at: Place) -> Result<usize, SrtpError> {
        let word = (ENCRYPTED | at.index as u32).to_be_bytes();
        match &self.rtcp {
            Keys::CounterMode { cipher, mac, salt, tag } => {
                let signed = buffer.get_mut(..length + 4).ok_or(SrtpError::Room)?;
                let (packet, index) = signed.split_at_mut_checked(length).ok_or(SrtpError::Room)?;
                let body = packet.get_mut(RTCP_HEAD..).ok_or(SrtpError::Room)?;
                if !cipher.apply(&counter_iv(salt, at), body) {
                    return Err(SrtpError::Cipher);
                }
                put(index, &word);
                let sign = mac.sign(signed, &[]);
                put(buffer.get_mut(length + 4..length + 4 + tag).ok_or(SrtpError::Room)?, &sign);
                Ok(length + 4 + tag)
            }
            Keys::Gcm { cipher, salt } => {
                let (packet, rest) = buffer.split_at_mut_checked(length).ok_or(SrtpError::Room)?;
                let trailer = rest.get_mut(..GCM_TAG + 4).ok_or(SrtpError::Room)?;
                let (head, body) = packet.split_at_mut_checked(RTCP_HEAD).ok_or(SrtpError::Room)?;
                let mut aad = [0; RTCP_HEAD + 4];
                put(&mut aad, head);
                put(aad.get_mut(RTCP_HEAD..).unwrap_or_default(), &word);
                put(trailer, &cipher.seal(&gcm_iv(salt, at), &aad, body).ok_or(SrtpError::Cipher)?);
                put(trailer.get_mut(GCM_TAG..).unwrap_or_default(), &word);
                Ok(length + GCM_TAG + 4)
            }
        }
    }

    /// Where the word with E bit and index stands in an SRTCP packet.
    fn word_at(&self, length: usize) -> Result<usize, SrtpError> {
        let after = match &self.rtcp {
            Keys::CounterMode { tag, .. } => 4 + tag,
            Keys::Gcm { .. } => 4,
        };
        let least = match &self.rtcp {
            Keys::CounterMode { .. } => RTCP_HEAD,
            Keys::Gcm { .. } => RTCP_HEAD + GCM_TAG,
        };
        let at = length.checked_sub(after).filter(|at| *at >= least);
        at.ok_or(SrtpError::Malformed(Malformed::Short))
    }

    /// The index that an SRTCP packet says it has.
    pub(super) fn rtcp_index(&self, bytes: &[u8]) -> Result<u64, SrtpError> {
        let word = word(bytes, self.word_at(bytes.len())?)?;
        Ok(u64::from(word & !ENCRYPTED))
    }

    /// Authenticates and decrypts the SRTCP packet; its new length.
    pub(super) fn open_rtcp(&self, bytes: &mut [u8], at: Place) -> Result<usize, SrtpError> {
        let word_at = self.word_at(bytes.len())?;
        let word = word(bytes, word_at)?;
        let encrypted = word & ENCRYPTED != 0;
        match &self.rtcp {
            Keys::CounterMode { cipher, mac, salt, .. } => {
                let (signed, tag) = bytes.split_at_mut_checked(word_at + 4).ok_or(SrtpError::Room)?;
                if !mac.verify(signed, &[], tag) {
                    return Err(SrtpError::Unauthentic);
                }
                let body = signed.get_mut(RTCP_HEAD..word_at).ok_or(SrtpError::Room)?;
                if encrypted && !cipher.apply(&counter_iv(salt, at), body) {
                    return Err(SrtpError::Cipher);
                }
                Ok(word_at)
            }
            Keys::Gcm { cipher, salt } => {
                let length = word_at - GCM_TAG;
                let (packet, rest) = bytes.split_at_mut_checked(length).ok_or(SrtpError::Room)?;
                let tag: [u8; GCM_TAG] = *rest.first_chunk().ok_or(SrtpError::Room)?;
                let iv = gcm_iv(salt, at);
                let authentic = if encrypted {
                    let (head, body) = packet.split_at_mut_checked(RTCP_HEAD).ok_or(SrtpError::Room)?;
                    let mut aad = [0; RTCP_HEAD + 4];
                    put(&mut aad, head);
                    put(aad.get_mut(RTCP_HEAD..).unwrap_or_default(), &word.to_be_bytes());
                    cipher.open(&iv, &aad, body, &tag)
                } else {
                    // RFC 7714 §9.3: all of it is associated data; the word follows where the tag was.
                    put(rest, &word.to_be_bytes());
                    let aad = bytes.get(..length + 4).ok_or(SrtpError::Room)?;
                    cipher.open(&iv, aad, &mut [], &tag)
                };
                if authentic { Ok(length) } else { Err(SrtpError::Unauthentic) }
            }
        }
    }
}

/// Copies as much as fits.
#[inline]
fn put(to: &mut [u8], from: &[u8]) {
    let octets = to.len().min(from.len());
    if let (Some(to), Some(from)) = (to.get_mut(..octets), from.get(..octets)) {
        to.copy_from_slice(from);
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, SrtpError> {
    let octets = bytes.get(at..).and_then(|b| b.first_chunk());
    octets.map(|b| u32::from_be_bytes(*b)).ok_or(SrtpError::Malformed(Malformed::Short))
}
