//! What a receiver of audio counts: by the probe that each packet carries, end to end, whatever the middle
//! rewrote; and by the RTP header, as any phone would.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::audio::Probe;

/// One source as a receiver heard it.
#[derive(Clone, Debug)]
pub struct SourceStats {
    /// Packets that arrived, repeated ones not counted again.
    pub received: u64,
    /// Packets that arrived a second time.
    pub duplicates: u64,
    /// Packets that arrived after a later one.
    pub reordered: u64,
    /// The first sequence number heard.
    pub first: u32,
    /// The highest sequence number heard.
    pub highest: u32,
    /// Interarrival jitter in milliseconds (RFC 3550 §6.4.1, over the sender's clock).
    pub jitter_ms: f64,
    /// One-way delay in microseconds: both ends read one clock.
    pub delay_us: Histogram<u64>,
    /// The longest silence between two packets, in milliseconds.
    pub gap_max_ms: f64,
    window: u128,
    last: Option<(u64, u64)>,
}

impl SourceStats {
    fn new(first: u32) -> Option<Self> {
        Some(SourceStats {
            received: 0,
            duplicates: 0,
            reordered: 0,
            first,
            highest: first,
            jitter_ms: 0.0,
            delay_us: Histogram::new_with_bounds(1, 60_000_000, 3).ok()?,
            gap_max_ms: 0.0,
            window: 0,
            last: None,
        })
    }

    /// Packets between the first and the highest that never came.
    pub fn lost(&self) -> u64 {
        (u64::from(self.highest.wrapping_sub(self.first)) + 1).saturating_sub(self.received)
    }

    fn take(&mut self, probe: Probe, now_ns: u64) {
        // The window holds which of the 128 numbers up to the highest came. The first packet may not be number
        // `first` for ever: one that was overtaken at the very start moves `first` back.
        let ahead = probe.sequence.wrapping_sub(self.highest);
        if self.received == 0 {
            self.window = 1;
        } else if ahead != 0 && ahead < 1 << 31 {
            self.window = self.window.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = probe.sequence;
        } else {
            let behind = self.highest.wrapping_sub(probe.sequence);
            let bit = 1u128.checked_shl(behind).unwrap_or(0);
            if self.window & bit != 0 {
                self.duplicates += 1;
                return;
            }
            self.window |= bit;
            self.reordered += 1;
            if self.first.wrapping_sub(probe.sequence) < 1 << 31 {
                self.first = probe.sequence;
            }
        }
        self.received += 1;
        self.delay_us.saturating_record((now_ns.saturating_sub(probe.sent_ns) / 1000).max(1));
        if let Some((sent, arrived)) = self.last {
            let transit = (now_ns as i128 - arrived as i128) - (probe.sent_ns as i128 - sent as i128);
            self.jitter_ms += (transit.unsigned_abs() as f64 / 1e6 - self.jitter_ms) / 16.0;
            self.gap_max_ms = self.gap_max_ms.max(now_ns.saturating_sub(arrived) as f64 / 1e6);
        }
        self.last = Some((probe.sent_ns, now_ns));
    }
}

/// What one flow sent and heard.
#[derive(Clone, Debug, Default)]
pub struct FlowStats {
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets received.
    pub received: u64,
    /// RTP octets received, headers included.
    pub received_bytes: u64,
    /// Received packets that carried no probe.
    pub unprobed: u64,
    /// By the number of the probe's source.
    pub sources: BTreeMap<u16, SourceStats>,
    /// Synchronisation sources seen in RTP headers.
    pub ssrcs: BTreeMap<u32, u64>,
    /// RTCP packets (elements of compounds) received, by packet type.
    pub rtcp: BTreeMap<u8, u64>,
    /// Datagrams that were neither RTP nor RTCP that parses.
    pub malformed: u64,
    /// Datagrams that the far end's key does not authenticate, or that came twice.
    pub unauthentic: u64,
    /// Sends that the system refused (for instance while nobody listens at the far end).
    pub send_errors: u64,
    /// What the far end last reported of us: fraction lost in 1/256, jitter in timestamp units.
    pub reported: Option<(u8, u32)>,
}

impl FlowStats {
    /// Takes a packet's probe.
    pub fn probe(&mut self, probe: Probe, now_ns: u64) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.sources.entry(probe.source)
            && let Some(stats) = SourceStats::new(probe.sequence)
        {
            place.insert(stats);
        }
        if let Some(stats) = self.sources.get_mut(&probe.source) {
            stats.take(probe, now_ns);
        }
    }

    /// Packets lost of all sources.
    pub fn lost(&self) -> u64 {
        self.sources.values().map(SourceStats::lost).sum()
    }

    /// Packets with a probe that arrived, of all sources.
    pub fn heard(&self) -> u64 {
        self.sources.values().map(|s| s.received).sum()
    }

    /// The highest jitter of a source, in milliseconds.
    pub fn jitter_ms(&self) -> f64 {
        self.sources.values().map(|s| s.jitter_ms).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sequences: &[u32]) -> FlowStats {
        let mut stats = FlowStats::default();
        for (i, sequence) in sequences.iter().enumerate() {
            let at = 1_000_000_000 + i as u64 * 20_000_000;
            stats.probe(Probe { source: 1, sequence: *sequence, sent_ns: at - 300_000 }, at);
        }
        stats
    }

    #[test]
    fn loss_duplicates_and_order_are_told_apart() {
        for (sequences, lost, duplicates, reordered) in [
            (&[0, 1, 2, 3][..], 0, 0, 0),
            (&[0, 2, 3], 1, 0, 0),
            (&[0, 2, 1, 3], 0, 0, 1),
            (&[0, 1, 1, 2], 0, 1, 0),
            (&[1, 0, 2], 0, 0, 1),
            (&[5, 500, 501], 494, 0, 0),
            (&[u32::MAX, 0, 1], 0, 0, 0),
        ] {
            let stats = run(sequences);
            let source = &stats.sources[&1];
            assert_eq!(
                (source.lost(), source.duplicates, source.reordered),
                (lost, duplicates, reordered),
                "{sequences:?}"
            );
        }
    }

    #[test]
    fn an_even_stream_has_its_delay_and_no_jitter() {
        let stats = run(&[0, 1, 2, 3]);
        let source = &stats.sources[&1];
        assert!((299..=301).contains(&source.delay_us.value_at_quantile(0.5)));
        assert!(source.jitter_ms < 0.001 && (source.gap_max_ms - 20.0).abs() < 0.001);
    }
}
