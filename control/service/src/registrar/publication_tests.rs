//! PUBLISH (RFC 3903) by its clauses, and the presence subscription that tells what was published (RFC 3856).

use sip::{Method, Name, Request, Response};

use super::publications::MEDIA_TYPE;
use crate::testing::{Event, World, peer, reply, request};
use crate::{ClientTx, ServerTx};

const BOB: u16 = 7101;

fn world() -> World {
    world_of(|_| {})
}

fn world_of(change: impl FnOnce(&mut crate::Config)) -> World {
    let mut world = World::configured(change);
    world.register("bob", peer(BOB), "urn:uuid:00000000-0000-1000-8000-000000007101");
    world
}

fn pidf(note: &str) -> String {
    format!(
        "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:bob@weir.example\"><note>{note}</note></presence>"
    )
}

fn send(world: &mut World, to: &str, extra: &str, body: &str) -> ServerTx {
    let kind = if body.is_empty() { "" } else { MEDIA_TYPE };
    let asked = request("PUBLISH", "bob", to, "p", &format!("Event: presence\r\n{extra}"), kind, body);
    world.send(peer(BOB), asked)
}

fn publish(world: &mut World, extra: &str, body: &str) -> Response {
    let tx = send(world, "bob", extra, body);
    world.answer(tx).unwrap().clone()
}

fn etag(response: &Response) -> String {
    assert_eq!(response.code, 200);
    response.headers.text(&Name::SipEtag).unwrap().to_owned()
}

fn publications(world: &World) -> u64 {
    world.service.counters().publications
}

fn watch(world: &mut World, expires: u32) -> Response {
    let extra = format!("Event: presence\r\nExpires: {expires}\r\nAccept: application/pidf+xml\r\n");
    let tx = world.send(peer(BOB), request("SUBSCRIBE", "bob", "bob", "w", &extra, "", ""));
    world.answer(tx).unwrap().clone()
}

fn told(world: &mut World) -> Request {
    let (client, notify): (ClientTx, Request) = world.request(peer(BOB), &Method::Notify);
    world.reply(client, reply(&notify, 200, "w", ""));
    notify
}

#[test]
fn rfc3903_s4_1_published_refreshed_modified_and_removed_each_with_another_tag() {
    let mut world = world();
    let first = publish(&mut world, "", &pidf("one"));
    assert_eq!(first.headers.text(&Name::Expires), Some("3600"));
    let refreshed = publish(&mut world, &format!("SIP-If-Match: {}\r\nExpires: 120\r\n", etag(&first)), "");
    assert_eq!(refreshed.headers.text(&Name::Expires), Some("120"));
    assert_ne!(etag(&refreshed), etag(&first));
    let modified = publish(&mut world, &format!("SIP-If-Match: {}\r\n", etag(&refreshed)), &pidf("two"));
    assert_eq!(publications(&world), 1);
    // §6 step 3: what was replaced is not there any more.
    for old in [&first, &refreshed] {
        let refused = publish(&mut world, &format!("SIP-If-Match: {}\r\n", etag(old)), "");
        assert_eq!(refused.code, 412);
    }
    let removed = publish(&mut world, &format!("SIP-If-Match: {}\r\nExpires: 0\r\n", etag(&modified)), "");
    assert_eq!((removed.code, removed.headers.text(&Name::Expires)), (200, Some("0")));
    assert_eq!(publications(&world), 0);
    let gone = publish(&mut world, &format!("SIP-If-Match: {}\r\n", etag(&modified)), "");
    assert_eq!(gone.code, 412);
}

#[test]
fn rfc3903_s6_each_fault_has_its_answer() {
    let mut world = world_of(|config| config.publications.body_max_bytes = 256);
    let brief = publish(&mut world, "Expires: 5\r\n", &pidf("x"));
    assert_eq!((brief.code, brief.headers.text(&Name::MinExpires)), (423, Some("60")));
    assert_eq!(publish(&mut world, "", &pidf(&"x".repeat(300))).code, 413);
    assert_eq!(publish(&mut world, "", "").code, 400, "nothing to say, and nothing named");
    assert_eq!(publish(&mut world, "SIP-If-Match: a\r\nSIP-If-Match: b\r\n", "").code, 400);
    assert_eq!(publish(&mut world, "Expires: x\r\n", &pidf("x")).code, 400);
    let text = request("PUBLISH", "bob", "bob", "t", "Event: presence\r\n", "text/plain", "here");
    let tx = world.send(peer(BOB), text);
    let refused = world.answer(tx).unwrap();
    assert_eq!((refused.code, refused.headers.text(&Name::Accept)), (415, Some(MEDIA_TYPE)));
    for event in ["Event: dialog\r\n", ""] {
        let tx = world.send(peer(BOB), request("PUBLISH", "bob", "bob", "e", event, MEDIA_TYPE, &pidf("x")));
        let refused = world.answer(tx).unwrap();
        assert_eq!((refused.code, refused.headers.text(&Name::AllowEvents)), (489, Some("presence")));
    }
    assert_eq!(publications(&world), 0);
}

#[test]
fn rfc3903_s14_1_nobody_publishes_for_somebody_else() {
    let mut world = world();
    for (to, code) in [("alice", 403), ("grp-1-x", 404)] {
        let tx = send(&mut world, to, "", &pidf("x"));
        assert_eq!(world.code(tx), Some(code), "{to}");
    }
    assert_eq!(publications(&world), 0);
}

#[test]
fn what_is_published_is_bounded_and_ends_by_itself() {
    let mut world = world_of(|config| config.limits.publications_per_user_max = 2);
    let first = publish(&mut world, "Expires: 60\r\n", &pidf("1"));
    publish(&mut world, "Expires: 100\r\n", &pidf("2"));
    assert_eq!(publish(&mut world, "", &pidf("3")).code, 503);
    // What is there can be changed.
    let first = publish(&mut world, &format!("SIP-If-Match: {}\r\nExpires: 60\r\n", etag(&first)), "");
    world.pass(59);
    assert_eq!(publications(&world), 2);
    world.pass(1);
    assert_eq!(publications(&world), 1);
    assert_eq!(publish(&mut world, &format!("SIP-If-Match: {}\r\n", etag(&first)), "").code, 412);
    world.pass(41);
    assert_eq!(publications(&world), 0);
}

#[test]
fn rfc3856_s6_6_watchers_hear_of_each_change_and_of_the_end() {
    let mut world = world();
    assert_eq!(watch(&mut world, 600).code, 200);
    assert!(told(&mut world).body.is_empty(), "nothing is known yet");
    let first = publish(&mut world, "Expires: 60\r\n", &pidf("one"));
    let notify = told(&mut world);
    assert_eq!(notify.headers.text(&Name::Event), Some("presence"));
    assert_eq!(
        (notify.headers.text(&Name::ContentType), notify.body),
        (Some(MEDIA_TYPE), pidf("one").into())
    );
    // A refresh changes nothing.
    let first = publish(&mut world, &format!("SIP-If-Match: {}\r\nExpires: 60\r\n", etag(&first)), "");
    assert!(world.next(peer(BOB)).is_none());
    // The latest counts; when it goes, the one before.
    let second = publish(&mut world, "", &pidf("two"));
    assert_eq!(told(&mut world).body, pidf("two"));
    publish(&mut world, &format!("SIP-If-Match: {}\r\nExpires: 0\r\n", etag(&second)), "");
    assert_eq!(told(&mut world).body, pidf("one"));
    world.pass(61);
    assert!(told(&mut world).body.is_empty());
    drop(first);
}

#[test]
fn a_restart_makes_the_device_publish_again() {
    let mut world = world();
    let first = publish(&mut world, "", &pidf("one"));
    world.restart();
    assert_eq!(publish(&mut world, &format!("SIP-If-Match: {}\r\n", etag(&first)), "").code, 412);
    assert_eq!(publish(&mut world, "", &pidf("one")).code, 200);
    assert_eq!(watch(&mut world, 0).code, 200);
    let Some(Event::Request(_, notify)) = world.next(peer(BOB)) else { panic!("no NOTIFY") };
    assert_eq!(notify.body, pidf("one"));
}
