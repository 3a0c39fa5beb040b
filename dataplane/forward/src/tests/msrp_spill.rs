//! One device is slow: what it has not read waits on disk, the others have it at once (`distribute`). Nothing is lost, nothing
//! comes twice or in another order, and memory and disk stay within their limits.

use contract::{Mode, Pressure, leg_lost::Reason, news};
use msrp::{Flag, Method, Status};

use super::phone::*;
use super::rig::*;
use crate::{CloseReason, Drop, Input, Limits, Output};

pub(super) const QUEUE: usize = 50_000;

pub(super) fn limits() -> Limits {
    Limits {
        queue_bytes_max: QUEUE,
        inflight_bytes_max: 10_000,
        slow_ms: 60_000,
        sockets_max: 1,
        spill_bytes_max: 1 << 30,
        ..Limits::default()
    }
}

/// Leg 1 sends to legs 2 and 3, and they answer; the peer of leg 2 reads nothing by itself.
pub(super) fn one_to_two(limits: Limits) -> Phones {
    let legs = vec![msrp_leg(1), msrp_leg(2), msrp_leg(3)];
    let paths = vec![path(1, Mode::Distribute, &[1], &[2, 3]), path(2, Mode::Distribute, &[2, 3], &[1])];
    let mut phones = Phones::up_with(limits, legs, paths);
    phones.rig.stalled.insert(2);
    phones
}

pub(super) fn text(octets: usize) -> Vec<u8> {
    (0..octets as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A message in chunks of 20,000 octets.
pub(super) fn file(phones: &Phones, id: &str, body: &[u8], more: &str) -> Vec<u8> {
    let (mut wire, size, mut at) = (Vec::new(), body.len(), 0);
    while at < size {
        let end = size.min(at + 20_000);
        let lines =
            format!("Message-ID: {id}\r\n{more}Byte-Range: {}-*/{size}\r\nContent-Type: a/b\r\n", at + 1);
        let flag = if end == size { '$' } else { '+' };
        let tid = format!("t{id}{at}");
        wire.extend(phones.request(1, "SEND", &tid, &lines, Some(&body[at..end]), flag));
        at = end;
    }
    wire
}

pub(super) const SILENT: &str = "Failure-Report: no\r\n";

pub(super) fn pauses(done: &[Done]) -> i32 {
    let of = |d: &Done| match d {
        Done::Stream(Output::Pause { .. }) => 1,
        Done::Stream(Output::Resume { .. }) => -1,
        _ => 0,
    };
    done.iter().map(of).sum()
}

/// A sender that heeds a pause.
pub(super) struct Sender {
    pub(super) bytes: Vec<u8>,
    pub(super) at: usize,
    pub(super) paused: bool,
    /// How often it had to wait.
    pub(super) waits: usize,
}

impl Sender {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Sender { bytes, at: 0, paused: false, waits: 0 }
    }

    pub(super) fn heed(&mut self, done: &[Done]) {
        let now = i32::from(self.paused) + pauses(done);
        self.waits += usize::from(now > 0 && !self.paused);
        self.paused = now > 0;
    }

    /// Sends until it must wait, or to the end.
    pub(super) fn push(&mut self, phones: &mut Phones) -> Vec<Done> {
        let mut all = Vec::new();
        while !self.paused && self.at < self.bytes.len() {
            let end = self.bytes.len().min(self.at + 8192);
            let done = phones.say_raw(1, &self.bytes[self.at..end]);
            self.at = end;
            self.heed(&done);
            all.extend(done);
        }
        all
    }

    pub(super) fn is_over(&self) -> bool {
        self.at == self.bytes.len()
    }
}

/// The peer of leg 2 reads what is on its wire.
pub(super) fn drink(phones: &mut Phones, had: &mut Vec<u8>) -> Vec<Done> {
    let wire = phones.rig.wire.remove(&2).unwrap_or_default();
    had.extend_from_slice(&wire);
    let mut done = phones.rig.input(Input::Sent { conn: conn(2), bytes: wire.len() });
    phones.rig.deliver(&mut done);
    done
}

/// What came of a message, octet by octet in its place, and its last flag.
pub(super) fn came(wire: &[u8], id: &str) -> (Vec<u8>, Option<Flag>) {
    let (rest, read) = parse(wire);
    assert!(rest.is_empty(), "{} octets of a chunk without its end", rest.len());
    let (mut body, mut last) = (Vec::new(), None);
    for one in read.iter().filter(|r| r.is(Method::Send) && r.head.message_id() == id) {
        assert_ne!(last, Some(Flag::Last), "something after its end");
        if !one.body.is_empty() {
            assert_eq!(one.head.byte_range().unwrap().start, body.len() as u64 + 1, "in order, and once");
        }
        body.extend_from_slice(&one.body);
        last = Some(one.flag);
    }
    (body, last)
}

/// What control was told of leg 2: `(on, kept)`.
pub(super) fn told(done: &[Done]) -> Vec<(bool, bool)> {
    let of = |what: &news::What| match what {
        news::What::Pressure(Pressure { leg, on, kept, .. }) if *leg == Some(key(2)) => Some((*on, *kept)),
        _ => None,
    };
    news(done).into_iter().filter_map(of).collect()
}

/// Nothing of it is left anywhere.
pub(super) fn is_clean(phones: &Phones) {
    assert!(phones.rig.disk.files.is_empty(), "{:?}", phones.rig.disk.files.keys());
    let totals = phones.rig.engine.totals();
    assert_eq!((totals.spill_bytes, totals.spill_files), (0, 0));
    for (name, size) in phones.rig.engine.msrp_tables() {
        let at_rest = [
            "files on disk",
            "receivers behind",
            "octets not written",
            "orders to the disk",
            "held messages",
        ];
        assert!(size == 0 || !at_rest.contains(&name), "{name}: {size}");
    }
    phones.check_sum();
}

#[test]
fn of_two_devices_the_fast_one_has_all_of_it_while_the_slow_one_has_read_nothing() {
    let mut phones = one_to_two(limits());
    let body = text(2_000_000);
    let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
    let done = sender.push(&mut phones);
    assert_eq!((sender.waits, sender.is_over()), (0, true));
    let fast = phones.rig.wire.remove(&3).unwrap();
    assert!(came(&fast, "big1") == (body.clone(), Some(Flag::Last)));
    assert_eq!(told(&done), [(true, true)]);
    let totals = phones.rig.engine.totals();
    assert!(totals.spill_bytes > 1_500_000 && totals.spill_files == 1, "{totals:?}");
    assert!(totals.queued_bytes < 2 * QUEUE as u64);
    // It reads at its own pace.
    let (mut slow, mut done) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        done.extend(drink(&mut phones, &mut slow));
        assert!(phones.rig.engine.totals().queued_bytes < 2 * QUEUE as u64);
    }
    assert!(came(&slow, "big1") == (body, Some(Flag::Last)));
    assert_eq!(told(&done), [(false, true)]);
    is_clean(&phones);
}

/// Both are full at once, and the source waits; the first that has room paces it, the other one is behind.
#[test]
fn of_two_devices_that_are_full_at_once_the_first_to_read_is_not_held_up_by_the_other() {
    let mut phones = one_to_two(limits());
    phones.rig.stalled.insert(3);
    let body = text(1_000_000);
    let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
    sender.push(&mut phones);
    assert!(sender.paused, "both are full");
    let mut had = Vec::new();
    for _ in 0..1000 {
        let wire = phones.rig.wire.remove(&3).unwrap_or_default();
        had.extend_from_slice(&wire);
        let mut done = phones.rig.input(Input::Sent { conn: conn(3), bytes: wire.len() });
        phones.rig.deliver(&mut done);
        sender.heed(&done);
        sender.push(&mut phones);
    }
    assert!(sender.is_over(), "held up by who reads nothing");
    assert_eq!(came(&had, "big1"), (body.clone(), Some(Flag::Last)));
    let mut late = Vec::new();
    (0..1000).for_each(|_| drop(drink(&mut phones, &mut late)));
    assert_eq!(came(&late, "big1"), (body, Some(Flag::Last)));
}

/// First one device is the slow one, then the other: whoever is quicker paces the sender, who never waits for the other.
#[test]
fn two_devices_that_are_slow_in_turns_hold_nobody_up() {
    let mut phones = one_to_two(limits());
    phones.rig.stalled.insert(3);
    let body = text(2_000_000);
    let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
    let mut had = [Vec::new(), Vec::new()];
    for turn in 0..2000 {
        sender.push(&mut phones);
        // Each reads alone for a while, and so much that it catches up and is full again.
        let who = 2 + (turn / 25) % 2;
        let wire = phones.rig.wire.remove(&who).unwrap_or_default();
        had[who as usize - 2].extend_from_slice(&wire);
        let mut done = phones.rig.input(Input::Sent { conn: conn(who), bytes: wire.len() });
        phones.rig.deliver(&mut done);
        sender.heed(&done);
        let behind = &phones.rig.engine.totals();
        assert!(
            turn % 25 < 24 || !sender.paused,
            "turn {turn}: leg {who} has read all there was: {behind:?}"
        );
        assert!(phones.rig.engine.totals().queued_bytes < 4 * QUEUE as u64);
    }
    assert!(sender.is_over());
    for had in &had {
        assert!(came(had, "big1") == (body.clone(), Some(Flag::Last)));
    }
    is_clean(&phones);
}

// RFC 4975 §7.3.1; the order in which one sender has said things is that in which they are read.
#[test]
fn what_is_said_meanwhile_and_afterwards_keeps_its_order_and_each_octet_its_place() {
    let mut phones = one_to_two(limits());
    let (one, two) = (text(700_000), text(600_001));
    let mut sender = Sender::new(file(&phones, "big1", &one, SILENT));
    sender.push(&mut phones);
    let mut more = Sender::new(file(&phones, "big2", &two, SILENT));
    more.push(&mut phones);
    for n in 0..20 {
        let (id, body) = (format!("small{n}"), format!("text {n}"));
        phones.say(1, &Send { tid: &id, id: &id, body: body.as_bytes(), ..Send::default() });
    }
    assert_eq!((sender.waits, more.waits), (0, 0));
    let mut slow = Vec::new();
    for _ in 0..400 {
        drink(&mut phones, &mut slow);
    }
    assert!(came(&slow, "big1") == (one, Some(Flag::Last)));
    assert!(came(&slow, "big2") == (two, Some(Flag::Last)));
    let ends: Vec<_> =
        parse(&slow).1.into_iter().filter(|r| r.is(Method::Send) && r.flag == Flag::Last).collect();
    let ids: Vec<&str> = ends.iter().map(|r| r.head.message_id()).collect();
    let small: Vec<String> = (0..20).map(|n| format!("small{n}")).collect();
    assert_eq!(ids[..2], ["big1", "big2"]);
    assert_eq!(ids[2..], small);
    // It has caught up: what comes next passes by the disk.
    phones.rig.stalled.clear();
    for read in ends {
        if read.head.failure_report() == msrp::FailureReport::Yes {
            phones.reply(2, &read, Status::OK);
        }
    }
    phones.read(1);
    let before = phones.rig.engine.totals().spilled_bytes;
    phones.say(1, &Send { id: "after1", ..Send::default() });
    assert_eq!(phones.read(2)[0].head.message_id(), "after1");
    assert_eq!(phones.rig.engine.totals().spilled_bytes, before);
    is_clean(&phones);
}

#[test]
fn two_messages_of_one_sender_whose_chunks_alternate_are_each_whole() {
    let mut phones = one_to_two(limits());
    let bodies = [text(500_000), text(400_000)];
    let chunks = |n: usize| {
        let body = &bodies[n];
        body.chunks(20_000)
            .enumerate()
            .map(|(at, chunk)| {
                let at = at * 20_000;
                let lines = format!(
                    "Message-ID: both{n}\r\n{SILENT}Byte-Range: {}-*/{}\r\nContent-Type: a/b\r\n",
                    at + 1,
                    body.len()
                );
                let flag = if at + chunk.len() == body.len() { '$' } else { '+' };
                phones.request(1, "SEND", &format!("t{n}x{at}"), &lines, Some(chunk), flag)
            })
            .collect::<Vec<_>>()
    };
    let (first, second) = (chunks(0), chunks(1));
    let mut wire = Vec::new();
    for (at, chunk) in first.iter().enumerate() {
        wire.extend(chunk);
        wire.extend(second.get(at).into_iter().flatten());
    }
    let mut sender = Sender::new(wire);
    sender.push(&mut phones);
    assert_eq!((sender.waits, sender.is_over()), (0, true));
    let mut slow = Vec::new();
    for _ in 0..400 {
        drink(&mut phones, &mut slow);
    }
    for (n, body) in bodies.iter().enumerate() {
        assert!(came(&slow, &format!("both{n}")) == (body.clone(), Some(Flag::Last)), "{n}");
    }
    is_clean(&phones);
}

#[test]
fn a_device_that_catches_up_goes_on_without_the_disk() {
    let mut phones = one_to_two(limits());
    let body = text(1_000_000);
    let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
    let (mut slow, mut at) = (Vec::new(), 0);
    // It stops for a while in the midst of it.
    while !sender.is_over() {
        let end = sender.bytes.len().min(at + 8192);
        let done = phones.say_raw(1, &sender.bytes[at..end]);
        (at, sender.at) = (end, end);
        sender.heed(&done);
        if !(200_000..600_000).contains(&at) {
            (0..4).for_each(|_| drop(drink(&mut phones, &mut slow)));
        }
    }
    (0..50).for_each(|_| drop(drink(&mut phones, &mut slow)));
    assert_eq!(sender.waits, 0);
    assert!(came(&slow, "big1") == (body, Some(Flag::Last)));
    let spilled = phones.rig.engine.totals().spilled_bytes;
    assert!((100_000..800_000).contains(&spilled), "{spilled}");
    is_clean(&phones);
}

#[test]
fn whoever_is_lost_in_the_midst_of_it_takes_nobody_along_and_leaves_no_file() {
    for over in [true, false] {
        let mut phones = one_to_two(limits());
        let body = text(1_000_000);
        let mut sender = Sender::new(file(&phones, "big1", &body, "Success-Report: yes\r\n"));
        if over {
            sender.push(&mut phones);
        } else {
            let all = sender.bytes.split_off(500_000);
            sender.push(&mut phones);
            sender.bytes.extend(all);
        }
        assert_eq!(phones.rig.disk.files.len(), 1);
        let done = phones.rig.input(Input::Closed { conn: conn(2), why: CloseReason::Reset });
        assert!(news(&done).iter().any(|what| matches!(what, news::What::LegLost(_))));
        sender.push(&mut phones);
        assert_eq!(sender.waits, 0);
        let wire = phones.rig.wire.remove(&3).unwrap();
        assert!(came(&wire, "big1") == (body.clone(), Some(Flag::Last)));
        // Who has it says so; nothing else is reported.
        let last = parse(&wire).1.pop().unwrap();
        let size = body.len();
        let lines = format!("Message-ID: big1\r\nByte-Range: 1-{size}/{size}\r\nStatus: 000 200 OK\r\n");
        let report = phones.request(3, "REPORT", "rep3", &lines, None, '$');
        phones.say_raw(3, &report);
        let reports: Vec<_> = phones.read(1).into_iter().filter(|r| r.is(Method::Report)).collect();
        assert_eq!(reports.iter().map(|r| r.head.status()).collect::<Vec<_>>(), [Some(Status::OK)], "{over}");
        drop(last);
        is_clean(&phones);
    }
}

#[test]
fn when_the_sender_is_gone_after_the_end_the_slow_one_has_all_of_it_still() {
    let mut phones = one_to_two(limits());
    let body = text(800_000);
    Sender::new(file(&phones, "big1", &body, SILENT)).push(&mut phones);
    phones.rig.input(Input::Closed { conn: conn(1), why: CloseReason::Closed });
    phones.rig.put(vec![contract::change::Verb::RemoveLeg(key(1))]);
    let mut slow = Vec::new();
    for _ in 0..400 {
        drink(&mut phones, &mut slow);
    }
    assert!(came(&slow, "big1") == (body, Some(Flag::Last)));
    is_clean(&phones);
}

// RFC 4975 §7.1: `#` says that the rest will not come.
#[test]
fn what_its_sender_gives_up_ends_so_for_the_slow_one_too() {
    for lost in [true, false] {
        let mut phones = one_to_two(limits());
        let body = text(800_000);
        let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
        sender.bytes.truncate(600_000);
        sender.push(&mut phones);
        if lost {
            phones.rig.input(Input::Closed { conn: conn(1), why: CloseReason::Reset });
        } else {
            let framed = sender.bytes.windows(9).rposition(|w| w == b"-------tb").unwrap();
            let open = String::from_utf8_lossy(&sender.bytes[framed..]).into_owned();
            assert!(open.contains("MSRP tbig1"), "in the midst of a chunk");
            let tid = open.split("MSRP ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
            phones.say_raw(1, format!("\r\n-------{tid}#\r\n").as_bytes());
        }
        let mut slow = Vec::new();
        for _ in 0..100 {
            drink(&mut phones, &mut slow);
        }
        let (had, flag) = came(&slow, "big1");
        assert_eq!((flag, body.starts_with(&had)), (Some(Flag::Abort), true), "{lost}");
        assert_eq!(came(&phones.rig.wire.remove(&3).unwrap(), "big1").1, Some(Flag::Abort));
        is_clean(&phones);
    }
}

#[test]
fn a_disk_that_fails_takes_the_slow_ones_copy_and_nobody_elses() {
    for reads in [true, false] {
        let mut phones = one_to_two(limits());
        (phones.rig.disk.reads_fail, phones.rig.disk.writes_fail) = (reads, !reads);
        let body = text(800_000);
        let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
        let mut done = sender.push(&mut phones);
        let mut slow = Vec::new();
        for _ in 0..100 {
            done.extend(drink(&mut phones, &mut slow));
            sender.heed(&[]);
        }
        assert_eq!((sender.waits, sender.is_over()), (0, true));
        let (had, flag) = came(&slow, "big1");
        assert_eq!((flag, body.starts_with(&had)), (Some(Flag::Abort), true), "{reads}");
        assert_eq!(phones.rig.engine.dropped(Drop::MsrpSpill), 1);
        // It has missed something, of which control hears.
        assert!(told(&done).contains(&(true, false)), "{:?}", told(&done));
        assert_eq!(told(&done).last(), Some(&(false, true)));
        assert!(came(&phones.rig.wire.remove(&3).unwrap(), "big1") == (body, Some(Flag::Last)));
        // What is said next reaches it.
        phones.rig.disk.writes_fail = false;
        phones.rig.disk.reads_fail = false;
        phones.say(
            1,
            &Send {
                id: "after1",
                lines: "Failure-Report: no\r\nContent-Type: text/plain\r\n",
                ..Send::default()
            },
        );
        drink(&mut phones, &mut slow);
        drink(&mut phones, &mut slow);
        assert_eq!(came(&slow, "after1"), (b"hello".to_vec(), Some(Flag::Last)));
        is_clean(&phones);
    }
}

#[test]
fn the_file_and_all_of_them_have_a_limit_at_which_the_source_waits_and_nothing_is_lost() {
    let tight = [
        Limits { spill_file_bytes_max: 300_001, ..limits() },
        Limits { spill_bytes_max: 250_000, ..limits() },
    ];
    for limits in tight {
        let max = limits.spill_file_bytes_max.min(limits.spill_bytes_max);
        let mut phones = one_to_two(limits);
        let body = text(3_000_000);
        let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
        sender.push(&mut phones);
        assert!(sender.paused && sender.at < 600_000, "{}", sender.at);
        let mut slow = Vec::new();
        for _ in 0..3000 {
            let done = drink(&mut phones, &mut slow);
            sender.heed(&done);
            sender.push(&mut phones);
            assert!(phones.rig.engine.totals().spill_bytes <= max);
            // One read of its source may wait in memory until there is room.
            assert!(phones.rig.engine.totals().queued_bytes < 2 * QUEUE as u64);
        }
        assert!(sender.is_over() && sender.waits > 1, "{} {}", sender.at, sender.waits);
        assert!(came(&slow, "big1") == (body.clone(), Some(Flag::Last)));
        assert!(came(&phones.rig.wire.remove(&3).unwrap(), "big1") == (body, Some(Flag::Last)));
        assert!(phones.rig.disk.most as u64 <= max, "{}", phones.rig.disk.most);
        is_clean(&phones);
    }
}

#[test]
fn a_disk_that_is_slow_is_waited_for() {
    let mut phones = one_to_two(Limits { spill_unwritten_bytes_max: 200_000, ..limits() });
    phones.rig.disk.stalled = true;
    let body = text(2_000_000);
    let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
    sender.push(&mut phones);
    assert!(sender.paused && sender.at < 500_000, "{}", sender.at);
    phones.rig.run(1000);
    phones.rig.disk.stalled = false;
    let (mut slow, mut done) = (Vec::new(), Vec::new());
    for _ in 0..600 {
        phones.rig.deliver(&mut done);
        done.extend(drink(&mut phones, &mut slow));
        sender.heed(&std::mem::take(&mut done));
        done.extend(sender.push(&mut phones));
    }
    assert!(sender.is_over());
    assert!(came(&slow, "big1") == (body, Some(Flag::Last)));
    is_clean(&phones);
}

#[test]
fn so_many_receivers_may_be_behind_and_the_next_one_paces_the_others() {
    let mut phones = one_to_two(Limits { spill_files_max: 0, ..limits() });
    let mut sender = Sender::new(file(&phones, "big1", &text(500_000), SILENT));
    sender.push(&mut phones);
    assert!(sender.paused && phones.rig.disk.files.is_empty());
}

#[test]
fn who_is_the_last_one_left_paces_the_sender() {
    let mut phones = one_to_two(limits());
    let body = text(2_000_000);
    let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
    let rest = sender.bytes.split_off(400_000);
    sender.push(&mut phones);
    phones.rig.input(Input::Closed { conn: conn(3), why: CloseReason::Reset });
    sender.bytes.extend(rest);
    sender.push(&mut phones);
    assert!(sender.paused && sender.at < 500_000, "{}", sender.at);
    let mut slow = Vec::new();
    for _ in 0..1000 {
        let done = drink(&mut phones, &mut slow);
        sender.heed(&done);
        sender.push(&mut phones);
    }
    assert!(sender.is_over());
    assert!(came(&slow, "big1") == (body, Some(Flag::Last)));
    is_clean(&phones);
}

#[test]
fn who_reads_nothing_for_too_long_is_cut_loose_and_nobody_has_waited() {
    let mut phones = one_to_two(limits());
    let body = text(1_000_000);
    let mut sender = Sender::new(file(&phones, "big1", &body, SILENT));
    sender.push(&mut phones);
    let mut done = phones.rig.run(50_000);
    assert!(!news(&done).iter().any(|what| matches!(what, news::What::LegLost(_))), "not before its time");
    assert_eq!((sender.waits, phones.rig.engine.dropped(Drop::MsrpCongested)), (0, 0));
    done.extend(phones.rig.run(20_000));
    let slow =
        |what: &&news::What| matches!(what, news::What::LegLost(lost) if lost.reason() == Reason::Slow);
    assert_eq!(news(&done).into_iter().filter(slow).count(), 1);
    is_clean(&phones);
}

// RFC 4975 §7.2: 413 means that the receiver wants no more of it.
#[test]
fn a_slow_one_that_refuses_it_gets_no_more_of_it() {
    let mut phones = one_to_two(limits());
    let body = text(1_000_000);
    let mut sender = Sender::new(file(&phones, "big1", &body, ""));
    sender.push(&mut phones);
    let mut slow = Vec::new();
    (0..3).for_each(|_| drop(drink(&mut phones, &mut slow)));
    let head = String::from_utf8_lossy(&slow).into_owned();
    let tid = head
        .rsplit("MSRP ")
        .find(|part| part.contains(" SEND\r\n"))
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let answer = format!(
        "MSRP {tid} 413 Stop\r\nTo-Path: {}\r\nFrom-Path: {}\r\n-------{tid}$\r\n",
        phones.ours[&2],
        their(2)
    );
    phones.say_raw(2, answer.as_bytes());
    for _ in 0..20 {
        drink(&mut phones, &mut slow);
    }
    let (had, flag) = came(&slow, "big1");
    assert_eq!((flag, had.len() < 300_000), (Some(Flag::Abort), true));
    assert!(phones.rig.disk.files.is_empty());
    assert!(!phones.read(1).iter().any(|r| r.is(Method::Report)), "another one takes it");
}

// RFC 4975 §7.1.1: no answer in time is as good as a 408; where others have the message control hears of it.
#[test]
fn a_slow_one_that_stops_answering_in_the_midst_of_it_is_told_of_and_hears_the_end() {
    let mut phones = one_to_two(limits());
    let body = text(1_000_000);
    let mut sender = Sender::new(file(&phones, "big1", &body, ""));
    let mut done = sender.push(&mut phones);
    let fast = phones.rig.wire.remove(&3).unwrap();
    for read in parse(&fast).1.iter().filter(|read| read.is(Method::Send)) {
        let tid = read.head.tid();
        let to = format!("To-Path: {}\r\nFrom-Path: {}\r\n", phones.ours[&3], their(3));
        phones.say_raw(3, format!("MSRP {tid} 200 OK\r\n{to}-------{tid}$\r\n").as_bytes());
    }
    assert!(came(&fast, "big1") == (body.clone(), Some(Flag::Last)));
    let mut slow = Vec::new();
    (0..3).for_each(|_| done.extend(drink(&mut phones, &mut slow)));
    assert!(!told(&done).contains(&(true, false)));
    done.extend(phones.rig.run(31_000));
    for _ in 0..20 {
        done.extend(drink(&mut phones, &mut slow));
    }
    let (had, flag) = came(&slow, "big1");
    assert_eq!((flag, body.starts_with(&had), had.len() < 500_000), (Some(Flag::Abort), true, true));
    assert_eq!(told(&done).iter().filter(|told| **told == (true, false)).count(), 1, "{:?}", told(&done));
    assert_eq!(phones.rig.engine.dropped(Drop::MsrpUnanswered), 1);
    assert!(!phones.read(1).iter().any(|r| r.is(Method::Report)), "another one has it");
    is_clean(&phones);
}

// DESIGN §2, invariant 9: what control is told is over is with the peer, by its own word where it gives one.
#[test]
fn it_is_over_when_the_slow_one_has_reported_it() {
    let mut phones = one_to_two(limits());
    let body = text(600_000);
    let mut sender =
        Sender::new(file(&phones, "big1", &body, "Success-Report: yes\r\nFailure-Report: no\r\n"));
    sender.push(&mut phones);
    let size = body.len();
    let lines = format!("Message-ID: big1\r\nByte-Range: 1-{size}/{size}\r\nStatus: 000 200 OK\r\n");
    // The fast one's word is the sender's REPORT, and with it he is done.
    let report = phones.request(3, "REPORT", "rep3", &lines, None, '$');
    phones.say_raw(3, &report);
    assert_eq!(phones.read(1).iter().filter(|r| r.is(Method::Report)).count(), 1);
    let (mut slow, mut done) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        done.extend(drink(&mut phones, &mut slow));
    }
    assert!(came(&slow, "big1") == (body, Some(Flag::Last)));
    assert!(told(&done).is_empty(), "{:?}", told(&done));
    let report = phones.request(2, "REPORT", "rep2", &lines, None, '$');
    assert_eq!(told(&phones.say_raw(2, &report)), [(false, true)]);
    assert!(phones.read(1).is_empty(), "one is enough for the sender");
    is_clean(&phones);
}

// RFC 5547 §8: the rest of a file, from the octet at which it broke off.
#[test]
fn the_rest_of_a_file_ends_for_the_slow_one_too() {
    let mut phones = one_to_two(limits());
    let (body, first) = (text(900_000), 300_000);
    let lines = format!(
        "Message-ID: rest1\r\n{SILENT}Byte-Range: {}-*/{}\r\nContent-Type: a/b\r\n",
        first + 1,
        body.len()
    );
    let bytes = phones.request(1, "SEND", "resttid", &lines, Some(&body[first..]), '$');
    Sender::new(bytes).push(&mut phones);
    let mut slow = Vec::new();
    for _ in 0..300 {
        drink(&mut phones, &mut slow);
    }
    let (rest, read) = parse(&slow);
    assert!(rest.is_empty());
    let had: Vec<u8> = read.iter().filter(|r| r.is(Method::Send)).flat_map(|r| r.body.clone()).collect();
    assert!(had == body[first..]);
    assert_eq!(read.last().unwrap().flag, Flag::Last);
    is_clean(&phones);
}

// Without a disk the slowest paces the others.
#[test]
fn where_nothing_may_go_to_disk_nothing_does() {
    let mut phones = one_to_two(Limits { spill_bytes_max: 0, ..limits() });
    let mut sender = Sender::new(file(&phones, "big1", &text(500_000), SILENT));
    sender.push(&mut phones);
    assert!(sender.paused && phones.rig.disk.waiting.is_empty() && phones.rig.disk.files.is_empty());
}
