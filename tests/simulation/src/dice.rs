//! All chance of a world comes from here.

use base::Entropy;

/// Dice that fall the same for the same seed.
pub(crate) struct Dice(Entropy);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(Entropy::from_number(seed))
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high - low + 1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.0.below(100) < chance
    }

    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.0.below(among.len() as u64) as usize]
    }

    pub(crate) fn token(&mut self, bits: usize) -> String {
        self.0.token(bits)
    }

    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.0.below(at as u64 + 1) as usize);
        }
    }
}
