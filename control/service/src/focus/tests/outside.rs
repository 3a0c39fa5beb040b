//! A subscription in a dialog of its own, passed between the user and the focus by the user's Participating
//! Function (RFC 6665, REQ-IF-CONV-02).

use sip::{Dialog, Method, Name};

use super::{config, group_of, world, world_with};
use crate::Table;
use crate::testing::World;

fn send(world: &mut World, phone: &super::Phone, dialog: &mut Dialog, expires: &str) -> sip::Response {
    let mut request = dialog.request(Method::Subscribe);
    request.headers.push(Name::Via, "SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK9");
    request.headers.push(Name::Contact, format!("<sip:{}@{};transport=tcp>", phone.user, phone.peer.addr));
    request.headers.push(Name::Event, "conference");
    request.headers.push(Name::Expires, expires);
    let tx = world.send(phone.peer, request);
    world.settle();
    world.answer(tx).unwrap().clone()
}

#[test]
fn a_subscription_outside_the_session_is_passed_both_ways_and_survives_a_restart() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1, 2]);
    let [_, bob, ..] = &mut phones;
    bob.take(&mut world);
    let request = bob.request("SUBSCRIBE", &focus, "Event: conference\r\nExpires: 600\r\n", "", "");
    let tx = world.send(bob.peer, request.clone());
    world.settle();
    let answer = world.answer(tx).unwrap().clone();
    assert_eq!((answer.code, answer.headers.count(&Name::Expires)), (200, 1));
    let mut dialog = Dialog::uac(&request, &answer).unwrap();
    bob.take(&mut world);
    let full = bob.documents.pop().expect("everything at first");
    assert_eq!(full.users.map(|u| u.users.len()), Some(3));
    assert_eq!(world.rows(Table::Relay).len(), 1);
    // A restart, and a change that is told through the same pair.
    world.restart();
    world.pass(2);
    let [_, bob, carol, _] = &mut phones;
    carol.take(&mut world);
    carol.bye(&mut world, Some("SIP;cause=200;text=\"Call completed\""));
    world.pass(5);
    bob.take(&mut world);
    assert!(!bob.documents.is_empty(), "carol left, and bob hears of it");
    // Refreshed, and taken back.
    assert_eq!(send(&mut world, bob, &mut dialog, "600").code, 200);
    assert_eq!(send(&mut world, bob, &mut dialog, "0").code, 200);
    bob.take(&mut world);
    assert_eq!((world.service.counters().relays, world.rows(Table::Relay).len()), (0, 0));
    assert_eq!(send(&mut world, bob, &mut dialog, "600").code, 481);
}

#[test]
fn a_subscription_that_is_not_refreshed_is_forgotten() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1]);
    let [_, bob, ..] = &mut phones;
    let request = bob.request("SUBSCRIBE", &focus, "Event: conference\r\nExpires: 600\r\n", "", "");
    world.send(bob.peer, request);
    world.settle();
    bob.take(&mut world);
    assert_eq!(world.service.counters().relays, 1);
    world.pass(650);
    assert_eq!((world.service.counters().relays, world.rows(Table::Relay).len()), (0, 0));
}

#[test]
fn other_packages_and_targets_are_refused() {
    let (mut world, mut phones) = world();
    let [alice, ..] = &mut phones;
    for (method, to, extra, code) in [
        ("SUBSCRIBE", "sip:bob@weir.example", "Event: conference\r\n", 404),
        ("SUBSCRIBE", "sip:bob@weir.example", "Event: dialog\r\n", 489),
        ("REFER", "sip:bob@weir.example", "Refer-To: <sip:carol@weir.example>\r\n", 403),
    ] {
        let request = alice.request(method, to, extra, "", "");
        let tx = world.send(alice.peer, request);
        assert_eq!(world.code(tx), Some(code), "{method} {to}");
    }
}

// CPM-FACTS §2.26: neither the conference's table nor the lane's is one member's to fill.
#[test]
fn one_member_subscribes_so_often_and_others_go_on() {
    let mut config = config();
    config.controlling.subscriptions_max = 6;
    config.controlling.subscriptions_per_member_max = 4;
    let (mut world, mut phones) = world_with(config);
    let focus = group_of(&mut world, &mut phones, &[1, 2]);
    let [_, bob, carol, _] = &mut phones;
    for _ in 0..20 {
        let request = bob.request("SUBSCRIBE", &focus, "Event: conference\r\nExpires: 86400\r\n", "", "");
        let tx = world.send(bob.peer, request);
        world.settle();
        assert_eq!(world.code(tx), Some(200), "the newest one counts");
        bob.take(&mut world);
    }
    // Each of those that went had its last NOTIFY, and its relay with it.
    assert_eq!((world.rows(Table::Subscription).len(), world.rows(Table::Relay).len()), (4, 4));
    assert_eq!(bob.subscribe(&mut world).code, 200, "in the session's dialog, too");
    assert_eq!(carol.subscribe(&mut world).code, 200);
    assert_eq!(world.rows(Table::Subscription).len(), 5);
}

#[test]
fn one_user_has_so_many_relays() {
    let mut config = config();
    config.limits.relays_per_user_max = 3;
    let (mut world, mut phones) = world_with(config);
    let focus = group_of(&mut world, &mut phones, &[1, 2]);
    let [_, bob, carol, _] = &mut phones;
    let mut subscribe = |phone: &mut super::Phone| {
        let request = phone.request("SUBSCRIBE", &focus, "Event: conference\r\nExpires: 600\r\n", "", "");
        let tx = world.send(phone.peer, request);
        world.settle();
        phone.take(&mut world);
        world.code(tx)
    };
    for code in [200, 200, 200, 486] {
        assert_eq!(subscribe(bob), Some(code));
    }
    assert_eq!(subscribe(carol), Some(200));
    world.pass(650);
    assert_eq!(world.service.counters().relays, 0);
}
