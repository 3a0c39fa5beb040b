//! Calls of WebRTC ends (RFC 5763, RFC 8839): answered with our certificate and as a lite agent, and plain phones beside
//! them know nothing of it.

use contract::{Leg, Setup as Role, Welcome};
use sdp::{DtlsEnd, Fingerprint, Proto, Setup};
use sip::{Method, Response};

use super::session::{inside, invite};
use super::{ALICE, BOB, instance, legs, peer, phone, rtp};
use crate::config::Srtp;
use crate::testing::{Event, World, call_sdp, reply, sdp_of};
use crate::{Input, Table};

const OURS: [u8; 32] = [0xee; 32];
const THEIRS: [u8; 32] = [0x4a; 32];

/// What a browser writes: `frag` names its ICE, `print` its certificate.
fn browser(setup: Setup, frag: &str, print: [u8; 32], direction: &str, version: u32) -> String {
    let mut session = sdp_of(&call_sdp("0.0.0.0", 9, direction, version).into());
    let line = &mut session.lines[0];
    line.proto = Proto::DtlsSavpf;
    line.mid = Some("x0".to_owned());
    if let sdp::Body::Rtp(rtp) = &mut line.body {
        rtp.rtcp_mux = true;
    }
    let ice = Some((frag.to_owned(), format!("{frag}AndAPasswordOfManyChars")));
    line.secure_by_dtls(&DtlsEnd { setup, fingerprint: Fingerprint::sha256(print), ice });
    let ice = line.ice.as_mut().unwrap();
    ice.lite = false;
    ice.candidates.clear();
    let text = String::from_utf8(session.to_bytes().to_vec()).unwrap();
    text.replace("t=0 0\r\n", "t=0 0\r\na=group:BUNDLE x0\r\na=ice-options:trickle\r\n")
}

/// Alice's browser carries her calls; Bob's device is registered by `transport`.
fn at_work(dtls: Srtp, transport: &str, version: u32) -> World {
    let mut world = World::configured(|config| config.media.dtls = dtls);
    let welcome = Welcome { version, dtls_fingerprint: OURS.to_vec(), ..Welcome::default() };
    world.input(Input::DataplaneUp { welcome, instance_changed: false });
    world.register("alice", peer(ALICE), &instance(ALICE));
    world.register_by(transport, "bob", peer(BOB), &instance(BOB));
    world
}

struct Call {
    world: World,
    alice: Response,
    /// What Bob was offered.
    offered: sdp::Session,
}

fn call(mut world: World, offer: &str, answer: impl FnOnce(&sdp::Session) -> String) -> Call {
    let tx = invite(&mut world, "c1", offer);
    let (client, request) = world.request(phone(BOB), &Method::Invite);
    let offered = sdp_of(&request.body);
    world.reply(client, reply(&request, 200, "bobtag", &answer(&offered)));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    let alice = world.answer(tx).unwrap().clone();
    assert_eq!(alice.code, 200);
    world.ack(phone(ALICE), inside("ACK", 1, &alice, true, ""));
    Call { world, alice, offered }
}

fn plain(_: &sdp::Session) -> String {
    call_sdp("192.0.2.2", 5002, "sendrecv", 1)
}

#[test]
fn a_browser_is_answered_and_a_plain_phone_is_offered_nothing_of_it() {
    let offer = browser(Setup::ActPass, "alic", THEIRS, "sendrecv", 1);
    let Call { world, alice, offered } = call(at_work(Srtp::Terminate, "tcp", 2), &offer, plain);
    let line = &offered.lines[0];
    assert_eq!(
        (&line.proto, line.setup, line.fingerprints.len(), line.ice.is_none()),
        (&Proto::RtpAvp, None, 0, true)
    );
    assert!(!line.rtp().unwrap().rtcp_mux && offered.groups.is_empty() && offered.others.is_empty());
    let answer = sdp_of(&alice.body);
    let line = &answer.lines[0];
    assert_eq!((&line.proto, line.setup), (&Proto::DtlsSavpf, Some(Setup::Passive)));
    // RFC 5888 §9.1, though Bob knows no mid; RFC 9143 §7.3: what is offered as a bundle is answered as one.
    assert_eq!((line.mid.as_deref(), answer.bundle()), (Some("x0"), vec![0]));
    assert_eq!(line.sha256_fingerprints(), [OURS]);
    assert!(line.rtp().unwrap().rtcp_mux);
    let ice = line.ice.clone().unwrap();
    assert!(
        ice.lite
            && ice.candidates.len() == 1
            && ice.candidates[0].ends_with(&format!(" {} typ host", line.port))
    );
    let legs = legs(&world);
    let [far, near] = &legs[..] else { panic!("{}", legs.len()) };
    let (far, near) = (rtp(far), rtp(near));
    assert!(near.dtls.is_none() && near.ice.is_none() && !near.rtcp_mux);
    let (dtls, put) = (far.dtls.as_ref().unwrap(), far.ice.as_ref().unwrap());
    assert_eq!((dtls.setup(), &dtls.fingerprints[..]), (Role::Passive, &[THEIRS.to_vec()][..]));
    assert_eq!((&put.ufrag, &put.password, put.peer_ufrag.as_str()), (&ice.ufrag, &ice.password, "alic"));
    assert!(far.rtcp_mux && far.srtp.is_none() && far.remote.is_none());
    // Neither side's password is printed, or kept where it is not needed.
    let printed =
        format!("{:?} {:?} {:?}", world.batches, world.rows(Table::Session), world.rows(Table::Context));
    assert!(!printed.contains(&ice.password) && !printed.contains("alicAndAPassword"));
}

// RFC 7118: who is registered by WebSocket speaks nothing else.
#[test]
fn a_device_registered_by_websocket_is_offered_what_a_browser_takes() {
    let offer = call_sdp("192.0.2.1", 5001, "sendrecv", 1);
    let Call { world, alice, offered } = call(at_work(Srtp::Terminate, "wss", 2), &offer, |_| {
        browser(Setup::Active, "bobs", THEIRS, "sendrecv", 1)
    });
    let line = &offered.lines[0];
    assert_eq!(
        (&line.proto, line.setup, line.mid.is_some()),
        (&Proto::DtlsSavpf, Some(Setup::ActPass), true)
    );
    assert!(line.rtp().unwrap().rtcp_mux && line.ice.as_ref().unwrap().lite);
    assert_eq!(line.sha256_fingerprints(), [OURS]);
    assert_eq!(sdp_of(&alice.body).lines[0].proto, Proto::RtpAvp);
    let legs = legs(&world);
    assert!(rtp(&legs[0]).dtls.is_none());
    let near = rtp(&legs[1]);
    let (dtls, ice) = (near.dtls.as_ref().unwrap(), near.ice.as_ref().unwrap());
    assert_eq!((dtls.setup(), &dtls.fingerprints[..]), (Role::Passive, &[THEIRS.to_vec()][..]));
    assert_eq!((ice.peer_ufrag.as_str(), &ice.ufrag), ("bobs", &line.ice.as_ref().unwrap().ufrag));
    // The other way round we are the client.
    let Call { world, .. } = call(at_work(Srtp::Terminate, "ws", 2), &offer, |_| {
        browser(Setup::Passive, "bobs", THEIRS, "sendrecv", 1)
    });
    let after = self::legs(&world);
    assert_eq!(rtp(&after[1]).dtls.as_ref().unwrap().setup(), Role::Active);
}

#[test]
fn mirrored_both_sides_have_handshakes_of_their_own() {
    let offer = browser(Setup::Active, "alic", THEIRS, "sendrecv", 1);
    let Call { world, alice, offered } = call(at_work(Srtp::Mirror, "tcp", 2), &offer, |_| {
        browser(Setup::Active, "bobs", [7; 32], "sendrecv", 1)
    });
    let (a, b) = (&sdp_of(&alice.body).lines[0], &offered.lines[0]);
    assert_eq!((a.setup, b.setup), (Some(Setup::Passive), Some(Setup::ActPass)));
    let (a, b) = (a.ice.as_ref().unwrap(), b.ice.as_ref().unwrap());
    assert!(a.ufrag != b.ufrag && a.password != b.password);
    let legs = legs(&world);
    let prints = |leg: &Leg| rtp(leg).dtls.as_ref().unwrap().fingerprints.concat();
    assert_eq!([prints(&legs[0]), prints(&legs[1])], [THEIRS.to_vec(), vec![7; 32]]);
}

#[test]
fn what_cannot_be_taken_is_refused() {
    let offer = browser(Setup::ActPass, "alic", THEIRS, "sendrecv", 1);
    let print = Fingerprint::sha256(THEIRS).to_string();
    let refused = |mut world: World, offer: &str| {
        let tx = invite(&mut world, "c1", offer);
        world.code(tx)
    };
    assert_eq!(refused(at_work(Srtp::Refuse, "tcp", 2), &offer), Some(488));
    // A data plane of old would leave out what it does not know.
    assert_eq!(refused(at_work(Srtp::Terminate, "tcp", 1), &offer), Some(488));
    for wrong in [
        offer.replace("a=rtcp-mux\r\n", ""),
        offer.replace(&format!("a=fingerprint:{print}\r\n"), ""),
        offer.replace("SHA-256", "SHA-1").replace(&print[7..], &print[7..67]),
        offer.replace("a=mid:x0", "a=bundle-only\r\na=mid:x0").replace("m=audio 9 ", "m=audio 0 "),
    ] {
        assert_ne!(wrong, offer);
        assert_eq!(refused(at_work(Srtp::Terminate, "tcp", 2), &wrong), Some(488), "{wrong}");
    }
}

#[test]
fn a_device_that_answers_a_handshake_with_none_is_ended() {
    let good = browser(Setup::Active, "bobs", THEIRS, "sendrecv", 1);
    for answer in [
        call_sdp("192.0.2.2", 5002, "sendrecv", 1),
        call_sdp("192.0.2.2", 5002, "sendrecv", 1).replace("RTP/AVP", "RTP/SAVPF"),
        good.replace("a=rtcp-mux\r\n", ""),
        good.replace(&format!("a=fingerprint:{}\r\n", Fingerprint::sha256(THEIRS)), ""),
    ] {
        let mut world = at_work(Srtp::Terminate, "ws", 2);
        let tx = invite(&mut world, "c1", &call_sdp("192.0.2.1", 5001, "sendrecv", 1));
        let (client, request) = world.request(phone(BOB), &Method::Invite);
        world.reply(client, reply(&request, 200, "b1", &answer));
        assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
        world.request(phone(BOB), &Method::Bye);
        assert_eq!(world.code(tx), Some(488), "{answer}");
    }
}

// RFC 8842 §5.3, RFC 8839 §4.4: what is agreed stays as long as the peer's part does.
#[test]
fn a_hold_changes_nothing_a_restart_is_answered_with_one() {
    let offer = browser(Setup::ActPass, "alic", THEIRS, "sendrecv", 1);
    let Call { mut world, alice, .. } = call(at_work(Srtp::Terminate, "tcp", 2), &offer, plain);
    let mut before = rtp(&legs(&world)[0]).clone();
    for (seq, frag, restarts) in [(2, "alic", false), (3, "newf", true)] {
        let again = browser(Setup::ActPass, frag, THEIRS, "sendonly", seq);
        let tx = world.send(phone(ALICE), inside("INVITE", seq, &alice, true, &again));
        let (client, request) = world.request(phone(BOB), &Method::Invite);
        assert_eq!(sdp_of(&request.body).lines[0].proto, Proto::RtpAvp);
        world.reply(client, reply(&request, 200, "bobtag", &call_sdp("192.0.2.2", 5002, "recvonly", seq)));
        assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
        let answer = world.answer(tx).unwrap().clone();
        world.ack(phone(ALICE), inside("ACK", seq, &answer, true, ""));
        let line = sdp_of(&answer.body).lines.swap_remove(0);
        let now = rtp(&legs(&world)[0]).clone();
        let (old, new) = (before.ice.as_ref().unwrap(), now.ice.as_ref().unwrap());
        assert_eq!((old.ufrag != new.ufrag, old.password != new.password), (restarts, restarts));
        assert_eq!((new.peer_ufrag.as_str(), &line.ice.unwrap().ufrag), (frag, &new.ufrag));
        assert_eq!((&now.dtls, line.setup), (&before.dtls, Some(Setup::Passive)));
        before = now;
    }
}

// RFC 8445 §6.1.1: with two lite agents nobody checks; the peer is where its line says.
#[test]
fn a_lite_peer_is_met_at_its_address() {
    let offer = browser(Setup::ActPass, "alic", THEIRS, "sendrecv", 1)
        .replace("a=group", "a=ice-lite\r\na=group")
        .replace("0.0.0.0", "192.0.2.9");
    let Call { world, alice, .. } = call(at_work(Srtp::Terminate, "tcp", 2), &offer, plain);
    let far = rtp(&legs(&world)[0]).clone();
    assert!(far.ice.is_none() && far.dtls.is_some() && far.remote.is_some());
    assert!(sdp_of(&alice.body).lines[0].ice.is_none());
}
