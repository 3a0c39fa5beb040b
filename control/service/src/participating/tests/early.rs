//! Changes before the answer: UPDATE in an early dialog (RFC 3311) and an offer in a PRACK (RFC 3262 §5), through the
//! two back-to-back user agents of a call.

use sip::{Method, Name, Request, Response};

use super::reliable::{acknowledge, answer, early, last, offer, prack, reliable, rseq, world};
use super::session::inside;
use super::{ALICE, BOB, legs, phone};
use crate::testing::{Event, World, call_sdp, reply, request, sdp_of};
use crate::{ClientTx, ServerTx};

const BOTH: &str = "Supported: 100rel\r\nAllow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE\r\n";

/// Alice's and Bob's ends of a call that rings, the first answer acknowledged.
struct Early {
    world: World,
    invite: ServerTx,
    leg: ClientTx,
    called: Request,
    /// What Alice was shown.
    alice: Response,
    /// What Bob said.
    bob: Response,
}

fn ringing() -> Early {
    let mut it = unacknowledged();
    let ok = acknowledge(&mut it.world, 2, &it.alice);
    assert_eq!(it.world.code(ok), Some(200));
    it
}

fn unacknowledged() -> Early {
    let mut world = world();
    let (invite, leg, called) = early(&mut world, BOTH);
    let alice = last(&world, invite);
    let bob = reliable(&called, 183, "b1", "7", &answer());
    Early { world, invite, leg, called, alice, bob }
}

fn held(version: u32) -> String {
    call_sdp("192.0.2.1", 5001, "sendonly", version)
}

fn holding(version: u32) -> String {
    call_sdp("192.0.2.2", 5002, "recvonly", version)
}

impl Early {
    fn update(&mut self, seq: u32, sdp: &str) -> ServerTx {
        self.world.send(phone(ALICE), inside("UPDATE", seq, &self.alice, true, sdp))
    }

    fn asked(&mut self) -> (ClientTx, Request) {
        self.world.request(phone(BOB), &Method::Update)
    }

    /// Bob takes the call, and it goes on as agreed.
    fn answered(&mut self, sdp: &str) -> Response {
        self.world.reply(self.leg, reply(&self.called, 200, "b1", sdp));
        let ok = self.world.answer(self.invite).unwrap().clone();
        assert_eq!((ok.code, ok.to_tag()), (200, self.alice.to_tag()));
        assert!(matches!(self.world.next(phone(BOB)), Some(Event::Ack(_))));
        self.world.ack(phone(ALICE), inside("ACK", 1, &ok, true, ""));
        ok
    }
}

fn code(world: &World, tx: ServerTx) -> Option<u16> {
    world.code(tx)
}

fn has_direction(world: &World, wanted: contract::Direction) -> bool {
    legs(world).iter().any(|leg| leg.direction() == wanted)
}

#[test]
fn rfc3311_s5_the_caller_changes_a_call_that_rings_and_media_is_anchored() {
    let mut call = ringing();
    let tx = call.update(3, &held(2));
    let (client, asked) = call.asked();
    let line = &sdp_of(&asked.body).lines[0];
    assert_eq!(line.host.as_ref().unwrap().to_string(), "192.0.2.200", "our end, not Alice's");
    assert_eq!(line.direction, sdp::Direction::SendOnly);
    assert_eq!((asked.to_tag().as_deref(), asked.cseq().unwrap().seq), (Some("b1"), 3), "after our PRACK");
    assert_eq!(asked.uri.to_string(), "sip:b1@127.0.0.1:7001", "in the early dialog");
    assert!(!asked.headers.has(&Name::SessionExpires), "the INVITE agrees on timers");
    call.world.reply(client, reply(&asked, 200, "b1", &holding(2)));
    let ok = call.world.answer(tx).unwrap().clone();
    assert_eq!(ok.code, 200);
    let line = &sdp_of(&ok.body).lines[0];
    assert_eq!(line.host.as_ref().unwrap().to_string(), "192.0.2.200");
    assert_eq!(line.direction, sdp::Direction::RecvOnly);
    assert!(has_direction(&call.world, contract::Direction::Recvonly));
    // RFC 3262 §5: what is agreed is not said again, and what Bob repeats changes nothing.
    let accepted = call.answered(&answer());
    assert!(accepted.body.is_empty() && !accepted.headers.has(&Name::ContentType));
    let bye = call.world.send(phone(ALICE), inside("BYE", 4, &accepted, true, ""));
    assert_eq!(code(&call.world, bye), Some(200));
    let (_, bye) = call.world.request(phone(BOB), &Method::Bye);
    assert_eq!(bye.cseq().unwrap().seq, 4);
    assert_eq!(call.world.service.counters().sessions, 0);
}

#[test]
fn rfc3311_s5_the_callee_changes_it_too() {
    let mut call = ringing();
    let offer = call_sdp("192.0.2.2", 5002, "sendonly", 2);
    let tx = call.world.send(phone(BOB), inside("UPDATE", 1, &call.bob, false, &offer));
    let (client, asked) = call.world.request(phone(ALICE), &Method::Update);
    assert_eq!(sdp_of(&asked.body).lines[0].host.as_ref().unwrap().to_string(), "192.0.2.200");
    assert_eq!((asked.from_tag(), asked.to_tag().as_deref()), (call.alice.to_tag(), Some("fc1")));
    let mut ok = asked.respond(200);
    ok.set_body("application/sdp", call_sdp("192.0.2.1", 5001, "recvonly", 2));
    call.world.reply(client, ok);
    let ok = call.world.answer(tx).unwrap();
    assert_eq!((ok.code, sdp_of(&ok.body).lines[0].direction), (200, sdp::Direction::RecvOnly));
    let accepted = call.answered("");
    assert!(accepted.body.is_empty());
}

#[test]
fn rfc3262_s5_an_offer_in_a_prack_goes_on_as_an_update_and_its_answer_comes_back() {
    let mut call = unacknowledged();
    let rack = format!("{} 1 INVITE", rseq(&call.alice));
    let tx = prack(&mut call.world, 2, &call.alice, &rack, &held(2));
    assert_eq!(code(&call.world, tx), None, "the answer belongs into its 200");
    let (client, asked) = call.asked();
    assert!(!asked.headers.has(&Name::RAck));
    call.world.reply(client, reply(&asked, 200, "b1", &holding(2)));
    let ok = call.world.answer(tx).unwrap();
    assert_eq!((ok.code, sdp_of(&ok.body).lines[0].direction), (200, sdp::Direction::RecvOnly));
    assert!(!ok.headers.has(&Name::Contact), "RFC 3262 table 1");
    // It was acknowledged when it came: nothing is sent again.
    call.world.pass(40);
    assert_eq!(code(&call.world, call.invite), None);
    call.answered("");
}

#[test]
fn an_offer_in_a_prack_to_who_has_no_update_gets_488_and_the_response_is_acknowledged() {
    let mut world = world();
    let tx =
        world.send(phone(ALICE), request("INVITE", "alice", "bob", "c1", BOTH, "application/sdp", &offer()));
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    let mut ring = reliable(&called, 183, "b1", "7", &answer());
    ring.headers.set(Name::Allow, "INVITE, ACK, BYE, CANCEL, PRACK");
    world.reply(leg, ring);
    world.request(phone(BOB), &Method::Prack);
    let alice = last(&world, tx);
    let refused = prack(&mut world, 2, &alice, &format!("{} 1 INVITE", rseq(&alice)), &held(2));
    assert_eq!(code(&world, refused), Some(488));
    let update = world.send(phone(ALICE), inside("UPDATE", 3, &alice, true, &held(3)));
    assert_eq!(code(&world, update), Some(488));
    world.reply(leg, reply(&called, 200, "b1", &answer()));
    let ok = world.answer(tx).unwrap();
    assert_eq!((ok.code, &ok.body), (200, &alice.body), "as agreed at first");
}

#[test]
fn rfc3311_s5_2_an_offer_before_the_first_answer_is_acknowledged_gets_500_with_a_time() {
    let mut call = unacknowledged();
    let tx = call.update(2, &held(2));
    let refused = call.world.answer(tx).unwrap();
    assert_eq!(refused.code, 500);
    let after: u32 = refused.headers.text(&Name::RetryAfter).unwrap().parse().unwrap();
    assert!(after <= 10);
    assert!(call.world.next(phone(BOB)).is_none());
    // Without an offer it changes nothing but the target.
    let tx = call.update(3, "");
    assert_eq!(code(&call.world, tx), Some(200));
}

#[test]
fn rfc3311_s5_2_two_changes_at_once_are_glare() {
    let mut call = ringing();
    let first = call.update(3, &held(2));
    let (client, asked) = call.asked();
    let theirs = call_sdp("192.0.2.2", 5002, "sendonly", 2);
    let crossing = call.world.send(phone(BOB), inside("UPDATE", 1, &call.bob, false, &theirs));
    assert_eq!(code(&call.world, crossing), Some(491));
    let second = call.update(4, &held(3));
    assert_eq!(code(&call.world, second), Some(500));
    call.world.reply(client, reply(&asked, 200, "b1", &holding(2)));
    assert_eq!(code(&call.world, first), Some(200));
    // RFC 3261 §14.2: another INVITE before the answer.
    let again = call.world.send(phone(ALICE), inside("INVITE", 5, &call.alice, true, &held(4)));
    assert_eq!(code(&call.world, again), Some(500));
    let theirs = call.world.send(phone(BOB), inside("INVITE", 2, &call.bob, false, &theirs));
    assert_eq!(code(&call.world, theirs), Some(491));
}

#[test]
fn a_refused_change_leaves_the_call_as_it_was() {
    let mut call = ringing();
    let met = |world: &World| {
        legs(world).iter().map(|l| (l.id, l.direction, super::rtp(l).remote.clone())).collect::<Vec<_>>()
    };
    let before = met(&call.world);
    let tx = call.update(3, &held(2));
    let (client, asked) = call.asked();
    call.world.reply(client, asked.respond(488));
    assert_eq!(code(&call.world, tx), Some(488));
    assert_eq!(met(&call.world), before);
    // Nobody answers at all: the call still rings.
    let tx = call.update(4, &held(2));
    let (client, _) = call.asked();
    call.world.expire(client);
    assert_eq!((code(&call.world, tx), code(&call.world, call.invite)), (Some(408), None));
    let ok = call.answered(&answer());
    assert_eq!(ok.body, call.alice.body);
}

#[test]
fn an_answer_to_the_invite_waits_for_the_change_that_it_overtakes() {
    let mut call = ringing();
    let tx = call.update(3, &held(2));
    let (client, asked) = call.asked();
    call.world.reply(call.leg, reply(&call.called, 200, "b1", ""));
    assert_eq!(code(&call.world, call.invite), None);
    call.world.reply(client, reply(&asked, 200, "b1", &holding(2)));
    assert_eq!((code(&call.world, tx), code(&call.world, call.invite)), (Some(200), Some(200)));
    assert!(call.world.answer(call.invite).unwrap().body.is_empty());
}

#[test]
fn a_slow_data_plane_has_each_step_of_a_change_first() {
    let mut call = ringing();
    call.world.dataplane_slow = true;
    let tx = call.update(3, &held(2));
    assert!(call.world.next(phone(BOB)).is_none(), "its media is not met yet");
    call.world.apply();
    let (client, asked) = call.asked();
    call.world.reply(client, reply(&asked, 200, "b1", &holding(2)));
    call.world.reply(call.leg, reply(&call.called, 200, "b1", ""));
    assert_eq!((code(&call.world, tx), code(&call.world, call.invite)), (None, None));
    call.world.dataplane_slow = false;
    while !call.world.waiting.is_empty() {
        call.world.apply();
    }
    assert_eq!((code(&call.world, tx), code(&call.world, call.invite)), (Some(200), Some(200)));
}

#[test]
fn another_fork_that_answers_ends_the_change_of_the_first() {
    let mut call = ringing();
    let tx = call.update(3, &held(2));
    call.asked();
    call.world.reply(call.leg, reply(&call.called, 200, "b2", &call_sdp("192.0.2.9", 5009, "sendrecv", 1)));
    assert_eq!((code(&call.world, tx), code(&call.world, call.invite)), (Some(487), Some(200)));
    let ok = call.world.answer(call.invite).unwrap();
    assert!(ok.to_tag() != call.alice.to_tag() && !ok.body.is_empty());
}

#[test]
fn a_call_that_is_taken_back_ends_its_change() {
    let mut call = ringing();
    let tx = call.update(3, &held(2));
    call.asked();
    call.world.cancel(call.invite);
    assert_eq!((code(&call.world, tx), code(&call.world, call.invite)), (Some(487), Some(487)));
    call.world.reply(call.leg, call.called.respond(487));
    assert_eq!(call.world.service.counters().sessions, 0);
}

#[test]
fn a_device_of_another_early_dialog_changes_nothing_and_ends_nothing() {
    let mut call = ringing();
    let other = reliable(&call.called, 180, "b2", "1", "");
    call.world.reply(call.leg, other.clone());
    call.world.request(phone(BOB), &Method::Prack);
    let theirs = call_sdp("192.0.2.2", 5002, "sendonly", 2);
    let tx = call.world.send(phone(BOB), inside("UPDATE", 1, &other, false, &theirs));
    assert_eq!(code(&call.world, tx), Some(500));
    // RFC 3261 §15: the callee answers the INVITE instead.
    let tx = call.world.send(phone(BOB), inside("BYE", 2, &call.bob, false, ""));
    assert_eq!((code(&call.world, tx), code(&call.world, call.invite)), (Some(481), None));
    // INFO and the like go through while it rings.
    let tx = call.world.send(phone(BOB), inside("INFO", 3, &call.bob, false, ""));
    let (client, info) = call.world.request(phone(ALICE), &Method::Info);
    call.world.reply(client, info.respond(200));
    assert_eq!(code(&call.world, tx), Some(200));
}

#[test]
fn a_device_that_ends_the_call_before_its_media_is_there_is_heard() {
    let mut world = world();
    let tx =
        world.send(phone(ALICE), request("INVITE", "alice", "bob", "c1", BOTH, "application/sdp", &offer()));
    let (leg, called) = world.request(phone(BOB), &Method::Invite);
    world.dataplane_slow = true;
    let ok = reply(&called, 200, "b1", &answer());
    world.reply(leg, ok.clone());
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    let bye = world.send(phone(BOB), inside("BYE", 1, &ok, false, ""));
    assert_eq!((code(&world, bye), code(&world, tx)), (Some(200), Some(480)));
}
