//! Flow F3 and its races: one-to-one sessions, forked, anchored, changed and ended.

use contract::{LegKey, LegLost, News, change::Verb, leg, leg_lost, news};
use sip::{Method, Name, Request, Response};

use super::{ALICE, BOB, BOB2, both, instance, phone, world};
use crate::testing::{Event, World, authorize, call_sdp, chat_sdp, reply, request, sdp_of, text};
use crate::{ClientTx, Input, ServerTx, Table};

const SDP: &str = "application/sdp";

pub(super) fn invite(world: &mut World, id: &str, sdp: &str) -> ServerTx {
    let extra = "Conversation-ID: k1\r\nContribution-ID: b1\r\nSupported: timer\r\nSession-Expires: 1800\r\n\
                 Allow: INVITE, ACK, BYE, CANCEL, UPDATE\r\n";
    let request = request("INVITE", "alice", "bob", id, extra, SDP, sdp);
    world.send(phone(ALICE), request)
}

/// The two INVITEs of a fork.
pub(super) fn forked(world: &mut World) -> [(ClientTx, Request); 2] {
    both().map(|port| world.request(phone(port), &Method::Invite))
}

/// A request of a side inside its dialog, made from what that side knows.
pub(crate) fn inside(method: &str, seq: u32, own: &Response, at_caller: bool, body: &str) -> Request {
    let (from, to) = if at_caller { ("From", "To") } else { ("To", "From") };
    let header = |name: &str| {
        let name = Name::from(name);
        own.headers.text(&name).unwrap_or_default().to_owned()
    };
    let kind = if body.is_empty() { String::new() } else { format!("Content-Type: {SDP}\r\n") };
    text(&format!(
        "{method} sip:x@weir.example SIP/2.0\r\n{}From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {seq} {method}\r\n\
         Contact: <sip:me@127.0.0.1:9999>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        crate::testing::via(),
        header(from),
        header(to),
        header("Call-ID"),
        body.len()
    ))
}

/// An established chat or call: Alice's 200, Bob's answer, and which device has it.
struct Talk {
    world: World,
    alice: Response,
    bob: Response,
}

fn established(offer: &str, answer: &str) -> Talk {
    let mut world = world();
    let tx = invite(&mut world, "c1", offer);
    let [(first, request), (second, other)] = forked(&mut world);
    let bob = reply(&request, 200, "bobtag", answer);
    world.reply(first, bob.clone());
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Cancel(tx, Some(200))) if tx == second));
    world.reply(second, other.respond(487));
    let alice = world.answer(tx).unwrap().clone();
    assert_eq!(alice.code, 200);
    world.ack(phone(ALICE), inside("ACK", 1, &alice, true, ""));
    Talk { world, alice, bob }
}

fn chat() -> Talk {
    established(&chat_sdp("192.0.2.1", 5001, "actpass"), &chat_sdp("192.0.2.2", 5002, "active"))
}

fn call() -> Talk {
    established(&call_sdp("192.0.2.1", 5001, "sendrecv", 1), &call_sdp("192.0.2.2", 5002, "sendrecv", 1))
}

pub(super) fn msrp_legs(world: &World) -> Vec<contract::MsrpLeg> {
    let puts = world.batches.iter().flat_map(|b| &b.changes).filter_map(|c| match &c.verb {
        Some(Verb::PutLeg(leg)) => leg.kind.clone(),
        _ => None,
    });
    puts.filter_map(|kind| match kind {
        leg::Kind::Msrp(msrp) => Some(msrp),
        leg::Kind::Rtp(_) => None,
    })
    .collect()
}

pub(super) fn contexts_removed(world: &World) -> usize {
    let changes = world.batches.iter().flat_map(|b| &b.changes);
    changes.filter(|c| matches!(c.verb, Some(Verb::RemoveContext(_)))).count()
}

#[test]
fn f3_the_first_answer_wins_and_the_others_hear_elsewhere() {
    let mut world = world();
    let tx = invite(&mut world, "c1", &chat_sdp("192.0.2.1", 5001, "actpass"));
    let [(first, request), (second, other)] = forked(&mut world);
    for (invite, port) in [(&request, BOB), (&other, BOB2)] {
        let h = &invite.headers;
        let aimed = h.text(&Name::AcceptContact).unwrap();
        assert_eq!(aimed, format!("*;+sip.instance=\"<{}>\";require;explicit", instance(port)));
        assert_eq!(h.text(&Name::ConversationId), Some("k1"));
        assert_eq!(h.text(&Name::MaxForwards), Some("68"), "two functions have it passed on");
        let offer = sdp_of(&invite.body);
        let line = offer.lines[0].message().unwrap();
        assert!(line.path.starts_with("msrp://192.0.2.200:"), "our end, not Alice's: {}", line.path);
        assert_eq!(
            offer.lines[0].setup,
            Some(sdp::Setup::ActPass),
            "never passive in an offer (§7.5 item 15)"
        );
        assert_eq!(line.accept_types, ["message/cpim"]);
    }
    let paths = [&request, &other].map(|r| sdp_of(&r.body).lines[0].message().unwrap().path.clone());
    assert_ne!(paths[0], paths[1], "a leg of its own for each device");
    // 180 of the one, 180 of the other: one 180 upstream.
    world.reply(first, reply(&request, 180, "b1", ""));
    world.reply(second, reply(&other, 180, "b2", ""));
    assert_eq!(world.answers[&tx].iter().filter(|r| r.code == 180).count(), 1);
    world.reply(second, reply(&other, 200, "b2", &chat_sdp("192.0.2.2", 5002, "active")));
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Ack(_))));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Cancel(t, Some(200))) if t == first));
    let answer = world.answer(tx).unwrap().clone();
    assert_eq!(answer.code, 200);
    let line = &sdp_of(&answer.body).lines[0];
    assert_eq!(line.setup, Some(sdp::Setup::Passive), "we are reachable");
    assert!(line.message().unwrap().path.starts_with("msrp://192.0.2.200:"));
    assert_eq!(answer.headers.text(&Name::SessionExpires), Some("1800;refresher=uac"));
    assert_eq!(world.rows(Table::Session).len(), 2, "originating and terminating");
    assert_eq!(world.rows(Table::Context).len(), 1, "one anchors");
    // The data plane knows both ends.
    let met = msrp_legs(&world).into_iter().filter(|l| !l.remote_path.is_empty()).count();
    assert!(met >= 2);
    world.reply(first, request.respond(487));
    assert_eq!(world.answers[&tx].iter().filter(|r| r.code >= 200).count(), 1);
}

#[test]
fn a_late_2xx_is_acknowledged_and_ended() {
    let mut world = world();
    invite(&mut world, "c1", &chat_sdp("192.0.2.1", 5001, "actpass"));
    let [(first, request), (second, other)] = forked(&mut world);
    world.reply(first, reply(&request, 200, "b1", &chat_sdp("192.0.2.2", 5002, "active")));
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Cancel(..))));
    // It crossed the CANCEL.
    world.reply(second, reply(&other, 200, "b2", &chat_sdp("192.0.2.3", 5003, "active")));
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Ack(_))));
    let (_, bye) = world.request(phone(BOB2), &Method::Bye);
    assert!(bye.headers.text(&Name::Reason).unwrap().contains("cause=200"));
    assert_eq!(world.rows(Table::Session).len(), 2, "the winner's session lives");
}

#[test]
fn the_caller_hangs_up_before_anybody_answers() {
    let mut world = world();
    let tx = invite(&mut world, "c1", &chat_sdp("192.0.2.1", 5001, "actpass"));
    let [(first, request), (second, other)] = forked(&mut world);
    world.cancel(tx);
    assert_eq!(world.code(tx), Some(487));
    for port in both() {
        assert!(matches!(world.next(phone(port)), Some(Event::Cancel(..))));
    }
    // One device's 200 crossed the CANCEL; the other one obeys.
    world.reply(first, reply(&request, 200, "b1", &chat_sdp("192.0.2.2", 5002, "active")));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    world.request(phone(BOB), &Method::Bye);
    world.reply(second, other.respond(487));
    assert_eq!(world.service.counters().sessions, 0);
    assert_eq!((world.rows(Table::Session).len(), contexts_removed(&world)), (0, 1));
}

#[test]
fn a_cancel_while_the_data_plane_is_asked() {
    let mut world = world();
    world.dataplane_slow = true;
    let tx = invite(&mut world, "c1", &chat_sdp("192.0.2.1", 5001, "actpass"));
    assert!(world.next(phone(BOB)).is_none(), "no offer without ports");
    world.cancel(tx);
    assert_eq!(world.code(tx), Some(487));
    world.dataplane_slow = false;
    world.apply();
    assert!(world.next(phone(BOB)).is_none());
    assert_eq!((world.service.counters().sessions, contexts_removed(&world)), (0, 1));
}

#[test]
fn a_full_data_plane_is_503_and_nothing_rings() {
    let mut world = world();
    world.dataplane_full = true;
    let tx = invite(&mut world, "c1", &chat_sdp("192.0.2.1", 5001, "actpass"));
    assert_eq!(world.code(tx), Some(503));
    assert!(world.next(phone(BOB)).is_none());
    assert_eq!(world.service.counters().sessions, 0);
}

// Hostile reading 4, finding 2: it was 500, and 503 in a call that is up; a proxy would try elsewhere (RFC 3261 §21.4.26).
#[test]
fn a_description_that_cannot_be_a_leg_is_488() {
    fn far(change: &contract::Change) -> bool {
        let remote = match &change.verb {
            Some(Verb::PutLeg(leg)) => match &leg.kind {
                Some(leg::Kind::Rtp(rtp)) => rtp.remote.as_ref().and_then(contract::Address::socket),
                _ => None,
            },
            _ => None,
        };
        remote == Some(std::net::SocketAddr::from(([192, 0, 2, 9], 6001)))
    }
    let mut world = world();
    world.dataplane_dislikes = far;
    let tx = invite(&mut world, "c1", &call_sdp("192.0.2.9", 6001, "sendrecv", 1));
    assert_eq!(world.code(tx), Some(488));
    let Talk { mut world, alice, .. } = call();
    world.dataplane_dislikes = far;
    let moved = call_sdp("192.0.2.9", 6001, "sendrecv", 2);
    let tx = world.send(phone(ALICE), inside("INVITE", 2, &alice, true, &moved));
    assert_eq!((world.code(tx), world.service.counters().sessions), (Some(488), 2));
    let same = call_sdp("192.0.2.8", 6001, "sendrecv", 3);
    let tx = world.send(phone(ALICE), inside("INVITE", 3, &alice, true, &same));
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    world.reply(client, request.respond(486));
    assert_eq!(world.code(tx), Some(486), "the next one goes its way");
}

#[test]
fn failures_are_merged() {
    for (codes, best) in [([486, 480], 486), ([480, 480], 480), ([404, 603], 603), ([503, 500], 500)] {
        let mut world = world();
        let tx = invite(&mut world, "c1", &chat_sdp("192.0.2.1", 5001, "actpass"));
        let [(first, request), (second, other)] = forked(&mut world);
        world.reply(first, request.respond(codes[0]));
        assert_eq!(world.code(tx), None, "{codes:?}");
        world.reply(second, other.respond(codes[1]));
        assert_eq!(world.code(tx), Some(best), "{codes:?}");
        assert_eq!(world.service.counters().sessions, 0);
    }
    // One 603 speaks for all.
    let mut world = world();
    let tx = invite(&mut world, "c1", &chat_sdp("192.0.2.1", 5001, "actpass"));
    let [(first, request), (second, other)] = forked(&mut world);
    world.reply(first, request.respond(603));
    assert_eq!(world.code(tx), Some(603));
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Cancel(t, _)) if t == second));
    world.reply(second, other.respond(487));
    assert_eq!(world.service.counters().sessions, 0);
}

#[test]
fn nobody_answers_for_three_minutes() {
    let mut world = world();
    let tx = invite(&mut world, "c1", &chat_sdp("192.0.2.1", 5001, "actpass"));
    let [(first, request), _] = forked(&mut world);
    world.reply(first, reply(&request, 180, "b1", ""));
    world.pass(181);
    assert_eq!(world.code(tx), Some(480));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Cancel(..))));
    world.pass(40);
    assert_eq!(world.service.counters().sessions, 0, "legs that never answer the CANCEL are swept");
}

// REQ-PF-11.
// RFC 3261 §22: the ids of a dialog are no secret, so they prove nothing.
#[test]
fn who_knows_a_dialogs_ids_is_not_yet_in_it() {
    let Talk { mut world, alice, bob } = chat();
    let before = world.batches.len();
    for (own, at_caller) in [(&alice, true), (&bob, false)] {
        for (seq, method) in ["BYE", "REFER", "INVITE", "UPDATE", "SUBSCRIBE", "INFO"].into_iter().enumerate()
        {
            let seq = 100 + u32::try_from(seq).unwrap();
            let tx = world.send(phone(6666), inside(method, seq, own, at_caller, ""));
            assert_eq!(world.code(tx), Some(407), "{method}");
        }
    }
    assert_eq!((world.rows(Table::Session).len(), world.batches.len()), (2, before), "nothing happened");
    assert!(world.next(phone(BOB)).is_none());
    // Another user's password is no better; the user's own is.
    let tx = world.send(phone(6666), inside("BYE", 200, &alice, true, ""));
    let challenge = world.answer(tx).unwrap().clone();
    let mut forged = inside("BYE", 201, &alice, true, "");
    authorize(&mut forged, &challenge, "carol", "secret");
    let tx = world.send(phone(6666), forged);
    assert_eq!(world.code(tx), Some(403));
    let tx = world.send(phone(6666), inside("BYE", 202, &alice, true, ""));
    let challenge = world.answer(tx).unwrap().clone();
    let mut good = inside("BYE", 203, &alice, true, "");
    authorize(&mut good, &challenge, "alice", "secret");
    let tx = world.send(phone(6666), good);
    let (bye, request) = world.request(phone(BOB), &Method::Bye);
    world.reply(bye, request.respond(200));
    assert_eq!(world.code(tx), Some(200));
}

#[test]
fn a_bye_of_either_side_ends_both_and_frees_the_media() {
    for caller in [true, false] {
        let Talk { mut world, alice, bob } = chat();
        let (from, to, own) = if caller { (ALICE, BOB, &alice) } else { (BOB, ALICE, &bob) };
        let mut bye = inside("BYE", 7, own, caller, "");
        bye.headers.push(Name::Reason, "SIP;cause=200;text=\"Call completed\"");
        let tx = world.send(phone(from), bye.clone());
        assert_eq!(world.code(tx), Some(200));
        let (_, passed) = world.request(phone(to), &Method::Bye);
        assert!(passed.headers.text(&Name::Reason).unwrap().contains("Call completed"));
        let tables = [Table::Session, Table::Context].map(|t| world.rows(t).len());
        assert_eq!((tables, contexts_removed(&world)), ([0, 0], 1));
        assert_eq!(world.service.counters().sessions, 0);
        let late = world.send(phone(from), bye);
        assert_eq!(world.code(late), Some(481));
    }
}

#[test]
fn unusable_media_is_488_and_a_broken_body_400() {
    let mut world = world();
    let secure = call_sdp("192.0.2.1", 5001, "sendrecv", 1).replace("RTP/AVP", "RTP/SAVP");
    let tx = invite(&mut world, "c1", &secure);
    assert_eq!(world.code(tx), Some(488));
    let tx = invite(&mut world, "c2", "v=0\r\nnonsense");
    assert_eq!(world.code(tx), Some(488));
    assert_eq!((world.service.counters().sessions, world.service.counters().descriptions_malformed), (0, 1));
    // The device's answer is unusable: it is acknowledged and ended, and the caller is told.
    let tx = invite(&mut world, "c3", &chat_sdp("192.0.2.1", 5001, "actpass"));
    let [(first, request), _] = forked(&mut world);
    world.reply(first, reply(&request, 200, "b1", &call_sdp("192.0.2.2", 5002, "sendrecv", 1)));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    world.request(phone(BOB), &Method::Bye);
    assert_eq!(world.code(tx), Some(488));
}

// REQ-PF-10.
#[test]
fn a_call_is_held_and_taken_up_again() {
    let Talk { mut world, alice, bob } = call();
    let hold = call_sdp("192.0.2.1", 5001, "sendonly", 2);
    let tx = world.send(phone(ALICE), inside("INVITE", 2, &alice, true, &hold));
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    let offer = sdp_of(&request.body);
    assert_eq!(offer.lines[0].direction, sdp::Direction::SendOnly);
    assert_eq!(offer.origin.version, 2, "a changed description, a new version");
    // Glare: Bob wants a change too (RFC 3261 §14.2).
    let glare = world.send(phone(BOB), inside("INVITE", 2, &bob, false, &hold));
    assert_eq!(world.code(glare), Some(491));
    let again = world.send(phone(ALICE), inside("INVITE", 3, &alice, true, &hold));
    assert_eq!(world.code(again), Some(500));
    world.reply(client, reply(&request, 200, "bobtag", &call_sdp("192.0.2.2", 5002, "recvonly", 2)));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    let answer = world.answer(tx).unwrap().clone();
    assert_eq!((answer.code, sdp_of(&answer.body).lines[0].direction), (200, sdp::Direction::RecvOnly));
    world.ack(phone(ALICE), inside("ACK", 2, &alice, true, ""));
    // And back, by UPDATE, from the other side.
    let back = call_sdp("192.0.2.2", 5002, "sendrecv", 3);
    let tx = world.send(phone(BOB), inside("UPDATE", 3, &bob, false, &back));
    let (client, request) = world.request(phone(ALICE), &Method::Update);
    let mut accepted = request.respond(200);
    accepted.set_body(SDP, call_sdp("192.0.2.1", 5001, "sendrecv", 3));
    world.reply(client, accepted);
    assert_eq!(world.code(tx), Some(200));
}

#[test]
fn a_refused_change_leaves_everything_as_it_was() {
    let Talk { mut world, alice, .. } = call();
    let moved = call_sdp("192.0.2.9", 6001, "sendrecv", 2);
    let tx = world.send(phone(ALICE), inside("INVITE", 2, &alice, true, &moved));
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    world.reply(client, request.respond(488));
    assert_eq!(world.code(tx), Some(488));
    let last = world.batches.last().unwrap().changes.last().unwrap().verb.clone();
    let Some(Verb::PutLeg(leg)) = last else { panic!("{last:?}") };
    let Some(leg::Kind::Rtp(rtp)) = leg.kind else { panic!() };
    assert_eq!(rtp.remote.unwrap().socket(), Some("192.0.2.1:5001".parse().unwrap()));
    assert_eq!(world.service.counters().sessions, 2);
    // The session timer as well: Alice refreshes no more, and the session ends when it would have.
    world.pass(1800);
    assert_eq!(world.service.counters().sessions, 0);
}

#[test]
fn refreshes_are_answered_by_the_neighbour() {
    let Talk { mut world, alice, .. } = chat();
    // UPDATE without a description, and a re-INVITE that says nothing new (RFC 4028 §7.4).
    let tx = world.send(phone(ALICE), inside("UPDATE", 2, &alice, true, ""));
    assert_eq!(world.code(tx), Some(200));
    let same = chat_sdp("192.0.2.1", 5001, "actpass");
    let tx = world.send(phone(ALICE), inside("INVITE", 3, &alice, true, &same));
    let answer = world.answer(tx).unwrap().clone();
    assert_eq!((answer.code, &answer.body), (200, &alice.body), "the same answer, o= line included");
    assert!(world.next(phone(BOB)).is_none());
    world.ack(phone(ALICE), inside("ACK", 3, &alice, true, ""));
    // A request out of order (RFC 3261 §12.2.2).
    let tx = world.send(phone(ALICE), inside("UPDATE", 2, &alice, true, ""));
    assert_eq!(world.code(tx), Some(500));
}

#[test]
fn a_side_that_stops_refreshing_ends_the_session() {
    let Talk { mut world, .. } = chat();
    // Alice is the refresher on her side; Bob's answer had no timer.
    world.pass(1769);
    assert!(matches!(world.next(phone(ALICE)), Some(Event::Request(_, r)) if r.method == Method::Bye));
    world.request(phone(BOB), &Method::Bye);
    assert_eq!(world.service.counters().sessions, 0);
}

#[test]
fn we_refresh_where_we_said_that_we_would() {
    let mut world = world();
    let tx = invite(&mut world, "c1", &chat_sdp("192.0.2.1", 5001, "actpass"));
    let [(first, request), (second, other)] = forked(&mut world);
    let mut accepted = reply(&request, 200, "b1", &chat_sdp("192.0.2.2", 5002, "active"));
    accepted.headers.push(Name::SessionExpires, "600;refresher=uac");
    world.reply(first, accepted);
    world.reply(second, other.respond(487));
    assert_eq!(world.code(tx), Some(200));
    world.inbox.clear();
    world.pass(301);
    let (client, update) = world.request(phone(BOB), &Method::Update);
    assert!(update.body.is_empty());
    let mut accepted = reply(&update, 200, "b1", "");
    accepted.headers.push(Name::SessionExpires, "600;refresher=uac");
    world.reply(client, accepted);
    world.pass(301);
    let (client, _) = world.request(phone(BOB), &Method::Update);
    // Silence inside a dialog ends it (RFC 3261 §12.2.1.2).
    world.expire(client);
    assert_eq!(world.service.counters().sessions, 0);
}

#[test]
fn intervals_that_are_too_small_are_refused() {
    let mut world = world();
    let extra = "Supported: timer\r\nSession-Expires: 30\r\n";
    let sdp = chat_sdp("192.0.2.1", 5001, "actpass");
    let tx = world.send(phone(ALICE), request("INVITE", "alice", "bob", "c1", extra, SDP, &sdp));
    let answer = world.answer(tx).unwrap();
    assert_eq!((answer.code, answer.headers.text(&Name::MinSe)), (422, Some("90")));
}

#[test]
fn other_requests_pass_or_are_answered() {
    let Talk { mut world, alice, .. } = chat();
    let tx = world.send(phone(ALICE), inside("INFO", 2, &alice, true, ""));
    let (client, info) = world.request(phone(BOB), &Method::Info);
    world.reply(client, info.respond(200));
    assert_eq!(world.code(tx), Some(200));
    let tx = world.send(phone(ALICE), inside("OPTIONS", 3, &alice, true, ""));
    assert_eq!(world.code(tx), Some(200));
    let tx = world.send(phone(ALICE), inside("REFER", 4, &alice, true, ""));
    assert_eq!(world.code(tx), Some(400), "whom to call?");
    let tx = world.send(phone(ALICE), inside("PUBLISH", 5, &alice, true, ""));
    assert_eq!(world.code(tx), Some(405));
}

#[test]
fn no_ack_means_no_session() {
    let mut world = world();
    let tx = invite(&mut world, "c1", &chat_sdp("192.0.2.1", 5001, "actpass"));
    let [(first, request), _] = forked(&mut world);
    world.reply(first, reply(&request, 200, "b1", &chat_sdp("192.0.2.2", 5002, "active")));
    assert_eq!(world.code(tx), Some(200));
    world.inbox.clear();
    world.input(Input::AckMissing { tx });
    world.request(phone(ALICE), &Method::Bye);
    world.request(phone(BOB), &Method::Bye);
}

// RFC 3261 §13.2.2.4, §14.2: an offer of ours in a 2xx has its answer in the ACK, or nothing is agreed.
#[test]
fn a_change_without_offer_whose_ack_brings_no_answer_ends_the_session() {
    for acknowledged in [true, false] {
        let Talk { mut world, alice, .. } = call();
        let tx = world.send(phone(ALICE), inside("INVITE", 2, &alice, true, ""));
        let answer = world.answer(tx).unwrap().clone();
        assert!(answer.code == 200 && !answer.body.is_empty(), "our last description is the offer");
        if acknowledged {
            world.ack(phone(ALICE), inside("ACK", 2, &alice, true, ""));
        } else {
            world.input(Input::AckMissing { tx });
        }
        let (_, bye) = world.request(phone(ALICE), &Method::Bye);
        assert!(bye.headers.text(&Name::Reason).unwrap().contains(if acknowledged { "488" } else { "408" }));
        world.request(phone(BOB), &Method::Bye);
        assert_eq!((world.service.counters().sessions, contexts_removed(&world)), (0, 1));
    }
}

fn lost(world: &World, reason: leg_lost::Reason) -> Input {
    let row = world.rows(Table::Session).into_iter().find_map(|row| match &row.record {
        crate::Record::Session(s) if s.context != 0 => Some((s.context, s.downstream[0].legs[0])),
        _ => None,
    });
    let (context, leg) = row.unwrap();
    let lost = LegLost { leg: Some(LegKey::new(context, leg)), reason: reason.into() };
    Input::News(News { what: Some(news::What::LegLost(lost)) })
}

#[test]
fn a_lost_message_leg_is_set_up_again_under_a_new_path() {
    let Talk { mut world, .. } = chat();
    let old = msrp_legs(&world);
    let input = lost(&world, leg_lost::Reason::Reset);
    world.input(input);
    assert!(world.next(phone(BOB)).is_none(), "its BYE may be under way");
    world.pass(1);
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    let path = sdp_of(&request.body).lines[0].message().unwrap().path.clone();
    assert!(!old.iter().any(|l| l.local.as_ref().is_some_and(|l| l.path == path)), "a new session id");
    world.reply(client, reply(&request, 200, "bobtag", &chat_sdp("192.0.2.2", 5009, "active")));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    let last = msrp_legs(&world).pop().unwrap();
    assert_eq!(last.remote_path, ["msrp://192.0.2.2:5009/5009x;tcp"]);
    world.pass(60);
    assert_eq!(world.service.counters().sessions, 2, "it is repaired: nobody hangs up");
    // Alice was not bothered.
    assert!(world.next(phone(ALICE)).is_none());
}

#[test]
fn a_leg_that_cannot_be_set_up_again_ends_the_session() {
    let Talk { mut world, .. } = chat();
    let input = lost(&world, leg_lost::Reason::Closed);
    world.input(input);
    world.pass(1);
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    world.reply(client, request.respond(491));
    world.pass(5);
    let (_, _) = world.request(phone(BOB), &Method::Invite);
    world.pass(31);
    world.request(phone(ALICE), &Method::Bye);
    assert_eq!(world.service.counters().sessions, 0);
}

#[test]
fn idle_chats_end_and_calls_do_not() {
    let idle = |world: &World| {
        let legs: Vec<_> = world
            .rows(Table::Session)
            .into_iter()
            .filter_map(|row| match &row.record {
                crate::Record::Session(s) if s.context != 0 => Some([
                    LegKey::new(s.context, s.upstream.legs[0]),
                    LegKey::new(s.context, s.downstream[0].legs[0]),
                ]),
                _ => None,
            })
            .flatten()
            .map(|leg| contract::LegCounters { leg: Some(leg), idle_ms: 300_001, ..Default::default() })
            .collect();
        Input::News(News { what: Some(news::What::Counters(contract::Counters { legs })) })
    };
    let Talk { mut world, .. } = chat();
    let input = idle(&world);
    world.input(input);
    world.request(phone(BOB), &Method::Bye);
    let Talk { mut world, .. } = call();
    let input = idle(&world);
    world.input(input);
    assert!(world.next(phone(BOB)).is_none());
}

#[test]
fn control_dies_and_takes_its_sessions_over() {
    let Talk { mut world, alice, .. } = chat();
    let before: Vec<_> = world.rows(Table::Context).into_iter().cloned().collect();
    world.batches.clear();
    world.restart();
    assert_eq!(world.service.counters().sessions, 2);
    assert!(world.batches.is_empty(), "media is left alone");
    assert_eq!(world.rows(Table::Context)[0].record, before[0].record);
    // An audit: the one that is claimed stays, the stray one goes.
    let crate::Record::Context(context) = &before[0].record else { panic!() };
    // Strays go one by one, and not all at once: each may be at home on another shard of the data plane.
    let mut held: Vec<u64> = (1000..1200).collect();
    held.push(context.context);
    world.input(Input::Audited { contexts: held });
    world.pass(0);
    let removed: Vec<_> = world.batches.iter().map(|b| b.changes[0].verb.clone()).collect();
    assert_eq!(removed, (1000..1200).map(|c| Some(Verb::RemoveContext(c))).collect::<Vec<_>>());
    assert!(world.batches.iter().all(|b| b.changes.len() == 1));
    // And the session can be changed and ended.
    let tx = world.send(phone(ALICE), inside("INFO", 5, &alice, true, ""));
    let (client, info) = world.request(phone(BOB), &Method::Info);
    world.reply(client, info.respond(200));
    assert_eq!(world.code(tx), Some(200));
    let tx = world.send(phone(ALICE), inside("BYE", 6, &alice, true, ""));
    assert_eq!(world.code(tx), Some(200));
    world.request(phone(BOB), &Method::Bye);
    assert_eq!(world.rows(Table::Session).len(), 0);
}

#[test]
fn one_of_two_lanes_that_forgot_the_session_ends_it() {
    let Talk { mut world, .. } = chat();
    // The terminating function's rows were never committed.
    world.store.retain(|_, row| !matches!(&row.record, crate::Record::Session(s) if !s.originating));
    world.restart();
    world.request(phone(ALICE), &Method::Bye);
    assert_eq!((world.service.counters().sessions, contexts_removed(&world)), (0, 1));
}

#[test]
fn the_data_plane_dies_and_is_given_everything_again() {
    let Talk { mut world, .. } = call();
    world.batches.clear();
    let up = Input::DataplaneUp { welcome: contract::Welcome::default(), instance_changed: true };
    world.input(up.clone());
    world.settle();
    let whole = world.batches.first().unwrap().clone();
    let ports: Vec<_> = whole
        .changes
        .iter()
        .filter_map(|c| match &c.verb {
            Some(Verb::PutLeg(leg)) => match &leg.kind {
                Some(leg::Kind::Rtp(rtp)) => rtp.local.as_ref()?.bound.as_ref()?.socket(),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert!(ports.len() == 2 && ports.iter().all(|p| p.port() != 0), "the same ports are named: {ports:?}");
    assert!(world.next(phone(BOB)).is_none(), "plain RTP needs no words");
    // Messages do: both sides are asked to come again.
    let Talk { mut world, .. } = chat();
    world.input(up);
    world.settle();
    let (client, request) = world.request(phone(ALICE), &Method::Invite);
    world.reply(client, reply(&request, 200, "a", &chat_sdp("192.0.2.1", 5005, "active")));
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    world.reply(client, reply(&request, 200, "bobtag", &chat_sdp("192.0.2.2", 5006, "active")));
    world.pass(40);
    assert_eq!(world.service.counters().sessions, 2);
}

// CPM-FACTS §2.5 "MSRP transport failure": re-INVITE, after 30 s BYE; whoever dies meanwhile.
#[test]
fn control_that_dies_during_a_repair_takes_it_up_again() {
    for answers in [true, false] {
        let Talk { mut world, .. } = chat();
        world.input(Input::DataplaneUp { welcome: contract::Welcome::default(), instance_changed: true });
        world.settle();
        world.request(phone(ALICE), &Method::Invite);
        world.restart();
        world.pass(3);
        let (client, request) = world.request(phone(ALICE), &Method::Invite);
        if !answers {
            world.pass(31);
            world.request(phone(ALICE), &Method::Bye);
            world.request(phone(BOB), &Method::Bye);
            assert_eq!((world.service.counters().sessions, contexts_removed(&world)), (0, 1));
            continue;
        }
        world.reply(client, reply(&request, 200, "a", &chat_sdp("192.0.2.1", 5005, "active")));
        let (client, request) = world.request(phone(BOB), &Method::Invite);
        world.reply(client, reply(&request, 200, "bobtag", &chat_sdp("192.0.2.2", 5006, "active")));
        world.pass(60);
        assert_eq!(world.service.counters().sessions, 2);
        let met: Vec<_> = msrp_legs(&world).into_iter().rev().take(2).flat_map(|l| l.remote_path).collect();
        assert!(met.iter().any(|p| p.contains(":5006/")), "{met:?}");
    }
}

#[test]
fn media_that_was_lost_while_control_was_away_is_put_again() {
    let Talk { mut world, .. } = call();
    world.restart();
    world.batches.clear();
    world.input(Input::Audited { contexts: Vec::new() });
    world.settle();
    let legs = world.batches.iter().flat_map(|b| &b.changes);
    let legs = legs.filter(|c| matches!(c.verb, Some(Verb::PutLeg(_)))).count();
    assert_eq!(legs, 2);
    assert_eq!(world.service.counters().sessions, 2);
}

#[test]
fn datagram_phones_are_called_where_their_contact_says() {
    use sip::{Peer, Transport};
    let mut config = World::new().config;
    config.identity.trusted_peers = vec![[127, 0, 0, 1].into()];
    let mut world = World::with(config);
    let udp = |port: u16| Peer::new(Transport::Udp, ([127, 0, 0, 1], port).into());
    let register = |contact: &str, call: &str| {
        text(&format!(
            "REGISTER sip:weir.example SIP/2.0\r\n{}From: <sip:bob@weir.example>;tag=r\r\n\
             To: <sip:bob@127.0.0.1:5060>\r\nCall-ID: {call}\r\nCSeq: 1 REGISTER\r\nContact: {contact}\r\n\
             Content-Length: 0\r\n\r\n",
            crate::testing::via()
        ))
    };
    // It registers from 9000 and listens on 9001; another one is behind a NAT.
    world.send(udp(9000), register("<sip:bob@127.0.0.1:9001>", "a"));
    world.send(udp(9002), register("<sip:bob@10.0.0.7:5060>", "b"));
    let offer = call_sdp("127.0.0.1", 5001, "sendrecv", 1);
    let mut call = request("INVITE", "sipp", "bob", "c1", "", SDP, &offer);
    call.uri = "sip:bob@127.0.0.1:5060".parse().unwrap();
    let tx = world.send(udp(9100), call);
    assert!(world.next(udp(9000)).is_none());
    world.request(udp(9002), &Method::Invite);
    let (client, invite) = world.request(udp(9001), &Method::Invite);
    let mut accepted = reply(&invite, 200, "b", &call_sdp("127.0.0.1", 5002, "sendrecv", 1));
    accepted.headers.set(Name::Contact, "<sip:bob@127.0.0.1:9001>");
    world.reply(client, accepted);
    assert_eq!(world.code(tx), Some(200));
    // The caller's Contact names 7000: that is where his BYE goes (RFC 3261 §12.2.1.1).
    let alice = world.answer(tx).unwrap().clone();
    world.ack(udp(9100), inside("ACK", 1, &alice, true, ""));
    let bob = reply(&invite, 200, "b", "");
    world.send(udp(9001), inside("BYE", 1, &bob, false, ""));
    world.request(udp(7000), &Method::Bye);
}
