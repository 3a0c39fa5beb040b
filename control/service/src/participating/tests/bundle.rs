//! Lines of a WebRTC end on one transport (RFC 9143): answered as a part of what is offered, offered to devices that are
//! registered by WebSocket, changed by later offers.

use contract::{Leg, Welcome};
use sdp::{Fingerprint, Proto, Setup};
use sip::{Method, Response};

use super::session::{inside, invite};
use super::{ALICE, BOB, instance, legs, peer, phone, rtp};
use crate::Input;
use crate::config::Srtp;
use crate::testing::{Event, World, reply, sdp_of};

const THEIRS: [u8; 32] = [0x4a; 32];

/// One line of a description: its kind, its mid, and whether it has a port.
type Line<'a> = (&'a str, &'a str, bool);

fn codec(kind: &str) -> (&'static str, &'static str) {
    if kind == "audio" { ("0", "0 PCMU/8000") } else { ("96", "96 VP8/90000") }
}

/// What a plain phone writes.
fn plain(lines: &[(&str, u16)], version: u32) -> String {
    let mut text =
        format!("v=0\r\no=- 7 {version} IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\n");
    for (kind, port) in lines {
        let (payload, codec) = codec(kind);
        text += &format!("m={kind} {port} RTP/AVP {payload}\r\na=rtpmap:{codec}\r\n");
    }
    text
}

/// What a browser writes that bundles as much as it can (`max-bundle`): only the first line of the bundle has a transport.
fn browser(setup: Setup, frag: &str, lines: &[Line<'_>], version: u32) -> String {
    let names: Vec<&str> = lines.iter().filter(|(_, _, used)| *used).map(|(_, mid, _)| *mid).collect();
    let mut text = format!(
        "v=0\r\no=- 9 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n",
        names.join(" ")
    );
    for (at, (kind, mid, used)) in lines.iter().enumerate() {
        let (payload, codec) = codec(kind);
        let tagged = names.first() == Some(mid);
        let (port, only) = match (used, tagged) {
            (true, true) => (9, ""),
            (true, false) => (0, "a=bundle-only\r\n"),
            (false, _) => (0, ""),
        };
        text += &format!(
            "m={kind} {port} UDP/TLS/RTP/SAVPF {payload}\r\nc=IN IP4 0.0.0.0\r\n{only}a=mid:{mid}\r\na=rtpmap:{codec}\r\n\
             a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=ssrc:{} cname:x\r\n",
            1001 + at
        );
        if tagged {
            text += &format!(
                "a=rtcp-mux\r\na=setup:{}\r\na=ice-ufrag:{frag}\r\na=ice-pwd:{frag}AndAPasswordOfManyChars\r\n\
                 a=fingerprint:{}\r\n",
                setup.as_str(),
                Fingerprint::sha256(THEIRS)
            );
        }
    }
    text
}

fn at_work(transport: &str) -> World {
    let mut world = World::configured(|config| config.media.dtls = Srtp::Terminate);
    let welcome = Welcome { version: 2, dtls_fingerprint: vec![0xee; 32], ..Welcome::default() };
    world.input(Input::DataplaneUp { welcome, instance_changed: false });
    world.register("alice", peer(ALICE), &instance(ALICE));
    world.register_by(transport, "bob", peer(BOB), &instance(BOB));
    world
}

/// The legs that share a transport: each with its mid, the carrier first.
fn shared(world: &World) -> Vec<(Leg, String)> {
    let of = |leg: Leg| {
        let mid = rtp(&leg).bundle.as_ref()?.mid.clone();
        Some((leg, mid))
    };
    let mut all: Vec<(Leg, String)> = legs(world).into_iter().filter_map(of).collect();
    all.sort_by_key(|(leg, _)| rtp(leg).bundle.as_ref().unwrap().carrier);
    let carrier = all.first().map(|(leg, _)| leg.id);
    for (leg, _) in all.iter().skip(1) {
        let rtp = rtp(leg);
        assert_eq!(Some(rtp.bundle.as_ref().unwrap().carrier), carrier);
        assert!(rtp.dtls.is_none() && rtp.ice.is_none() && rtp.rtcp_mux && rtp.remote.is_none());
    }
    all
}

fn mids(world: &World) -> Vec<String> {
    shared(world).into_iter().map(|(_, mid)| mid).collect()
}

fn call(world: &mut World, offer: &str, answer: &str) -> (Response, sdp::Session) {
    let tx = invite(world, "c1", offer);
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    let offered = sdp_of(&request.body);
    world.reply(client, reply(&request, 200, "bobtag", answer));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    let alice = world.answer(tx).unwrap().clone();
    assert_eq!(alice.code, 200);
    world.ack(phone(ALICE), inside("ACK", 1, &alice, true, ""));
    (alice, offered)
}

/// Alice offers a change, Bob answers it.
fn change(world: &mut World, dialog: &Response, seq: u32, offer: &str, answer: &str) -> Response {
    let tx = world.send(phone(ALICE), inside("INVITE", seq, dialog, true, offer));
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    world.reply(client, reply(&request, 200, "bobtag", answer));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    let response = world.answer(tx).unwrap().clone();
    assert_eq!(response.code, 200);
    world.ack(phone(ALICE), inside("ACK", seq, &response, true, ""));
    response
}

const BOTH: [Line<'static>; 2] = [("audio", "a", true), ("video", "v", true)];

// RFC 9143 §7.3: bundle-only lines are answered with a port, and the tagged line alone speaks of the transport.
#[test]
fn a_browser_with_one_transport_is_answered_with_one() {
    let mut world = at_work("tcp");
    let offer = browser(Setup::ActPass, "alic", &BOTH, 1);
    let (alice, offered) = call(&mut world, &offer, &plain(&[("audio", 5002), ("video", 5004)], 1));
    assert!(offered.groups.is_empty() && offered.lines.iter().all(|line| line.proto == Proto::RtpAvp));
    assert!(offered.lines.iter().all(|line| !line.is_refused() && !line.has("bundle-only")));
    let answer = sdp_of(&alice.body);
    assert_eq!(answer.bundle(), [0, 1]);
    assert!(answer.lines[0].port != 0 && answer.lines[0].port == answer.lines[1].port);
    let text = std::str::from_utf8(&alice.body).unwrap();
    for (part, count) in [
        ("a=group:BUNDLE a v\r\n", 1),
        ("a=ice-ufrag", 1),
        ("a=candidate", 1),
        ("a=fingerprint", 1),
        ("a=setup:passive", 1),
        ("a=rtcp-mux", 2),
        ("bundle-only", 0),
    ] {
        assert_eq!(text.matches(part).count(), count, "{part} in {text}");
    }
    let all = shared(&world);
    let [(carrier, a), (rider, v)] = &all[..] else { panic!("{}", all.len()) };
    assert_eq!((a.as_str(), v.as_str()), ("a", "v"));
    let (one, two) = (rtp(carrier).bundle.clone().unwrap(), rtp(rider).bundle.clone().unwrap());
    assert_eq!((one.payloads, two.payloads, one.mid_id, two.ssrcs), (vec![0], vec![96], 4, vec![1002]));
    assert!(one.writes_mid && two.writes_mid, "a browser that agreed to it looks at nothing else");
    assert!(answer.lines.iter().all(|line| line.mid_extension() == Some(4)));
    assert_eq!(rtp(carrier).dtls.as_ref().unwrap().fingerprints, [THEIRS.to_vec()]);
    assert_eq!(rtp(carrier).ice.as_ref().unwrap().peer_ufrag, "alic");
}

// RFC 9143 §7.3.1: the answer's bundle is a part of the offer's; the first line of it that is taken is tagged.
#[test]
fn lines_that_are_refused_are_of_no_bundle() {
    for (ports, group) in [([5002, 0], "BUNDLE a\r\n"), ([0, 5004], "BUNDLE v\r\n")] {
        let mut world = at_work("tcp");
        let offer = browser(Setup::ActPass, "alic", &BOTH, 1);
        let (alice, _) = call(&mut world, &offer, &plain(&[("audio", ports[0]), ("video", ports[1])], 1));
        let text = std::str::from_utf8(&alice.body).unwrap();
        assert!(text.contains(group), "{text}");
        let answer = sdp_of(&alice.body);
        let used = usize::from(ports[0] == 0);
        assert_eq!((answer.bundle(), answer.lines[1 - used].port), (vec![used], 0));
        // Whichever line is left has the transport.
        assert!(answer.lines[used].ice.is_some() && answer.lines[used].sha256_fingerprints() == [[0xee; 32]]);
        let carriers = shared(&world).into_iter().filter(|(leg, _)| rtp(leg).dtls.is_some()).count();
        assert_eq!(carriers, 1);
    }
}

#[test]
fn a_line_that_is_bundle_only_without_a_bundle_is_refused() {
    let mut world = at_work("tcp");
    let offer = browser(Setup::ActPass, "alic", &BOTH, 1).replace("BUNDLE a v", "BUNDLE a");
    let (alice, offered) = call(&mut world, &offer, &plain(&[("audio", 5002), ("video", 0)], 1));
    assert!(offered.lines[1].is_refused());
    assert_eq!((sdp_of(&alice.body).bundle(), mids(&world)), (vec![0], vec!["a".to_owned()]));
}

// RFC 9143 §15: two lines with the same payload types are told by what stands in packets, which later offers agree to again.
#[test]
fn two_lines_of_the_same_payload_types_are_told_by_the_mid() {
    let mut world = at_work("tcp");
    let two = [("video", "v", true), ("video", "vv", true)];
    let offer = browser(Setup::ActPass, "alic", &two, 1);
    let (alice, _) = call(&mut world, &offer, &plain(&[("video", 5002), ("video", 5004)], 1));
    let all = shared(&world);
    assert_eq!(all.len(), 2);
    assert!(
        all.iter().all(|(leg, _)| rtp(leg).bundle.as_ref().is_some_and(|b| b.writes_mid && b.mid_id == 4))
    );
    let answer = sdp_of(&alice.body);
    assert!(answer.lines.iter().all(|line| line.mid_extension() == Some(4)));
}

// RFC 9143 §7.2, §7.4: each line with a port of its own, and what the answer bundles on one.
#[test]
fn a_device_registered_by_websocket_is_offered_a_bundle() {
    let mut world = at_work("wss");
    let offer = plain(&[("audio", 5001), ("video", 5003)], 1);
    // The device names the lines as they were offered.
    let tx = invite(&mut world, "c1", &offer);
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    let offered = sdp_of(&request.body);
    assert_eq!(offered.bundle(), [0, 1]);
    assert!(offered.lines[0].port != offered.lines[1].port && offered.lines.iter().all(|l| l.ice.is_some()));
    assert!(mids(&world).is_empty());
    let names: Vec<String> = offered.lines.iter().map(|line| line.mid.clone().unwrap()).collect();
    let lines = [("audio", names[0].as_str(), true), ("video", names[1].as_str(), true)];
    let answer = browser(Setup::Active, "bobs", &lines, 1)
        .replace("a=bundle-only\r\n", "")
        .replace("m=video 0 ", "m=video 9 ");
    world.reply(client, reply(&request, 200, "bobtag", &answer));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    let alice = world.answer(tx).unwrap().clone();
    assert!(alice.code == 200 && sdp_of(&alice.body).groups.is_empty());
    let all = shared(&world);
    assert_eq!(all.iter().map(|(_, mid)| mid.clone()).collect::<Vec<_>>(), names);
    assert_eq!(rtp(&all[0].0).ice.as_ref().unwrap().ufrag, offered.lines[0].ice.as_ref().unwrap().ufrag);
    // One that bundles nothing has its two transports.
    let mut world = at_work("wss");
    let apart = answer.replace(&format!("a=group:BUNDLE {}\r\n", names.join(" ")), "");
    let tagged: Vec<&str> = answer.split("a=rtcp-mux\r\n").nth(1).unwrap().split("m=").collect();
    let apart = format!("{apart}a=rtcp-mux\r\n{}", tagged[0]);
    call(&mut world, &offer, &apart);
    assert!(mids(&world).is_empty());
    assert_eq!(legs(&world).iter().filter(|leg| rtp(leg).dtls.is_some()).count(), 2);
}

#[test]
fn a_later_offer_adds_a_line_to_the_transport_and_takes_one_away() {
    let mut world = at_work("tcp");
    let one = [("audio", "a", true)];
    let offer = browser(Setup::ActPass, "alic", &one, 1);
    let (alice, _) = call(&mut world, &offer, &plain(&[("audio", 5002)], 1));
    let before = sdp_of(&alice.body);
    assert_eq!(mids(&world), ["a"]);
    let answer = plain(&[("audio", 5002), ("video", 5004)], 2);
    let response = change(&mut world, &alice, 2, &browser(Setup::ActPass, "alic", &BOTH, 2), &answer);
    let after = sdp_of(&response.body);
    assert_eq!((after.bundle(), mids(&world)), (vec![0, 1], vec!["a".to_owned(), "v".to_owned()]));
    assert_eq!((after.lines[0].port, after.lines[1].port), (before.lines[0].port, before.lines[0].port));
    assert_eq!(after.lines[0].ice, before.lines[0].ice, "the transport is as it was");
    let carrier = shared(&world)[0].0.id;
    // The line whose transport it was ends; the other one speaks for it now.
    let left = [("audio", "a", false), ("video", "v", true)];
    let answer = plain(&[("audio", 0), ("video", 5004)], 3);
    let response = change(&mut world, &alice, 3, &browser(Setup::ActPass, "alic", &left, 3), &answer);
    let after = sdp_of(&response.body);
    assert_eq!((after.bundle(), after.lines[0].port), (vec![1], 0));
    assert_eq!((after.lines[1].port, &after.lines[1].ice), (before.lines[0].port, &before.lines[0].ice));
    let all = shared(&world);
    assert_eq!((all.len(), all[0].0.id, all[0].1.as_str(), all[1].1.as_str()), (2, carrier, "", "v"));
    assert_eq!(all[0].0.direction(), contract::Direction::Inactive);
    // A restart is that of the transport, whoever speaks for it.
    let response = change(
        &mut world,
        &alice,
        4,
        &browser(Setup::ActPass, "newf", &left, 4),
        &plain(&[("audio", 0), ("video", 5004)], 3),
    );
    let restarted = sdp_of(&response.body);
    assert_ne!(restarted.lines[1].ice, after.lines[1].ice);
    assert_eq!(rtp(&shared(&world)[0].0).ice.as_ref().unwrap().peer_ufrag, "newf");
    // With its last line the transport goes.
    let none = [("audio", "a", true), ("video", "v", false)];
    let response = change(
        &mut world,
        &alice,
        5,
        &browser(Setup::ActPass, "newf", &none, 5),
        &plain(&[("audio", 5002), ("video", 0)], 4),
    );
    assert_eq!(
        (sdp_of(&response.body).bundle(), mids(&world).last().cloned()),
        (vec![0], Some("a".to_owned()))
    );
}

// RFC 9143 §7.5.2 would have the others go on where they are: the line stays with them.
#[test]
fn a_line_whose_transport_others_need_cannot_leave_them() {
    let mut world = at_work("tcp");
    let offer = browser(Setup::ActPass, "alic", &BOTH, 1);
    let (alice, _) = call(&mut world, &offer, &plain(&[("audio", 5002), ("video", 5004)], 1));
    let bundles = |world: &World| legs(world).iter().map(|leg| rtp(leg).bundle.clone()).collect::<Vec<_>>();
    let before = bundles(&world);
    let torn = browser(Setup::ActPass, "alic", &BOTH, 2)
        .replace("BUNDLE a v", "BUNDLE v")
        .replace("a=bundle-only\r\n", "")
        .replace("m=video 0 ", "m=video 9 ");
    let tx = world.send(phone(ALICE), inside("INVITE", 2, &alice, true, &torn));
    assert_eq!(world.code(tx), Some(488));
    assert_eq!(bundles(&world), before);
}

// Hostile reading 4, finding 12: the transport stayed, with a socket and a handshake that no line had.
#[test]
fn a_transport_alone_goes_when_its_last_line_leaves_the_bundle() {
    let mut world = at_work("tcp");
    let offer = browser(Setup::ActPass, "alic", &BOTH, 1);
    let (alice, _) = call(&mut world, &offer, &plain(&[("audio", 5002), ("video", 5004)], 1));
    let left = [("audio", "a", false), ("video", "v", true)];
    let answer = plain(&[("audio", 0), ("video", 5004)], 2);
    change(&mut world, &alice, 2, &browser(Setup::ActPass, "alic", &left, 2), &answer);
    assert_eq!(mids(&world), ["", "v"]);
    let apart = browser(Setup::ActPass, "newf", &left, 3).replace("a=group:BUNDLE v\r\n", "");
    let response = change(&mut world, &alice, 3, &apart, &answer);
    assert!(sdp_of(&response.body).groups.is_empty() && mids(&world).is_empty());
    let legs = legs(&world);
    let own: Vec<_> = legs.iter().filter(|leg| rtp(leg).dtls.is_some()).collect();
    assert_eq!((legs.len(), own.len()), (2, 1), "one of each side");
    assert_eq!(rtp(own[0]).ice.as_ref().unwrap().peer_ufrag, "newf");
}
