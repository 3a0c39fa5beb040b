//! The functions of one lane, side by side: what `methods` choose from.

use std::collections::VecDeque;

use contract::Change;
use contract::change::Verb;
use sip::Request;

use crate::auth::Auths;
use crate::focus::Focus;
use crate::identity::Directory;
use crate::lane_key::user_of;
use crate::methods::within::Peer;
use crate::participating::{Participating, Target, choose};
use crate::records::AcceptedMessage;
use crate::registrar::Bindings;
use crate::registrar::notifier::Notifier;
use crate::registrar::watch::Watches;
use crate::turn::{Desk, Orderer, Turn};
use crate::{Config, Function, LaneKey, ServerTx, UserId};

/// Strays that are removed in one turn.
const STRAYS_STEP: usize = 64;

/// All machines of one lane.
#[derive(Debug)]
pub(crate) struct Functions {
    pub(crate) bindings: Bindings,
    pub(crate) directory: Directory,
    pub(crate) participating: Participating,
    pub(crate) focus: Focus,
    pub(crate) auths: Auths,
    pub(crate) watches: Watches,
    pub(crate) notifier: Notifier,
    /// Messages from the store that wait for the last row.
    pub(crate) restored: Vec<(String, u64, AcceptedMessage)>,
    /// Contexts that the data plane held at an audit and nobody here claimed.
    pub(crate) strays: VecDeque<u64>,
}

impl Functions {
    pub(crate) fn new(desk: &Desk) -> Self {
        Functions {
            bindings: Bindings::new(desk),
            directory: Directory::new(&desk.config),
            participating: Participating::new(desk),
            focus: Focus::new(desk),
            auths: Auths::default(),
            watches: Watches::new(desk),
            notifier: Notifier::new(desk),
            restored: Vec::new(),
            strays: VecDeque::new(),
        }
    }

    /// With whom the dialog of this tag of ours is held; `None` when there is no such dialog.
    pub(crate) fn peer(&self, tag: &str) -> Option<Peer<'_>> {
        let part = &self.participating;
        let of_registrar = || self.watches.peer(tag).or_else(|| self.notifier.peer(tag));
        let of_users = part.sessions.peer(tag).or_else(|| part.relays.peer(tag));
        of_users.or_else(of_registrar).or_else(|| self.focus.peer(tag))
    }

    /// A request of a dialog's peer goes to the function that holds it.
    pub(crate) fn in_dialog(&mut self, turn: &mut Turn<'_>, tag: &str, tx: ServerTx, request: Request) {
        let part = &mut self.participating;
        turn.acts(Function::Participating);
        if part.sessions.has(tag) {
            part.sessions.request(turn, tag, tx, request);
        } else if part.relays.has(tag) {
            part.relays.request(turn, tag, tx, request);
        } else if self.watches.has(tag) {
            turn.acts(Function::Registrar);
            self.watches.request(turn, &mut self.bindings, tag, tx, &request);
        } else if self.notifier.has(tag) {
            turn.acts(Function::Registrar);
            self.notifier.request(turn, &self.bindings, tag, tx, &request);
        } else {
            turn.acts(Function::Controlling);
            self.focus.in_dialog(turn, tag, tx, request);
        }
    }

    /// True for a context of a session or conference.
    fn owns_context(&self, context: u64) -> bool {
        self.participating.sessions.owns_context(context) || self.focus.owns_context(context)
    }

    /// What the data plane holds: contexts that nobody claims will be removed, those that it lost while we were away
    /// are put again.
    pub(crate) fn audited(&mut self, contexts: &[u64]) {
        self.participating.sessions.put_missing(contexts);
        self.focus.put_missing(contexts);
        self.strays = contexts.iter().copied().filter(|context| !self.owns_context(*context)).collect();
    }

    /// Removes some strays, each by an order of its own (see [`Turn::program`]).
    pub(crate) fn remove_strays(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..STRAYS_STEP {
            let Some(context) = self.strays.pop_front() else { return };
            if !self.owns_context(context) {
                let gone = Change { verb: Some(Verb::RemoveContext(context)) };
                turn.program(Orderer::Nobody, "audit", vec![gone]);
            }
        }
    }

    /// Offers the messages of the store to the devices that are there now.
    pub(crate) fn offer_restored(&mut self, turn: &mut Turn<'_>) {
        let (now, max) = (turn.now.wall, turn.config().limits.fork_max);
        for (key, version, message) in std::mem::take(&mut self.restored) {
            let user = message.user.clone();
            let bindings = &self.bindings;
            self.participating.messages.restore(turn, &key, version, message, |request| {
                choose(request, bindings.live(&user, now), max)
            });
        }
    }
}

/// Which function of this node a Request-URI names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Addressee {
    /// A conference, by its bucket.
    Conference(LaneKey),
    /// A user.
    User(UserId),
    /// This node itself.
    Node,
    /// Nobody here.
    Elsewhere,
}

impl Addressee {
    pub(crate) fn of(config: &Config, request: &Request) -> Addressee {
        let uri = &request.uri;
        if let Some(lane) = Focus::lane_of(config, request) {
            return Addressee::Conference(lane);
        }
        if uri.is_sip() && !config.is_ours(&uri.host.to_string()) {
            return Addressee::Elsewhere;
        }
        if uri.is_sip() && uri.user.is_none() {
            return Addressee::Node;
        }
        user_of(config, uri).map_or(Addressee::Elsewhere, Addressee::User)
    }

    /// The next function for a request that our user sends, or the way to another domain; `None` when nobody is meant that
    /// we can reach.
    pub(crate) fn target(&self, config: &Config, uri: &sip::Uri) -> Option<Target> {
        match self {
            Addressee::Conference(lane) => Some(Target::lane(*lane, uri.clone())),
            Addressee::User(user) => Some(Target::lane(LaneKey::of_user(user), uri.clone())),
            Addressee::Elsewhere if uri.is_sip() => {
                Target::away(config.away(&uri.host.to_string())?, uri.clone())
            }
            Addressee::Node | Addressee::Elsewhere => None,
        }
    }
}
