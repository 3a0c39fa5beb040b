//! What an S-CSCF brings and gets back, and what it tells of registrations, through the lane.

use sip::{Method, Name, Peer, Request, Transport};

use crate::testing::{Event, World, call_sdp, peer, reply, text, via};
use crate::{ServerTx, Table};

const PHONE: &str = "urn:uuid:00000000-0000-1000-8000-000000000007";
const OTHER: &str = "urn:uuid:00000000-0000-1000-8000-000000000008";

fn scscf() -> Peer {
    Peer::new(Transport::Udp, ([10, 0, 0, 9], 5060).into())
}

/// Nobody is registered here but by the S-CSCF's word.
fn world(change: impl FnOnce(&mut crate::Config)) -> World {
    World::configured(|config| {
        config.identity.trusted_peers = vec![scscf().addr.ip()];
        change(config);
    })
}

/// A request as an S-CSCF brings it.
fn brought(method: &str, id: &str, routes: &str, extra: &str, body: &str) -> Request {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    text(&format!(
        "{method} sip:bob@weir.example SIP/2.0\r\n{}Route: {routes}\r\nFrom: <sip:alice@weir.example>;tag=a\r\n\
         To: <sip:bob@weir.example>\r\nCall-ID: {id}\r\nCSeq: 1 {method}\r\nContact: <sip:alice@10.0.0.9:5060>\r\n\
         P-Asserted-Identity: <sip:alice@weir.example>\r\n{extra}{kind}Content-Length: {}\r\n\r\n{body}",
        via(),
        body.len()
    ))
}

const ORIGINATING: &str = "<sip:127.0.0.1:5060;lr;orig>, <sip:odi-7%20x@10.0.0.9:5060;lr;orig-call>";
const TERMINATING: &str = "<sip:127.0.0.1:5060;lr>, <sip:odi-8@10.0.0.9:5060;lr>";
const CHARGING: &str = "P-Charging-Vector: icid-value=\"abc\";icid-generated-at=10.0.0.9\r\n\
                        P-Charging-Function-Addresses: ccf=10.0.0.3\r\n\
                        P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1\r\n";

fn offer() -> String {
    call_sdp("192.0.2.1", 5001, "sendrecv", 1)
}

fn answer() -> String {
    call_sdp("192.0.2.2", 5002, "sendrecv", 1)
}

#[test]
fn ts24229_s5_7_the_route_behind_ours_goes_back_as_it_came_in_both_cases() {
    for (routes, case, odi) in [
        (ORIGINATING, "orig", "<sip:odi-7%20x@10.0.0.9:5060;lr;orig-call>"),
        (TERMINATING, "term", "<sip:odi-8@10.0.0.9:5060;lr>"),
    ] {
        for (method, body) in [("MESSAGE", String::new()), ("INVITE", offer())] {
            let user = if case == "orig" { "alice" } else { "bob" };
            let served = format!("P-Served-User: <sip:{user}@weir.example>;sescase={case};regstate=reg\r\n");
            let mut world = world(|_| {});
            let tx =
                world.send(scscf(), brought(method, "c1", routes, &format!("{served}{CHARGING}"), &body));
            let (client, back) = world.request(scscf(), &Method::parse(method.as_bytes()).unwrap());
            let h = &back.headers;
            assert_eq!(h.text(&Name::Route), Some(odi), "the original dialog identifier");
            assert_eq!(h.values(&Name::Route).count(), 1, "ours is gone");
            assert_eq!(back.uri.to_string(), "sip:bob@weir.example", "for the same address");
            assert_ne!(back.call_id(), Some("c1"), "a dialog of its own");
            assert_eq!(h.text(&Name::PAssertedIdentity), Some("<sip:alice@weir.example>"));
            assert!(h.text(&Name::PServedUser).unwrap().contains(case));
            for name in [Name::PChargingVector, Name::PChargingFunctionAddresses, Name::PAccessNetworkInfo] {
                assert!(h.has(&name), "{name:?} stays within the core");
            }
            world.reply(client, reply(&back, 200, "s", &body));
            assert_eq!(world.code(tx), Some(200), "{method} {case}");
        }
    }
}

#[test]
fn an_anchored_call_goes_through_the_core_twice_and_ends() {
    let mut world = world(|_| {});
    let tx = world.send(scscf(), brought("INVITE", "c1", TERMINATING, "", &offer()));
    let (client, back) = world.request(scscf(), &Method::Invite);
    assert_ne!(back.body, offer(), "media is anchored for the served user");
    let mut ok = reply(&back, 200, "s", &answer());
    ok.headers.set(Name::Contact, "<sip:bob@10.0.0.77:5060>");
    ok.headers.push(Name::RecordRoute, "<sip:10.0.0.9:5060;lr>");
    world.reply(client, ok);
    let Some(Event::Ack(ack)) = world.next(scscf()) else { panic!("no ACK") };
    assert_eq!(ack.headers.text(&Name::Route), Some("<sip:10.0.0.9:5060;lr>"));
    let answered = world.answer(tx).unwrap().clone();
    assert_eq!(answered.code, 200);
    let bye = super::super::participating::tests::session::inside("BYE", 2, &answered, true, "");
    let bye = world.send(scscf(), bye);
    assert_eq!(world.code(bye), Some(200));
    let (_, bye) = world.request(scscf(), &Method::Bye);
    assert_eq!(bye.uri.to_string(), "sip:bob@10.0.0.77:5060", "through the core, not around it");
    assert_eq!(world.service.counters().sessions, 0);
}

#[test]
fn rfc5502_whoever_is_served_has_the_session() {
    // The S-CSCF says whom it means, whatever the asserted identity is.
    let mut world = world(|_| {});
    let served = "P-Served-User: <sip:carol@weir.example>;sescase=orig;regstate=reg\r\n";
    world.send(scscf(), brought("INVITE", "c1", ORIGINATING, served, &offer()));
    let (client, back) = world.request(scscf(), &Method::Invite);
    world.reply(client, reply(&back, 200, "s", &answer()));
    let rows = world.rows(Table::Session);
    assert_eq!(rows[0].columns.owner.expose(), "sip:carol@weir.example");
}

#[test]
fn rfc5502_the_devices_of_whoever_is_served_are_called_whatever_the_address_is() {
    // The request is in that user's lane: nobody else's devices are known there.
    let mut world = world(|_| {});
    world.register("carol", peer(7201), PHONE);
    let served = "P-Served-User: <sip:carol@weir.example>;sescase=term;regstate=reg\r\n";
    world.send(scscf(), brought("INVITE", "c1", "<sip:127.0.0.1:5060;lr>", served, &offer()));
    world.request(peer(7201), &Method::Invite);
}

#[test]
fn an_unregistered_user_is_not_there_and_nobody_is_asked() {
    let mut world = world(|_| {});
    let served = "P-Served-User: <sip:bob@weir.example>;sescase=term;regstate=unreg\r\n";
    let tx = world.send(scscf(), brought("INVITE", "c1", TERMINATING, served, &offer()));
    assert_eq!(world.code(tx), Some(480));
    assert!(world.next(scscf()).is_none());
}

#[test]
fn a_stranger_is_no_scscf_whatever_his_route_says() {
    let mut world = World::new();
    let served = "P-Served-User: <sip:alice@weir.example>;sescase=orig;regstate=reg\r\n";
    let tx = world.send(peer(7001), brought("INVITE", "c1", ORIGINATING, served, &offer()));
    assert_eq!(world.code(tx), Some(407));
    let tx = world.send(peer(7001), third_party("r", 1, 600, ""));
    assert_eq!(world.code(tx), Some(401));
    assert!(world.next(scscf()).is_none() && world.rows(Table::Binding).is_empty());
}

#[test]
fn malformed_routes_and_served_users_lead_nowhere() {
    for (routes, served) in [
        ("<sip:127.0.0.1:5060;lr;orig>, <sip:>", "<sip:alice@weir.example>;sescase=orig"),
        ("<sip:127.0.0.1:5060;lr;orig>, <<sip:x@10.0.0.9>", "<sip:alice@weir.example>;sescase=orig"),
        ("<sip:127.0.0.1:5060;lr;orig>", ";;sescase=orig"),
    ] {
        let mut world = world(|_| {});
        let extra = format!("P-Served-User: {served}\r\n");
        let tx = world.send(scscf(), brought("INVITE", "c1", routes, &extra, &offer()));
        assert!(world.next(scscf()).is_none(), "{routes}");
        assert!(world.code(tx).is_some_and(|code| code >= 400), "{routes}: {:?}", world.code(tx));
    }
}

#[test]
fn rfc7315_charging_begins_here_where_it_is_ours_to_begin() {
    let mut world = world(|config| {
        config.ims.charging_vector = true;
        config.ims.charging_functions = "ccf=192.0.2.5".into();
    });
    world.send(scscf(), brought("MESSAGE", "c1", ORIGINATING, "", ""));
    let (_, back) = world.request(scscf(), &Method::Message);
    let vector = back.headers.text(&Name::PChargingVector).unwrap();
    assert!(vector.starts_with("icid-value=\"") && vector.contains(";orig-ioi=weir.example"), "{vector}");
    assert_eq!(back.headers.text(&Name::PChargingFunctionAddresses), Some("ccf=192.0.2.5"));
    // What is there stays.
    world.send(scscf(), brought("MESSAGE", "c2", ORIGINATING, CHARGING, ""));
    let (_, back) = world.request(scscf(), &Method::Message);
    assert!(back.headers.text(&Name::PChargingVector).unwrap().contains("icid-value=\"abc\""));
    assert_eq!(back.headers.text(&Name::PChargingFunctionAddresses), Some("ccf=10.0.0.3"));
}

#[test]
fn rfc7315_charging_stays_within_the_trust_domain_both_ways() {
    // Bob's phone is registered here, the caller is behind the core.
    let mut world = world(|_| {});
    world.register("bob", peer(7101), PHONE);
    let plain = "<sip:127.0.0.1:5060;lr>";
    world.send(scscf(), brought("MESSAGE", "c1", plain, CHARGING, ""));
    let (_, told) = world.request(peer(7101), &Method::Message);
    for name in [Name::PChargingVector, Name::PChargingFunctionAddresses, Name::PAccessNetworkInfo] {
        assert!(!told.headers.has(&name), "{name:?}");
    }
    // A phone here calls into the core: the answer's charging is not for it.
    let tx = world.send(scscf(), third_party("r", 1, 600, ""));
    assert_eq!(world.code(tx), Some(200));
    let call = crate::testing::request("MESSAGE", "bob", "carol", "m1", "", "", "");
    let tx = world.send(peer(7101), call);
    let (client, back) = world.request(scscf(), &Method::Message);
    let mut ok = reply(&back, 200, "s", "");
    ok.headers.push(Name::PChargingVector, "icid-value=\"abc\"");
    world.reply(client, ok);
    let answer = world.answer(tx).unwrap();
    assert_eq!(answer.code, 200);
    assert!(!answer.headers.has(&Name::PChargingVector));
}

/// A third-party REGISTER of Carol.
fn third_party(id: &str, cseq: u32, expires: u32, body: &str) -> Request {
    let kind = match body {
        "" => "",
        b if b.starts_with("--") => "Content-Type: multipart/mixed;boundary=b\r\n",
        _ => "Content-Type: message/sip\r\n",
    };
    text(&format!(
        "REGISTER sip:weir.example SIP/2.0\r\n{}From: <sip:scscf.weir.example>;tag=s\r\nTo: <sip:carol@weir.example>\r\n\
         Call-ID: {id}\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:10.0.0.9:5060>\r\nExpires: {expires}\r\n{kind}\
         Content-Length: {}\r\n\r\n{body}",
        via(),
        body.len()
    ))
}

fn inner(first: &str, to: &str, contacts: &str) -> String {
    format!(
        "{first}\r\nVia: SIP/2.0/UDP 10.0.0.50:5060;branch=z9hG4bKu\r\nFrom: <sip:{to}@weir.example>;tag=u\r\n\
         To: <sip:{to}@weir.example>\r\nCall-ID: u\r\nCSeq: 5 REGISTER\r\n{contacts}Content-Length: 0\r\n\r\n"
    )
}

fn both(to: &str, in_200: &str) -> String {
    let register = inner("REGISTER sip:weir.example SIP/2.0", to, "Contact: <sip:carol@10.0.0.50>\r\n");
    let ok = inner("SIP/2.0 200 OK", to, in_200);
    format!(
        "--b\r\nContent-Type: message/sip\r\n\r\n{register}\r\n--b\r\nContent-Type: message/sip\r\n\r\n{ok}\r\n--b--\r\n"
    )
}

fn contact(instance: &str, expires: u32) -> String {
    format!(
        "Contact: <sip:carol@10.0.0.50>;expires={expires};+sip.instance=\"<{instance}>\";\
         pub-gruu=\"sip:carol@weir.example;gr={instance}\";+g.oma.sip-im\r\n"
    )
}

fn tell(world: &mut World, request: Request) -> Option<u16> {
    let tx: ServerTx = world.send(scscf(), request);
    world.code(tx)
}

/// A message to Carol from Bob, who is registered here; whom it was sent to.
fn message(world: &mut World, id: &str) -> Vec<Request> {
    let call = crate::testing::request("MESSAGE", "bob", "carol", id, "", "", "");
    world.send(peer(7101), call);
    let mut sent = Vec::new();
    while let Some(Event::Request(client, request)) = world.next(scscf()) {
        world.reply(client, request.respond(200));
        sent.push(request);
    }
    sent
}

#[test]
fn ts24229_s5_4_1_7_a_third_party_register_makes_its_user_known_with_his_devices() {
    let mut world = world(|_| {});
    world.register("bob", peer(7101), PHONE);
    let body = both("carol", &format!("{}{}", contact(PHONE, 300), contact(OTHER, 300)));
    assert_eq!(tell(&mut world, third_party("r1", 1, 600, &body)), Some(200));
    let sent = message(&mut world, "m1");
    assert_eq!(sent.len(), 2, "each device");
    for (request, instance) in sent.iter().zip([PHONE, OTHER]) {
        assert_eq!(request.uri.to_string(), format!("sip:carol@weir.example;gr={instance}"), "its GRUU");
        assert_eq!(request.headers.text(&Name::Route), Some("<sip:10.0.0.9:5060;lr>"), "through the S-CSCF");
        assert!(request.headers.text(&Name::AcceptContact).unwrap().contains(instance));
        assert!(!request.headers.has(&Name::PCalledPartyId), "that is the S-CSCF's to say");
        assert_eq!(request.headers.text(&Name::PAssertedIdentity), Some("<sip:bob@weir.example>"));
    }
    // The next 200 lists one device only: the other one is gone.
    let body = both("carol", &contact(OTHER, 300));
    assert_eq!(tell(&mut world, third_party("r2", 1, 600, &body)), Some(200));
    assert_eq!(message(&mut world, "m2").len(), 1);
    // What a device was granted counts, not what the S-CSCF says of all.
    world.pass(301);
    assert!(message(&mut world, "m3").is_empty());
}

#[test]
fn a_third_party_register_lives_through_a_restart_and_ends() {
    let mut world = world(|_| {});
    world.register("bob", peer(7101), PHONE);
    assert_eq!(tell(&mut world, third_party("r1", 1, 600, "")), Some(200));
    world.restart();
    let sent = message(&mut world, "m1");
    assert_eq!(sent.len(), 1, "one device that nothing is known of");
    assert_eq!(sent[0].uri.to_string(), "sip:carol@weir.example");
    assert_eq!(tell(&mut world, third_party("r1", 1, 0, "")), Some(500), "it came before");
    assert_eq!(tell(&mut world, third_party("r1", 2, 0, "")), Some(200));
    assert!(message(&mut world, "m2").is_empty());
    // A REGISTER alone adds.
    let alone = inner("REGISTER sip:weir.example SIP/2.0", "carol", &contact(PHONE, 300));
    assert_eq!(tell(&mut world, third_party("r3", 1, 600, &alone)), Some(200));
    assert_eq!(message(&mut world, "m3").len(), 1);
}

#[test]
fn malformed_bodies_of_a_third_party_register_change_nothing() {
    let mut world = world(|config| config.limits.bindings_per_user_max = 3);
    let many: String =
        (0..4).map(|n| contact(&format!("urn:uuid:00000000-0000-1000-8000-00000000010{n}"), 300)).collect();
    let good = contact(PHONE, 300);
    for (body, code) in [
        (both("dave", &good), 400),
        (both("carol", "Contact: <<>\r\n"), 400),
        (both("carol", &many), 403),
        ("REGISTER sip:x SIP/2.0\r\n\r\n".to_owned(), 400),
        ("--b\r\nContent-Type: message/sip\r\n\r\nnothing\r\n--b--\r\n".to_owned(), 400),
        (inner("INVITE sip:weir.example SIP/2.0", "carol", &good).replace("REGISTER", "INVITE"), 400),
        ("--b\r\nno end".to_owned(), 400),
    ] {
        assert_eq!(tell(&mut world, third_party("r1", 1, 600, &body)), Some(code), "{body}");
        assert!(world.rows(Table::Binding).is_empty());
    }
    // A body of another kind is not for us.
    let mut other = third_party("r2", 1, 600, "x");
    other.headers.set(Name::ContentType, "application/3gpp-ims+xml");
    assert_eq!(tell(&mut world, other), Some(200));
}
