//! Standalone messages in pager mode (RFC 3428, CPM-FACTS §2.3, §2.5; flow F1): REQ-PF-16, to every
//! device of the recipient (REQ-PF-23).
//!
//! ```text
//!   originating: MESSAGE ──▶ next function ──▶ its answer is ours
//!
//!   terminating: MESSAGE ─ row written ─▶ Offered to every device
//!      2xx ──▶ the row knows that this device has it         all failed ──▶ best failure upstream
//!      first 2xx ──▶ 200 upstream, the others go on
//!      last answer ──▶ row removed                           control dies ──▶ offered again from the row to the
//!                                                                             devices that do not have it
//! ```
//!
//! A MESSAGE that comes again while it is here (the sender lost our answer, or control started anew) joins the
//! one that is under way: a device gets it once.

use std::time::Duration;

use base::{Map, Private, TimerId, UnixTime, map};
use sip::{Limits, Message as SipMessage, Name, Request, Response};

use super::imdn::States;
use super::leg::{self, Caller, Target};
use super::merge::Merge;
use crate::b2b;
use crate::records::{AcceptedMessage, Columns, Direction, ImdnState, Record, Row};
use crate::turn::{Desk, Owner, Turn, Wake};
use crate::{ClientTx, Key, LaneKey, ServerTx, Table, UserId};

/// A device's transaction ends by itself after 32 s (timer F); this is for what never answers.
const SILENCE: Duration = Duration::from_secs(64);

/// Retransmissions of one request that may wait for its answer (a peer that sends more is told 503).
const WAITERS_MAX: usize = 8;

/// What to put back when a notification could not be passed on.
#[derive(Debug)]
pub(crate) struct Undo {
    pub(crate) key: String,
    pub(crate) owner: UserId,
    pub(crate) before: ImdnState,
}

/// One message under way.
#[derive(Debug)]
struct Message {
    request: Request,
    waiters: Vec<(ServerTx, Request)>,
    legs: Vec<Leg>,
    merge: Merge,
    /// The final answer, once it is known.
    answer: Option<Response>,
    undo: Option<Undo>,
    /// Its row, if it has one.
    kept: Option<Kept>,
    timer: Option<TimerId>,
}

/// The offer to one device, or to the next function.
#[derive(Debug)]
struct Leg {
    /// `None` once it is answered.
    tx: Option<ClientTx>,
    device: String,
}

/// What the row of a message says beside the request.
#[derive(Debug)]
struct Kept {
    user: UserId,
    version: u64,
    accepted: UnixTime,
    expires: UnixTime,
    taken: Vec<String>,
}

/// The messages of one lane.
#[derive(Debug)]
pub(crate) struct Messages {
    table: Map<u64, Message>,
    max: usize,
}

/// A message to be sent on.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: MessageId,
    pub(crate) tx: ServerTx,
    pub(crate) request: Request,
    pub(crate) user: UserId,
    pub(crate) caller: Caller,
    pub(crate) targets: Vec<Target>,
    pub(crate) undo: Option<Undo>,
    /// Keep it in the store until a device has it.
    pub(crate) durable: bool,
}

impl Messages {
    pub(crate) fn new(desk: &Desk) -> Self {
        Messages { table: map(desk.seed), max: desk.config.limits.messages_max }
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// True when the request is one that is under way: it waits for the same answer, or gets it.
    pub(crate) fn joins(
        &mut self,
        turn: &mut Turn<'_>,
        id: MessageId,
        tx: ServerTx,
        request: &Request,
    ) -> bool {
        let Some(message) = self.table.get_mut(&id.0) else { return false };
        match &message.answer {
            Some(answer) => turn.respond(tx, b2b::relay(request, answer)),
            None if message.waiters.len() < WAITERS_MAX => message.waiters.push((tx, request.clone())),
            None => turn.respond(tx, b2b::refuse(turn.config(), request, 503)),
        }
        true
    }

    /// Sends a message on to its targets, of which there is at least one.
    pub(crate) fn send(&mut self, turn: &mut Turn<'_>, job: Job) {
        if self.table.len() >= self.max {
            turn.respond(job.tx, b2b::refuse(turn.config(), &job.request, 503));
            return;
        }
        let id = job.id.0;
        let kept = job.durable.then(|| Kept::new(turn, &job.user, &job.request));
        if let Some(kept) = &kept {
            kept.write(turn, id, &job.request);
        }
        let waiters = vec![(job.tx, job.request.clone())];
        let Job { request, undo, user, caller, targets, .. } = job;
        let message = Message {
            request,
            waiters,
            legs: Vec::new(),
            merge: Merge::default(),
            answer: None,
            undo,
            kept,
            timer: None,
        };
        self.offer(turn, id, &user, message, &caller, &targets);
    }

    fn offer(
        &mut self,
        turn: &mut Turn<'_>,
        id: u64,
        user: &UserId,
        mut message: Message,
        caller: &Caller,
        targets: &[Target],
    ) {
        let lane = LaneKey::of_user(user);
        for (at, target) in targets.iter().enumerate() {
            let (next, _) =
                leg::request(turn, lane, message.request.method.clone(), &message.request, caller, target);
            let leg = u16::try_from(at).unwrap_or(u16::MAX);
            let tx = Some(turn.send(Owner::Message(id, leg), target.route.clone(), next));
            message.legs.push(Leg { tx, device: target.device.clone() });
        }
        message.timer = turn.wake_in(SILENCE, Wake::Message(id));
        self.table.insert(id, message);
    }

    /// A leg answered.
    pub(crate) fn answered(
        &mut self,
        turn: &mut Turn<'_>,
        states: &mut States,
        id: u64,
        leg: u16,
        response: Response,
    ) {
        if response.code < 200 {
            return;
        }
        let Some(message) = self.table.get_mut(&id) else { return };
        let Some(leg) = message.legs.get_mut(usize::from(leg)) else { return };
        leg.tx = None;
        let device = leg.device.clone();
        match response.code {
            // CPM-FACTS F1: 200 upstream after the first device's 200.
            200..300 => {
                message.taken(turn, id, device);
                message.conclude(turn, states, response);
            }
            _ => message.merge.take(response),
        }
        self.finish(turn, states, id);
    }

    /// A leg did not.
    pub(crate) fn silent(&mut self, turn: &mut Turn<'_>, states: &mut States, id: u64, leg: u16) {
        if let Some(response) = self.table.get(&id).map(|m| m.request.respond(408)) {
            self.answered(turn, states, id, leg, response);
        }
    }

    /// No leg may be silent for so long.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, states: &mut States, id: u64) {
        let Some(message) = self.table.get_mut(&id) else { return };
        message.timer = None;
        for leg in &mut message.legs {
            if let Some(tx) = leg.tx.take() {
                turn.desk.forget(tx);
            }
        }
        message.merge.take(message.request.respond(408));
        self.finish(turn, states, id);
    }

    fn finish(&mut self, turn: &mut Turn<'_>, states: &mut States, id: u64) {
        let Some(message) = self.table.get_mut(&id) else { return };
        if message.legs.iter().any(|leg| leg.tx.is_some()) {
            return;
        }
        if message.answer.is_none() {
            let best = std::mem::take(&mut message.merge).best();
            let answer = best.unwrap_or_else(|| b2b::refuse(turn.config(), &message.request, 480));
            message.conclude(turn, states, answer);
        }
        let Some(mut message) = self.table.remove(&id) else { return };
        turn.unwake(&mut message.timer);
        if message.kept.is_some() {
            turn.remove_row(key(id));
        }
    }

    /// Back from the store: offered to the devices that are there now and do not have it.
    pub(crate) fn restore(
        &mut self,
        turn: &mut Turn<'_>,
        key: &str,
        version: u64,
        row: AcceptedMessage,
        targets: impl FnOnce(&Request) -> Vec<Target>,
    ) {
        let stored = row.request.into_inner().into();
        let request = match sip::datagram(stored, &Limits::default()) {
            Ok(Some(SipMessage::Request(request))) => request,
            _ => return turn.remove_row(Key::new(Table::Message, key)),
        };
        let mut targets = targets(&request);
        targets.retain(|target| !row.taken.contains(&target.device));
        if row.expires <= turn.now.wall || targets.is_empty() {
            // Its sender never got an answer: he knows nothing of it, or asks again.
            turn.remove_row(Key::new(Table::Message, key));
            return;
        }
        let identity = request.headers.fields(&Name::PAssertedIdentity);
        let identity = identity.map(|v| String::from_utf8_lossy(v).into_owned()).collect();
        let caller = Caller { user: None, identity };
        let Ok(id) = u64::from_str_radix(key, 16) else {
            return turn.remove_row(Key::new(Table::Message, key));
        };
        // A sender whose 200 was lost asks again and hears of the device that has it.
        let answer = (!row.taken.is_empty()).then(|| request.respond(200));
        let AcceptedMessage { user, accepted, expires, taken, .. } = row;
        let message = Message {
            request,
            waiters: Vec::new(),
            legs: Vec::new(),
            merge: Merge::default(),
            answer,
            undo: None,
            kept: Some(Kept { user: user.clone(), version, accepted, expires, taken }),
            timer: None,
        };
        self.offer(turn, id, &user, message, &caller, &targets);
    }
}

impl Message {
    /// A device has it. While others are asked, the row says so: after a restart it does not get it again.
    fn taken(&mut self, turn: &mut Turn<'_>, id: u64, device: String) {
        let others = self.legs.iter().any(|leg| leg.tx.is_some());
        let Some(kept) = self.kept.as_mut().filter(|_| others && !device.is_empty()) else { return };
        kept.taken.push(device);
        kept.version += 1;
        kept.write(turn, id, &self.request);
    }

    /// The final answer is known: everybody who waits gets it.
    fn conclude(&mut self, turn: &mut Turn<'_>, states: &mut States, response: Response) {
        if self.answer.is_some() {
            return;
        }
        if let Some(undo) = self.undo.take()
            && response.code >= 300
        {
            states.undo(turn, &undo.key, &undo.owner, undo.before);
        }
        for (tx, request) in self.waiters.drain(..) {
            turn.respond(tx, b2b::relay(&request, &response));
        }
        self.answer = Some(response);
    }
}

/// Names a message, so that the same one is found again, also after a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MessageId(u64);

impl MessageId {
    /// By the transaction of the sender: From tag, Call-ID and CSeq.
    pub(crate) fn of_request(user: &UserId, request: &Request) -> MessageId {
        let tag = request.from_tag().unwrap_or_default();
        let cseq = request.headers.first(&Name::CSeq).unwrap_or_default();
        let call = request.call_id().unwrap_or_default();
        MessageId::hash(&[b"r", user.as_str().as_bytes(), tag.as_bytes(), call.as_bytes(), cseq])
    }

    /// By imdn.Message-ID, which is unique for its originator (RFC 5438 §6.3) and the same in whatever
    /// transaction it comes; with the body, so that nobody's careless ids lose a message.
    pub(crate) fn of_imdn(user: &UserId, id: &str, originator: &UserId, request: &Request) -> MessageId {
        let (user, originator) = (user.as_str().as_bytes(), originator.as_str().as_bytes());
        MessageId::hash(&[b"i", user, id.as_bytes(), originator, &request.body])
    }

    /// FNV-1a.
    fn hash(parts: &[&[u8]]) -> MessageId {
        let octets = parts.iter().flat_map(|part| part.iter().chain(&[0]));
        MessageId(
            octets.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)),
        )
    }
}

fn key(id: u64) -> Key {
    Key::new(Table::Message, format!("{id:016x}"))
}

impl Kept {
    fn new(turn: &Turn<'_>, user: &UserId, request: &Request) -> Kept {
        let keep = turn.config().participating.message_keep_s;
        let asked = request.headers.text(&Name::Expires).and_then(|t| t.trim().parse::<u32>().ok());
        let life = Duration::from_secs(asked.map_or(keep, |s| s.min(keep)).into());
        let now = turn.now.wall;
        Kept { user: user.clone(), version: 1, accepted: now, expires: now + life, taken: Vec::new() }
    }

    fn write(&self, turn: &mut Turn<'_>, id: u64, request: &Request) {
        let text = |name| request.headers.text(&name).unwrap_or_default().to_owned();
        turn.put_row(Row {
            key: key(id),
            lane: LaneKey::of_user(&self.user),
            version: self.version,
            columns: Columns {
                owner: Private::new(self.user.as_str().to_owned()),
                conversation: text(Name::ConversationId),
                contribution: text(Name::ContributionId),
                direction: Direction::Received,
                ..Columns::default()
            },
            record: Record::Message(Box::new(AcceptedMessage {
                user: self.user.clone(),
                request: Private::new(request.to_bytes().to_vec()),
                accepted: self.accepted,
                expires: self.expires,
                taken: self.taken.clone(),
            })),
        });
    }
}
