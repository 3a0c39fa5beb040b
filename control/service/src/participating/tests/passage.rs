//! What passes a back-to-back user agent from end to end: Session-ID (RFC 7989), History-Info (RFC 7044), Reason
//! (RFC 3326); and what stays in the core (RFC 7315).

use sip::{Method, Name, Request};

use super::session::inside;
use super::{ALICE, BOB, BOB2, instance, phone, world};
use crate::testing::{Event, World, call_sdp, reply, request};
use crate::{ClientTx, ServerTx};

const A: &str = "ab30317f1a784dc48ff824d0d3715d86";
const B: &str = "47755a9de7794ba387653f2099600ef2";
const NIL: &str = "00000000000000000000000000000000";

fn one_each() -> World {
    let mut world = World::new();
    for (user, port) in [("alice", ALICE), ("bob", BOB)] {
        world.register(user, phone(port), &instance(port));
    }
    world
}

fn invite(world: &mut World, extra: &str) -> (ServerTx, ClientTx, Request) {
    let offer = call_sdp("192.0.2.1", 5001, "sendrecv", 1);
    let tx =
        world.send(phone(ALICE), request("INVITE", "alice", "bob", "c1", extra, "application/sdp", &offer));
    let (client, called) = world.request(phone(BOB), &Method::Invite);
    (tx, client, called)
}

fn history(request: &Request) -> Vec<String> {
    request.headers.values(&Name::HistoryInfo).map(|v| String::from_utf8_lossy(v).into_owned()).collect()
}

#[test]
fn rfc7989_s7_the_session_has_one_name_from_end_to_end() {
    let mut world = one_each();
    let (tx, client, called) = invite(&mut world, &format!("Session-ID: {A};remote={NIL}\r\n"));
    assert_eq!(called.headers.text(&Name::SessionId), Some(&*format!("{A};remote={NIL}")));
    let mut ok = reply(&called, 200, "b1", &call_sdp("192.0.2.2", 5002, "sendrecv", 1));
    ok.headers.push(Name::SessionId, format!("{B};remote={A}"));
    world.reply(client, ok);
    let ok = world.answer(tx).unwrap().clone();
    assert_eq!(ok.headers.text(&Name::SessionId), Some(&*format!("{B};remote={A}")));
    let Some(Event::Ack(ack)) = world.next(phone(BOB)) else { panic!("no ACK") };
    assert_eq!(ack.headers.text(&Name::SessionId), Some(&*format!("{A};remote={B}")), "our ACK too");
    world.ack(phone(ALICE), inside("ACK", 1, &ok, true, ""));
    let mut bye = inside("BYE", 2, &ok, true, "");
    bye.headers.push(Name::SessionId, format!("{A};remote={B}"));
    world.send(phone(ALICE), bye);
    let (_, bye) = world.request(phone(BOB), &Method::Bye);
    assert_eq!(bye.headers.text(&Name::SessionId), Some(&*format!("{A};remote={B}")));
}

#[test]
fn rfc7989_s7_an_answer_of_our_own_has_the_name_from_the_other_side() {
    let mut world = one_each();
    let extra = format!("Session-ID: {A};remote={NIL}\r\n");
    let offer = call_sdp("192.0.2.1", 5001, "sendrecv", 1);
    let tx = world
        .send(phone(ALICE), request("INVITE", "alice", "nobody", "c1", &extra, "application/sdp", &offer));
    let refused = world.answer(tx).unwrap();
    assert_eq!(
        (refused.code, refused.headers.text(&Name::SessionId)),
        (404, Some(&*format!("{NIL};remote={A}")))
    );
}

#[test]
fn malformed_session_ids_do_not_pass() {
    for bad in ["x", &A.to_uppercase(), &format!("{A};remote=1")] {
        let mut world = one_each();
        let (_, _, called) = invite(&mut world, &format!("Session-ID: {bad}\r\n"));
        assert!(!called.headers.has(&Name::SessionId), "{bad}");
    }
}

#[test]
fn rfc7044_s7_who_supports_it_gets_an_entry_for_each_device() {
    let mut world = world();
    let offer = call_sdp("192.0.2.1", 5001, "sendrecv", 1);
    let asked = request("INVITE", "alice", "bob", "c1", "Supported: histinfo\r\n", "application/sdp", &offer);
    world.send(phone(ALICE), asked);
    for (branch, port) in [(1, BOB), (2, BOB2)] {
        let (_, called) = world.request(phone(port), &Method::Invite);
        let entries = history(&called);
        assert_eq!(entries.len(), 2, "{entries:?}");
        assert_eq!(entries[0], "<sip:bob@weir.example>;index=1");
        assert_eq!(entries[1], format!("<{}>;index=1.{branch};rc=1", called.uri));
    }
}

#[test]
fn rfc7044_s10_entries_of_others_stay_with_their_reasons_and_ours_follows() {
    let mut world = one_each();
    let before = "<sip:carol@weir.example?Reason=SIP%3Bcause%3D302>;index=1, <sip:bob@weir.example;cause=302>;index=1.1;mp=1";
    let (_, _, called) = invite(&mut world, &format!("History-Info: {before}\r\n"));
    let entries = history(&called);
    assert_eq!(entries[..2].join(", "), before);
    assert_eq!(entries[2], format!("<{}>;index=1.1.1;rc=1.1", called.uri));
    // Nobody has asked.
    let mut world = one_each();
    let (_, _, called) = invite(&mut world, "");
    assert!(history(&called).is_empty());
}

#[test]
fn rfc7044_s10_1_a_private_history_stays_here() {
    let mut world = one_each();
    let (_, _, called) =
        invite(&mut world, "History-Info: <sip:carol@weir.example>;index=1\r\nPrivacy: history\r\n");
    assert!(history(&called).is_empty());
}

#[test]
fn malformed_histories_are_not_added_to() {
    let many: String =
        (1..=64).map(|n| format!("History-Info: <sip:x@weir.example>;index={n}\r\n")).collect();
    let long = format!("History-Info: <sip:x@weir.example>;index={}\r\n", "1.".repeat(200) + "1");
    for (extra, count) in [
        ("History-Info: <sip:x@weir.example>\r\n", 1),
        ("History-Info: <sip:x@weir.example>;index=1..2\r\n", 1),
        ("History-Info: <sip:x@weir.example>;index=a\r\n", 1),
        ("History-Info: <<\r\n", 1),
        (&*long, 1),
        (&*many, 64),
    ] {
        let mut world = one_each();
        let (_, _, called) = invite(&mut world, extra);
        assert_eq!(history(&called).len(), count, "{extra}");
    }
}

#[test]
fn rfc3326_all_reasons_of_a_bye_pass() {
    let mut world = one_each();
    let (tx, client, called) = invite(&mut world, "");
    world.reply(client, reply(&called, 200, "b1", &call_sdp("192.0.2.2", 5002, "sendrecv", 1)));
    world.next(phone(BOB));
    let ok = world.answer(tx).unwrap().clone();
    world.ack(phone(ALICE), inside("ACK", 1, &ok, true, ""));
    let mut bye = inside("BYE", 2, &ok, true, "");
    bye.headers.push(Name::Reason, "SIP;cause=200;text=\"Call completed\"");
    bye.headers.push(Name::Reason, "Q.850;cause=16");
    world.send(phone(ALICE), bye);
    let (_, bye) = world.request(phone(BOB), &Method::Bye);
    assert_eq!(bye.headers.values(&Name::Reason).count(), 2);
}

#[test]
fn rfc7315_s5_nothing_of_the_core_reaches_a_device_within_a_dialog() {
    let core = sip::Peer::new(sip::Transport::Udp, ([10, 0, 0, 9], 5060).into());
    let mut world = World::configured(|config| config.identity.trusted_peers = vec![core.addr.ip()]);
    world.register("bob", phone(BOB), &instance(BOB));
    let offer = call_sdp("192.0.2.1", 5001, "sendrecv", 1);
    let asked = request("INVITE", "alice", "bob", "c1", "", "application/sdp", &offer);
    let tx = world.send(core, asked);
    let (client, called) = world.request(phone(BOB), &Method::Invite);
    world.reply(client, reply(&called, 200, "b1", &call_sdp("192.0.2.2", 5002, "sendrecv", 1)));
    world.next(phone(BOB));
    let ok = world.answer(tx).unwrap().clone();
    world.ack(core, inside("ACK", 1, &ok, true, ""));
    for (seq, method) in (2..).zip(["INFO", "INVITE", "BYE"]) {
        let body =
            if method == "INVITE" { call_sdp("192.0.2.1", 5001, "sendonly", 2) } else { String::new() };
        let mut next = inside(method, seq, &ok, true, &body);
        next.headers.push(Name::PChargingVector, "icid-value=\"abc\"");
        next.headers.push(Name::PAccessNetworkInfo, "3GPP-GERAN");
        let tx = world.send(core, next);
        let (client, told) = world.request(phone(BOB), &Method::parse(method.as_bytes()).unwrap());
        assert!(!told.headers.has(&Name::PChargingVector), "{method}");
        assert!(!told.headers.has(&Name::PAccessNetworkInfo), "{method}");
        let sdp = if method == "INVITE" { call_sdp("192.0.2.2", 5002, "recvonly", 2) } else { String::new() };
        world.reply(client, reply(&told, 200, "b1", &sdp));
        assert_eq!(world.code(tx), Some(200), "{method}");
        if method == "INVITE" {
            world.next(phone(BOB));
            world.ack(core, inside("ACK", seq, &ok, true, ""));
        }
    }
}

// RFC 3261 §11: what a user's device can is asked of the device.
#[test]
fn options_to_a_user_are_options_at_his_device() {
    let mut world = one_each();
    let tx = world.send(phone(ALICE), request("OPTIONS", "alice", "bob", "o1", "", "", ""));
    let (client, asked) = world.request(phone(BOB), &Method::Options);
    assert_eq!(asked.cseq().unwrap().method, Method::Options);
    let mut ok = reply(&asked, 200, "b1", "");
    ok.headers.set(Name::Allow, "INVITE, MESSAGE");
    world.reply(client, ok);
    assert_eq!(world.code(tx), Some(200));
}
