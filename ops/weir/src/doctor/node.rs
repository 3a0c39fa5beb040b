//! The node that runs here, if one does: what control says of itself, and what both processes have counted.

use std::path::Path;

use super::Finding;
use crate::config::Config;
use crate::status;

/// Whether a node runs, and what there is to say of it.
pub(super) async fn look(config: &Config, folder: &Path) -> (bool, Vec<Finding>) {
    let socket = config.admin_socket();
    // The socket of the folder asked for, when the configuration names another.
    let socket = if socket.exists() { socket } else { folder.join("control.sock") };
    if !socket.exists() {
        let advice = "`weir up` starts one; --folder names another";
        return (false, vec![Finding::note("node", format!("none runs in {}", folder.display()), advice)]);
    }
    let told = match status::ask(&socket).await {
        Ok(told) => told,
        Err(error) => {
            let advice = "control ended without taking its socket away, or hangs: see its log";
            return (
                false,
                vec![Finding::fault("node", format!("control does not answer: {error:#}"), advice)],
            );
        }
    };
    let mut findings = vec![Finding::good("node", format!("control is up for {} s", told.at("/uptime_s")))];
    findings.extend(told.faults().into_iter().map(|fault| {
        Finding::fault("node", fault, "see the logs of both processes, and the disk of the folder")
    }));
    if told.is_linked() {
        findings.push(Finding::good("node", format!("driver {}: {}", told.driver(), told.driver_reason())));
        findings.extend(load(&told));
    }
    match config.dataplane_metrics() {
        Some(address) => match status::scrape(address).await {
            Ok(text) => findings.extend(counted(&text)),
            Err(error) => findings.push(Finding::warning(
                "node",
                format!("the data plane's metrics are not to be had: {error:#}"),
                "is dataplane.metrics.address right, and the data plane up?",
            )),
        },
        None => {
            findings.push(Finding::note("node", "the data plane's metrics are off", "dataplane.metrics.on"))
        }
    }
    (true, findings)
}

fn load(told: &status::Status) -> Vec<Finding> {
    let number = |key: &str| told.at(&format!("/dataplane/load/{key}")).as_u64().unwrap_or(0);
    let mut findings = Vec::new();
    for what in ["contexts", "legs"] {
        let (now, max) = (number(what), number(&format!("{what}_max")));
        if max > 0 && now * 10 >= max * 9 {
            findings.push(Finding::warning(
                "load",
                format!("{now} of {max} {what}"),
                format!("raise limits.{what}_max, or put contexts on another data plane"),
            ));
        }
    }
    let busy = number("busy_permille");
    if busy >= 900 {
        findings.push(Finding::warning(
            "load",
            format!("the busiest shard runs {busy} per mille of its time"),
            "another core for a shard (shards.cores), or fewer calls",
        ));
    }
    findings
}

/// What to do about drops of a reason; nothing where the reason speaks for itself.
fn advice(reason: &str) -> &'static str {
    match reason {
        "source" | "window" | "candidate" => {
            "phones behind NAT? control.service.media.latching and learning_ms say who may be learned; else somebody probes"
        }
        "srtp_unauthentic" => "keys that do not fit, or somebody injects: compare a=crypto of both ends",
        "bundle" => {
            "a browser sends on a shared transport what is of none of its lines: compare a=mid, a=ssrc and its formats"
        }
        "payload" => "a peer sends a payload type that its description did not offer",
        "bandwidth" => {
            "a peer sends more than it was told (b=): control.service.media.police_headroom_percent, or limits.police_burst_ms"
        }
        "no_target" | "no_path" => {
            "media before the answer, or on hold, is normal; for long it is a leg without its other side"
        }
        "outpost_full" => {
            "one shard is too busy for a conference that is on several: more cores, or limits.mailbox_max"
        }
        "outpost_unknown" => "legs that come or go while packets cross between shards: a few are normal",
        "outbox" => "the data plane's own limits do not fit together: report it",
        "truncated" => "datagrams over 2 KiB: no medium that is agreed here has them",
        "sources" => "a peer changes its SSRC all the time: limits of sources per leg",
        _ => "",
    }
}

/// What the data plane counted, in words.
fn counted(text: &str) -> Vec<Finding> {
    let samples: Vec<(String, f64)> = status::samples(text).collect();
    let sum = |name: &str| samples.iter().filter(|(n, _)| n == name).map(|(_, v)| *v).sum::<f64>();
    let came = sum("weir_dataplane_packets_total{way=\"in\"}");
    let mut findings = Vec::new();
    for (name, count) in samples.iter().filter(|(_, count)| *count > 0.0) {
        let of = |family: &str| {
            name.strip_prefix(&format!("weir_dataplane_{family}{{reason=\""))?.strip_suffix("\"}")
        };
        if let Some(reason) = of("drops_total") {
            let known = forward::Drop::ALL.iter().find(|why| why.label() == reason);
            let meaning = known.map_or("Seen by the driver only.", |why| why.meaning());
            let found = format!("{count} dropped as {reason}: {meaning}");
            // One in a hundred is more than chance.
            findings.push(match *count * 100.0 > came {
                true => Finding::warning("drops", found, told(advice(reason))),
                false => Finding::note("drops", found, advice(reason)),
            });
        }
        if let Some(reason) = of("send_failures_total") {
            findings.push(Finding::warning(
                "sending",
                format!("{count} datagrams were refused by the kernel: {reason}"),
                "full: raise net.core.wmem_max; unreachable and too_long: a route, a firewall or an MTU on the way",
            ));
        }
        if name.starts_with("weir_dataplane_missed_total") {
            findings.push(Finding::warning(
                "queues",
                format!("{count} did not fit: {name}"),
                "captures: fewer at once, or spool.packets_max; news: control is too slow",
            ));
        }
    }
    let silent = sum("weir_dataplane_legs_silent");
    if silent > 0.0 {
        findings.push(Finding::warning(
            "media",
            format!("{silent} legs whose peer should send have been silent for ten seconds or more"),
            "one-way audio: a firewall, NAT (latching), or a phone that crashed; rtp_timeout_ms ends such calls",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::good("drops", format!("none of {came} datagrams")));
    }
    findings
}

fn told(advice: &'static str) -> &'static str {
    if advice.is_empty() { "see the runbook, and a capture of a context that has them" } else { advice }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn what_was_dropped_is_told_with_its_meaning_and_weighed_against_what_came() {
        let text = "weir_dataplane_packets_total{way=\"in\"} 1000\n\
                    weir_dataplane_drops_total{reason=\"source\"} 500\n\
                    weir_dataplane_drops_total{reason=\"stun\"} 3\n\
                    weir_dataplane_drops_total{reason=\"short\"} 0\n\
                    weir_dataplane_send_failures_total{reason=\"full\"} 1\n\
                    weir_dataplane_legs_silent 2\n";
        let found = counted(text);
        let severities: Vec<_> = found.iter().map(|f| (f.area, f.severity)).collect();
        let warning = Severity::Warning;
        assert_eq!(
            severities,
            [("drops", warning), ("drops", Severity::Note), ("sending", warning), ("media", warning)]
        );
        assert!(found[0].found.contains("Not from the address"), "{found:?}");
        assert!(found[0].advice.contains("latching"));
        let fine = counted("weir_dataplane_packets_total{way=\"in\"} 7\n");
        assert_eq!((fine.len(), fine[0].severity), (1, Severity::Good));
    }

    #[test]
    fn every_warning_about_a_drop_has_advice() {
        for why in forward::Drop::ALL {
            let text = format!("weir_dataplane_drops_total{{reason=\"{}\"}} 5\n", why.label());
            let found = counted(&text);
            assert!(!found[0].advice.is_empty() && found[0].found.len() > 20, "{found:?}");
        }
    }
}
