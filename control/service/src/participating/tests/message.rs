//! Flow F1: pager messages and their notifications.

use sip::{Method, Name, Peer, Request, Transport};

use super::{ALICE, ALICE2, BOB, BOB2, both, instance, phone, world};
use crate::testing::{World, authorize, connection_of, reply, request};
use crate::{FlowTrust, Input, Table};

fn cpim(from: &str, to: &str, headers: &str, kind: &str, body: &str) -> String {
    format!(
        "From: <sip:{from}@weir.example>\r\nTo: <sip:{to}@weir.example>\r\n\
         DateTime: 2026-11-22T07:15:00.120Z\r\n{headers}\r\nContent-Type: {kind}\r\n\r\n{body}"
    )
}

fn pager(id: &str) -> Request {
    let headers = "NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: m1\r\n\
                   imdn.Disposition-Notification: positive-delivery, display\r\n";
    let body = cpim("alice", "bob", headers, "text/plain", "hello");
    request(
        "MESSAGE",
        "alice",
        "bob",
        id,
        "Conversation-ID: k1\r\nContribution-ID: b1\r\n",
        "message/cpim",
        &body,
    )
}

fn notification(id: &str, element: &str, status: &str) -> Request {
    let xml = format!(
        "<imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>m1</message-id>\
         <datetime>2026-11-22T07:15:00.120Z</datetime><{element}><status><{status}/></status></{element}></imdn>"
    );
    let headers = format!("NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: n{id}\r\n");
    let body = cpim("bob", "alice", &headers, "message/imdn+xml", &xml);
    request("MESSAGE", "bob", "alice", id, "", "message/cpim", &body)
}

/// Bob's device reports; true when Alice hears of it.
fn reports(world: &mut World, device: u16, id: &str, element: &str, status: &str) -> bool {
    let tx = world.send(phone(device), notification(id, element, status));
    let heard = match world.next(phone(ALICE)) {
        Some(crate::testing::Event::Request(client, request)) => {
            world.reply(client, request.respond(200));
            true
        }
        other => {
            assert!(other.is_none());
            false
        }
    };
    assert_eq!(world.code(tx), Some(200), "the device has its 200 either way");
    heard
}

#[test]
fn f1_every_device_gets_the_message_and_the_first_200_goes_upstream() {
    let mut world = world();
    let tx = world.send(phone(ALICE), pager("p1"));
    assert_eq!(world.code(tx), None, "nothing is promised before a device has it");
    // Invariant 9: what is in our hands is in the store.
    assert_eq!(world.rows(Table::Message).len(), 1);
    let got = both().map(|port| world.request(phone(port), &Method::Message));
    for ((_, message), port) in got.iter().zip(both()) {
        let h = &message.headers;
        // Each leg its own +sip.instance (CPM-FACTS §2.8, §7.5 item 4).
        let accept: Vec<String> =
            h.fields(&Name::AcceptContact).map(|v| String::from_utf8_lossy(v).into_owned()).collect();
        assert_eq!(accept, [format!("*;+sip.instance=\"<{}>\";require;explicit", instance(port))]);
        assert_eq!(h.text(&Name::ConversationId), Some("k1"));
        assert_eq!(h.text(&Name::ContributionId), Some("b1"));
        assert_eq!(h.text(&Name::PAssertedIdentity), Some("<sip:alice@weir.example>"));
        assert_eq!(h.text(&Name::PCalledPartyId), Some("<sip:bob@weir.example>"));
        assert_eq!(h.text(&Name::ContentType), Some("message/cpim"));
        assert_eq!(message.body, pager("p1").body, "CPIM passes unmodified");
    }
    let [(first, request), (second, other)] = got;
    world.reply(second, other.respond(200));
    assert_eq!(world.code(tx), Some(200));
    // The other device is still waited for, and its failure changes nothing.
    assert_eq!(world.rows(Table::Message).len(), 1);
    world.reply(first, request.respond(486));
    assert_eq!(world.answers[&tx].len(), 1);
    assert!(world.rows(Table::Message).is_empty());
    assert_eq!(world.service.counters().messages, 0);
}

// REQ-PF-25.
#[test]
fn f1_one_notification_of_each_kind_reaches_the_sender_on_every_device() {
    let mut world = world();
    let tx = world.send(phone(ALICE), pager("p1"));
    for port in both() {
        let (client, message) = world.request(phone(port), &Method::Message);
        world.reply(client, message.respond(200));
    }
    assert_eq!(world.code(tx), Some(200));
    let delivery = "delivery-notification";
    let display = "display-notification";
    assert!(reports(&mut world, BOB, "i1", delivery, "delivered"));
    assert!(!reports(&mut world, BOB2, "i2", delivery, "delivered"));
    // The state is in the store: a restart changes nothing (REQ-PF-17).
    world.restart();
    assert!(!reports(&mut world, BOB2, "i3", delivery, "delivered"));
    assert!(reports(&mut world, BOB2, "i4", display, "displayed"));
    assert!(!reports(&mut world, BOB, "i5", display, "displayed"));
    // REQ-PF-25: all devices of the sender. A second message, so that there is something to report.
    world.register("alice", phone(ALICE2), &instance(ALICE2));
    let xml = String::from_utf8(notification("i6", delivery, "delivered").body.to_vec()).unwrap();
    let fresh = xml.replace("<message-id>m1<", "<message-id>m2<");
    let tx = world.send(phone(BOB), request("MESSAGE", "bob", "alice", "i6", "", "message/cpim", &fresh));
    for port in [ALICE, ALICE2] {
        let (client, message) = world.request(phone(port), &Method::Message);
        world.reply(client, message.respond(200));
    }
    assert_eq!(world.code(tx), Some(200));
}

#[test]
fn a_notification_that_could_not_be_passed_leaves_room_for_the_next() {
    let mut world = world();
    let tx = world.send(phone(BOB), notification("i1", "delivery-notification", "delivered"));
    let (client, _) = world.request(phone(ALICE), &Method::Message);
    world.expire(client);
    assert_eq!(world.code(tx), Some(480));
    assert!(reports(&mut world, BOB2, "i2", "delivery-notification", "delivered"));
}

#[test]
fn failed_is_held_until_the_last_device_failed() {
    let mut world = world();
    world.send(phone(ALICE), pager("p1"));
    for port in both() {
        let (client, message) = world.request(phone(port), &Method::Message);
        world.reply(client, message.respond(200));
    }
    assert!(!reports(&mut world, BOB, "i1", "delivery-notification", "failed"));
    assert!(reports(&mut world, BOB2, "i2", "delivery-notification", "failed"));
}

#[test]
fn the_best_failure_goes_upstream() {
    let mut world = world();
    let tx = world.send(phone(ALICE), pager("p1"));
    let (one, request) = world.request(phone(BOB), &Method::Message);
    let (two, _) = world.request(phone(BOB2), &Method::Message);
    world.reply(one, request.respond(486));
    assert_eq!(world.code(tx), None, "486 of one device is not final while another one may answer");
    world.expire(two);
    assert_eq!(world.code(tx), Some(486));
    assert!(world.rows(Table::Message).is_empty());
}

#[test]
fn a_message_under_way_at_a_restart_is_offered_again_and_its_retransmission_joins_it() {
    let mut world = world();
    world.send(phone(ALICE), pager("p1"));
    for port in both() {
        world.request(phone(port), &Method::Message);
    }
    world.restart();
    let got = both().map(|port| world.request(phone(port), &Method::Message));
    // Alice has no answer and sends the same request again: it joins the one that is under way.
    let tx = world.send(phone(ALICE), pager("p1"));
    for port in both() {
        assert!(world.next(phone(port)).is_none(), "a device gets it once");
    }
    for (client, request) in got {
        world.reply(client, request.respond(200));
    }
    assert_eq!(world.code(tx), Some(200));
    assert!(world.rows(Table::Message).is_empty());
}

// DESIGN §8: an accepted message arrives once.
#[test]
fn a_device_that_has_a_message_does_not_get_it_again_after_a_restart() {
    let mut world = world();
    let tx = world.send(phone(ALICE), pager("p1"));
    let (client, request) = world.request(phone(BOB), &Method::Message);
    world.request(phone(BOB2), &Method::Message);
    world.reply(client, request.respond(200));
    assert_eq!(world.code(tx), Some(200));
    world.restart();
    assert!(world.next(phone(BOB)).is_none(), "it has it");
    let (client, request) = world.request(phone(BOB2), &Method::Message);
    // Alice's 200 was lost: she asks again and hears at once.
    let again = world.send(phone(ALICE), pager("p1"));
    assert_eq!(world.code(again), Some(200));
    world.reply(client, request.respond(200));
    assert!(world.rows(Table::Message).is_empty());
}

#[test]
fn a_request_that_comes_again_is_answered_once_it_is_known() {
    let mut world = world();
    let first = world.send(phone(ALICE), pager("p1"));
    let again = world.send(phone(ALICE), pager("p1"));
    let (client, request) = world.request(phone(BOB), &Method::Message);
    world.request(phone(BOB2), &Method::Message);
    assert!(world.next(phone(BOB)).is_none(), "a device gets it once");
    world.reply(client, request.respond(200));
    assert_eq!((world.code(first), world.code(again)), (Some(200), Some(200)));
}

#[test]
fn identities_are_asserted_by_us_alone() {
    let mut world = world();
    // From an address that nobody registered from: 407, without state.
    let stranger = phone(6666);
    let tx = world.send(stranger, pager("p1"));
    let challenge = world.answer(tx).unwrap().clone();
    assert_eq!(challenge.code, 407);
    assert_eq!(world.rows(Table::Message).len(), 0);
    // With Alice's password Alice may; with Bob's nobody speaks for Alice.
    let mut forged = pager("p2");
    authorize(&mut forged, &challenge, "bob", "secret");
    let tx = world.send(stranger, forged);
    assert_eq!(world.code(tx), Some(403));
    let mut good = pager("p3");
    good.headers.push(Name::PAssertedIdentity, "<sip:carol@weir.example>");
    let fresh = world.send(stranger, pager("p3"));
    let challenge = world.answer(fresh).unwrap().clone();
    authorize(&mut good, &challenge, "alice", "secret");
    world.send(stranger, good);
    let (_, message) = world.request(phone(BOB), &Method::Message);
    assert_eq!(message.headers.text(&Name::PAssertedIdentity), Some("<sip:alice@weir.example>"));
    assert!(!message.headers.has(&Name::ProxyAuthorization), "credentials end here");
    // A registered user may not speak for another one on his own flow either.
    let tx = world.send(phone(BOB), pager("p4"));
    assert_eq!(world.code(tx), Some(407));
}

#[test]
fn refusals_have_their_codes() {
    let mut world = world();
    let code = |world: &mut World, request: Request| {
        let tx = world.send(phone(ALICE), request);
        world.code(tx)
    };
    let plain = |to: &str, id: &str| request("MESSAGE", "alice", to, id, "", "text/plain", "hi");
    assert_eq!(code(&mut world, plain("carol", "a")), Some(480), "a subscriber who is not there");
    assert_eq!(code(&mut world, plain("nobody", "b")), Some(404));
    let big = "x".repeat(9000);
    assert_eq!(code(&mut world, request("MESSAGE", "alice", "bob", "c", "", "text/plain", &big)), Some(413));
    let broken = "From: x\r\n\r\n";
    assert_eq!(
        code(&mut world, request("MESSAGE", "alice", "bob", "d", "", "message/cpim", broken)),
        Some(400)
    );
    let mut looped = plain("bob", "e");
    looped.headers.set(Name::MaxForwards, "0");
    assert_eq!(code(&mut world, looped), Some(483));
    let mut required = plain("bob", "f");
    required.headers.push(Name::Require, "magic");
    let tx = world.send(phone(ALICE), required);
    let answer = world.answer(tx).unwrap();
    assert_eq!((answer.code, answer.headers.text(&Name::Unsupported)), (420, Some("magic")));
    let _ = reply(&plain("bob", "g"), 200, "t", "");
}

/// Alice over UDP, or everybody over TCP; nothing is believed that the default does not believe.
fn strict(transport: Transport, trust: FlowTrust) -> (World, impl Fn(u16) -> Peer) {
    let mut config = World::new().config;
    config.identity.registered_flow_suffices = trust;
    let mut world = World::strict(config);
    let at = move |port| Peer::new(transport, phone(port).addr);
    for (user, port) in [("alice", ALICE), ("bob", BOB), ("bob", BOB2)] {
        world.register(user, at(port), &super::instance(port));
    }
    (world, at)
}

// RFC 5626 §5.3: a flow ends with its connection; a NAT gives the port to somebody else within seconds.
#[test]
fn who_comes_from_the_address_of_a_lost_connection_is_a_stranger() {
    let (mut world, at) = strict(Transport::Tcp, FlowTrust::Connections);
    world.send(at(ALICE), pager("p0"));
    for port in both() {
        let (client, request) = world.request(at(port), &Method::Message);
        world.reply(client, request.respond(200));
    }
    // What is for Bob goes to the device that is still there, not to whoever sits on the lost one's port.
    world.input(Input::Disconnected { connection: connection_of(at(BOB)) });
    let tx = world.send(at(ALICE), pager("p1"));
    let (client, request) = world.request(at(BOB2), &Method::Message);
    world.reply(client, request.respond(200));
    assert_eq!(world.code(tx), Some(200));
    assert!(world.next(at(BOB)).is_none());
    // Alice's address, a new connection, no credentials.
    world.input(Input::Disconnected { connection: connection_of(at(ALICE)) });
    let tx = world.send(at(ALICE), pager("p2"));
    assert_eq!(world.code(tx), Some(407));
}

// No connection outlives the process.
#[test]
fn after_a_restart_a_connection_proves_nothing() {
    let (mut world, at) = strict(Transport::Tcp, FlowTrust::Connections);
    world.restart();
    let tx = world.send(at(ALICE), pager("p1"));
    assert_eq!(world.code(tx), Some(407));
}

// Anybody can write a source address on a datagram.
#[test]
fn a_datagram_from_a_registered_address_is_challenged_unless_configured() {
    for (trust, code) in
        [(FlowTrust::Connections, Some(407)), (FlowTrust::Never, Some(407)), (FlowTrust::Always, None)]
    {
        let (mut world, at) = strict(Transport::Udp, trust);
        let tx = world.send(at(ALICE), pager("p1"));
        assert_eq!(world.code(tx), code, "{trust:?}");
    }
}

// CPM-FACTS §2.11, §3.8 item 4: nobody speaks or reports in another's name.
#[test]
fn a_message_or_a_receipt_in_anothers_name_is_refused() {
    let mut world = world();
    let send = |world: &mut World, id: &str, body: &str| {
        let message = request("MESSAGE", "alice", "bob", id, "", "message/cpim", body);
        let tx = world.send(phone(ALICE), message);
        world.code(tx)
    };
    assert_eq!(send(&mut world, "a", &cpim("carol", "bob", "", "text/plain", "hi")), Some(403));
    let receipt = |recipient: &str| {
        let xml = format!(
            "<imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>m1</message-id>\
             <datetime>2026-11-22T07:15:00Z</datetime><recipient-uri>sip:{recipient}@weir.example</recipient-uri>\
             <original-recipient-uri>sip:{recipient}@weir.example</original-recipient-uri>\
             <delivery-notification><status><delivered/></status></delivery-notification></imdn>"
        );
        cpim("alice", "bob", "", "message/imdn+xml", &xml)
    };
    assert_eq!(send(&mut world, "b", &receipt("carol")), Some(403));
    assert!(world.next(phone(BOB)).is_none());
    // Her own, and anonymity, are hers to say.
    assert_eq!(send(&mut world, "c", &receipt("alice")), None);
    let anonymous = cpim("alice", "bob", "", "text/plain", "hi")
        .replace("sip:alice@weir.example", "sip:anonymous@anonymous.invalid");
    assert_eq!(send(&mut world, "d", &anonymous), None);
    for _ in 0..2 {
        world.request(phone(BOB), &Method::Message);
    }
}
