#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
//! Session descriptions (RFC 8866) and offer/answer (RFC 3264) for audio, video and message lines.
//!
//! - [`Session::parse`] and [`Session::to_bytes`]: typed [`MediaLine`]s, unknown attributes kept in order;
//! - [`answer`]: an answer to an offer, line by line; [`MediaLine::anchored`]: the same line with our transport
//!   in place of the peer's, for a middlebox between two dialogs;
//! - [`Stamp`]: the o= line of everything one dialog sends; [`check_answer`], [`check_next_offer`].
//!
//! - [`Crypto`]: the keys of `RTP/SAVP` lines (RFC 4568); [`Ice`] and [`DtlsEnd`]: those of WebRTC peers (RFC 8839,
//!   RFC 5763).
//!
//! - [`Session::bundle`]: the lines that share one transport (RFC 9143).
//!
//! The lexing of lines is the crate sdp-types. Not here: what checks and handshakes come to, codecs, and the MSRP URIs inside
//! `a=path`, which the crate `msrp` reads.

mod anchor;
mod answer;
mod attribute;
mod bundle;
mod crypto;
mod dtls;
mod error;
mod host;
mod media;
mod message;
mod negotiate;
mod read;
mod rtp;
mod session;
mod stamp;
mod write;

pub use anchor::{Anchor, MessageAnchor, RtpAnchor};
pub use answer::{Accept, AcceptBody, AcceptMessage, AcceptRtp, Choice, answer};
pub use attribute::{Attribute, Bandwidth, Fingerprint, Group, Setup};
pub use bundle::MID_URI;
pub use crypto::{Crypto, CryptoSuite, LIFETIME_MIN};
pub use dtls::{DtlsEnd, Ice};
pub use error::SdpError;
pub use host::Host;
pub use media::{Body, Direction, Kind, MediaLine, Proto};
pub use message::{Chatroom, File, Message};
pub use negotiate::{Role, check_answer, check_next_offer, message_role};
pub use rtp::{Codec, Extension, Feedback, Format, Rtcp, Rtp};
pub use session::{Limits, Origin, Session};
pub use stamp::Stamp;
