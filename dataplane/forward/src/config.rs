//! What one engine is told at its start: who it is and how much it may hold.

use std::mem::size_of;
use std::time::Duration;

use base::Budget;

use crate::RelayConfig;
use crate::media::{
    Binding, Guard, HELD_BYTES, Names, Offload, RepairSizes, Route, RtpLeg, Source, Spent, Spread, Stream,
    Talk, Web, WebLimits, Wide,
};
use crate::message::{Conn, Expect, Held, Mark, Passage, Row, Spill, Transaction};

/// A listener whose address stands in `a=path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// `host:port` as peers reach it, IPv6 in brackets.
    pub authority: String,
}

/// Who an engine is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its shard's number. It is part of the session ids that it draws, so that each shard knows whose they are.
    pub shard: u16,
    /// How many shards there are: a session that names another one is at home there.
    pub shards: u16,
    /// The shard's MSRP listener over TCP.
    pub msrp: Listener,
    /// The shard's MSRP listener over TLS, if there is one.
    pub msrps: Option<Listener>,
    /// The relay of RFC 4976, if there is one.
    pub relay: Option<RelayConfig>,
    /// How much it may hold.
    pub limits: Limits,
}

/// The maxima of one engine. Times in milliseconds, sizes in octets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Contexts at once.
    pub contexts_max: usize,
    /// Legs at once.
    pub legs_max: usize,
    /// Legs of one context.
    pub context_legs_max: usize,
    /// Paths of one context.
    pub context_paths_max: usize,
    /// Slots of one context's paths together (select, floor): so many streams of our own may a leg have, up to 255.
    pub context_slots_max: usize,
    /// Changes in one batch.
    pub batch_changes_max: usize,
    /// UDP sockets; the driver's numbers stay below.
    pub sockets_max: usize,
    /// For so long the address that an SDP announced must be silent before another of its network is learned.
    pub learning_silence_ms: u64,
    /// Receivers of one source (a packet in, at most so many out).
    pub targets_max: usize,
    /// Synchronisation sources remembered per RTP leg.
    pub leg_sources_max: usize,
    /// Synchronisation sources that a leg may bring in its life to legs with SRTP keys.
    pub leg_sources_ever_max: usize,
    /// Synchronisation sources under one SRTP key; one that is there stays as long as its key (see `rtp::srtp`).
    pub srtp_sources_max: usize,
    /// Packets that the SRTP replay window reaches back; 64 or more.
    pub srtp_window: usize,
    /// A leg with ICE is lost after so long without a check of its peer (RFC 7675 §5.1).
    pub ice_ms: u64,
    /// A DTLS handshake is done in so long, or has failed.
    pub dtls_ms: u64,
    /// Legs that keep what they are sent, to send again what their peers miss.
    pub nack_legs_max: usize,
    /// Packets that each of them keeps.
    pub nack_packets_max: usize,
    /// Octets of them.
    pub nack_bytes_max: usize,
    /// How long they are kept.
    pub nack_ms: u64,
    /// How far ahead of its bandwidth a policed leg may run for a moment.
    pub police_burst_ms: u64,
    /// RTCP that a policed leg may send whatever its bandwidth, kbit/s.
    pub rtcp_min_kbps: u32,
    /// However little one receiver says that it can take, its source is told no less than this, kbit/s.
    pub estimate_min_kbps: u32,
    /// Stream connections at once.
    pub connections_max: usize,
    /// Sessions on one connection (RFC 4975 §5.4 reuse).
    pub connection_sessions_max: usize,
    /// Octets handed to the driver and not yet with the kernel, per connection.
    pub inflight_bytes_max: usize,
    /// Octets of one leg's messages that are on their way to another shard of its room, with what goes along with each
    /// piece; about one read more. No more is read from its peer meanwhile.
    pub handed_bytes_max: usize,
    /// Octets that wait in the engine, per connection, beyond those in flight.
    pub queue_bytes_max: usize,
    /// Header block of one MSRP request or response.
    pub head_bytes_max: usize,
    /// CPIM headers of one message (CPM-FACTS §3.8 step 3).
    pub cpim_bytes_max: usize,
    /// Unfinished messages of one leg.
    pub leg_messages_max: usize,
    /// Our own requests of one connection that wait for a response.
    pub connection_transactions_max: usize,
    /// Messages of one leg whose REPORT is still expected.
    pub leg_reports_max: usize,
    /// Messages whose IMDNs are remembered per context for `imdn_once`.
    pub imdn_keys_max: usize,
    /// Octets of one message when control names no limit.
    pub message_bytes_max: u64,
    /// Octets that a room holds for a member who has no connection.
    pub held_bytes_max: usize,
    /// Messages that a room holds for a member who has no connection.
    pub held_messages_max: usize,
    /// How long it holds each of them.
    pub held_ms: u64,
    /// Octets that wait for a tap that is slower than what it taps, or has no connection.
    pub tap_bytes_max: usize,
    /// Messages of which something waits for it, or that are not whole yet.
    pub tap_messages_max: usize,
    /// Octets on disk in which the messages for one slow receiver among several wait, so that the others need not; beyond
    /// them their source is paused.
    pub spill_file_bytes_max: u64,
    /// The same of all of them together. 0: nothing goes to disk, and the slowest paces the others.
    pub spill_bytes_max: u64,
    /// Receivers for whom something may wait so at once.
    pub spill_files_max: usize,
    /// Octets that are given to the disk and not written yet; beyond them the sources wait for the disk.
    pub spill_unwritten_bytes_max: usize,
    /// From accept until the first request (RFC 4976 §6.3).
    pub arrival_ms: u64,
    /// From the last octet of a request to its response (RFC 4975 §7.1.4).
    pub response_ms: u64,
    /// From the last chunk of an unfinished message until it is given up (RFC 7701 §6).
    pub incomplete_ms: u64,
    /// How long a receiver may stay congested before it is cut loose.
    pub slow_ms: u64,
    /// How long a REPORT for a delivered message is awaited.
    pub report_ms: u64,
}

impl Default for Limits {
    /// A laptop's share: about a thousand legs.
    fn default() -> Self {
        Limits {
            contexts_max: 2048,
            legs_max: 8192,
            context_legs_max: 1024,
            context_paths_max: 64,
            context_slots_max: 32,
            batch_changes_max: 4096,
            sockets_max: 16_384,
            learning_silence_ms: 1000,
            targets_max: 1024,
            leg_sources_max: 16,
            leg_sources_ever_max: 64,
            srtp_sources_max: 256,
            srtp_window: 1024,
            ice_ms: 30_000,
            dtls_ms: 30_000,
            nack_legs_max: 512,
            nack_packets_max: 512,
            nack_bytes_max: 256 << 10,
            nack_ms: 1000,
            police_burst_ms: 1000,
            rtcp_min_kbps: 256,
            estimate_min_kbps: 64,
            connections_max: 8192,
            connection_sessions_max: 64,
            inflight_bytes_max: 64 << 10,
            handed_bytes_max: 256 << 10,
            queue_bytes_max: 256 << 10,
            head_bytes_max: 8 << 10,
            cpim_bytes_max: 16 << 10,
            leg_messages_max: 16,
            connection_transactions_max: 128,
            leg_reports_max: 128,
            imdn_keys_max: 1024,
            message_bytes_max: 1 << 40,
            held_bytes_max: 256 << 10,
            held_messages_max: 64,
            held_ms: 30_000,
            tap_bytes_max: 256 << 10,
            tap_messages_max: 128,
            spill_file_bytes_max: 2 << 30,
            spill_bytes_max: 0,
            spill_files_max: 256,
            spill_unwritten_bytes_max: 4 << 20,
            arrival_ms: 30_000,
            response_ms: 30_000,
            incomplete_ms: 540_000,
            slow_ms: 60_000,
            report_ms: 600_000,
        }
    }
}

impl Limits {
    /// The sizes of an SRTP context.
    pub(crate) const fn srtp(&self) -> rtp::srtp::Config {
        rtp::srtp::Config { window: self.srtp_window, sources_max: self.srtp_sources_max }
    }

    /// The times of a leg with ICE or DTLS.
    pub(crate) const fn web(&self) -> WebLimits {
        WebLimits { ice: Duration::from_millis(self.ice_ms), dtls: Duration::from_millis(self.dtls_ms) }
    }

    /// The memory that these limits allow, as a sum.
    pub fn budget(&self) -> Budget {
        let mut budget = Budget::default();
        let n = |count: usize| count as u64;
        let size = |bytes: usize| bytes as u64;
        let (connections, legs) = (n(self.connections_max), n(self.legs_max));
        budget
            .row("contexts", n(self.contexts_max), 512)
            .row("legs as put by control", legs, 1024)
            .row("rtp legs", legs, size(size_of::<RtpLeg>()))
            .row("rtp sources", legs * n(self.leg_sources_max), size(size_of::<Source>()))
            .row(
                "rtp routes, every leg with all targets",
                legs * n(self.targets_max.min(self.context_legs_max)),
                size(size_of::<Route>()),
            )
            .row(
                "rtp streams, every leg with all slots",
                legs * n(self.context_slots_max),
                size(size_of::<Stream>()),
            )
            .row("srtp keys, two a leg", legs, size(size_of::<Guard>()))
            .row("srtp sources, two tables a leg", legs * 2, self.srtp().octets_max())
            .row("srtp keys put before", legs, size(Spent::octets_max(self.srtp_sources_max)))
            .row("srtp names of what taps are sent", legs, size(Names::octets_max(self.srtp_sources_max)))
            .row("srtp packets on their way", n(self.targets_max), size(HELD_BYTES))
            .row("ice and dtls", legs, size(size_of::<Web>()) + 4096)
            .row("legs of contexts on several shards", legs, size(size_of::<Spread>()) + 64)
            .row("what rtcp says and hears", legs, size(size_of::<Talk>()) + 4096)
            .row("when packets came", legs, size(size_of::<Wide>()) + 4096)
            .row("packets kept for nack", n(self.nack_legs_max), size(RepairSizes::of(self).bytes()))
            .row("flows that others relay", legs, size(size_of::<Offload>()))
            .row("sockets", n(self.sockets_max), size(size_of::<Binding>()))
            .row("msrp legs", legs, size(size_of::<Row>()) + 1024)
            .row(
                "msrp messages on their way",
                legs * n(self.leg_messages_max),
                size(size_of::<Passage>()) + 512,
            )
            .row("msrp cpim heads held", legs, n(self.cpim_bytes_max))
            .row(
                "msrp held for taps, and for members without a connection",
                legs,
                n(self.held_bytes_max.max(self.tap_bytes_max))
                    + n(self.held_messages_max.max(self.tap_messages_max)) * (size(size_of::<Held>()) + 64),
            )
            .row(
                "msrp on its way to disk",
                u64::from(self.spill_bytes_max > 0),
                n(self.spill_unwritten_bytes_max) * 2,
            )
            .row(
                "msrp before and behind what is on disk, of each slow receiver",
                if self.spill_bytes_max > 0 { n(self.spill_files_max) } else { 0 },
                size(Spill::octets_max()),
            )
            .row("msrp reports expected", legs * n(self.leg_reports_max), size(size_of::<Expect>()) + 32)
            .row(
                "msrp on its way to another shard, of each leg",
                legs,
                n(self.handed_bytes_max + self.inflight_bytes_max),
            )
            .row("connections", connections, size(size_of::<Conn>()))
            .row("connection queues", connections, n(self.queue_bytes_max + self.inflight_bytes_max))
            .row(
                "connection transactions",
                connections * n(self.connection_transactions_max),
                size(size_of::<Transaction>()),
            )
            .row(
                "connection marks",
                connections * n((self.queue_bytes_max + self.inflight_bytes_max) / 128),
                size(size_of::<Mark>()),
            )
            .row("imdn memories", n(self.contexts_max) * n(self.imdn_keys_max), 96)
            .extend(
                &msrp::Limits { head_max: self.head_bytes_max, ..msrp::Limits::default() }
                    .budget(connections),
            );
        budget
    }
}
