//! What devices counted. One set may be shared by every device of a process: load generators read the sum.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter,)* }

        impl Counters {
            /// Names and values.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.value()),)*]
            }
        }
    };
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters! {
    /// SIP requests sent, retransmissions not counted.
    sip_requests_sent,
    /// SIP requests received.
    sip_requests_received,
    /// SIP responses received, provisional ones included.
    sip_responses_received,
    /// SIP requests of ours that nobody answered.
    sip_timeouts,
    /// SIP messages that did not parse.
    sip_malformed,
    /// SIP messages that rsip read too.
    rsip_read,
    /// SIP messages that rsip cannot read for a reason that is known.
    rsip_excused,
    /// Pager messages sent and answered with 2xx.
    pagers_accepted,
    /// Pager messages sent and refused.
    pagers_refused,
    /// Pager messages received.
    pagers_received,
    /// Chat messages sent.
    chats_sent,
    /// Chat messages received.
    chats_received,
    /// Chat messages that came a second time.
    chats_repeated,
    /// MSRP REPORTs with success received.
    reports_received,
    /// MSRP REPORTs with failure received.
    reports_failed,
    /// Notifications `delivered` sent.
    delivered_sent,
    /// Notifications `delivered` received.
    delivered_received,
    /// Notifications `displayed` sent.
    displayed_sent,
    /// Notifications `displayed` received.
    displayed_received,
    /// Notifications of failure received.
    failed_received,
    /// Things that the far end should not have done: see [`crate::Event::Fault`].
    faults,
}
