//! The table at the end: per device, what was sent, delivered and reported.

use ue::{Device, Event};

use super::cast::Cast;
use super::pairs::Audio;
use super::table::Table;

/// What a device did not like.
pub(super) fn faults(device: &Device) -> Vec<String> {
    let fault = |event: Event| if let Event::Fault(what) = event { Some(what) } else { None };
    device.log().since(0).into_iter().filter_map(fault).collect()
}

/// One row a device.
pub(super) fn table(cast: &Cast, calls: &[Audio]) -> Table {
    let mut table = Table::new(&[
        "device",
        "over",
        "pager out",
        "in",
        "chat out",
        "in",
        "reports",
        "delivered out",
        "in",
        "displayed out",
        "in",
        "rtp out",
        "in",
        "lost",
        "jitter ms",
        "delay ms p50",
        "p99",
        "max",
        "faults",
    ]);
    for device in cast.all() {
        let c = device.counters();
        let mut row = vec![device.name().to_owned(), device.account().transport.to_string()];
        let counted = [
            &c.pagers_accepted,
            &c.pagers_received,
            &c.chats_sent,
            &c.chats_received,
            &c.reports_received,
            &c.delivered_sent,
            &c.delivered_received,
            &c.displayed_sent,
            &c.displayed_received,
        ];
        row.extend(counted.iter().map(|counter| counter.value().to_string()));
        row.extend(audio(device.name(), calls));
        row.push(c.faults.value().to_string());
        table.row(row);
    }
    table
}

fn audio(name: &str, calls: &[Audio]) -> Vec<String> {
    let own: Vec<_> = calls.iter().flatten().filter(|(n, _)| n == name).map(|(_, stats)| stats).collect();
    let sum = |of: fn(&ue::FlowStats) -> u64| own.iter().map(|s| of(s)).sum::<u64>().to_string();
    let mut cells = vec![sum(|s| s.sent), sum(ue::FlowStats::heard), sum(ue::FlowStats::lost)];
    let sources: Vec<_> = own.iter().flat_map(|s| s.sources.values()).collect();
    let jitter = sources.iter().map(|s| s.jitter_ms).fold(0.0, f64::max);
    let delay = |quantile: f64| {
        sources.iter().map(|s| s.delay_us.value_at_quantile(quantile) as f64 / 1000.0).fold(0.0, f64::max)
    };
    if sources.is_empty() {
        cells.extend(["-", "-", "-", "-"].map(str::to_owned));
    } else {
        cells.extend([jitter, delay(0.5), delay(0.99), delay(1.0)].map(|value| format!("{value:.2}")));
    }
    cells
}
