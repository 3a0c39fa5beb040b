//! INVITE client transaction: RFC 3261 §17.1.1, figure 5, with the Accepted state of RFC 6026 §8.4.
//!
//! ```text
//!                 start: send, A (unreliable), B
//!                          v
//!        A: send again +---------+ B fires or transport fails: tell
//!                 +--->| Calling |-------------------------------> gone
//!                 +----+---------+
//!        1xx: tell, C  |   |    | 2xx: tell
//!             v--------+   |    +-------------------+
//!      +------------+      | 300-699: tell, ACK     v
//!      | Proceeding |------+----------+       +----------+ 2xx: tell
//!      +------------+ 2xx: tell       |       | Accepted |<--+
//!   1xx: tell, C  |   ----------------|------>+----------+---+
//!   C: CANCEL, then 64*T1: tell, gone v            | M
//!                              +-----------+       v
//!             300-699: ACK +-->| Completed |-D-> gone     (D is zero when reliable)
//!                          +---+-----------+
//! ```
//!
//! A cancel before the first provisional response waits for it (§9.1); then 64*T1 are left for a final one.

use std::time::Duration;

use super::{Act, Acts, Class, Timing, acts};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Calling,
    Proceeding,
    Completed,
    Accepted,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cancel {
    No,
    Wanted,
    Sent,
}

#[derive(Debug)]
pub(crate) struct InviteClient {
    pub(crate) state: State,
    timing: Timing,
    reliable: bool,
    interval: Duration,
    cancel: Cancel,
}

impl InviteClient {
    pub(crate) fn start(timing: Timing, reliable: bool) -> (InviteClient, Acts) {
        let interval = timing.t1();
        let machine = InviteClient { state: State::Calling, timing, reliable, interval, cancel: Cancel::No };
        let mut acts = acts![Act::Send, Act::End(timing.all())];
        if !reliable {
            acts.push(Act::Again(interval));
        }
        (machine, acts)
    }

    pub(crate) fn response(&mut self, class: Class) -> Acts {
        match (self.state, class) {
            (State::Calling, Class::Trying | Class::Provisional) => {
                self.state = State::Proceeding;
                let mut acts = acts![Act::Tell, Act::StopAgain, Act::End(self.timing.c())];
                if self.cancel == Cancel::Wanted {
                    acts.extend(self.send_cancel());
                }
                acts
            }
            // §16.6 step 11: each 101 to 199 resets timer C. After a CANCEL it does not.
            (State::Proceeding, Class::Provisional) if self.cancel == Cancel::No => {
                acts![Act::Tell, Act::End(self.timing.c())]
            }
            (State::Proceeding, Class::Trying | Class::Provisional) => acts![Act::Tell],
            (State::Calling | State::Proceeding, Class::Success) => {
                self.state = State::Accepted;
                acts![Act::Tell, Act::StopAgain, Act::End(self.timing.all())]
            }
            (State::Accepted, Class::Success) => acts![Act::Tell],
            (State::Calling | State::Proceeding, Class::Failure) => {
                self.state = State::Completed;
                if self.reliable {
                    return acts![Act::Ack, Act::Tell, Act::Gone];
                }
                // Timer D: at least 32 s (§17.1.1.2), with short timings in proportion.
                acts![Act::Ack, Act::Tell, Act::StopAgain, Act::End(self.timing.all())]
            }
            (State::Completed, Class::Failure) => acts![Act::Ack],
            (State::Accepted | State::Completed, _) => acts![],
        }
    }

    pub(crate) fn cancel(&mut self) -> Acts {
        match (self.state, self.cancel) {
            (State::Calling, Cancel::No) => {
                self.cancel = Cancel::Wanted;
                acts![]
            }
            (State::Proceeding, Cancel::No) => self.send_cancel(),
            _ => acts![],
        }
    }

    fn send_cancel(&mut self) -> Acts {
        self.cancel = Cancel::Sent;
        // §9.1: without a final response in 64*T1 the client considers the transaction cancelled.
        acts![Act::Cancel, Act::End(self.timing.all())]
    }

    /// Timer A.
    pub(crate) fn again(&mut self) -> Acts {
        if self.state != State::Calling {
            return acts![];
        }
        self.interval *= 2;
        acts![Act::Send, Act::Again(self.interval)]
    }

    /// Timers B, C, D, M.
    pub(crate) fn end(&mut self) -> Acts {
        match self.state {
            State::Proceeding if self.cancel == Cancel::No => self.send_cancel(),
            State::Calling | State::Proceeding => acts![Act::TimedOut, Act::Gone],
            State::Completed | State::Accepted => acts![Act::Gone],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timing = Timing { t1_ms: 500, t2_ms: 4000, t4_ms: 5000, trying_after_ms: 200, c_ms: 185_000 };
    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn timer_a_doubles_until_timer_b() {
        let (mut m, acts) = InviteClient::start(T, false);
        assert_eq!(acts[..], [Act::Send, Act::End(MS(32_000)), Act::Again(MS(500))]);
        for ms in [1000, 2000, 4000, 8000, 16_000] {
            assert_eq!(m.again()[..], [Act::Send, Act::Again(MS(ms))]);
        }
        assert_eq!(m.end()[..], [Act::TimedOut, Act::Gone]);
        assert_eq!(InviteClient::start(T, true).1[..], [Act::Send, Act::End(MS(32_000))]);
    }

    #[test]
    fn failures_are_acknowledged_each_time_and_told_once() {
        let (mut m, _) = InviteClient::start(T, false);
        assert_eq!(
            m.response(Class::Failure)[..],
            [Act::Ack, Act::Tell, Act::StopAgain, Act::End(MS(32_000))]
        );
        assert_eq!(m.response(Class::Failure)[..], [Act::Ack]);
        assert!(m.response(Class::Success).is_empty() && m.response(Class::Provisional).is_empty());
        assert_eq!(m.end()[..], [Act::Gone]);
        let (mut m, _) = InviteClient::start(T, true);
        assert_eq!(m.response(Class::Failure)[..], [Act::Ack, Act::Tell, Act::Gone]);
    }

    /// RFC 6026 §8.4: 2xx in Accepted still go up, failures do not.
    #[test]
    fn accepted_tells_each_success() {
        let (mut m, _) = InviteClient::start(T, false);
        m.response(Class::Trying);
        assert_eq!(m.response(Class::Success)[..], [Act::Tell, Act::StopAgain, Act::End(MS(32_000))]);
        assert_eq!(m.response(Class::Success)[..], [Act::Tell]);
        assert!(m.response(Class::Failure).is_empty() && m.cancel().is_empty() && m.again().is_empty());
        assert_eq!(m.end()[..], [Act::Gone]);
    }

    /// RFC 3261 §9.1.
    #[test]
    fn a_cancel_waits_for_the_first_provisional_response() {
        let (mut m, _) = InviteClient::start(T, false);
        assert!(m.cancel().is_empty());
        let acts = m.response(Class::Trying);
        assert_eq!(acts[3..], [Act::Cancel, Act::End(MS(32_000))]);
        assert!(m.cancel().is_empty());
        assert_eq!(m.response(Class::Provisional)[..], [Act::Tell]);
        assert_eq!(m.end()[..], [Act::TimedOut, Act::Gone]);
    }

    #[test]
    fn timer_c_cancels() {
        let (mut m, _) = InviteClient::start(T, false);
        m.response(Class::Provisional);
        assert_eq!(m.response(Class::Provisional)[..], [Act::Tell, Act::End(MS(185_000))]);
        assert_eq!(m.end()[..], [Act::Cancel, Act::End(MS(32_000))]);
        assert_eq!(m.end()[..], [Act::TimedOut, Act::Gone]);
    }
}
