//! The words of a session: what SDP settled, what its user wants, what happens, what it wants done.

use base::Budget;
use bytes::Bytes;
use smallvec::SmallVec;

use crate::{Event, FailureReport, Head, MsrpUri, Path, ReassemblyLimits, Status, Whole};

/// The name that the user of a session gave to a message or other request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u64);

/// Which end opens the connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// This one. It sends a SEND at once, so that the other end can bind (RFC 4975 §5.4).
    Active,
    /// The other one.
    Passive,
}

/// What a session holds and waits for at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionLimits {
    /// Messages that wait or are being sent.
    pub queued_max: usize,
    /// Octets of their bodies.
    pub queued_octets_max: u64,
    /// Chunks whose answer is waited for, above which no chunk is made.
    pub window_chunks: usize,
    /// Other requests that wait for an answer: empty SENDs, nicknames. Half of it is for chunks that are only answered
    /// when they fail; beyond that such an answer is not heard.
    pub transactions_max: usize,
    /// Messages that wait for a success REPORT after they were accepted; the oldest is forgotten.
    pub reports_max: usize,
    /// Octets given to the driver and not yet drained, above which no chunk is made.
    pub window_octets: u64,
    /// Octets of one chunk.
    pub chunk_octets: usize,
    /// How long an answer may take (RFC 4975 §7.1.1), milliseconds.
    pub answer_ms: u64,
    /// How long the binding may take, milliseconds.
    pub bind_ms: u64,
    /// How long a success REPORT is waited for, milliseconds.
    pub report_ms: u64,
    /// How long a message may pause between chunks, milliseconds (RFC 7701 §6.1 speaks of 540 s).
    pub pause_ms: u64,
    /// What may arrive.
    pub reassembly: ReassemblyLimits,
}

impl Default for SessionLimits {
    fn default() -> Self {
        SessionLimits {
            queued_max: 256,
            queued_octets_max: 256 << 20,
            window_chunks: 256,
            transactions_max: 64,
            reports_max: 256,
            window_octets: 64 << 10,
            chunk_octets: 16 << 10,
            answer_ms: 30_000,
            bind_ms: 30_000,
            report_ms: 600_000,
            pause_ms: 540_000,
            reassembly: ReassemblyLimits::default(),
        }
    }
}

impl SessionLimits {
    /// Memory that sessions may hold, as rows.
    pub fn budget(&self, sessions_max: u64) -> Budget {
        let mut budget = self.reassembly.budget(sessions_max);
        budget.row("msrp messages to send", sessions_max, self.queued_octets_max);
        budget
    }
}

/// What SDP settled.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our a=path.
    pub local: MsrpUri,
    /// The peer's a=path.
    pub remote: Path,
    /// Who connects.
    pub role: Role,
    /// Types that we take: `type/subtype`, `type/*` or `*`. A container that is none of them is taken when it
    /// is multipart/mixed or multipart/alternative (RFC 4975 §8.6); what is in it is the user's business.
    pub accept_types: Vec<String>,
    /// The peer's a=max-size, octets.
    pub peer_octets_max: Option<u64>,
    /// Answer `Success-Report: yes` by ourselves when a message is whole; otherwise by [`Command::Report`].
    pub report_success: bool,
    /// Limits.
    pub limits: SessionLimits,
}

impl Config {
    /// With the usual limits; every type is taken.
    pub fn new(local: MsrpUri, remote: Path, role: Role) -> Self {
        Config {
            local,
            remote,
            role,
            accept_types: vec!["*".to_owned()],
            peer_octets_max: None,
            report_success: true,
            limits: SessionLimits::default(),
        }
    }
}

/// A message to send.
#[derive(Clone)]
pub struct Outgoing {
    /// The user's name for it.
    pub key: Key,
    /// Content-Type with its parameters.
    pub content_type: String,
    /// The content.
    pub body: Bytes,
    /// Message-ID; drawn when absent. A repetition after a failure keeps it (RFC 4975 §7.1.2).
    pub message_id: Option<String>,
    /// Ask for a success REPORT.
    pub success_report: bool,
    /// Failure-Report.
    pub failure_report: FailureReport,
    /// Lines besides.
    pub headers: Vec<(String, String)>,
}

impl Outgoing {
    /// With the defaults of RFC 4975: failures are reported, success is not.
    pub fn new(key: Key, content_type: &str, body: Bytes) -> Self {
        Outgoing {
            key,
            content_type: content_type.to_owned(),
            body,
            message_id: None,
            success_report: false,
            failure_report: FailureReport::Yes,
            headers: Vec::new(),
        }
    }
}

/// Content stays out of logs.
impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing({:?}, {} octets)", self.key, self.body.len())
    }
}

/// What the user of a session wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// Send a message.
    Send(Outgoing),
    /// Give a message up; `#` goes out if it was begun.
    Abort(Key),
    /// Ask for a nickname; the empty one gives it up (RFC 7701 §7).
    Nickname {
        /// The user's name for the request.
        key: Key,
        /// The nickname.
        nickname: String,
    },
    /// An empty SEND that keeps the path open (CPM-FACTS §3.3).
    KeepAlive,
    /// Report what became of a message that arrived. Nothing is sent when its sender does not want to know.
    Report(Box<Received>, Status),
    /// Fail everything and forget.
    End,
}

/// What happens to a session.
#[derive(Clone, Debug)]
pub enum Input {
    /// There is a connection: ours for an active session, the one that named a passive session in its first
    /// request.
    Connected,
    /// A part of a message that is the session's own.
    Event(Event),
    /// The driver wrote so many octets of what it was given.
    Drained(u64),
    /// The connection is gone.
    Disconnected,
    /// The user speaks.
    Command(Command),
}

/// One MSRP message in pieces, to be written in order.
pub type Frame = SmallVec<[Bytes; 3]>;

/// A message that arrived whole.
#[derive(Clone, Debug)]
pub struct Received {
    /// What it is.
    pub message: Whole,
    /// The head of its last chunk: where reports go, and which are wanted.
    pub head: Head,
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ended {
    /// The user ended it.
    Closed,
    /// The connection is gone.
    Disconnected,
    /// Nobody bound it in time.
    NotBound,
    /// An answer did not come in time (RFC 4975 §7.1.1).
    Silence,
    /// The peer answered 408, 481 or 506.
    Refused(Status),
}

/// What a session wants done, and what it tells.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write this.
    Write(Frame),
    /// The peer answered, or named the session: it is up.
    Bound,
    /// A message is here.
    Received(Box<Received>),
    /// The end of a message came that is whole already: its Message-ID.
    Repeated(String),
    /// A message that was arriving will not be whole: given up by its sender, or paused too long.
    Dropped(String),
    /// Every chunk went out and got its 200, where one is due.
    Accepted(Key),
    /// Success REPORTs cover the message.
    Delivered(Key),
    /// Success REPORTs are no longer waited for: none came in time, or too many are awaited.
    Unreported(Key),
    /// A message failed: an answer, a REPORT, or our own limits.
    Failed(Key, Status),
    /// A REPORT came. What it leads to follows.
    Reported {
        /// The message that it is about.
        message_id: String,
        /// What became of it.
        status: Status,
        /// The message is one that was sent and is not over; a failure may be learned long after (RFC 4975 §7.1.2).
        awaited: bool,
    },
    /// The answer to a nickname.
    Nickname(Key, Status),
    /// It is over. Everything that waited has failed before.
    Ended(Ended),
}
