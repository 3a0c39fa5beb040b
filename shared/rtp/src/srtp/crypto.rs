//! What SRTP asks of a cipher library. Keys are made at control rate; the other calls are per packet and do not
//! allocate.

use std::fmt::Debug;

/// A cipher library.
pub trait Crypto: Debug {
    /// AES in counter mode.
    type Counter: CounterMode + Debug;
    /// HMAC-SHA1.
    type Mac: Mac + Debug;
    /// AES-GCM.
    type Aead: Aead + Debug;

    /// A counter-mode key of 16 or 32 octets.
    fn counter(key: &[u8]) -> Option<Self::Counter>;
    /// An HMAC-SHA1 key.
    fn mac(key: &[u8]) -> Option<Self::Mac>;
    /// An AES-GCM key of 16 or 32 octets.
    fn aead(key: &[u8]) -> Option<Self::Aead>;
}

/// AES in counter mode (RFC 3711 §4.1.1).
pub trait CounterMode {
    /// XORs the keystream that begins at block `iv` over `data`. False: the library refused.
    #[must_use]
    fn apply(&self, iv: &[u8; 16], data: &mut [u8]) -> bool;
}

/// HMAC-SHA1 (RFC 3711 §4.2.1).
pub trait Mac {
    /// The whole tag of `first` followed by `second`.
    fn sign(&self, first: &[u8], second: &[u8]) -> [u8; 20];
    /// Whether `tag` begins the tag of `first` followed by `second`; takes as long whatever the answer.
    #[must_use]
    fn verify(&self, first: &[u8], second: &[u8], tag: &[u8]) -> bool;
}

/// AES-GCM with a tag of 16 octets (RFC 7714 §5).
pub trait Aead {
    /// Encrypts in place; the tag.
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> Option<[u8; 16]>;
    /// Decrypts in place what `data` is followed by its tag; false: not authentic, and `data` is worthless.
    #[must_use]
    fn open(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> bool;
}
