//! Non-INVITE client transaction: RFC 3261 §17.1.2, figure 6.
//!
//! ```text
//!                 start: send, E (unreliable), F
//!                          v
//!        E: send again +--------+ F fires or transport fails: tell
//!                 +--->| Trying |---------------------------------> gone
//!                 +----+--------+                                    ^
//!           1xx: tell |      | 200-699: tell                         |
//!                     v      +---------------+                       |
//!              +------------+                v                       |
//!   E: send <--| Proceeding |--200-699:-->+-----------+--K----> gone |
//!   1xx: tell  +------------+  tell       | Completed |  (zero when reliable)
//!                     |                   +-----------+              |
//!                     +---------------- F: tell ---------------------+
//! ```

use std::time::Duration;

use super::{Act, Acts, Class, Timing, acts};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Trying,
    Proceeding,
    Completed,
}

#[derive(Debug)]
pub(crate) struct OtherClient {
    pub(crate) state: State,
    timing: Timing,
    reliable: bool,
    interval: Duration,
}

impl OtherClient {
    pub(crate) fn start(timing: Timing, reliable: bool) -> (OtherClient, Acts) {
        let interval = timing.t1();
        let mut acts = acts![Act::Send, Act::End(timing.all())];
        if !reliable {
            acts.push(Act::Again(interval));
        }
        (OtherClient { state: State::Trying, timing, reliable, interval }, acts)
    }

    pub(crate) fn response(&mut self, class: Class) -> Acts {
        match (self.state, class) {
            (State::Completed, _) => acts![],
            (_, Class::Trying | Class::Provisional) => {
                self.state = State::Proceeding;
                acts![Act::Tell]
            }
            (_, Class::Success | Class::Failure) => {
                self.state = State::Completed;
                if self.reliable {
                    return acts![Act::Tell, Act::Gone];
                }
                acts![Act::Tell, Act::StopAgain, Act::End(self.timing.t4())]
            }
        }
    }

    /// Timer E: doubles up to T2, and is T2 once a provisional response came.
    pub(crate) fn again(&mut self) -> Acts {
        self.interval = match self.state {
            State::Trying => (self.interval * 2).min(self.timing.t2()),
            State::Proceeding => self.timing.t2(),
            State::Completed => return acts![],
        };
        acts![Act::Send, Act::Again(self.interval)]
    }

    /// Timers F and K.
    pub(crate) fn end(&mut self) -> Acts {
        match self.state {
            State::Trying | State::Proceeding => acts![Act::TimedOut, Act::Gone],
            State::Completed => acts![Act::Gone],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn timer_e_doubles_up_to_t2() {
        let (mut m, acts) = OtherClient::start(Timing::default(), false);
        assert_eq!(acts[..], [Act::Send, Act::End(MS(32_000)), Act::Again(MS(500))]);
        for ms in [1000, 2000, 4000, 4000] {
            assert_eq!(m.again()[..], [Act::Send, Act::Again(MS(ms))]);
        }
        assert_eq!(m.end()[..], [Act::TimedOut, Act::Gone]);
    }

    #[test]
    fn a_provisional_response_slows_down_and_a_final_one_is_told_once() {
        let (mut m, _) = OtherClient::start(Timing::default(), false);
        assert_eq!(m.response(Class::Trying)[..], [Act::Tell]);
        assert_eq!(m.again()[..], [Act::Send, Act::Again(MS(4000))]);
        assert_eq!(m.response(Class::Failure)[..], [Act::Tell, Act::StopAgain, Act::End(MS(5000))]);
        assert!(m.response(Class::Failure).is_empty() && m.again().is_empty());
        assert_eq!(m.end()[..], [Act::Gone]);
        let (mut m, _) = OtherClient::start(Timing::default(), true);
        assert_eq!(m.response(Class::Success)[..], [Act::Tell, Act::Gone]);
    }
}
