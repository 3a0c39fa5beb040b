//! kill -9 of control (REQ-CF-21; issue 2): a control that starts again takes its conferences over.

use cpm::conference::Status;
use sip::{Method, Name};

use super::{entry, focus_of, group_of, world};
use crate::Table;

#[test]
fn a_restarted_control_changes_and_ends_the_conference() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1, 2]);
    let [mut alice, mut bob, mut carol, mut dave] = phones;
    alice.subscribe(&mut world);
    alice.take(&mut world);
    let before = alice.documents.len();
    world.restart();
    // The media context stays as it is; what changed while nobody looked is told.
    world.pass(6);
    alice.take(&mut world);
    assert!(
        alice.documents.len() > before
            && alice.documents.windows(2).all(|w| w[1].version == w[0].version + 1)
    );
    assert_eq!(alice.sees("bob"), Some(Status::Connected));
    // It can be changed,
    let refer = [(Name::ReferTo, "<sip:dave@weir.example>"), (Name::ReferSub, "false")];
    assert_eq!(alice.within(&mut world, Method::Refer, &refer, None).code, 200);
    world.pass(1);
    dave.answer(&mut world);
    let again = bob.sdp.clone();
    assert_eq!(bob.within(&mut world, Method::Invite, &[], Some(("application/sdp", &again))).code, 200);
    // left,
    for phone in [&mut bob, &mut carol] {
        phone.bye(&mut world, Some("SIP;cause=200"));
    }
    // and ended.
    dave.bye(&mut world, Some("SIP;cause=200"));
    alice.take(&mut world);
    assert_eq!(alice.byes, ["SIP;cause=410;text=\"Gone\""]);
    assert_eq!(alice.join(&mut world, &focus).code, 404);
    for table in [Table::Roster, Table::Dialog, Table::Subscription, Table::Context] {
        assert!(world.rows(table).is_empty(), "{table:?}");
    }
}

#[test]
fn invitations_in_the_air_go_out_again() {
    let (mut world, [mut alice, mut bob, ..]) = world();
    let request = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, request);
    assert_eq!(answer.code, 200);
    world.pass(1);
    assert_eq!(bob.take(&mut world).len(), 1);
    world.restart();
    world.pass(1);
    bob.answer(&mut world);
    alice.subscribe(&mut world);
    alice.take(&mut world);
    assert_eq!(alice.sees("bob"), Some(Status::Connected));
    assert_eq!(bob.join(&mut world, &focus_of(&answer.headers)).code, 200);
}
