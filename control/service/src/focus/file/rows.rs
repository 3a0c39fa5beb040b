//! What of a file survives a restart of control (DESIGN §2, invariant 8): who sends it, who takes it, their dialogs, the
//! context. Written from the first member on who takes it; gone with the file.
//!
//! A file whose sender has his answer goes on as if nothing had been. One that was still being offered ends: the INVITEs that
//! were in the air are nobody's any more, and whoever has taken it already is told by BYE.

use base::{Private, UnixTime};
use cpm::UserId;
use sdp::{Session, Stamp};
use serde::{Deserialize, Serialize};
use sip::{Dialog, Method, Name, Request, Uri};

use super::describe::{Offered, Span, Taken};
use super::{MEDIA_LOST, Party, PartyState, Sender, Stage, Transfer};
use crate::focus::affair::Handles;
use crate::focus::rows::digest;
use crate::focus::say;
use crate::media::Anchor;
use crate::records::{Columns, FileRow, Key, Record, Row, Table};
use crate::turn::Turn;
use crate::{LaneKey, Route};

/// The body of a file's row. Fields are added at its end only.
#[derive(Serialize, Deserialize)]
struct Saved {
    conversation: String,
    contribution: String,
    stage: Stage,
    /// The sender's description.
    offered: Vec<u8>,
    sender: SavedSide,
    /// Those who take it.
    parties: Vec<SavedSide>,
    until: Option<UnixTime>,
    left: bool,
    /// Legs of those who are behind others.
    slow: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct SavedSide {
    user: UserId,
    address: Private<String>,
    route: Route,
    tag: String,
    leg: u64,
    dialog: Option<Dialog>,
    /// The last description that we sent.
    sent: Vec<u8>,
    /// Of a member: what he answered.
    answer: Vec<u8>,
}

/// The key of the row of the file with that context.
pub(super) fn id_of(context: u64) -> String {
    format!("file-{context:016x}")
}

fn parse(sdp: &[u8]) -> Option<Session> {
    Session::parse(sdp, &sdp::Limits::default()).ok()
}

fn last(stamp: Option<&Stamp>) -> Vec<u8> {
    stamp.and_then(Stamp::last).map(|session| session.to_bytes().to_vec()).unwrap_or_default()
}

impl Transfer {
    fn key(&self) -> Key {
        Key::new(Table::Roster, id_of(self.anchor.id()))
    }

    /// Writes what has changed. Nothing is written of a file that nobody has taken yet.
    pub(super) fn save(&mut self, turn: &mut Turn<'_>) {
        if self.stage == Stage::Over {
            if std::mem::take(&mut self.version) > 0 {
                turn.remove_row(self.key());
            }
            return;
        }
        let promised = self.version > 0 || self.sender.dialog.is_some() || self.takers().next().is_some();
        if !promised {
            return;
        }
        if self.anchor.take_unsaved() {
            self.anchor.save(turn);
        }
        let saved = self.saved(turn);
        let Ok(body) = postcard::to_stdvec(&saved) else { return };
        let digest = digest(&body);
        if self.written == digest {
            return;
        }
        (self.written, self.version) = (digest, self.version + 1);
        turn.put_row(Row {
            key: self.key(),
            lane: LaneKey::of_conference(&self.group),
            version: self.version,
            columns: Columns {
                owner: Private::new(self.group.clone()),
                conversation: saved.conversation,
                contribution: saved.contribution,
                ..Columns::default()
            },
            record: Record::File(FileRow {
                id: id_of(self.anchor.id()),
                group: self.group.clone(),
                body: Private::new(body),
            }),
        });
    }

    fn saved(&self, turn: &Turn<'_>) -> Saved {
        let sender = &self.sender;
        let taken = |party: &Party| {
            let origin = self.offered.session().origin.clone();
            let line = party.taken.as_ref().map(|taken| taken.line.clone());
            line.map(|line| Session::new(origin).with(line).to_bytes().to_vec()).unwrap_or_default()
        };
        let party = |party: &Party| SavedSide {
            user: party.user.clone(),
            address: party.address.clone(),
            route: party.route.clone(),
            tag: party.tag.clone(),
            leg: party.leg,
            dialog: party.dialog.clone(),
            sent: last(party.stamp.as_ref()),
            answer: taken(party),
        };
        Saved {
            conversation: self.conversation.clone(),
            contribution: self.invite.headers.text(&Name::ContributionId).unwrap_or_default().to_owned(),
            stage: self.stage,
            offered: self.offered.session().to_bytes().to_vec(),
            sender: SavedSide {
                user: sender.user.clone(),
                address: sender.address.clone(),
                route: sender.route.clone(),
                tag: sender.tag.clone(),
                leg: sender.leg,
                dialog: sender.dialog.clone(),
                sent: last(sender.stamp.as_ref()),
                answer: Vec::new(),
            },
            parties: self.takers().map(party).collect(),
            // To whole seconds, so that the row does not change with every look at the clock.
            until: self.deadline.filter(|_| matches!(self.stage, Stage::Draining | Stage::Waiting)).map(
                |at| {
                    let at = turn.now.wall + at.since(turn.now.mono);
                    UnixTime::from_millis(at.as_secs() * 1000)
                },
            ),
            left: self.left,
            slow: self.slow.iter().copied().collect(),
        }
    }

    /// Back from its row, and that of its context; `None` when the row is of no use.
    pub(in crate::focus) fn restore(
        turn: &mut Turn<'_>,
        number: u64,
        (version, row): (u64, FileRow),
        anchor: Option<Anchor>,
    ) -> Option<Self> {
        let saved: Saved = postcard::from_bytes(row.body.expose()).ok()?;
        let offered = Offered::read(parse(&saved.offered)?).ok()?;
        let lane = LaneKey::of_conference(&row.group);
        let uri = format!("sip:{}@{}", row.group, turn.config().domain());
        let mut invite = Request::new(Method::Invite, Uri::parse(uri.as_bytes()).ok()?);
        invite.headers.set(Name::ContributionId, &saved.contribution);
        let is_whole = anchor.is_some();
        let anchor = anchor.unwrap_or_else(|| Anchor::new(turn.context_id(lane), row.id.clone()));
        let sender = saved.sender;
        let mut it = Transfer {
            number,
            group: row.group,
            conversation: saved.conversation,
            others: None,
            stage: if saved.stage == Stage::Answered { Stage::Up } else { saved.stage },
            offered,
            invite: Box::new(invite),
            sender: Sender {
                user: sender.user,
                address: sender.address,
                route: sender.route,
                tag: sender.tag,
                leg: sender.leg,
                server: None,
                answered: None,
                dialog: sender.dialog,
                stamp: parse(&sender.sent).map(Stamp::resume),
                rung: true,
            },
            parties: saved.parties.into_iter().map(restored).collect(),
            anchor,
            asks: std::collections::BTreeMap::new(),
            deadline: saved.until.map(|at| turn.now.mono + at.since(turn.now.wall)),
            timer: None,
            closed: false,
            slow: saved.slow.into_iter().collect(),
            left: saved.left,
            came: None,
            version,
            written: 0,
            found_by: Handles::default(),
        };
        match it.stage {
            Stage::Up | Stage::Draining | Stage::Waiting if is_whole => {}
            Stage::Up | Stage::Draining | Stage::Waiting => it.end(turn, MEDIA_LOST),
            _ => it.end(turn, say::COMPLETED),
        }
        Some(it)
    }
}

fn restored(saved: SavedSide) -> Party {
    let line = parse(&saved.answer).and_then(|session| session.lines.into_iter().next());
    Party {
        user: saved.user,
        address: saved.address,
        route: saved.route,
        state: PartyState::Taking,
        tag: saved.tag,
        leg: saved.leg,
        invite: None,
        dialog: saved.dialog,
        stamp: parse(&saved.sent).map(Stamp::resume),
        offer: None,
        // What of it they want was said to the sender already.
        taken: line.map(|line| Taken { line, span: Span::WHOLE, types: Vec::new() }),
        until: None,
    }
}
