//! Requests inside our dialogs (RFC 3261 §12.2.2).

use sip::{Method, Request};

use super::call::CallId;
use super::conference::Conference;
use super::subscribe::Via;
use crate::ServerTx;
use crate::b2b;
use crate::turn::Turn;

impl Conference {
    /// A request in one of our dialogs.
    pub(super) fn request_within(&mut self, turn: &mut Turn<'_>, tx: ServerTx, tag: &str, request: Request) {
        let call = self.call_by_tag(tag);
        if let Err(code) = self.accept_within(call, tag, &request) {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, code));
        }
        let who = match call {
            Some(call) => self.calls.get(&call).map(|c| (c.member, c.route.clone())),
            None => {
                let own = self.subscriptions.values().find(|s| s.own_tag() == Some(tag));
                own.map(|s| (s.member, s.route.clone()))
            }
        };
        let Some((member, route)) = who else {
            return turn.respond(tx, b2b::refuse(turn.config(), &request, 481));
        };
        match (&request.method, call) {
            (Method::Bye, Some(call)) => self.bye(turn, call, tx, &request),
            (Method::Invite | Method::Update, Some(call)) => self.modify(turn, call, tx, request),
            (Method::Subscribe, call) => self.subscribe(turn, tx, &request, route, member, call),
            (Method::Refer, call) => self.refer(turn, tx, &request, route, member, call),
            (Method::Options | Method::Info, Some(_)) => turn.respond(tx, request.respond(200)),
            _ => turn.respond(tx, b2b::refuse(turn.config(), &request, 405)),
        }
    }

    /// RFC 3261 §12.2.2: of this dialog, and in order.
    fn accept_within(&mut self, call: Option<CallId>, tag: &str, request: &Request) -> Result<(), u16> {
        let dialog = match call {
            Some(id) => self.calls.get_mut(&id).and_then(|c| {
                c.dirty = true;
                c.dialog.as_mut()
            }),
            None => self.subscriptions.values_mut().find(|s| s.own_tag() == Some(tag)).and_then(|s| {
                s.dirty = true;
                match &mut s.via {
                    Via::Own(dialog) => Some(&mut **dialog),
                    Via::Call(_) => None,
                }
            }),
        };
        dialog.ok_or(481_u16)?.accept(request).map_err(sip::Misbehaved::code)
    }
}
