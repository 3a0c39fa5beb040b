//! INVITE server transaction: RFC 3261 §17.2.1, figure 7, with the Accepted state of RFC 6026 §8.7 and the
//! retransmission of 2xx (§13.3.1.4), which the stack does for its user.
//!
//! ```text
//!                 start: tell; 100 when the user has not answered in 200 ms
//!                              v
//!     INVITE: send last  +------------+ 101-199: send
//!                  +---->| Proceeding |<--+
//!                  +-----+------------+---+
//!        300-699: send, G, H |      | 2xx: send, again from T1 up to T2, L
//!              v-------------+      +--------------v
//!        +-----------+                       +----------+ INVITE: nothing
//! INVITE,| Completed |--H--> gone            | Accepted |--L--> gone; without ACK: tell
//!  G:    +-----------+                       +----------+
//!  send        | ACK                               | ACK: stop sending, tell
//!              v                                   +--> Accepted
//!        +-----------+
//!        | Confirmed |--I--> gone            (G never starts and I is zero when reliable)
//!        +-----------+
//! ```
//!
//! A user that never gives a final response is answered for with 408 after the configured time.

use std::time::Duration;

use super::{Act, Acts, Class, Timing, acts};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Proceeding,
    Accepted,
    Completed,
    Confirmed,
}

#[derive(Debug)]
pub(crate) struct InviteServer {
    pub(crate) state: State,
    timing: Timing,
    reliable: bool,
    interval: Duration,
    acknowledged: bool,
    answered: bool,
}

impl InviteServer {
    pub(crate) fn start(timing: Timing, reliable: bool, pending_max: Duration) -> (InviteServer, Acts) {
        let machine = InviteServer {
            state: State::Proceeding,
            timing,
            reliable,
            interval: timing.t1(),
            acknowledged: false,
            answered: false,
        };
        (machine, acts![Act::Tell, Act::Again(timing.trying_after()), Act::End(pending_max)])
    }

    /// The same INVITE again.
    pub(crate) fn retransmission(&mut self) -> Acts {
        match self.state {
            State::Proceeding if self.answered => acts![Act::Send],
            State::Completed => acts![Act::Send],
            State::Proceeding | State::Accepted | State::Confirmed => acts![],
        }
    }

    /// A response of the user.
    pub(crate) fn respond(&mut self, class: Class) -> Acts {
        if self.state != State::Proceeding {
            return acts![];
        }
        self.answered = true;
        match class {
            Class::Trying | Class::Provisional => acts![Act::Send, Act::StopAgain],
            Class::Success => {
                self.state = State::Accepted;
                // §13.3.1.4: retransmitted whatever the transport, since the ACK is end to end.
                acts![Act::Send, Act::Again(self.interval), Act::End(self.timing.all())]
            }
            Class::Failure => {
                self.state = State::Completed;
                let again = if self.reliable { Act::StopAgain } else { Act::Again(self.interval) };
                acts![Act::Send, again, Act::End(self.timing.all())]
            }
        }
    }

    /// The ACK of a failure, in this transaction (§17.1.1.3).
    pub(crate) fn ack(&mut self) -> Acts {
        match self.state {
            State::Completed if self.reliable => acts![Act::Gone],
            State::Completed => {
                self.state = State::Confirmed;
                acts![Act::StopAgain, Act::End(self.timing.t4())]
            }
            _ => acts![],
        }
    }

    /// The ACK of a 2xx, which is a transaction of its own; true for the first.
    pub(crate) fn ack_of_success(&mut self) -> Acts {
        if self.state != State::Accepted || self.acknowledged {
            return acts![];
        }
        self.acknowledged = true;
        acts![Act::StopAgain, Act::Tell]
    }

    /// The 100 of §17.2.1, and timer G.
    pub(crate) fn again(&mut self) -> Acts {
        match self.state {
            State::Proceeding if self.answered => acts![],
            State::Proceeding => {
                self.answered = true;
                acts![Act::Trying]
            }
            State::Accepted if self.acknowledged => acts![],
            State::Completed | State::Accepted => {
                self.interval = (self.interval * 2).min(self.timing.t2());
                acts![Act::Send, Act::Again(self.interval)]
            }
            State::Confirmed => acts![],
        }
    }

    /// Timers H, I, L, and the end of the user's patience.
    pub(crate) fn end(&mut self) -> Acts {
        match self.state {
            State::Proceeding => acts![Act::GiveUp],
            State::Accepted if !self.acknowledged => acts![Act::AckMissing, Act::Gone],
            State::Accepted | State::Completed | State::Confirmed => acts![Act::Gone],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn machine(reliable: bool) -> InviteServer {
        let (machine, acts) = InviteServer::start(Timing::default(), reliable, MS(300_000));
        assert_eq!(acts[..], [Act::Tell, Act::Again(MS(200)), Act::End(MS(300_000))]);
        machine
    }

    #[test]
    fn a_slow_user_is_covered_by_100_and_then_by_408() {
        let mut m = machine(false);
        assert!(m.retransmission().is_empty());
        assert_eq!(m.again()[..], [Act::Trying]);
        assert_eq!(m.retransmission()[..], [Act::Send]);
        assert_eq!(m.respond(Class::Provisional)[..], [Act::Send, Act::StopAgain]);
        assert_eq!(m.end()[..], [Act::GiveUp]);
    }

    #[test]
    fn a_failure_is_sent_until_its_ack() {
        let mut m = machine(false);
        assert_eq!(m.respond(Class::Failure)[..], [Act::Send, Act::Again(MS(500)), Act::End(MS(32_000))]);
        for ms in [1000, 2000, 4000, 4000] {
            assert_eq!(m.again()[..], [Act::Send, Act::Again(MS(ms))]);
        }
        assert_eq!(m.retransmission()[..], [Act::Send]);
        assert!(m.respond(Class::Success).is_empty());
        assert_eq!(m.ack()[..], [Act::StopAgain, Act::End(MS(5000))]);
        assert!(m.ack().is_empty() && m.again().is_empty() && m.retransmission().is_empty());
        assert_eq!(m.end()[..], [Act::Gone]);
        let mut m = machine(true);
        assert_eq!(m.respond(Class::Failure)[..], [Act::Send, Act::StopAgain, Act::End(MS(32_000))]);
        assert_eq!(m.ack()[..], [Act::Gone]);
    }

    #[test]
    fn a_success_is_sent_until_its_ack_on_any_transport() {
        for reliable in [false, true] {
            let mut m = machine(reliable);
            assert_eq!(m.respond(Class::Success)[..], [Act::Send, Act::Again(MS(500)), Act::End(MS(32_000))]);
            assert_eq!(m.again()[..], [Act::Send, Act::Again(MS(1000))]);
            assert!(m.retransmission().is_empty() && m.ack().is_empty());
            assert_eq!(m.ack_of_success()[..], [Act::StopAgain, Act::Tell]);
            assert!(m.ack_of_success().is_empty() && m.again().is_empty());
            assert_eq!(m.end()[..], [Act::Gone]);
        }
        let mut m = machine(true);
        m.respond(Class::Success);
        assert_eq!(m.end()[..], [Act::AckMissing, Act::Gone]);
    }
}
