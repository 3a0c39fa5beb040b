//! What a file hears of, as the tables of its lane say it.

use std::time::Duration;

use contract::{Applied, LegCounters, Refusal, leg_lost, news};
use sip::{Request, Response};

use super::{MEDIA_LOST, Stage, Transfer};
use crate::focus::affair::{Affair, Handles};
use crate::turn::Turn;
use crate::{Ask, ClientTx, Route, ServerTx};

impl Transfer {
    /// A sender who is gone and whose connection is not, of whom nobody tells, is noticed by what does not come.
    fn counted(&mut self, turn: &mut Turn<'_>, legs: &[LegCounters]) {
        let idle = Duration::from_secs(turn.config().controlling.file_idle_s.into());
        let his = legs
            .iter()
            .find(|c| c.leg.is_some_and(|key| key.context == self.anchor.id() && key.leg == self.sender.leg));
        let Some(octets) = his.map(|counted| counted.bytes_in) else { return };
        let now = turn.now.mono;
        match self.came {
            Some((before, since)) if before == octets => {
                // A sender who has sent it all may wait for those who have not read it yet.
                let waits = matches!(self.stage, Stage::Answered | Stage::Up)
                    && !idle.is_zero()
                    && self.slow.is_empty();
                if waits && now.since(since) >= idle {
                    self.end(turn, MEDIA_LOST);
                }
            }
            _ => self.came = Some((octets, now)),
        }
    }
}

impl Affair for Transfer {
    fn handles(&self) -> Handles {
        let tags = self.parties.iter().map(|party| party.tag.clone());
        Handles {
            tags: tags.chain([self.sender.tag.clone()]).collect(),
            servers: self.sender.server.into_iter().chain(self.sender.answered).collect(),
            context: Some(self.anchor.id()),
        }
    }

    fn found_by(&mut self) -> &mut Handles {
        &mut self.found_by
    }

    fn route_of(&self, tag: &str) -> Option<&Route> {
        Transfer::route_of(self, tag)
    }

    fn is_gone(&self) -> bool {
        Transfer::is_gone(self)
    }

    fn request_within(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: Request) {
        Transfer::request_within(self, turn, tag, tx, &request);
    }

    fn ack(&mut self, _turn: &mut Turn<'_>, tag: &str, _request: &Request) {
        Transfer::ack(self, tag);
    }

    fn cancelled(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        if self.sender.server == Some(tx) {
            Transfer::cancelled(self, turn);
        }
    }

    fn ack_missing(&mut self, turn: &mut Turn<'_>, tx: ServerTx) {
        Transfer::ack_missing(self, turn, tx);
    }

    fn response(&mut self, turn: &mut Turn<'_>, tx: ClientTx, response: &Response) {
        Transfer::response(self, turn, tx, response);
    }

    fn expired(&mut self, turn: &mut Turn<'_>, tx: ClientTx) {
        Transfer::expired(self, turn, tx);
    }

    fn applied(&mut self, turn: &mut Turn<'_>, ask: Ask, applied: &Applied) {
        Transfer::applied(self, turn, ask, applied);
    }

    fn refused(&mut self, turn: &mut Turn<'_>, ask: Ask, refusal: &Refusal) {
        Transfer::refused(self, turn, ask, refusal);
    }

    fn wake(&mut self, turn: &mut Turn<'_>) {
        Transfer::wake(self, turn);
    }

    fn news(&mut self, turn: &mut Turn<'_>, what: &news::What) {
        match what {
            news::What::LegLost(lost) => {
                match lost.leg {
                    // It was not he who has ended it.
                    Some(leg) if lost.reason() == leg_lost::Reason::Slow && leg.leg != self.sender.leg => {
                        self.stuck(turn, leg);
                    }
                    Some(leg) => self.leg_lost(turn, leg),
                    None => {}
                }
            }
            news::What::Pressure(pressure) => {
                if let Some(leg) = pressure.leg.filter(|_| pressure.kept) {
                    self.behind(turn, leg, pressure.on);
                } else if let Some(leg) = pressure.leg.filter(|_| pressure.on) {
                    self.stuck(turn, leg);
                }
            }
            news::What::Counters(counters) => self.counted(turn, &counters.legs),
            _ => {}
        }
    }

    fn media_lost(&mut self, turn: &mut Turn<'_>) {
        self.media_gone(turn);
    }

    fn settle(&mut self, turn: &mut Turn<'_>) {
        Transfer::settle(self, turn);
    }
}
