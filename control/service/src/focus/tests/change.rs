//! A participant's change that the data plane does not take (RFC 3261 §14.2, RFC 3264 §8): it is his alone.

use contract::change::Verb;
use contract::leg::Kind;
use sip::{Method, Name};

use super::{group_of, world};

const SDP: &str = "application/sdp";

fn is_garbage(change: &contract::Change) -> bool {
    match &change.verb {
        Some(Verb::PutLeg(leg)) => {
            matches!(&leg.kind, Some(Kind::Msrp(msrp)) if msrp.remote_path == ["garbage"])
        }
        _ => false,
    }
}

fn is_sound(change: &contract::Change) -> bool {
    match &change.verb {
        Some(Verb::PutLeg(leg)) => matches!(&leg.kind, Some(Kind::Rtp(_))),
        _ => false,
    }
}

// Hostile reading 4, finding 1: the refused leg stayed among what is wanted, so every later batch was refused with it, and
// nobody could come or change anything any more.
#[test]
fn what_the_data_plane_takes_from_nobody_is_in_no_later_order() {
    let (mut world, mut phones) = world();
    let _ = group_of(&mut world, &mut phones, &[1]);
    let [alice, bob, carol, _] = &mut phones;
    let bad = [
        bob.sdp.replace("msrp://192.0.2.1:7101/7101x;tcp", "garbage"),
        format!("{}m=audio 9000 RTP/AVP 0\r\n", bob.sdp),
    ];
    world.dataplane_dislikes = |change| is_garbage(change) || is_sound(change);
    for sdp in bad {
        let seen = world.batches.len();
        let answer = bob.within(&mut world, Method::Invite, &[], Some((SDP, &sdp)));
        assert!(world.batches[seen..].iter().flat_map(|b| &b.changes).any(world.dataplane_dislikes));
        assert_eq!(answer.code, 488);
        let sdp = alice.sdp.clone();
        assert_eq!(alice.within(&mut world, Method::Invite, &[], Some((SDP, &sdp))).code, 200);
    }
    // What was agreed before stands, and is ordered again whole.
    let whole = |batch: &&contract::Batch| {
        batch.changes.iter().any(|change| matches!(change.verb, Some(Verb::PutContext(_))))
    };
    let last = world.batches.iter().rfind(whole).unwrap();
    let legs = last.changes.iter().filter_map(|change| match &change.verb {
        Some(Verb::PutLeg(leg)) => Some(leg.kind.clone()),
        _ => None,
    });
    let paths: Vec<String> = legs
        .map(|kind| match kind {
            Some(Kind::Msrp(msrp)) => msrp.remote_path.concat(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(paths, ["msrp://192.0.2.1:7001/7001x;tcp", "msrp://192.0.2.1:7101/7101x;tcp"]);
    let sdp = bob.sdp.clone();
    assert_eq!(bob.within(&mut world, Method::Invite, &[], Some((SDP, &sdp))).code, 200);
    alice.within(
        &mut world,
        Method::Refer,
        &[(Name::ReferTo, "<sip:carol@weir.example>"), (Name::ReferSub, "false")],
        None,
    );
    world.pass(1);
    carol.answer(&mut world);
    assert!(carol.dialog.is_some());
}
