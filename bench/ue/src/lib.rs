#![forbid(unsafe_code)]
//! A CPM client library: what benches, tests, the demo and `weir ue` all drive.

mod account;
mod actor;
pub mod audio;
mod chat;
mod counters;
mod device;
mod error;
mod event;
mod flow;
mod letter;
mod log;
mod media;
mod reading;
mod requests;
mod shared;
mod stats;
mod tls;
mod transport;

pub use account::{Account, Answering, ChatSetup, uuid};
pub use chat::{Answered, Chat, ChatLimits, Outgoing, Receipt, Sent};
pub use counters::{Counter, Counters};
pub use device::{Change, Device, PagerSent, RosterEntry, SessionView};
pub use error::UeError;
pub use event::{Event, Invitation, Letter, Notice, SessionId, Side, Via};
pub use flow::{Flow, FlowOptions};
pub use letter::{Answer, Draft};
pub use log::Log;
pub use media::SharedFlow;
pub use requests::Call;
pub use sdp::Direction;
pub use sip::{Method, Request, Response, Transport};
pub use stats::{FlowStats, SourceStats};
pub use tls::{Fingerprint, Identity, TlsError, Trust};

/// Randomness from the system.
pub fn system_entropy() -> base::Entropy {
    let mut seed = [0; 32];
    // A system without randomness gives the same names each time: good enough for a client under test.
    let _ = getrandom::fill(&mut seed);
    base::Entropy::from_seed(seed)
}
