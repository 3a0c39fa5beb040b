//! A map of few things, in the order of their keys: two or three for nearly all contexts, for which a tree would allocate
//! room for eleven. Of many it is a sorted vector: putting one in the middle moves the others, at control rate.

/// See the head of the file.
#[derive(Clone, Debug)]
pub(crate) struct Few<K, V>(Vec<(K, V)>);

/// Up to so many grow one by one.
const EXACT: usize = 8;

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Few(Vec::new())
    }
}

impl<K: Ord, V> Few<K, V> {
    fn at(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(of, _)| of.cmp(key))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.at(key).is_ok()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(self.at(key).ok()?).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.at(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// What was there before is given.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.at(&key) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                if self.0.len() < EXACT {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.at(key).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> + Clone {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = &K> + Clone {
        self.0.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone {
        self.0.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_is_a_map_in_the_order_of_its_keys() {
        let (mut few, mut tree) = (Few::default(), BTreeMap::new());
        for step in 0u64..2000 {
            // Any order, keys that come again, some that go.
            let key = step * 7919 % 61;
            match step % 3 {
                0 | 1 => assert_eq!(few.insert(key, step), tree.insert(key, step)),
                _ => assert_eq!(few.remove(&key), tree.remove(&key)),
            }
            if let (Some(a), Some(b)) = (few.get_mut(&3), tree.get_mut(&3)) {
                (*a, *b) = (step, step);
            }
            few.values_mut().zip(tree.values_mut()).for_each(|(a, b)| (*a, *b) = (*a + 1, *b + 1));
            assert!(
                few.iter().eq(tree.iter()) && few.keys().eq(tree.keys()) && few.values().eq(tree.values())
            );
            assert_eq!((few.len(), few.is_empty()), (tree.len(), tree.is_empty()));
            assert_eq!((few.get(&key), few.contains_key(&key)), (tree.get(&key), tree.contains_key(&key)));
        }
    }
}
