//! The RTP ports of one shard: even and odd pairs (RFC 3550 §11), single ones for legs that multiplex RTCP (RFC
//! 5761), each taken and given back in constant time, the longest unused first. One that a leg had rests for a while
//! before another gets it: what is still sent to the old leg must not reach the new one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const EVEN_USED: u8 = 1;
const ODD_USED: u8 = 2;
const PAIR_QUEUED: u8 = 4;
const EVEN_QUEUED: u8 = 8;
const ODD_QUEUED: u8 = 16;

/// An allocator over some of the pairs of a range.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u16,
    /// By pair.
    state: Vec<u8>,
    /// Pairs that are free as a whole; what is stale is passed over.
    pairs: VecDeque<u16>,
    /// Single free ports, by port less `first`; what is stale is passed over.
    singles: VecDeque<u16>,
    /// Ports that are used no more and not free yet, and until when; in the order of time.
    resting: VecDeque<(Instant, u16)>,
    rest: Duration,
}

impl Ports {
    /// The pairs of `first..=last` whose number divides into `shards` with the remainder `shard`.
    pub(crate) fn new(first: u16, last: u16, rest: Duration, shard: usize, shards: usize) -> Self {
        let count = (u32::from(last) + 1).saturating_sub(u32::from(first)) / 2;
        let state = vec![0u8; count as usize];
        let (pairs, singles, resting) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let mut ports = Ports { first, state, pairs, singles, resting, rest };
        for pair in (0..ports.state.len()).filter(|pair| pair % shards.max(1) == shard) {
            ports.queue_pair(pair as u16);
        }
        ports
    }

    /// An even port whose odd neighbour is free too; both are taken.
    pub(crate) fn take_pair(&mut self) -> Option<u16> {
        while let Some(pair) = self.pairs.pop_front() {
            let state = self.state.get_mut(usize::from(pair))?;
            *state &= !PAIR_QUEUED;
            if *state & (EVEN_USED | ODD_USED) == 0 {
                *state |= EVEN_USED | ODD_USED;
                return Some(self.first + 2 * pair);
            }
        }
        None
    }

    /// Any one port.
    pub(crate) fn take_one(&mut self) -> Option<u16> {
        while let Some(offset) = self.singles.pop_front() {
            let (own, other, queued) = bits(offset);
            let state = self.state.get_mut(usize::from(offset / 2))?;
            *state &= !queued;
            // With its neighbour free as well it is half of a free pair, and left to those who need one.
            if *state & own == 0 && *state & other != 0 {
                *state |= own;
                return Some(self.first + offset);
            }
        }
        let even = self.take_pair()?;
        self.give(even + 1);
        Some(even)
    }

    /// Marks a port that control named as taken; false when it is taken already. One outside the range is not ours to
    /// count. It need not rest: it is its own leg's again.
    pub(crate) fn take_named(&mut self, port: u16) -> bool {
        let Some(offset) = self.offset(port) else { return true };
        if let Some(at) = self.resting.iter().position(|(_, resting)| *resting == port) {
            self.resting.remove(at);
            return true;
        }
        let (own, other, _) = bits(offset);
        let Some(state) = self.state.get_mut(usize::from(offset / 2)) else { return true };
        if *state & own != 0 {
            return false;
        }
        *state |= own;
        if *state & other == 0 {
            self.queue_single(offset ^ 1);
        }
        true
    }

    /// A leg needs its port no more: it is given back when it has rested.
    pub(crate) fn retire(&mut self, port: u16, now: Instant) {
        if self.rest.is_zero() {
            self.give(port);
        } else if self.offset(port).is_some() {
            self.resting.push_back((now + self.rest, port));
        }
    }

    /// Gives back what has rested.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some((_, port)) = self.resting.pop_front_if(|(until, _)| *until <= now) {
            self.give(port);
        }
    }

    /// Gives a port back that nobody has heard of.
    pub(crate) fn give(&mut self, port: u16) {
        let Some(offset) = self.offset(port) else { return };
        let (own, other, _) = bits(offset);
        let Some(state) = self.state.get_mut(usize::from(offset / 2)) else { return };
        if *state & own == 0 {
            return;
        }
        *state &= !own;
        if *state & other == 0 {
            self.queue_pair(offset / 2);
        } else {
            self.queue_single(offset);
        }
    }

    fn offset(&self, port: u16) -> Option<u16> {
        port.checked_sub(self.first).filter(|offset| usize::from(offset / 2) < self.state.len())
    }

    fn queue_pair(&mut self, pair: u16) {
        if let Some(state) = self.state.get_mut(usize::from(pair))
            && *state & PAIR_QUEUED == 0
        {
            *state |= PAIR_QUEUED;
            self.pairs.push_back(pair);
        }
    }

    fn queue_single(&mut self, offset: u16) {
        let (_, _, queued) = bits(offset);
        if let Some(state) = self.state.get_mut(usize::from(offset / 2))
            && *state & queued == 0
        {
            *state |= queued;
            self.singles.push_back(offset);
        }
    }
}

/// The bits of a port, of its neighbour, and of its place in the queue.
fn bits(offset: u16) -> (u8, u8, u8) {
    match offset % 2 {
        0 => (EVEN_USED, ODD_USED, EVEN_QUEUED),
        _ => (ODD_USED, EVEN_USED, ODD_QUEUED),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pairs_are_even_and_come_back_last() {
        let mut ports = Ports::new(40_000, 40_007, Duration::ZERO, 0, 1);
        assert_eq!([ports.take_pair(), ports.take_pair()], [Some(40_000), Some(40_002)]);
        ports.give(40_000);
        assert_eq!(ports.take_pair(), Some(40_004));
        ports.give(40_001);
        assert_eq!([ports.take_pair(), ports.take_pair()], [Some(40_006), Some(40_000)]);
        assert_eq!(ports.take_pair(), None);
    }

    #[test]
    fn single_ports_share_pairs_and_leave_none_unused() {
        let mut ports = Ports::new(40_000, 40_005, Duration::ZERO, 0, 1);
        let mut taken: BTreeSet<u16> = (0..6).filter_map(|_| ports.take_one()).collect();
        assert_eq!(taken.len(), 6);
        assert_eq!(ports.take_one(), None);
        for port in std::mem::take(&mut taken) {
            ports.give(port);
        }
        assert_eq!((0..3).filter_map(|_| ports.take_pair()).count(), 3);
    }

    #[test]
    fn a_named_port_is_not_given_out() {
        let mut ports = Ports::new(40_000, 40_003, Duration::ZERO, 0, 1);
        assert!(ports.take_named(40_001) && !ports.take_named(40_001));
        assert!(ports.take_named(9), "not ours to count");
        assert_eq!(ports.take_pair(), Some(40_002));
        assert_eq!([ports.take_one(), ports.take_one()], [Some(40_000), None]);
    }

    #[test]
    fn a_port_rests_after_use_and_the_one_that_was_freed_first_comes_back_first() {
        let (start, rest) = (Instant::now(), Duration::from_secs(5));
        let mut ports = Ports::new(40_000, 40_005, rest, 0, 1);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!((0..3).filter_map(|_| ports.take_pair()).count(), 3);
        for (port, ms) in [(40_002, 0), (40_003, 0), (40_000, 100), (40_001, 100)] {
            ports.retire(port, at(ms));
        }
        ports.wake(at(4999));
        assert_eq!([ports.take_pair(), ports.take_one()], [None; 2], "what still comes is for the old leg");
        ports.wake(at(5100));
        assert_eq!([ports.take_pair(), ports.take_pair()], [Some(40_002), Some(40_000)]);
        // Its own leg gets it back by name before that, and once only.
        ports.retire(40_004, at(6000));
        assert!(ports.take_named(40_004) && !ports.take_named(40_004));
        ports.wake(at(20_000));
        assert_eq!(ports.take_one(), None, "it is in use");
    }

    #[test]
    fn shards_have_no_pair_in_common_and_all_of_them_together() {
        let mut seen = BTreeSet::new();
        for shard in 0..3 {
            let mut ports = Ports::new(40_000, 40_019, Duration::ZERO, shard, 3);
            while let Some(port) = ports.take_pair() {
                assert!(seen.insert(port));
            }
        }
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn taking_and_giving_for_ever_grows_nothing() {
        let mut ports = Ports::new(40_000, 40_063, Duration::ZERO, 0, 1);
        let mut held = VecDeque::new();
        for turn in 0..10_000u32 {
            match turn % 3 {
                0 => held.extend(ports.take_one()),
                1 => {
                    if let Some(even) = ports.take_pair() {
                        held.extend([even, even + 1]);
                    }
                }
                _ => (0..3).filter_map(|_| held.pop_front()).for_each(|port| ports.give(port)),
            }
            let distinct: BTreeSet<u16> = held.iter().copied().collect();
            assert_eq!(distinct.len(), held.len());
        }
        assert!(ports.pairs.len() <= 32 && ports.singles.len() <= 64);
    }
}
