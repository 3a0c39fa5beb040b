//! One delivery notification and one read report per recipient, however many devices he has (REQ-PF-17,
//! CPM-FACTS §2.11). What passes once is `cpm::imdn::Passed`'s to say; here is what needs the fan-out: a
//! `failed` is held until the last device has failed.
//!
//! ```text
//!   failed ── others open ──▶ hold        failed ── the last one, nothing positive passed ──▶ pass
//! ```

use cpm::imdn::Notification;

use crate::records::ImdnState;

/// What becomes of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It goes on to the sender.
    Pass,
    /// The device gets its 200 and nobody else hears of it.
    Swallow,
}

impl ImdnState {
    /// Takes one device's report. One that cannot be read passes and changes nothing.
    pub(crate) fn take(&mut self, notification: Option<Notification>) -> Verdict {
        let pass = match notification {
            None => true,
            Some(Notification::FAILED) => {
                self.devices_failed = self.devices_failed.saturating_add(1);
                self.devices_failed >= self.devices && self.passed.give_up()
            }
            Some(notification) => self.passed.pass(notification),
        };
        if pass { Verdict::Pass } else { Verdict::Swallow }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Pass, Swallow};
    use super::*;

    const DELIVERED: Notification = Notification::DELIVERED;
    const DISPLAYED: Notification = Notification::DISPLAYED;
    const FAILED: Notification = Notification::FAILED;

    /// CPM-FACTS §2.11 "De-duplication", row by row.
    #[test]
    fn the_table_of_reports() {
        type Steps = &'static [(Notification, Verdict)];
        let rows: &[(&str, u8, Steps)] = &[
            ("the first delivered passes", 2, &[(DELIVERED, Pass), (DELIVERED, Swallow)]),
            ("display implies delivery", 2, &[(DISPLAYED, Pass), (DELIVERED, Swallow), (DISPLAYED, Swallow)]),
            ("delivered, then displayed", 2, &[(DELIVERED, Pass), (DISPLAYED, Pass), (DISPLAYED, Swallow)]),
            ("failed waits for all", 2, &[(FAILED, Swallow), (FAILED, Pass), (FAILED, Swallow)]),
            ("one success beats a failure", 2, &[(FAILED, Swallow), (DELIVERED, Pass), (FAILED, Swallow)]),
            ("failed after delivered", 1, &[(DELIVERED, Pass), (FAILED, Swallow)]),
            ("an unknown fan-out fails at once", 0, &[(FAILED, Pass)]),
        ];
        for (name, devices, steps) in rows {
            let mut state = ImdnState { devices: *devices, ..ImdnState::default() };
            for (step, (notification, verdict)) in steps.iter().enumerate() {
                assert_eq!(state.take(Some(*notification)), *verdict, "{name}, step {step}");
            }
        }
        assert_eq!(ImdnState::default().take(None), Pass);
    }

    proptest::proptest! {
        /// Whatever devices report in whatever order: at most one of each kind passes.
        #[test]
        fn one_report_of_each_kind_per_recipient(
            devices in 0u8..5,
            reports in proptest::collection::vec(0usize..3, 0..40),
        ) {
            let mut state = ImdnState { devices, ..ImdnState::default() };
            let mut passed = [0; 3];
            for report in reports {
                if state.take(Some([DELIVERED, DISPLAYED, FAILED][report])) == Pass {
                    passed[report] += 1;
                }
            }
            proptest::prop_assert!(passed.iter().all(|n| *n <= 1), "{passed:?}");
        }
    }
}
