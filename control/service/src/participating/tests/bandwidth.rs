//! Calls whose descriptions name a bandwidth (RFC 8866 §5.8, RFC 3890): each side may send what the other one takes.

use contract::{change::Verb, leg};
use sip::Method;

use super::session::{forked, inside, invite};
use super::{ALICE, BOB, BOB2, instance, phone};
use crate::testing::{World, call_sdp, reply, sdp_of};

fn with(sdp: String, bandwidth: &str) -> String {
    sdp.replacen("a=", &format!("{bandwidth}a="), 1)
}

/// What each leg is held to, by the port of its peer.
fn held(world: &World) -> Vec<(u32, u32)> {
    let mut legs = std::collections::BTreeMap::new();
    for change in world.batches.iter().flat_map(|b| &b.changes) {
        if let Some(Verb::PutLeg(leg)) = &change.verb
            && let Some(leg::Kind::Rtp(rtp)) = &leg.kind
            && let Some(remote) = &rtp.remote
        {
            legs.insert(remote.port, rtp.bandwidth_kbps);
        }
    }
    legs.into_iter().collect()
}

fn call(offer: &str, answer: &str, police: bool) -> (World, sip::Response, sip::Response) {
    let mut world = World::configured(|config| {
        (config.media.police, config.media.police_headroom_percent) = (police, 50);
    });
    for (user, port) in [("alice", ALICE), ("bob", BOB), ("bob", BOB2)] {
        world.register(user, phone(port), &instance(port));
    }
    let tx = invite(&mut world, "c1", &with(call_sdp("192.0.2.1", 5001, "sendrecv", 1), offer));
    let [(first, request), (second, other)] = forked(&mut world);
    assert_eq!(sdp_of(&request.body).lines[0].bandwidths.len(), usize::from(!offer.is_empty()), "it passes");
    let bob = reply(&request, 200, "bobtag", &with(call_sdp("192.0.2.2", 5002, "sendrecv", 1), answer));
    world.reply(first, bob.clone());
    world.next(phone(BOB));
    world.next(phone(BOB2));
    world.reply(second, other.respond(487));
    let alice = world.answer(tx).unwrap().clone();
    assert_eq!(alice.code, 200);
    world.ack(phone(ALICE), inside("ACK", 1, &alice, true, ""));
    (world, alice, bob)
}

#[test]
fn each_side_is_held_to_what_the_other_one_takes_with_the_headroom() {
    for (offer, answer, police, expected) in [
        ("b=AS:100\r\n", "b=AS:40\r\n", true, [(5001, 60), (5002, 150)]),
        ("b=TIAS:64000\r\n", "", true, [(5001, 0), (5002, 96)]),
        ("", "", true, [(5001, 0), (5002, 0)]),
        ("b=AS:100\r\n", "b=AS:40\r\n", false, [(5001, 0), (5002, 0)]),
    ] {
        let (world, ..) = call(offer, answer, police);
        assert_eq!(held(&world), expected, "{offer}{answer}");
    }
}

#[test]
fn a_change_of_the_call_changes_what_may_be_sent_once_it_is_answered() {
    let (mut world, alice, _) = call("b=AS:100\r\n", "b=AS:40\r\n", true);
    let more = with(call_sdp("192.0.2.1", 5001, "sendrecv", 2), "b=AS:200\r\n");
    world.send(phone(ALICE), inside("INVITE", 2, &alice, true, &more));
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    assert_eq!(held(&world), [(5001, 60), (5002, 150)], "nobody has agreed yet");
    let answer = with(call_sdp("192.0.2.2", 5002, "sendrecv", 2), "b=AS:80\r\n");
    world.reply(client, reply(&request, 200, "bobtag", &answer));
    world.settle();
    assert_eq!(held(&world), [(5001, 120), (5002, 300)]);
}
