//! Feature tags: which service a request is for, and which of a user's devices can take it
//! (3GPP TS 24.229 §7.9, RFC 3840, RFC 3841; CPM-FACTS §2.1).
//!
//! [`service`] holds the CPM service identifiers, [`set`] reads what a Contact can do, [`accept`] evaluates
//! Accept-Contact and Reject-Contact against it.

pub mod accept;
pub mod service;
pub mod set;

pub use accept::{AcceptContact, Preference, RejectContact, score, select};
pub use service::Service;
pub use set::{FeatureSet, Value, same_instance};
