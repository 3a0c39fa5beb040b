//! Typed header values: read on demand from the index, written by `Display`.
//!
//! A [`Value`] is a grammar; a [`Header`] is a grammar that belongs to one name. Headers of one grammar are
//! newtypes that deref to it: `From`, `To`, `Contact`, `Route` ... are all [`NameAddr`].

mod address;
mod content;
mod cseq;
mod date;
mod event;
mod feature;
mod number;
mod reason;
mod session;
mod session_id;
mod via;

use std::fmt;

use crate::name::Name;

pub use address::{
    Contact, Contacts, From, HistoryInfo, NameAddr, PAssertedIdentity, PAssociatedUri, PPreferredIdentity,
    PServedUser, Path, RecordRoute, ReferTo, ReferredBy, ReplyTo, Route, ServiceRoute, To,
};
pub use content::{ContentDisposition, ContentType, MediaType};
pub use cseq::{CSeq, RAck};
pub use date::Date;
pub use event::{Event, SubscriptionState, Substate};
pub use feature::{AcceptContact, RejectContact};
pub use number::{Expires, FlowTimer, MaxForwards, MessageExpires, MinExpires, MinSe, RSeq, RetryAfter};
pub use reason::{Reason, Warning};
pub use session::{Join, Refresher, Replaces, SessionExpires, TargetDialog};
pub use session_id::SessionId;
pub(crate) use via::MAGIC;
pub use via::Via;

/// A header that breaks its grammar or is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{header}: {what}")]
pub struct BadHeader {
    /// Which header, or which grammar.
    pub header: &'static str,
    /// What is wrong, without any of the peer's octets.
    pub what: &'static str,
}

/// A grammar of header values.
pub trait Value: Sized + fmt::Display {
    /// Reads one value (one element of a comma list).
    fn parse(bytes: &[u8]) -> Result<Self, BadHeader>;
}

/// A grammar that belongs to one header.
pub trait Header: Value {
    /// The header's name.
    const NAME: Name;
    /// The header's name in errors.
    const LABEL: &'static str;
}

/// A header whose grammar is another type's: a newtype that derefs to it.
macro_rules! header {
    ($(#[$doc:meta])* $name:ident($grammar:ty) = $variant:ident, $label:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name(pub $grammar);

        impl $crate::typed::Value for $name {
            fn parse(bytes: &[u8]) -> Result<Self, $crate::typed::BadHeader> {
                match <$grammar as $crate::typed::Value>::parse(bytes) {
                    Ok(value) => Ok($name(value)),
                    Err(bad) => Err($crate::typed::BadHeader { header: $label, what: bad.what }),
                }
            }
        }

        impl $crate::typed::Header for $name {
            const NAME: $crate::name::Name = $crate::name::Name::$variant;
            const LABEL: &'static str = $label;
        }

        impl std::ops::Deref for $name {
            type Target = $grammar;
            fn deref(&self) -> &$grammar {
                &self.0
            }
        }

        impl std::ops::DerefMut for $name {
            fn deref_mut(&mut self) -> &mut $grammar {
                &mut self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}
pub(crate) use header;

/// Names the header of a type that is its own grammar.
macro_rules! own_header {
    ($name:ident = $variant:ident, $label:literal) => {
        impl $crate::typed::Header for $name {
            const NAME: $crate::name::Name = $crate::name::Name::$variant;
            const LABEL: &'static str = $label;
        }
    };
}
pub(crate) use own_header;

#[cfg(test)]
mod tests;
