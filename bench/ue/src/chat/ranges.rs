//! Which octets of a message are there: ranges that grow together.

/// Inclusive ranges, counted from 1, sorted, never touching.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds `from..=to`; an empty one (`to < from`) adds nothing.
    pub(crate) fn add(&mut self, from: u64, to: u64) {
        if to < from {
            return;
        }
        let (mut from, mut to) = (from, to);
        self.0.retain(|(a, b)| {
            let apart = *a > to.saturating_add(1) || b.saturating_add(1) < from;
            if !apart {
                from = from.min(*a);
                to = to.max(*b);
            }
            apart
        });
        let place = self.0.partition_point(|(a, _)| *a < from);
        self.0.insert(place, (from, to));
    }

    /// True when 1 to `total` are all there.
    pub(crate) fn covers(&self, total: u64) -> bool {
        total == 0 || self.0.first().is_some_and(|(from, to)| *from <= 1 && *to >= total)
    }

    /// How many octets are there.
    pub(crate) fn length(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from + 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_grow_together_in_any_order() {
        let mut ranges = Ranges::default();
        for (from, to) in [(5, 6), (1, 2), (9, 9), (3, 4), (7, 6), (4, 8)] {
            ranges.add(from, to);
        }
        assert_eq!(ranges, Ranges(vec![(1, 9)]));
        assert!(ranges.covers(9) && !ranges.covers(10) && Ranges::default().covers(0));
        assert_eq!(ranges.length(), 9);
    }
}
