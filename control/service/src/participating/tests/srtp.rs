//! Calls with keys (RFC 4568): each hop has its own, and none reaches the other side, a log or a reader of states.

use contract::{
    Counters, Leg, LegCounters, LegKey, News, RtpContinuity, SrtpProgress, SrtpSuite, Welcome, news,
};
use sdp::{Crypto, CryptoSuite, Proto};
use sip::{Method, Response};

use super::session::{forked, inside, invite};
use super::{ALICE, BOB, BOB2, instance, legs, peer, phone, rtp};
use crate::config::Srtp;
use crate::testing::{Event, World, call_sdp, reply, sdp_of};
use crate::{Config, Input, Table};

/// A phone's line of a=crypto: suite, tag and a key that names its owner.
fn crypto(tag: u32, suite: CryptoSuite, octet: u8) -> Crypto {
    Crypto::new(tag, suite, &vec![octet; suite.key_octets()]).unwrap()
}

/// A call's SDP with these keys.
fn secure(host: &str, port: u16, version: u32, lines: &[Crypto]) -> String {
    let mut session = sdp_of(&call_sdp(host, port, "sendrecv", version).into());
    if let sdp::Body::Rtp(rtp) = &mut session.lines[0].body {
        rtp.crypto = lines.to_vec();
    }
    session.lines[0].proto = Proto::RtpSavp;
    String::from_utf8(session.to_bytes().to_vec()).unwrap()
}

fn at_work(srtp: Srtp) -> World {
    let mut world = World::configured(|config| config.media.srtp = srtp);
    for (user, port) in [("alice", ALICE), ("bob", BOB), ("bob", BOB2)] {
        world.register(user, peer(port), &instance(port));
    }
    world
}

/// The one key of a description.
fn key(body: &bytes::Bytes) -> Crypto {
    let session = sdp_of(body);
    assert_eq!(session.lines[0].proto, Proto::RtpSavp);
    let [one] = &session.lines[0].rtp().unwrap().crypto[..] else { panic!("one key") };
    one.clone()
}

struct Call {
    world: World,
    alice: Response,
    bob: Response,
    /// What Bob was offered.
    offered: Vec<Crypto>,
}

/// Alice offers keys, the first device answers; with one of the keys that it was offered, if there are any.
fn call(srtp: Srtp) -> Call {
    let mut world = at_work(srtp);
    let lines =
        [crypto(3, CryptoSuite::AesCm128HmacSha1_80, 0xa1), crypto(8, CryptoSuite::AeadAes128Gcm, 0xa2)];
    let tx = invite(&mut world, "c1", &secure("192.0.2.1", 5001, 1, &lines));
    let [(first, request), (second, other)] = forked(&mut world);
    let offered = sdp_of(&request.body).lines[0].rtp().unwrap().crypto.clone();
    let answer = match offered.iter().find(|c| c.suite == CryptoSuite::AeadAes256Gcm) {
        Some(taken) => secure("192.0.2.2", 5002, 1, &[crypto(taken.tag, taken.suite, 0xb1)]),
        None => call_sdp("192.0.2.2", 5002, "sendrecv", 1),
    };
    let bob = reply(&request, 200, "bobtag", &answer);
    world.reply(first, bob.clone());
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Cancel(..))));
    world.reply(second, other.respond(487));
    let alice = world.answer(tx).unwrap().clone();
    assert_eq!(alice.code, 200);
    world.ack(phone(ALICE), inside("ACK", 1, &alice, true, ""));
    Call { world, alice, bob, offered }
}

#[test]
fn each_hop_has_keys_of_its_own() {
    let Call { world, alice, offered, .. } = call(Srtp::Mirror);
    let suites: Vec<_> = offered.iter().map(|c| c.suite).collect();
    let configured: Vec<_> = Config::default().media.srtp_suites.iter().map(|s| s.crypto()).collect();
    assert_eq!(suites, configured, "all that we allow, in our order");
    // Alice's first line, under her tag, with a key of ours.
    let ours = key(&alice.body);
    assert_eq!((ours.tag, ours.suite), (3, CryptoSuite::AesCm128HmacSha1_80));
    let legs = legs(&world);
    let [far, near] = &legs[..] else { panic!("{}", legs.len()) };
    let (far, near) = (rtp(far).srtp.as_deref().unwrap(), rtp(near).srtp.as_deref().unwrap());
    assert_eq!(far.suite(), SrtpSuite::AesCm128HmacSha180);
    assert_eq!((&far.send_key[..], &far.receive_key[..]), (ours.key(), &[0xa1; 30][..]));
    let taken = offered.iter().find(|c| c.suite == CryptoSuite::AeadAes256Gcm).unwrap();
    assert_eq!(near.suite(), SrtpSuite::AeadAes256Gcm);
    assert_eq!((&near.send_key[..], &near.receive_key[..]), (taken.key(), &[0xb1; 44][..]));
    // No key twice: neither of two suites nor of two devices.
    let mut keys: Vec<Vec<u8>> = offered.iter().map(|c| c.key()[..28].to_vec()).collect();
    keys.push(ours.key()[..28].to_vec());
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), offered.len() + 1);
}

#[test]
fn keys_end_here_where_the_configuration_says_so_and_are_refused_where_it_says_that() {
    let Call { world, alice, offered, .. } = call(Srtp::Terminate);
    assert!(offered.is_empty());
    assert_eq!(key(&alice.body).tag, 3);
    let legs = legs(&world);
    assert_eq!(legs.iter().map(|leg| rtp(leg).srtp.is_some()).collect::<Vec<_>>(), [true, false]);

    let mut world = at_work(Srtp::Refuse);
    let offer = secure("192.0.2.1", 5001, 1, &[crypto(1, CryptoSuite::AeadAes128Gcm, 1)]);
    let tx = invite(&mut world, "c1", &offer);
    assert_eq!(world.code(tx), Some(488));
    // Keys that nobody here knows, and DTLS: 488 in any case.
    let mut world = at_work(Srtp::Mirror);
    for offer in [
        call_sdp("192.0.2.1", 5001, "sendrecv", 1).replace("RTP/AVP", "RTP/SAVP"),
        offer.replace("AEAD_AES_128_GCM", "F8_128_HMAC_SHA1_80"),
        offer
            .replace("\r\na=sendrecv", "|1:4\r\na=sendrecv")
            .replace("a=rtpmap", "a=x")
            .replace("inline:", "uri:"),
        offer.replace("RTP/SAVP", "UDP/TLS/RTP/SAVP"),
    ] {
        let tx = invite(&mut world, "c2", &offer);
        assert_eq!(world.code(tx), Some(488), "{offer}");
    }
}

#[test]
fn a_device_that_answers_with_another_tag_or_in_clear_is_ended() {
    for answer in [
        secure("192.0.2.2", 5002, 1, &[crypto(99, CryptoSuite::AeadAes256Gcm, 1)]),
        secure("192.0.2.2", 5002, 1, &[crypto(1, CryptoSuite::AesCm128HmacSha1_32, 1)]),
        secure("192.0.2.2", 5002, 1, &[]),
        call_sdp("192.0.2.2", 5002, "sendrecv", 1),
    ] {
        let mut world = at_work(Srtp::Mirror);
        let offer = secure("192.0.2.1", 5001, 1, &[crypto(1, CryptoSuite::AeadAes128Gcm, 1)]);
        let tx = invite(&mut world, "c1", &offer);
        let [(first, request), _] = forked(&mut world);
        world.reply(first, reply(&request, 200, "b1", &answer));
        assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
        world.request(phone(BOB), &Method::Bye);
        assert_eq!(world.code(tx), Some(488), "{answer}");
    }
}

#[test]
fn a_hold_keeps_the_keys_and_another_key_is_taken() {
    let Call { mut world, alice, bob, offered, .. } = call(Srtp::Mirror);
    let first = legs(&world);
    let keys = |leg: &Leg| rtp(leg).srtp.as_deref().cloned().unwrap();
    let again = |octet| {
        let line = crypto(1, CryptoSuite::AesCm128HmacSha1_80, octet);
        secure("192.0.2.1", 5001, 2, &[line]).replace("a=sendrecv", "a=sendonly")
    };
    for (seq, octet) in [(2, 0xa1), (3, 0xa9)] {
        let tx = world.send(phone(ALICE), inside("INVITE", seq, &alice, true, &again(octet)));
        let (client, request) = world.request(phone(BOB), &Method::Invite);
        let towards_bob = key(&request.body);
        let before = offered.iter().find(|c| c.suite == towards_bob.suite).unwrap();
        assert_eq!((towards_bob.tag, towards_bob.key()), (1, before.key()), "his side stays as it is");
        let line = crypto(1, CryptoSuite::AeadAes256Gcm, 0xb1);
        let held = secure("192.0.2.2", 5002, 2, &[line]).replace("a=sendrecv", "a=recvonly");
        world.reply(client, reply(&request, 200, "bobtag", &held));
        assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
        let answer = world.answer(tx).unwrap().clone();
        let ours = key(&answer.body);
        world.ack(phone(ALICE), inside("ACK", seq, &answer, true, ""));
        let now = legs(&world);
        assert_eq!(keys(&now[1]), keys(&first[1]));
        assert_eq!((ours.tag, ours.key()), (1, &keys(&first[0]).send_key[..]));
        assert_eq!(keys(&now[0]).receive_key, [octet; 30]);
    }
    drop(bob);
}

#[test]
fn a_refused_change_of_keys_leaves_the_old_ones() {
    let Call { mut world, alice, .. } = call(Srtp::Mirror);
    let before: Vec<_> = legs(&world).iter().map(|l| rtp(l).srtp.clone()).collect();
    let line = crypto(4, CryptoSuite::AeadAes128Gcm, 0xaa);
    let tx =
        world.send(phone(ALICE), inside("INVITE", 2, &alice, true, &secure("192.0.2.1", 5001, 2, &[line])));
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    world.reply(client, reply(&request, 488, "bobtag", ""));
    assert_eq!(world.code(tx), Some(488));
    let after: Vec<_> = legs(&world).iter().map(|l| rtp(l).srtp.clone()).collect();
    assert_eq!(after, before);
}

// RFC 3711 §3.3.1: the rollover counter is nowhere on the wire.
#[test]
fn what_the_keys_have_done_is_kept_over_restarts_of_either_side() {
    let Call { mut world, .. } = call(Srtp::Mirror);
    let leg = legs(&world).swap_remove(0);
    let writes = |world: &World| world.rows(Table::Context)[0].version;
    let tell = |world: &mut World, rollover, sequence| {
        let progress = SrtpProgress { ssrc: 5, started: true, rollover, sequence, ..SrtpProgress::default() };
        let continuity = RtpContinuity { received: vec![progress], ..RtpContinuity::default() };
        let counters = LegCounters {
            leg: Some(LegKey::new(leg.context, leg.id)),
            continuity: Some(continuity),
            ..LegCounters::default()
        };
        let what = news::What::Counters(Counters { legs: vec![counters] });
        world.input(Input::News(News { what: Some(what) }));
    };
    let before = writes(&world);
    tell(&mut world, 1, 100);
    assert_eq!(writes(&world), before + 1);
    tell(&mut world, 1, 200);
    assert_eq!(writes(&world), before + 1, "not for each tick");
    tell(&mut world, 1, 9000);
    tell(&mut world, 2, 9001);
    assert_eq!(writes(&world), before + 3);
    tell(&mut world, 2, 9300);
    // Control starts again, and the data plane has lost its tables: what the row has. Then what was told last.
    for (restart, sequence) in [(true, 9001), (false, 9300)] {
        match restart {
            true => world.restart(),
            false => tell(&mut world, 2, 9300),
        }
        world.batches.clear();
        world.input(Input::DataplaneUp { welcome: Welcome::default(), instance_changed: true });
        world.settle();
        let put = legs(&world).into_iter().find(|l| l.id == leg.id).unwrap();
        let kept = rtp(&put).continuity.as_ref().unwrap();
        assert_eq!((kept.received[0].rollover, kept.received[0].sequence), (2, sequence));
        assert_eq!(rtp(&put).srtp, rtp(&leg).srtp);
    }
}

#[test]
fn no_state_prints_a_key() {
    let Call { world, alice, .. } = call(Srtp::Mirror);
    let ours = key(&alice.body);
    let printed =
        format!("{:?} {:?} {:?}", world.batches, world.rows(Table::Session), world.rows(Table::Context));
    let list = |key: &[u8]| key[..6].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    for secret in [list(ours.key()), list(&[0xa1; 30]), list(&[0xb1; 44])] {
        assert!(!printed.contains(&secret), "{secret}");
    }
}
