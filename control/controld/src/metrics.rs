//! What control counts. Names are `weir_control_<noun>_<what>_<unit>`; labels come from closed enums only, and every
//! value of an enum is exported from the start, zero included.

mod endpoint;
mod labels;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use serde::{Deserialize, Serialize};

pub(crate) use endpoint::serve;
pub(crate) use labels::{
    Answer, Close, Copied, Discard, FailOver, Heard, Incident, Label, Live, Located, MethodLabel, Outcome,
    Question, Reload,
};

/// The section `[metrics]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Serve Prometheus' text format at `/metrics`.
    pub on: bool,
    /// Where. If the port of the default is taken, the next free one, which start-up names.
    pub address: SocketAddr,
}

impl Settings {
    pub(crate) const PORT: u16 = 9461;
}

impl Default for Settings {
    fn default() -> Self {
        Settings { on: true, address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Settings::PORT) }
    }
}

/// One counter for each value of a closed enum.
#[derive(Debug)]
pub(crate) struct Counters<L> {
    each: Vec<(L, IntCounter)>,
}

impl<L: Label> Counters<L> {
    fn new(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Self> {
        let family = IntCounterVec::new(Opts::new(name, help), &[L::NAME])?;
        registry.register(Box::new(family.clone()))?;
        let each = L::all().into_iter().map(|l| (l, family.with_label_values(&[l.label()]))).collect();
        Ok(Counters { each })
    }

    pub(crate) fn add(&self, label: L, n: u64) {
        if let Some((_, counter)) = self.each.iter().find(|(l, _)| *l == label) {
            counter.inc_by(n);
        }
    }

    pub(crate) fn count(&self, label: L) {
        self.add(label, 1);
    }

    /// Raises a counter to what somebody else has counted.
    pub(crate) fn raise(&self, label: L, to: u64) {
        if let Some((_, counter)) = self.each.iter().find(|(l, _)| *l == label) {
            counter.inc_by(to.saturating_sub(counter.get()));
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        self.each.iter().map(|(_, counter)| counter.get()).sum()
    }
}

/// One gauge for each value of a closed enum.
#[derive(Debug)]
pub(crate) struct Gauges<L> {
    each: Vec<(L, IntGauge)>,
}

impl<L: Label> Gauges<L> {
    fn new(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Self> {
        let family = IntGaugeVec::new(Opts::new(name, help), &[L::NAME])?;
        registry.register(Box::new(family.clone()))?;
        let each = L::all().into_iter().map(|l| (l, family.with_label_values(&[l.label()]))).collect();
        Ok(Gauges { each })
    }

    pub(crate) fn of(&self, label: L) -> Option<&IntGauge> {
        self.each.iter().find(|(l, _)| *l == label).map(|(_, gauge)| gauge)
    }
}

/// Everything that control counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Datagrams with content, messages of streams, and what a stream was refused for.
    pub(crate) received: Counters<sip::Transport>,
    pub(crate) sent: Counters<sip::Transport>,
    /// Keep-alives.
    pub(crate) pings: Counters<sip::Transport>,
    pub(crate) discarded: Counters<Discard>,
    pub(crate) connections: Gauges<sip::Transport>,
    pub(crate) connections_opened: Counters<sip::Transport>,
    pub(crate) connections_closed: Counters<Close>,
    pub(crate) certificates: Counters<Reload>,
    pub(crate) copies: Counters<Copied>,
    /// Events for tracers.
    pub(crate) traced: Counters<Copied>,
    /// Names that were located.
    pub(crate) located: Counters<Located>,
    pub(crate) fail_over: Counters<FailOver>,
    pub(crate) requests: Counters<MethodLabel>,
    pub(crate) responses: Counters<Answer>,
    pub(crate) questions: Counters<Question>,
    pub(crate) live: Gauges<Live>,
    pub(crate) incidents: Gauges<Incident>,
    pub(crate) lane_waiting: IntGauge,
    pub(crate) lane_reloads: IntCounter,
    pub(crate) commits: Counters<Outcome>,
    pub(crate) commit_seconds: Histogram,
    /// How long requests waited for their lane.
    pub(crate) waits: Histogram,
    pub(crate) overload_loss: IntGauge,
    pub(crate) overload_lanes: IntGauge,
    pub(crate) overload_hops: IntGauge,
    pub(crate) withheld: IntCounter,
    pub(crate) rows: Gauges<service::Table>,
    pub(crate) dataplane_up: IntGauge,
    pub(crate) dataplane_links: IntCounter,
    pub(crate) batches: Counters<Outcome>,
    pub(crate) refusals: Counters<contract::refusal::Reason>,
    pub(crate) news: Counters<Heard>,
    pub(crate) uptime: IntGauge,
    pub(crate) transactions: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let seconds = Histogram::with_opts(
            HistogramOpts::new("weir_control_store_commit_seconds", "From a decision to its commit.")
                .buckets(vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]),
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let waits = Histogram::with_opts(
            HistogramOpts::new(
                "weir_control_requests_waiting_seconds",
                "From a request's last octet until its lane takes it.",
            )
            .buckets(vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]),
        )?;
        registry.register(Box::new(waits.clone()))?;
        let r = &registry;
        Ok(Metrics {
            received: Counters::new(
                r,
                "weir_control_messages_received_total",
                "SIP messages that came, also those that were discarded.",
            )?,
            sent: Counters::new(r, "weir_control_messages_sent_total", "SIP messages handed to a socket.")?,
            pings: Counters::new(r, "weir_control_pings_received_total", "Keep-alives that came.")?,
            discarded: Counters::new(
                r,
                "weir_control_messages_discarded_total",
                "SIP messages that went no further, answered or not, and why.",
            )?,
            connections: Gauges::new(r, "weir_control_connections_open", "Connections that are open.")?,
            connections_opened: Counters::new(
                r,
                "weir_control_connections_opened_total",
                "Connections accepted or opened.",
            )?,
            connections_closed: Counters::new(
                r,
                "weir_control_connections_closed_total",
                "Connections that ended or were refused, and why.",
            )?,
            copies: Counters::new(
                r,
                "weir_control_hep_copies_total",
                "Copies of SIP messages for a collector (HEP3).",
            )?,
            traced: Counters::new(
                r,
                "weir_control_trace_events_total",
                "Events of traces (weir trace): shown, or lost because their tracer was too slow.",
            )?,
            certificates: Counters::new(
                r,
                "weir_control_certificates_reloaded_total",
                "Certificates of SIP over TLS that were replaced while we run.",
            )?,
            located: Counters::new(
                r,
                "weir_control_names_located_total",
                "Names of next hops that were looked for (RFC 3263).",
            )?,
            fail_over: Counters::new(
                r,
                "weir_control_fail_overs_total",
                "Requests to a name that a peer of it did not serve (RFC 3263).",
            )?,
            requests: Counters::new(r, "weir_control_requests_received_total", "Requests given to a lane.")?,
            responses: Counters::new(
                r,
                "weir_control_responses_sent_total",
                "Final answers to requests from the network.",
            )?,
            questions: Counters::new(
                r,
                "weir_control_admin_questions_total",
                "Questions on the admin socket, and what became of them.",
            )?,
            live: Gauges::new(r, "weir_control_lane_live_items", "What the lanes have live.")?,
            incidents: Gauges::new(
                r,
                "weir_control_lane_noted_incidents",
                "What the lanes have noted since they were taken up.",
            )?,
            lane_waiting: gauge("weir_control_lane_waiting_events", "Events that wait for their lane.")?,
            lane_reloads: counter(
                "weir_control_lane_reloads_total",
                "Lanes that were taken up again from the store after a failed commit.",
            )?,
            commits: Counters::new(r, "weir_control_store_commits_total", "Commits of lanes.")?,
            commit_seconds: seconds,
            waits,
            overload_loss: gauge(
                "weir_control_overload_loss_percent",
                "Of a hundred requests, how many clients are told not to send (RFC 7339).",
            )?,
            overload_lanes: gauge(
                "weir_control_overload_limited_lanes",
                "Lanes that take only a part of what comes.",
            )?,
            overload_hops: gauge(
                "weir_control_overload_asking_hops",
                "Next hops that have asked us to send less.",
            )?,
            withheld: counter(
                "weir_control_requests_withheld_total",
                "Requests of ours that were not sent because their next hop asked for less: 503.",
            )?,
            rows: Gauges::new(r, "weir_control_store_held_rows", "Rows in the store.")?,
            dataplane_up: gauge("weir_control_dataplane_link_up", "1 while the data plane is linked.")?,
            dataplane_links: counter(
                "weir_control_dataplane_links_total",
                "Times the data plane was linked.",
            )?,
            batches: Counters::new(r, "weir_control_dataplane_batches_total", "Batches that were answered.")?,
            refusals: Counters::new(
                r,
                "weir_control_dataplane_refusals_total",
                "Batches that the data plane refused.",
            )?,
            news: Counters::new(r, "weir_control_dataplane_news_total", "News from the data plane.")?,
            uptime: gauge("weir_control_process_uptime_seconds", "Seconds since start.")?,
            transactions: gauge("weir_control_transactions_open", "SIP transactions that are open.")?,
            registry,
        })
    }

    /// In the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_exported_from_the_start() {
        let metrics = Metrics::new().unwrap();
        let start_line = Discard::Stack(sip::Dropped::Malformed(sip::Why::StartLine));
        metrics.discarded.count(start_line);
        let text = metrics.text();
        for reason in Discard::all() {
            let n = u8::from(reason == start_line);
            let line =
                format!("weir_control_messages_discarded_total{{reason=\"{}\"}} {n}\n", reason.label());
            assert!(text.contains(&line), "{line}");
        }
        assert_eq!(metrics.discarded.sum(), 1);
    }

    #[test]
    fn labels_of_a_family_differ_and_names_follow_the_rule() {
        let mut labels: Vec<_> = Discard::all().into_iter().map(Label::label).collect();
        let all = labels.len();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), all);
        let text = Metrics::new().unwrap().text();
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        for name in names {
            assert!(name.starts_with("weir_control_"), "{name}");
        }
    }
}
