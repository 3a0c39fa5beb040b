//! Packet indices: which one a sequence number means (RFC 3711 §3.3.1), and which ones were seen (§3.3.2).

use super::SrtpError;

/// The last index that a key may protect in SRTP: 48 bits.
pub(super) const RTP_LAST: u64 = (1 << 48) - 1;
/// The same for SRTCP: 31 bits.
pub(super) const RTCP_LAST: u64 = (1 << 31) - 1;

/// The index of a packet with sequence number `sequence`, when `highest` is the highest index so far (its upper 32
/// bits are ROC, its lower 16 are s_l). `None`: it would lie before the first packet.
#[inline]
pub(super) fn guess(highest: u64, sequence: u16) -> Option<u64> {
    let (rollover, s_l) = (highest >> 16, highest as u16);
    let rollover = if s_l < 0x8000 {
        // sequence - s_l > 2^15: it is from before the last rollover.
        if i32::from(sequence) - i32::from(s_l) > 0x8000 { rollover.checked_sub(1)? } else { rollover }
    } else if i32::from(s_l) - 0x8000 > i32::from(sequence) {
        rollover + 1
    } else {
        rollover
    };
    Some(rollover << 16 | u64::from(sequence))
}

/// The replay list of one index: a ring of bits that ends at the highest one seen. The bits are the caller's; there is
/// a power of two of them, at least 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    /// Nothing was seen yet.
    pub(super) fresh: bool,
    /// The highest index seen.
    pub(super) highest: u64,
}

impl Window {
    pub(super) const NEW: Window = Window { fresh: true, highest: 0 };

    #[inline]
    fn place(words: usize, index: u64) -> (usize, u64) {
        let bit = index as usize & (words * 64 - 1);
        (bit / 64, 1 << (bit % 64))
    }

    /// Whether a packet with that index may be taken.
    #[inline]
    pub(super) fn check(&self, bits: &[u64], index: u64) -> Result<(), SrtpError> {
        if self.fresh || index > self.highest {
            return Ok(());
        }
        if self.highest - index >= bits.len() as u64 * 64 {
            return Err(SrtpError::Old);
        }
        let (word, bit) = Self::place(bits.len(), index);
        if bits.get(word).is_none_or(|w| w & bit != 0) { Err(SrtpError::Replayed) } else { Ok(()) }
    }

    /// Marks an index that was checked.
    #[inline]
    pub(super) fn mark(&mut self, bits: &mut [u64], index: u64) {
        let words = bits.len();
        if self.fresh {
            bits.fill(0);
            (self.fresh, self.highest) = (false, index);
        } else if index > self.highest {
            if index - self.highest >= words as u64 * 64 {
                bits.fill(0);
            } else {
                for passed in self.highest + 1..index {
                    let (word, bit) = Self::place(words, passed);
                    bits.get_mut(word).into_iter().for_each(|w| *w &= !bit);
                }
            }
            self.highest = index;
        }
        let (word, bit) = Self::place(words, index);
        bits.get_mut(word).into_iter().for_each(|w| *w |= bit);
    }

    /// The last 64 indices: bit n stands for the highest one minus n.
    pub(super) fn export(&self, bits: &[u64]) -> u64 {
        let seen = |back: u64| {
            self.highest.checked_sub(back).is_some_and(|index| {
                let (word, bit) = Self::place(bits.len(), index);
                bits.get(word).is_some_and(|w| w & bit != 0)
            })
        };
        (0..64).fold(0, |mask, back| mask | u64::from(seen(back)) << back)
    }

    /// Goes on from an exported state. What lies further back than the 64 that were exported counts as seen.
    pub(super) fn import(bits: &mut [u64], highest: u64, seen: u64) -> Window {
        bits.fill(u64::MAX);
        for back in (0..64).filter(|back| seen >> back & 1 == 0) {
            if let Some(index) = highest.checked_sub(back) {
                let (word, bit) = Self::place(bits.len(), index);
                bits.get_mut(word).into_iter().for_each(|w| *w &= !bit);
            }
        }
        Window { fresh: false, highest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc3711_s3_3_1_the_index_is_guessed() {
        for (highest, sequence, index) in [
            (0x0000_0005, 6, Some(0x0000_0006)),
            (0x0000_0005, 4, Some(0x0000_0004)),
            (0x0000_fffe, 3, Some(0x0001_0003)),
            (0x0001_0003, 0xfffe, Some(0x0000_fffe)),
            (0x0000_0003, 0xfffe, None),
            // Half the space apart: the same period.
            (0x0001_0000, 0x8000, Some(0x0001_8000)),
            (0x0001_0000, 0x8001, Some(0x0000_8001)),
            (0x0001_8000, 0x0000, Some(0x0001_0000)),
            (0x0001_8001, 0x0000, Some(0x0002_0000)),
            (RTP_LAST, 0, Some(RTP_LAST + 1)),
        ] {
            assert_eq!(guess(highest, sequence), index, "{highest:x} {sequence:x}");
        }
    }

    proptest! {
        // RFC 3711 §3.3.2: nothing is taken twice, all that is new and within the window is taken.
        #[test]
        fn a_window_is_a_set_that_forgets_from_below(
            words in 0usize..4, indices in prop::collection::vec(0u64..700, 1..200), cut in 0usize..200,
        ) {
            let mut bits = vec![0; 1 << words];
            let size = bits.len() as u64 * 64;
            let mut window = Window::NEW;
            let mut seen = std::collections::BTreeSet::new();
            for (n, index) in indices.into_iter().enumerate() {
                if n == cut && !window.fresh {
                    // A restart: what is left reaches 64 back.
                    let (highest, mask) = (window.highest, window.export(&bits));
                    window = Window::import(&mut bits, highest, mask);
                    for old in (0..highest + 1).filter(|i| highest - i >= 64) { seen.insert(old); }
                }
                let highest = seen.last().copied();
                let expected = match highest {
                    Some(highest) if index + size <= highest => Err(SrtpError::Old),
                    _ if seen.contains(&index) => Err(SrtpError::Replayed),
                    _ => Ok(()),
                };
                prop_assert_eq!(window.check(&bits, index), expected);
                if expected.is_ok() {
                    window.mark(&mut bits, index);
                    seen.insert(index);
                }
            }
        }
    }
}
