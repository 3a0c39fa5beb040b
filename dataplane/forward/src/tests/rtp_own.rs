//! Packets of legs of this data plane teach other legs nothing: two calls that name each other's legs hand a packet round for
//! ever.

use std::sync::Arc;

use contract::{Learning, Mode};

use super::rig::*;
use crate::{Drop, Input, OwnMedia};

#[test]
fn a_leg_of_ours_is_learned_only_where_control_has_named_it() {
    let own = addr("192.0.2.1:10008");
    for (from, told, learns) in [
        ("192.0.2.1:10008", "198.51.100.1:4000", false),
        ("[::ffff:192.0.2.1]:10008", "198.51.100.1:4000", false),
        ("203.0.113.1:10008", "198.51.100.1:4000", false),
        ("192.0.2.1:10008", "192.0.2.1:10008", true),
        ("192.0.2.1:10010", "198.51.100.1:4000", true),
        ("192.0.2.2:10008", "198.51.100.1:4000", true),
    ] {
        let media = OwnMedia::new([vec![own.ip(), "203.0.113.1".parse().unwrap()]]);
        media.note(addr("192.0.2.1:10010"), true);
        media.note(addr("192.0.2.1:10010"), false);
        media.note(own, true);
        let mut rig = Rig::new();
        rig.engine.set_own_media(Arc::new(media));
        let learning = |n| {
            edit(rtp_leg(n), |rtp| {
                rtp.learning = Learning::Trust.into();
                rtp.learning_ms = 60_000;
                rtp.remote = Some(addr(told).into());
            })
        };
        let (there, back) = (path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1]));
        rig.set(vec![learning(1), learning(2)], vec![there, back]);
        let before = rig.engine.dropped(Drop::Source);
        let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
        packet.resize(172, 0);
        let done = rig.input(Input::Datagram { socket: socket(1), from: addr(from), bytes: &packet });
        let learned = done
            .iter()
            .any(|d| matches!(d, Done::Aimed(at, Some(to), _) if *at == socket(1) && *to == addr(from)));
        assert_eq!(
            (learned, rig.engine.dropped(Drop::Source) - before),
            (learns, u64::from(!learns)),
            "{from} {told}"
        );
        let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
        rig.input(Input::Datagram { socket: socket(2), from: addr(from), bytes: &report });
        assert_eq!(rig.engine.dropped(Drop::Source) - before, 2 * u64::from(!learns), "{from} {told}");
    }
}

/// A socket that is bound to no address in particular is reached at all addresses of its family that the host has.
#[test]
fn an_interface_that_is_bound_to_all_is_at_each_address_of_the_host() {
    let all = ["0.0.0.0", "192.0.2.1", "127.0.0.1"].map(|ip| ip.parse().unwrap());
    let media = OwnMedia::new([all.to_vec()]);
    media.note(addr("0.0.0.0:10008"), true);
    for own in ["192.0.2.1:10008", "127.0.0.1:10008", "127.0.0.7:10008", "[::ffff:192.0.2.1]:10008"] {
        assert!(media.has(addr(own)), "{own}");
    }
    for other in ["192.0.2.1:10010", "192.0.2.2:10008", "[::1]:10008"] {
        assert!(!media.has(addr(other)), "{other}");
    }
}
