#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
//! The RFC 3261 family, sans-IO: framing, header index, typed headers, transactions, dialogs, digest.
//!
//! ```
//! use sip::typed::{Contact, To};
//! use sip::{Limits, Message, Method, Name, datagram};
//!
//! let wire = "OPTIONS sip:bob@example.com SIP/2.0\r\nv: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport\r\n\
//!             f: <sip:alice@example.com>;tag=1\r\nt: <sip:bob@example.com>\r\ni: c1\r\nCSeq: 1 OPTIONS\r\n\
//!             m: <sip:alice@192.0.2.1>;+g.oma.sip-im\r\nl: 0\r\n\r\n";
//! let Ok(Some(Message::Request(request))) = datagram(wire.into(), &Limits::default()) else { panic!() };
//! assert_eq!(request.method, Method::Options);
//! assert_eq!(request.headers.text(&Name::CallId), Some("c1"));
//! let to: To = request.headers.must()?;                       // typed: an error says which header and why
//! assert_eq!(to.uri.user.as_deref(), Some("bob"));
//! assert!(request.headers.all::<Contact>()?[0].has_feature("+g.oma.sip-im"));
//!
//! let mut response = request.respond(200);
//! response.headers.push(Name::from("X-Any"), "kept");
//! response.set_to_tag("t1");                                   // or leave it to the Stack
//! assert!(response.to_bytes().starts_with(b"SIP/2.0 200 OK\r\nVia: "));
//! # Ok::<(), sip::typed::BadHeader>(())
//! ```
//!
//! The [`Stack`] (transactions, 2xx and ACK retransmission, stateless answers) between framer and user:
//!
//! ```
//! use base::{Entropy, Instant, Outbox};
//! use sip::*;
//!
//! let sent_by = vec![(Transport::Udp, HostPort { host: Host::parse(b"192.0.2.1")?, port: Some(5060) })];
//! let config = Config { sent_by, limits: Limits::default(), timing: Timing::default() };
//! let mut stack = Stack::new(config, Entropy::from_number(1));
//! let mut out = Outbox::with_max(64);                          // check room() >= OUTPUTS_MAX before each input
//! let to = Peer::new(Transport::Udp, "192.0.2.2:5060".parse().unwrap());
//! let mut request = Request::new(Method::Options, Uri::sip("bob", "example.com"));
//! request.headers.push(Name::From, "<sip:alice@example.com>;tag=1");
//! request.headers.push(Name::To, "<sip:bob@example.com>");
//! request.headers.push(Name::CallId, "c1");
//! request.headers.push(Name::CSeq, "1 OPTIONS");               // Via and Max-Forwards are the stack's
//! stack.handle(Instant::ZERO, Input::Send { key: ClientKey(1), to, request }, &mut out);
//! assert!(matches!(out.pop(), Some(Output::Transmit { peer, .. }) if peer == to));
//! // a datagram:  Ok(Some(message)) -> Input::Received,  Err(malformed) -> Input::Malformed,  Ok(None) -> nothing
//! // requests:    Output::Request { server, request, .. } -> rules.screen(&request) -> Input::Respond
//! // later:       stack.next_timeout() -> stack.timeout(now, &mut out)
//! # Ok::<(), BadUri>(())
//! ```

mod class;
mod dialog;
pub mod digest;
mod frame;
mod headers;
pub mod hop;
mod limits;
pub mod locate;
mod malformed;
mod message;
mod method;
pub mod multipart;
mod name;
pub mod overload;
mod params;
mod peer;
#[cfg(test)]
mod props;
#[cfg(feature = "rsip")]
mod rsip_types;
mod scan;
pub mod screen;
mod stack;
mod stream;
mod transaction;
pub mod tries;
pub mod typed;
mod uri;

pub use dialog::{Dialog, DialogId, Misbehaved, Phase};
pub use frame::datagram;
pub use headers::Headers;
pub use limits::Limits;
pub use malformed::{Malformed, Why};
pub use message::{Message, Request, Response, phrase};
pub use method::Method;
pub use name::{Name, OtherName};
pub use params::Params;
pub use peer::{Peer, Transport};
#[cfg(feature = "rsip")]
pub use rsip_types::NotRsip;
pub use stack::{ClientKey, Config, Dropped, Expiry, Input, OUTPUTS_MAX, Output, ServerKey, Stack};
pub use stream::{Frame, StreamFramer};
pub use transaction::Timing;
pub use typed::NameAddr;
pub use uri::{BadUri, Host, HostPort, Scheme, Uri};
