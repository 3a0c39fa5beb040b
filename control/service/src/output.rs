//! What a lane wants done.

use contract::{Batch, Decide};
use serde::{Deserialize, Serialize};
use sip::hop::Target;
use sip::typed::Reason;
use sip::{Host, Peer, Request, Response, Transport};

use crate::{Change, Key, LaneKey};

/// Free places that a driver leaves in the outbox before each call.
pub const OUTPUTS_MAX: usize = 1024;

/// A server transaction; the driver's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerTx(pub u64);

/// A client transaction; the lane's number, never used twice by one `Service`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTx(pub u64);

/// A question to the store or an order to the data plane; the lane's number, never used twice by one `Service`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ask(pub u64);

/// Where a request goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Route {
    /// Over the network, on the connection to that address where there is one.
    Peer(Peer),
    /// To a lane of this node.
    Lane(LaneKey),
    /// Over the network, to whom a name means (RFC 3263).
    Name(Named),
}

/// A next hop that has a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Named {
    /// How, where the name does not say.
    pub transport: Transport,
    /// The URI left the transport open: NAPTR and SRV may choose another (RFC 3263 §4.1).
    pub transport_open: bool,
    /// The host.
    pub host: String,
    /// The port, when one is written.
    pub port: Option<u16>,
    /// The flow on which the other end of a dialog spoke to us: where the name means nobody, and before the name while it
    /// is a connection that stands.
    pub flow: Option<Peer>,
}

impl Named {
    /// From the next hop of a request.
    pub fn new(target: &Target, flow: Option<Peer>) -> Self {
        Named {
            transport: target.transport,
            transport_open: target.transport_open,
            host: target.host.to_string(),
            port: target.port,
            flow,
        }
    }

    /// The next hop; `None` when the host is none.
    pub fn target(&self) -> Option<Target> {
        let (transport, transport_open, port) = (self.transport, self.transport_open, self.port);
        let host = Host::parse(self.host.as_bytes()).ok()?;
        Some(Target { transport, transport_open, host, port })
    }
}

/// One thing to do, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Answer a request. INVITE: provisional answers may come before the final one.
    Respond {
        /// Which request.
        tx: ServerTx,
        /// The answer.
        response: Response,
    },
    /// Send a request; its answers come as `Input::Response` or `Input::Expired`.
    Send {
        /// Names the transaction.
        tx: ClientTx,
        /// Where to.
        to: Route,
        /// The request, without our `Via`.
        request: Request,
    },
    /// Send the ACK of a 2xx (sent again by the stack when the 2xx comes again).
    Ack {
        /// The INVITE that is acknowledged.
        tx: ClientTx,
        /// Where to.
        to: Route,
        /// The ACK, without our `Via`.
        request: Request,
    },
    /// CANCEL an INVITE that has no final answer; kept back until a provisional one came (RFC 3261 §9.1).
    Cancel {
        /// Which INVITE.
        tx: ClientTx,
        /// Why (RFC 3326), e.g. 200 "Call completed elsewhere".
        reason: Option<Reason>,
    },
    /// Fetch rows; answered by `Input::Facts`.
    Need {
        /// Names the question.
        ask: Ask,
        /// Which rows.
        keys: Vec<Key>,
    },
    /// Commit all of these or none, before any other output of the same call is released.
    Write(Vec<Change>),
    /// Order the data plane; the driver writes generation and epoch into the batch. Answered by
    /// `Input::Applied` or `Input::Refused`.
    Program {
        /// Names the order.
        ask: Ask,
        /// The batch.
        batch: Batch,
    },
    /// Answer a `MessageNews` of the data plane.
    Decide(Decide),
}
