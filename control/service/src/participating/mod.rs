//! The Participating Function: one user's side of everything (CPM-FACTS §1.3, §2.5; REQ-PF-01). One-to-one
//! conversations never involve the Controlling Function (REQ-GEN-01): originating and terminating function meet
//! as two lanes that speak SIP.
//!
//! ```text
//!   A's device ─▶ O-PF(A) ──lane──▶ T-PF(B) ─▶ B's devices          one to one
//!   A's device ─▶ O-PF(A) ──lane──▶ focus   ──lane──▶ T-PF(B) ─▶ …  groups
//! ```

mod dispositions;
mod history;
mod imdn;
mod leg;
mod merge;
mod message;
mod relay;
pub(crate) mod session;
mod sessions;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use imdn::{About, States, about, key_of as imdn_key, names};
pub(crate) use leg::{Caller, Target, choose};
pub(crate) use message::{Job, MessageId, Messages, Undo};
pub(crate) use relay::{Opening, Relays};
pub(crate) use session::referral::vouch;
pub(crate) use session::{Plan, Start};
pub(crate) use sessions::Sessions;

pub(crate) use dispositions::Verdict;

use crate::turn::Desk;

/// The machines of one lane's users.
#[derive(Debug)]
pub(crate) struct Participating {
    pub(crate) sessions: Sessions,
    pub(crate) messages: Messages,
    pub(crate) relays: Relays,
    pub(crate) states: States,
}

impl Participating {
    pub(crate) fn new(desk: &Desk) -> Self {
        Participating {
            sessions: Sessions::new(desk),
            messages: Messages::new(desk),
            relays: Relays::new(desk),
            states: States::new(desk),
        }
    }
}
