//! Video in slots: a source is passed on from a key frame of it, which is asked for, and what was begun before it is whole.

use std::collections::BTreeMap;

use base::Entropy;
use contract::{Floor, Leg, Mode, PayloadMap, Select, VideoCodec, path::Parameters};
use rtp::{Packet, RtpView};

use super::rig::*;

const AUDIO: u64 = 10;
const VIDEO: u64 = 20;
const LOUD: [u8; 160] = [0x80; 160];
const SILENT: [u8; 160] = [0xff; 160];

fn audio(n: u64) -> Leg {
    Leg { participant: format!("p{n}"), ..rtp_leg(AUDIO + n) }
}

fn video(n: u64, codec: VideoCodec) -> Leg {
    let leg = edit(rtp_leg(VIDEO + n), |rtp| {
        rtp.video = true;
        rtp.clock_rate = 90_000;
        rtp.payloads = vec![PayloadMap { peer: 96, context: 96, codec: codec.into() }];
    });
    Leg { participant: format!("p{n}"), media: "video".into(), ..leg }
}

/// A camera whose frames take several packets. A key frame is sent when one was asked for.
struct Camera {
    leg: u64,
    sequence: u16,
    timestamp: u32,
    frame: u8,
    wants_key: bool,
    asked: usize,
}

/// One packet: payload descriptor with or without a frame's start, then a key frame or not, whose, which frame, which part.
fn part(camera: &Camera, key: bool, at: u8, parts: u8) -> Vec<u8> {
    let payload = [if at == 0 { 0x10 } else { 0 }, u8::from(!key), camera.leg as u8, camera.frame, at, parts];
    let mut bytes = packet(camera.leg as u32, camera.sequence, camera.timestamp, 96, &payload);
    if at + 1 == parts {
        bytes[1] |= 0x80;
    }
    bytes
}

impl Camera {
    fn new(n: u64) -> Self {
        let leg = VIDEO + n;
        Camera {
            leg,
            sequence: 65_500,
            timestamp: leg as u32 * 1_000_000,
            frame: 0,
            wants_key: true,
            asked: 0,
        }
    }

    /// The packets of the next frame.
    fn shoot(&mut self) -> Vec<Vec<u8>> {
        let key = std::mem::take(&mut self.wants_key);
        let parts = if key { 6 } else { 2 };
        let packets = (0..parts)
            .map(|at| {
                let bytes = part(self, key, at, parts);
                self.sequence = self.sequence.wrapping_add(1);
                bytes
            })
            .collect();
        self.timestamp = self.timestamp.wrapping_add(3000);
        self.frame = self.frame.wrapping_add(1);
        packets
    }

    /// Takes requests for key frames (RFC 4585 §6.3.1).
    fn take(&mut self, done: &[Done]) {
        for (_, bytes) in
            sent(done).iter().filter(|(to, b)| *to == socket(self.leg) && rtp::kind(b) == rtp::Kind::Rtcp)
        {
            for packet in rtp::compound(bytes, true).unwrap() {
                if matches!(packet, Packet::Payload(f) if f.format == 1 && f.media == self.leg as u32) {
                    self.wants_key = true;
                    self.asked += 1;
                }
            }
        }
    }
}

/// What a receiver sees of one stream: a decoder that knows no more than its packets.
#[derive(Default)]
struct Screen {
    last: Option<(u32, u16, u32)>,
    /// Of whom, which frame, and which part was the last.
    within: Option<(u8, u8, u8)>,
    seen: Vec<u8>,
    /// Frames that were cut off.
    cut: usize,
}

impl Screen {
    fn take(&mut self, view: &RtpView<'_>) {
        let [start, inter, whose, frame, at, parts] = *view.payload() else { panic!() };
        if let Some((ssrc, sequence, timestamp)) = self.last {
            assert_eq!((view.ssrc(), view.sequence()), (ssrc, sequence.wrapping_add(1)));
            let step = view.timestamp().wrapping_sub(timestamp).cast_signed();
            assert!(step >= 0, "back by {step}");
            assert_eq!(step == 0, at != 0, "a frame has a time of its own");
        }
        self.last = Some((view.ssrc(), view.sequence(), view.timestamp()));
        match self.within {
            Some(within) if at != 0 => assert_eq!(within, (whose, frame, at - 1)),
            Some(_) => self.cut += 1,
            None => assert_eq!(at, 0, "a frame from its start on"),
        }
        if self.seen.last() != Some(&whose) {
            assert_eq!((start, inter), (0x10, 0), "{whose} begins with a key frame");
            self.seen.push(whose);
        }
        assert_eq!(view.marker(), at + 1 == parts, "the marker ends a frame and nothing else");
        self.within = (at + 1 < parts).then_some((whose, frame, at));
    }
}

struct Studio {
    rig: Rig,
    cameras: Vec<Camera>,
    screens: BTreeMap<u64, Screen>,
}

impl Studio {
    fn new(n: u64, path: contract::Path) -> Self {
        let mut rig = Rig::new();
        let mut legs: Vec<Leg> = (1..=n).map(audio).collect();
        legs.extend((1..=n).map(|n| video(n, VideoCodec::Vp8)));
        let audio: Vec<u64> = (1..=n).map(|n| AUDIO + n).collect();
        rig.set(legs, vec![super::rig::path(2, Mode::Distribute, &audio, &audio), path]);
        Studio { rig, cameras: (1..n).map(Camera::new).collect(), screens: BTreeMap::new() }
    }

    fn done(&mut self, done: &[Done]) {
        for camera in &mut self.cameras {
            camera.take(done);
        }
        for (to, bytes) in sent(done) {
            let ear = u64::from(to.0 / 2);
            if ear > VIDEO && rtp::kind(bytes) == rtp::Kind::Rtp {
                let view = RtpView::parse(bytes).unwrap();
                assert_ne!(view.payload()[2], ear as u8, "nobody sees himself");
                self.screens.entry(ear).or_default().take(&view);
            }
        }
    }

    /// A third of a tenth of a second, in which `speaks` speaks and the cameras' packets come mixed.
    fn pass(&mut self, speaks: u64, tick: u16, entropy: &mut Entropy) {
        for n in 1..=self.cameras.len() as u64 {
            let voice = if n == speaks { LOUD } else { SILENT };
            let done =
                self.rig.hear_peer(AUDIO + n, &packet(n as u32, tick, 160 * u32::from(tick), 0, &voice));
            self.done(&done);
        }
        let mut waiting: Vec<(u64, Vec<Vec<u8>>)> =
            self.cameras.iter_mut().map(|camera| (camera.leg, camera.shoot())).collect();
        while !waiting.is_empty() {
            let at = entropy.below(waiting.len() as u64) as usize;
            let leg = waiting[at].0;
            let bytes = waiting[at].1.remove(0);
            if waiting[at].1.is_empty() {
                waiting.remove(at);
            }
            let done = self.rig.hear_peer(leg, &bytes);
            self.done(&done);
        }
        let done = self.rig.run(30);
        self.done(&done);
    }
}

#[test]
fn who_speaks_is_seen_from_a_key_frame_on_and_until_then_the_one_before() {
    let legs: Vec<u64> = (1..=4).map(|n| VIDEO + n).collect();
    let select = Select { slots: 1, hold_ms: 300, follows: 2, contributors: false };
    let path = contract::Path {
        parameters: Some(Parameters::Select(select)),
        ..path(1, Mode::Select, &legs, &legs)
    };
    for seed in 0..20 {
        let mut entropy = Entropy::from_number(seed);
        let mut studio = Studio::new(4, path.clone());
        for tick in 0..400u16 {
            studio.pass(1 + u64::from(tick / 100) % 3, tick, &mut entropy);
        }
        let asked: Vec<usize> = studio.cameras.iter().map(|c| c.asked).collect();
        assert!(asked.iter().all(|n| (1..20).contains(n)), "seed {seed}: {asked:?}");
        let watcher = &studio.screens[&(VIDEO + 4)];
        assert_eq!(watcher.seen.iter().map(|leg| leg % 10).collect::<Vec<_>>(), [1, 2, 3, 1], "seed {seed}");
        assert_eq!(watcher.cut, 0, "seed {seed}");
        // A speaker sees who spoke before him.
        for (ear, screen) in &studio.screens {
            assert!(screen.seen.len() > 1 && screen.cut == 0, "seed {seed}, leg {ear}");
        }
        studio.rig.check_sum();
    }
}

#[test]
fn the_floors_gate_waits_for_a_key_frame_and_shuts_at_once() {
    let legs: Vec<u64> = (1..=4).map(|n| VIDEO + n).collect();
    let floor = |holder: u64| {
        let floor = Floor { holders: vec![VIDEO + holder], slots: 1, contributors: false };
        contract::Path { parameters: Some(Parameters::Floor(floor)), ..path(1, Mode::Floor, &legs, &legs) }
    };
    let mut entropy = Entropy::from_number(1);
    let mut studio = Studio::new(4, floor(1));
    for tick in 0..200u16 {
        if tick % 50 == 0 && tick > 0 {
            let before: Vec<usize> = studio.cameras.iter().map(|c| c.asked).collect();
            let holder = 1 + u64::from(tick / 50) % 3;
            let done = studio.rig.put(vec![put_path(floor(holder))]);
            studio.done(&done);
            let asked: Vec<usize> = studio.cameras.iter().zip(before).map(|(c, n)| c.asked - n).collect();
            assert_eq!(asked[holder as usize - 1], 1, "asked for when the floor changes: {asked:?}");
        }
        studio.pass(0, tick, &mut entropy);
    }
    assert_eq!(
        studio.screens[&(VIDEO + 4)].seen.iter().map(|leg| leg % 10).collect::<Vec<_>>(),
        [1, 2, 3, 1]
    );
    studio.rig.check_sum();
}

#[test]
fn a_source_that_sends_no_key_frame_is_waited_for() {
    let ids = [VIDEO + 1, VIDEO + 2, VIDEO + 3];
    let floor = |holder: u64| {
        let floor = Floor { holders: vec![VIDEO + holder], ..Floor::default() };
        contract::Path { parameters: Some(Parameters::Floor(floor)), ..path(1, Mode::Floor, &ids, &ids) }
    };
    let mut rig = Rig::new();
    rig.set((1..=3).map(|n| video(n, VideoCodec::Vp8)).collect(), vec![floor(1)]);
    let mut camera = Camera::new(1);
    camera.wants_key = false;
    let mut asked = Vec::new();
    for _ in 0..20 {
        for bytes in camera.shoot() {
            let done = rig.hear_peer(camera.leg, &bytes);
            assert!(sockets(&done).iter().all(|to| *to == socket(camera.leg)), "nothing passes");
            asked.extend(done);
        }
        asked.extend(rig.run(100));
    }
    camera.take(&asked);
    assert!((3..=5).contains(&camera.asked), "every half second: {}", camera.asked);
    assert!(rig.engine.dropped(crate::Drop::KeyFrame) > 0);
    // Where key frames cannot be told from others it is passed on at once.
    rig.put((1..=3).map(|n| put_leg(video(n, VideoCodec::Unspecified))).collect());
    assert_eq!(rig.hear_peer(camera.leg, &camera.shoot()[0]).len(), 2);
    rig.check_sum();
}
