#![forbid(unsafe_code)]
//! Every decision of the control plane, sans-IO: one [`Service`] per lane, driven by `controld`.
//!
//! ```text
//!            controld                                   service (one lane)
//!   network, other lanes ── Request/Response/Cancelled ─▶ needs ── Need{keys} ─▶ (controld prefetches)
//!   store ───────────────── Facts{rows} ────────────────▶ decide ─ Respond Send Ack Cancel Write Program
//!   data plane ──────────── Applied Refused News ───────▶   │
//!   clock ───────────────── timeout ────────────────────▶   ▼ Outbox<Output>
//! ```
//!
//! # What a driver must know
//!
//! - **Durability.** Everything that one call of [`Service::handle`] or [`Service::timeout`] puts out is
//!   released only after that call's [`Output::Write`]s are committed; a call puts out at most one. So no
//!   decision waits for its own commit, and a positive answer is always durable (DESIGN §2, invariant 9).
//! - **Room.** Before each call the outbox has [`OUTPUTS_MAX`] free places.
//! - **Order.** Outputs of one lane are performed in order; a `Need` reads what earlier `Write`s of the lane left.
//! - **Lanes.** [`LaneKey`] is a bucket of the served user or of the conference; `lane = key.lane(lanes)`.
//!   [`lane_of`] finds the key of a request from the network; [`LaneKey::of_context`] that of data-plane news.
//!   `Route::Lane` is delivered as [`Input::Request`] with [`Source::Lane`], `Respond` to it comes back as
//!   [`Input::Response`]: lane-to-lane signalling looks like any SIP.
//! - **Versions.** [`Change`]s are compare-and-set. A mismatch means that another host has taken the lane:
//!   the driver stops the lane.
//! - **Transactions.** [`ServerTx`] is the driver's number, [`ClientTx`] and [`Ask`] are the lane's. `Via` is
//!   the driver's business (the sip stack adds it), and so is 100 Trying to the network.
//!
//! Deliberately not here: sockets, clocks, the store, retransmissions.

mod acted;
mod auth;
mod b2b;
mod body;
mod config;
mod counters;
mod facts;
mod focus;
mod functions;
mod identity;
mod input;
mod isc;
mod lane_key;
mod media;
mod methods;
mod output;
mod participating;
pub mod records;
mod registrar;
mod service;
pub mod supported;
#[cfg(test)]
mod testing;
mod turn;

pub use acted::{Acted, Function};
pub use config::{
    Away, Config, ConfigError, FlowTrust, Identity, Limits, Listeners, Media, Node, Participating, Registrar,
    SubscriberEntry,
};
pub use counters::Counters;
pub use cpm::UserId;
pub use focus::config::{Controlling, GroupEntry, Medium, Plain};
pub use input::{Input, Source};
pub use lane_key::{LaneKey, lane_of};
pub use output::{Ask, ClientTx, Named, OUTPUTS_MAX, Output, Route, ServerTx};
pub use records::{Change, Key, Record, Row, Table};
pub use service::Service;
