#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
//! MSRP on the wire: RFC 4975 with RFC 6135, RFC 6714 and RFC 7701.
//!
//! In layers that can be used apart. The data plane takes the [`Framer`], the [`Head`], the writers and
//! the report rules; an endpoint takes the session machine that stands on them.
//!
//! - bytes in: [`Framer`] -> [`Event`]: heads as views over the read buffer, bodies as spans of it;
//! - words: [`Head`], [`UriRef`] and [`MsrpUri`], [`ByteRange`], [`Status`], [`FailureReport`], [`Tid`];
//! - bytes out: [`HeadWriter`], [`end_line`], [`response`], [`report`];
//! - whole messages, at endpoints only: [`Chunker`], [`Ranges`], [`Reassembly`], [`session::Session`],
//!   [`endpoint::Endpoint`].
//!
//! Deliberately not here: sockets and clocks (the caller's), CPIM (crate `cpm`), the room switch and the
//! relay between legs (`forward`), AUTH (RFC 4976).

mod chunk;
mod connect;
pub mod endpoint;
mod framer;
mod head;
mod limits;
mod octets;
mod path;
mod range;
mod ranges;
mod reassembly;
mod report;
pub mod session;
mod status;
#[cfg(test)]
mod testing;
mod tid;
mod uri;
mod write;

pub use chunk::{Chunk, Chunker};
pub use connect::{Target, connect_to, is_anchored};
pub use framer::{Broken, Event, Framer};
pub use head::{Bad, BadReason, Head, Headers, Method, Start};
pub use limits::Limits;
pub use path::{Path, PathRef};
pub use range::{ByteRange, RangeError};
pub use ranges::{Ranges, TooManyHoles};
pub use reassembly::{Progress, Reassembly, ReassemblyLimits, Whole};
pub use report::{FailureReport, ReportValueError};
pub use status::Status;
pub use tid::{Flag, Tid, TidError};
pub use uri::{MsrpUri, UriError, UriRef};
pub use write::{HeadWriter, end_line, report, response};
