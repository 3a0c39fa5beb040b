//! The words of an endpoint: names, limits, what happens to it, what it wants done.

use bytes::Bytes;

use crate::session::{Command, Config, Frame, Output as SessionOutput};
use crate::{BadReason, Broken, Limits, Status};

/// The user's name for a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey(pub u64);

/// The driver's name for a connection. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnKey(pub u64);

/// What an endpoint holds at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointLimits {
    /// Sessions at once.
    pub sessions_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// How long a connection may be open without naming a session, milliseconds (CPM-FACTS §3.6).
    pub name_ms: u64,
    /// Framing.
    pub framing: Limits,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        EndpointLimits {
            sessions_max: 1024,
            connections_max: 1024,
            name_ms: 30_000,
            framing: Limits::default(),
        }
    }
}

/// What happens to an endpoint.
#[derive(Debug)]
pub enum Input {
    /// SDP settled a session. Of an active one the user dials `connect` and then says [`Input::Connected`].
    Open(SessionKey, Box<Config>),
    /// A connection that we dialled for a session; again with another session to share it.
    Connected(ConnKey, SessionKey),
    /// A connection that came to us.
    Accepted(ConnKey),
    /// Bytes of a connection.
    Received(ConnKey, Bytes),
    /// The driver wrote so many octets of what it was given for a connection.
    Drained(ConnKey, u64),
    /// A connection is gone.
    Disconnected(ConnKey),
    /// The user speaks to a session.
    Command(SessionKey, Command),
}

/// Why a connection is to be closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CloseReason {
    /// Its bytes do not frame.
    Broken(Broken),
    /// It named no session in time.
    Unnamed,
    /// Its last session ended.
    Unused,
    /// There are too many.
    Full,
}

/// Why a message was refused before it came to a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal {
    /// No session has the id.
    NoSession,
    /// The session is bound to another connection.
    OtherConnection,
    /// Its head is bad.
    Bad(BadReason),
}

impl Refusal {
    /// What the sender is told.
    pub const fn status(self) -> Status {
        match self {
            Refusal::NoSession => Status::NO_SESSION,
            Refusal::OtherConnection => Status::OTHER_CONNECTION,
            Refusal::Bad(_) => Status::BAD_REQUEST,
        }
    }
}

/// What an endpoint wants done, and what it tells.
#[derive(Debug)]
pub enum Output {
    /// Write this.
    Write(ConnKey, Frame),
    /// Close this connection, after what was to be written.
    Close(ConnKey, CloseReason),
    /// News of a session; never its `Write`.
    Session(SessionKey, SessionOutput),
    /// A message was refused before it came to a session: for counters.
    Refused(ConnKey, Refusal),
}
