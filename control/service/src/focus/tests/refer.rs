//! Adding and removing (REQ-CF-23; RFC 3515, RFC 4488, RFC 5368; CPM-FACTS §2.6).

use cpm::conference::Status;
use cpm::resource_lists::ResourceList;
use sip::{Method, Name};

use super::{config, entry, group, group_of, user, world, world_with};

#[test]
fn a_participant_adds_one_and_hears_what_became_of_it() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1]);
    let [_, mut bob, mut carol, _] = phones;
    let answer = bob.within(
        &mut world,
        Method::Refer,
        &[(Name::ReferTo, "<sip:carol@weir.example;method=INVITE>")],
        None,
    );
    assert_eq!(answer.code, 202);
    world.pass(1);
    bob.take(&mut world);
    assert_eq!(bob.fragments, ["SIP/2.0 100 Trying"], "RFC 3515 §2.4.5: at once");
    let invite = carol.answer(&mut world);
    assert_eq!(invite.headers.text(&Name::ReferredBy), Some("<sip:bob@weir.example>"));
    world.settle();
    bob.take(&mut world);
    assert_eq!(bob.fragments, ["SIP/2.0 100 Trying", "SIP/2.0 200 OK"]);
}

#[test]
fn an_added_user_who_declines_is_reported_so() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1]);
    let [_, mut bob, mut carol, _] = phones;
    bob.within(&mut world, Method::Refer, &[(Name::ReferTo, "<sip:carol@weir.example>")], None);
    world.pass(1);
    let (tx, invite) = carol.take(&mut world).pop().unwrap();
    world.reply(tx, crate::testing::reply(&invite, 603, "t", ""));
    bob.take(&mut world);
    assert_eq!(bob.fragments.last().unwrap(), "SIP/2.0 603 Decline");
}

// RFC 5368, RFC 4488: a list, no subscription, 200.
#[test]
fn a_list_is_added_outside_the_dialog_without_notifications() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1]);
    let [mut alice, _, mut carol, mut dave] = phones;
    let list = ResourceList { entries: vec![entry("carol"), entry("dave")], references: 0 }.write();
    let extra = "Refer-To: <cid:list@weir.example>\r\nRefer-Sub: false\r\nRequire: multiple-refer, norefersub\r\n\
                 Content-ID: <list@weir.example>\r\nContent-Disposition: recipient-list\r\n";
    let request = alice.request("REFER", &focus, extra, "application/resource-lists+xml", &list);
    let tx = world.send(alice.peer, request);
    world.settle();
    let answer = world.answer(tx).unwrap();
    assert_eq!((answer.code, answer.headers.text(&Name::ReferSub)), (200, Some("false")));
    world.pass(1);
    carol.answer(&mut world);
    dave.answer(&mut world);
    alice.take(&mut world);
    assert!(alice.fragments.is_empty());
}

// CPM-FACTS §2.6 "Remove": only an administrator; the removed one gets a BYE and may not come back.
#[test]
fn only_an_administrator_removes_others() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1, 2]);
    let [mut alice, mut bob, mut carol, _] = phones;
    alice.subscribe(&mut world);
    alice.take(&mut world);
    let bye = [(Name::ReferTo, "<sip:carol@weir.example;method=BYE>")];
    assert_eq!(bob.within(&mut world, Method::Refer, &bye, None).code, 403);
    assert_eq!(alice.within(&mut world, Method::Refer, &bye, None).code, 202);
    world.settle();
    carol.take(&mut world);
    assert_eq!(carol.byes.len(), 1);
    world.pass(10);
    alice.take(&mut world);
    assert_eq!(alice.fragments, ["SIP/2.0 100 Trying", "SIP/2.0 200 OK"]);
    assert_eq!((alice.sees("carol"), alice.sees("bob")), (None, Some(Status::Connected)));
    // RCS clients look at how it went (RFC 4575 §5.7.6).
    let users = alice.documents.iter().flat_map(|d| &d.users.as_ref().unwrap().users);
    let booted = users
        .filter(|u| u.entity == user("carol").as_str())
        .any(|u| u.endpoints[0].disconnection == Some(cpm::conference::Disconnection::Booted));
    assert!(booted);
    assert_eq!(carol.join(&mut world, &focus).code, 403);
}

#[test]
fn refers_that_cannot_be_are_refused() {
    let mut config = config();
    config.controlling.groups = vec![group("books", &["alice", "bob"])];
    let (mut world, [mut alice, mut bob, mut carol, _]) = world_with(config);
    let room = "sip:books@weir.example";
    alice.join(&mut world, room);
    bob.join(&mut world, room);
    for (refer_to, code) in [
        // Not a member, and the group is closed to others.
        ("<sip:carol@weir.example>", 403),
        ("<sip:carol@weir.example;method=SUBSCRIBE>", 403),
        ("<http://weir.example/>", 403),
        ("<cid:nothing>", 400),
    ] {
        assert_eq!(
            alice.within(&mut world, Method::Refer, &[(Name::ReferTo, refer_to)], None).code,
            code,
            "{refer_to}"
        );
    }
    assert_eq!(alice.within(&mut world, Method::Refer, &[], None).code, 400);
    let request = carol.request("REFER", room, "Refer-To: <sip:carol@weir.example>\r\n", "", "");
    let tx = world.send(carol.peer, request);
    assert_eq!(world.code(tx), Some(403), "a stranger cannot bring himself in");
}
