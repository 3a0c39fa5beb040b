//! In-dialog requests: sorting them, and passing those on that are meant for the other end.

use sip::typed::Event;
use sip::{Method, Name, Request, Response};

use super::referral::Passage;
use super::{Phase, Plan, Session, UPSTREAM};
use crate::b2b;
use crate::supported;
use crate::turn::{Owner, Turn};
use crate::{ClientTx, ServerTx};

/// Requests of one session that may be on their way at once.
const PASSING_MAX: usize = 16;

/// A request on its way to the other side.
#[derive(Debug)]
pub(super) struct Passing {
    server: ServerTx,
    request: Request,
    client: ClientTx,
}

impl Session {
    /// A request inside one of the dialogs.
    pub(super) fn in_dialog(&mut self, turn: &mut Turn<'_>, at: usize, tx: ServerTx, request: Request) {
        let Some(dialog) = self.dialog_of(at, &request) else {
            turn.respond(tx, request.respond(481));
            return;
        };
        // RFC 3261 §12.2.2: what comes too late gets 500, what is of another dialog 481.
        if let Err(fault) = dialog.accept(&request) {
            turn.respond(tx, request.respond(fault.code()));
            return;
        }
        match request.method {
            Method::Prack => self.prack(turn, at, tx, request),
            // RFC 3261 §15: the caller may leave an early dialog, the callee answers the INVITE instead.
            Method::Bye if self.setup.is_some() && self.phase != Phase::Ending && at == UPSTREAM => {
                turn.respond(tx, request.respond(200));
                self.fail(turn, 487);
            }
            Method::Bye if self.is_called(at) => turn.respond(tx, b2b::refuse(turn.config(), &request, 481)),
            Method::Bye => self.bye(turn, at, tx, &request),
            Method::Invite | Method::Update => self.modify(turn, at, tx, request),
            Method::Options => {
                let mut answer = request.respond(200);
                answer.headers.push(Name::Allow, supported::ALLOW);
                turn.respond(tx, answer);
            }
            Method::Info | Method::Message => self.pass_on(turn, at, tx, request),
            // Between a participant and the focus these are group control (REQ-IF-CONV-02, -03).
            Method::Refer | Method::Subscribe | Method::Notify if self.group => {
                self.pass_on(turn, at, tx, request);
            }
            Method::Refer => self.refer_on(turn, at, tx, request),
            Method::Subscribe | Method::Notify => match self.of_referral(turn, at, &request) {
                Passage::With(event) => self.pass_with(turn, at, tx, request, event),
                Passage::Refused(code) => turn.respond(tx, b2b::refuse(turn.config(), &request, code)),
            },
            _ => turn.respond(tx, b2b::refuse(turn.config(), &request, 405)),
        }
    }

    /// Between two users it asks the other one to call somebody (RFC 3515); whether he does is his phone's business.
    fn refer_on(&mut self, turn: &mut Turn<'_>, at: usize, tx: ServerTx, mut request: Request) {
        let refused = match self.phase {
            Phase::Active => self.refers(turn.config(), at, &mut request).err(),
            _ => Some(403),
        };
        match refused {
            Some(code) => turn.respond(tx, b2b::refuse(turn.config(), &request, code)),
            None => self.pass_on(turn, at, tx, request),
        }
    }

    fn pass_on(&mut self, turn: &mut Turn<'_>, at: usize, tx: ServerTx, request: Request) {
        self.pass_with(turn, at, tx, request, None);
    }

    /// Passes it on, with another Event than it came with.
    fn pass_with(
        &mut self,
        turn: &mut Turn<'_>,
        at: usize,
        tx: ServerTx,
        request: Request,
        event: Option<Event>,
    ) {
        let to = match self.referrer {
            Some(device) if at == UPSTREAM && self.plan == Plan::FanOut => Some(device),
            _ => self.opposite(at),
        };
        if matches!(request.method, Method::Refer | Method::Subscribe) {
            // Its NOTIFYs go back to this device, not to the first one.
            self.referrer = Some(at).filter(|at| *at != UPSTREAM);
        }
        let Some(to) = to else {
            turn.respond(tx, request.respond(481));
            return;
        };
        if self.passing.len() >= PASSING_MAX {
            turn.respond(tx, b2b::refuse(turn.config(), &request, 503));
            return;
        }
        let contact = self.contact_of(turn, to);
        let id = self.id;
        let (Some(route), Some(dialog)) = (self.route_with(turn, to), self.dialog_with(to)) else {
            turn.respond(tx, request.respond(481));
            return;
        };
        let mut next = dialog.request(request.method.clone());
        b2b::pass_within(turn.config(), &route, &request, &mut next);
        let seq = dialog.local_seq.unwrap_or(1);
        next.headers.set(Name::Contact, contact);
        if let Some(event) = &event {
            next.headers.set(Name::Event, event.to_string());
        }
        if request.method == Method::Refer && !self.group {
            self.referred(turn, at, &request, seq);
        }
        let client = turn.send(Owner::Session(id), route, next);
        self.passing.push(Passing { server: tx, request, client });
        self.save(turn);
    }

    /// The other side answered.
    pub(super) fn passed_answered(&mut self, turn: &mut Turn<'_>, tx: ClientTx, response: Response) {
        if response.code < 200 {
            return;
        }
        if let Some(passed) = self.take_passing(tx) {
            turn.respond(passed.server, b2b::relay(&passed.request, &response));
            self.passed_on(turn, &passed.request, response);
        }
    }

    /// The other side did not.
    pub(super) fn passed_silent(&mut self, turn: &mut Turn<'_>, tx: ClientTx) {
        if let Some(passed) = self.take_passing(tx) {
            let silence = passed.request.respond(408);
            turn.respond(passed.server, silence.clone());
            self.passed_on(turn, &passed.request, silence);
        }
    }

    fn passed_on(&mut self, turn: &mut Turn<'_>, request: &Request, response: Response) {
        match request.method {
            _ if self.group => {}
            Method::Refer => self.refer_answered(turn, request, response),
            Method::Notify if matches!(response.code, 408 | 481) => self.notify_refused(turn, request),
            _ => {}
        }
    }

    /// The session ends while requests are on their way.
    pub(super) fn drop_passing(&mut self, turn: &mut Turn<'_>) {
        for passed in std::mem::take(&mut self.passing) {
            turn.desk.forget(passed.client);
            turn.respond(passed.server, passed.request.respond(487));
        }
    }

    fn take_passing(&mut self, tx: ClientTx) -> Option<Passing> {
        let at = self.passing.iter().position(|p| p.client == tx)?;
        Some(self.passing.remove(at))
    }

    /// Our Contact on a side, as its dialog has it: the focus shows through where it did at the start.
    pub(super) fn contact_of(&self, turn: &Turn<'_>, at: usize) -> String {
        let Some(side) = self.side(at) else { return String::new() };
        let user = side.contact_user.as_deref().unwrap_or(&side.tag);
        b2b::contact(turn.config(), self.lane(), &side.route, user, &side.contact_features)
    }
}
