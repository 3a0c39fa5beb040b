//! Who may start, join, and with which media (REQ-CF-10, REQ-CF-16, REQ-CF-17, REQ-CF-20; CPM-FACTS §2.27).

use sip::{Method, Name};

use super::{config, entry, focus_of, group, group_of, world, world_with};
use crate::focus::config::Medium;
use crate::testing::call_sdp;

fn warning(response: &sip::Response) -> &str {
    response.headers.text(&Name::Warning).unwrap_or_default()
}

// REQ-CF-20: members come one by one; others do not come in.
#[test]
fn a_chat_room_lets_its_members_in_one_by_one() {
    let mut config = config();
    config.controlling.groups = vec![group("books", &["alice", "bob"])];
    let (mut world, [mut alice, mut bob, mut carol, _]) = world_with(config);
    let room = "sip:books@weir.example";
    let answer = alice.join(&mut world, room);
    assert_eq!(answer.code, 200);
    assert!(focus_of(&answer.headers).starts_with("sip:books@"), "the group's address is the focus");
    world.pass(5);
    assert!(bob.take(&mut world).is_empty(), "nobody is invited");
    assert_eq!(bob.join(&mut world, room).code, 200);
    let refused = carol.join(&mut world, room);
    assert_eq!((refused.code, warning(&refused).contains("127 Service not authorised")), (403, true));
    // A chat room lives with one, and ends with none.
    alice.bye(&mut world, Some("SIP;cause=200"));
    assert!(bob.take(&mut world).is_empty() && bob.byes.is_empty());
    bob.bye(&mut world, Some("SIP;cause=200"));
    assert!(world.rows(crate::Table::Roster).is_empty());
    assert_eq!(alice.join(&mut world, room).code, 200, "its document outlives it");
}

// CPM-FACTS §2.6: invite-members = true invites all at the first join.
#[test]
fn a_group_that_invites_its_members_calls_them_all() {
    let mut config = config();
    let mut books = group("books", &["alice", "bob", "carol"]);
    books.invite_members = true;
    config.controlling.groups = vec![books];
    let (mut world, [mut alice, mut bob, mut carol, _]) = world_with(config);
    assert_eq!(alice.join(&mut world, "sip:books@weir.example").code, 200);
    world.pass(1);
    for phone in [&mut bob, &mut carol] {
        let invite = phone.answer(&mut world);
        assert_eq!(invite.headers.text(&Name::Subject), Some("Books"));
        assert_eq!(invite.headers.text(&Name::ReferredBy), Some("<sip:alice@weir.example>"));
    }
}

// CPM-FACTS §2.7: too many, no list, nobody to invite, the factory itself.
#[test]
fn lists_that_cannot_be_are_refused() {
    let mut config = config();
    config.controlling.members_max = 2;
    let (mut world, [mut alice, ..]) = world_with(config);
    let many = alice.founding(&[entry("bob"), entry("carol")], "1", "");
    let answer = alice.invite(&mut world, many);
    assert_eq!((answer.code, warning(&answer).contains("102 Too many participants")), (486, true));
    let own = alice.founding(&[entry("alice")], "2", "");
    assert_eq!(alice.invite(&mut world, own).code, 400);
    let looping = alice.founding(&[entry(super::FACTORY)], "3", "");
    assert_eq!(alice.invite(&mut world, looping).code, 482);
    assert_eq!(alice.join(&mut world, "sip:conference-factory@weir.example").code, 400);
    assert_eq!(alice.join(&mut world, "sip:grp-0000-unknown@weir.example").code, 404);
}

// REQ-CF-19: who asks to stay unnamed is not named: refused, as long as we cannot keep it.
#[test]
fn anonymity_is_refused_rather_than_broken() {
    let (mut world, [mut alice, ..]) = world();
    let request = alice.founding(&[entry("bob")], "1", "Privacy: id\r\n");
    let answer = alice.invite(&mut world, request);
    assert_eq!((answer.code, warning(&answer).contains("119")), (403, true));
}

// REQ-CF-16; RFC 7701 §5.2: media by policy, and a participant without message/cpim.
#[test]
fn media_that_the_provider_does_not_allow_are_refused_line_by_line() {
    let mut config = config();
    config.controlling.media = vec![Medium::Message];
    let (mut world, [mut alice, mut bob, ..]) = world_with(config);
    let audio = call_sdp("192.0.2.1", 9000, "sendrecv", 1);
    let m_line = &audio[audio.find("m=audio").unwrap()..];
    alice.sdp.push_str(m_line);
    let request = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, request);
    let sdp = crate::testing::sdp_of(&answer.body);
    assert_eq!(sdp.lines.iter().map(|l| l.is_refused()).collect::<Vec<_>>(), [false, true]);
    world.pass(1);
    let invite = bob.answer(&mut world);
    let kind = invite.headers.must::<sip::typed::ContentType>().unwrap().0;
    let parts = sip::multipart::parse(&kind, &invite.body, &sip::Limits::default()).unwrap();
    assert_eq!(crate::testing::sdp_of(&parts[0].body).lines.len(), 1);

    alice.sdp = call_sdp("192.0.2.1", 9000, "sendrecv", 1);
    let request = alice.founding(&[entry("bob")], "2", "");
    assert_eq!(alice.invite(&mut world, request).code, 488);
    alice.sdp = super::chat_sdp("192.0.2.1", 7001, "actpass").replace("message/cpim", "text/plain");
    let request = alice.founding(&[entry("bob")], "3", "");
    assert_eq!(alice.invite(&mut world, request).code, 488);
}

// CPM-FACTS §2.6: who may remove is told by who asks, and who asks is proven (RFC 3261 §22).
#[test]
fn a_stranger_who_knows_the_owners_dialog_moves_nobody() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1, 2]);
    let [alice, bob, ..] = &mut phones;
    let dialog = alice.dialog.as_mut().unwrap();
    for method in [Method::Refer, Method::Subscribe, Method::Bye] {
        let mut request = dialog.clone().request(method.clone());
        request.headers.push(Name::Via, "SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK8");
        request.headers.push(Name::Contact, "<sip:mallory@127.0.0.2:6666;transport=tcp>");
        request.headers.push(Name::ReferTo, "<sip:bob@weir.example;method=BYE>");
        request.headers.push(Name::Event, "conference");
        let tx = world.send(crate::testing::peer(6666), request);
        world.settle();
        assert_eq!(world.code(tx), Some(407), "{method}");
    }
    bob.take(&mut world);
    assert!(bob.byes.is_empty(), "bob is still there");
}
