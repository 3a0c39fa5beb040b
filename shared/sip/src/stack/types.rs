//! What goes into the stack and what comes out.

use bytes::Bytes;

use crate::malformed::{Malformed, Why};
use crate::message::{Message, Request, Response};
use crate::overload::Shed;
use crate::peer::{Peer, Transport};
use crate::transaction::Timing;
use crate::typed::Reason;
use crate::uri::HostPort;

/// Names a server transaction. Chosen by the stack, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerKey(pub u64);

/// Names a client transaction. Chosen by the user, who must not reuse one that has not ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientKey(pub u64);

/// How a stack is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// What stands as sent-by in the Via of our requests, per transport: where responses and (behind
    /// reliable transports) new connections reach us. A transport that is not here takes the first entry.
    pub sent_by: Vec<(Transport, HostPort)>,
    /// Limits.
    pub limits: crate::Limits,
    /// Timer values.
    pub timing: Timing,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A message arrived.
    Received {
        /// From whom: for streams the connection's remote end.
        peer: Peer,
        /// What.
        message: Message,
    },
    /// A request arrived that is too much: as `Received`, but where it would begin a transaction it is answered 503, and
    /// nothing is kept of it. Not for ACK and CANCEL.
    Shed {
        /// From whom.
        peer: Peer,
        /// What.
        request: Request,
        /// Why.
        why: Shed,
        /// Seconds for Retry-After; a client that supports overload control is told by that alone.
        retry_after_s: u32,
    },
    /// Octets arrived that are no message. The answer, if there is one, is sent; the reason is counted.
    Malformed {
        /// From whom.
        peer: Peer,
        /// What the framer found.
        malformed: Malformed,
    },
    /// Send a request other than ACK and CANCEL. Via is added, and Max-Forwards 70 if there is none.
    Send {
        /// The user's name for it.
        key: ClientKey,
        /// To whom (see [`crate::hop::next_hop`]).
        to: Peer,
        /// The request.
        request: Request,
    },
    /// Send the ACK for a 2xx (built by [`crate::Dialog::ack`]). Retransmitted 2xx are then answered by the
    /// stack with the same ACK.
    Ack {
        /// To whom.
        to: Peer,
        /// The ACK.
        request: Request,
    },
    /// Cancel an INVITE of ours; waits for the first provisional response if need be (RFC 3261 §9.1). The
    /// final response (487, or 2xx when they crossed) still comes.
    Cancel {
        /// Which.
        key: ClientKey,
        /// A Reason header for the CANCEL (RFC 3326).
        reason: Option<Reason>,
    },
    /// Answer a request. A To tag is added if there is none (the same in all responses of a transaction).
    Respond {
        /// Which.
        server: ServerKey,
        /// With what.
        response: Response,
    },
    /// A transport error towards the peer, or its connection closed.
    Failed {
        /// Which peer.
        peer: Peer,
    },
}

/// Why a client transaction ended without a final response.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Expiry {
    /// No final response came: to be treated as 408 (RFC 3261 §8.1.3.1).
    Timeout,
    /// The transport failed: to be treated as 503.
    Transport,
    /// A limit, or a key in use: nothing was sent.
    Refused,
}

/// What the stack wants done or known.
#[derive(Debug)]
pub enum Output {
    /// Send these octets as one datagram, or on the peer's connection (opened if there is none).
    Transmit {
        /// To whom.
        peer: Peer,
        /// What.
        bytes: Bytes,
    },
    /// A new request. The source is noted in its topmost Via.
    Request {
        /// For [`Input::Respond`].
        server: ServerKey,
        /// From whom.
        peer: Peer,
        /// The request; never ACK or CANCEL.
        request: Request,
    },
    /// The ACK of a 2xx, once. It is matched to its dialog by the user; it may carry an SDP answer.
    Ack {
        /// From whom.
        peer: Peer,
        /// The ACK.
        request: Request,
    },
    /// A CANCEL came for an INVITE that has no final response yet, and was answered; the user sends 487.
    /// Also when the user gave no final response in `invite_pending_max`: 408 was sent for it then.
    Cancelled {
        /// Which.
        server: ServerKey,
        /// The Reason header of the CANCEL.
        reason: Option<Reason>,
    },
    /// A response to our request. After a final one the key is free again, except that an INVITE may bring
    /// further 2xx with other To tags (RFC 3261 §13.2.2.4): each wants an ACK.
    Response {
        /// Which request.
        key: ClientKey,
        /// The response.
        response: Response,
        /// From whom.
        peer: Peer,
    },
    /// Our request ended without a final response.
    Expired {
        /// Which.
        key: ClientKey,
        /// Why.
        why: Expiry,
    },
    /// No ACK came for a 2xx in 64*T1: the dialog should be ended by BYE (RFC 3261 §13.3.1.4).
    AckMissing {
        /// Which.
        server: ServerKey,
    },
}

/// Why a message that arrived went nowhere. A closed set: each is a metric label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dropped {
    /// Malformed, answered or not.
    Malformed(Why),
    /// A response that belongs to no request of ours.
    StrayResponse,
    /// A response with more than our own Via (RFC 3261 §8.1.3.3).
    ForeignVia,
    /// The same request again; the stack answers it as before.
    Retransmission,
    /// The same response again.
    RepeatedResponse,
    /// A CANCEL for nothing: answered 481.
    StrayCancel,
    /// A request that came by another way before: answered 482 (RFC 3261 §8.2.2.2).
    Merged,
    /// No room for another transaction: answered 503.
    NoRoom,
    /// Too much comes: answered 503.
    Shed(Shed),
    /// The ACK of a request that was refused without a transaction (RFC 3261 §8.2.7).
    RefusedAck,
    /// More 2xx of different To tags than allowed.
    TooManyForks,
    /// A response of the user after its transaction ended.
    LateAnswer,
}

impl Dropped {
    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Dropped::Malformed(why) => why.label(),
            Dropped::StrayResponse => "stray_response",
            Dropped::ForeignVia => "foreign_via",
            Dropped::Retransmission => "retransmission",
            Dropped::RepeatedResponse => "repeated_response",
            Dropped::StrayCancel => "stray_cancel",
            Dropped::Merged => "merged",
            Dropped::NoRoom => "no_room",
            Dropped::Shed(Shed::Share) => "overload_share",
            Dropped::Shed(Shed::Late) => "overload_late",
            Dropped::RefusedAck => "refused_ack",
            Dropped::TooManyForks => "too_many_forks",
            Dropped::LateAnswer => "late_answer",
        }
    }
}
