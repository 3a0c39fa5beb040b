//! CPIM messages (RFC 3862), as pager MESSAGEs and MSRP chat carry them (CPM-FACTS §2.3).
//!
//! ```text
//! From: <sip:...>            CPIM headers: names are case-sensitive, `prefix.Name` after `NS: prefix <urn>`
//! To: <sip:...>
//!                            empty line
//! Content-Type: text/plain   MIME headers of what is carried: case-insensitive
//!                            empty line
//! hello                      body
//! ```
//!
//! [`Head`] is a view of the first two parts that copies nothing and allocates nothing: the data plane reads it
//! from the first chunk of a message. [`Builder`] writes. Bodies are never looked at here.

mod address;
mod head;
mod header;
mod write;

pub use address::Address;
pub use head::{Head, Progress};
pub use header::Header;
pub use write::{Builder, escape};

/// The namespace of From, To, cc, DateTime, Subject, NS, Require (RFC 3862 §4).
pub const CORE: &str = "urn:ietf:params:cpim-headers:";
/// The namespace of the disposition headers (RFC 5438 §6).
pub const IMDN: &str = "urn:ietf:params:imdn";
/// The namespace of CPM's own headers.
pub const CPM: &str = "http://www.openmobilealliance.org/cpm/";
