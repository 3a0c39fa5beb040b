//! The Controlling Function (CPM-FACTS §2.6): conferences. This file is the door through which the lane's
//! events come in; what is behind it comes next.

use contract::{Applied, News, Refusal};
use sip::typed::Reason;
use sip::{Request, Response, Uri};

use crate::facts::Facts;
use crate::media::Anchor;
use crate::methods::Arrival;
use crate::participating::Caller;
use crate::records::Row;
use crate::turn::{Desk, Turn};
use crate::{Ask, ClientTx, Config, Key, LaneKey, ServerTx};

/// The conferences of one lane.
#[derive(Debug)]
pub(crate) struct Focus {}

impl Focus {
    pub(crate) fn new(_desk: &Desk) -> Self {
        Focus {}
    }

    /// The bucket of the conference that a URI names: factory, exploder, pre-defined group, focus; `None` when
    /// it names none. A factory URI has a bucket for each request, so that conferences spread.
    pub(crate) fn lane_of(_config: &Config, _uri: &Uri) -> Option<LaneKey> {
        None
    }

    /// How many conferences there are.
    pub(crate) fn len(&self) -> usize {
        0
    }

    /// True when the tag names one of our dialogs.
    #[expect(dead_code, reason = "the Controlling Function needs it")]
    pub(crate) fn has(&self, _tag: &str) -> bool {
        false
    }

    /// True for a context of ours.
    pub(crate) fn owns_context(&self, _context: u64) -> bool {
        false
    }

    /// The facts that a request outside dialogs needs.
    pub(crate) fn needs(&self, _turn: &Turn<'_>, _request: &Request) -> Vec<Key> {
        Vec::new()
    }

    /// A request outside dialogs, from the lane of its sender's Participating Function: the caller is vouched
    /// for. INVITE, MESSAGE, REFER, SUBSCRIBE, OPTIONS.
    pub(crate) fn request(&mut self, turn: &mut Turn<'_>, arrival: Arrival, _caller: Caller, _facts: &Facts) {
        let response = crate::b2b::refuse(turn.config(), &arrival.request, 404);
        turn.respond(arrival.tx, response);
    }

    /// A request inside the dialog whose local tag is `tag`.
    pub(crate) fn in_dialog(&mut self, turn: &mut Turn<'_>, _tag: &str, tx: ServerTx, request: Request) {
        turn.respond(tx, request.respond(481));
    }

    /// The ACK of a 2xx of ours.
    pub(crate) fn ack(&mut self, _turn: &mut Turn<'_>, _tag: &str, _request: &Request) {}

    /// The sender took an INVITE back.
    pub(crate) fn cancelled(&mut self, _turn: &mut Turn<'_>, _tx: ServerTx, _reason: Option<&Reason>) {}

    /// A 2xx of ours got no ACK.
    pub(crate) fn ack_missing(&mut self, _turn: &mut Turn<'_>, _tx: ServerTx) {}

    /// An answer to a request that was sent for `Owner::Focus(number)`.
    pub(crate) fn response(
        &mut self,
        _turn: &mut Turn<'_>,
        _number: u64,
        _tx: ClientTx,
        _response: Response,
    ) {
    }

    /// No final answer will come.
    pub(crate) fn expired(&mut self, _turn: &mut Turn<'_>, _number: u64, _tx: ClientTx) {}

    /// The data plane did what was ordered for `Orderer::Focus(number)`.
    pub(crate) fn applied(&mut self, _turn: &mut Turn<'_>, _number: u64, _ask: Ask, _applied: &Applied) {}

    /// It did not.
    pub(crate) fn refused(&mut self, _turn: &mut Turn<'_>, _number: u64, _ask: Ask, _refusal: &Refusal) {}

    /// News about one of our contexts.
    pub(crate) fn news(&mut self, _turn: &mut Turn<'_>, _context: u64, _news: &News) {}

    /// A timer that was set for `Wake::Focus(number)`.
    pub(crate) fn wake(&mut self, _turn: &mut Turn<'_>, _number: u64) {}

    /// The data plane has lost its tables: put everything again, at the pace of `work_off`.
    pub(crate) fn put_again(&mut self) {}

    /// True while calls of `work_off` are wanted at once.
    pub(crate) fn has_backlog(&self) -> bool {
        false
    }

    /// A part of what waits.
    pub(crate) fn work_off(&mut self, _turn: &mut Turn<'_>) {}

    /// A row of ours (Dialog, Roster, Subscription) at start.
    pub(crate) fn restore(&mut self, _turn: &mut Turn<'_>, _row: Row) {}

    /// A context's row that belongs to no session.
    pub(crate) fn restore_anchor(&mut self, _anchor: Anchor) {}

    /// Every row is here.
    pub(crate) fn restored(&mut self, _turn: &mut Turn<'_>) {}
}
