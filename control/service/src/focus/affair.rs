//! What the tables of a lane hold: conferences, and files on their way to groups. Both are found by the same things and hear
//! of the same events.

use contract::{Applied, Refusal, message_news, news};
use sip::{Request, Response};

use super::conference::{Conference, Phase};
use crate::turn::Turn;
use crate::{Ask, ClientTx, Route, ServerTx};

/// By what one is found: our tags, the INVITE transactions in which we owe an answer or an ACK is due, its context.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Handles {
    pub(crate) tags: Vec<String>,
    pub(crate) servers: Vec<ServerTx>,
    pub(crate) context: Option<u64>,
}

/// One of them.
pub(super) trait Affair {
    /// By what it is found now.
    fn handles(&self) -> Handles;
    /// By what the tables find it.
    fn found_by(&mut self) -> &mut Handles;
    /// Where the other end of the dialog with this tag of ours is.
    fn route_of(&self, tag: &str) -> Option<&Route>;
    /// Nothing is left of it.
    fn is_gone(&self) -> bool;

    /// A request in a dialog.
    fn request_within(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: Request);
    /// An ACK of a 2xx.
    fn ack(&mut self, turn: &mut Turn<'_>, tag: &str, request: &Request);
    /// An INVITE was taken back.
    fn cancelled(&mut self, turn: &mut Turn<'_>, tx: ServerTx);
    /// A 2xx got no ACK.
    fn ack_missing(&mut self, turn: &mut Turn<'_>, tx: ServerTx);
    /// An answer to one of its requests.
    fn response(&mut self, turn: &mut Turn<'_>, tx: ClientTx, response: &Response);
    /// No answer will come.
    fn expired(&mut self, turn: &mut Turn<'_>, tx: ClientTx);
    /// The data plane did as ordered.
    fn applied(&mut self, turn: &mut Turn<'_>, ask: Ask, applied: &Applied);
    /// It did not.
    fn refused(&mut self, turn: &mut Turn<'_>, ask: Ask, refusal: &Refusal);
    /// Its timer.
    fn wake(&mut self, turn: &mut Turn<'_>);
    /// News about its context.
    fn news(&mut self, turn: &mut Turn<'_>, what: &news::What);
    /// The data plane has lost its context.
    fn media_lost(&mut self, turn: &mut Turn<'_>);
    /// After every event.
    fn settle(&mut self, turn: &mut Turn<'_>);
}

impl Affair for Conference {
    fn handles(&self) -> Handles {
        Conference::handles(self)
    }

    fn found_by(&mut self) -> &mut Handles {
        &mut self.handles
    }

    fn route_of(&self, tag: &str) -> Option<&Route> {
        Conference::route_of(self, tag)
    }

    fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    fn request_within(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: Request) {
        Conference::request_within(self, turn, tx, tag, request);
    }

    fn ack(&mut self, turn: &mut Turn<'_>, tag: &str, request: &Request) {
        if let Some(call) = self.call_by_tag(tag) {
            Conference::ack(self, turn, call, request);
        }
    }

    fn cancelled(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        Conference::cancelled(self, turn, tx);
    }

    fn ack_missing(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        Conference::ack_missing(self, turn, tx);
    }

    fn response(&mut self, turn: &mut Turn<'_>, tx: ClientTx, response: &Response) {
        Conference::response(self, turn, tx, response);
    }

    fn expired(&mut self, turn: &mut Turn<'_>, tx: ClientTx) {
        Conference::expired(self, turn, tx);
    }

    fn applied(&mut self, turn: &mut Turn<'_>, ask: Ask, applied: &Applied) {
        Conference::applied(self, turn, ask, applied);
    }

    fn refused(&mut self, turn: &mut Turn<'_>, ask: Ask, refusal: &Refusal) {
        Conference::refused(self, turn, ask, refusal);
    }

    fn wake(&mut self, turn: &mut Turn<'_>) {
        Conference::wake(self, turn);
    }

    fn news(&mut self, turn: &mut Turn<'_>, what: &news::What) {
        match what {
            news::What::LegLost(lost) => {
                if let Some(leg) = lost.leg {
                    self.leg_lost(turn, leg);
                }
            }
            news::What::Message(message) => {
                if let (Some(leg), Some(message_news::What::Nickname(text))) = (message.leg, &message.what) {
                    self.nickname(turn, leg, message.id, text);
                }
            }
            news::What::LegUp(up) => {
                if let Some(leg) = up.leg {
                    self.leg_up(leg);
                }
            }
            news::What::Pressure(pressure) => {
                if let Some(leg) = pressure.leg {
                    self.message_waits(leg, pressure);
                }
            }
            news::What::Counters(counters) => self.counters(turn, &counters.legs),
            _ => {}
        }
    }

    fn media_lost(&mut self, turn: &mut Turn<'_>) {
        self.restore_media(turn);
    }

    fn settle(&mut self, turn: &mut Turn<'_>) {
        Conference::settle(self, turn);
    }
}
