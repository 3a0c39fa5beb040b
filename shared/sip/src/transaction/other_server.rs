//! Non-INVITE server transaction: RFC 3261 §17.2.2, figure 8, without early 100 (RFC 4320 §4.1).
//!
//! ```text
//!            start: tell
//!                v
//!           +--------+ again: nothing
//!           | Trying |----+
//!           +--------+<---+
//!      1xx: send |     | 200-699: send, J
//!                v     +----------------v
//!        +------------+            +-----------+
//!        | Proceeding |--200-699:->| Completed |--J--> gone   (zero when reliable)
//!        +------------+  send, J   +-----------+
//!     again, 1xx: send              again: send
//! ```
//!
//! A user that never answers loses the transaction after 64*T1 and T4: the client has given up by then.

use super::{Act, Acts, Class, Timing, acts};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Trying,
    Proceeding,
    Completed,
}

#[derive(Debug)]
pub(crate) struct OtherServer {
    pub(crate) state: State,
    timing: Timing,
    reliable: bool,
}

impl OtherServer {
    pub(crate) fn start(timing: Timing, reliable: bool) -> (OtherServer, Acts) {
        let machine = OtherServer { state: State::Trying, timing, reliable };
        (machine, acts![Act::Tell, Act::End(timing.all() + timing.t4())])
    }

    /// The same request again.
    pub(crate) fn retransmission(&mut self) -> Acts {
        match self.state {
            State::Trying => acts![],
            State::Proceeding | State::Completed => acts![Act::Send],
        }
    }

    /// A response of the user.
    pub(crate) fn respond(&mut self, class: Class) -> Acts {
        match (self.state, class) {
            (State::Completed, _) => acts![],
            (_, Class::Trying | Class::Provisional) => {
                self.state = State::Proceeding;
                acts![Act::Send]
            }
            _ => {
                self.state = State::Completed;
                if self.reliable {
                    return acts![Act::Send, Act::Gone];
                }
                acts![Act::Send, Act::End(self.timing.all())]
            }
        }
    }

    /// Timer J, and the end of the user's patience.
    pub(crate) fn end(&mut self) -> Acts {
        acts![Act::Gone]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retransmissions_are_absorbed_and_then_answered_alike() {
        let (mut m, acts) = OtherServer::start(Timing::default(), false);
        assert_eq!(acts[..], [Act::Tell, Act::End(Duration::from_millis(37_000))]);
        assert!(m.retransmission().is_empty());
        assert_eq!(m.respond(Class::Provisional)[..], [Act::Send]);
        assert_eq!(m.retransmission()[..], [Act::Send]);
        assert_eq!(m.respond(Class::Success)[..], [Act::Send, Act::End(Duration::from_millis(32_000))]);
        assert!(m.respond(Class::Failure).is_empty());
        assert_eq!(m.retransmission()[..], [Act::Send]);
        assert_eq!(m.end()[..], [Act::Gone]);
        let (mut m, _) = OtherServer::start(Timing::default(), true);
        assert_eq!(m.respond(Class::Failure)[..], [Act::Send, Act::Gone]);
    }
}
