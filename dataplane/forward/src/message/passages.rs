//! The messages of one leg: those on their way, and those whose sender may still hear of them. Up to a hundred and more
//! are remembered, so what they are looked up by stands side by side.

use base::Instant;

use super::Passage;

/// What tells most Message-IDs apart: the sender's, and the one that the targets see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tags {
    pub(crate) own: u32,
    pub(crate) shown: u32,
}

impl Tags {
    /// The targets see the sender's.
    pub(crate) fn both(message_id: &str) -> Self {
        let tag = tag(message_id);
        Tags { own: tag, shown: tag }
    }
}

/// `done` and `refused` change only while the passage is taken out.
#[derive(Debug)]
struct Slot {
    id: u64,
    done: bool,
    refused: bool,
    passage: Box<Passage>,
}

/// The messages of one leg.
#[derive(Debug, Default)]
pub(crate) struct Passages {
    /// In the order of the slots.
    tags: Vec<Tags>,
    slots: Vec<Slot>,
    /// Slots that are done, that are refused, that are neither.
    done: u32,
    refused: u32,
    unfinished: u32,
}

/// A few bits of a Message-ID: most others differ in them.
pub(crate) fn tag(message_id: &str) -> u32 {
    // FNV-1a.
    message_id.bytes().fold(0x811c_9dc5, |sum, octet| (sum ^ u32::from(octet)).wrapping_mul(0x0100_0193))
}

impl Passages {
    /// Puts one in.
    pub(crate) fn push(&mut self, passage: Box<Passage>) {
        if self.slots.capacity() == 0 {
            // Most legs never have more than one at a time.
            self.slots.reserve_exact(1);
            self.tags.reserve_exact(1);
        }
        let (done, refused) = (passage.done, passage.refused);
        self.done += u32::from(done);
        self.refused += u32::from(refused);
        self.unfinished += u32::from(!done && !refused);
        self.tags.push(passage.tags);
        self.slots.push(Slot { id: passage.id, done, refused, passage });
    }

    /// Takes one out, to work on it.
    pub(crate) fn take(&mut self, id: u64) -> Option<Box<Passage>> {
        // It is nearly always the one that was put in last.
        let at = self.slots.iter().rposition(|slot| slot.id == id)?;
        self.tags.swap_remove(at);
        let slot = self.slots.swap_remove(at);
        self.uncount(&slot);
        Some(slot.passage)
    }

    /// Takes all out.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Box<Passage>> + use<> {
        std::mem::take(self).slots.into_iter().map(|slot| slot.passage)
    }

    pub(crate) fn of(&self, id: u64) -> Option<&Passage> {
        self.slots.iter().rfind(|slot| slot.id == id).map(|slot| &*slot.passage)
    }

    /// The same to change it; whether it is done or refused, and how it is shown, stays.
    pub(crate) fn of_mut(&mut self, id: u64) -> Option<&mut Passage> {
        self.slots.iter_mut().rfind(|slot| slot.id == id).map(|slot| &mut *slot.passage)
    }

    /// The one with this Message-ID of its sender, whose tag is `tag`.
    pub(crate) fn named(&self, tag: u32, message_id: &str) -> Option<&Passage> {
        let mut with = self.tags.iter().zip(&self.slots).filter(|(tags, _)| tags.own == tag);
        with.find(|(_, slot)| slot.passage.message_id == message_id).map(|(_, slot)| &*slot.passage)
    }

    /// The same to go on with it; whether it is done or refused, and how it is shown, stays.
    pub(crate) fn named_mut(&mut self, tag: u32, message_id: &str) -> Option<&mut Passage> {
        let mut with = self.tags.iter().zip(&mut self.slots).filter(|(tags, _)| tags.own == tag);
        with.find(|(_, slot)| slot.passage.message_id == message_id).map(|(_, slot)| &mut *slot.passage)
    }

    /// Those that the targets see with this Message-ID, whose tag is `tag`.
    pub(crate) fn shown<'a>(&'a self, tag: u32, message_id: &'a str) -> impl Iterator<Item = &'a Passage> {
        let with = self.tags.iter().zip(&self.slots).filter(move |(tags, _)| tags.shown == tag);
        with.map(|(_, slot)| &*slot.passage).filter(move |p| p.shown_id == message_id)
    }

    /// Those of a kind that are due are remembered until another time.
    pub(crate) fn keep_on(&mut self, kind: impl Fn(&Passage) -> bool, due: Instant, until: Instant) {
        let all = self.slots.iter_mut().map(|slot| &mut slot.passage);
        all.filter(|p| p.until <= due && kind(p)).for_each(|p| p.until = until);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Passage> {
        self.slots.iter().map(|slot| &*slot.passage)
    }

    /// Neither whole nor refused.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished as usize
    }

    /// When there are so many that are whole, one of them is forgotten.
    pub(crate) fn make_room_for_done(&mut self, max: usize) {
        if self.done as usize >= max
            && let Some(at) = self.slots.iter().position(|slot| slot.done)
        {
            self.forget(at);
        }
    }

    /// When more than so many are refused, one of them is forgotten.
    pub(crate) fn trim_refused(&mut self, max: usize) {
        if self.refused as usize > max
            && let Some(at) = self.slots.iter().position(|slot| slot.refused)
        {
            self.forget(at);
        }
    }

    fn forget(&mut self, at: usize) {
        self.tags.remove(at);
        let slot = self.slots.remove(at);
        self.uncount(&slot);
    }

    fn uncount(&mut self, slot: &Slot) {
        self.done -= u32::from(slot.done);
        self.refused -= u32::from(slot.refused);
        self.unfinished -= u32::from(!slot.done && !slot.refused);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use msrp::{Event, Framer, Tid};

    use super::*;

    fn passage(id: u64, name: &str) -> Box<Passage> {
        let text = format!(
            "MSRP abcd SEND\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\nMessage-ID: {name}\r\n-------abcd$\r\n"
        );
        let mut framer = Framer::new(msrp::Limits::default());
        let Some(Event::Head(head)) = framer.next(&mut Bytes::from(text)).unwrap() else { panic!() };
        Box::new(Passage::new(id, head, Tid::parse(b"abcd").unwrap(), Instant::ZERO))
    }

    #[test]
    fn each_is_found_by_what_names_it() {
        let mut passages = Passages::default();
        for (id, name) in [(1, "name1"), (2, "name2"), (3, "name3")] {
            let mut p = passage(id, name);
            p.show_as(format!("shown{id}"));
            passages.push(p);
        }
        assert_eq!(passages.named(tag("name2"), "name2").map(|p| p.id), Some(2));
        assert_eq!(passages.shown(tag("shown3"), "shown3").map(|p| p.id).collect::<Vec<_>>(), [3]);
        assert_eq!(
            (
                passages.named(tag("shown2"), "shown2").is_none(),
                passages.shown(tag("name2"), "name2").count()
            ),
            (true, 0)
        );
        assert_eq!(passages.take(2).map(|p| p.id), Some(2));
        assert!(
            passages.of(2).is_none()
                && passages.of_mut(3).is_some()
                && passages.named(tag("name2"), "name2").is_none()
        );
        assert_eq!(passages.take_all().map(|p| p.id).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut passages = Passages::default();
        for id in 0..6 {
            let mut p = passage(id, "same");
            (p.done, p.refused) = (id < 3, id == 5);
            passages.push(p);
        }
        assert_eq!(passages.unfinished(), 2);
        passages.make_room_for_done(4);
        passages.trim_refused(1);
        assert_eq!(passages.iter().count(), 6);
        passages.make_room_for_done(3);
        passages.trim_refused(0);
        assert_eq!((passages.done, passages.refused, passages.unfinished()), (2, 0, 2));
        assert_eq!(passages.iter().map(|p| p.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}
