//! RTP: what one core spends on a sent packet, beside the least that sockets can cost and beside other servers.
//!
//! The load runs on the first core: it sends, and drains the sinks. What is measured runs on the last one. CPU
//! is the time of what is measured plus that of the core's ksoftirqd, from the scheduler's own nanoseconds
//! (schedstat): on loopback the kernel delivers inside the sender's time, so this is the busy time of the core
//! without what else the machine did on it meanwhile. Packets are counted where they arrive.
//!
//! Kinds that are compared take turns (`race`); of each the median of all turns counts.

pub(crate) mod bare;
pub(crate) mod clock;
pub(crate) mod legs;
mod load;
mod pace;
mod race;
pub(crate) mod rtpengine;
mod scale;
mod versus;
pub(crate) mod weir;
mod whole;

use crate::report::{Machine, Reach, Report};
use load::Load;
use race::{Kind, Race};

/// How much to measure.
pub(crate) struct Plan {
    /// Milliseconds of one measurement.
    pub(crate) slice_ms: u64,
    /// Measurements of each kind.
    pub(crate) rounds: usize,
    /// Two-way calls of the relay rows.
    pub(crate) calls: usize,
    /// Beside rtpengine too, when it is there.
    pub(crate) peers: bool,
    /// Rows whose name begins so; all without one.
    pub(crate) only: Option<String>,
}

impl Plan {
    /// Whether rows whose names begin with `row` are asked for.
    fn wants(&self, row: &str) -> bool {
        let related = |only: &String| row.starts_with(only.as_str()) || only.starts_with(row);
        self.only.as_ref().is_none_or(related)
    }
}

/// The octets of a packet: RTP header and 20 ms of G.711.
pub(crate) const PACKET_BYTES: usize = 172;
/// The octets of a packet of video.
const VIDEO_BYTES: usize = 1200;

const NOTES: &[&str] = &[
    "CPU is the measured thread's and its core's ksoftirqd's, per packet that arrived at a sink; on loopback the kernel's \
     delivery into the sink is in it, for all alike. Compare ratios: nanoseconds are this machine's, this minute.",
    "The loads of the bare rows are closed loops with a backlog, so packets to one receiver are there to leave together \
     (UDP GSO); the rows named .apart are the same without, what one packet at a time costs.",
    "A sleeping thread that shares its core with other work finds its caches cold: the paced rows show that more than \
     anything else when the machine is busy.",
];

const PEER_NOTES: &[&str] = &[
    "rtpengine: Debian's daemon, --table=-1 (no kernel module: with it the kernel forwards, which is not measured here), \
     one media thread on the measured core, no codec, no recording, rtcp-mux as in weir. Each relay is measured alone, in \
     turns, by the same load.",
    "Janus (AudioBridge) decodes, mixes and encodes: not this work, not measured. mediasoup is no Debian package; its figure \
     beside distribute_us is from elsewhere.",
];

const DISTRIBUTE: &[Kind] = &[
    Kind { name: "sendto", start: bare::distribute_sendto },
    Kind { name: "bare_syscall", start: bare::distribute_connected },
    Kind { name: "bare_uring", start: bare::distribute_uring },
    Kind { name: "weir_uring", start: weir::distribute_uring },
    Kind { name: "weir_apart", start: weir::distribute_apart },
    Kind { name: "weir_mio", start: weir::distribute_mio },
];

const CONFERENCE: &[Kind] = &[
    Kind { name: "bare_syscall", start: bare::conference_connected },
    Kind { name: "bare_uring", start: bare::distribute_uring },
    Kind { name: "weir_uring", start: weir::distribute_uring },
    Kind { name: "weir_apart", start: weir::distribute_apart },
    Kind { name: "weir_mio", start: weir::distribute_mio },
];

/// One by one, and by GSO.
const VIDEO: &[Kind] = &[
    Kind { name: "apart", start: weir::distribute_apart },
    Kind { name: "weir_uring", start: weir::distribute_uring },
];

const RELAY: &[Kind] = &[
    Kind { name: "sendto", start: bare::relay_sendto },
    Kind { name: "bare_uring", start: bare::relay_uring },
    Kind { name: "bare_uring_many", start: bare::relay_uring_many },
    Kind { name: "weir_uring", start: weir::relay_uring },
    Kind { name: "weir_mio", start: weir::relay_mio },
];

/// Runs everything, interleaved.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Report> {
    let choice = netio::choose(netio::Wanted::Auto);
    let mut report = Report::new(Machine::here(&format!("{} ({})", choice.kind.label(), choice.reason)));
    for (targets, bytes) in [(16, PACKET_BYTES), (64, PACKET_BYTES), (16, VIDEO_BYTES)] {
        let load = move || Load::distribute(targets, bytes);
        let race = Race { row: format!("distribute_{targets}x{bytes}"), kinds: DISTRIBUTE, load: &load };
        race.run(plan, Reach::AtMost(1.10), &mut report)?;
    }
    let calls = plan.calls;
    let load = move || Load::relay(calls);
    let race = Race { row: format!("relay_{calls}x{PACKET_BYTES}"), kinds: RELAY, load: &load };
    race.run(plan, Reach::AtMost(1.15), &mut report)?;
    // Two packets of each of 20 sources are under way, to 100 receivers.
    let load = || Load::conference(20, 100, PACKET_BYTES, 40);
    let race = Race { row: "distribute_20x100".to_owned(), kinds: CONFERENCE, load: &load };
    if let Some(ns) = race.run(plan, Reach::AtMost(1.15), &mut report)? {
        let note =
            "the same in microseconds per sent packet; mediasoup's worker takes 4.8 to 7.8 (elsewhere)";
        report.held("distribute_us", ns / 1000.0, "us", Reach::AtMost(0.8), note);
    }
    // Bursts of 30 packets, a key frame's, two under way.
    let load = || Load::conference(1, 16, VIDEO_BYTES, 60);
    let race = Race { row: "gso_video".to_owned(), kinds: VIDEO, load: &load };
    race.run(plan, Reach::AtMost(0.60), &mut report)?;
    if plan.wants("srtp_gcm_extra") {
        // Without sockets, whose cost is twenty times as much and would hide it.
        let (extra, bare) = crate::srtp::gcm_extra(PACKET_BYTES, plan.rounds);
        let note = format!(
            "what AES-GCM-128 adds to a sent packet of {PACKET_BYTES} octets at 1:16 in the engine, over {bare:.0} ns of a \
             loop that only encrypts; `bench srtp` has the parts"
        );
        report.held("srtp_gcm_extra", extra / bare, "ratio", Reach::AtMost(1.5), note);
        report.row("srtp_gcm_extra_ns", extra, "ns/packet", "the same");
    }
    if plan.wants("scale_2_cores") {
        scale::run(plan, &mut report)?;
    }
    if plan.wants("scale_conference") {
        scale::conference(plan, &mut report)?;
    }
    if plan.wants("leg") {
        legs::run(&mut report)?;
    }
    versus::run(plan, &mut report)?;
    whole::run(plan, &mut report)?;
    if let Some(only) = plan.only.as_ref().filter(|_| report.is_empty()) {
        anyhow::bail!(
            "no row has a name that begins with {only}: bench/README.md has them (some need --peers)"
        );
    }
    report.cores();
    NOTES.iter().for_each(|note| report.remark(*note));
    if plan.peers {
        PEER_NOTES.iter().for_each(|note| report.remark(*note));
    }
    Ok(report)
}

/// The middle of some figures.
pub(crate) fn median<T>(of: &[T], what: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = of.iter().map(what).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
