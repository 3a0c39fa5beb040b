//! An INVITE without an offer is anchored like any other (RFC 3261 §13.2.1, RFC 3264 §4; REQ-PF-12).

use std::net::SocketAddr;

use contract::{change::Verb, leg};
use sip::{Method, Name, Response};

use super::session::{contexts_removed, forked, inside, invite, msrp_legs};
use super::{ALICE, BOB, BOB2, phone, world};
use crate::testing::{Event, World, call_sdp, chat_sdp, reply, sdp_of};
use crate::{Input, ServerTx, Table};

/// Alice has called without an offer, Bob's first device has answered with its own.
fn offered(sdp: &str) -> (World, ServerTx, Response, Response) {
    let mut world = world();
    let tx = invite(&mut world, "c1", "");
    let [(first, request), (second, other)] = forked(&mut world);
    assert!(request.body.is_empty() && other.body.is_empty());
    assert!(world.batches.is_empty(), "nobody has offered anything yet");
    let bob = reply(&request, 200, "b1", sdp);
    world.reply(first, bob.clone());
    assert!(world.next(phone(BOB)).is_none(), "its ACK brings Alice's answer");
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Cancel(t, _)) if t == second));
    world.reply(second, other.respond(487));
    let alice = world.answer(tx).unwrap().clone();
    assert_eq!(alice.code, 200);
    (world, tx, alice, bob)
}

fn rtp_remotes(world: &World) -> Vec<SocketAddr> {
    let puts = world.batches.iter().flat_map(|b| &b.changes).filter_map(|c| match &c.verb {
        Some(Verb::PutLeg(leg)) => leg.kind.clone(),
        _ => None,
    });
    puts.filter_map(|kind| match kind {
        leg::Kind::Rtp(rtp) => rtp.remote?.socket(),
        leg::Kind::Msrp(_) => None,
    })
    .collect()
}

fn paths(world: &World) -> usize {
    let changes = world.batches.iter().flat_map(|b| &b.changes);
    changes.filter(|c| matches!(c.verb, Some(Verb::PutPath(_)))).count()
}

#[test]
fn a_call_without_an_offer_is_anchored_on_both_sides() {
    let (mut world, _, alice, _) = offered(&call_sdp("192.0.2.2", 5002, "sendrecv", 1));
    let line = &sdp_of(&alice.body).lines[0];
    assert_eq!(line.host.as_ref().unwrap().ip(), Some([192, 0, 2, 200].into()), "our end, not Bob's");
    assert_ne!(line.port, 5002);
    assert_eq!(world.rows(Table::Context).len(), 1);
    world.dataplane_slow = true;
    let answer = call_sdp("192.0.2.1", 5001, "sendonly", 1);
    world.ack(phone(ALICE), inside("ACK", 1, &alice, true, &answer));
    let Some(Event::Ack(ack)) = world.next(phone(BOB)) else { panic!("an ACK that waits for nothing") };
    let theirs = &sdp_of(&ack.body).lines[0];
    assert_eq!(theirs.host.as_ref().unwrap().ip(), Some([192, 0, 2, 200].into()), "our end, not Alice's");
    assert!(theirs.port != 5001 && theirs.port != line.port, "a leg of its own");
    assert_eq!(theirs.direction, sdp::Direction::SendOnly);
    let remotes = rtp_remotes(&world);
    for end in ["192.0.2.1:5001", "192.0.2.2:5002"] {
        assert!(remotes.contains(&end.parse().unwrap()), "{end} is met: {remotes:?}");
    }
    assert_eq!(paths(&world), 2, "there and back");
}

#[test]
fn a_chat_without_an_offer_is_anchored_and_outlives_control() {
    let (mut world, _, alice, bob) = offered(&chat_sdp("192.0.2.2", 5002, "actpass"));
    let line = sdp_of(&alice.body).lines[0].clone();
    assert!(line.message().unwrap().path.starts_with("msrp://192.0.2.200:"));
    assert_eq!(line.setup, Some(sdp::Setup::ActPass), "never passive in an offer");
    world.ack(phone(ALICE), inside("ACK", 1, &alice, true, &chat_sdp("192.0.2.1", 5001, "active")));
    let Some(Event::Ack(ack)) = world.next(phone(BOB)) else { panic!("an ACK") };
    let theirs = sdp_of(&ack.body).lines[0].clone();
    assert!(theirs.message().unwrap().path.starts_with("msrp://192.0.2.200:"));
    assert_eq!(theirs.setup, Some(sdp::Setup::Passive), "we are reachable");
    let met: Vec<_> = msrp_legs(&world).into_iter().flat_map(|l| l.remote_path).collect();
    assert!(met.iter().any(|p| p.contains(":5001/")) && met.iter().any(|p| p.contains(":5002/")), "{met:?}");
    world.restart();
    assert_eq!(world.service.counters().sessions, 2);
    let tx = world.send(phone(BOB), inside("BYE", 2, &bob, false, ""));
    assert_eq!(world.code(tx), Some(200));
    world.request(phone(ALICE), &Method::Bye);
    assert_eq!((contexts_removed(&world), world.rows(Table::Context).len()), (1, 0));
}

// RFC 3261 §13.2.2.4: the 2xx is acknowledged with an answer, then the session ends.
#[test]
fn whoever_offered_gets_an_answer_before_the_bye() {
    type Ending = fn(&mut World, ServerTx, &Response);
    let endings: [(&str, Ending); 4] = [
        ("no ACK", |world, tx, _| world.input(Input::AckMissing { tx })),
        ("an ACK without an answer", |world, _, alice| {
            world.ack(phone(ALICE), inside("ACK", 1, alice, true, ""));
        }),
        ("an answer that fits no offer", |world, _, alice| {
            let chat = chat_sdp("192.0.2.1", 5001, "active");
            world.ack(phone(ALICE), inside("ACK", 1, alice, true, &chat));
        }),
        ("BYE in the place of the ACK", |world, _, alice| {
            world.send(phone(ALICE), inside("BYE", 2, alice, true, ""));
        }),
    ];
    for (name, end) in endings {
        let (mut world, tx, alice, _) = offered(&call_sdp("192.0.2.2", 5002, "sendrecv", 1));
        end(&mut world, tx, &alice);
        let Some(Event::Ack(ack)) = world.next(phone(BOB)) else { panic!("{name}: an ACK first") };
        assert!(sdp_of(&ack.body).lines[0].is_refused(), "{name}");
        world.request(phone(BOB), &Method::Bye);
        assert_eq!((contexts_removed(&world), world.rows(Table::Session).len()), (1, 0), "{name}");
        assert_eq!(world.service.counters().sessions, 0, "{name}");
    }
}

#[test]
fn an_offer_that_cannot_be_anchored_and_a_full_data_plane_end_the_call() {
    let secure = call_sdp("192.0.2.2", 5002, "sendrecv", 1).replace("RTP/AVP", "UDP/TLS/RTP/SAVP");
    for (sdp, full, code) in [
        (secure, false, 488),
        (String::new(), false, 488),
        (call_sdp("192.0.2.2", 5002, "sendrecv", 1), true, 503),
    ] {
        let mut world = world();
        world.dataplane_full = full;
        let tx = invite(&mut world, "c1", "");
        let [(first, request), _] = forked(&mut world);
        world.reply(first, reply(&request, 200, "b1", &sdp));
        let Some(Event::Ack(ack)) = world.next(phone(BOB)) else { panic!("{code}: an ACK first") };
        assert!(ack.body.is_empty() == sdp.is_empty() && !ack.headers.has(&Name::Expires));
        world.request(phone(BOB), &Method::Bye);
        assert_eq!(world.code(tx), Some(code));
    }
}

// A second device's 2xx crossed the CANCEL; an offer has to have an answer there too.
#[test]
fn a_late_offer_that_comes_too_late_is_refused() {
    let mut world = world();
    invite(&mut world, "c1", "");
    let [(first, request), (second, other)] = forked(&mut world);
    world.reply(first, reply(&request, 200, "b1", &call_sdp("192.0.2.2", 5002, "sendrecv", 1)));
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Cancel(..))));
    world.reply(second, reply(&other, 200, "b2", &call_sdp("192.0.2.3", 5003, "sendrecv", 1)));
    let Some(Event::Ack(ack)) = world.next(phone(BOB2)) else { panic!("an ACK") };
    assert!(sdp_of(&ack.body).lines[0].is_refused());
    world.request(phone(BOB2), &Method::Bye);
}

// RFC 3264 §4: no second offer while the first one has no answer.
#[test]
fn a_change_before_the_answer_is_glare() {
    let (mut world, _, alice, _) = offered(&call_sdp("192.0.2.2", 5002, "sendrecv", 1));
    let hold = call_sdp("192.0.2.1", 5001, "sendonly", 2);
    let tx = world.send(phone(ALICE), inside("UPDATE", 2, &alice, true, &hold));
    assert_eq!(world.code(tx), Some(491));
}
