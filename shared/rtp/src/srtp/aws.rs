//! The cipher library in use: aws-lc-rs. Nothing of it is asked for randomness.

use aws_lc_rs::aead::{self, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::{constant_time, hmac, iv::FixedLength};

use super::{Aead, CounterMode, Crypto, Mac};

/// aws-lc-rs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AwsLc {}

impl Crypto for AwsLc {
    type Counter = EncryptingKey;
    type Mac = hmac::Key;
    type Aead = LessSafeKey;

    fn counter(key: &[u8]) -> Option<EncryptingKey> {
        let algorithm = if key.len() == 32 { &cipher::AES_256 } else { &cipher::AES_128 };
        EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key).ok()?).ok()
    }

    fn mac(key: &[u8]) -> Option<hmac::Key> {
        Some(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key))
    }

    fn aead(key: &[u8]) -> Option<LessSafeKey> {
        let algorithm = if key.len() == 32 { &aead::AES_256_GCM } else { &aead::AES_128_GCM };
        Some(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?))
    }
}

impl CounterMode for EncryptingKey {
    #[inline]
    fn apply(&self, iv: &[u8; 16], data: &mut [u8]) -> bool {
        self.less_safe_encrypt(data, EncryptionContext::Iv128(FixedLength::from(iv))).is_ok()
    }
}

#[inline]
fn tag(key: &hmac::Key, first: &[u8], second: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(first);
    context.update(second);
    context.sign()
}

impl Mac for hmac::Key {
    #[inline]
    fn sign(&self, first: &[u8], second: &[u8]) -> [u8; 20] {
        let mut octets = [0; 20];
        octets.iter_mut().zip(tag(self, first, second).as_ref()).for_each(|(to, from)| *to = *from);
        octets
    }

    #[inline]
    fn verify(&self, first: &[u8], second: &[u8], claimed: &[u8]) -> bool {
        let whole = tag(self, first, second);
        let ours = whole.as_ref().get(..claimed.len()).unwrap_or_default();
        !claimed.is_empty() && constant_time::verify_slices_are_equal(ours, claimed).is_ok()
    }
}

impl Aead for LessSafeKey {
    #[inline]
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> Option<[u8; 16]> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), data).ok()?;
        tag.as_ref().first_chunk().copied()
    }

    #[inline]
    fn open(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> bool {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.open_in_place_separate_tag(nonce, aead::Aad::from(aad), tag, data).is_ok()
    }
}
