//! One recipient on several devices tells the sender each thing once (REQ-PF-17; CPM-FACTS §2.11).
//!
//! ```text
//!              delivered     displayed     failed          interworked
//! none         pass          pass          hold            pass
//! delivered    swallow       pass          swallow         swallow
//! displayed    swallow       swallow       swallow         swallow
//! interworked  pass          pass          swallow         swallow
//! failed sent  pass          pass          swallow         pass
//! ```

use serde::{Deserialize, Serialize};

use super::{Kind, MessageId, Notification, Status};
use crate::UserId;

/// Which message to which recipient: the key of the memory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DedupKey {
    /// `imdn.Message-ID` of the message.
    pub message_id: MessageId,
    /// Who sent the message. Ids are unique per originator only.
    pub originator: UserId,
    /// To whom, as the originator addressed him.
    pub recipient: UserId,
}

/// What of a message's notifications has been passed to its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Passed {
    delivered: bool,
    displayed: bool,
    failed: bool,
    interworked: bool,
    others: u8,
}

impl Passed {
    /// Takes one more notification: true when it goes on to the sender, false when the device gets its 200
    /// and nobody else hears of it.
    ///
    /// A `failed` is never passed by this: it is held until all devices are through, see [`Passed::give_up`].
    pub fn pass(&mut self, notification: Notification) -> bool {
        let slot = match (notification.kind(), notification.status()) {
            (Kind::Delivery, Status::Failed) => return false,
            (Kind::Delivery, Status::Delivered) => {
                // Displayed says that it was delivered.
                if self.displayed {
                    return false;
                }
                &mut self.delivered
            }
            (Kind::Display, Status::Displayed) => &mut self.displayed,
            (Kind::Interworking, _) => {
                if self.delivered || self.displayed {
                    return false;
                }
                &mut self.interworked
            }
            (kind, _) => {
                let bit = 1 << kind as u8;
                let first = self.others & bit == 0;
                self.others |= bit;
                return first;
            }
        };
        !std::mem::replace(slot, true)
    }

    /// Every device is through and none took the message: true when `failed` goes to the sender now. Never
    /// after a positive one (RFC 5438 §7.1.1.1: never both for one message).
    pub fn give_up(&mut self) -> bool {
        let silent = !(self.delivered || self.displayed || self.interworked || self.failed);
        self.failed |= silent;
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // REQ-PF-17: two devices, each delivers and displays; the sender hears one of each.
    #[test]
    fn each_disposition_passes_once() {
        let mut passed = Passed::default();
        let heard: Vec<bool> = [
            Notification::DELIVERED,
            Notification::DELIVERED,
            Notification::DISPLAYED,
            Notification::DISPLAYED,
            Notification::DELIVERED,
        ]
        .into_iter()
        .map(|n| passed.pass(n))
        .collect();
        assert_eq!(heard, [true, false, true, false, false]);
    }

    #[test]
    fn displayed_implies_delivered() {
        let mut passed = Passed::default();
        assert!(passed.pass(Notification::DISPLAYED));
        assert!(!passed.pass(Notification::DELIVERED));
    }

    #[test]
    fn failed_waits_for_all_devices_and_never_follows_success() {
        let mut passed = Passed::default();
        assert!(!passed.pass(Notification::FAILED));
        assert!(passed.pass(Notification::DELIVERED));
        assert!(!passed.give_up());
        let mut passed = Passed::default();
        assert!(passed.give_up() && !passed.give_up());
    }

    // CPM-FACTS §2.11: a late native delivery after a legacy-sms passes once.
    #[test]
    fn an_interworked_message_may_still_be_delivered() {
        let mut passed = Passed::default();
        let sms = Notification::new(Kind::Interworking, Status::LegacySms).unwrap();
        assert!(passed.pass(sms) && !passed.pass(sms));
        assert!(passed.pass(Notification::DELIVERED) && !passed.pass(sms));
        assert!(!passed.give_up());
    }
}
