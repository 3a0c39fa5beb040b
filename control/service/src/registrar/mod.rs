//! The registrar (RFC 3261 §10.3, RFC 3327, RFC 3608, RFC 5626, RFC 5627; CPM-FACTS §2.8 "Device identity").

mod bindings;
pub(crate) mod notifier;
#[cfg(test)]
mod publication_tests;
mod publications;
#[cfg(test)]
mod reg_event_tests;
mod register;
#[cfg(test)]
mod tests;
pub(crate) mod third_party;
pub(crate) mod watch;

pub(crate) use bindings::{Bindings, Bound};
pub(crate) use register::register;
