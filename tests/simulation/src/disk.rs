//! The disk of one shard: it does what the engine wants in that order, now at once, now late; sometimes it fails.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use forward::{SpillOrder, SpillWord};

use crate::dice::Dice;
use crate::mutate::Mutation;

/// What is on it, and what it is to do.
#[derive(Default)]
pub(crate) struct Disk {
    files: BTreeMap<u64, Vec<u8>>,
    pub(crate) orders: VecDeque<SpillOrder>,
    pub(crate) due: bool,
    /// Files of which something failed: nothing of them is done any more.
    broken: Vec<u64>,
    /// Orders done.
    pub(crate) writes: u64,
    pub(crate) fetches: u64,
}

impl Disk {
    /// Does the next thing; what the engine is to hear of it.
    pub(crate) fn next(&mut self, dice: &mut Dice, broken: Option<Mutation>) -> Option<SpillWord> {
        let order = self.orders.pop_front()?;
        match order {
            SpillOrder::Write { file, bytes, .. } if self.fails(file.0, dice) => {
                Some(SpillWord::Failed { file, bytes: bytes.len() })
            }
            SpillOrder::Write { file, mark, at, bytes } => {
                self.writes += 1;
                let on_disk = self.files.entry(file.0).or_default();
                let end = at as usize + bytes.len();
                on_disk.resize(on_disk.len().max(end), b'?');
                if broken != Some(Mutation::LostWrite) || dice.percent(80) {
                    on_disk[at as usize..end].copy_from_slice(&bytes);
                }
                Some(SpillWord::Written { file, mark, bytes: bytes.len() })
            }
            SpillOrder::Fetch { file, .. } if self.fails(file.0, dice) => {
                Some(SpillWord::Failed { file, bytes: 0 })
            }
            // It is never heard of again.
            SpillOrder::Fetch { .. } if broken == Some(Mutation::LostFetch) && dice.percent(80) => None,
            SpillOrder::Fetch { file, mark, at, length } => {
                self.fetches += 1;
                let on_disk = self.files.get(&file.0).map(Vec::as_slice).unwrap_or_default();
                let bytes = Bytes::copy_from_slice(&on_disk[at as usize..][..length]);
                Some(SpillWord::Fetched { file, mark, bytes })
            }
            SpillOrder::End { file } => {
                self.files.remove(&file.0);
                None
            }
        }
    }

    fn fails(&mut self, file: u64, dice: &mut Dice) -> bool {
        if !self.broken.contains(&file) && dice.below(400) == 0 {
            self.broken.push(file);
        }
        self.broken.contains(&file)
    }

    /// Files that are there.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }
}
