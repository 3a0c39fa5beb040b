//! What a lane remembers, while somebody traces, of what it has asked for: the answer to a question or an order names its
//! number and not its call.

use std::collections::BTreeMap;

use contract::{LegKey, News, message_news, news};
use service::{Acted, Change, Input, Output, Route, Source};
use sip::{Name, Response};

use super::decision::{Decision, Heard};
use super::{Bus, Said};

/// Numbers that are remembered; the oldest are forgotten beyond it.
const NOTES_MAX: usize = 4096;

/// What a number of the lane's belongs to.
#[derive(Clone, Debug)]
struct Note {
    call: String,
    /// A request to another function of the node.
    inner: bool,
    /// A request that waits for facts: its decision is still to come.
    waits: Option<(Said, bool)>,
}

/// A lane's notes.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    notes: BTreeMap<u64, Note>,
}

impl Trail {
    /// Nobody traces.
    pub(crate) fn clear(&mut self) {
        self.notes.clear();
    }

    fn note(&mut self, number: u64, note: Note) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.pop_first();
        }
        self.notes.insert(number, note);
    }

    /// What a lane is about to decide on. `serving`: what would be answered to the request of a server transaction.
    pub(crate) fn hear<'a>(
        &mut self,
        input: &Input,
        serving: impl FnOnce(service::ServerTx) -> Option<&'a Response>,
    ) -> Heard {
        let one = |call: Option<String>, what| Heard { call, what, single: true, ..Heard::default() };
        match input {
            Input::Request { source, request, .. } => Heard {
                said: Some(Said::request(request)),
                inner: matches!(source, Source::Lane(_)),
                single: true,
                ..Heard::default()
            },
            Input::Ack { source, request } => Heard {
                said: Some(Said::request(request)),
                inner: matches!(source, Source::Lane(_)),
                single: true,
                ..Heard::default()
            },
            Input::Response { tx, response } => {
                let noted = self.notes.get(&tx.0).map(|note| note.inner);
                Heard {
                    said: Some(Said::response(response)),
                    // What has been over the network has at least our own Via.
                    inner: noted.unwrap_or_else(|| !response.headers.has(&Name::Via)),
                    single: true,
                    ..Heard::default()
                }
            }
            Input::Cancelled { tx, reason } => Heard {
                said: serving(*tx).map(|refusal| Said::cancel(refusal, reason.as_ref())),
                // Odd numbers are the lanes' (`lane::task`).
                inner: tx.0 & 1 == 1,
                single: true,
                ..Heard::default()
            },
            Input::AckMissing { tx } => {
                one(serving(*tx).map(|refusal| Said::response(refusal).call), Some("no ACK came"))
            }
            Input::Expired { tx } => one(self.call(tx.0), Some("no answer came")),
            Input::Facts { ask, .. } => match self.notes.remove(&ask.0) {
                Some(Note { waits: Some((said, inner)), .. }) => {
                    Heard { said: Some(said), inner, single: true, ..Heard::default() }
                }
                noted => one(noted.map(|note| note.call), None),
            },
            Input::Applied { ask, .. } => {
                one(self.notes.remove(&ask.0).map(|n| n.call), Some("media is ready"))
            }
            Input::Refused { ask, .. } => {
                one(self.notes.remove(&ask.0).map(|n| n.call), Some("media was refused"))
            }
            Input::News(news) => match leg_of(news) {
                Some((leg, what)) => {
                    Heard { context: Some(leg.context), what: Some(what), single: true, ..Heard::default() }
                }
                None => Heard::default(),
            },
            Input::Disconnected { .. }
            | Input::DataplaneUp { .. }
            | Input::DataplaneDown
            | Input::Audited { .. }
            | Input::Restored { .. } => Heard::default(),
        }
    }

    fn call(&self, number: u64) -> Option<String> {
        self.notes.get(&number).map(|note| note.call.clone())
    }

    /// What it has decided; `asks` are the numbers of its questions to the store.
    pub(crate) fn decided(
        &mut self,
        bus: &Bus,
        heard: &Heard,
        acted: Acted,
        asks: impl Iterator<Item = u64>,
        (outputs, changes): (&[Output], &[Change]),
    ) {
        let call = heard.said.as_ref().map(|said| said.call.clone()).or_else(|| heard.call.clone());
        let mut waits = false;
        for ask in asks {
            // Nobody has taken it yet: it waits for what the store says.
            waits = acted.function.is_none() && outputs.is_empty();
            let said = heard.said.clone().filter(|_| waits);
            let note = Note {
                call: call.clone().unwrap_or_default(),
                inner: false,
                waits: said.map(|said| (said, heard.inner)),
            };
            self.note(ask, note);
        }
        for output in outputs {
            match output {
                Output::Send { tx, to, request } => {
                    let call = request.call_id().unwrap_or_default().to_owned();
                    let inner = matches!(to, Route::Lane(_));
                    self.note(tx.0, Note { call, inner, waits: None });
                }
                Output::Program { ask, .. } => {
                    if let Some(call) = &call {
                        self.note(ask.0, Note { call: call.clone(), inner: false, waits: None });
                    }
                }
                _ => {}
            }
        }
        if !waits {
            bus.decided(&Decision::new(heard, acted, outputs, changes));
        }
    }
}

/// The leg that news tell of, and what of it; nothing for counters, which are of many.
pub(super) fn leg_of(news: &News) -> Option<(LegKey, &'static str)> {
    match news.what.as_ref()? {
        news::What::LegUp(news) => Some((news.leg?, "a leg is up")),
        news::What::LegLost(news) => Some((news.leg?, "a leg is lost")),
        news::What::Latched(news) => Some((news.leg?, "a leg has latched")),
        news::What::Report(news) => Some((news.leg?, "a message was reported on")),
        news::What::Message(news) => match news.what {
            Some(message_news::What::Nickname(_)) => Some((news.leg?, "a nickname is wanted")),
            _ => None,
        },
        news::What::Pressure(news) => Some((news.leg?, "a leg is slow")),
        news::What::Counters(_) | news::What::Load(_) => None,
    }
}
