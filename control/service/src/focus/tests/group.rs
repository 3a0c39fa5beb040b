//! F4, F6, F7, F8: an ad-hoc group from its founding to its end (REQ-CF-12, REQ-CF-13).

use sip::{Method, Name};

use super::{Phone, config, entry, focus_of, group_of, user, world, world_with};
use crate::Table;
use crate::testing::{World, sdp_of};
use cpm::SessionReplaces;
use cpm::conference::Status;
use cpm::media_type;
use cpm::resource_lists::{Copy, Entry, ResourceList};

// REQ-CF-10, REQ-CF-18, REQ-CF-20, REQ-CF-22; CPM-FACTS §2.6 "Conference factory".
#[test]
fn f4_the_initiator_is_in_at_once_and_the_listed_are_invited() {
    let (mut world, [mut alice, mut bob, mut carol, mut dave]) = world();
    let blind = Entry { copy: Copy::Bcc, ..entry("dave") };
    let replacing = Entry { session_replaces: SessionReplaces::parse("one-1").ok(), ..entry("bob") };
    let request = alice.founding(&[replacing, entry("carol"), blind], "1", "Subject: Lunch\r\n");
    let answer = alice.invite(&mut world, request);
    assert_eq!(answer.code, 200, "before any invitee has answered");
    let focus = focus_of(&answer.headers);
    assert!(focus.starts_with("sip:grp-"), "{focus}");
    let sdp = sdp_of(&answer.body);
    let (_, line) = sdp.message_line().unwrap();
    assert_eq!(line.message().unwrap().accept_types, ["message/cpim"], "RFC 7701 §5.2");
    assert!(line.message().unwrap().chatroom.as_ref().unwrap().nickname);
    assert_eq!(line.setup, Some(sdp::Setup::Passive));

    world.settle();
    world.pass(1);
    for (phone, replaces) in [(&mut bob, Some("one-1")), (&mut carol, None), (&mut dave, None)] {
        let invites = phone.take(&mut world);
        let [(_, invite)] = &invites[..] else { panic!("{} has one invitation", phone.user) };
        let h = &invite.headers;
        assert_eq!(h.text(&Name::ConversationId), Some("conv-1"));
        assert_eq!(h.text(&Name::ContributionId), Some("cont-1"));
        assert_eq!(h.text(&Name::Subject), Some("Lunch"));
        assert_eq!(h.text(&Name::ReferredBy), Some("<sip:alice@weir.example>"));
        assert_eq!(h.text(&Name::SessionReplaces), replaces, "CPM-FACTS §2.2: only in that invitee's INVITE");
        assert_eq!(
            h.text(&Name::PAssertedService),
            Some("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session.group")
        );
        assert!(h.text(&Name::PAssertedIdentity).unwrap().contains("sip:grp-"));
        focus_of(h);
        // RFC 5364 §5: the others by name, but not who was blind-copied, and not oneself.
        let kind = h.must::<sip::typed::ContentType>().unwrap().0;
        let parts = sip::multipart::parse(&kind, &invite.body, &sip::Limits::default()).unwrap();
        let list = parts.iter().find(|p| p.media_type().is(media_type::RESOURCE_LISTS)).unwrap();
        let named = ResourceList::read(&list.body, &cpm::Limits::default()).unwrap().entries;
        let mut named: Vec<&str> = named.iter().map(|e| e.uri.as_str()).collect();
        named.sort_unstable();
        let mut expected = vec![user("alice"), user("bob"), user("carol")];
        expected.retain(|u| *u != user(phone.user));
        assert_eq!(named, expected.iter().map(|u| u.as_str()).collect::<Vec<_>>());
        phone.accept(&mut world, invites.into_iter().next().unwrap());
    }
    assert_eq!(world.rows(Table::Roster).len(), 1, "REQ-CF-21");
    assert_eq!(world.rows(Table::Dialog).len(), 4);
    assert_eq!(world.rows(Table::Roster)[0].columns.contribution, "cont-1");
}

// CPM-FACTS §2.6 "Leave", "End"; §2.27; F6.
#[test]
fn f6_who_says_farewell_is_off_and_who_is_lost_stays_a_member() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1, 2]);
    let [mut alice, mut bob, mut carol, _] = phones;
    assert_eq!(alice.subscribe(&mut world).code, 200);
    alice.take(&mut world);
    // Lost: any cause but 200, or none.
    bob.bye(&mut world, Some("SIP;cause=480;text=\"Bearer Release\""));
    world.pass(10);
    alice.take(&mut world);
    assert_eq!(alice.sees("bob"), Some(Status::Disconnected));
    // A member still: comes back by INVITE to the focus.
    assert_eq!(bob.join(&mut world, &focus).code, 200);
    world.pass(10);
    alice.take(&mut world);
    assert_eq!(alice.sees("bob"), Some(Status::Connected));
    // Farewell: no member any more.
    bob.bye(&mut world, Some("SIP;cause=200;text=\"Call completed\""));
    world.pass(10);
    alice.take(&mut world);
    assert_eq!(alice.sees("bob"), None);
    let answer = bob.join(&mut world, &focus);
    assert_eq!(answer.code, 403);
    assert!(answer.headers.text(&Name::Warning).unwrap().contains("\"127 Service not authorised\""));
    // The last but one leaves: 410 to the rest, and nothing is left.
    carol.bye(&mut world, Some("SIP;cause=200"));
    alice.take(&mut world);
    assert_eq!(alice.byes, ["SIP;cause=410;text=\"Gone\""]);
    assert_eq!(alice.join(&mut world, &focus).code, 404, "on 404 clients restart the group");
    for table in [Table::Roster, Table::Dialog, Table::Subscription, Table::Context] {
        assert!(world.rows(table).is_empty(), "{table:?}");
    }
}

// F7: restart with the ids of a known group joins it; after its end they make it anew.
#[test]
fn f7_a_restart_finds_the_group_and_makes_no_twin() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1, 2]);
    let [mut alice, mut bob, mut carol, mut dave] = phones;
    bob.bye(&mut world, None);
    let again = bob.founding(&[entry("alice"), entry("carol")], "1", "");
    let answer = bob.invite(&mut world, again);
    assert_eq!((answer.code, focus_of(&answer.headers).split(';').next()), (200, focus.split(';').next()));
    assert_eq!(world.rows(Table::Roster).len(), 1);
    world.pass(1);
    assert!(alice.take(&mut world).is_empty() && carol.take(&mut world).is_empty(), "nobody is called twice");
    // A stranger who knows the ids is no member (CPM-FACTS §2.6).
    let stranger = dave.founding(&[entry("alice")], "1", "");
    assert_eq!(dave.invite(&mut world, stranger).code, 403);
    // Over: the same ids found it anew.
    bob.bye(&mut world, Some("SIP;cause=200"));
    carol.bye(&mut world, Some("SIP;cause=200"));
    alice.take(&mut world);
    let anew = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, anew);
    assert_eq!(answer.code, 200);
    assert_ne!(focus_of(&answer.headers).split(';').next(), focus.split(';').next());
}

fn everybody_declines(config: crate::Config) -> (World, Phone, Phone) {
    let (mut world, [mut alice, mut bob, mut carol, _]) = world_with(config);
    let request = alice.founding(&[entry("bob"), entry("carol")], "1", "");
    assert_eq!(alice.invite(&mut world, request).code, 200);
    world.pass(1);
    for phone in [&mut bob, &mut carol] {
        let (tx, invite) = phone.take(&mut world).pop().unwrap();
        world.reply(tx, crate::testing::reply(&invite, 603, "t", ""));
    }
    alice.take(&mut world);
    (world, alice, bob)
}

// CPM-FACTS §2.6, §2.27: 603 takes off the roster; nobody left but the initiator ends the group.
#[test]
fn a_group_that_everybody_declines_ends() {
    let mut config = config();
    config.controlling.long_lived = false;
    let (_, alice, _) = everybody_declines(config);
    assert_eq!(alice.byes, ["SIP;cause=410;text=\"Gone\""]);
}

// CPM-FACTS §2.27, Forming: "keep initiator alone if group policy long-lived".
#[test]
fn a_long_lived_group_that_everybody_declines_keeps_its_initiator() {
    let (mut world, mut alice, mut bob) = everybody_declines(config());
    world.pass(60);
    alice.take(&mut world);
    assert!(alice.byes.is_empty() && alice.dialog.is_some());
    // Who changes his mind is added, and the group goes on.
    let add = [(Name::ReferTo, "<sip:bob@weir.example;method=INVITE>")];
    assert_eq!(alice.within(&mut world, Method::Refer, &add, None).code, 202);
    world.pass(1);
    bob.answer(&mut world);
    // The initiator goes: nobody is in a group of one.
    let (mut world, mut alice, _) = everybody_declines(config());
    alice.bye(&mut world, None);
    assert!(world.rows(Table::Roster).is_empty() && world.rows(Table::Context).is_empty());
}

// CPM-FACTS §2.27: a group whose initiator was never in has nobody to come back to.
#[test]
fn a_group_that_is_never_acknowledged_leaves_nothing() {
    let (mut world, [mut alice, mut bob, ..]) = world();
    let request = alice.founding(&[entry("bob")], "1", "");
    let tx = world.send(alice.peer, request);
    assert_eq!(world.code(tx), Some(200));
    world.pass(1);
    let (invite, request) = bob.take(&mut world).pop().unwrap();
    world.reply(invite, crate::testing::reply(&request, 480, "t", ""));
    world.input(crate::Input::AckMissing { tx });
    world.pass(40);
    assert_eq!(world.service.counters().conferences, 0);
    for table in [Table::Roster, Table::Dialog, Table::Subscription, Table::Context, Table::Session] {
        assert!(world.rows(table).is_empty(), "{table:?}");
    }
}

// CPM-FACTS §2.26: the table is not one user's to fill; what sleeps counts, what has ended does not.
#[test]
fn one_user_founds_so_many_groups_and_others_go_on() {
    let mut config = config();
    config.controlling.conferences_per_user_max = 2;
    config.controlling.retention_s = 1000;
    let (mut world, [mut alice, mut bob, ..]) = world_with(config);
    for ids in ["1", "2"] {
        let request = alice.founding(&[entry("bob")], ids, "");
        assert_eq!(alice.invite(&mut world, request).code, 200);
        world.pass(1);
        bob.answer(&mut world);
        bob.bye(&mut world, None);
        alice.bye(&mut world, None);
    }
    world.restart();
    assert_eq!(world.service.counters().conferences, 2, "they sleep");
    let request = alice.founding(&[entry("erin")], "3", "");
    assert_eq!(alice.invite(&mut world, request).code, 486);
    let request = bob.founding(&[entry("erin")], "4", "");
    assert_eq!(bob.invite(&mut world, request).code, 200);
    let again = alice.founding(&[entry("bob")], "1", "");
    assert_eq!(alice.invite(&mut world, again).code, 200, "her own group is none too many");
    // The other one is forgotten.
    world.pass(1100);
    let request = alice.founding(&[entry("erin")], "5", "");
    assert_eq!(alice.invite(&mut world, request).code, 200);
}

// Long-lived: who is not there stays a member and may come later.
#[test]
fn who_does_not_answer_stays_a_member() {
    let (mut world, [mut alice, mut bob, ..]) = world();
    let request = alice.founding(&[entry("bob"), entry("erin")], "1", "");
    let answer = alice.invite(&mut world, request);
    alice.subscribe(&mut world);
    world.pass(1);
    let invite = bob.take(&mut world).pop().unwrap();
    world.pass(200);
    alice.take(&mut world);
    assert_eq!(
        (alice.sees("bob"), alice.sees("erin")),
        (Some(Status::Disconnected), Some(Status::Disconnected))
    );
    drop(invite);
    assert_eq!(bob.join(&mut world, &focus_of(&answer.headers)).code, 200);
    assert!(alice.byes.is_empty());
}

// A member who calls while it is called: the invitation is taken back, there is one session.
#[test]
fn an_own_invite_overtakes_the_invitation() {
    let (mut world, [mut alice, mut bob, ..]) = world();
    let request = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, request);
    world.pass(1);
    let (tx, invite) = bob.take(&mut world).pop().unwrap();
    assert_eq!(bob.join(&mut world, &focus_of(&answer.headers)).code, 200);
    match world.next(bob.peer) {
        Some(crate::testing::Event::Cancel(cancelled, _)) => assert_eq!(cancelled, tx),
        other => panic!("CANCEL expected, got {other:?}"),
    }
    world.reply(tx, crate::testing::reply(&invite, 487, "t", ""));
    assert_eq!(world.rows(Table::Dialog).len(), 2);
}

// RFC 3261 §9: CANCEL before the data plane has answered.
#[test]
fn a_cancelled_invite_leaves_nothing() {
    let (mut world, [mut alice, ..]) = world();
    world.dataplane_slow = true;
    let request = alice.founding(&[entry("bob")], "1", "");
    let tx = world.send(alice.peer, request);
    world.cancel(tx);
    assert_eq!(world.code(tx), Some(487));
    world.dataplane_slow = false;
    while !world.waiting.is_empty() {
        world.apply();
    }
    world.pass(60);
    assert!(world.rows(Table::Roster).is_empty() && world.rows(Table::Dialog).is_empty());
    assert!(world.next(alice.peer).is_none());
}

// The data plane has no room: 503, and nothing is left behind.
#[test]
fn a_refused_order_is_a_refused_conference() {
    let (mut world, [mut alice, ..]) = world();
    world.dataplane_full = true;
    let request = alice.founding(&[entry("bob")], "1", "");
    assert_eq!(alice.invite(&mut world, request).code, 503);
    assert!(world.rows(Table::Roster).is_empty());
}

// RFC 3261 §12.2.2: requests of no dialog of ours.
#[test]
fn requests_outside_every_dialog_get_481() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1]);
    let alice = &mut phones[0];
    let mut dialog = alice.dialog.clone().unwrap();
    dialog.id.remote_tag = "none".into();
    dialog.remote.params.set("tag", Some("none"));
    let mut bye = dialog.request(Method::Bye);
    bye.headers.push(Name::Via, "SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK8");
    let tx = world.send(alice.peer, bye);
    assert_eq!(world.code(tx), Some(481));
}
