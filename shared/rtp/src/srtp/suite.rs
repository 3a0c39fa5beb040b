//! Cipher suites, their sizes, and master keys.

use std::fmt;

use base::{Entropy, Private};

/// A crypto suite: what RFC 4568 §6.2, RFC 6188 §2 and RFC 7714 §14 name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Suite {
    /// AES_CM_128_HMAC_SHA1_80
    AesCm128HmacSha1_80,
    /// AES_CM_128_HMAC_SHA1_32: RTP has a tag of 32 bits, RTCP one of 80 all the same.
    AesCm128HmacSha1_32,
    /// AES_256_CM_HMAC_SHA1_80
    AesCm256HmacSha1_80,
    /// AES_256_CM_HMAC_SHA1_32
    AesCm256HmacSha1_32,
    /// AEAD_AES_128_GCM
    AeadAes128Gcm,
    /// AEAD_AES_256_GCM
    AeadAes256Gcm,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Suite; 6] = [
        Suite::AesCm128HmacSha1_80,
        Suite::AesCm128HmacSha1_32,
        Suite::AesCm256HmacSha1_80,
        Suite::AesCm256HmacSha1_32,
        Suite::AeadAes128Gcm,
        Suite::AeadAes256Gcm,
    ];

    /// Octets of the master key, and of each session encryption key.
    pub const fn key_octets(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 | Suite::AeadAes128Gcm => 16,
            Suite::AesCm256HmacSha1_80 | Suite::AesCm256HmacSha1_32 | Suite::AeadAes256Gcm => 32,
        }
    }

    /// Octets of the master salt: 112 bits for AES-CM (RFC 3711 §8.2), 96 for GCM (RFC 7714 §12).
    pub const fn salt_octets(self) -> usize {
        if self.is_aead() { 12 } else { 14 }
    }

    /// Octets that protection adds to an RTP packet.
    pub const fn rtp_octets(self) -> usize {
        match self {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm256HmacSha1_80 => 10,
            Suite::AesCm128HmacSha1_32 | Suite::AesCm256HmacSha1_32 => 4,
            Suite::AeadAes128Gcm | Suite::AeadAes256Gcm => 16,
        }
    }

    /// Octets that protection adds to an RTCP packet: tag and index. The tag is never the short one (RFC 4568 §6.2.2).
    pub const fn rtcp_octets(self) -> usize {
        if self.is_aead() { 20 } else { 14 }
    }

    pub(super) const fn is_aead(self) -> bool {
        matches!(self, Suite::AeadAes128Gcm | Suite::AeadAes256Gcm)
    }
}

/// The most octets of a master key with its salt.
pub const KEYING_MAX: usize = 46;

/// A master key and its salt. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keying {
    suite: Suite,
    octets: Private<[u8; KEYING_MAX]>,
}

impl Keying {
    /// From key and salt, one after the other, as SDES (RFC 4568 §6.1) has them; `None`: not the suite's length.
    pub fn new(suite: Suite, key_and_salt: &[u8]) -> Option<Self> {
        if key_and_salt.len() != suite.key_octets() + suite.salt_octets() {
            return None;
        }
        let mut octets = [0; KEYING_MAX];
        octets.get_mut(..key_and_salt.len())?.copy_from_slice(key_and_salt);
        Some(Keying { suite, octets: Private::new(octets) })
    }

    /// A fresh one.
    pub fn draw(suite: Suite, entropy: &mut Entropy) -> Self {
        let mut octets = [0; KEYING_MAX];
        if let Some(used) = octets.get_mut(..suite.key_octets() + suite.salt_octets()) {
            entropy.fill(used);
        }
        Keying { suite, octets: Private::new(octets) }
    }

    /// Its suite.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Key and salt, one after the other: for the wire.
    pub fn expose(&self) -> &[u8] {
        self.octets.expose().get(..self.suite.key_octets() + self.suite.salt_octets()).unwrap_or_default()
    }

    pub(super) fn key(&self) -> &[u8] {
        self.expose().get(..self.suite.key_octets()).unwrap_or_default()
    }

    pub(super) fn salt(&self) -> &[u8] {
        self.expose().get(self.suite.key_octets()..).unwrap_or_default()
    }
}

impl fmt::Debug for Keying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keying({:?})", self.suite)
    }
}
