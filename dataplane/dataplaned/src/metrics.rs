//! What the data plane counts, as Prometheus reads it. Names are `weir_dataplane_<noun>_<what>_<unit>`; labels come from
//! closed enums, and every value of an enum is exported from the start, zero included.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use contract::Load;
use contract::refusal::Reason;
use prometheus::{Encoder as _, GaugeVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::mail::Figures;
use crate::quality::Quality;
use crate::steward::End;

/// Drops that the driver sees before the engine could.
const DRIVER_DROPS: [&str; 2] = ["truncated", "unnamed"];
/// Frames of control that went nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadFrame {
    /// It does not decode, or is too long; the link ends.
    Malformed,
    /// The link ended within it.
    Unfinished,
    /// Its body is not known here: of a newer version, or nothing at all.
    Unknown,
    /// Before a Hello, or after another control took over; the link ends.
    Early,
}

impl BadFrame {
    const ALL: [BadFrame; 4] =
        [BadFrame::Malformed, BadFrame::Unfinished, BadFrame::Unknown, BadFrame::Early];

    const fn label(self) -> &'static str {
        match self {
            BadFrame::Malformed => "malformed",
            BadFrame::Unfinished => "unfinished",
            BadFrame::Unknown => "unknown",
            BadFrame::Early => "early",
        }
    }
}

const NG_MESSAGES: [&str; 4] = ["request", "retransmission", "error", "malformed"];
const SEND_FAILURES: [&str; 4] = ["full", "unreachable", "too_long", "other"];

/// All of them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// What each shard said last: counters grow by differences.
    last: Mutex<Vec<Figures>>,
    packets: IntCounterVec,
    requests: IntCounterVec,
    handed: IntCounterVec,
    drops: IntCounterVec,
    send_failures: IntCounterVec,
    unreachable: IntCounter,
    handshakes: IntCounterVec,
    relay_auths: IntCounterVec,
    relay_sessions: IntGauge,
    receives: IntCounterVec,
    connections_refused: IntCounterVec,
    batches: IntCounterVec,
    frames: IntCounterVec,
    links: IntCounterVec,
    missed: IntCounterVec,
    cpu: prometheus::CounterVec,
    busy: GaugeVec,
    shard_contexts: IntCounterVec,
    quality: Quality,
    ng: IntCounterVec,
    ng_calls: IntGauge,
    kernel_flows: IntGauge,
    kernel_flows_max: IntGauge,
    kernel_interfaces: IntGauge,
    contexts: IntGauge,
    contexts_max: IntGauge,
    legs: IntGauge,
    legs_max: IntGauge,
    connections: IntGauge,
    queued: IntGauge,
    spill_bytes: IntGauge,
    spill_files: IntGauge,
    spilled: IntCounter,
    legs_silent: IntGauge,
    draining: IntGauge,
    control: IntGauge,
}

impl Metrics {
    /// Makes them, for so many shards and this driver.
    pub(crate) fn new(shards: usize, driver: &str) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Metrics {
            last: Mutex::new(vec![Figures::default(); shards]),
            packets: counters(r, "packets_total", "Datagrams, by what became of them.", "way")?,
            handed: counters(
                r,
                "handed_total",
                "Packets, and words about them, from shard to shard.",
                "way",
            )?,
            requests: counters(r, "requests_total", "MSRP requests and responses.", "way")?,
            drops: counters(r, "drops_total", "What arrived and went no further.", "reason")?,
            send_failures: counters(
                r,
                "send_failures_total",
                "Datagrams that the kernel refused.",
                "reason",
            )?,
            unreachable: counter(r, "unreachable_total", "ICMP errors.")?,
            handshakes: counters(r, "handshakes_total", "DTLS handshakes, by their end.", "end")?,
            relay_auths: counters(
                r,
                "relay_auths_total",
                "AUTHs at the relay with credentials, by answer.",
                "answer",
            )?,
            relay_sessions: gauge(r, "relay_sessions", "Sessions that clients have at the relay.")?,
            receives: counters(r, "receives_ended_total", "Receives that were begun again.", "reason")?,
            connections_refused: counters(r, "connections_refused_total", "Callers turned away.", "reason")?,
            batches: counters(r, "batches_total", "Batches of control, by answer.", "answer")?,
            frames: counters(r, "frames_discarded_total", "Frames of control that went nowhere.", "reason")?,
            links: counters(r, "links_ended_total", "Connections of control that ended, and why.", "reason")?,
            missed: counters(r, "missed_total", "What a full queue did not take.", "queue")?,
            cpu: {
                let opts = Opts::new(full("shard_cpu_seconds_total"), "CPU time of a shard's thread.");
                let vec = prometheus::CounterVec::new(opts, &["shard"])?;
                r.register(Box::new(vec.clone()))?;
                vec
            },
            busy: {
                let opts =
                    Opts::new(full("shard_busy_ratio"), "Share of the last tick in which a shard ran.");
                let vec = GaugeVec::new(opts, &["shard"])?;
                r.register(Box::new(vec.clone()))?;
                vec
            },
            shard_contexts: counters(
                r,
                "shard_contexts_total",
                "Contexts that came to be at home on a shard.",
                "shard",
            )?,
            quality: Quality::new(r)?,
            ng: counters(r, "ng_messages_total", "Messages of the ng protocol, by what they were.", "what")?,
            ng_calls: gauge(r, "ng_calls", "Calls of the ng protocol that are up.")?,
            kernel_flows: gauge(r, "kernel_flows", "Flows that the kernel relays.")?,
            kernel_flows_max: gauge(
                r,
                "kernel_flows_max",
                "Flows that the kernel may relay; 0: it relays none.",
            )?,
            kernel_interfaces: gauge(r, "kernel_interfaces", "Interfaces at which the kernel relays.")?,
            contexts: gauge(r, "contexts", "Contexts that are up.")?,
            contexts_max: gauge(r, "contexts_max", "Contexts that may be up.")?,
            legs: gauge(r, "legs", "Legs that are up.")?,
            legs_max: gauge(r, "legs_max", "Legs that may be up.")?,
            connections: gauge(r, "connections", "Stream connections that are up.")?,
            legs_silent: gauge(
                r,
                "legs_silent",
                "Legs whose peer may send and has been silent for ten seconds.",
            )?,
            queued: gauge(r, "queued_bytes", "Octets that wait for connections, here or with the driver.")?,
            spill_bytes: gauge(
                r,
                "spill_bytes",
                "Octets of files in which messages wait for devices that are slower than others.",
            )?,
            spill_files: gauge(r, "spill_files", "Those files.")?,
            spilled: counter(r, "spilled_bytes_total", "Octets that were given to such files.")?,
            draining: gauge(r, "draining", "1 while no new context is taken.")?,
            control: gauge(r, "control_link_up", "1 while control is linked.")?,
            registry: registry.clone(),
        };
        let info = Opts::new(full("driver_info"), "1 for the driver in use.");
        let info = prometheus::IntGaugeVec::new(info, &["driver"])?;
        registry.register(Box::new(info.clone()))?;
        for name in ["uring", "mio"] {
            info.with_label_values(&[name]).set(i64::from(name == driver));
        }
        metrics.begin(shards);
        Ok(metrics)
    }

    /// Every label is there from the start.
    fn begin(&self, shards: usize) {
        let zero = |vec: &IntCounterVec, labels: &[&str]| {
            labels.iter().for_each(|label| vec.with_label_values(&[*label]).inc_by(0));
        };
        let drops: Vec<&str> = forward::Drop::ALL.iter().map(|why| why.label()).chain(DRIVER_DROPS).collect();
        zero(&self.drops, &drops);
        zero(&self.packets, &["in", "forwarded", "consumed", "out", "offloaded"]);
        zero(&self.handed, &["out", "in", "taken"]);
        zero(&self.requests, &["in", "taken", "out"]);
        zero(&self.send_failures, &SEND_FAILURES);
        zero(&self.receives, &["starved", "error"]);
        zero(&self.connections_refused, &["full", "address_full", "never_opened"]);
        zero(&self.missed, &["spool", "news", "capture", "handshakes", "kernel_flows"]);
        zero(&self.handshakes, &["agreed", "failed"]);
        zero(&self.batches, &["applied"]);
        zero(&self.frames, &BadFrame::ALL.map(BadFrame::label));
        zero(&self.links, &End::LABELS);
        zero(&self.ng, &NG_MESSAGES);
        (0..).map_while(|n| Reason::try_from(n).ok()).for_each(|reason| {
            zero(&self.batches, &[&label(reason)]);
        });
        for shard in 0..shards {
            self.cpu.with_label_values(&[&shard.to_string()]).inc_by(0.0);
            self.busy.with_label_values(&[&shard.to_string()]).set(0.0);
            self.shard_contexts.with_label_values(&[&shard.to_string()]).inc_by(0);
        }
    }

    /// A shard's sums.
    pub(crate) fn take(&self, now: &Figures) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = last.get_mut(usize::from(now.shard)) else { return };
        let add = |vec: &IntCounterVec, label: &str, now: u64, before: u64| {
            vec.with_label_values(&[label]).inc_by(now.saturating_sub(before));
        };
        let (t, b) = (&now.totals, &before.totals);
        self.spilled.inc_by(t.spilled_bytes.saturating_sub(b.spilled_bytes));
        add(&self.packets, "in", t.packets_in, b.packets_in);
        add(&self.packets, "forwarded", t.packets_forwarded, b.packets_forwarded);
        add(&self.packets, "consumed", t.packets_consumed, b.packets_consumed);
        add(&self.packets, "out", t.packets_out, b.packets_out);
        add(&self.packets, "offloaded", t.packets_offloaded, b.packets_offloaded);
        add(&self.handed, "out", t.handed_out, b.handed_out);
        add(&self.handed, "in", t.handed_in, b.handed_in);
        add(&self.handed, "taken", t.handed_taken, b.handed_taken);
        add(&self.requests, "in", t.requests_in, b.requests_in);
        add(&self.requests, "taken", t.requests_taken, b.requests_taken);
        add(&self.requests, "out", t.requests_out, b.requests_out);
        add(&self.handshakes, "agreed", t.handshakes, b.handshakes);
        add(&self.handshakes, "failed", t.handshakes_refused, b.handshakes_refused);
        add(&self.relay_auths, "granted", t.relay_granted, b.relay_granted);
        add(&self.relay_auths, "refused", t.relay_refused, b.relay_refused);
        self.unreachable.inc_by(t.unreachable.saturating_sub(b.unreachable));
        for (index, why) in forward::Drop::ALL.iter().enumerate() {
            let of = |figures: &Figures| figures.drops.get(index).copied().unwrap_or(0);
            add(&self.drops, why.label(), of(now), of(before));
        }
        let (t, b) = (&now.tally, &before.tally);
        // The engine never saw these: they count as arrived here, so that the sum is what was sent to us.
        let unseen = |tally: &netio::Tally| tally.truncated + tally.unnamed;
        add(&self.packets, "in", unseen(t), unseen(b));
        add(&self.drops, "truncated", t.truncated, b.truncated);
        add(&self.drops, "unnamed", t.unnamed, b.unnamed);
        add(&self.send_failures, "full", t.send_full, b.send_full);
        add(&self.send_failures, "unreachable", t.send_unreachable, b.send_unreachable);
        add(&self.send_failures, "too_long", t.send_too_long, b.send_too_long);
        add(&self.send_failures, "other", t.send_failed, b.send_failed);
        add(&self.receives, "starved", t.starved, b.starved);
        add(&self.receives, "error", t.rearmed, b.rearmed);
        add(&self.connections_refused, "full", t.accept_refused, b.accept_refused);
        add(&self.connections_refused, "address_full", t.accept_crowded, b.accept_crowded);
        add(&self.connections_refused, "never_opened", t.accept_failed, b.accept_failed);
        add(&self.missed, "spool", now.spool_missed, before.spool_missed);
        add(&self.missed, "news", now.news_missed, before.news_missed);
        add(&self.missed, "handshakes", now.handshakes_missed, before.handshakes_missed);
        add(&self.missed, "kernel_flows", now.flows_refused, before.flows_refused);
        let shard = now.shard.to_string();
        let seconds = now.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9;
        self.cpu.with_label_values(&[&shard]).inc_by(seconds);
        self.busy.with_label_values(&[&shard]).set(f64::from(now.busy_permille) / 1000.0);
        let begun = now.totals.contexts_begun.saturating_sub(before.totals.contexts_begun);
        self.shard_contexts.with_label_values(&[&shard]).inc_by(begun);
        before.clone_from(now);
        let sum = |of: fn(&Figures) -> u64| last.iter().map(of).sum::<u64>() as i64;
        self.legs_silent.set(sum(|figures| figures.legs_silent));
        self.connections.set(sum(|figures| figures.totals.connections));
        self.relay_sessions.set(sum(|figures| figures.totals.relay_sessions));
        self.kernel_flows.set(sum(|figures| figures.totals.flows_offloaded));
        self.queued.set(sum(|figures| figures.totals.queued_bytes));
        self.spill_bytes.set(sum(|figures| figures.totals.spill_bytes));
        self.spill_files.set(sum(|figures| figures.totals.spill_files));
    }

    /// The kernel relays at so many interfaces, at most so many flows.
    pub(crate) fn kernel(&self, interfaces: usize, flows_max: u32) {
        self.kernel_interfaces.set(interfaces as i64);
        self.kernel_flows_max.set(i64::from(flows_max));
    }

    /// The load, and whether control is there.
    pub(crate) fn load(&self, load: &Load, control: bool) {
        self.contexts.set(load.contexts as i64);
        self.contexts_max.set(load.contexts_max as i64);
        self.legs.set(load.legs as i64);
        self.legs_max.set(load.legs_max as i64);
        self.draining.set(i64::from(load.draining));
        self.control.set(i64::from(control));
    }

    /// What came to the ng door so far.
    pub(crate) fn ng(&self, tally: &ng::Tally) {
        self.ng_calls.set(i64::try_from(tally.calls).unwrap_or(i64::MAX));
        for (what, sum) in NG_MESSAGES.into_iter().zip([
            tally.requests,
            tally.retransmissions,
            tally.errors,
            tally.malformed,
        ]) {
            let counter = self.ng.with_label_values(&[what]);
            counter.inc_by(sum.saturating_sub(counter.get()));
        }
    }

    /// Counters of legs: of those that have ended, how their media was.
    pub(crate) fn legs(&self, legs: &[contract::LegCounters]) {
        legs.iter().filter(|leg| leg.ended).for_each(|leg| self.quality.take(leg));
    }

    pub(crate) fn applied(&self) {
        self.batches.with_label_values(&["applied"]).inc();
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.batches.with_label_values(&[&label(reason)]).inc();
    }

    /// A frame of control went nowhere.
    pub(crate) fn frame_discarded(&self, why: BadFrame) {
        self.frames.with_label_values(&[why.label()]).inc();
    }

    /// A connection of control ended.
    pub(crate) fn link_ended(&self, why: &End) {
        self.links.with_label_values(&[why.label()]).inc();
    }

    pub(crate) fn capture_missed(&self, packets: u64) {
        self.missed.with_label_values(&["capture"]).inc_by(packets);
    }

    /// Prometheus' text format.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "metrics cannot be written");
        }
        text
    }
}

fn label(reason: Reason) -> String {
    format!("refused_{}", reason.as_str_name().to_ascii_lowercase())
}

pub(crate) fn full(name: &str) -> String {
    format!("weir_dataplane_{name}")
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    let vec = IntCounterVec::new(Opts::new(full(name), help), &[label])?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(full(name), help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(full(name), help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

/// Serves `/metrics` until [`Endpoint::stop`].
pub(crate) struct Endpoint {
    server: Arc<tiny_http::Server>,
    thread: std::thread::JoinHandle<()>,
    pub(crate) address: SocketAddr,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(crate) fn start(address: SocketAddr, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let server = tiny_http::Server::http(address)
            .map_err(|error| anyhow::anyhow!("the metrics endpoint {address} cannot be had: {error}"))?;
        let address = server.server_addr().to_ip().unwrap_or(address);
        let server = Arc::new(server);
        let serving = Arc::clone(&server);
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
            for request in serving.incoming_requests() {
                let response = match request.url() {
                    "/metrics" => tiny_http::Response::from_data(metrics.text()),
                    _ => tiny_http::Response::from_string("/metrics\n").with_status_code(404),
                };
                let kind = tiny_http::Header::from_bytes("Content-Type", "text/plain; version=0.0.4");
                let response = kind.into_iter().fold(response, |response, kind| response.with_header(kind));
                // The one who asked may have gone.
                let _ = request.respond(response);
            }
        })?;
        Ok(Endpoint { server, thread, address })
    }

    pub(crate) fn stop(self) {
        self.server.unblock();
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_there_from_the_start_and_grows_by_differences() {
        let metrics = Metrics::new(1, "mio").unwrap();
        let text = |m: &Metrics| String::from_utf8(m.text()).unwrap();
        for why in forward::Drop::ALL {
            let line = format!("weir_dataplane_drops_total{{reason=\"{}\"}} 0", why.label());
            assert!(text(&metrics).contains(&line), "{line}");
        }
        assert!(text(&metrics).contains("weir_dataplane_batches_total{answer=\"refused_no_port\"} 0"));
        assert!(text(&metrics).contains("weir_dataplane_driver_info{driver=\"mio\"} 1"));
        let mut figures = Figures { drops: vec![0; forward::Drop::ALL.len()], ..Figures::default() };
        figures.drops[forward::Drop::Short as usize] = 3;
        figures.tally.truncated = 2;
        metrics.take(&figures);
        figures.drops[forward::Drop::Short as usize] = 5;
        metrics.take(&figures);
        for line in ["drops_total{reason=\"short\"} 5", "drops_total{reason=\"truncated\"} 2"] {
            assert!(text(&metrics).contains(line), "{line}");
        }
    }
}
