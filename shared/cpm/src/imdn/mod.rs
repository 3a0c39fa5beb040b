//! Instant message disposition notifications (RFC 5438; CPM-FACTS §2.11).
//!
//! [`Request`] is what a message asks for in its CPIM headers, [`Imdn`] the notification's XML. [`DedupKey`] and
//! [`Passed`] are the memory of "one positive notification per recipient" (REQ-PF-17): the rule is here, the
//! rows are the caller's.

mod dedup;
mod document;
mod request;

pub use dedup::{DedupKey, Passed};
pub use document::{Imdn, Kind, Notification, Status};
pub use request::{Disposition, Dispositions, MessageId, Request};
