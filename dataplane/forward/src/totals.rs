//! The engine's own sums: plain numbers that the shard mails to the steward on a tick.

use crate::Drop;

const REASONS: usize = Drop::ALL.len();

/// Sums since the start. `packets_in = packets_forwarded + packets_consumed +` the drops of datagrams, and
/// `requests_in = requests_taken +` the drops of requests. Of the latter, [`Drop::MsrpCongested`], [`Drop::MsrpTap`], [`Drop::MsrpSpill`],
/// [`Drop::MsrpUnanswered`] and `Drop::MsrpHeld*` count copies instead, and
/// [`Drop::MsrpLimit`] connections that found no room, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Totals {
    /// Datagrams that arrived.
    pub packets_in: u64,
    /// Datagrams that went to at least one target.
    pub packets_forwarded: u64,
    /// Datagrams that ended here by design (RTCP where it is terminated).
    pub packets_consumed: u64,
    /// Datagrams sent, copies and our own RTCP included.
    pub packets_out: u64,
    /// Of those that went on: datagrams that somebody below relayed (see [`crate::Settled`]).
    pub packets_offloaded: u64,
    /// Flows that somebody below relays.
    pub flows_offloaded: u64,
    /// Copies of packets, and words about them, that were handed to other shards of a context. Those that found no room on
    /// their way count here and as [`Drop::OutpostFull`].
    pub handed_out: u64,
    /// The same from other shards. `handed_in = handed_taken +` the drops [`Drop::OutpostUnknown`] and
    /// [`Drop::OutpostUnsent`]; no drop of `Outpost*` belongs to a datagram of `packets_in`.
    pub handed_in: u64,
    /// Those that were acted upon.
    pub handed_taken: u64,
    /// MSRP requests and responses that arrived whole.
    pub requests_in: u64,
    /// Those that were acted upon.
    pub requests_taken: u64,
    /// MSRP requests and responses sent.
    pub requests_out: u64,
    /// DTLS handshakes that gave a leg its keys.
    pub handshakes: u64,
    /// DTLS handshakes that failed: not in time, or another certificate than was announced.
    pub handshakes_refused: u64,
    /// ICMP errors.
    pub unreachable: u64,
    /// Contexts that came to be.
    pub contexts_begun: u64,
    /// Contexts that are up.
    pub contexts: u64,
    /// Legs that are up.
    pub legs: u64,
    /// Connections that are up.
    pub connections: u64,
    /// Octets that wait for connections: queued, or handed to the driver and not taken by the kernel.
    pub queued_bytes: u64,
    /// Octets of files on disk in which messages wait for slow receivers.
    pub spill_bytes: u64,
    /// Those files.
    pub spill_files: u64,
    /// Octets that were given to the disk since the start.
    pub spilled_bytes: u64,
    /// Sessions that clients have at the relay.
    pub relay_sessions: u64,
    /// AUTHs that were granted, refreshes included.
    pub relay_granted: u64,
    /// AUTHs with credentials that control did not take.
    pub relay_refused: u64,
    drops: [u64; REASONS],
}

impl Default for Totals {
    fn default() -> Self {
        Totals {
            packets_in: 0,
            packets_forwarded: 0,
            packets_consumed: 0,
            packets_out: 0,
            packets_offloaded: 0,
            flows_offloaded: 0,
            handed_out: 0,
            handed_in: 0,
            handed_taken: 0,
            requests_in: 0,
            requests_taken: 0,
            requests_out: 0,
            handshakes: 0,
            handshakes_refused: 0,
            unreachable: 0,
            contexts_begun: 0,
            contexts: 0,
            legs: 0,
            connections: 0,
            queued_bytes: 0,
            spill_bytes: 0,
            spill_files: 0,
            spilled_bytes: 0,
            relay_sessions: 0,
            relay_granted: 0,
            relay_refused: 0,
            drops: [0; REASONS],
        }
    }
}

impl Totals {
    /// How often that was the reason.
    pub fn dropped(&self, why: Drop) -> u64 {
        self.drops.get(why as usize).copied().unwrap_or(0)
    }

    pub(crate) fn drop(&mut self, why: Drop) {
        if let Some(count) = self.drops.get_mut(why as usize) {
            *count += 1;
        }
    }
}
