//! Learning: only inside the window, only whom the mode admits, never again without control's word.

use contract::{Learning, Mode, news};

use super::rig::*;
use crate::Drop;

fn one(learning: Learning, remote: bool) -> Rig {
    let mut rig = Rig::new();
    let learner = edit(rtp_leg(1), |rtp| {
        rtp.learning = learning as i32;
        rtp.learning_ms = 3000;
        rtp.remote = remote.then(|| peer(1).into());
    });
    rig.set(
        vec![learner, rtp_leg(2)],
        vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])],
    );
    rig
}

#[test]
fn the_matrix_of_mode_and_source_and_time() {
    let told = peer(1);
    let near = addr("198.51.100.99:9");
    let far = addr("203.0.113.5:4000");
    let voice = packet(5, 1, 160, 0, &[1; 160]);
    for (learning, remote, from, wait, passes) in [
        (Learning::Strict, true, told, 0, true),
        (Learning::Strict, true, near, 0, false),
        (Learning::Strict, false, told, 0, false),
        (Learning::Window, true, told, 0, true),
        (Learning::Window, true, near, 0, false),
        (Learning::Window, true, far, 0, false),
        (Learning::Window, true, near, 3100, false),
        (Learning::Window, true, told, 3100, true),
        (Learning::Window, false, told, 0, false),
        (Learning::Trust, true, far, 0, true),
        (Learning::Trust, false, far, 0, true),
        (Learning::Trust, true, far, 3100, false),
        (Learning::Trust, false, far, 3100, false),
    ] {
        let mut rig = one(learning, remote);
        rig.run(wait);
        let done = rig.datagram(socket(1), from, &voice);
        assert_eq!(sockets(&done).len(), usize::from(passes), "{learning:?} {remote} {from} {wait}");
        let learned = passes && learning != Learning::Strict && wait == 0;
        assert_eq!(news(&done).len(), usize::from(learned));
        if learned {
            let is_final = from == told || !remote;
            assert!(done.iter().any(|d| aims(d, from, is_final)), "connected after the latch");
            assert!(
                matches!(news(&done)[0], news::What::Latched(l) if l.remote == address(from) && l.leg == Some(key(1)))
            );
            // Never again.
            assert!(rig.datagram(socket(1), near, &voice).is_empty());
            assert_eq!(rig.engine.dropped(Drop::Source), 1);
        }
        rig.check_sum();
    }
}

fn aims(done: &Done, at: std::net::SocketAddr, connected: bool) -> bool {
    matches!(done, Done::Aimed(s, to, c) if *s == socket(1) && *to == Some(at) && *c == connected)
}

#[test]
fn an_early_packet_of_a_neighbour_does_not_take_the_announced_addresss_place() {
    // CPM-FACTS §4.4 (b): the same /24 is a fallback, and one packet before the peer's first one is none.
    let mut rig = one(Learning::Window, true);
    let voice = packet(5, 1, 160, 0, &[1; 160]);
    assert!(rig.datagram(socket(1), addr("198.51.100.1:9"), &voice).is_empty(), "same host, other port");
    assert!(rig.datagram(socket(1), addr("198.51.100.99:9"), &voice).is_empty(), "same network");
    assert_eq!(rig.engine.dropped(Drop::Candidate), 2);
    rig.run(150);
    let done = rig.datagram(socket(1), peer(1), &voice);
    assert_eq!((sockets(&done), news(&done).len()), (vec![socket(2)], 1));
    assert!(done.iter().any(|d| aims(d, peer(1), true)));
    assert!(rig.datagram(socket(1), addr("198.51.100.1:9"), &voice).is_empty());
    assert_eq!(rig.engine.dropped(Drop::Source), 1);
    rig.check_sum();
}

#[test]
fn the_announced_address_takes_a_wrongly_learned_leg_back_within_the_window() {
    let voice = packet(5, 1, 160, 0, &[1; 160]);
    for (learning, from, silence) in
        [(Learning::Window, "198.51.100.99:9", 1000), (Learning::Trust, "203.0.113.5:4000", 0)]
    {
        for late in [false, true] {
            let mut rig = one(learning, true);
            let other = addr(from);
            for _ in 0..silence / 20 {
                assert!(rig.datagram(socket(1), other, &voice).is_empty(), "the announced one may yet speak");
                rig.run(20);
            }
            let done = rig.datagram(socket(1), other, &voice);
            assert_eq!((sockets(&done), news(&done).len()), (vec![socket(2)], 1), "{learning:?}");
            assert!(done.iter().any(|d| aims(d, other, false)), "open to the announced one");
            let done = rig.run(if late { 3100 } else { 100 });
            assert_eq!(done.iter().any(|d| aims(d, other, true)), late, "connected when the window is over");
            let done = rig.datagram(socket(1), peer(1), &voice);
            let (loser, winner) = if late { (peer(1), other) } else { (other, peer(1)) };
            assert_eq!(done.iter().any(|d| aims(d, peer(1), true)), !late);
            assert!(rig.datagram(socket(1), loser, &voice).is_empty(), "{learning:?} {late}");
            assert_eq!(sockets(&rig.datagram(socket(1), winner, &voice)), [socket(2)]);
            rig.run(3100);
            assert_eq!(sockets(&rig.datagram(socket(1), winner, &voice)), [socket(2)]);
            rig.check_sum();
        }
    }
}

#[test]
fn rtcp_of_a_neighbour_waits_for_the_announced_address_too() {
    for mux in [true, false] {
        let mut rig = Rig::new();
        let learner = edit(rtp_leg(1), |rtp| {
            rtp.learning = Learning::Window as i32;
            rtp.rtcp_mux = mux;
        });
        rig.set(vec![learner, rtp_leg(2)], vec![path(1, Mode::Relay, &[1], &[2])]);
        let at = if mux { socket(1) } else { rtcp_socket(1) };
        let told = if mux { peer(1) } else { std::net::SocketAddr::new(peer(1).ip(), peer(1).port() + 1) };
        let other = addr("198.51.100.99:9");
        let mut report = vec![0x80, 201, 0, 1, 0, 0, 0, 5, 0x81, 202, 0, 2, 0, 0, 0, 5, 1, 1, b'x', 0];
        assert!(rig.datagram(at, other, &report).is_empty());
        assert!(rig.datagram(at, other, &[0x81, 206, 0, 2, 0, 0, 0, 5, 0, 0, 0, 6]).is_empty(), "reduced");
        assert_eq!(rig.engine.dropped(Drop::Candidate), 2);
        report[7] = 6;
        let done = rig.datagram(at, told, &report);
        assert_eq!(news(&done).len(), 1, "{mux}");
        rig.check_sum();
    }
}

#[test]
fn an_older_windows_end_does_not_close_a_newer_one() {
    let mut rig = one(Learning::Trust, false);
    let learner = edit(rtp_leg(1), |rtp| {
        rtp.learning = Learning::Trust as i32;
        rtp.learning_ms = 5000;
        rtp.remote = None;
    });
    rig.run(1000);
    rig.put(vec![put_leg(learner)]);
    rig.run(3000);
    let voice = packet(5, 1, 160, 0, &[1; 160]);
    assert_eq!(sockets(&rig.datagram(socket(1), addr("203.0.113.5:4000"), &voice)), [socket(2)]);
}

#[test]
fn what_is_no_valid_packet_is_not_learned() {
    for bytes in [&[0x80, 0][..], &[0x8f, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], &[0, 1, 0, 0], &[0x80, 203, 0, 0]]
    {
        let mut rig = one(Learning::Trust, true);
        let done = rig.datagram(socket(1), addr("203.0.113.5:4000"), bytes);
        assert!(news(&done).is_empty() && !done.iter().any(|d| matches!(d, Done::Aimed(..))), "{bytes:?}");
        rig.check_sum();
    }
}

#[test]
fn nothing_is_sent_to_whom_nobody_named() {
    let mut rig = one(Learning::Trust, false);
    let voice = packet(5, 1, 160, 0, &[1; 160]);
    assert!(rig.hear_peer(2, &voice).is_empty());
    assert_eq!(rig.engine.dropped(Drop::NoTarget), 1);
    rig.datagram(socket(1), addr("203.0.113.5:4000"), &voice);
    assert_eq!(sockets(&rig.hear_peer(2, &voice)), [socket(1)], "after the latch");
}

#[test]
fn the_same_put_keeps_what_was_learned_and_another_remote_opens_anew() {
    let mut rig = one(Learning::Window, true);
    let near = addr("198.51.100.99:9");
    let voice = packet(5, 1, 160, 0, &[1; 160]);
    for _ in 0..=50 {
        rig.datagram(socket(1), near, &voice);
        rig.run(20);
    }
    let learner = |remote| {
        edit(rtp_leg(1), |rtp| {
            rtp.learning = Learning::Window as i32;
            rtp.learning_ms = 3000;
            rtp.remote = address(remote);
            rtp.bandwidth_kbps = 64;
        })
    };
    rig.put(vec![put_leg(learner(peer(1)))]);
    assert_eq!(sockets(&rig.datagram(socket(1), near, &voice)), [socket(2)]);
    let done = rig.put(vec![put_leg(learner(peer(9)))]);
    assert!(done.iter().any(|d| matches!(d, Done::Aimed(_, to, false) if *to == Some(peer(9)))));
    assert_eq!(news(&rig.datagram(socket(1), peer(9), &voice)).len(), 1);
}
