//! Which IMDNs have passed: of each disposition of a message only the first of each recipient, whichever of his devices
//! it comes from, and never `failed` after a positive one (CPM-FACTS §2.11, REQ-PF-17). Bounded: the oldest message is
//! forgotten first.

use std::collections::{BTreeMap, VecDeque};

use cpm::imdn::{Imdn, Notification, Passed};

#[derive(Debug, Default)]
struct Entry {
    passed: Passed,
    failures: usize,
}

/// What passed in one context.
#[derive(Debug)]
pub(crate) struct Memory {
    entries: BTreeMap<String, Entry>,
    order: VecDeque<String>,
    max: usize,
}

impl Memory {
    pub(crate) fn with_max(max: usize) -> Self {
        Memory { entries: BTreeMap::new(), order: VecDeque::new(), max }
    }

    /// Whether an IMDN from one of `devices` goes on to the message's sender. `whose` tells recipients apart.
    pub(crate) fn pass(&mut self, whose: &str, imdn: &Imdn, devices: usize) -> bool {
        // One that we cannot read is passed on and never acted upon.
        let Some(notification) = imdn.notification else { return true };
        let key = [whose, imdn.message_id.as_str()].join("\n");
        if !self.entries.contains_key(&key) {
            if self.order.len() >= self.max
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        let entry = self.entries.entry(key).or_default();
        if notification == Notification::FAILED {
            // Held until no device is left that could still take the message.
            entry.failures += 1;
            return entry.failures >= devices && entry.passed.give_up();
        }
        entry.passed.pass(notification)
    }
}
