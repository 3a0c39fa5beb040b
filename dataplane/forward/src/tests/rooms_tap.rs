//! Taps of a room on several shards: what is taken on whatever shard comes to a tap on whatever other one, and nobody waits
//! for it or sees it.

use contract::change::Verb;
use contract::{LegSet, Mode, Path};

use super::phone::{conn, cpim, msrp_leg};
use super::rig::path;
use super::rooms::{ROOM, Rooms, member};
use crate::{CloseReason, Input, Limits};

/// Leg `n` is a tap of all of the room.
fn tap(n: u64, unseen: bool) -> Vec<Verb> {
    let leg = contract::Leg { media: "tap".into(), participant: "tap".into(), unseen, ..msrp_leg(n) };
    let sources = Some(LegSet { legs: vec![], media: "msrp".into() });
    vec![Verb::PutLeg(leg), Verb::PutPath(Path { sources, ..path(9, Mode::Tap, &[], &[n]) })]
}

/// Members 1 to `members`, tapped by `n`.
fn tapped(shards: usize, members: u64, n: u64, seed: u64) -> Rooms {
    let mut rooms = Rooms::up(shards, members, seed);
    rooms.batch(tap(n, false));
    rooms.deliver();
    rooms.connect(n);
    rooms
}

#[test]
fn what_is_said_on_each_shard_comes_to_a_tap_once_and_whole() {
    for seed in 1..=8 {
        let mut rooms = tapped(3, 6, 7, seed);
        let mut said = Vec::new();
        for n in 1..=6 {
            let whole = cpim(n, ROOM, "text/plain", &format!("{n} {}", "x".repeat(500 * n as usize)));
            let cut = 1 + rooms.chance.below(whole.len() as u64 - 1) as usize;
            for span in [(0, cut), (cut, whole.len())] {
                let bytes = rooms.chunk(n, &format!("msg{n}"), &whole, span, "");
                rooms.say(n, &bytes);
                rooms.step();
            }
            said.push(whole);
        }
        // What is for one alone is taken too, whatever shard that one is on.
        let private = cpim(1, "sip:user4@example.com", "text/plain", "psst");
        let bytes = rooms.chunk(1, "private", &private, (0, private.len()), "");
        rooms.say(1, &bytes);
        said.push(private);
        rooms.deliver();
        let (mut whole, aborted) = rooms.messages(7);
        whole.sort_unstable();
        said.sort_unstable();
        assert_eq!((whole == said, aborted), (true, 0), "seed {seed}");
        for n in [2, 3, 5, 6] {
            assert_eq!(rooms.messages(n).0.len(), 5, "{n}, seed {seed}");
        }
        rooms.check_rest();
    }
}

#[test]
fn a_tap_that_takes_nothing_or_goes_is_not_noticed_on_other_shards() {
    let limits = Limits {
        sockets_max: 16,
        handed_bytes_max: 16 << 10,
        queue_bytes_max: 40 << 10,
        tap_bytes_max: 30_000,
        ..Limits::default()
    };
    let mut rooms = Rooms::up_with(limits, 2, 4, 1);
    rooms.batch(tap(6, false));
    rooms.deliver();
    rooms.connect(6);
    rooms.rigs[0].stalled.insert(6);
    let whole = cpim(1, ROOM, "text/plain", &"x".repeat(200 << 10));
    let bytes = rooms.chunk(1, "long", &whole, (0, whole.len()), "Success-Report: yes\r\n");
    for piece in bytes.chunks(4000) {
        rooms.say(1, piece);
        rooms.deliver();
    }
    assert_eq!(rooms.statuses(1), [200, 200], "the chunk, and the report: no time has passed");
    for n in 2..=4 {
        assert_eq!(rooms.messages(n).0, std::slice::from_ref(&whole), "{n}");
    }
    assert!(rooms.rigs[0].engine.dropped(crate::Drop::MsrpTap) > 0);
    // In the midst of another one it is gone.
    let first = rooms.chunk(1, "other", &whole, (0, 1000), "");
    rooms.say(1, &first);
    rooms.input(0, Input::Closed { conn: conn(6), why: CloseReason::Reset });
    let rest = rooms.chunk(1, "other", &whole, (1000, whole.len()), "");
    rooms.say(1, &rest);
    rooms.deliver();
    for n in 2..=4 {
        assert_eq!(rooms.messages(n).0, std::slice::from_ref(&whole), "{n}");
    }
    rooms.check_guests();
}

#[test]
fn no_number_tells_of_an_unseen_tap_on_another_shard() {
    // All members are on shard 1 of two; the tap is at home.
    let run = |taps: bool| {
        let mut rooms = Rooms::up(2, 1, 1);
        rooms.batch(vec![Verb::PutLeg(member(3)), Verb::PutLeg(member(5))]);
        rooms.deliver();
        rooms.connect(3);
        rooms.connect(5);
        if taps {
            rooms.batch(tap(6, true));
            rooms.deliver();
            rooms.bind(6);
            rooms.read(6);
        }
        let whole = cpim(1, ROOM, "text/plain", "between us");
        let bytes = rooms.chunk(1, "msg1", &whole, (0, whole.len()), "Success-Report: yes\r\n");
        rooms.say(1, &bytes);
        rooms.deliver();
        assert_eq!(rooms.statuses(1), [200, 200]);
        assert_eq!(rooms.messages(3).0.len(), 1);
        let heard = rooms.messages(6).0.len();
        rooms.check_rest();
        (heard, [0, 1].map(|shard: usize| rooms.rigs[shard].engine.totals()))
    };
    let ((none, without), (one, with)) = (run(false), run(true));
    assert_eq!((none, one), (0, 1));
    for (without, with) in without.iter().zip(&with) {
        let numbers = |t: &crate::Totals| {
            [
                t.handed_out,
                t.handed_in,
                t.handed_taken,
                t.requests_in,
                t.requests_out,
                t.requests_taken,
                t.legs,
            ]
        };
        assert_eq!(numbers(with), numbers(without));
    }
}
