//! Requests inside the dialogs of a file (RFC 3261 §12.2.2; RFC 5547 §8.1).
//!
//! A description that says the same again (a session timer's) is answered with ours again and begins nothing. Another one
//! is 488: the transfer goes on as it was agreed (RFC 3261 §14.2), and another file is another session.

use sdp::{Session, Setup, Stamp};
use sip::{Method, Request};

use super::members::repeats;
use super::{PartyState, Transfer};
use crate::turn::Turn;
use crate::{ServerTx, b2b, body, media};

/// With whom a dialog is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Sender,
    Party(usize),
}

impl Transfer {
    /// Where the other end of the dialog with this tag of ours is.
    pub(super) fn route_of(&self, tag: &str) -> Option<&crate::Route> {
        match self.side_of(tag)? {
            Side::Sender => Some(&self.sender.route),
            Side::Party(at) => self.parties.get(at).map(|p| &p.route),
        }
    }

    fn side_of(&self, tag: &str) -> Option<Side> {
        if self.sender.tag == tag {
            return Some(Side::Sender);
        }
        self.parties.iter().position(|p| p.tag == tag).map(Side::Party)
    }

    /// A request in one of our dialogs.
    pub(super) fn request_within(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: &Request) {
        let side = self.side_of(tag);
        let dialog = match side {
            Some(Side::Sender) => self.sender.dialog.as_mut(),
            Some(Side::Party(at)) => self
                .parties
                .get_mut(at)
                .filter(|p| p.state == PartyState::Taking)
                .and_then(|p| p.dialog.as_mut()),
            None => None,
        };
        let accepted = dialog.ok_or(481_u16).and_then(|d| d.accept(request).map_err(sip::Misbehaved::code));
        let side = match (accepted, side) {
            (Ok(()), Some(side)) => side,
            (Err(code), _) => return turn.respond(tx, b2b::refuse(turn.config(), request, code)),
            (Ok(()), None) => return turn.respond(tx, b2b::refuse(turn.config(), request, 481)),
        };
        match request.method {
            Method::Bye => {
                turn.respond(tx, request.respond(200));
                match side {
                    Side::Sender => self.sender_left(turn),
                    Side::Party(at) => {
                        self.left = true;
                        self.gone(at, 200);
                        self.order(turn, super::Step::Change);
                    }
                }
            }
            Method::Invite | Method::Update => self.modify(turn, side, tx, request),
            Method::Options | Method::Info => turn.respond(tx, request.respond(200)),
            _ => turn.respond(tx, b2b::refuse(turn.config(), request, 405)),
        }
    }

    fn modify(&mut self, turn: &mut Turn<'_>, side: Side, tx: ServerTx, request: &Request) {
        let refuse = |turn: &mut Turn<'_>, code| turn.respond(tx, b2b::refuse(turn.config(), request, code));
        let Some(sdp) = body::sdp_in(&request.headers, &request.body) else { return refuse(turn, 400) };
        let mut response = request.respond(200);
        let tag = match side {
            Side::Sender => self.sender.tag.clone(),
            Side::Party(at) => self.parties.get(at).map(|p| p.tag.clone()).unwrap_or_default(),
        };
        self.dress(turn, &mut response);
        response.set_to_tag(&tag);
        if let Some(route) = self.route_of(&tag).cloned() {
            response.headers.set(sip::Name::Contact, self.contact(turn, &route));
        }
        if sdp.is_empty() && request.method == Method::Update {
            return turn.respond(tx, response);
        }
        let offer = match sdp.is_empty() {
            true => None,
            false => match media::hear(turn, &sdp) {
                Ok(offer) => Some(offer),
                Err(code) => return refuse(turn, code),
            },
        };
        let same = offer.as_ref().is_none_or(|offer| match side {
            Side::Sender => self.offered.is_repeated_by(offer),
            Side::Party(at) => self.parties.get(at).is_some_and(|p| repeats(p, offer)),
        });
        let stamp = match side {
            Side::Sender => self.sender.stamp.as_mut(),
            Side::Party(at) => self.parties.get_mut(at).and_then(|p| p.stamp.as_mut()),
        };
        let Some(ours) = stamp.filter(|_| same).and_then(|stamp| restated(stamp, offer.as_ref())) else {
            return refuse(turn, 488);
        };
        response.set_body(cpm::media_type::SDP, ours.to_bytes());
        turn.respond(tx, response);
    }
}

/// Our last description again, as an answer to `offer` or as an offer (RFC 6135 §4.2: who may connect is said otherwise).
fn restated(stamp: &mut Stamp, offer: Option<&Session>) -> Option<Session> {
    let mut ours = stamp.last()?.clone();
    for (at, line) in ours.lines.iter_mut().enumerate().filter(|(_, line)| !line.is_refused()) {
        line.setup = match offer {
            None => Some(Setup::ActPass),
            Some(offer) => Setup::answered(offer.lines.get(at).and_then(|l| l.setup), true),
        };
    }
    Some(stamp.stamp(ours))
}
