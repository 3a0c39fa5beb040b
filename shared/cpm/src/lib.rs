#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
//! What CPM peers say inside SIP and MSRP: CPIM (RFC 3862), IMDN (RFC 5438), is-composing (RFC 3994),
//! conference-info (RFC 4575), resource-lists (RFC 4826, RFC 5364), reginfo (RFC 3680), feature tags (RFC 3840, RFC 3841),
//! conversation ids and subscriber addresses.
//!
//! Parsers take what a stranger sent: they are bounded by [`Limits`] and answer with [`Error`], whose family
//! ([`Error::fault`]) the caller turns into the answer of its protocol. SIP and MSRP framing are not here.

pub mod address;
pub mod composing;
pub mod conference;
pub mod cpim;
mod error;
pub mod feature;
pub mod ids;
pub mod imdn;
mod limits;
pub mod media_type;
pub mod nickname;
pub mod reginfo;
pub mod resource_lists;
mod xml;

pub use address::UserId;
pub use error::{Error, XmlFault};
pub use ids::{ContributionId, ConversationId, SessionReplaces};
pub use limits::Limits;
