//! Legs with ICE and DTLS (RFC 8445, RFC 5764): only an authentic check says where the peer is, only an announced
//! certificate gives it keys, and nothing passes in clear.

use contract::{Mode, Setup, leg_lost, news, refusal::Reason};
use rtp::RtcpWriter;
use rtp::stun::{self, Class, Key};

use super::browser::*;
use super::rig::*;
use crate::Drop;

/// A browser at leg 1 and a plain phone at leg 2.
fn pair(browser: &Browser) -> Rig {
    let mut rig = Rig::new();
    rig.set(
        vec![browser.leg(), rtp_leg(2)],
        vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])],
    );
    rig
}

fn voice(sequence: u16) -> Vec<u8> {
    packet(5, sequence, 160, 0, &[1; 160])
}

fn lost(done: &[Done]) -> Vec<leg_lost::Reason> {
    let of =
        |what: &&news::What| if let news::What::LegLost(lost) = what { Some(lost.reason()) } else { None };
    news(done).iter().filter_map(of).collect()
}

#[test]
fn a_browser_that_has_checked_and_shaken_hands_is_heard_and_spoken_to() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    assert!(rig.hear_peer(2, &voice(1)).is_empty(), "nobody knows where it is");
    let done = browser.connect(&mut rig, &mut edge);
    assert!(browser.is_connected());
    assert_eq!(browser.shown, Some(edge.fingerprint()));
    assert!(matches!(
        news(&done)[..],
        [news::What::Latched(l), news::What::LegUp(up)] if l.remote == address(peer(1)) && up.leg == Some(key(1))
    ));
    assert!(
        done.iter()
            .any(|d| matches!(d, Done::Aimed(s, to, false) if *s == socket(1) && *to == Some(peer(1))))
    );
    // Both ways: protected there, in clear here.
    let wire = browser.says(&voice(7));
    assert_eq!(sent(&rig.hear_peer(1, &wire)), [(socket(2), &voice(7)[..])]);
    let done = rig.hear_peer(2, &voice(9));
    let [(to, wire)] = sent(&done)[..] else { panic!("{done:?}") };
    assert_eq!((to, browser.hears(wire)), (socket(1), voice(9)));
    // RTCP on the same port (RFC 5761).
    let mut writer = RtcpWriter::new();
    writer.receiver(5, &[]).description([(5, "x")].into_iter());
    let report = browser.reports(writer.octets());
    assert_eq!(sockets(&rig.hear_peer(1, &report)), [socket(2)]);
    // Its keys do not make what is in clear, or what was there, any better.
    assert!(rig.hear_peer(1, &voice(8)).is_empty() && rig.hear_peer(1, &browser.says(&voice(10))).len() == 1);
    assert!(rig.hear_peer(1, &report).is_empty());
    assert_eq!([Drop::SrtpUnauthentic, Drop::SrtpReplayed].map(|why| rig.engine.dropped(why)), [1, 1]);
    assert_eq!(rig.engine.totals().handshakes, 1);
    rig.check_sum();
}

// RFC 8489 §9.1.3, issue 3: nothing is sent to an address that only an unauthenticated packet named.
#[test]
fn checks_that_do_not_authenticate_are_neither_believed_nor_answered() {
    let mut browser = Browser::new(1);
    let mut rig = pair(&browser);
    let good = browser.check(true);
    let with = |username: &str, key: &str| stun::check(&[9; 12], username, &Key::new(key), true);
    let name = format!("{UFRAG}:{PEER_UFRAG}");
    let unauthentic = [
        with(&name, "another-password-of-22"),
        with(&format!("x{name}"), PASSWORD),
        with(UFRAG, PASSWORD),
        with(&format!("{UFRAG}:other"), PASSWORD),
        with("", PASSWORD),
        // The integrity, and with it what it names, cut out.
        without_integrity(&good),
    ];
    for bytes in &unauthentic {
        assert!(rig.hear_peer(1, bytes).is_empty());
    }
    let mut altered = good.clone();
    altered[30] ^= 1;
    let noise = [altered, good[..good.len() - 4].to_vec(), vec![0; 20], vec![1, 1], good[..8].to_vec()];
    for bytes in &noise {
        assert!(rig.hear_peer(1, bytes).is_empty());
    }
    let [unauthenticated, malformed] =
        [Drop::StunUnauthentic, Drop::StunMalformed].map(|why| rig.engine.dropped(why) as usize);
    assert_eq!((unauthenticated, malformed), (unauthentic.len(), noise.len()));
    // Without ICE a check means nothing.
    assert!(rig.hear_peer(2, &good).is_empty());
    assert_eq!(rig.engine.dropped(Drop::Stun), 1);
    // The good one still does.
    assert_eq!(class(sent(&rig.hear_peer(1, &good))[0].1), Class::Success);
    rig.check_sum();
}

/// A check with its MESSAGE-INTEGRITY left out and its FINGERPRINT made right.
fn without_integrity(check: &[u8]) -> Vec<u8> {
    let mut cut = check[..check.len() - 32].to_vec();
    let length = (cut.len() - 20 + 8) as u16;
    cut[2..4].copy_from_slice(&length.to_be_bytes());
    let mut sum = !0u32;
    for octet in &cut {
        sum ^= u32::from(*octet);
        (0..8).for_each(|_| sum = if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 });
    }
    cut.extend_from_slice(&[0x80, 0x28, 0, 4]);
    cut.extend_from_slice(&(!sum ^ 0x5354_554e).to_be_bytes());
    cut
}

#[test]
fn who_has_checked_is_told_what_is_wrong_and_no_answer_is_longer_than_its_check() {
    let mut browser = Browser::new(1);
    let mut rig = pair(&browser);
    let check = browser.check(false);
    let done = rig.hear_peer(1, &check);
    assert!(sent(&done).iter().all(|(_, answer)| answer.len() <= check.len()));
    // A restart that we have not heard of yet: 401, and 400.
    for (bytes, code) in [
        (stun::check(&[9; 12], "newfrag:theirs", &Key::new("another-password-of-22"), true), [4, 1]),
        (without_integrity(&check), [4, 0]),
    ] {
        let done = rig.hear_peer(1, &bytes);
        let [(_, answer)] = sent(&done)[..] else { panic!("{done:?}") };
        assert_eq!((class(answer), &answer[26..28]), (Class::Error, &code[..]));
        assert!(answer.len() <= bytes.len());
        // From elsewhere the same is met with silence.
        assert!(rig.datagram(socket(1), addr("203.0.113.5:9"), &bytes).is_empty());
    }
    assert_eq!(rig.engine.dropped(Drop::StunUnauthentic), 4);
}

// RFC 8445 §8.1.1, §7.3.1.5: the pair that is nominated is used, and the last nomination counts.
#[test]
fn a_nomination_of_another_address_moves_the_leg_and_consent_goes_on_being_answered() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    browser.connect(&mut rig, &mut edge);
    let (old, new) = (browser.at, addr("203.0.113.77:5000"));
    rig.pass(100);
    // A check alone moves nothing, and is answered where it came from.
    let check = browser.check(false);
    let done = rig.datagram(socket(1), new, &check);
    let answers = addressed(&done, socket(1), Some(old));
    assert_eq!((answers.len(), answers[0].0), (1, Some(new)));
    assert_eq!((aimed(&done, socket(1)), news(&done).len()), (Some(Some(old)), 0));
    let wire = browser.says(&voice(20));
    assert!(rig.datagram(socket(1), new, &wire).is_empty(), "its media is not heard from there yet");
    let check = browser.check(true);
    let done = rig.datagram(socket(1), new, &check);
    assert_eq!((aimed(&done, socket(1)), news(&done).len()), (Some(Some(old)), 0), "it may be a recording");
    let wire = browser.says(&voice(21));
    let done = rig.datagram(socket(1), new, &wire);
    assert_eq!(aimed(&done, socket(1)), Some(Some(new)));
    assert!(matches!(news(&done)[..], [news::What::Latched(l)] if l.remote == address(new)));
    assert_eq!(sockets(&done), [socket(2)]);
    assert_eq!(sockets(&rig.hear_peer(2, &voice(9))), [socket(1)]);
    let wire = browser.says(&voice(22));
    assert!(rig.datagram(socket(1), old, &wire).is_empty(), "what was on its way moves nothing back");
    // RFC 7675: consent is asked for on the pair in use.
    for _ in 0..5 {
        rig.pass(5000);
        let check = browser.check(true);
        let done = rig.datagram(socket(1), new, &check);
        assert_eq!(class(sent(&done)[0].1), Class::Success);
        assert!(lost(&rig.run(10)).is_empty());
    }
    rig.check_sum();
}

// The integrity of a check does not cover where it comes from.
#[test]
fn a_recorded_nomination_sent_from_elsewhere_moves_nothing() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    browser.connect(&mut rig, &mut edge);
    rig.pass(1000);
    let check = browser.check(true);
    assert_eq!(sent(&rig.hear_peer(1, &check)).len(), 1);
    assert!(rig.datagram(socket(1), addr("203.0.113.66:66"), &check).is_empty());
    assert_eq!(rig.engine.dropped(Drop::StunReplayed), 1);
    // A retransmission of the peer's own is answered again.
    assert_eq!(sent(&rig.hear_peer(1, &check)).len(), 1);
    rig.check_sum();
}

// Hostile reading, finding 6.
#[test]
fn a_nomination_recorded_long_ago_moves_nothing() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    browser.connect(&mut rig, &mut edge);
    let (recorded, media) = (browser.check(true), browser.says(&voice(2)));
    rig.hear_peer(1, &recorded);
    rig.hear_peer(1, &media);
    for _ in 0..64 {
        rig.pass(2500);
        let check = browser.check(true);
        rig.hear_peer(1, &check);
    }
    rig.pass(1000);
    let (at, stranger) = (browser.at, addr("203.0.113.66:66"));
    let done = rig.datagram(socket(1), stranger, &recorded);
    assert_eq!((aimed(&done, socket(1)), news(&done).len()), (Some(Some(at)), 0), "{done:?}");
    // Nor does it with media that was recorded too, or made up.
    let mut altered = browser.says(&voice(3));
    altered[20] ^= 1;
    for bytes in [&media, &altered, &voice(4)] {
        assert!(rig.datagram(socket(1), stranger, bytes).is_empty());
    }
    assert_eq!([Drop::SrtpReplayed, Drop::SrtpUnauthentic].map(|why| rig.engine.dropped(why)), [1, 2]);
    let wire = browser.says(&voice(5));
    assert_eq!(sockets(&rig.hear_peer(1, &wire)), [socket(2)]);
    let done = rig.hear_peer(2, &voice(9));
    assert!(matches!(addressed(&done, socket(1), Some(at))[..], [(Some(to), _)] if to == at));
    rig.check_sum();
}

#[test]
fn who_only_receives_moves_with_its_reports_and_who_has_no_keys_yet_with_a_nomination() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    let (first, new) = (addr("203.0.113.7:7"), addr("203.0.113.8:8"));
    let check = browser.check(true);
    rig.datagram(socket(1), first, &check);
    rig.pass(100);
    let check = browser.check(true);
    let done = rig.hear_peer(1, &check);
    assert_eq!(aimed(&done, socket(1)), Some(Some(browser.at)));
    browser.connect(&mut rig, &mut edge);
    rig.pass(100);
    let check = browser.check(true);
    rig.datagram(socket(1), new, &check);
    let mut writer = RtcpWriter::new();
    writer.receiver(5, &[]).description([(5, "x")].into_iter());
    let report = browser.reports(writer.octets());
    let done = rig.datagram(socket(1), new, &report);
    assert_eq!((aimed(&done, socket(1)), sockets(&done)), (Some(Some(new)), vec![socket(2)]));
    rig.check_sum();
}

// Hostile reading, finding 10: what is agreed stays agreed.
#[test]
fn nothing_that_comes_of_a_finished_handshake_takes_its_keys_away() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    let done = browser.connect(&mut rig, &mut edge);
    assert!(done.iter().any(|d| matches!(d, Done::Answer(_))));
    let id = edge.last().unwrap();
    let other = |key| rtp::srtp::Keying::new(rtp::srtp::Suite::AeadAes128Gcm, &[key; 28]).unwrap();
    for fingerprint in [[7; 32], browser.fingerprint()] {
        let keys = crate::DtlsKeys { fingerprint, send: other(1), receive: other(2) };
        let done = rig.input(crate::Input::Dtls { id, word: crate::DtlsWord::Keys(Box::new(keys)) });
        assert!(done.is_empty(), "{done:?}");
    }
    assert!(rig.input(crate::Input::Dtls { id, word: crate::DtlsWord::Failed }).is_empty());
    let wire = browser.says(&voice(5));
    assert_eq!(sockets(&rig.hear_peer(1, &wire)), [socket(2)]);
    assert_eq!((rig.engine.totals().handshakes, rig.engine.totals().handshakes_refused), (1, 0));
    rig.check_sum();
}

#[test]
fn rfc8445_s7_3_1_1_a_peer_that_takes_itself_for_controlled_is_told_so() {
    let mut browser = Browser::new(1);
    let mut rig = pair(&browser);
    let mut check = browser.check(true);
    // ICE-CONTROLLING becomes ICE-CONTROLLED, or an attribute that nobody knows; integrity and fingerprint anew.
    let at = check.windows(4).position(|w| w == [0x80, 0x2a, 0, 8]).unwrap();
    for (kind, code) in [([0x80, 0x29], [4, 87]), ([0x77, 0x77], [4, 20])] {
        check[at..at + 2].copy_from_slice(&kind);
        let bytes = resigned(&check, &browser.key);
        check[8] ^= 1;
        let done = rig.hear_peer(1, &bytes);
        let answers = addressed(&done, socket(1), None);
        let [(to, answer)] = answers[..] else { panic!("{done:?}") };
        assert_eq!((to, class(answer), &answer[26..28]), (Some(peer(1)), Class::Error, &code[..]));
        assert!(stun::Message::parse(answer).unwrap().is_authentic(&browser.key));
        assert_eq!((aimed(&done, socket(1)), news(&done).len()), (Some(None), 0));
    }
    assert_eq!(rig.engine.dropped(Drop::StunRefused), 2);
    rig.check_sum();
}

/// The same attributes before the integrity, with integrity and fingerprint made right again.
fn resigned(check: &[u8], key: &Key) -> Vec<u8> {
    stun::resign(&check[..check.len() - 32], key)
}

#[test]
fn a_handshake_begins_only_with_who_has_checked() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    let hello = browser.hello();
    for from in [peer(1), addr("203.0.113.5:9")] {
        assert!(rig.datagram(socket(1), from, &hello[0]).is_empty(), "nothing begins, nothing is sent");
    }
    assert_eq!(rig.engine.dropped(Drop::DtlsStranger), 2);
    assert!(rig.hear_peer(2, &hello[0]).is_empty());
    assert_eq!(rig.engine.dropped(Drop::Dtls), 1);
    let check = browser.check(true);
    rig.hear_peer(1, &check);
    // Another one beside the peer that has checked.
    assert!(rig.datagram(socket(1), addr("198.51.100.1:9"), &hello[0]).is_empty());
    browser.talk(&mut rig, &mut edge, hello);
    assert!(browser.is_connected());
    rig.check_sum();
}

// DESIGN §3: an interception that no sum of the shard tells of.
#[test]
fn of_the_handshake_of_an_unseen_leg_nothing_tells() {
    for fails in [false, true] {
        let (mut browser, mut edge) = (Browser::new(1), Edge::new());
        let mut rig = Rig::new();
        let hidden = edit(contract::Leg { unseen: true, ..browser.leg() }, |rtp| {
            if let Some(dtls) = rtp.dtls.as_mut().filter(|_| fails) {
                dtls.fingerprints = vec![vec![7; 32]];
            }
        });
        rig.set(vec![hidden, rtp_leg(2)], vec![path(1, Mode::Tap, &[2], &[1])]);
        let before = format!("{:?}", rig.engine.totals());
        let done = browser.connect(&mut rig, &mut edge);
        assert_eq!((edge.ended > 0, news(&done).len()), (fails, 0));
        assert_eq!(format!("{:?}", rig.engine.totals()), before);
        if !fails {
            let done = rig.hear_peer(2, &voice(1));
            assert_eq!(browser.hears(sent(&done)[0].1), voice(1));
        }
    }
}

// RFC 8122 §6.2.
#[test]
fn another_certificate_than_was_announced_gives_no_keys() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    rig.put(vec![put_leg(edit(browser.leg(), |rtp| {
        if let Some(dtls) = &mut rtp.dtls {
            dtls.fingerprints = vec![vec![7; 32]];
        }
    }))]);
    let done = browser.connect(&mut rig, &mut edge);
    assert_eq!(lost(&done), [leg_lost::Reason::DtlsFailed]);
    assert_eq!((rig.engine.totals().handshakes, rig.engine.totals().handshakes_refused), (0, 1));
    assert_eq!(edge.ended, 1);
    assert!(rig.hear_peer(2, &voice(1)).is_empty() && rig.hear_peer(1, &voice(1)).is_empty());
    if browser.is_connected() {
        let wire = browser.says(&voice(2));
        assert!(rig.hear_peer(1, &wire).is_empty(), "its own keys open nothing");
    }
    rig.check_sum();
}

#[test]
fn noise_and_repetition_beside_a_handshake_do_it_no_harm_and_are_bounded() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    let check = browser.check(true);
    rig.hear_peer(1, &check);
    let hello = browser.hello();
    let mut answered = 0;
    for round in 0..20u8 {
        let mut noise = hello[0].to_vec();
        let at = usize::from(round) * 3 + 13;
        noise[at] ^= 0xff;
        noise.truncate(20 + usize::from(round));
        let done = rig.hear_peer(1, &noise);
        answered += edge.run(&mut rig, done).iter().filter(|d| matches!(d, Done::Sent(..))).count();
    }
    assert!(answered <= 20);
    browser.talk(&mut rig, &mut edge, hello.clone());
    assert!(browser.is_connected());
    // A flood from where the peer is: no more than a handshake needs is looked at.
    for _ in 0..1000 {
        let done = rig.hear_peer(1, &hello[0]);
        edge.run(&mut rig, done);
    }
    assert!(rig.engine.dropped(Drop::DtlsTooMany) >= 900);
    let wire = browser.says(&voice(2));
    assert_eq!(rig.hear_peer(1, &wire).len(), 1, "the call lives");
    rig.check_sum();
}

#[test]
fn a_peer_that_checks_no_more_is_lost_once_and_a_handshake_has_its_time() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    browser.connect(&mut rig, &mut edge);
    assert!(lost(&rig.run(29_000)).is_empty());
    assert_eq!(lost(&rig.run(90_000)), [leg_lost::Reason::IceFailed]);
    let check = browser.check(true);
    rig.hear_peer(1, &check);
    assert_eq!(lost(&rig.run(60_000)), [leg_lost::Reason::IceFailed], "it came back and went again");
    // Checks, and no handshake.
    let mut silent = Browser::new(1);
    let mut rig = pair(&silent);
    let mut gone = Vec::new();
    for _ in 0..12 {
        let check = silent.check(true);
        rig.hear_peer(1, &check);
        gone.extend(lost(&rig.run(5000)));
    }
    assert_eq!(gone, [leg_lost::Reason::DtlsFailed]);
    // A peer that control knows nothing of yet may take its time.
    let waiting = Browser::new(1);
    let mut rig = Rig::new();
    let leg = edit(waiting.leg(), |rtp| {
        rtp.ice.as_mut().unwrap().peer_ufrag.clear();
        rtp.dtls.as_mut().unwrap().fingerprints.clear();
    });
    rig.set(vec![leg, rtp_leg(2)], vec![path(1, Mode::Relay, &[1], &[2])]);
    assert!(lost(&rig.run(200_000)).is_empty());
}

// RFC 8445 §9.
#[test]
fn a_restart_of_ice_keeps_media_where_it_is_until_a_pair_is_nominated_anew() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&browser);
    browser.connect(&mut rig, &mut edge);
    let old_check = browser.check(true);
    let leg = edit(browser.leg(), |rtp| {
        let ice = rtp.ice.as_mut().unwrap();
        (ice.ufrag, ice.password, ice.peer_ufrag) =
            ("new1".into(), "anotherpasswordof22chars".into(), "new2".into());
    });
    rig.put(vec![put_leg(leg)]);
    assert_eq!(sockets(&rig.hear_peer(2, &voice(1))), [socket(1)]);
    let wire = browser.says(&voice(3));
    assert_eq!(sockets(&rig.hear_peer(1, &wire)), [socket(2)]);
    assert!(rig.hear_peer(1, &old_check).is_empty(), "the old password is worth nothing");
    (browser.username, browser.key) = ("new1:new2".into(), Key::new("anotherpasswordof22chars"));
    let new = addr("203.0.113.8:8");
    rig.pass(100);
    let check = browser.check(true);
    let done = rig.datagram(socket(1), new, &check);
    assert_eq!(aimed(&done, socket(1)), Some(Some(new)));
    // The handshake is not another one.
    let wire = browser.says(&voice(4));
    assert_eq!(sockets(&rig.datagram(socket(1), new, &wire)), [socket(2)]);
    rig.check_sum();
}

#[test]
fn other_certificates_are_another_handshake_and_the_old_keys_are_worthless() {
    let (mut first, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = pair(&first);
    first.connect(&mut rig, &mut edge);
    let mut second = Browser::new(1);
    rig.put(vec![put_leg(second.leg())]);
    let wire = first.says(&voice(3));
    assert!(rig.hear_peer(1, &wire).is_empty() && rig.hear_peer(2, &voice(4)).is_empty());
    second.connect(&mut rig, &mut edge);
    assert!(second.is_connected());
    let wire = second.says(&voice(5));
    assert_eq!(sockets(&rig.hear_peer(1, &wire)), [socket(2)]);
    assert!(rig.hear_peer(1, &first.says(&voice(6))).is_empty());
    // What control says again changes nothing; a leg that goes ends its handshake.
    rig.put(vec![put_leg(directed(second.leg(), contract::Direction::Sendonly))]);
    let wire = second.says(&voice(7));
    assert_eq!(sockets(&rig.hear_peer(1, &wire)), [socket(2)]);
    let (_, done) = rig.batch(vec![contract::change::Verb::RemoveLeg(key(1))]);
    let before = edge.ended;
    edge.run(&mut rig, done);
    assert_eq!(edge.ended, before + 1);
}

#[test]
fn as_client_we_begin_when_the_peer_has_checked() {
    let (mut browser, mut edge) = (Browser::in_role(1, false), Edge::new());
    let mut rig = pair(&browser);
    let leg = edit(browser.leg(), |rtp| rtp.dtls.as_mut().unwrap().setup = Setup::Active.into());
    rig.put(vec![put_leg(leg)]);
    browser.connect(&mut rig, &mut edge);
    assert!(browser.is_connected());
    let wire = browser.says(&voice(5));
    assert_eq!(sockets(&rig.hear_peer(1, &wire)), [socket(2)]);
}

// RFC 5763 without ICE: the announced address, whatever the mode of learning would admit.
#[test]
fn without_ice_the_handshake_is_with_the_announced_address_alone() {
    for learning in [contract::Learning::Strict, contract::Learning::Window, contract::Learning::Trust] {
        let (mut browser, mut edge) = (Browser::new(1), Edge::new());
        let mut rig = Rig::new();
        let leg = edit(browser.leg_without_ice(), |rtp| rtp.learning = learning.into());
        rig.set(
            vec![leg, rtp_leg(2)],
            vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])],
        );
        let hello = browser.hello();
        for from in [addr("198.51.100.1:9"), addr("198.51.100.9:4002"), addr("203.0.113.5:9")] {
            assert!(rig.datagram(socket(1), from, &hello[0]).is_empty());
        }
        assert_eq!(rig.engine.dropped(Drop::DtlsStranger), 3);
        browser.talk(&mut rig, &mut edge, hello);
        assert!(browser.is_connected(), "{learning:?}");
        let wire = browser.says(&voice(1));
        assert_eq!(sockets(&rig.hear_peer(1, &wire)), [socket(2)]);
        rig.check_sum();
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let browser = Browser::new(1);
    type Change = fn(&mut contract::RtpLeg);
    let wrong: [Change; 8] = [
        |rtp| rtp.rtcp_mux = false,
        |rtp| rtp.ice.as_mut().unwrap().ufrag = "abc".into(),
        |rtp| rtp.ice.as_mut().unwrap().password = "tooshort".into(),
        |rtp| rtp.ice.as_mut().unwrap().ufrag = "a:bcd".into(),
        |rtp| rtp.dtls.as_mut().unwrap().fingerprints = vec![vec![1; 20]],
        |rtp| rtp.dtls.as_mut().unwrap().fingerprints = vec![vec![1; 32]; 9],
        |rtp| rtp.dtls.as_mut().unwrap().setup = 7,
        |rtp| rtp.srtp = Some(Box::default()),
    ];
    for change in wrong {
        let mut rig = pair(&browser);
        let (body, _) = rig.batch(vec![put_leg(edit(browser.leg(), change))]);
        assert!(
            matches!(&body, contract::from_dataplane::Body::Refusal(r) if r.reason() == Reason::BadLeg),
            "{body:?}"
        );
    }
}
