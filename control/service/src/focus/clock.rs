//! Session timers (RFC 4028) are the same for every dialog of this node.

pub(super) use crate::participating::session::clock::{Clock, accept, agreed, answer, propose};
