//! What a lane counts for the metrics of its process.

/// Counters and gauges of one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Requests that were decided.
    pub requests: u64,
    /// Challenges sent (401, 407).
    pub challenges: u64,
    /// Credentials that were wrong.
    pub auth_failed: u64,
    /// Requests refused because too many wait for facts.
    pub asks_refused: u64,
    /// Outputs for which the driver had left no room: zero, or a fault.
    pub outputs_lost: u64,
    /// Timers for which there was no room.
    pub timers_refused: u64,
    /// Rows of the store that could not be read back.
    pub rows_unread: u64,
    /// Contacts of a 2xx that could not be read.
    pub contacts_unread: u64,
    /// Session descriptions of peers that do not parse (RFC 4566): 488.
    pub descriptions_malformed: u64,
    /// ACKs that belong to no session.
    pub acks_stray: u64,
    /// Live now: bindings.
    pub bindings: u64,
    /// Live now: sessions.
    pub sessions: u64,
    /// Live now: messages under way.
    pub messages: u64,
    /// Live now: relayed subscriptions.
    pub relays: u64,
    /// Live now: conferences.
    pub conferences: u64,
    /// Live now: files on their way to groups.
    pub files: u64,
    /// Live now: published event states.
    pub publications: u64,
}
