//! A room on several shards (RFC 7701, `message::across`): order, exactly once, frozen lists, private messages, reports, what
//! is full, who comes and who leaves.

use contract::change::Verb;
use contract::{LegKey, leg_lost::Reason, news};

use super::phone::{adjust, conn, cpim, user};
use super::rig::{CONTEXT, Done};
use super::rooms::{ROOM, Rooms, member};
use crate::{CloseReason, Input, Limits, Output};

fn text(n: u64, at: usize, length: usize) -> String {
    format!("{n}/{at}/{}", "x".repeat(length))
}

#[test]
fn each_message_comes_whole_once_and_in_its_senders_order_to_all_the_others() {
    for seed in 1..=12 {
        let mut rooms = Rooms::up(3, 8, seed);
        // Each says ten messages, cut anywhere; what is on its way between shards comes sooner or later.
        let mut scripts: Vec<Vec<u8>> = (1..=8)
            .map(|n| {
                let mut script = Vec::new();
                for at in 0..10 {
                    let length = rooms.chance.below(6000) as usize;
                    let whole = cpim(n, ROOM, "text/plain", &text(n, at, length));
                    let cut = 1 + rooms.chance.below(whole.len() as u64 - 1) as usize;
                    for span in [(0, cut), (cut, whole.len())] {
                        script.extend(rooms.chunk(n, &format!("msg{at}"), &whole, span, ""));
                    }
                }
                script
            })
            .collect();
        while scripts.iter().any(|script| !script.is_empty()) {
            let n = 1 + rooms.chance.below(8);
            let script = &mut scripts[n as usize - 1];
            let size = script.len().min(1 + rooms.chance.below(3000) as usize);
            let piece: Vec<u8> = script.drain(..size).collect();
            rooms.say(n, &piece);
            for _ in 0..rooms.chance.below(6) {
                rooms.step();
            }
        }
        rooms.deliver();
        for receiver in 1..=8 {
            let (whole, aborted) = rooms.messages(receiver);
            assert_eq!((whole.len(), aborted), (70, 0), "seed {seed}");
            for source in (1..=8).filter(|source| *source != receiver) {
                let from = format!("From: <{}>", user(source));
                let said: Vec<String> = whole
                    .iter()
                    .map(|body| String::from_utf8_lossy(body).into_owned())
                    .filter(|body| body.starts_with(&from))
                    .map(|body| body.rsplit_once("\r\n").unwrap().1.split('/').nth(1).unwrap().to_owned())
                    .collect();
                let expected: Vec<String> = (0..10).map(|at| at.to_string()).collect();
                assert_eq!(said, expected, "of {source} at {receiver}, seed {seed}");
            }
        }
        rooms.check_rest();
    }
}

#[test]
fn one_seed_gives_one_run() {
    // DESIGN §2, invariant 7.
    let run = |seed| {
        let mut rooms = Rooms::up(3, 6, seed);
        for at in 0..10 {
            for n in 1..=6 {
                rooms.chat(n, &format!("msg{at}"), ROOM, &text(n, at, 100));
                rooms.step();
            }
        }
        rooms.deliver();
        (1..=6).map(|n| rooms.rig_of(n).wire[&n].clone()).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
}

#[test]
fn codes_and_private_messages_are_as_on_one_shard() {
    // CPM-FACTS §3.8 steps 3 to 6: member 1 is on shard 1; 2 and 4 at home, 3 beside him.
    let mut rooms = Rooms::up(2, 4, 1);
    for (to, code, got) in [
        ("sip:stranger@example.com", 404, [0, 0, 0]),
        ("sip:user3@example.com", 428, [0, 0, 0]),
        ("sip:user2@example.com", 200, [1, 0, 0]),
        ("sip:other4@example.com", 200, [0, 0, 1]),
        ("sip:anonymous@anonymous.invalid", 200, [1, 1, 1]),
    ] {
        rooms.chat(1, &format!("to{code}{}", got[0] + 2 * got[2]), to, "psst");
        rooms.deliver();
        assert_eq!(rooms.statuses(1), [code], "{to}");
        assert_eq!([2, 3, 4].map(|n| rooms.messages(n).0.len()), got, "{to}");
    }
    let foreign = cpim(2, ROOM, "text/plain", "in another's name");
    let bytes = rooms.chunk(1, "foreign", &foreign, (0, foreign.len()), "");
    rooms.say(1, &bytes);
    assert_eq!((rooms.statuses(1), rooms.letters()), (vec![403], 0), "nothing was handed over");
    // Nobody is left who takes them: the room is not told instead (RFC 7701 §6.2).
    rooms.batch(vec![Verb::PutLeg(adjust(member(2), |m| m.private_messages = false))]);
    rooms.deliver();
    rooms.chat(1, "again", "sip:user2@example.com", "psst");
    assert_eq!((rooms.statuses(1), rooms.letters()), (vec![428], 0));
    // What was refused its sender's shard remembers.
    rooms.check_guests();
}

#[test]
fn everybody_sees_the_first_address_of_a_sender_on_whatever_shard() {
    let mut rooms = Rooms::up(2, 3, 1);
    let said = "From: <sip:other1@example.com>\r\nTo: <sip:room@conference.example.com>\r\n\r\nContent-Type: text/plain\r\n\r\nhi";
    let (first, last) = ((0, 80), (80, said.len()));
    for span in [first, last] {
        let bytes = rooms.chunk(1, "msg1", said.as_bytes(), span, "");
        rooms.say(1, &bytes);
    }
    rooms.deliver();
    let shown = said.replace("other1", "user1");
    for n in [2, 3] {
        assert_eq!(rooms.messages(n).0, [shown.as_bytes()], "at {n}");
    }
}

#[test]
fn who_joins_between_first_and_last_chunk_gets_nothing_and_who_leaves_holds_nobody_up() {
    for seed in 1..=10 {
        let mut rooms = Rooms::up(3, 6, seed);
        let whole = cpim(1, ROOM, "text/plain", &"x".repeat(3000));
        let lines = "Success-Report: yes\r\n";
        let first = rooms.chunk(1, "long", &whole, (0, 1000), lines);
        rooms.say(1, &first);
        // The list is frozen where the sender is, whatever of it has come to others. Shard 1 is the sender's: what it hears
        // of who joins, it hears after that.
        for _ in 0..rooms.chance.below(8) {
            rooms.step();
        }
        let leaves = LegKey::new(CONTEXT, 5);
        rooms.batch(vec![Verb::PutLeg(member(7)), Verb::PutLeg(member(8)), Verb::RemoveLeg(leaves)]);
        for _ in 0..rooms.chance.below(8) {
            rooms.step();
        }
        let rest = rooms.chunk(1, "long", &whole, (1000, 3000), lines);
        rooms.say(1, &rest);
        rooms.deliver();
        let end = rooms.chunk(1, "long", &whole, (3000, whole.len()), lines);
        rooms.say(1, &end);
        rooms.deliver();
        for n in [7, 8] {
            rooms.connect(n);
            assert_eq!(rooms.messages(n), (vec![], 0), "{n}, seed {seed}");
        }
        for n in [2, 3, 4, 6] {
            assert_eq!(rooms.messages(n), (vec![whole.clone()], 0), "{n}, seed {seed}");
        }
        assert_eq!(rooms.statuses(1), [200, 200, 200, 200], "each chunk, and the report");
        rooms.check_rest();
    }
}

#[test]
fn a_sender_who_is_lost_ends_what_he_began_on_all_shards() {
    let mut rooms = Rooms::up(3, 6, 1);
    let whole = cpim(1, ROOM, "text/plain", &"x".repeat(3000));
    let first = rooms.chunk(1, "long", &whole, (0, 1000), "");
    rooms.say(1, &first);
    rooms.deliver();
    rooms.input(1, Input::Closed { conn: conn(1), why: CloseReason::Reset });
    rooms.deliver();
    for n in 2..=6 {
        assert_eq!(rooms.messages(n), (vec![], 1), "{n}");
    }
    let lost = rooms.done.iter().filter(|(shard, done)| {
        matches!(done, Done::Answer(contract::from_dataplane::Body::News(n))
            if matches!(&n.what, Some(news::What::LegLost(l)) if l.reason() == Reason::Reset && *shard == 1))
    });
    assert_eq!(lost.count(), 1, "and nobody else is");
    rooms.check_rest();
}

fn small() -> Limits {
    Limits { sockets_max: 16, handed_bytes_max: 16 << 10, queue_bytes_max: 40 << 10, ..Limits::default() }
}

#[test]
fn a_shard_that_takes_nothing_holds_the_sender_up_and_loses_nothing() {
    let mut rooms = Rooms::up_with(small(), 2, 4, 1);
    rooms.done.clear();
    let paused = |rooms: &Rooms| {
        let of = |done: &Done| match done {
            Done::Stream(Output::Pause { conn }) => (conn.0 == 1).then_some(true),
            Done::Stream(Output::Resume { conn }) => (conn.0 == 1).then_some(false),
            _ => None,
        };
        rooms.done.iter().rev().find_map(|(_, done)| of(done)).unwrap_or(false)
    };
    // Member 1 says far more than may be on its way, and is not read any more; the driver would bring nothing then.
    let mut said = 0;
    while !paused(&rooms) {
        rooms.chat(1, &format!("msg{said}"), ROOM, &text(1, said, 500));
        said += 1;
        assert!(said < 40, "{} letters", rooms.letters());
    }
    assert!(said > 4);
    let before = rooms.letters();
    // What was read already waits.
    for at in said..said + 5 {
        rooms.chat(1, &format!("msg{at}"), ROOM, &text(1, at, 500));
    }
    assert_eq!(rooms.letters(), before, "nothing more is handed over");
    let here = rooms.messages(3).0.len();
    assert!([said - 1, said].contains(&here), "of the last one the end may not have been read yet");
    rooms.deliver();
    assert!(!paused(&rooms));
    for n in [2, 4] {
        let (whole, aborted) = rooms.messages(n);
        assert_eq!((whole.len(), aborted), (said + 5, 0));
    }
    assert_eq!(rooms.messages(3).0.len(), said + 5 - here);
    rooms.check_rest();
}

#[test]
fn a_full_member_of_another_shard_paces_a_long_message_and_is_given_up_then() {
    // CPM-FACTS §3.8 step 13.
    let mut rooms = Rooms::up_with(small(), 2, 4, 1);
    rooms.rigs[0].stalled.insert(2);
    rooms.done.clear();
    let whole = cpim(1, ROOM, "text/plain", &"x".repeat(300 << 10));
    let bytes = rooms.chunk(1, "long", &whole, (0, whole.len()), "");
    for piece in bytes.chunks(4000) {
        rooms.say(1, piece);
        rooms.deliver();
    }
    let got = rooms.rig_of(4).wire.get(&4).map_or(0, Vec::len);
    assert!((30_000..200_000).contains(&got), "the sender waits for the member who takes nothing: {got}");
    let queued = rooms.rigs[0].engine.totals().queued_bytes;
    assert!(queued < 200_000, "{queued}");
    rooms.run(2000);
    for n in [3, 4] {
        assert_eq!(rooms.messages(n), (vec![whole.clone()], 0), "{n}");
    }
    let pressure = rooms.done.iter().filter(|(_, done)| {
        matches!(done, Done::Answer(contract::from_dataplane::Body::News(n))
            if matches!(&n.what, Some(news::What::Pressure(p)) if p.on && p.leg == Some(LegKey::new(CONTEXT, 2))))
    });
    assert_eq!(pressure.count(), 1, "control is told");
}

#[test]
fn success_is_reported_when_all_shards_are_done() {
    // CPM-FACTS §3.8 step 7, DESIGN §2 invariant 9.
    let mut rooms = Rooms::up(3, 6, 1);
    rooms.rigs[2].stalled.insert(5);
    let whole = cpim(1, ROOM, "text/plain", "hello");
    let bytes = rooms.chunk(1, "msg1", &whole, (0, whole.len()), "Success-Report: yes\r\n");
    rooms.say(1, &bytes);
    rooms.deliver();
    assert_eq!(rooms.statuses(1), [200], "the chunk; one member has not got it yet");
    let written = rooms.rigs[2].wire[&5].len();
    rooms.input(2, Input::Sent { conn: conn(5), bytes: written });
    rooms.deliver();
    assert_eq!(rooms.statuses(1), [200], "the report");
    for n in 2..=6 {
        assert_eq!(rooms.messages(n).0.len(), 1);
    }
    rooms.check_rest();
}

#[test]
fn what_nobody_finishes_is_aborted_on_all_shards_and_a_room_that_ends_leaves_nothing() {
    let mut rooms = Rooms::up_with(Limits { incomplete_ms: 1000, ..small() }, 2, 4, 1);
    let whole = cpim(1, ROOM, "text/plain", &"x".repeat(3000));
    let first = rooms.chunk(1, "long", &whole, (0, 1000), "");
    rooms.say(1, &first);
    rooms.deliver();
    rooms.run(1500);
    for n in 2..=4 {
        assert_eq!(rooms.messages(n), (vec![], 1), "{n}");
    }
    rooms.check_rest();
    let second = rooms.chunk(1, "other", &whole, (0, 1000), "");
    rooms.say(1, &second);
    rooms.step();
    rooms.batch(vec![Verb::RemoveContext(CONTEXT)]);
    rooms.deliver();
    rooms.check_rest();
    for rig in &rooms.rigs {
        assert!(
            rig.engine
                .msrp_tables()
                .iter()
                .all(|(name, count)| *name == "timers" || *name == "connections" || *count == 0),
            "{:?}",
            rig.engine.msrp_tables()
        );
    }
}

#[test]
fn chunks_without_octets_fill_the_window_like_others() {
    // A sender who goes on with a message in chunks that carry nothing is read no more once they are too many.
    let mut rooms = Rooms::up_with(small(), 2, 4, 1);
    rooms.done.clear();
    let whole = cpim(1, ROOM, "text/plain", &"x".repeat(1000));
    let first = rooms.chunk(1, "long", &whole, (0, 500), "");
    rooms.say(1, &first);
    let lines =
        format!("Message-ID: long\r\nByte-Range: 501-*/{}\r\nContent-Type: message/cpim\r\n", whole.len());
    for at in 0..2000 {
        let empty = rooms.request(1, &format!("empty{at}"), &lines, Some(b""), '+');
        rooms.say(1, &empty);
    }
    assert!(rooms.letters() < 200, "{} letters", rooms.letters());
    assert!(rooms.done.iter().any(|(_, done)| matches!(done, Done::Stream(Output::Pause { .. }))));
    rooms.deliver();
    let rest = rooms.chunk(1, "long", &whole, (500, whole.len()), "");
    rooms.say(1, &rest);
    rooms.deliver();
    for n in 2..=4 {
        assert_eq!(rooms.messages(n), (vec![whole.clone()], 0), "{n}");
    }
    rooms.check_rest();
}

#[test]
fn a_session_that_goes_while_it_waits_for_a_shard_leaves_its_connection_to_the_others() {
    // RFC 4975 §5.4: one connection carries several sessions.
    let mut rooms = Rooms::up_with(small(), 2, 5, 1);
    // Member 5 speaks on the connection of member 1.
    rooms.batch(vec![Verb::RemoveLeg(LegKey::new(CONTEXT, 5)), Verb::PutLeg(member(7))]);
    rooms.deliver();
    let bind = rooms.request(7, "bind7", "Message-ID: bind7\r\nByte-Range: 1-0/0\r\n", None, '$');
    rooms.say(1, &bind);
    rooms.deliver();
    assert_eq!(rooms.statuses(1), [200]);
    for at in 0..40 {
        rooms.chat(1, &format!("msg{at}"), ROOM, &text(1, at, 500));
    }
    let waits = rooms.letters();
    rooms.chat(1, "more", ROOM, &text(1, 40, 500));
    assert_eq!(rooms.letters(), waits, "it is not read any more");
    rooms.batch(vec![Verb::RemoveLeg(LegKey::new(CONTEXT, 1))]);
    rooms.deliver();
    let whole = cpim(7, ROOM, "text/plain", "still here");
    let bytes = rooms.chunk(7, "seven", &whole, (0, whole.len()), "");
    rooms.say(1, &bytes);
    rooms.deliver();
    for n in [2, 4] {
        assert_eq!(rooms.messages(n).0.last(), Some(&whole), "{n}");
    }
    rooms.check_rest();
}

#[test]
fn success_is_reported_of_a_message_whose_head_came_in_two_chunks() {
    // RFC 4975 §7.1.1: what is asked for is asked for by its first chunk.
    let mut rooms = Rooms::up(3, 6, 1);
    let whole = cpim(1, ROOM, "text/plain", "hello");
    let first = rooms.chunk(1, "msg1", &whole, (0, 30), "Success-Report: yes\r\n");
    let last = rooms.chunk(1, "msg1", &whole, (30, whole.len()), "");
    rooms.say(1, &first);
    rooms.say(1, &last);
    rooms.deliver();
    assert_eq!(rooms.statuses(1), [200, 200, 200], "each chunk, and the report");
    rooms.check_rest();
}

#[test]
fn whose_leg_is_replaced_misses_nothing_whichever_shard_hears_of_it_first() {
    // CPM-FACTS §3.3: the repair of a chat brings a new leg; what is said meanwhile waits for it. Member 2 is on shard 2, the
    // sender on shard 1.
    for seed in 1..=40 {
        let mut rooms = Rooms::up(3, 6, seed);
        rooms.input(2, Input::Closed { conn: conn(2), why: CloseReason::Reset });
        let heir =
            contract::Leg { participant: "p2".into(), ..adjust(member(8), |m| m.addresses = vec![user(2)]) };
        rooms.batch(vec![Verb::RemoveLeg(LegKey::new(CONTEXT, 2)), Verb::PutLeg(heir)]);
        for at in 0..3 {
            rooms.chat(1, &format!("msg{at}"), ROOM, &text(1, at, 100));
            rooms.step();
        }
        rooms.deliver();
        rooms.bind(8);
        assert_eq!(rooms.messages(8).0.len(), 3, "seed {seed}");
        assert_eq!(rooms.messages(3).0.len(), 3, "seed {seed}");
        rooms.check_rest();
    }
}

#[test]
fn whoever_waits_for_a_member_goes_on_once_that_one_is_congested_by_another() {
    // CPM-FACTS §3.8 step 13: half a second at most. On one shard and on two.
    for shards in [1, 2] {
        let mut rooms = Rooms::up_with(Limits { slow_ms: 60_000, ..small() }, shards, 4, 1);
        let stalls = rooms.place(2);
        rooms.rigs[stalls].stalled.insert(2);
        let whole = cpim(1, ROOM, "text/plain", &"x".repeat(200 << 10));
        let long = rooms.chunk(1, "long", &whole, (0, whole.len()), "");
        for piece in long.chunks(4000) {
            rooms.say(1, piece);
            rooms.deliver();
        }
        // Another one's words are too much for member 2, before his time is over.
        for at in 0..40 {
            rooms.chat(3, &format!("msg{at}"), ROOM, &text(3, at, 1000));
            rooms.deliver();
        }
        rooms.run(3000);
        assert!(rooms.messages(4).0.contains(&whole), "{shards} shards: the long one has come");
    }
}
