//! Legs that have ended: what the data plane counted of each, as a line of the log and a row of the store, for whoever charges
//! or watches quality. A row names its call by the number of its context, as all logs and rows do, and no subscriber.
//!
//! ```text
//!   a leg goes ── its last counters ──► `weir::cdr` in the log
//!                                  └──► a row of Table::Ended ── `kept_s` over, or `rows_max` newer ones ──► forgotten
//! ```

use base::UnixTime;
use contract::LegCounters;
use serde::{Deserialize, Serialize};
use service::records::{Columns, EndedLeg};
use service::{Change, Key, LaneKey, Record, Row, Table};
use store::{Store, StoreError};

/// Rows of one commit.
const CHUNK: usize = 256;

/// The section `[ended]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds for which the row of a leg that has ended is kept, and up to a day more; 0 = no rows, only lines of the log.
    pub kept_s: u64,
    /// Rows at most: beyond them the oldest are forgotten first.
    pub rows_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { kept_s: 7 * 86_400, rows_max: 200_000 }
    }
}

/// Says and keeps the last counters of legs. It waits for nothing: a store that takes no rows now is told of in the log, where
/// the lines are.
pub(crate) fn keep(legs: &[LegCounters], settings: Settings, now: UnixTime, store: &dyn Store) {
    let ended: Vec<EndedLeg> = legs.iter().filter_map(|leg| ended(leg, now)).collect();
    ended.iter().for_each(say);
    if settings.kept_s == 0 {
        return;
    }
    for some in ended.chunks(CHUNK) {
        let rows = some.iter().map(|leg| Change::Put(Box::new(row(leg, settings)))).collect();
        let done = |outcome: Result<(), StoreError>| {
            if let Err(error) = outcome {
                tracing::warn!(%error, "legs that have ended could not be kept");
            }
        };
        store.commit(rows, Box::new(done));
    }
}

fn ended(leg: &LegCounters, now: UnixTime) -> Option<EndedLeg> {
    let key = leg.leg?;
    Some(EndedLeg {
        context: key.context,
        leg: key.leg,
        ended: now,
        video: leg.video,
        up_ms: leg.up_ms,
        packets_in: leg.packets_in,
        packets_out: leg.packets_out,
        bytes_in: leg.bytes_in,
        bytes_out: leg.bytes_out,
        dropped: leg.dropped,
        policed: leg.policed,
        lost_in: leg.lost,
        lost_out: leg.lost_out,
        reordered: leg.reordered,
        duplicates: leg.duplicates,
        jitter_in_us: leg.jitter_us,
        jitter_out_us: leg.jitter_out_us,
        round_trip_us: leg.round_trip_us,
        mos_in_centi: leg.mos_centi,
        mos_out_centi: leg.mos_out_centi,
        retransmitted: leg.retransmitted,
    })
}

fn row(leg: &EndedLeg, settings: Settings) -> Row {
    let until = leg.ended.as_millis().saturating_add(settings.kept_s.saturating_mul(1000));
    Row {
        // The newest come first in the order of keys: that is what people look for.
        key: Key::new(
            Table::Ended,
            format!("{:016x}/{:016x}/{:x}", u64::MAX - leg.ended.as_millis(), leg.context, leg.leg),
        ),
        lane: LaneKey::of_context(leg.context),
        version: 1,
        columns: Columns { expires: UnixTime::from_millis(until), ..Columns::default() },
        record: Record::Ended(Box::new(leg.clone())),
    }
}

/// Whoever charges or watches quality collects the target `weir::cdr`.
fn say(leg: &EndedLeg) {
    tracing::info!(
        target: "weir::cdr",
        context = format_args!("{:016x}", leg.context),
        leg = leg.leg,
        media = if leg.video { "video" } else { "audio" },
        up_ms = leg.up_ms,
        packets_in = leg.packets_in,
        packets_out = leg.packets_out,
        bytes_in = leg.bytes_in,
        bytes_out = leg.bytes_out,
        dropped = leg.dropped,
        policed = leg.policed,
        lost_in = leg.lost_in,
        lost_out = leg.lost_out,
        reordered = leg.reordered,
        duplicates = leg.duplicates,
        jitter_in_us = leg.jitter_in_us,
        jitter_out_us = leg.jitter_out_us,
        round_trip_us = leg.round_trip_us,
        mos_in_centi = leg.mos_in_centi,
        mos_out_centi = leg.mos_out_centi,
        retransmitted = leg.retransmitted,
        "a leg has ended"
    );
}

#[cfg(test)]
mod tests {
    use contract::LegKey;
    use store::{Sqlite, wait};

    use super::*;

    fn leg(number: u64, packets_in: u64) -> LegCounters {
        let key = LegKey::new(LaneKey(3).context(9), number);
        LegCounters { leg: Some(key), packets_in, lost: 2, mos_centi: 410, ended: true, ..Default::default() }
    }

    fn listed(store: &dyn Store) -> Vec<Row> {
        wait(|done| store.list(Table::Ended, 10_000, done)).unwrap()
    }

    #[test]
    fn the_last_counters_are_rows_the_newest_first_until_their_time_is_over() {
        let store = Sqlite::in_memory(&store::Settings::default()).unwrap();
        let settings = Settings { kept_s: 100, ..Settings::default() };
        let at = UnixTime::from_millis;
        keep(&[leg(1, 10), leg(2, 20)], settings, at(1_000_000), &store);
        keep(&[leg(3, 30)], settings, at(1_050_000), &store);
        let rows = listed(&store);
        let packets: Vec<u64> = rows
            .iter()
            .map(|row| {
                assert_eq!((row.lane, row.version), (LaneKey(3), 1));
                assert!(row.columns.owner.expose().is_empty(), "nobody is named");
                let Record::Ended(leg) = &row.record else { panic!("a leg that has ended") };
                assert_eq!((leg.lost_in, leg.mos_in_centi), (2, 410));
                leg.packets_in
            })
            .collect();
        assert_eq!(packets, [30, 10, 20]);
        let day = 86_400_000;
        wait(|done| store.sweep(at(1_100_001 + day), done)).unwrap();
        assert_eq!(listed(&store).len(), 1);
        wait(|done| store.sweep(at(1_150_001 + day), done)).unwrap();
        assert_eq!(listed(&store).len(), 0);
    }

    #[test]
    fn who_keeps_nothing_has_no_rows() {
        let store = Sqlite::in_memory(&store::Settings::default()).unwrap();
        keep(&[leg(1, 10)], Settings { kept_s: 0, ..Settings::default() }, UnixTime::from_millis(5), &store);
        assert_eq!(listed(&store).len(), 0);
    }
}
