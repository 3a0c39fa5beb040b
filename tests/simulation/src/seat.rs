//! A participant's place in a context: its leg (or the one after it), its peer, what it is still to say.

use std::collections::VecDeque;

/// How a member looks from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    Listening,
    Bound,
    Congested,
    Lost,
    Left,
}

impl Standing {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Standing::Listening => "listening",
            Standing::Bound => "bound",
            Standing::Congested => "congested",
            Standing::Lost => "lost",
            Standing::Left => "left",
        }
    }
}

/// What it will do.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Say a message.
    Say,
    /// Ask for a nickname.
    Nickname(String),
    /// A request for another member's session.
    Guess(usize),
    /// A request for a session that nobody has.
    Nowhere,
    /// An empty SEND.
    Empty,
    /// Say one again that was taken whole.
    Again,
    /// Octets that are not MSRP.
    Noise,
    /// A response and a REPORT to nothing.
    Stray,
    /// Close the connection, in order.
    Close,
}

/// A participant's place.
pub(crate) struct Seat {
    pub(crate) context: u64,
    pub(crate) leg: u64,
    /// Legs whose place it has taken.
    pub(crate) former: Vec<u64>,
    /// Where it is.
    pub(crate) shard: u16,
    pub(crate) user: u64,
    /// It is no participant, but has a copy of what all others say.
    pub(crate) tap: bool,
    /// Control hears nothing of it.
    pub(crate) unseen: bool,
    /// The engine connects.
    pub(crate) active: bool,
    pub(crate) takes_private: bool,
    /// What the peer must write to, and what it calls itself.
    pub(crate) ours: String,
    pub(crate) theirs: String,
    pub(crate) link: Option<u64>,
    pub(crate) standing: Standing,
    /// Some shard may know it from here on, all do from there on.
    pub(crate) invited: u64,
    pub(crate) joined: u64,
    /// Some shard may know it from here on, all do from there on.
    pub(crate) leaves: Option<u64>,
    pub(crate) left: Option<u64>,
    /// Steps in which it was bound: from, to.
    pub(crate) bound: Vec<(u64, u64)>,
    /// Steps in which control was told that it misses something.
    pub(crate) troubles: Vec<u64>,
    /// Steps in which it was congested: from, to.
    pub(crate) pressed: Vec<(u64, u64)>,
    /// When control was told that it is behind no more, and how much of its connection was with the kernel then.
    pub(crate) overs: Vec<(u64, u64, u64)>,
    pub(crate) plans: VecDeque<Plan>,
    /// Messages that were begun.
    pub(crate) open: Vec<usize>,
    pub(crate) parallel: usize,
    /// Ids of messages that its peer refuses, or answers with silence.
    pub(crate) repairs: u64,
    pub(crate) paths: u64,
    /// When to act next is set.
    pub(crate) acts: bool,
}

impl Seat {
    /// Whether something happened since that step that control knows as a reason to miss a message.
    pub(crate) fn troubled_since(&self, step: u64) -> bool {
        self.troubles.iter().any(|at| *at >= step) || self.pressed.iter().any(|(_, to)| *to >= step)
    }

    /// Whether it was bound at some time in these steps.
    pub(crate) fn was_bound(&self, from: u64, to: u64) -> bool {
        self.bound.iter().any(|(up, down)| *up <= to && *down >= from)
    }
}
