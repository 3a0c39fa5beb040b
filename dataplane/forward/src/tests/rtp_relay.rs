//! RTP `relay`: a transport translator (RFC 7667 §3.2.1).

use contract::{Direction, Mode, PayloadMap};
use rtp::RtcpWriter;

use super::rig::*;
use crate::Drop;

fn both_ways(legs: Vec<contract::Leg>) -> Rig {
    let mut rig = Rig::new();
    rig.set(legs, vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])]);
    rig
}

#[test]
fn packets_pass_as_they_are() {
    let mut rig = both_ways(vec![rtp_leg(1), rtp_leg(2)]);
    let voice = packet(5, 1, 160, 0, &[1; 160]);
    assert_eq!(sent(&rig.hear_peer(1, &voice)), [(socket(2), &voice[..])]);
    assert_eq!(sent(&rig.hear_peer(2, &voice)), [(socket(1), &voice[..])]);
    rig.check_sum();
    assert_eq!(rig.engine.totals().packets_out, 2);
}

#[test]
fn rtcp_passes_muxed_or_not() {
    let unmuxed = |n| edit(rtp_leg(n), |rtp| rtp.rtcp_mux = false);
    let mut writer = RtcpWriter::new();
    writer.receiver(9, &[]);
    let report = writer.finish();
    for (a, b, to) in [
        (rtp_leg(1), rtp_leg(2), socket(2)),
        (rtp_leg(1), unmuxed(2), rtcp_socket(2)),
        (unmuxed(1), rtp_leg(2), socket(2)),
        (unmuxed(1), unmuxed(2), rtcp_socket(2)),
    ] {
        let mux = matches!(&a.kind, Some(contract::leg::Kind::Rtp(r)) if r.rtcp_mux);
        let mut rig = both_ways(vec![a, b]);
        let done = if mux {
            rig.hear_peer(1, &report)
        } else {
            // RFC 3550 §11: the port above.
            let from = std::net::SocketAddr::new(peer(1).ip(), peer(1).port() + 1);
            rig.datagram(rtcp_socket(1), from, &report)
        };
        assert_eq!(sent(&done), [(to, &report[..])]);
        rig.check_sum();
    }
}

#[test]
fn payload_types_are_those_of_each_leg() {
    let map =
        |n, peer| edit(rtp_leg(n), |rtp| rtp.payloads = vec![PayloadMap { peer, context: 96, codec: 0 }]);
    let mut rig = both_ways(vec![map(1, 101), map(2, 97)]);
    let done = rig.hear_peer(1, &packet(5, 1, 160, 101, &[1; 20]));
    assert_eq!(sent(&done), [(socket(2), &packet(5, 1, 160, 97, &[1; 20])[..])]);
    assert!(rig.hear_peer(1, &packet(5, 2, 320, 97, &[1; 20])).is_empty());
    assert_eq!(rig.engine.dropped(Drop::Payload), 1);
    rig.check_sum();
}

#[test]
fn directions_are_gates() {
    for (direction, may_send, may_receive) in [
        (Direction::Sendrecv, true, true),
        (Direction::Sendonly, true, false),
        (Direction::Recvonly, false, true),
        (Direction::Inactive, false, false),
    ] {
        let mut rig = both_ways(vec![directed(rtp_leg(1), direction), rtp_leg(2)]);
        let voice = packet(5, 1, 160, 0, &[1; 160]);
        assert_eq!(rig.hear_peer(1, &voice).len(), usize::from(may_send), "{direction:?}");
        assert_eq!(rig.hear_peer(2, &voice).len(), usize::from(may_receive), "{direction:?}");
        assert_eq!(rig.engine.dropped(Drop::Direction), u64::from(!may_send));
        assert_eq!(rig.engine.dropped(Drop::NoTarget), u64::from(!may_receive));
        // Gates are for media: RTCP flows on hold too (RFC 3264 §5.1).
        let mut writer = RtcpWriter::new();
        writer.receiver(9, &[]);
        assert_eq!(rig.hear_peer(1, &writer.finish()).len(), 1);
        rig.check_sum();
    }
}

#[test]
fn counters_survive_a_change_of_paths() {
    let mut rig = both_ways(vec![rtp_leg(1), rtp_leg(2)]);
    for n in [1, 2, 4] {
        rig.pass(20);
        rig.hear_peer(1, &packet(5, n, 160 * u32::from(n), 0, &[1; 160]));
    }
    rig.put(vec![contract::change::Verb::RemovePath(contract::PathKey { context: CONTEXT, path: 1 })]);
    rig.hear_peer(1, &packet(5, 5, 800, 0, &[1; 160]));
    assert_eq!(rig.engine.dropped(Drop::NoPath), 1);
    let (context, counters) = rig.engine.counters(rig.now, None).unwrap();
    let of = |leg| counters.legs.iter().find(|l| l.leg == Some(key(leg))).unwrap();
    assert_eq!((context, of(1).packets_in, of(1).lost, of(1).dropped), (CONTEXT, 4, 1, 1));
    assert_eq!((of(2).packets_out, of(2).bytes_out), (3, 3 * 172));
    assert_eq!(rig.engine.counters(rig.now, Some(context)), None);
}

#[test]
fn a_captured_context_is_copied_to_the_spool() {
    let mut rig = both_ways(vec![rtp_leg(1), rtp_leg(2)]);
    rig.input(crate::Input::Capture { context: CONTEXT, leg: None, on: true });
    let voice = packet(5, 1, 160, 0, &[1; 160]);
    let done = rig.hear_peer(1, &voice);
    let spooled: Vec<_> = done
        .iter()
        .filter_map(|d| if let Done::Spooled(p) = d { Some((p.from, p.to, &p.bytes[..])) } else { None })
        .collect();
    let local = |n: u16| addr(&format!("192.0.2.1:{}", 10_000 + 2 * n));
    assert_eq!(spooled, [(peer(1), local(1), &voice[..]), (local(2), peer(2), &voice[..])]);
    rig.input(crate::Input::Capture { context: CONTEXT, leg: None, on: false });
    assert_eq!(rig.hear_peer(1, &voice).len(), 1);
}

#[test]
fn a_silent_leg_is_told_of_once_unless_it_is_on_hold() {
    let quiet = |n| edit(rtp_leg(n), |rtp| rtp.media_timeout_ms = 1000);
    let mut rig = both_ways(vec![quiet(1), directed(quiet(2), Direction::Inactive)]);
    rig.hear_peer(1, &packet(5, 1, 160, 0, &[1; 160]));
    assert!(news(&rig.run(900)).is_empty());
    let done = rig.run(5000);
    let lost: Vec<_> = news(&done);
    assert_eq!(lost.len(), 1);
    assert!(matches!(lost[0], contract::news::What::LegLost(l) if l.leg == Some(key(1))
            && l.reason() == contract::leg_lost::Reason::MediaTimeout));
    rig.hear_peer(1, &packet(5, 2, 320, 0, &[1; 160]));
    rig.run(500);
    assert_eq!(news(&rig.run(5000)).len(), 1, "it came back and fell silent again");
}
