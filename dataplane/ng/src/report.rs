//! What `query` and `delete` tell of a call, in rtpengine's words. Packets and octets are those that came in on a port.

use base::Now;

use crate::Value;
use crate::call::{Call, SIDES, leg_id};

fn stats(packets: u64, bytes: u64, errors: u64) -> Value {
    Value::dictionary().with("packets", packets).with("bytes", bytes).with("errors", errors)
}

/// The whole reply.
pub(crate) fn report(call: &Call) -> Value {
    let created = call.created.as_secs();
    let mut tags = Value::dictionary();
    let mut sums = [0; 3];
    for side in SIDES {
        let tag = call.side(side).tag.expose();
        if tag.is_empty() {
            continue;
        }
        let mut medias = Vec::new();
        for (index, line) in call.lines.iter().enumerate().filter_map(|(i, line)| Some((i, line.as_ref()?))) {
            let end = line.end(side);
            let counted = call.counters.get(&leg_id(index, side)).cloned().unwrap_or_default();
            let figures = [counted.packets_in, counted.bytes_in, counted.dropped];
            sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
            let port = end.placed.as_ref().and_then(|local| local.bound.as_ref()).map_or(0, |at| at.port);
            let mut stream = Value::dictionary().with("local port", u64::from(port));
            if let Some(remote) = end.remote {
                let family = if remote.is_ipv4() { "IPv4" } else { "IPv6" };
                let endpoint = Value::dictionary()
                    .with("family", family)
                    .with("address", remote.ip().to_string())
                    .with("port", u64::from(remote.port()));
                stream = stream.with("endpoint", endpoint);
            }
            let [packets, bytes, errors] = figures;
            stream = stream.with("stats", stats(packets, bytes, errors));
            medias.push(
                Value::dictionary()
                    .with("index", index as u64 + 1)
                    .with("type", line.kind.as_str())
                    .with("protocol", end.proto.as_str())
                    .with("streams", vec![stream])
                    .with("flags", vec![Value::from("initialized")]),
            );
        }
        let mut one = Value::dictionary().with("tag", tag.clone()).with("created", created);
        let other = call.side(1 - side).tag.expose();
        if !other.is_empty() {
            one = one.with("in dialogue with", other.clone());
        }
        tags = tags.with(tag, one.with("medias", medias));
    }
    let [packets, bytes, errors] = sums;
    Value::dictionary()
        .with("created", created)
        .with("created_us", call.created.as_millis() % 1000 * 1000)
        .with("last signal", call.signalled.wall.as_secs())
        .with("SSRC", Value::dictionary())
        .with("tags", tags)
        .with(
            "totals",
            Value::dictionary().with("RTP", stats(packets, bytes, errors)).with("RTCP", stats(0, 0, 0)),
        )
        .with("result", "ok")
}

/// What the whole adapter counted.
pub(crate) fn statistics(tally: &crate::Tally, began: Now, now: Now) -> Value {
    let current = Value::dictionary().with("sessionsown", tally.calls).with("sessionstotal", tally.calls);
    let total = Value::dictionary()
        .with("uptime", now.mono.since(began.mono).as_secs())
        .with("managedsessions", tally.calls_begun)
        .with("silent-timeout", tally.calls_silent);
    let control = Value::dictionary()
        .with("totalrequests", tally.requests)
        .with("retransmissions", tally.retransmissions)
        .with("errors", tally.errors)
        .with("malformed", tally.malformed);
    let all = Value::dictionary()
        .with("currentstatistics", current)
        .with("totalstatistics", total)
        .with("controlstatistics", control);
    Value::dictionary().with("statistics", all).with("result", "ok")
}
