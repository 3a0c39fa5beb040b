//! Hash tables whose order is the same in each run with the same seed. In production the seed is drawn at
//! start, so that a peer cannot choose keys that collide.

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

/// A hash table with a seeded hasher; make one with [`map`].
pub type Map<K, V> = hashbrown::HashMap<K, V, SeedableRandomState>;
/// A hash set with a seeded hasher; make one with [`set`].
pub type Set<K> = hashbrown::HashSet<K, SeedableRandomState>;

/// The seed of every table of one machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HashSeed(pub u64);

impl HashSeed {
    fn state(self) -> SeedableRandomState {
        SeedableRandomState::with_seed(self.0, SharedSeed::global_fixed())
    }
}

/// An empty table.
pub fn map<K, V>(seed: HashSeed) -> Map<K, V> {
    Map::with_hasher(seed.state())
}

/// An empty set.
pub fn set<K>(seed: HashSeed) -> Set<K> {
    Set::with_hasher(seed.state())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_order() {
        let order = |seed| {
            let mut m = map(HashSeed(seed));
            m.extend((0..100).map(|i| (i, ())));
            m.into_iter().map(|(k, ())| k).collect::<Vec<i32>>()
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
    }
}
