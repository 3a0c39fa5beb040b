//! Learning: only inside the window, only whom the mode admits, never again without control's word.

use contract::{Learning, Mode, news};

use super::rig::*;
use crate::Drop;

fn one(learning: Learning, remote: bool) -> Rig {
    let mut rig = Rig::new();
    let learner = edit(rtp_leg(1), |rtp| {
        rtp.learning = learning as i32;
        rtp.learning_ms = 1000;
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
        (Learning::Window, true, near, 0, true),
        (Learning::Window, true, far, 0, false),
        (Learning::Window, true, near, 1100, false),
        (Learning::Window, true, told, 1100, true),
        (Learning::Window, false, told, 0, false),
        (Learning::Trust, true, far, 0, true),
        (Learning::Trust, false, far, 0, true),
        (Learning::Trust, true, far, 1100, false),
        (Learning::Trust, false, far, 1100, false),
    ] {
        let mut rig = one(learning, remote);
        rig.run(wait);
        let done = rig.datagram(socket(1), from, &voice);
        assert_eq!(sockets(&done).len(), usize::from(passes), "{learning:?} {remote} {from} {wait}");
        let learned = passes && learning != Learning::Strict && wait == 0;
        assert_eq!(news(&done).len(), usize::from(learned));
        if learned {
            let aims =
                |d: &Done| matches!(d, Done::Aimed(s, to, true) if *s == socket(1) && *to == Some(from));
            assert!(done.iter().any(aims), "connected after the latch");
            assert!(
                matches!(news(&done)[0], news::What::Latched(l) if l.remote == address(from) && l.leg == Some(key(1)))
            );
            // Never again: not even from the SDP's own address.
            let thief = if from == told { near } else { told };
            assert!(rig.datagram(socket(1), thief, &voice).is_empty());
            assert_eq!(rig.engine.dropped(Drop::Source), 1);
        }
        rig.check_sum();
    }
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
    rig.datagram(socket(1), near, &voice);
    let learner = |remote| {
        edit(rtp_leg(1), |rtp| {
            rtp.learning = Learning::Window as i32;
            rtp.learning_ms = 1000;
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
