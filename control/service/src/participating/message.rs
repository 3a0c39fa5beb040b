//! Standalone messages in pager mode (RFC 3428, CPM-FACTS §2.3, §2.5; flow F1): REQ-PF-16, to every
//! device of the recipient (REQ-PF-23).
//!
//! ```text
//!   originating: MESSAGE ──▶ next function ──▶ its answer is ours
//!
//!   terminating: MESSAGE ─ row written ─▶ Offered to every device
//!      first 2xx ──▶ 200 upstream, the others go on          all failed ──▶ best failure upstream
//!      last answer ──▶ row removed                           control dies ──▶ offered again from the row
//! ```
//!
//! A MESSAGE that comes again while it is here (the sender lost our answer, or control started anew) joins the
//! one that is under way: a device gets it once.

use std::time::Duration;

use base::{Map, Private, TimerId, map};
use sip::{Limits, Message as SipMessage, Method, Name, Request, Response};

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
    legs: Vec<Option<ClientTx>>,
    merge: Merge,
    /// The final answer, once it is known.
    answer: Option<Response>,
    undo: Option<Undo>,
    /// It has a row.
    durable: bool,
    timer: Option<TimerId>,
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
        user: &UserId,
        tx: ServerTx,
        request: &Request,
    ) -> bool {
        let Some(message) = self.table.get_mut(&id_of(user, request)) else { return false };
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
        let id = id_of(&job.user, &job.request);
        if job.durable {
            write_row(turn, id, &job.user, &job.request);
        }
        let waiters = vec![(job.tx, job.request.clone())];
        self.offer(
            turn,
            id,
            &job.user,
            job.request,
            waiters,
            &job.caller,
            &job.targets,
            job.undo,
            job.durable,
        );
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the entry that it makes")]
    fn offer(
        &mut self,
        turn: &mut Turn<'_>,
        id: u64,
        user: &UserId,
        request: Request,
        waiters: Vec<(ServerTx, Request)>,
        caller: &Caller,
        targets: &[Target],
        undo: Option<Undo>,
        durable: bool,
    ) {
        let lane = LaneKey::of_user(user);
        let legs = targets
            .iter()
            .enumerate()
            .map(|(at, target)| {
                let (next, _) = leg::request(turn, lane, Method::Message, &request, caller, target);
                let leg = u16::try_from(at).unwrap_or(u16::MAX);
                Some(turn.send(Owner::Message(id, leg), target.route.clone(), next))
            })
            .collect();
        let timer = turn.wake_in(SILENCE, Wake::Message(id));
        let merge = Merge::default();
        let message = Message { request, waiters, legs, merge, answer: None, undo, durable, timer };
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
        let Some(slot) = message.legs.get_mut(usize::from(leg)) else { return };
        *slot = None;
        match response.code {
            // CPM-FACTS F1: 200 upstream after the first device's 200.
            200..300 => message.conclude(turn, states, response),
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
            if let Some(tx) = leg.take() {
                turn.desk.forget(tx);
            }
        }
        message.merge.take(message.request.respond(408));
        self.finish(turn, states, id);
    }

    fn finish(&mut self, turn: &mut Turn<'_>, states: &mut States, id: u64) {
        let Some(message) = self.table.get_mut(&id) else { return };
        if message.legs.iter().any(Option::is_some) {
            return;
        }
        if message.answer.is_none() {
            let best = std::mem::take(&mut message.merge).best();
            let answer = best.unwrap_or_else(|| b2b::refuse(turn.config(), &message.request, 480));
            message.conclude(turn, states, answer);
        }
        let Some(mut message) = self.table.remove(&id) else { return };
        turn.unwake(&mut message.timer);
        if message.durable {
            turn.remove_row(key(id));
        }
    }

    /// Back from the store: offered again to the devices that are there now.
    pub(crate) fn restore(
        &mut self,
        turn: &mut Turn<'_>,
        key: &str,
        row: AcceptedMessage,
        targets: impl FnOnce(&Request) -> Vec<Target>,
    ) {
        let stored = row.request.into_inner().into();
        let request = match sip::datagram(stored, &Limits::default()) {
            Ok(Some(SipMessage::Request(request))) => request,
            _ => return turn.remove_row(Key::new(Table::Message, key)),
        };
        let targets = targets(&request);
        if row.expires <= turn.now.wall || targets.is_empty() {
            // Its sender never got an answer: he knows nothing of it, or asks again.
            turn.remove_row(Key::new(Table::Message, key));
            return;
        }
        let identity = request.headers.fields(&Name::PAssertedIdentity);
        let identity = identity.map(|v| String::from_utf8_lossy(v).into_owned()).collect();
        let caller = Caller { user: None, identity };
        let id = id_of(&row.user, &request);
        self.offer(turn, id, &row.user, request, Vec::new(), &caller, &targets, None, true);
    }
}

impl Message {
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

/// Names a message by what its sender's request carries, so that the same request is found again after a
/// restart: FNV-1a over the served user, From tag, Call-ID and CSeq.
fn id_of(user: &UserId, request: &Request) -> u64 {
    let tag = request.from_tag().unwrap_or_default();
    let cseq = request.headers.first(&Name::CSeq).unwrap_or_default();
    let parts =
        [user.as_str().as_bytes(), tag.as_bytes(), request.call_id().unwrap_or_default().as_bytes(), cseq];
    parts
        .iter()
        .flat_map(|part| part.iter().chain(&[0]))
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn key(id: u64) -> Key {
    Key::new(Table::Message, format!("{id:016x}"))
}

fn write_row(turn: &mut Turn<'_>, id: u64, user: &UserId, request: &Request) {
    let text = |name| request.headers.text(&name).unwrap_or_default().to_owned();
    let keep = turn.config().participating.message_keep_s;
    let asked = request.headers.text(&Name::Expires).and_then(|t| t.trim().parse::<u32>().ok());
    let life = Duration::from_secs(asked.map_or(keep, |s| s.min(keep)).into());
    let expires = turn.now.wall + life;
    turn.put_row(Row {
        key: key(id),
        lane: LaneKey::of_user(user),
        version: 1,
        columns: Columns {
            owner: Private::new(user.as_str().to_owned()),
            conversation: text(Name::ConversationId),
            contribution: text(Name::ContributionId),
            direction: Direction::Received,
            ..Columns::default()
        },
        record: Record::Message(Box::new(AcceptedMessage {
            user: user.clone(),
            request: Private::new(request.to_bytes().to_vec()),
            accepted: turn.now.wall,
            expires,
        })),
    });
}
