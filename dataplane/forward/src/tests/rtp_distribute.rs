//! RTP `distribute`: a selective forwarding middlebox (RFC 7667 §3.7).

use contract::{Mode, PayloadMap};
use rtp::{Packet, RtcpWriter, RtpView, compound};

use super::rig::*;
use crate::Drop;

fn room(ids: &[u64]) -> Rig {
    let mut rig = Rig::new();
    rig.set(ids.iter().map(|n| rtp_leg(*n)).collect(), vec![path(1, Mode::Distribute, ids, ids)]);
    rig
}

fn reports(done: &[Done], to: u64) -> Vec<Packet<'_>> {
    sent(done)
        .into_iter()
        .filter(|(s, _)| *s == socket(to))
        .flat_map(|(_, b)| compound(b, false).unwrap())
        .collect()
}

#[test]
fn everybody_but_the_source_gets_the_packet_without_a_copy() {
    let mut rig = room(&[1, 2, 3, 4]);
    let voice = packet(5, 1, 160, 0, &[1; 160]);
    let bytes = voice.clone();
    rig.engine.handle(
        rig.now,
        crate::Input::Datagram { socket: socket(2), from: peer(2), bytes: &bytes },
        &mut rig.out,
    );
    let forwards: Vec<_> = rig
        .out
        .drain()
        .map(|o| if let crate::Output::Forward { socket } = o { socket } else { panic!("{o:?}") })
        .collect();
    assert_eq!(forwards, [socket(1), socket(3), socket(4)]);
    rig.check_sum();
}

#[test]
fn a_media_set_takes_in_legs_that_are_put_later() {
    let mut rig = Rig::new();
    let all = Some(contract::LegSet { legs: vec![], media: "audio".into() });
    let path = contract::Path { sources: all.clone(), targets: all, ..path(1, Mode::Distribute, &[], &[]) };
    rig.set(vec![rtp_leg(1)], vec![path]);
    rig.put(vec![put_leg(rtp_leg(2))]);
    rig.put(vec![put_leg(rtp_leg(3))]);
    assert_eq!(sockets(&rig.hear_peer(3, &packet(5, 1, 0, 0, &[1]))), [socket(1), socket(2)]);
    rig.put(vec![contract::change::Verb::RemoveLeg(key(1))]);
    assert_eq!(sockets(&rig.hear_peer(3, &packet(5, 2, 0, 0, &[1]))), [socket(2)]);
}

#[test]
fn two_legs_with_one_ssrc_are_told_apart_and_stay_so() {
    // RFC 3550 §8.2.
    let mut rig = room(&[1, 2, 3]);
    let ssrc = |done: &[Done], to: u64| {
        let all = sent(done);
        let (_, bytes) = all.iter().find(|(s, _)| *s == socket(to)).unwrap();
        RtpView::parse(bytes).unwrap().ssrc()
    };
    let first = ssrc(&rig.hear_peer(1, &packet(5, 1, 0, 0, &[1])), 3);
    let second = ssrc(&rig.hear_peer(2, &packet(5, 1, 0, 0, &[1])), 3);
    assert_eq!(first, 5);
    assert_ne!(second, 5);
    for n in 2..10 {
        assert_eq!(ssrc(&rig.hear_peer(2, &packet(5, n, 0, 0, &[1])), 3), second);
        assert_eq!(ssrc(&rig.hear_peer(2, &packet(5, n, 0, 0, &[1])), 1), second);
    }
}

#[test]
fn payload_types_differ_per_receiver_and_who_has_not_agreed_is_left_out() {
    let map = |n, pairs: &[(u32, u32)]| {
        edit(rtp_leg(n), |rtp| {
            let map = |(peer, context): &(u32, u32)| PayloadMap { peer: *peer, context: *context, codec: 0 };
            rtp.payloads = pairs.iter().map(map).collect();
        })
    };
    let mut rig = Rig::new();
    let all = [1, 2, 3];
    rig.set(
        vec![map(1, &[(96, 96), (0, 0)]), map(2, &[(111, 96)]), map(3, &[(0, 0)])],
        vec![path(1, Mode::Distribute, &all, &all)],
    );
    let done = rig.hear_peer(1, &packet(5, 1, 0, 96, &[1]));
    assert_eq!(sent(&done), [(socket(2), &packet(5, 1, 0, 111, &[1])[..])]);
    assert_eq!(sockets(&rig.hear_peer(1, &packet(5, 2, 0, 0, &[1]))), [socket(3)]);
    assert!(rig.hear_peer(2, &packet(6, 1, 0, 0, &[1])).is_empty());
    assert_eq!(rig.engine.dropped(Drop::Payload), 1);
}

#[test]
fn each_leg_gets_our_own_reports_with_right_counts() {
    let mut rig = room(&[1, 2, 3]);
    let mut done = Vec::new();
    for n in 0..1000u16 {
        // 20 s of packets, every tenth lost on leg 1's way to us.
        if n % 10 != 9 {
            rig.hear_peer(1, &packet(5, n, 160 * u32::from(n), 0, &[1; 160]));
        }
        done.extend(rig.run(20));
    }
    let to_receiver = reports(&done, 2);
    let sender = to_receiver
        .iter()
        .rev()
        .find_map(|p| if let Packet::Sender(info, _) = p { Some(*info) } else { None });
    let info = sender.expect("an SR about the source that is distributed");
    assert_eq!(info.ssrc, 5);
    assert!(info.packets > 100 && info.octets == info.packets * 160, "{info:?}");
    let to_source = reports(&done, 1);
    let block = to_source
        .iter()
        .rev()
        .find_map(
            |p| if let Packet::Receiver(_, mut blocks) = *p { blocks.find(|b| b.ssrc == 5) } else { None },
        )
        .expect("a block about what leg 1 sends");
    assert!(block.cumulative_lost > 10 && (20..=31).contains(&block.fraction_lost), "{block:?}");
    assert!(!to_source.iter().any(|p| matches!(p, Packet::Sender(info, _) if info.ssrc == 5)), "not its own");
    let names = sent(&done).iter().all(|(_, b)| {
        compound(b, false).unwrap().any(|p| matches!(p, Packet::Description(body) if !body.is_empty()))
    });
    assert!(names, "each compound has its SDES (RFC 3550 §6.1)");
}

#[test]
fn rtcp_of_a_receiver_ends_here() {
    let mut rig = room(&[1, 2]);
    let mut writer = RtcpWriter::new();
    writer.receiver(9, &[]);
    assert!(rig.hear_peer(1, &writer.finish()).is_empty());
    assert_eq!(rig.engine.totals().packets_consumed, 1);
    rig.check_sum();
}

#[test]
fn key_frame_requests_are_one_per_half_second_towards_the_source() {
    // CPM-FACTS §4.3; RFC 4585 §6.3.1, RFC 5104 §4.3.1.
    let mut rig = Rig::new();
    let video = |n| edit(rtp_leg(n), |rtp| rtp.video = true);
    let all = [1, 2, 3, 4];
    rig.set(all.map(video).to_vec(), vec![path(1, Mode::Distribute, &all, &all)]);
    rig.hear_peer(1, &packet(5, 1, 0, 96, &[1]));
    let ask = |fir: bool| {
        let mut writer = RtcpWriter::new();
        writer.receiver(9, &[]);
        if fir {
            writer.full_intra(9, 5, 1)
        } else {
            writer.picture_loss(9, 5)
        };
        writer.finish()
    };
    let plis = |done: &[Done]| {
        let all = reports(done, 1);
        all.iter().filter(|p| matches!(p, Packet::Payload(f) if f.format == 1 && f.media == 5)).count()
    };
    assert_eq!(plis(&rig.hear_peer(2, &ask(false))), 1);
    let mut in_window = 0;
    for n in 0..30 {
        in_window += plis(&rig.hear_peer(2 + n % 3, &ask(n % 2 == 0)));
        in_window += plis(&rig.run(10));
    }
    assert_eq!(in_window, 0, "300 ms");
    assert_eq!(plis(&rig.run(300)), 1, "what was asked meanwhile is asked once");
    assert_eq!(plis(&rig.run(2000)), 0);
    // A receiver that joins needs one too.
    let path = path(1, Mode::Distribute, &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
    let done = rig.put(vec![put_leg(video(5)), put_path(path)]);
    assert_eq!(plis(&done), 1);
}

#[test]
fn who_leaves_says_bye_to_the_receivers() {
    // RFC 3550 §6.6.
    let byes = |done: &[Done], to| {
        reports(done, to)
            .into_iter()
            .filter_map(|p| if let Packet::Bye(s) = p { Some(s.collect::<Vec<_>>()) } else { None })
            .flatten()
            .collect::<Vec<_>>()
    };
    let mut rig = room(&[1, 2, 3]);
    rig.hear_peer(1, &packet(5, 1, 0, 0, &[1]));
    rig.hear_peer(2, &packet(6, 1, 0, 0, &[1]));
    let mut writer = RtcpWriter::new();
    writer.receiver(5, &[]).bye(&[5]);
    let bye = writer.finish();
    let done = rig.hear_peer(1, &bye);
    assert_eq!((byes(&done, 2), byes(&done, 3)), (vec![5], vec![5]));
    assert!(rig.hear_peer(1, &bye).is_empty(), "once");
    let done = rig.put(vec![contract::change::Verb::RemoveLeg(key(2))]);
    assert_eq!((byes(&done, 1), byes(&done, 3)), (vec![6], vec![6]));
    assert!(done.iter().any(|d| matches!(d, Done::Closed(s) if *s == socket(2))));
    assert!(rig.hear_peer(2, &packet(6, 2, 0, 0, &[1])).is_empty());
    assert_eq!(rig.engine.dropped(Drop::NoLeg), 1);
    rig.check_sum();
}
