//! The functions of one lane, side by side: what `methods` choose from.

use crate::focus::Focus;
use crate::identity::Directory;
use crate::lane_key::user_of;
use crate::participating::{Participating, Target, choose};
use crate::records::AcceptedMessage;
use crate::registrar::Bindings;
use crate::turn::{Desk, Turn};
use crate::{Config, LaneKey, UserId};

/// All machines of one lane.
#[derive(Debug)]
pub(crate) struct Functions {
    pub(crate) bindings: Bindings,
    pub(crate) directory: Directory,
    pub(crate) participating: Participating,
    pub(crate) focus: Focus,
    /// Messages from the store that wait for the last row.
    pub(crate) restored: Vec<(String, AcceptedMessage)>,
}

impl Functions {
    pub(crate) fn new(desk: &Desk) -> Self {
        Functions {
            bindings: Bindings::new(desk),
            directory: Directory::new(&desk.config),
            participating: Participating::new(desk),
            focus: Focus::new(desk),
            restored: Vec::new(),
        }
    }

    /// Offers the messages of the store to the devices that are there now.
    pub(crate) fn offer_restored(&mut self, turn: &mut Turn<'_>) {
        let (now, max) = (turn.now.wall, turn.config().limits.fork_max);
        for (key, message) in std::mem::take(&mut self.restored) {
            let user = message.user.clone();
            let bindings = &self.bindings;
            self.participating
                .messages
                .restore(turn, &key, message, |request| choose(request, bindings.live(&user, now), max));
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
    pub(crate) fn of(config: &Config, request: &sip::Request) -> Addressee {
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

    /// The next function for a request that our user sends; `None` when nobody here is meant.
    pub(crate) fn target(&self, uri: &sip::Uri) -> Option<Target> {
        match self {
            Addressee::Conference(lane) => Some(Target::lane(*lane, uri.clone())),
            Addressee::User(user) => Some(Target::lane(LaneKey::of_user(user), uri.clone())),
            Addressee::Node | Addressee::Elsewhere => None,
        }
    }
}
