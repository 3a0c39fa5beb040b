//! What is done now and then: forgetting old rows, counting rows, reading gauges.

use std::sync::Arc;
use std::time::Duration;

use service::Table;
use store::Store;
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock::Clock;
use crate::lane::{Lanes, Report, ServiceReport};
use crate::metrics::{Incident, Live, Metrics};
use crate::{Shutdown, ended};

const COUNT_EVERY: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Until shutdown.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    lanes: Lanes,
    clock: Clock,
    ended: ended::Settings,
    shutdown: Shutdown,
) {
    let mut tick = tokio::time::interval(COUNT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep_at = Instant::now();
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            _ = look.tick() => {
                add_up(&lanes.reports().await, &metrics);
                continue;
            }
            _ = tick.tick() => {}
        }
        count(&*store, metrics.clone());
        trim(&*store, ended.rows_max).await;
        if sweep_at <= Instant::now() {
            // A sweep that found much comes again with the next tick: the store has other work to do.
            let more = sweep(&*store, clock).await;
            sweep_at = Instant::now() + if more { Duration::ZERO } else { SWEEP_EVERY };
        }
    }
}

/// What the lanes say of themselves, over all lanes.
fn add_up(reports: &[Report], metrics: &Metrics) {
    let sum = |pick: fn(&ServiceReport) -> u64| {
        let sum: u64 = reports.iter().map(|report| pick(&report.service)).sum();
        i64::try_from(sum).unwrap_or(i64::MAX)
    };
    let live = [
        (Live::Bindings, sum(|s| s.bindings)),
        (Live::Sessions, sum(|s| s.sessions)),
        (Live::Messages, sum(|s| s.messages)),
        (Live::Relays, sum(|s| s.relays)),
        (Live::Conferences, sum(|s| s.conferences)),
        (Live::Files, sum(|s| s.files)),
    ];
    for (what, n) in live {
        if let Some(gauge) = metrics.live.of(what) {
            gauge.set(n);
        }
    }
    let incidents = [
        (Incident::Challenge, sum(|s| s.challenges)),
        (Incident::AuthFailed, sum(|s| s.auth_failed)),
        (Incident::AskRefused, sum(|s| s.asks_refused)),
        (Incident::OutputLost, sum(|s| s.outputs_lost)),
        (Incident::TimerRefused, sum(|s| s.timers_refused)),
        (Incident::RowUnread, sum(|s| s.rows_unread)),
        (Incident::ContactUnread, sum(|s| s.contacts_unread)),
        (Incident::AckStray, sum(|s| s.acks_stray)),
        (Incident::DescriptionMalformed, sum(|s| s.descriptions_malformed)),
    ];
    for (what, n) in incidents {
        if let Some(gauge) = metrics.incidents.of(what) {
            gauge.set(n);
        }
    }
}

fn count(store: &dyn Store, metrics: Arc<Metrics>) {
    store.count(Box::new(move |counts| {
        for (table, rows) in Table::ALL.into_iter().zip(counts.unwrap_or_default()) {
            if let Some(gauge) = metrics.rows.of(table) {
                gauge.set(i64::try_from(rows).unwrap_or(i64::MAX));
            }
        }
    }));
}

/// True when there is more.
async fn sweep(store: &dyn Store, clock: Clock) -> bool {
    let (send, receive) = tokio::sync::oneshot::channel();
    store.sweep(
        clock.now().wall,
        Box::new(move |swept| {
            let _ = send.send(swept);
        }),
    );
    match receive.await {
        Ok(Ok(swept)) => swept.more,
        Ok(Err(error)) => {
            tracing::warn!(%error, "old rows could not be swept");
            false
        }
        Err(_) => false,
    }
}

/// Forgets the oldest of too many legs that have ended, some thousands at most: the store has other work to do.
async fn trim(store: &dyn Store, rows_max: u64) {
    const PIECES_MAX: usize = 32;
    for _ in 0..PIECES_MAX {
        let (send, receive) = tokio::sync::oneshot::channel();
        let done = move |trimmed| {
            let _ = send.send(trimmed);
        };
        store.trim(Table::Ended, rows_max, Box::new(done));
        match receive.await {
            Ok(Ok(trimmed)) if trimmed.more => {}
            Ok(Ok(_)) | Err(_) => return,
            Ok(Err(error)) => return tracing::warn!(%error, "old legs could not be forgotten"),
        }
    }
}

/// Sets the gauges that are read when somebody looks.
pub(crate) fn gauges(metrics: Arc<Metrics>, lanes: Lanes, clock: Clock) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || {
        metrics.lane_waiting.set(i64::try_from(lanes.waiting_in_all()).unwrap_or(i64::MAX));
        let seconds = clock.now().mono.as_nanos() / 1_000_000_000;
        metrics.uptime.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    })
}
