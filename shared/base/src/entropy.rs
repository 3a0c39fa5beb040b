//! Randomness that replays: a stream cipher seeded once. A process seeds it from the system, a simulation
//! from its seed.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use crate::HashSeed;

/// A source of unguessable, replayable numbers and tokens.
#[derive(Clone)]
pub struct Entropy(ChaCha12Rng);

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

impl Entropy {
    /// From 32 bytes of the system's randomness, or of a test's seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Entropy(ChaCha12Rng::from_seed(seed))
    }

    /// For tests and simulations: a short seed.
    pub fn from_number(seed: u64) -> Self {
        Entropy(ChaCha12Rng::seed_from_u64(seed))
    }

    /// A child with its own stream: what it draws does not disturb its parent.
    pub fn child(&mut self) -> Entropy {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        Entropy::from_seed(seed)
    }

    /// 32 random bits.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; zero when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.u64()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    /// Fills a slice.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// A token of at least `bits` random bits in letters and digits only: legal as SIP tag, branch, Call-ID,
    /// MSRP session-id and transaction id alike. Five bits a character.
    pub fn token(&mut self, bits: usize) -> String {
        let mut text = vec![0; bits.div_ceil(5)];
        self.fill_token(&mut text);
        text.into_iter().map(char::from).collect()
    }

    /// The same in place: five random bits in each octet.
    pub fn fill_token(&mut self, text: &mut [u8]) {
        const ALPHABET: [u8; 32] = *b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut left = 0;
        let mut pool = 0;
        for octet in text {
            if left < 5 {
                pool = self.u64();
                left = 64;
            }
            *octet = ALPHABET.get((pool & 31) as usize).copied().unwrap_or(b'a');
            pool >>= 5;
            left -= 5;
        }
    }

    /// A seed for hash tables.
    pub fn hash_seed(&mut self) -> HashSeed {
        HashSeed(self.u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_replay_and_have_the_length_that_the_bits_ask() {
        let (mut a, mut b) = (Entropy::from_number(1), Entropy::from_number(1));
        let token = a.token(128);
        assert_eq!(token, b.token(128));
        assert_eq!(token.len(), 26);
        assert!(token.bytes().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(token, a.token(128));
    }

    #[test]
    fn below_stays_below() {
        let mut e = Entropy::from_number(2);
        assert!((0..1000).all(|_| e.below(7) < 7));
        assert_eq!(e.below(0), 0);
    }
}
