//! The words of the contract in a line each. Nothing of a subscriber is in them but nicknames, which are left out.

use std::collections::BTreeMap;

use contract::change::Verb;
use contract::{
    Applied, Batch, Direction, Leg, LegCounters, LegKey, Mode, News, Refusal, leg, leg_lost, news, placement,
    refusal,
};

/// The contexts that a batch speaks of, each once.
pub(super) fn contexts(batch: &Batch) -> Vec<u64> {
    let mut contexts: Vec<u64> = batch.changes.iter().filter_map(contract::Change::context).collect();
    contexts.sort_unstable();
    contexts.dedup();
    contexts
}

pub(super) fn batch(batch: &Batch) -> String {
    let parts: Vec<String> =
        batch.changes.iter().filter_map(|change| change.verb.as_ref()).map(change).collect();
    parts.join("; ")
}

fn change(verb: &Verb) -> String {
    match verb {
        Verb::PutContext(_) => "put context".to_owned(),
        Verb::RemoveContext(_) => "remove context".to_owned(),
        Verb::PutLeg(leg) => format!("put leg {} {}", leg.id, kind(leg)),
        Verb::RemoveLeg(key) => format!("remove leg {}", key.leg),
        Verb::PutPath(path) => {
            let mode = Mode::try_from(path.mode).map_or("?", |mode| mode.as_str_name());
            format!("put path {} {}", path.id, mode.to_ascii_lowercase())
        }
        Verb::RemovePath(key) => format!("remove path {}", key.path),
    }
}

fn kind(leg: &Leg) -> String {
    let mut words = vec![leg.media.clone()];
    match &leg.kind {
        Some(leg::Kind::Rtp(rtp)) => {
            if rtp.dtls.is_some() {
                words.push("dtls".to_owned());
            } else if rtp.srtp.is_some() {
                words.push("srtp".to_owned());
            }
        }
        Some(leg::Kind::Msrp(msrp)) => {
            if msrp.tls {
                words.push("tls".to_owned());
            }
            if msrp.away {
                words.push("away".to_owned());
            }
        }
        None => {}
    }
    match Direction::try_from(leg.direction) {
        Ok(Direction::Sendrecv) | Err(_) => {}
        Ok(other) => words.push(other.as_str_name().to_ascii_lowercase()),
    }
    words.join(" ")
}

pub(super) fn applied(applied: &Applied) -> String {
    let at = |placement: &contract::Placement| {
        let place = match &placement.at {
            Some(placement::At::Rtp(rtp)) => rtp.advertised.as_ref().and_then(contract::Address::socket),
            Some(placement::At::Msrp(msrp)) => msrp.advertised.as_ref().and_then(contract::Address::socket),
            None => None,
        };
        match place {
            Some(place) => format!("leg {} at {place}", placement.leg),
            None => format!("leg {}", placement.leg),
        }
    };
    let legs: Vec<String> = applied.placements.iter().map(at).collect();
    if legs.is_empty() { "applied".to_owned() } else { format!("applied: {}", legs.join(", ")) }
}

pub(super) fn refused(refusal: &Refusal) -> String {
    let reason = refusal::Reason::try_from(refusal.reason).map_or("?", |reason| reason.as_str_name());
    format!("refused: {} ({})", reason.to_ascii_lowercase(), refusal.detail)
}

/// News of one leg.
pub(super) fn told(news: &News, leg: LegKey) -> String {
    let n = leg.leg;
    match news.what.as_ref() {
        Some(news::What::LegUp(_)) => format!("leg {n} is up"),
        Some(news::What::LegLost(lost)) => {
            let reason = leg_lost::Reason::try_from(lost.reason).map_or("?", |reason| reason.as_str_name());
            format!("leg {n} is lost: {}", reason.to_ascii_lowercase())
        }
        Some(news::What::Latched(latched)) => {
            let remote = latched.remote.as_ref().and_then(contract::Address::socket);
            let what = if latched.rtcp { " (rtcp)" } else { "" };
            match remote {
                Some(remote) => format!("leg {n} hears {remote}{what}"),
                None => format!("leg {n} hears its peer{what}"),
            }
        }
        Some(news::What::Report(report)) => format!("leg {n}: a message ended with {}", report.status),
        Some(news::What::Message(_)) => format!("leg {n} wants another nickname"),
        Some(news::What::Pressure(pressure)) if pressure.on && pressure.kept => {
            format!("leg {n} is slow: {} octets wait for it on disk", pressure.waiting_bytes)
        }
        Some(news::What::Pressure(pressure)) if pressure.on => {
            format!("leg {n} is slow: {} octets wait for it", pressure.waiting_bytes)
        }
        Some(news::What::Pressure(_)) => format!("leg {n} is slow no longer"),
        Some(news::What::Counters(_) | news::What::Load(_)) | None => String::new(),
    }
}

/// What an RTP leg came to, in a line and in numbers.
pub(super) fn counted(leg: &LegCounters) -> (String, BTreeMap<String, u64>) {
    let key = leg.leg.unwrap_or_default();
    let side = |packets: u64, lost: u64, jitter: u32, mos: u32| {
        let mos = if mos > 0 { format!(", mos {}.{:02}", mos / 100, mos % 100) } else { String::new() };
        format!("{packets} packets, {lost} lost, jitter {:.1} ms{mos}", f64::from(jitter) / 1000.0)
    };
    let line = format!(
        "leg {} {} ended after {:.1} s: in {}; out {}; {} dropped",
        key.leg,
        if leg.video { "video" } else { "audio" },
        leg.up_ms as f64 / 1000.0,
        side(leg.packets_in, leg.lost, leg.jitter_us, leg.mos_centi),
        side(leg.packets_out, leg.lost_out, leg.jitter_out_us, leg.mos_out_centi),
        leg.dropped,
    );
    let numbers = [
        ("leg", key.leg),
        ("up_ms", leg.up_ms),
        ("packets_in", leg.packets_in),
        ("packets_out", leg.packets_out),
        ("bytes_in", leg.bytes_in),
        ("bytes_out", leg.bytes_out),
        ("dropped", leg.dropped),
        ("policed", leg.policed),
        ("lost_in", leg.lost),
        ("lost_out", leg.lost_out),
        ("reordered", leg.reordered),
        ("duplicates", leg.duplicates),
        ("jitter_in_us", leg.jitter_us.into()),
        ("jitter_out_us", leg.jitter_out_us.into()),
        ("round_trip_us", leg.round_trip_us.into()),
        ("mos_in_centi", leg.mos_centi.into()),
        ("mos_out_centi", leg.mos_out_centi.into()),
        ("retransmitted", leg.retransmitted),
    ];
    (line, named(&numbers))
}

fn named(numbers: &[(&str, u64)]) -> BTreeMap<String, u64> {
    numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
}
