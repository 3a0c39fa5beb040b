//! The session's row: written with every change, read after a restart of control. Media goes on meanwhile;
//! requests that were on their way are lost with their transactions and end by their peers' timers.

use base::Private;
use bytes::Bytes;

use super::clock::Clock;
use super::{Lines, Phase, Plan, Session, Side, SideState, UPSTREAM};
use crate::media::Anchor;
use crate::records::{self, Columns, Direction, Record, Row, SessionRow};
use crate::turn::Turn;
use crate::{Key, Table};

impl Session {
    /// The key of its row.
    pub(super) fn row_id(&self) -> String {
        row_id(self.id)
    }

    /// Writes the rows of an established session.
    pub(super) fn save(&mut self, turn: &mut Turn<'_>) {
        if self.phase != Phase::Active {
            return;
        }
        let row = |side: &Side| {
            Some(records::Side {
                dialog: side.dialog.clone()?,
                route: side.route.clone(),
                device: Private::new(side.device.clone()),
                tag: side.tag.clone(),
                sdp_sent: Private::new(side.sdp_sent.to_vec()),
                sdp_got: Private::new(side.sdp_got.to_vec()),
                interval_s: side.clock.interval_s(),
                refresher: side.clock.refresher(),
                update: side.update,
                legs: side.legs.clone(),
                contact_user: side.contact_user.clone(),
                contact_features: side.contact_features.clone(),
            })
        };
        let Some(upstream) = self.side(UPSTREAM).and_then(row) else { return };
        let downstream =
            self.sides.iter().skip(1).filter(|s| s.state == SideState::Confirmed).filter_map(row).collect();
        self.version += 1;
        let record = SessionRow {
            user: self.user.clone(),
            originating: self.originating,
            group: self.group,
            upstream,
            downstream,
            context: self.context().unwrap_or(0),
            fan_out: self.plan == Plan::FanOut,
            conversation: self.conversation.clone(),
            contribution: self.contribution.clone(),
            since: self.since,
        };
        turn.put_row(Row {
            key: Key::new(Table::Session, self.row_id()),
            lane: self.lane(),
            version: self.version,
            columns: Columns {
                owner: Private::new(self.user.as_str().to_owned()),
                conversation: self.conversation.clone(),
                contribution: self.contribution.clone(),
                direction: if self.originating { Direction::Sent } else { Direction::Received },
                ..Columns::default()
            },
            record: Record::Session(Box::new(record)),
        });
        if let Some(anchor) = &mut self.anchor {
            anchor.save(turn);
        }
    }

    /// Removes its row.
    pub(super) fn forget(&mut self, turn: &mut Turn<'_>) {
        if self.version > 0 {
            turn.remove_row(Key::new(Table::Session, self.row_id()));
        }
    }

    /// Back from its row. Its context comes with its own row, see [`Session::take_anchor`].
    pub(crate) fn restore(turn: &Turn<'_>, id: u64, version: u64, row: SessionRow) -> Session {
        let now = turn.now.mono;
        let side = |row: records::Side| Side {
            state: SideState::Confirmed,
            tag: row.tag,
            dialog: Some(row.dialog),
            route: row.route,
            device: row.device.into_inner(),
            invite: None,
            early: Vec::new(),
            unacknowledged: None,
            sdp_sent: Bytes::from(row.sdp_sent.into_inner()),
            sdp_got: Bytes::from(row.sdp_got.into_inner()),
            // How long ago the last refresh was is not known: a whole interval is granted.
            clock: Clock::new(now, row.interval_s, row.refresher),
            update: row.update,
            legs: row.legs,
            contact_user: row.contact_user,
            contact_features: row.contact_features,
        };
        let plan = match (row.context, row.fan_out) {
            (0, _) => Plan::Pass,
            (_, true) => Plan::FanOut,
            (_, false) => Plan::Relay,
        };
        let mut sides = vec![side(row.upstream)];
        sides.extend(row.downstream.into_iter().map(side));
        Session {
            id,
            user: row.user,
            originating: row.originating,
            group: row.group,
            plan,
            phase: Phase::Active,
            sides,
            setup: None,
            invite_seq: None,
            unpracked: None,
            last_word: None,
            tags_before: Vec::new(),
            exchange: None,
            passing: Vec::new(),
            referrals: super::referral::Referrals::default(),
            anchor: None,
            lines: Lines::default(),
            repair: None,
            ask: None,
            timer: None,
            calling_until: None,
            behind: std::collections::BTreeSet::new(),
            lingering: None,
            referrer: None,
            since: row.since,
            conversation: row.conversation,
            contribution: row.contribution,
            version,
        }
    }

    /// Its context, back from its own row.
    pub(crate) fn take_anchor(&mut self, anchor: Anchor) {
        self.anchor = Some(anchor);
    }

    /// After everything is restored: the clock runs, and the other lane is asked whether it still knows us
    /// (one of two lanes may have died before its commit).
    pub(crate) fn resume(&mut self, turn: &mut Turn<'_>) {
        if self.plan != Plan::Pass && self.anchor.is_none() {
            // The row of its context was never committed: nothing carries its media.
            self.end_all(turn, None, "SIP;cause=503");
        } else {
            self.resume_repair(turn);
            self.ask_lanes(turn);
        }
        self.settle(turn);
    }

    fn ask_lanes(&mut self, turn: &mut Turn<'_>) {
        let lanes = self.sides.iter().position(|s| matches!(s.route, crate::Route::Lane(_)));
        if let Some(at) = lanes {
            self.ask_side(turn, at, super::exchange::Purpose::Refresh, sip::Method::Update, Bytes::new());
        }
    }
}

/// The key of a session's row.
pub(crate) fn row_id(id: u64) -> String {
    format!("{id:016x}")
}

/// The session of a row's key.
pub(crate) fn session_of(row_id: &str) -> Option<u64> {
    u64::from_str_radix(row_id, 16).ok()
}
