//! The conference event package (REQ-CF-24; RFC 4575, RFC 6665).

use cpm::conference::{State, Status};
use sip::{Method, Name};

use super::{entry, group_of, user, world};
use crate::testing::Event;

// RFC 4575 §4.4, §4.6: everything at once, then what has changed, versions without gaps.
#[test]
fn everything_at_first_then_the_changes() {
    let (mut world, [mut alice, mut bob, mut carol, _]) = world();
    let request = alice.founding(&[entry("bob"), entry("carol")], "1", "Subject: Lunch\r\n");
    alice.invite(&mut world, request);
    let answered = alice.subscribe(&mut world);
    assert_eq!((answered.code, answered.headers.text(&Name::Expires)), (200, Some("3600")));
    alice.take(&mut world);
    let first = alice.documents[0].clone();
    assert_eq!((first.state, first.version), (State::Full, 1));
    assert_eq!(first.description.as_ref().unwrap().subject.as_deref(), Some("Lunch"));
    assert_eq!(first.users.as_ref().unwrap().users.len(), 3);
    let own = alice.roster.user(user("alice").as_str()).unwrap();
    assert!(own.your_own && own.roles == ["administrator"]);
    assert_eq!(own.endpoints[0].media[0].kind.as_deref(), Some("message"));

    world.pass(10);
    bob.answer(&mut world);
    world.pass(10);
    alice.take(&mut world);
    assert_eq!((alice.sees("bob"), alice.sees("carol")), (Some(Status::Connected), Some(Status::DialingOut)));
    carol.answer(&mut world);
    world.pass(10);
    alice.take(&mut world);
    assert_eq!(alice.sees("carol"), Some(Status::Connected));
    let later = &alice.documents[1..];
    assert!(!later.is_empty() && later.iter().all(|d| d.state == State::Partial && d.description.is_none()));
    let versions: Vec<u32> = alice.documents.iter().map(|d| d.version).collect();
    assert_eq!(versions, (1..=u32::try_from(versions.len()).unwrap()).collect::<Vec<_>>());
    let last = later.last().unwrap().users.as_ref().unwrap();
    assert_eq!(last.users.iter().map(|u| u.entity.as_str()).collect::<Vec<_>>(), [user("carol").as_str()]);
}

// RFC 4575 §3.9: not more often than the interval; the changes between are in one document.
#[test]
fn changes_are_gathered() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1, 2, 3]);
    let [mut alice, mut bob, mut carol, mut dave] = phones;
    alice.subscribe(&mut world);
    alice.take(&mut world);
    let before = alice.documents.len();
    for phone in [&mut bob, &mut carol, &mut dave] {
        phone.bye(&mut world, None);
        world.pass(1);
    }
    alice.take(&mut world);
    assert_eq!(alice.documents.len(), before, "the first document is not five seconds old");
    world.pass(3);
    alice.take(&mut world);
    assert_eq!(alice.documents.len(), before + 1);
    assert_eq!(alice.documents.last().unwrap().users.as_ref().unwrap().users.len(), 3);
}

// RFC 6665 §4.2.1: what is not ours, too short, not readable.
#[test]
fn subscriptions_that_cannot_be_are_refused() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1]);
    let [mut alice, _, mut carol, _] = phones;
    let answer = alice.within(&mut world, Method::Subscribe, &[(Name::Event, "presence")], None);
    assert_eq!((answer.code, answer.headers.text(&Name::AllowEvents)), (489, Some("conference")));
    let short = [(Name::Event, "conference"), (Name::Expires, "5")];
    let answer = alice.within(&mut world, Method::Subscribe, &short, None);
    assert_eq!((answer.code, answer.headers.text(&Name::MinExpires)), (423, Some("60")));
    let other = [(Name::Event, "conference"), (Name::Accept, "text/plain")];
    assert_eq!(alice.within(&mut world, Method::Subscribe, &other, None).code, 406);
    let request = carol.request("SUBSCRIBE", &focus, "Event: conference\r\n", "", "");
    let tx = world.send(carol.peer, request);
    assert_eq!(world.code(tx), Some(403), "members only");
}

// RFC 6665 §4.4.3, §4.2.2: a fetch, an end by time, an end by the subscriber's 481.
#[test]
fn subscriptions_end() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1]);
    let [mut alice, mut bob, ..] = phones;
    // A subscription of its own dialog, for no time at all.
    let request = alice.request("SUBSCRIBE", &focus, "Event: conference\r\nExpires: 0\r\n", "", "");
    let tx = world.send(alice.peer, request);
    assert_eq!(world.code(tx), Some(200));
    let (tx, notify) = world.request(alice.peer, &Method::Notify);
    assert_eq!(notify.headers.text(&Name::SubscriptionState), Some("terminated;reason=timeout"));
    world.reply(tx, notify.respond(200));
    // One that ends with its time.
    alice.within(&mut world, Method::Subscribe, &[(Name::Event, "conference"), (Name::Expires, "60")], None);
    alice.take(&mut world);
    world.pass(61);
    let (tx, notify) = world.request(alice.peer, &Method::Notify);
    assert_eq!(notify.headers.text(&Name::SubscriptionState), Some("terminated;reason=timeout"));
    world.reply(tx, notify.respond(200));
    // One that its subscriber does not know any more.
    alice.subscribe(&mut world);
    let (tx, notify) = world.request(alice.peer, &Method::Notify);
    world.reply(tx, notify.respond(481));
    bob.bye(&mut world, None);
    world.pass(20);
    while let Some(event) = world.next(alice.peer) {
        let Event::Request(_, request) = event else { continue };
        assert_ne!(request.method, Method::Notify);
    }
    assert!(world.rows(crate::Table::Subscription).is_empty());
}

// The end of the conference ends the subscription with a last document.
#[test]
fn the_end_is_told() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1]);
    let [mut alice, mut bob, ..] = phones;
    alice.subscribe(&mut world);
    alice.take(&mut world);
    bob.bye(&mut world, Some("SIP;cause=200"));
    alice.take(&mut world);
    assert_eq!(alice.documents.last().unwrap().state, State::Deleted);
    assert_eq!(alice.byes.len(), 1);
}
