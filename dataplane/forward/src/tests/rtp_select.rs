//! `select` with one slot: one stream per receiver, continuous over changes of speaker.

use contract::{Mode, Select, path::Parameters};
use rtp::RtpView;

use super::rig::*;
use crate::Drop;

const LOUD: [u8; 160] = [0x80; 160]; // PCMU: the largest magnitude
const SILENT: [u8; 160] = [0xff; 160];

fn room(ids: &[u64], change: impl Fn(&mut contract::RtpLeg)) -> Rig {
    let mut rig = Rig::new();
    let select = contract::Path {
        parameters: Some(Parameters::Select(Select { slots: 1, hold_ms: 500, ..Select::default() })),
        ..path(1, Mode::Select, ids, ids)
    };
    rig.set(ids.iter().map(|n| edit(rtp_leg(*n), &change)).collect(), vec![select]);
    rig
}

/// Who has the slot.
fn speaker(rig: &Rig) -> Option<u64> {
    rig.engine.media.seated(contract::PathKey { context: CONTEXT, path: 1 })[0]
}

/// Who sends what to us: one packet of 20 ms each, with its own sequence and timestamp.
struct Phone {
    leg: u64,
    sequence: u16,
    timestamp: u32,
}

impl Phone {
    fn new(leg: u64) -> Self {
        Phone { leg, sequence: 60_000 + leg as u16 * 1000, timestamp: leg as u32 * 7_777_777 }
    }

    fn say(&mut self, rig: &mut Rig, payload: &[u8]) -> Vec<Done> {
        let bytes = packet(100 + self.leg as u32, self.sequence, self.timestamp, 0, payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
        rig.hear_peer(self.leg, &bytes)
    }
}

/// One receiver's ear: what it gets must be one stream without a jump.
#[derive(Default)]
struct Ear {
    heard: Vec<(u32, u16, u32, bool)>,
}

impl Ear {
    fn hear(&mut self, done: &[Done], leg: u64) {
        for (_, bytes) in
            sent(done).into_iter().filter(|(s, b)| *s == socket(leg) && rtp::kind(b) == rtp::Kind::Rtp)
        {
            let v = RtpView::parse(bytes).unwrap();
            self.heard.push((v.ssrc(), v.sequence(), v.timestamp(), v.marker()));
        }
    }

    fn check(&self) {
        for pair in self.heard.windows(2) {
            let [(ssrc, seq, ts, _), (ssrc2, seq2, ts2, _)] = pair else { panic!() };
            assert_eq!((ssrc, seq.wrapping_add(1)), (ssrc2, *seq2));
            let step = ts2.wrapping_sub(*ts);
            assert!((150..=180).contains(&step), "timestamp steps by {step}");
        }
    }
}

#[test]
fn one_stream_goes_on_over_changes_of_speaker() {
    let mut rig = room(&[1, 2, 3], |_| {});
    let (mut a, mut b, mut ear) = (Phone::new(1), Phone::new(2), Ear::default());
    for n in 0..300 {
        // A talks, then B, then A again; both phones send all the time.
        let (say_a, say_b) = if n / 100 == 1 { (SILENT, LOUD) } else { (LOUD, SILENT) };
        for done in [a.say(&mut rig, &say_a), b.say(&mut rig, &say_b)] {
            ear.hear(&done, 3);
        }
        rig.run(20);
    }
    assert_eq!(ear.heard.len(), 300, "a packet every 20 ms");
    ear.check();
    let spurts = ear.heard.iter().filter(|h| h.3).count();
    assert_eq!(spurts, 3, "each speaker begins with a marker");
    rig.check_sum();
}

#[test]
fn the_speaker_hears_who_spoke_before_him_and_never_himself() {
    let mut rig = room(&[1, 2], |_| {});
    let (mut a, mut b) = (Phone::new(1), Phone::new(2));
    let mut to_b = 0;
    for _ in 0..50 {
        to_b += a.say(&mut rig, &LOUD).len();
        b.say(&mut rig, &SILENT);
        rig.pass(20);
    }
    assert_eq!(to_b, 50);
    for _ in 0..100 {
        // B interrupts: after the hold he has the floor, and still hears A.
        let from_b = b.say(&mut rig, &LOUD);
        assert!(sockets(&from_b).iter().all(|s| *s == socket(1)));
        assert_eq!(sockets(&a.say(&mut rig, &SILENT)), [socket(2)]);
        rig.pass(20);
    }
    assert_eq!(speaker(&rig), Some(2));
}

#[test]
fn a_speaker_is_not_replaced_before_the_hold_nor_by_one_just_as_loud() {
    let mut rig = room(&[1, 2, 3], |_| {});
    let (mut a, mut b) = (Phone::new(1), Phone::new(2));
    for _ in 0..100 {
        a.say(&mut rig, &LOUD);
        b.say(&mut rig, &LOUD);
        rig.pass(20);
        assert_eq!(speaker(&rig), Some(1));
    }
    for n in 0..40 {
        a.say(&mut rig, &SILENT);
        b.say(&mut rig, &LOUD);
        rig.pass(20);
        if n < 14 {
            assert_eq!(speaker(&rig), Some(1), "after {n} packets");
        }
    }
    assert_eq!(speaker(&rig), Some(2));
}

#[test]
fn levels_in_a_header_extension_decide_where_they_were_agreed() {
    // RFC 6464: id 3, voice bit and level.
    let mut rig = room(&[1, 2, 3], |rtp| rtp.audio_level_id = 3);
    let with_level = |leg: u64, n: u16, level: u8| {
        let mut bytes = packet(100 + leg as u32, n, 960 * u32::from(n), 111, &[]);
        bytes[0] |= 0x10;
        bytes.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x30, 0x80 | level, 0, 0, 1, 2, 3]);
        bytes
    };
    let (mut from_1, mut from_2) = (0, 0);
    for n in 0..100 {
        // 1 speaks at -30 dBov, 2 at -10: 20 dB louder.
        from_1 +=
            sockets(&rig.hear_peer(1, &with_level(1, n, 30))).iter().filter(|s| **s == socket(3)).count();
        from_2 +=
            sockets(&rig.hear_peer(2, &with_level(2, n, 10))).iter().filter(|s| **s == socket(3)).count();
        rig.pass(20);
    }
    assert!((20..=30).contains(&from_1), "until the hold of 500 ms: {from_1}");
    assert!(from_2 >= 70, "{from_2}");
}

#[test]
fn an_unknown_codec_is_replaced_only_after_silence() {
    let mut rig = room(&[1, 2, 3], |_| {});
    for n in 0..100u16 {
        rig.hear_peer(1, &packet(1, n, 960 * u32::from(n), 111, &[7; 60]));
        // He hears the speaker, and only the speaker hears him.
        let heard = rig.hear_peer(2, &packet(2, n, 960 * u32::from(n), 111, &[7; 60]));
        assert_eq!(sockets(&heard), [socket(1)]);
        rig.pass(20);
    }
    assert_eq!(speaker(&rig), Some(1));
    rig.pass(600);
    assert_eq!(sockets(&rig.hear_peer(2, &packet(2, 200, 0, 111, &[7; 60]))), [socket(1), socket(3)]);
    assert_eq!(speaker(&rig), Some(2));
}

#[test]
fn late_packets_from_before_the_takeover_are_not_sent() {
    let mut rig = room(&[1, 2], |_| {});
    rig.hear_peer(1, &packet(1, 100, 0, 0, &LOUD));
    assert!(rig.hear_peer(1, &packet(1, 99, 0, 0, &LOUD)).is_empty());
    assert_eq!(rig.engine.dropped(Drop::Late), 1);
    assert_eq!(rig.hear_peer(1, &packet(1, 102, 0, 0, &LOUD)).len(), 1);
    assert_eq!(rig.hear_peer(1, &packet(1, 101, 0, 0, &LOUD)).len(), 1, "a reordered one is");
    // A source that starts anew far away goes on in the same stream.
    let mut ear = Ear::default();
    ear.hear(&rig.hear_peer(1, &packet(1, 103, 160, 0, &LOUD)), 2);
    rig.pass(20);
    ear.hear(&rig.hear_peer(1, &packet(1, 40_000, 99_999, 0, &LOUD)), 2);
    ear.check();
    rig.check_sum();
}

#[test]
fn a_stream_goes_on_where_control_says_it_was() {
    // DESIGN §3: export and import of SSRC, sequence and timestamp.
    let mut rig = room(&[1, 2], |_| {});
    let mut ear = Ear::default();
    ear.hear(&rig.hear_peer(1, &packet(1, 100, 0, 0, &LOUD)), 2);
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    let kept = counters.legs.iter().find(|l| l.leg == Some(key(2))).unwrap().continuity.clone().unwrap();
    let mut other = Rig::new();
    other.pass(20);
    let select = contract::Path { parameters: None, ..path(1, Mode::Select, &[1], &[2]) };
    other.set(vec![rtp_leg(1), edit(rtp_leg(2), |rtp| rtp.continuity = Some(Box::new(kept)))], vec![select]);
    let done = other.hear_peer(1, &packet(9, 7, 0, 0, &LOUD));
    let view = sent(&done)[0].1.to_vec();
    let view = RtpView::parse(&view).unwrap();
    assert_eq!((view.ssrc(), view.sequence()), (ear.heard[0].0, ear.heard[0].1.wrapping_add(1)));
}
