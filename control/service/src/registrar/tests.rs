//! RFC 3261 §10.3, RFC 5626, RFC 5627, RFC 8760, through the lane.

use sip::{Name, Request};

use crate::testing::{World, authorize, peer, text, via};
use crate::{Table, UserId};

const PHONE: &str = "urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF";

fn register(call: &str, cseq: u32, contact: &str, extra: &str) -> Request {
    text(&format!(
        "REGISTER sip:weir.example SIP/2.0\r\n{}From: <sip:bob@weir.example>;tag=r\r\n\
         To: <sip:bob@weir.example>\r\nCall-ID: {call}\r\nCSeq: {cseq} REGISTER\r\n{contact}{extra}\
         Content-Length: 0\r\n\r\n",
        via()
    ))
}

/// Sends a REGISTER, answers the challenge with the password, and gives the final code and answer.
fn registered(world: &mut World, mut request: Request) -> (u16, sip::Response) {
    let tx = world.send(peer(7001), request.clone());
    let challenge = world.answer(tx).unwrap().clone();
    assert_eq!(challenge.code, 401);
    authorize(&mut request, &challenge, "bob", "secret");
    let tx = world.send(peer(7001), request);
    let answer = world.answer(tx).unwrap().clone();
    (answer.code, answer)
}

fn contacts(response: &sip::Response) -> usize {
    response.headers.values(&Name::Contact).count()
}

#[test]
fn a_challenge_costs_no_state_and_a_wrong_password_gets_another_one() {
    let mut world = World::new();
    let mut request = register("c", 1, "Contact: <sip:bob@127.0.0.1:7001>\r\n", "");
    let tx = world.send(peer(7001), request.clone());
    let challenge = world.answer(tx).unwrap().clone();
    let offered: Vec<_> = challenge.headers.fields(&Name::WwwAuthenticate).map(<[u8]>::to_vec).collect();
    // RFC 8760 §2.3: the stronger one first.
    assert!(offered.len() == 2 && String::from_utf8_lossy(&offered[0]).contains("SHA-256"));
    assert!(world.store.is_empty());
    authorize(&mut request, &challenge, "bob", "wrong");
    let tx = world.send(peer(7001), request);
    assert_eq!(world.code(tx), Some(401));
    assert!(world.store.is_empty());
    assert_eq!(world.service.counters().auth_failed, 1);
}

#[test]
fn credentials_are_good_once_per_count() {
    let mut world = World::new();
    let mut request = register("c", 1, "Contact: <sip:bob@127.0.0.1:7001>\r\n", "");
    let tx = world.send(peer(7001), request.clone());
    let challenge = world.answer(tx).unwrap().clone();
    authorize(&mut request, &challenge, "bob", "secret");
    let first = world.send(peer(7001), request.clone());
    let replayed = world.send(peer(6666), request);
    assert_eq!((world.code(first), world.code(replayed)), (Some(200), Some(401)));
}

// REQ-PF-06.
/// RFC 3261 §22.4: the digest-uri may name the server, but not somebody else.
#[test]
fn the_digest_uri_names_what_we_answer_for() {
    for (uri, code) in
        [("sip:127.0.0.1:5060", 200), ("sip:weir.example", 200), ("sip:elsewhere.example", 401)]
    {
        let mut world = World::new();
        let mut request = register("c", 1, "Contact: <sip:bob@127.0.0.1:7001>\r\n", "");
        let tx = world.send(peer(7001), request.clone());
        let challenge = world.answer(tx).unwrap().clone();
        // The client signs for the Request-URI that it sees.
        let own = std::mem::replace(&mut request.uri, uri.parse().unwrap());
        authorize(&mut request, &challenge, "bob", "secret");
        request.uri = own;
        let tx = world.send(peer(7001), request);
        assert_eq!(world.code(tx), Some(code), "{uri}");
    }
}

#[test]
fn nobody_registers_for_another_one() {
    let mut world = World::new();
    let mut request = register("c", 1, "Contact: <sip:bob@127.0.0.1:7001>\r\n", "");
    let tx = world.send(peer(7001), request.clone());
    let challenge = world.answer(tx).unwrap().clone();
    authorize(&mut request, &challenge, "alice", "secret");
    let tx = world.send(peer(7001), request);
    assert_eq!(world.code(tx), Some(403));
}

#[test]
fn bindings_are_put_fetched_refreshed_and_removed() {
    let mut world = World::new();
    let one = format!("Contact: <sip:bob@127.0.0.1:7001>;+sip.instance=\"<{PHONE}>\";q=0.5;video\r\n");
    let (code, answer) = registered(&mut world, register("a", 1, &one, ""));
    assert_eq!((code, contacts(&answer)), (200, 1));
    let shown = answer.headers.text(&Name::Contact).unwrap();
    assert!(shown.contains(";video") && shown.contains(";expires=3600"), "{shown}");
    // RFC 5627 §3.2
    assert!(shown.contains(&format!("pub-gruu=\"sip:bob@weir.example;gr={PHONE}\"")), "{shown}");
    // A second device, and a fetch without Contact (RFC 3261 §10.2.3).
    registered(&mut world, register("b", 1, "Contact: <sip:bob@127.0.0.1:7002>;expires=120\r\n", ""));
    let (_, answer) = registered(&mut world, register("f", 1, "", ""));
    assert_eq!(contacts(&answer), 2);
    assert_eq!(world.rows(Table::Binding).len(), 2);
    // The first device comes back under another Contact, its instance in other case: the same binding.
    let again = one.replace("7001", "7009").replace("AABBCCDDEEFF", "aabbccddeeff");
    let (_, answer) = registered(&mut world, register("a", 3, &again, ""));
    assert_eq!(contacts(&answer), 2);
    // One goes by its own wish, the other by time.
    let gone = "Contact: <sip:bob@127.0.0.1:7002>;expires=0\r\n";
    let (_, answer) = registered(&mut world, register("b", 3, gone, ""));
    assert_eq!(contacts(&answer), 1);
    world.pass(3601);
    assert!(world.rows(Table::Binding).is_empty());
    assert_eq!(world.service.counters().bindings, 0);
}

#[test]
fn the_wildcard_removes_all_and_stands_alone() {
    let mut world = World::new();
    registered(
        &mut world,
        register("a", 1, "Contact: <sip:bob@127.0.0.1:7001>, <sip:bob@127.0.0.1:7002>\r\n", ""),
    );
    assert_eq!(registered(&mut world, register("b", 1, "Contact: *\r\n", "Expires: 60\r\n")).0, 400);
    assert_eq!(
        registered(&mut world, register("c", 1, "Contact: *, <sip:x@h>\r\n", "Expires: 0\r\n")).0,
        400
    );
    let (code, answer) = registered(&mut world, register("d", 1, "Contact: *\r\n", "Expires: 0\r\n"));
    assert_eq!((code, contacts(&answer), world.rows(Table::Binding).len()), (200, 0, 0));
}

#[test]
fn all_or_nothing() {
    let mut world = World::new();
    // RFC 3261 §10.3 step 7: one brief interval, and nothing is bound.
    let both = "Contact: <sip:bob@127.0.0.1:7001>, <sip:bob@127.0.0.1:7002>;expires=5\r\n";
    let (code, answer) = registered(&mut world, register("a", 1, both, ""));
    assert_eq!((code, answer.headers.text(&Name::MinExpires)), (423, Some("60")));
    assert!(world.store.is_empty());
    // A REGISTER that comes too late.
    let contact = "Contact: <sip:bob@127.0.0.1:7001>\r\n";
    registered(&mut world, register("x", 9, contact, ""));
    assert_eq!(registered(&mut world, register("x", 5, contact, "")).0, 500);
    // More contacts than a user may have.
    let many: Vec<String> = (0..11).map(|n| format!("<sip:bob@127.0.0.1:{}>", 8000 + n)).collect();
    let many = format!("Contact: {}\r\n", many.join(", "));
    assert_eq!(registered(&mut world, register("m", 1, &many, "")).0, 403);
    assert_eq!(world.rows(Table::Binding).len(), 1);
}

#[test]
fn bindings_survive_a_restart_and_die_on_time() {
    let mut world = World::new();
    world.register("bob", peer(7001), PHONE);
    world.restart();
    assert_eq!(world.service.counters().bindings, 1);
    world.pass(3599);
    assert_eq!(world.rows(Table::Binding).len(), 1);
    world.pass(2);
    assert!(world.rows(Table::Binding).is_empty());
}

#[test]
fn a_trusted_peer_registers_without_digest() {
    let mut config = World::new().config;
    config.identity.trusted_peers = vec![[127, 0, 0, 1].into()];
    let mut world = World::with(config);
    let tx = world
        .send(peer(7001), register("a", 1, "Contact: <sip:bob@127.0.0.1:7001>\r\n", "Path: <sip:p1;lr>\r\n"));
    assert_eq!(world.code(tx), Some(200));
    assert_eq!(world.answer(tx).unwrap().headers.text(&Name::Path), Some("<sip:p1;lr>"));
}

#[test]
fn a_subscriber_of_the_store_is_as_good_as_a_configured_one() {
    let mut config = World::new().config;
    let bob = UserId::parse("sip:bob@weir.example").unwrap();
    config.subscribers.clear();
    let mut world = World::with(config);
    let key = crate::Key::new(Table::Subscriber, bob.as_str());
    let subscriber = crate::records::Subscriber {
        user: bob.clone(),
        name: String::new().into(),
        password: "secret".to_owned().into(),
        service: true,
    };
    let row = crate::Row {
        key: key.clone(),
        lane: crate::LaneKey::of_user(&bob),
        version: 1,
        columns: crate::records::Columns::default(),
        record: crate::Record::Subscriber(subscriber),
    };
    world.store.insert(key, row);
    assert_eq!(registered(&mut world, register("a", 1, "Contact: <sip:bob@127.0.0.1:7001>\r\n", "")).0, 200);
}

// RFC 3261 §10.3 step 7: bindings compare by URI; a phone that gains a name is still one phone.
#[test]
fn one_address_is_one_binding() {
    let mut world = World::new();
    let plain = "Contact: <sip:bob@127.0.0.1:7001>\r\n";
    let named = format!("Contact: <sip:bob@127.0.0.1:7001>;+sip.instance=\"<{PHONE}>\"\r\n");
    let other = "Contact: <sip:bob@127.0.0.1:7001>;+sip.instance=\"<urn:uuid:1>\"\r\n";
    for (cseq, contact) in [(1, plain), (3, named.as_str()), (5, other), (7, plain)] {
        let (code, answer) = registered(&mut world, register("c", cseq, contact, ""));
        assert_eq!((code, contacts(&answer), world.rows(Table::Binding).len()), (200, 1, 1), "{contact}");
    }
}

// RFC 5626 §5.3: several flows of one device, one copy.
#[test]
fn of_several_flows_of_a_device_the_newest_is_used() {
    let mut world = World::new();
    for (cseq, id) in [(1, 1), (3, 2)] {
        let contact =
            format!("Contact: <sip:bob@127.0.0.1:7001>;+sip.instance=\"<{PHONE}>\";reg-id={id}\r\n");
        let (code, answer) = registered(&mut world, register("c", cseq, &contact, "Supported: outbound\r\n"));
        assert_eq!((code, contacts(&answer)), (200, id));
    }
    world.register("alice", peer(7002), "urn:uuid:2");
    let message = crate::testing::request("MESSAGE", "alice", "bob", "m", "", "text/plain", "hi");
    world.send(peer(7002), message);
    world.request(peer(7001), &sip::Method::Message);
    assert!(world.next(peer(7001)).is_none(), "one copy");
}
