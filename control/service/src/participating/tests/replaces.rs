//! INVITEs that name another dialog: Replaces (RFC 3891), Join (RFC 3911), Target-Dialog (RFC 4538).

use sip::typed::{Join, Replaces, TargetDialog};
use sip::{Method, Name, Request, Response};

use super::session::inside;
use super::{ALICE, ALICE2, BOB, BOB2, instance, phone};
use crate::testing::{World, call_sdp, reply, request};
use crate::{ClientTx, ServerTx};

/// Alice and Bob with two phones each, who talk on their first ones; Alice's 200, and Bob's answer.
fn talking() -> (World, Response, Response) {
    let mut world = World::new();
    let phones = [("alice", ALICE), ("alice", ALICE2), ("bob", BOB), ("bob", BOB2), ("carol", 7201)];
    for (user, port) in phones {
        world.register(user, phone(port), &instance(port));
    }
    let offer = call_sdp("192.0.2.1", 5001, "sendrecv", 1);
    let tx = world.send(phone(ALICE), request("INVITE", "alice", "bob", "c1", "", "application/sdp", &offer));
    let (client, called) = world.request(phone(BOB), &Method::Invite);
    let (other, second) = world.request(phone(BOB2), &Method::Invite);
    let bob = reply(&called, 200, "b1", &call_sdp("192.0.2.2", 5002, "sendrecv", 1));
    world.reply(client, bob.clone());
    world.reply(other, second.respond(487));
    let alice = world.answer(tx).unwrap().clone();
    world.ack(phone(ALICE), inside("ACK", 1, &alice, true, ""));
    for port in [BOB, BOB2] {
        world.inbox.remove(&phone(port));
    }
    (world, alice, bob)
}

/// What Alice's first phone knows of its dialog, as the receiver knows it.
fn ids(alice: &Response) -> (String, String, String) {
    let from = alice.headers.must::<sip::typed::From>().unwrap().tag().unwrap().to_owned();
    let call_id = alice.headers.text(&Name::CallId).unwrap().to_owned();
    (call_id, alice.to_tag().unwrap(), from)
}

fn again(world: &mut World, from: &str, port: u16, extra: &str) -> ServerTx {
    let offer = call_sdp("192.0.2.9", 5009, "sendrecv", 1);
    world.send(phone(port), request("INVITE", from, "bob", "c2", extra, "application/sdp", &offer))
}

fn replaces(alice: &Response) -> String {
    let (call_id, to, from) = ids(alice);
    format!("Replaces: {call_id};to-tag={to};from-tag={from}")
}

fn came(world: &mut World) -> (ClientTx, Request) {
    let it = world.request(phone(BOB), &Method::Invite);
    assert!(world.next(phone(BOB2)).is_none(), "the phone that has the dialog, and no other");
    it
}

#[test]
fn rfc3891_s3_another_phone_takes_the_call_over() {
    let (mut world, alice, bob) = talking();
    let tx = again(&mut world, "alice", ALICE2, &format!("Require: replaces\r\n{}\r\n", replaces(&alice)));
    let (client, called) = came(&mut world);
    let named = called.headers.must::<Replaces>().unwrap();
    let (call_id, to, from) = ids(&bob);
    assert_eq!((named.call_id, named.local_tag, named.remote_tag), (call_id, to, from), "as Bob knows it");
    assert!(called.headers.has_token(&Name::Require, "replaces"));
    world.reply(client, reply(&called, 200, "b2", &call_sdp("192.0.2.2", 5004, "sendrecv", 1)));
    assert_eq!(world.code(tx), Some(200));
    // Bob's phone ends what was replaced (§3), and so does ours towards Alice's first one.
    let bye = world.send(phone(BOB), inside("BYE", 1, &bob, false, ""));
    assert_eq!(world.code(bye), Some(200));
    world.request(phone(ALICE), &Method::Bye);
    assert_eq!(world.service.counters().sessions, 2, "the new one, at both users");
}

#[test]
fn rfc3911_s4_a_join_names_the_dialog_that_the_far_end_knows() {
    let (mut world, alice, bob) = talking();
    let join = replaces(&alice).replace("Replaces", "Join");
    again(&mut world, "alice", ALICE2, &format!("{join}\r\n"));
    let (_, called) = came(&mut world);
    assert_eq!(called.headers.must::<Join>().unwrap().call_id, ids(&bob).0);
}

#[test]
fn rfc4538_s3_a_target_dialog_is_the_far_ends_too() {
    let (mut world, alice, bob) = talking();
    let (call_id, to, from) = ids(&alice);
    let target = format!("Target-Dialog: {call_id};local-tag={to};remote-tag={from}\r\n");
    again(&mut world, "alice", ALICE2, &target);
    let (_, called) = came(&mut world);
    let named = called.headers.must::<TargetDialog>().unwrap();
    assert_eq!((named.call_id, named.local_tag), (ids(&bob).0, ids(&bob).1));
}

#[test]
fn rfc3891_s3_a_dialog_that_is_not_there_gets_481_and_a_confirmed_one_486_where_it_should_be_early() {
    let (mut world, alice, _) = talking();
    let (call_id, to, from) = ids(&alice);
    for (named, code) in [
        (format!("Replaces: {call_id};to-tag={to};from-tag=other"), 481),
        (format!("Replaces: other;to-tag={to};from-tag={from}"), 481),
        (format!("Replaces: {call_id};to-tag={from};from-tag={to}"), 481),
        (format!("Join: {call_id};to-tag=x;from-tag={from}"), 481),
        (format!("{};early-only", replaces(&alice)), 486),
    ] {
        let tx = again(&mut world, "alice", ALICE2, &format!("{named}\r\n"));
        assert_eq!(world.code(tx), Some(code), "{named}");
    }
    // Target-Dialog only says why: without it the call is like any other.
    again(&mut world, "alice", ALICE2, &format!("Target-Dialog: x;local-tag={to};remote-tag={from}\r\n"));
    let (_, called) = world.request(phone(BOB), &Method::Invite);
    assert!(!called.headers.has(&Name::TargetDialog));
}

#[test]
fn rfc3891_s8_nobody_takes_over_what_is_not_his() {
    let (mut world, _, bob) = talking();
    // Carol has seen the ids of Bob's dialog with us; it is with Alice.
    let (call_id, to, from) = ids(&bob);
    let own = format!("Replaces: {call_id};to-tag={from};from-tag={to}\r\n");
    let tx = again(&mut world, "carol", 7201, &own);
    assert_eq!(world.code(tx), Some(403));
    assert_eq!(world.service.counters().sessions, 2);
}

#[test]
fn malformed_names_of_dialogs_are_refused() {
    let (mut world, alice, _) = talking();
    let good = replaces(&alice);
    let both = format!("{good}\r\n{}", good.replace("Replaces", "Join"));
    for named in [
        "Replaces: x",
        "Replaces: ;to-tag=a;from-tag=b",
        "Join: x;to-tag=a",
        "Replaces: x;to-tag=;from-tag=b",
        &both,
    ] {
        let tx = again(&mut world, "alice", ALICE2, &format!("{named}\r\n"));
        assert_eq!(world.code(tx), Some(400), "{named}");
    }
}
