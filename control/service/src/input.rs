//! What a lane is told.

use std::net::SocketAddr;

use contract::{Applied, News, Refusal, Welcome};
use sip::typed::Reason;
use sip::{Peer, Request, Response};

use crate::{Ask, ClientTx, LaneKey, Row, ServerTx};

/// Where a request came from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A socket.
    Network {
        /// Transport and remote address: answers and later requests of this flow go there.
        peer: Peer,
        /// The connection that it came on, a number that no other connection ever has; 0 for a datagram.
        connection: u64,
        /// Our own address that it reached.
        local: SocketAddr,
        /// The driver has established trust by other means than the address (a client certificate).
        trusted: bool,
    },
    /// Another lane of this node, or this one (any bucket of it): always trusted.
    Lane(LaneKey),
}

/// One event for a lane.
#[derive(Clone, Debug)]
pub enum Input {
    /// A request that opens a server transaction (never ACK or CANCEL).
    Request {
        /// Names the transaction in `Respond` and `Cancelled`.
        tx: ServerTx,
        /// Who sent it.
        source: Source,
        /// The request.
        request: Request,
    },
    /// A connection is over: nobody who comes from the same address later is who was there.
    Disconnected {
        /// Its number.
        connection: u64,
    },
    /// The ACK of a 2xx.
    Ack {
        /// Who sent it.
        source: Source,
        /// The ACK, perhaps with an answer in its body.
        request: Request,
    },
    /// The transaction got a CANCEL, which was answered already; the INVITE still wants its 487.
    Cancelled {
        /// Which INVITE.
        tx: ServerTx,
        /// What the CANCEL says about it (RFC 3326).
        reason: Option<Reason>,
    },
    /// The 2xx to this INVITE was retransmitted for 64*T1 and no ACK came (RFC 3261 §13.3.1.4).
    AckMissing {
        /// Which INVITE.
        tx: ServerTx,
    },
    /// An answer, provisional (without 100) or final, to a `Send`; also further 2xx of a forked INVITE.
    Response {
        /// Which `Send`.
        tx: ClientTx,
        /// The answer.
        response: Response,
    },
    /// No final answer will come: timer B or F, a transport error, or a route that does not exist.
    Expired {
        /// Which `Send`.
        tx: ClientTx,
    },
    /// What the store holds for a `Need`; keys without a row are left out.
    Facts {
        /// Which `Need`.
        ask: Ask,
        /// The rows found.
        rows: Vec<Row>,
    },
    /// A `Program` was applied.
    Applied {
        /// Which `Program`.
        ask: Ask,
        /// Where its legs are.
        applied: Applied,
    },
    /// A `Program` was refused whole, or the data plane was lost before it answered.
    Refused {
        /// Which `Program`.
        ask: Ask,
        /// Why.
        refusal: Refusal,
    },
    /// News about a context of this lane.
    News(News),
    /// The data plane is linked. Come before any `Applied` of it.
    DataplaneUp {
        /// Its welcome.
        welcome: Welcome,
        /// Its tables are empty: the wanted state is put again.
        instance_changed: bool,
    },
    /// The link to the data plane is lost; media goes on.
    DataplaneDown,
    /// Contexts of this lane's buckets that the data plane holds (after a restart of control, once all rows
    /// are restored). Those that nobody claims are removed.
    Audited {
        /// Context ids.
        contexts: Vec<u64>,
    },
    /// At start: a part of the rows that the store holds for this lane, of the tables with
    /// [`Table::restored`](crate::Table::restored).
    Restored {
        /// The rows, in any order.
        rows: Vec<Row>,
        /// This was the last part.
        done: bool,
    },
}
