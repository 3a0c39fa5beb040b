//! PRACK and early media through the two back-to-back user agents of a call (RFC 3262, RFC 3261 §13.2.1).

use sip::typed::{RAck, RSeq};
use sip::{Method, Name, Request, Response};

use super::session::inside;
use super::{ALICE, BOB, BOB2, instance, phone};
use crate::testing::{Event, World, call_sdp, reply, request, sdp_of};
use crate::{ClientTx, ServerTx, Table};

/// Alice and Bob with one device each.
pub(super) fn world() -> World {
    let mut world = World::new();
    for (user, port) in [("alice", ALICE), ("bob", BOB)] {
        world.register(user, phone(port), &instance(port));
    }
    world
}

pub(super) fn offer() -> String {
    call_sdp("192.0.2.1", 5001, "sendrecv", 1)
}

pub(super) fn answer() -> String {
    call_sdp("192.0.2.2", 5002, "sendrecv", 1)
}

pub(super) fn invite(world: &mut World, extra: &str, sdp: &str) -> ServerTx {
    let kind = if sdp.is_empty() { "" } else { "application/sdp" };
    let request = request("INVITE", "alice", "bob", "c1", extra, kind, sdp);
    world.send(phone(ALICE), request)
}

/// A provisional response of Bob's with a number.
pub(super) fn reliable(invite: &Request, code: u16, tag: &str, rseq: &str, sdp: &str) -> Response {
    let mut response = reply(invite, code, tag, sdp);
    response.headers.push(Name::Require, "100rel");
    response.headers.push(Name::RSeq, rseq);
    response
}

fn provisionals(world: &World, tx: ServerTx) -> Vec<Response> {
    let all = world.answers.get(&tx).cloned().unwrap_or_default();
    all.into_iter().filter(|r| r.code > 100 && r.code < 200).collect()
}

pub(super) fn last(world: &World, tx: ServerTx) -> Response {
    provisionals(world, tx).last().cloned().unwrap()
}

pub(super) fn rseq(response: &Response) -> u32 {
    response.headers.must::<RSeq>().unwrap().0
}

/// Alice's PRACK of a response.
pub(super) fn prack(world: &mut World, seq: u32, of: &Response, rack: &str, body: &str) -> ServerTx {
    let mut prack = inside("PRACK", seq, of, true, body);
    prack.headers.push(Name::RAck, rack);
    world.send(phone(ALICE), prack)
}

pub(super) fn acknowledge(world: &mut World, seq: u32, of: &Response) -> ServerTx {
    prack(world, seq, of, &format!("{} 1 INVITE", rseq(of)), "")
}

fn no_more(world: &mut World, port: u16) {
    assert!(world.next(phone(port)).is_none());
}

/// A 183 with an answer of Bob's, acknowledged to him.
pub(super) fn early(world: &mut World, extra: &str) -> (ServerTx, ClientTx, Request) {
    let tx = invite(world, extra, &offer());
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    world.reply(leg, reliable(&called, 183, "b1", "7", &answer()));
    let (_, prack) = world.request(phone(BOB), &Method::Prack);
    assert_eq!(prack.headers.must::<RAck>().unwrap().to_string(), "7 1 INVITE");
    (tx, leg, called)
}

#[test]
fn rfc3262_s4_a_reliable_response_is_acknowledged_in_its_early_dialog() {
    let mut world = world();
    invite(&mut world, "", &offer());
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    assert!(called.headers.has_token(&Name::Supported, "100rel"), "whatever the caller can");
    world.reply(leg, reliable(&called, 180, "b1", "7", ""));
    let (_, prack) = world.request(phone(BOB), &Method::Prack);
    assert_eq!(prack.headers.must::<RAck>().unwrap().to_string(), "7 1 INVITE");
    assert_eq!(prack.uri.to_string(), "sip:b1@127.0.0.1:7001", "its Contact");
    assert_eq!((prack.to_tag().as_deref(), prack.cseq().unwrap().seq), (Some("b1"), 2));
}

#[test]
fn rfc3262_s4_what_comes_again_or_out_of_order_is_not_acknowledged() {
    let mut world = world();
    invite(&mut world, "", &offer());
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    world.reply(leg, reliable(&called, 183, "b1", "7", ""));
    world.request(phone(BOB), &Method::Prack);
    for number in ["7", "9", "6"] {
        world.reply(leg, reliable(&called, 180, "b1", number, ""));
        no_more(&mut world, BOB);
    }
    world.reply(leg, reliable(&called, 180, "b1", "8", ""));
    let (_, prack) = world.request(phone(BOB), &Method::Prack);
    assert_eq!(prack.headers.must::<RAck>().unwrap().rseq, 8);
    // Another dialog of a proxy's fork has numbers of its own.
    world.reply(leg, reliable(&called, 180, "b2", "100", ""));
    let (_, prack) = world.request(phone(BOB), &Method::Prack);
    assert_eq!((prack.to_tag().as_deref(), prack.headers.must::<RAck>().unwrap().rseq), (Some("b2"), 100));
}

#[test]
fn malformed_rseq_and_rack_are_refused_or_left_alone() {
    let mut world = world();
    invite(&mut world, "", &offer());
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    for number in ["0", "x", "-1", "4294967296", "1 2", ""] {
        world.reply(leg, reliable(&called, 180, "b1", number, ""));
        no_more(&mut world, BOB);
    }
    let mut world = self::world();
    let (tx, ..) = early(&mut world, "Supported: 100rel\r\n");
    let shown = last(&world, tx);
    for (seq, rack) in (2..).zip(["1 INVITE", "x 1 INVITE", "4294967296 1 INVITE", "1 1", "1 1 IN VITE"]) {
        let tx = prack(&mut world, seq, &shown, rack, "");
        assert_eq!(world.code(tx), Some(400), "{rack}");
    }
}

#[test]
fn too_many_early_dialogs_of_one_invite_are_not_kept() {
    let mut world = World::configured(|config| config.limits.early_dialogs_max = 2);
    for (user, port) in [("alice", ALICE), ("bob", BOB)] {
        world.register(user, phone(port), &instance(port));
    }
    invite(&mut world, "", &offer());
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    for tag in ["b1", "b2"] {
        world.reply(leg, reliable(&called, 180, tag, "1", ""));
        world.request(phone(BOB), &Method::Prack);
    }
    world.reply(leg, reliable(&called, 180, "b3", "1", ""));
    no_more(&mut world, BOB);
}

#[test]
fn rfc3262_s3_a_caller_that_requires_it_gets_every_response_reliably() {
    let mut world = world();
    let tx = invite(&mut world, "Require: 100rel\r\n", &offer());
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    assert!(!called.headers.has_token(&Name::Require, "100rel"), "each side is its own end");
    world.reply(leg, reply(&called, 180, "b1", ""));
    let ring = last(&world, tx);
    assert!(ring.headers.has_token(&Name::Require, "100rel"));
    assert!((1..1 << 31).contains(&rseq(&ring)), "§3: at first below 2^31");
    let ok = acknowledge(&mut world, 2, &ring);
    assert_eq!(world.code(ok), Some(200));
    world.pass(40);
    assert_eq!(provisionals(&world, tx).len(), 1, "acknowledged: not sent again");
    world.reply(leg, reply(&called, 200, "b1", &answer()));
    assert_eq!(world.code(tx), Some(200));
}

#[test]
fn rfc3262_s3_a_caller_without_it_gets_the_same_unreliably() {
    let mut world = world();
    let (tx, ..) = early(&mut world, "");
    let shown = last(&world, tx);
    assert!(!shown.headers.has(&Name::Require) && !shown.headers.has(&Name::RSeq));
    assert!(!shown.body.is_empty(), "the early media is there all the same");
    world.pass(40);
    assert_eq!(provisionals(&world, tx).len(), 1);
}

#[test]
fn rfc3262_s3_sent_again_at_doubling_intervals_and_refused_with_504_after_32_seconds() {
    let mut world = world();
    let (tx, ..) = early(&mut world, "Supported: 100rel\r\n");
    assert_eq!(provisionals(&world, tx).len(), 1);
    // At 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 seconds.
    for (seconds, sent) in [(1, 2), (1, 3), (2, 4), (4, 5), (8, 6), (15, 6)] {
        world.pass(seconds);
        assert_eq!(provisionals(&world, tx).len(), sent);
    }
    assert_eq!(world.code(tx), None);
    world.pass(1);
    assert_eq!(provisionals(&world, tx).len(), 7);
    assert_eq!(world.code(tx), Some(504));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Cancel(..))));
    let all = provisionals(&world, tx);
    assert!(all.iter().all(|r| r.to_bytes() == all[0].to_bytes()), "the same each time");
}

#[test]
fn rfc3262_s3_a_prack_of_something_else_gets_481() {
    let mut world = world();
    let (tx, ..) = early(&mut world, "Supported: 100rel\r\n");
    let shown = last(&world, tx);
    let number = rseq(&shown);
    let wrong =
        [format!("{} 1 INVITE", number + 1), format!("{number} 2 INVITE"), format!("{number} 1 UPDATE")];
    for (seq, rack) in (2..).zip(&wrong) {
        let stray = prack(&mut world, seq, &shown, rack, "");
        assert_eq!(world.code(stray), Some(481), "{rack}");
    }
    let ok = acknowledge(&mut world, 9, &shown);
    assert_eq!(world.code(ok), Some(200));
    let again = acknowledge(&mut world, 10, &shown);
    assert_eq!(world.code(again), Some(481), "it waits no more");
    // RFC 3261 §12.2.2: a number that was used goes no further.
    let old = acknowledge(&mut world, 3, &shown);
    assert_eq!(world.code(old), Some(500));
}

#[test]
fn early_media_is_anchored_before_the_answer_and_the_2xx_repeats_it() {
    let mut world = world();
    let (tx, leg, called) = early(&mut world, "Supported: 100rel\r\n");
    let shown = last(&world, tx);
    assert_eq!(shown.code, 183);
    let line = &sdp_of(&shown.body).lines[0];
    assert_eq!(line.host.as_ref().unwrap().to_string(), "192.0.2.200", "our end, not Bob's");
    let met = super::legs(&world);
    let remotes: Vec<_> = met.iter().filter_map(|l| super::rtp(l).remote.clone()).collect();
    assert_eq!(remotes.len(), 2, "both ends are met while it rings");
    let paths = world.batches.iter().flat_map(|b| &b.changes);
    let wired = paths.filter(|c| matches!(c.verb, Some(contract::change::Verb::PutPath(_)))).count();
    assert!(wired >= 2, "and media goes both ways");
    acknowledge(&mut world, 2, &shown);
    world.reply(leg, reply(&called, 200, "b1", &answer()));
    let (ok, ack) = (world.answer(tx).unwrap().clone(), world.next(phone(BOB)));
    assert_eq!((ok.code, &ok.body, ok.to_tag()), (200, &shown.body, shown.to_tag()));
    let Some(Event::Ack(ack)) = ack else { panic!("{ack:?}") };
    assert_eq!(ack.cseq().unwrap().seq, 1);
    world.ack(phone(ALICE), inside("ACK", 1, &ok, true, ""));
    // Our numbers towards Bob go on after the PRACK, Alice's after hers.
    let bye = world.send(phone(ALICE), inside("BYE", 3, &ok, true, ""));
    assert_eq!(world.code(bye), Some(200));
    let (_, bye) = world.request(phone(BOB), &Method::Bye);
    assert_eq!(bye.cseq().unwrap().seq, 3);
    assert_eq!(world.service.counters().sessions, 0);
}

#[test]
fn rfc3262_s5_a_2xx_without_a_description_after_a_reliable_answer_is_complete() {
    let mut world = world();
    let (tx, leg, called) = early(&mut world, "");
    world.reply(leg, reply(&called, 200, "b1", ""));
    let ok = world.answer(tx).unwrap();
    // The caller has seen it unreliably only: its 2xx must have it (RFC 3261 §13.2.1).
    assert_eq!((ok.code, &ok.body), (200, &last(&world, tx).body));
    assert_eq!(world.rows(Table::Session).len(), 2);
}

#[test]
fn rfc3262_s3_a_2xx_waits_for_the_prack_of_a_description() {
    let mut world = world();
    let (tx, leg, called) = early(&mut world, "Supported: 100rel\r\n");
    let shown = last(&world, tx);
    world.reply(leg, reply(&called, 200, "b1", &answer()));
    assert_eq!(world.code(tx), None);
    let ok = acknowledge(&mut world, 2, &shown);
    assert_eq!((world.code(ok), world.code(tx)), (Some(200), Some(200)));
}

#[test]
fn rfc3262_s3_a_prack_that_a_2xx_has_overtaken_is_taken() {
    let mut world = world();
    let tx = invite(&mut world, "Require: 100rel\r\n", &offer());
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    world.reply(leg, reply(&called, 180, "b1", ""));
    world.reply(leg, reply(&called, 200, "b1", &answer()));
    assert_eq!(world.code(tx), Some(200), "no description is under way");
    let ring = last(&world, tx);
    let late = acknowledge(&mut world, 2, &ring);
    assert_eq!(world.code(late), Some(200));
}

#[test]
fn rfc3262_s3_the_next_response_waits_for_the_prack() {
    let mut world = world();
    let tx = invite(&mut world, "Require: 100rel\r\n", &offer());
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    world.reply(leg, reply(&called, 180, "b1", ""));
    world.reply(leg, reliable(&called, 183, "b1", "1", &answer()));
    assert_eq!(provisionals(&world, tx).len(), 1);
    let first = last(&world, tx);
    acknowledge(&mut world, 2, &first);
    let second = last(&world, tx);
    assert_eq!((second.code, rseq(&second)), (183, rseq(&first) + 1));
    assert!(!second.body.is_empty());
}

#[test]
fn rfc3261_s13_2_2_4_another_answer_than_the_shown_one_is_of_another_dialog() {
    let mut world = world();
    let (tx, leg, called) = early(&mut world, "Supported: 100rel\r\n");
    let shown = last(&world, tx);
    acknowledge(&mut world, 2, &shown);
    // A proxy before Bob forked, and his other phone answers.
    world.reply(leg, reply(&called, 200, "b2", &call_sdp("192.0.2.9", 5009, "sendrecv", 1)));
    let ok = world.answer(tx).unwrap().clone();
    assert_eq!(ok.code, 200);
    assert_ne!(ok.to_tag(), shown.to_tag());
    assert_eq!(sdp_of(&ok.body).lines[0].host, sdp_of(&shown.body).lines[0].host, "the same end of ours");
    let legs = super::legs(&world);
    let remotes: Vec<String> =
        legs.iter().filter_map(|l| Some(format!("{:?}", super::rtp(l).remote.as_ref()?))).collect();
    assert!(remotes.iter().any(|r| r.contains("5009")), "{remotes:?}");
    world.ack(phone(ALICE), inside("ACK", 1, &ok, true, ""));
    let bye = world.send(phone(ALICE), inside("BYE", 3, &ok, true, ""));
    assert_eq!(world.code(bye), Some(200));
    let gone = world.send(phone(ALICE), inside("BYE", 4, &shown, true, ""));
    assert_eq!(world.code(gone), Some(481));
}

#[test]
fn several_devices_ring_without_early_media() {
    let mut world = world();
    world.register("bob", phone(BOB2), &instance(BOB2));
    let tx = invite(&mut world, "Supported: 100rel\r\n", &offer());
    let (first, called) = world.request(phone(BOB), &Method::Invite);
    let (second, other) = world.request(phone(BOB2), &Method::Invite);
    world.reply(first, reliable(&called, 183, "b1", "1", &answer()));
    world.reply(second, reliable(&other, 183, "b2", "1", &answer()));
    world.request(phone(BOB), &Method::Prack);
    world.request(phone(BOB2), &Method::Prack);
    assert!(provisionals(&world, tx).iter().all(|r| r.body.is_empty()));
    world.reply(second, reply(&other, 200, "b2", &answer()));
    assert_eq!(world.code(tx), Some(200));
    assert!(!world.answer(tx).unwrap().body.is_empty());
}

#[test]
fn rfc3262_s5_without_an_offer_nothing_is_reliable() {
    let mut world = world();
    let tx = invite(&mut world, "Require: 100rel\r\n", "");
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    assert!(!called.headers.has_token(&Name::Supported, "100rel"));
    world.reply(leg, reply(&called, 180, "b1", ""));
    assert!(provisionals(&world, tx).is_empty(), "the first one would have to offer");
    world.reply(leg, reliable(&called, 183, "b1", "1", &offer()));
    no_more(&mut world, BOB);
    world.reply(leg, reply(&called, 200, "b1", &offer()));
    assert_eq!(world.code(tx), Some(200));
}

#[test]
fn a_slow_data_plane_has_the_early_media_before_the_caller_and_a_2xx_passes_it_by() {
    let mut world = world();
    let tx = invite(&mut world, "Supported: 100rel\r\n", &offer());
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    world.dataplane_slow = true;
    world.reply(leg, reliable(&called, 183, "b1", "7", &answer()));
    assert!(provisionals(&world, tx).is_empty(), "not before it is there");
    world.reply(leg, reply(&called, 200, "b1", &answer()));
    assert_eq!(world.code(tx), None);
    world.dataplane_slow = false;
    world.apply();
    let ok = world.answer(tx).unwrap();
    assert_eq!(ok.code, 200);
    assert!(!ok.body.is_empty());
}

#[test]
fn rfc3261_s15_the_caller_leaves_by_bye_in_the_early_dialog() {
    let mut world = world();
    let (tx, leg, called) = early(&mut world, "Supported: 100rel\r\n");
    let shown = last(&world, tx);
    let bye = world.send(phone(ALICE), inside("BYE", 2, &shown, true, ""));
    assert_eq!((world.code(bye), world.code(tx)), (Some(200), Some(487)));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Cancel(..))));
    world.reply(leg, called.respond(487));
    assert_eq!(world.service.counters().sessions, 0);
}
