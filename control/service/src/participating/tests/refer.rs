//! REFER between two users (RFC 3515, RFC 4488, RFC 3892): inside their session, and outside of it with Target-Dialog
//! (RFC 4538). Its implicit subscription through the two back-to-back user agents, over a restart, and when it is left.

use sip::typed::Event as EventHeader;
use sip::{Method, Name, Request, Response};

use super::session::inside;
use super::{ALICE, BOB, BOB2, instance, phone};
use crate::testing::{World, call_sdp, reply, request};
use crate::{ClientTx, ServerTx, Table};

const CAROL: u16 = 7201;

/// A call between Alice and Bob, who has a second phone; Alice's 200, and Bob's answer.
fn talking() -> (World, Response, Response) {
    let mut world = World::new();
    for (user, port) in [("alice", ALICE), ("bob", BOB), ("carol", CAROL)] {
        world.register(user, phone(port), &instance(port));
    }
    let offer = call_sdp("192.0.2.1", 5001, "sendrecv", 1);
    let tx = world.send(phone(ALICE), request("INVITE", "alice", "bob", "c1", "", "application/sdp", &offer));
    let (client, called) = world.request(phone(BOB), &Method::Invite);
    let bob = reply(&called, 200, "b1", &call_sdp("192.0.2.2", 5002, "sendrecv", 1));
    world.reply(client, bob.clone());
    let alice = world.answer(tx).unwrap().clone();
    world.ack(phone(ALICE), inside("ACK", 1, &alice, true, ""));
    world.inbox.remove(&phone(BOB));
    world.register("bob", phone(BOB2), &instance(BOB2));
    (world, alice, bob)
}

fn refer(alice: &Response, seq: u32, extra: &[(Name, &str)]) -> Request {
    let mut refer = inside("REFER", seq, alice, true, "");
    refer.headers.push(Name::ReferTo, "<sip:carol@weir.example>");
    for (name, value) in extra {
        refer.headers.set(name.clone(), *value);
    }
    refer
}

fn came(world: &mut World) -> (ClientTx, Request) {
    world.request(phone(BOB), &Method::Refer)
}

/// Bob takes it.
fn taken(world: &mut World, alice: &Response, seq: u32) -> (ServerTx, Request) {
    let tx = world.send(phone(ALICE), refer(alice, seq, &[]));
    let (client, asked) = came(world);
    world.reply(client, reply(&asked, 202, "b1", ""));
    assert_eq!(world.code(tx), Some(202));
    (tx, asked)
}

fn notify(bob: &Response, seq: u32, id: &str, state: &str, line: &str) -> Request {
    let mut notify = inside("NOTIFY", seq, bob, false, "");
    notify.headers.push(Name::Event, format!("refer{id}"));
    notify.headers.push(Name::SubscriptionState, state);
    notify.set_body("message/sipfrag", format!("{line}\r\n"));
    notify
}

fn id_of(request: &Request) -> u32 {
    request.headers.must::<EventHeader>().unwrap().id().unwrap().parse().unwrap()
}

fn seq(request: &Request) -> u32 {
    request.cseq().unwrap().seq
}

/// Bob's NOTIFY of that REFER reaches Alice, with her number.
fn told(
    world: &mut World,
    bob: &Response,
    number: u32,
    asked: &Request,
    theirs: u32,
    state: &str,
) -> Request {
    let id = format!(";id={}", seq(asked));
    let tx = world.send(phone(BOB), notify(bob, number, &id, state, "SIP/2.0 200 OK"));
    let (client, notify) = world.request(phone(ALICE), &Method::Notify);
    assert_eq!(id_of(&notify), theirs);
    world.reply(client, notify.respond(200));
    assert_eq!(world.code(tx), Some(200));
    notify
}

#[test]
fn rfc3515_s2_4_a_refer_goes_to_the_other_end_and_its_notifications_come_back() {
    let (mut world, alice, bob) = talking();
    // Alice's numbers and ours towards Bob are not the same.
    let (_, asked) = taken(&mut world, &alice, 77);
    assert_eq!(asked.headers.text(&Name::ReferTo), Some("<sip:carol@weir.example>"));
    assert_eq!(asked.headers.text(&Name::ReferredBy), Some("<sip:alice@weir.example>"), "RFC 3892: who asks");
    assert_ne!(seq(&asked), 77);
    let first = told(&mut world, &bob, 1, &asked, 77, "active;expires=60");
    assert_eq!(first.body, "SIP/2.0 200 OK\r\n");
    told(&mut world, &bob, 2, &asked, 77, "terminated;reason=noresource");
    // RFC 6665 §4.1.3: it is over.
    let late = notify(&bob, 3, "", "active", "SIP/2.0 200 OK");
    let tx = world.send(phone(BOB), late);
    assert_eq!(world.code(tx), Some(481));
    assert!(world.rows(Table::Relay).is_empty());
    let bye = world.send(phone(ALICE), inside("BYE", 78, &alice, true, ""));
    assert_eq!(world.code(bye), Some(200));
    assert!(world.next(phone(ALICE)).is_none());
}

#[test]
fn rfc3515_s2_4_6_several_in_one_dialog_are_told_apart() {
    let (mut world, alice, bob) = talking();
    let (_, first) = taken(&mut world, &alice, 20);
    let (_, second) = taken(&mut world, &alice, 30);
    told(&mut world, &bob, 1, &second, 30, "terminated;reason=noresource");
    told(&mut world, &bob, 2, &first, 20, "terminated;reason=noresource");
    let stray = world.send(phone(BOB), notify(&bob, 3, ";id=999", "active", "SIP/2.0 100 Trying"));
    assert_eq!(world.code(stray), Some(481));
}

#[test]
fn a_notification_that_overtakes_the_202_passes() {
    let (mut world, alice, bob) = talking();
    let tx = world.send(phone(ALICE), refer(&alice, 5, &[]));
    let (client, asked) = came(&mut world);
    told(&mut world, &bob, 1, &asked, 5, "active;expires=60");
    world.reply(client, reply(&asked, 202, "b1", ""));
    assert_eq!(world.code(tx), Some(202));
}

#[test]
fn rfc4488_s4_without_a_subscription_nothing_stays() {
    let (mut world, alice, bob) = talking();
    let tx = world
        .send(phone(ALICE), refer(&alice, 5, &[(Name::ReferSub, "false"), (Name::Require, "norefersub")]));
    let (client, asked) = came(&mut world);
    assert_eq!(asked.headers.text(&Name::ReferSub), Some("false"));
    assert!(asked.headers.has_token(&Name::Require, "norefersub"));
    let mut ok = reply(&asked, 200, "b1", "");
    ok.headers.push(Name::ReferSub, "false");
    world.reply(client, ok);
    let answer = world.answer(tx).unwrap();
    assert_eq!((answer.code, answer.headers.text(&Name::ReferSub)), (200, Some("false")));
    let stray = world.send(phone(BOB), notify(&bob, 1, "", "active", "SIP/2.0 100 Trying"));
    assert_eq!(world.code(stray), Some(481));
    assert!(world.rows(Table::Relay).is_empty());
}

#[test]
fn rfc6665_s4_1_2_the_asker_ends_the_subscription() {
    let (mut world, alice, bob) = talking();
    let (_, asked) = taken(&mut world, &alice, 9);
    let mut end = inside("SUBSCRIBE", 10, &alice, true, "");
    end.headers.push(Name::Event, "refer;id=9");
    end.headers.push(Name::Expires, "0");
    let tx = world.send(phone(ALICE), end);
    let (client, passed) = world.request(phone(BOB), &Method::Subscribe);
    assert_eq!(id_of(&passed), seq(&asked));
    world.reply(client, reply(&passed, 200, "b1", ""));
    assert_eq!(world.code(tx), Some(200));
    told(&mut world, &bob, 1, &asked, 9, "terminated;reason=timeout");
    // Bob's subscription it is not.
    let mut foreign = inside("SUBSCRIBE", 2, &bob, false, "");
    foreign.headers.push(Name::Event, "refer");
    let tx = world.send(phone(BOB), foreign);
    assert_eq!(world.code(tx), Some(481));
}

#[test]
fn a_restart_leaves_the_subscription_where_it_is() {
    let (mut world, alice, bob) = talking();
    let (_, asked) = taken(&mut world, &alice, 9);
    world.restart();
    world.inbox.clear();
    told(&mut world, &bob, 1, &asked, 9, "active;expires=60");
    // And one whose last word is never said ends, restart or not.
    world.restart();
    world.inbox.clear();
    world.pass(601);
    let mut over = None;
    while let Some(event) = world.next(phone(ALICE)) {
        if let crate::testing::Event::Request(_, request) = event
            && request.method == Method::Notify
        {
            over = Some(request);
        }
    }
    let over = over.unwrap();
    assert_eq!(id_of(&over), 9);
    assert_eq!(over.headers.text(&Name::SubscriptionState), Some("terminated;reason=timeout"));
    assert!(world.rows(Table::Relay).is_empty());
}

#[test]
fn a_session_that_ends_leaves_no_subscription_open() {
    let (mut world, alice, bob) = talking();
    taken(&mut world, &alice, 9);
    let bye = world.send(phone(ALICE), inside("BYE", 10, &alice, true, ""));
    assert_eq!(world.code(bye), Some(200));
    let (_, over) = world.request(phone(ALICE), &Method::Notify);
    assert_eq!(over.headers.text(&Name::SubscriptionState), Some("terminated;reason=noresource"));
    assert_eq!(over.body, "SIP/2.0 100 Trying\r\n");
    world.request(phone(BOB), &Method::Bye);
    let stray = world.send(phone(BOB), notify(&bob, 1, "", "active", "SIP/2.0 100 Trying"));
    assert_eq!(world.code(stray), Some(481));
    assert!(world.rows(Table::Relay).is_empty() && world.rows(Table::Session).is_empty());
}

#[test]
fn refused_and_malformed_refers_open_nothing() {
    let (mut world, alice, bob) = talking();
    let declined = world.send(phone(ALICE), refer(&alice, 2, &[]));
    let (client, asked) = came(&mut world);
    world.reply(client, asked.respond(603));
    assert_eq!(world.code(declined), Some(603));
    for (seq, header, code) in [
        (3, (Name::ReferTo, ""), 400),
        (4, (Name::ReferTo, "<sip:x@h>, <sip:y@h>"), 400),
        (5, (Name::ReferredBy, "<sip:bob@weir.example>"), 403),
        (6, (Name::ReferredBy, "<"), 400),
    ] {
        let tx = world.send(phone(ALICE), refer(&alice, seq, &[header]));
        assert_eq!(world.code(tx), Some(code), "{seq}");
    }
    let stray = world.send(phone(BOB), notify(&bob, 1, "", "active", "SIP/2.0 100 Trying"));
    assert_eq!(world.code(stray), Some(481));
    let other = world.send(phone(BOB), notify(&bob, 2, ";id=x", "active", "SIP/2.0 100 Trying"));
    assert_eq!(world.code(other), Some(481));
    // As many as a session may have.
    for seq in 10..18 {
        taken(&mut world, &alice, seq);
    }
    let more = world.send(phone(ALICE), refer(&alice, 18, &[]));
    assert_eq!(world.code(more), Some(486));
}

/// Alice's REFER outside of the dialog, which names it.
fn outside(from: &str, id: &str, extra: &str) -> Request {
    let extra = format!("Refer-To: <sip:carol@weir.example>\r\n{extra}");
    request("REFER", from, "bob", id, &extra, "", "")
}

fn target_dialog(alice: &Response) -> String {
    let from = alice.headers.must::<sip::typed::From>().unwrap().tag().unwrap().to_owned();
    let call_id = alice.headers.text(&Name::CallId).unwrap();
    format!("Target-Dialog: {call_id};local-tag={};remote-tag={from}\r\n", alice.to_tag().unwrap())
}

#[test]
fn rfc4538_s1_outside_of_the_dialog_its_name_is_the_permission_and_the_way() {
    let (mut world, alice, bob) = talking();
    let tx = world.send(phone(ALICE), outside("alice", "r1", &target_dialog(&alice)));
    let (client, asked) = came(&mut world);
    assert!(world.next(phone(BOB2)).is_none(), "the phone that has the dialog");
    let named = asked.headers.must::<sip::typed::TargetDialog>().unwrap();
    assert_eq!(named.call_id, bob.headers.text(&Name::CallId).unwrap(), "as Bob knows it");
    assert_eq!(asked.headers.text(&Name::ReferredBy), Some("<sip:alice@weir.example>"));
    let accepted = reply(&asked, 202, "b7", "");
    world.reply(client, accepted.clone());
    let answer = world.answer(tx).unwrap().clone();
    assert_eq!(answer.code, 202);
    assert_eq!(seq(&asked), 1, "the name of the subscription on both sides");
    world.restart();
    world.inbox.clear();
    let last = notify(&accepted, 1, ";id=1", "terminated;reason=noresource", "SIP/2.0 200 OK");
    let tx = world.send(phone(BOB), last);
    let (client, told) = world.request(phone(ALICE), &Method::Notify);
    assert_eq!((id_of(&told), told.from_tag()), (1, answer.to_tag()));
    world.reply(client, told.respond(200));
    assert_eq!(world.code(tx), Some(200));
    assert!(world.rows(Table::Relay).is_empty());
}

#[test]
fn rfc4538_s4_without_a_dialog_of_theirs_nobody_is_referred() {
    let (mut world, alice, _) = talking();
    let (call_id, tag) = (alice.headers.text(&Name::CallId).unwrap(), alice.to_tag().unwrap());
    let foreign = target_dialog(&alice);
    for (at, (from, port, extra, code)) in [
        ("alice", ALICE, String::new(), 403),
        ("alice", ALICE, "Target-Dialog: x;local-tag=y;remote-tag=z\r\n".to_owned(), 403),
        ("alice", ALICE, format!("Target-Dialog: {call_id};local-tag={tag};remote-tag=z\r\n"), 403),
        ("alice", ALICE, "Target-Dialog: ;local-tag=\r\n".to_owned(), 400),
        ("carol", CAROL, foreign.clone(), 403),
        ("alice", ALICE, format!("{foreign}Referred-By: <sip:carol@weir.example>\r\n"), 403),
    ]
    .into_iter()
    .enumerate()
    {
        let tx = world.send(phone(port), outside(from, &format!("r{at}"), &extra));
        assert_eq!(world.code(tx), Some(code), "{extra}");
        assert!(world.next(phone(BOB)).is_none() && world.next(phone(BOB2)).is_none());
    }
    assert_eq!(world.service.counters().relays, 0);
}
