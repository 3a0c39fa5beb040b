//! `floor`: a gate that control opens and closes between two packets.

use contract::{Floor, Mode, path::Parameters};
use rtp::{Packet, RtcpWriter, RtpView};

use super::rig::*;
use crate::Drop;

fn floor(holders: &[u64], slots: u32) -> contract::Path {
    let floor = Floor { holders: holders.to_vec(), slots, contributors: false };
    let all = [1, 2, 3, 4];
    contract::Path { parameters: Some(Parameters::Floor(floor)), ..path(1, Mode::Floor, &all, &all) }
}

fn room(holders: &[u64], slots: u32) -> Rig {
    let mut rig = Rig::new();
    rig.set((1..=4).map(rtp_leg).collect(), vec![floor(holders, slots)]);
    rig
}

fn say(rig: &mut Rig, leg: u64, n: u16) -> Vec<Done> {
    let sequence = n.wrapping_add(65_400);
    rig.hear_peer(leg, &packet(100 + leg as u32, sequence, 160 * u32::from(n), 0, &[leg as u8; 160]))
}

fn views(done: &[Done], to: u64) -> Vec<(u32, u16, u32, u8)> {
    let to = sent(done).into_iter().filter(|(s, _)| *s == socket(to));
    let read = |bytes| RtpView::parse(bytes).unwrap();
    to.map(|(_, b)| read(b)).map(|v| (v.ssrc(), v.sequence(), v.timestamp(), v.payload()[0])).collect()
}

#[test]
fn only_the_holder_is_heard_and_the_stream_goes_on_over_holders() {
    let mut rig = room(&[], 1);
    assert!(say(&mut rig, 1, 0).is_empty());
    assert_eq!(rig.engine.dropped(Drop::NotSelected), 1, "the gate is shut");
    let mut heard = Vec::new();
    for n in 0..300u16 {
        match n {
            50 => drop(rig.put(vec![put_path(floor(&[1], 1))])),
            // Nobody for half a second, then another, then the first again.
            100 => drop(rig.put(vec![put_path(floor(&[], 1))])),
            125 => drop(rig.put(vec![put_path(floor(&[2], 1))])),
            200 => drop(rig.put(vec![put_path(floor(&[1], 1))])),
            // The same gives it back and gets it again.
            230 => drop(rig.put(vec![put_path(floor(&[], 1))])),
            255 => drop(rig.put(vec![put_path(floor(&[1], 1))])),
            _ => {}
        }
        for leg in 1..=3 {
            let done = say(&mut rig, leg, n);
            let holder = match n {
                50..100 | 200..230 | 255.. => 1,
                125..200 => 2,
                _ => 0,
            };
            assert_eq!(done.is_empty(), leg != holder, "{n} {leg}");
            assert!(views(&done, leg).is_empty(), "the holder does not hear himself");
            heard.extend(views(&done, 4));
        }
        rig.pass(20);
    }
    assert_eq!(heard.len(), 50 + 75 + 30 + 45);
    for (n, pair) in heard.windows(2).enumerate() {
        let [(ssrc, seq, ts, whose), (ssrc2, seq2, ts2, whose2)] = pair else { panic!() };
        assert_eq!((ssrc, seq.wrapping_add(1)), (ssrc2, *seq2));
        let step = ts2.wrapping_sub(*ts);
        let pause = (*whose, *whose2) == (1, 2) || n + 1 == 50 + 75 + 30;
        assert_eq!(step, if pause { 26 * 160 } else { 160 }, "from {whose} to {whose2}");
    }
    rig.check_sum();
}

#[test]
fn several_holders_keep_their_slots() {
    let mut rig = room(&[1, 2], 2);
    let ssrc = |rig: &mut Rig, leg, n| views(&say(rig, leg, n), 4).first().map(|v| v.0);
    let (of_1, of_2) = (ssrc(&mut rig, 1, 0), ssrc(&mut rig, 2, 0));
    assert!(of_1.is_some() && of_2.is_some() && of_1 != of_2);
    assert_eq!(ssrc(&mut rig, 3, 0), None);
    rig.pass(20);
    // One goes, another comes: the slot of who stays is untouched. A third one waits.
    rig.put(vec![put_path(floor(&[3, 2, 4], 2))]);
    assert_eq!((ssrc(&mut rig, 1, 1), ssrc(&mut rig, 2, 1), ssrc(&mut rig, 3, 1)), (None, of_2, of_1));
    assert!(say(&mut rig, 4, 1).is_empty());
}

#[test]
fn who_leaves_takes_the_floor_with_him() {
    let mut rig = room(&[1], 1);
    assert_eq!(say(&mut rig, 1, 0).len(), 3);
    rig.put(vec![contract::change::Verb::RemoveLeg(key(1))]);
    let audit = rig.engine.audit(None).unwrap();
    let Some(Parameters::Floor(floor)) = &audit.paths[0].parameters else { panic!() };
    assert!(floor.holders.is_empty());
    assert!(say(&mut rig, 2, 0).is_empty());
}

#[test]
fn rtcp_of_those_without_the_floor_ends_here_and_they_get_ours() {
    let mut rig = room(&[1], 1);
    let mut done = Vec::new();
    for n in 0..500 {
        say(&mut rig, 1, n);
        say(&mut rig, 2, n);
        done.extend(rig.run(20));
    }
    let mut writer = RtcpWriter::new();
    writer.receiver(102, &[]);
    assert!(rig.hear_peer(2, &writer.finish()).is_empty());
    let reported = |to: u64, ssrc: u32| {
        let to = sent(&done)
            .into_iter()
            .filter(|(s, _)| *s == socket(to))
            .map(|(_, b)| b.to_vec())
            .collect::<Vec<_>>();
        to.iter().flat_map(|b| rtp::compound(b, false).unwrap()).any(|packet| match packet {
            Packet::Receiver(_, mut blocks) | Packet::Sender(_, mut blocks) => blocks.any(|b| b.ssrc == ssrc),
            _ => false,
        })
    };
    assert!(reported(2, 102), "what comes of it is told though nobody hears it");
    assert!(!reported(4, 102));
    rig.check_sum();
}
