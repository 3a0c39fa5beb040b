//! Members who are away from a long-lived group are called with the next message (CPM-FACTS §2.6 "Leave", §2.27).

use contract::{Leg, LegKey, News, Pressure, change::Verb, leg, news};
use cpm::conference::Status;

use super::{config, entry, group_of, world, world_with};
use crate::testing::{World, reply, sdp_of};
use crate::{Input, Table};

/// The legs that the data plane was ordered for a participant and has, oldest first.
fn legs_of(world: &World, participant: &str) -> Vec<Leg> {
    let mut legs: Vec<Leg> = Vec::new();
    for change in world.batches.iter().flat_map(|b| &b.changes) {
        match &change.verb {
            Some(Verb::PutLeg(put)) => {
                legs.retain(|leg| leg.key() != put.key());
                legs.push(put.clone());
            }
            Some(Verb::RemoveLeg(gone)) => legs.retain(|leg| leg.key() != *gone),
            _ => {}
        }
    }
    legs.retain(|leg| leg.participant == participant);
    legs
}

fn msrp(leg: &Leg) -> &contract::MsrpLeg {
    match &leg.kind {
        Some(leg::Kind::Msrp(msrp)) => msrp,
        other => panic!("{other:?}"),
    }
}

/// Something is said, and waits for that leg.
fn said(world: &mut World, leg: LegKey) {
    let waits = Pressure { leg: Some(leg), on: true, waiting_bytes: 5, kept: false };
    world.input(Input::News(News { what: Some(news::What::Pressure(waits)) }));
    world.pass(1);
}

#[test]
fn a_member_who_was_lost_is_invited_with_the_next_message() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1, 2]);
    let [mut alice, mut bob, ..] = phones;
    alice.subscribe(&mut world);
    world.batches.clear();
    bob.bye(&mut world, None);
    // In one batch, so that what waits is inherited.
    let removal =
        world.batches.iter().find(|b| b.changes.iter().any(|c| matches!(c.verb, Some(Verb::RemoveLeg(_)))));
    let puts = removal.unwrap().changes.iter().filter(|c| matches!(c.verb, Some(Verb::PutLeg(_)))).count();
    assert_eq!(puts, 1);
    let [leg] = &legs_of(&world, "p1")[..] else { panic!("one leg for him") };
    assert!(msrp(leg).away && msrp(leg).remote_path.is_empty() && !msrp(leg).accept_types.is_empty());
    let key = leg.key();
    world.pass(30);
    assert!(bob.take(&mut world).is_empty(), "nothing is said, nobody is called");
    // A restart of control knows the leg still.
    world.restart();
    said(&mut world, key);
    said(&mut world, key);
    let invite = bob.answer(&mut world);
    let [leg] = &legs_of(&world, "p1")[..] else { panic!("the same leg") };
    let path = sdp_of(&crate::body::sdp_in(&invite.headers, &invite.body).unwrap()).lines[0]
        .message()
        .unwrap()
        .path
        .clone();
    assert_eq!((leg.key(), msrp(leg).away), (key, false));
    assert!(!msrp(leg).remote_path.is_empty());
    assert_eq!(msrp(leg).local.as_ref().map(|l| l.path.clone()).unwrap_or_default(), path);
    world.pass(10);
    alice.take(&mut world);
    assert_eq!(alice.sees("bob"), Some(Status::Connected));
}

#[test]
fn a_member_who_could_not_be_reached_is_invited_later_and_not_with_every_message() {
    let (mut world, [mut alice, mut bob, ..]) = world();
    let request = alice.founding(&[entry("bob"), entry("erin")], "1", "");
    assert_eq!(alice.invite(&mut world, request).code, 200);
    world.pass(1);
    let decline = |world: &mut World, bob: &mut super::Phone| {
        let (tx, invite) = bob.take(world).pop().unwrap();
        world.reply(tx, reply(&invite, 480, "t", ""));
    };
    decline(&mut world, &mut bob);
    assert!(legs_of(&world, "p1").is_empty(), "nothing is held for him now");
    world.pass(11);
    let key = legs_of(&world, "p1")[0].key();
    assert_eq!(legs_of(&world, "p2").len(), 1, "erin, too, who has no phone");
    said(&mut world, key);
    decline(&mut world, &mut bob);
    said(&mut world, key);
    assert!(bob.take(&mut world).is_empty());
    world.pass(11);
    let key = legs_of(&world, "p1")[0].key();
    said(&mut world, key);
    bob.answer(&mut world);
    // Who declines is called no more.
    bob.bye(&mut world, None);
    let key = legs_of(&world, "p1")[0].key();
    said(&mut world, key);
    let (tx, invite) = bob.take(&mut world).pop().unwrap();
    world.reply(tx, reply(&invite, 603, "t", ""));
    world.pass(60);
    assert!(legs_of(&world, "p1").is_empty() && bob.take(&mut world).is_empty());
}

#[test]
fn who_comes_by_himself_takes_over_what_waits() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1, 2]);
    let [_, mut bob, ..] = phones;
    bob.bye(&mut world, Some("SIP;cause=480"));
    let away = legs_of(&world, "p1")[0].key();
    world.batches.clear();
    assert_eq!(bob.join(&mut world, &focus).code, 200);
    let batch = world.batches.first().unwrap();
    let removed = |c: &contract::Change| c.verb == Some(Verb::RemoveLeg(away));
    let put = |c: &contract::Change| matches!(&c.verb, Some(Verb::PutLeg(leg)) if leg.participant == "p1");
    assert!(batch.changes.iter().any(removed) && batch.changes.iter().any(put), "in one batch: it inherits");
    assert_eq!(legs_of(&world, "p1").len(), 1);
}

#[test]
fn nothing_waits_for_those_who_left_nor_in_a_group_that_is_not_long_lived() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1, 2]);
    let [alice, mut bob, mut carol, _] = phones;
    bob.bye(&mut world, Some("SIP;cause=200"));
    carol.bye(&mut world, None);
    assert_eq!((legs_of(&world, "p1").len(), legs_of(&world, "p2").len()), (0, 1));
    drop(alice);
    let mut config = config();
    config.controlling.long_lived = false;
    let (mut world, mut phones) = world_with(config);
    group_of(&mut world, &mut phones, &[1, 2]);
    phones[1].bye(&mut world, None);
    assert!(legs_of(&world, "p1").is_empty());
    assert_eq!(world.rows(Table::Roster).len(), 1);
}
