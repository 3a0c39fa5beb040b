//! A set of octets of a message, as intervals: what has arrived, or what has been acknowledged. Reports need
//! not follow the sender's chunks, and chunks may overlap and come in any order (RFC 4975 §7.1.2, §7.3.1).

/// Intervals that do not touch, in order. Bounded: a peer that leaves too many holes is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranges {
    /// First and last octet, both in.
    spans: Vec<(u64, u64)>,
    max: usize,
}

/// The set would get more intervals than its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many holes")]
pub struct TooManyHoles;

impl Ranges {
    /// An empty set of at most `spans_max` intervals.
    pub fn with_max(spans_max: usize) -> Self {
        Ranges { spans: Vec::new(), max: spans_max }
    }

    /// Adds the octets `first` to `last`. Nothing happens when `last` is before `first`.
    pub fn insert(&mut self, first: u64, last: u64) -> Result<(), TooManyHoles> {
        if last < first {
            return Ok(());
        }
        // Those that the new one touches melt into it.
        let from = self.spans.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.spans.partition_point(|(start, _)| *start <= last.saturating_add(1));
        if from >= to && self.spans.len() >= self.max {
            return Err(TooManyHoles);
        }
        let touched = self.spans.get(from..to).unwrap_or_default();
        let start = touched.first().map_or(first, |(start, _)| first.min(*start));
        let end = touched.last().map_or(last, |(_, end)| last.max(*end));
        self.spans.splice(from..to.max(from), [(start, end)]);
        Ok(())
    }

    /// Whether all octets `first` to `last` are in; true when there are none.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        last < first || self.spans.iter().any(|(start, end)| *start <= first && last <= *end)
    }

    /// The last octet of the interval that begins with octet 1; 0 when there is none.
    pub fn contiguous(&self) -> u64 {
        self.spans.first().filter(|(start, _)| *start <= 1).map_or(0, |(_, end)| *end)
    }

    /// The highest octet; 0 when there is none.
    pub fn last(&self) -> u64 {
        self.spans.last().map_or(0, |(_, end)| *end)
    }

    /// The intervals.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.spans.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn touching_intervals_melt() {
        let mut ranges = Ranges::with_max(2);
        for (first, last) in [(1, 10), (21, 30), (9, 12), (13, 20)] {
            ranges.insert(first, last).unwrap();
        }
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(1, 30)]);
        assert!(ranges.covers(1, 30) && ranges.covers(5, 4) && !ranges.covers(30, 31));
        assert_eq!((ranges.contiguous(), ranges.last()), (30, 30));
    }

    #[test]
    fn holes_are_bounded_and_the_far_end_does_not_overflow() {
        let mut ranges = Ranges::with_max(2);
        ranges.insert(u64::MAX, u64::MAX).unwrap();
        ranges.insert(5, 6).unwrap();
        assert_eq!(ranges.insert(9, 9), Err(TooManyHoles));
        ranges.insert(7, u64::MAX - 1).unwrap();
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(5, u64::MAX)]);
        assert_eq!(ranges.contiguous(), 0);
    }

    proptest! {
        #[test]
        fn same_as_a_set_of_numbers(inserts in proptest::collection::vec((1u64..60, 0u64..12), 0..20)) {
            let mut ranges = Ranges::with_max(100);
            let mut numbers = std::collections::BTreeSet::new();
            for (first, len) in inserts {
                // `len` 0 is an empty interval.
                ranges.insert(first, first + len - 1).unwrap();
                numbers.extend(first..first + len);
            }
            let from_ranges: Vec<u64> = ranges.iter().flat_map(|(a, b)| a..=b).collect();
            prop_assert_eq!(from_ranges, numbers.iter().copied().collect::<Vec<_>>());
            prop_assert!(ranges.iter().zip(ranges.iter().skip(1)).all(|(a, b)| a.1 + 1 < b.0));
        }
    }
}
