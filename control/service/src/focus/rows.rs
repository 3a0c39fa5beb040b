//! What survives a restart of control (REQ-CF-21; DESIGN §3 "Who owns what"): the conference with its roster,
//! each session's dialog, each subscription, the context. All but sockets and what was in the air.

use base::{Instant, Now, Private, UnixTime};
use cpm::conference::Status;
use sdp::{Codec, Format, Stamp};
use serde::{Deserialize, Serialize};

use super::call::{Call, CallId, CallState};
use super::clock::Clock;
use super::conference::{Conference, Kind, Phase};
use super::config::Medium;
use super::nicknames::Nicknames;
use super::offer::Talk;
use super::room::{Line, Room, Strand};
use super::roster::{MemberId, Roster};
use super::subscribe::{Subscription, SubscriptionId, Via};
use crate::media::Anchor;
use crate::records::{Columns, DialogRow, Key, Record, RosterRow, Row, SubscriptionRow, Table};
use crate::turn::Turn;

/// The body of a conference's row. Fields are added at its end only.
#[derive(Serialize, Deserialize)]
struct Saved {
    kind: Kind,
    phase: Phase,
    conversation: String,
    contribution: String,
    subject: String,
    open: bool,
    allowed: Vec<Medium>,
    roster: Roster,
    calls: Vec<SavedCall>,
    calls_next: u32,
    subscriptions: Vec<SavedSubscription>,
    subscriptions_next: u32,
    nicknames: Nicknames,
    lines: Vec<SavedLine>,
    tls: bool,
    context: u64,
    until: Option<UnixTime>,
}

#[derive(Serialize, Deserialize)]
struct SavedCall {
    id: CallId,
    member: MemberId,
    dialed_out: bool,
    strands: Vec<Strand>,
    interval_s: u32,
    refresher: bool,
    update: bool,
}

#[derive(Serialize, Deserialize)]
struct SavedSubscription {
    id: SubscriptionId,
    member: MemberId,
    call: Option<CallId>,
    event_id: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct SavedLine {
    medium: Medium,
    formats: Vec<(u8, String, u32, u8, Option<String>)>,
}

/// The rows of one conference, gathered from whatever order they came in.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) roster: Option<(u64, RosterRow)>,
    pub(crate) dialogs: Vec<(CallId, u64, DialogRow)>,
    pub(crate) subscriptions: Vec<(SubscriptionId, u64, SubscriptionRow)>,
    pub(crate) context: Option<Anchor>,
}

impl Conference {
    pub(crate) fn dialog_key(&self, id: CallId) -> String {
        format!("{}/{:08x}", self.id, id.0)
    }

    pub(crate) fn subscription_key(&self, id: SubscriptionId) -> String {
        format!("{}/{:08x}", self.id, id.0)
    }

    /// The number at the end of a row's key.
    pub(crate) fn number_in_key(key: &str) -> Option<(&str, u32)> {
        let (focus, number) = key.rsplit_once('/')?;
        Some((focus, u32::from_str_radix(number, 16).ok()?))
    }

    /// Writes what has changed. Nothing is written of a conference that nobody has got into yet.
    pub(crate) fn save(&mut self, turn: &mut Turn<'_>) {
        for key in std::mem::take(&mut self.rows_gone) {
            turn.remove_row(key);
        }
        let promised = self.version > 0 || self.calls.values().any(Call::is_up);
        if self.phase == Phase::Gone || !promised {
            return;
        }
        self.save_calls(turn);
        self.save_subscriptions(turn);
        if let Some(room) = &mut self.room
            && room.anchor.take_unsaved()
        {
            room.anchor.save(turn);
        }
        let Ok(body) = postcard::to_stdvec(&self.saved(turn.now)) else { return };
        let digest = digest(&body);
        if self.written == digest {
            return;
        }
        self.version += 1;
        turn.put_row(Row {
            key: Key::new(Table::Roster, self.id.clone()),
            lane: self.lane(),
            version: self.version,
            columns: self.columns(),
            record: Record::Roster(RosterRow { focus: self.id.clone(), body: Private::new(body) }),
        });
        self.written = digest;
    }

    fn columns(&self) -> Columns {
        Columns {
            owner: Private::new(self.id.clone()),
            conversation: self.conversation.clone(),
            contribution: self.contribution.clone(),
            ..Columns::default()
        }
    }

    fn save_calls(&mut self, turn: &mut Turn<'_>) {
        let (lane, columns, focus) = (self.lane(), self.columns(), self.id.clone());
        let Conference { calls, roster, .. } = self;
        for call in calls.values_mut().filter(|c| c.is_up() && c.dirty) {
            let (Some(dialog), Some(member)) = (&call.dialog, roster.get(call.member)) else { continue };
            call.dirty = false;
            call.version += 1;
            let sent = call.talk.stamp.as_ref().and_then(Stamp::last).map(|s| s.to_bytes().to_vec());
            let got = call.talk.peer.as_ref().map(|s| s.to_bytes().to_vec());
            turn.put_row(Row {
                key: Key::new(Table::Dialog, format!("{focus}/{:08x}", call.id.0)),
                lane,
                version: call.version,
                columns: columns.clone(),
                record: Record::Dialog(Box::new(DialogRow {
                    focus: focus.clone(),
                    user: member.user.clone(),
                    dialog: dialog.clone(),
                    route: call.route.clone(),
                    sdp_sent: Private::new(sent.unwrap_or_default()),
                    sdp_got: Private::new(got.unwrap_or_default()),
                })),
            });
        }
    }

    fn save_subscriptions(&mut self, turn: &mut Turn<'_>) {
        let (lane, columns, focus) = (self.lane(), self.columns(), self.id.clone());
        let Conference { subscriptions, roster, calls, .. } = self;
        for subscription in subscriptions.values_mut().filter(|s| s.dirty) {
            let dialog = match &subscription.via {
                Via::Own(dialog) => Some((**dialog).clone()),
                Via::Call(call) => calls.get(call).and_then(|c| c.dialog.clone()),
            };
            let (Some(dialog), Some(member)) = (dialog, roster.get(subscription.member)) else { continue };
            subscription.dirty = false;
            subscription.row_version += 1;
            turn.put_row(Row {
                key: Key::new(Table::Subscription, format!("{focus}/{:08x}", subscription.id.0)),
                lane,
                version: subscription.row_version,
                columns: columns.clone(),
                record: Record::Subscription(Box::new(SubscriptionRow {
                    focus: focus.clone(),
                    user: member.user.clone(),
                    dialog,
                    route: subscription.route.clone(),
                    version: subscription.version,
                    expires: subscription.expires,
                })),
            });
        }
    }

    fn saved(&self, now: Now) -> Saved {
        let room = self.room.as_ref();
        Saved {
            kind: self.kind,
            phase: self.phase,
            conversation: self.conversation.clone(),
            contribution: self.contribution.clone(),
            subject: self.subject.clone(),
            open: self.open,
            allowed: self.allowed.clone(),
            roster: self.roster.clone(),
            calls: self.calls.values().filter(|c| c.is_up()).map(saved_call).collect(),
            calls_next: self.calls_next,
            subscriptions: self.subscriptions.values().map(saved_subscription).collect(),
            subscriptions_next: self.subscriptions_next,
            nicknames: self.nicknames.clone(),
            lines: room.map(|r| r.lines.iter().map(saved_line).collect()).unwrap_or_default(),
            tls: room.is_some_and(|r| r.tls),
            context: room.map_or(0, |r| r.anchor.id()),
            // To whole seconds, so that the row does not change with every look at the clock.
            until: self.until.map(|at| {
                let at = now.wall + at.since(now.mono);
                UnixTime::from_millis(at.as_secs() * 1000)
            }),
        }
    }

    /// Back from its rows; `None` when they are of no use. Invitations that were in the air go out again:
    /// whoever was promised to be called is called.
    pub(crate) fn restore(now: Now, number: u64, found: Found) -> Option<Self> {
        let (version, row) = found.roster?;
        let saved: Saved = postcard::from_bytes(row.body.expose()).ok()?;
        let mut it = Conference::new(number, row.focus, saved.kind, saved.conversation, saved.contribution);
        it.phase = saved.phase;
        it.subject = saved.subject;
        it.open = saved.open;
        it.allowed = saved.allowed;
        it.roster = saved.roster;
        it.calls_next = saved.calls_next;
        it.subscriptions_next = saved.subscriptions_next;
        it.nicknames = saved.nicknames;
        it.version = version;
        it.lived = true;
        it.founder = it.roster.get(MemberId(0)).filter(|_| it.kind == Kind::AdHoc).map(|m| m.user.clone());
        it.until = saved.until.map(|at| now.mono + at.since(now.wall));
        it.room = found.context.filter(|a| a.id() == saved.context).map(|anchor| Room {
            anchor,
            lines: saved.lines.iter().map(restored_line).collect(),
            tls: saved.tls,
        });
        for (id, version, row) in found.dialogs {
            if let Some(meta) = saved.calls.iter().find(|c| c.id == id) {
                it.calls.insert(id, restored_call(now.mono, meta, version, row));
            }
        }
        for (id, version, row) in found.subscriptions {
            let Some(meta) = saved.subscriptions.iter().find(|s| s.id == id) else { continue };
            let via = match meta.call {
                Some(call) if it.calls.contains_key(&call) => Via::Call(call),
                Some(_) => continue,
                None => Via::Own(Box::new(row.dialog.clone())),
            };
            it.subscriptions.insert(id, restored_subscription(now.mono, meta, via, version, row));
        }
        it.resume();
        Some(it)
    }

    /// What was in the air at the end of the last life.
    fn resume(&mut self) {
        let members: Vec<(MemberId, Status)> = self.roster.iter().map(|(id, m)| (id, m.status)).collect();
        for (id, status) in members {
            let in_it = self.calls_of(id).next().is_some();
            match status {
                Status::Pending | Status::DialingOut | Status::Alerting if !in_it => self.invite(id),
                Status::Disconnected => {}
                _ if in_it => self.show(id),
                _ => self.roster.change(id, |m| m.status = Status::Disconnected),
            }
        }
    }

    /// Rows without a conference.
    pub(crate) fn sweep(turn: &mut Turn<'_>, found: &Found, focus: &str) {
        let dialogs =
            found.dialogs.iter().map(|(id, ..)| Key::new(Table::Dialog, format!("{focus}/{:08x}", id.0)));
        let subscriptions = found
            .subscriptions
            .iter()
            .map(|(id, ..)| Key::new(Table::Subscription, format!("{focus}/{:08x}", id.0)));
        let keys: Vec<Key> = dialogs.chain(subscriptions).chain([Key::new(Table::Roster, focus)]).collect();
        for key in keys {
            turn.remove_row(key);
        }
    }
}

/// FNV-1a: tells whether a row would change, where a chance of 2^-64 to be wrong costs one stale row.
pub(super) fn digest(body: &[u8]) -> u64 {
    body.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn saved_call(call: &Call) -> SavedCall {
    SavedCall {
        id: call.id,
        member: call.member,
        dialed_out: call.dialed_out,
        strands: call.talk.strands.clone(),
        interval_s: call.clock.interval_s(),
        refresher: call.clock.refresher(),
        update: call.update,
    }
}

fn restored_call(now: Instant, meta: &SavedCall, version: u64, row: DialogRow) -> Call {
    let parse = |sdp: &Private<Vec<u8>>| sdp::Session::parse(sdp.expose(), &sdp::Limits::default()).ok();
    let talk = Talk {
        strands: meta.strands.clone(),
        stamp: parse(&row.sdp_sent).map(Stamp::resume),
        peer: parse(&row.sdp_got),
    };
    let mut call = Call::new(meta.id, meta.member, CallState::Up, row.dialog.id.local_tag.clone(), row.route);
    call.dialed_out = meta.dialed_out;
    call.dialog = Some(row.dialog);
    call.talk = talk;
    call.clock = Clock::new(now, meta.interval_s, meta.refresher);
    call.update = meta.update;
    call.version = version;
    call
}

fn saved_subscription(s: &Subscription) -> SavedSubscription {
    let call = match &s.via {
        Via::Call(call) => Some(*call),
        Via::Own(_) => None,
    };
    SavedSubscription { id: s.id, member: s.member, call, event_id: s.event_id.clone() }
}

fn restored_subscription(
    now: Instant,
    meta: &SavedSubscription,
    via: Via,
    version: u64,
    row: SubscriptionRow,
) -> Subscription {
    Subscription {
        id: meta.id,
        member: meta.member,
        via,
        route: row.route,
        event_id: meta.event_id.clone(),
        expires: row.expires,
        version: row.version,
        // What the last document said is not known to the last change: everything again.
        seen: None,
        pending: None,
        not_before: now,
        row_version: version,
        dirty: false,
    }
}

fn saved_line(line: &Line) -> SavedLine {
    let formats = line
        .formats
        .iter()
        .map(|f| (f.payload, f.codec.name.clone(), f.codec.clock, f.codec.channels, f.parameters.clone()));
    SavedLine { medium: line.medium, formats: formats.collect() }
}

fn restored_line(line: &SavedLine) -> Line {
    let formats = line.formats.iter().map(|(payload, name, clock, channels, parameters)| Format {
        payload: *payload,
        codec: Codec::new(name, *clock).channels(*channels),
        parameters: parameters.clone(),
    });
    Line { medium: line.medium, formats: formats.collect() }
}
