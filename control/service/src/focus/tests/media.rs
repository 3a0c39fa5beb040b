//! The room in the data plane (REQ-CF-11, REQ-CF-12, REQ-CF-14, REQ-CF-25; RFC 7701; issue 2 "kill -9 of the data plane").

use contract::{LegKey, LegLost, MessageNews, Mode, News, change::Verb, leg, message_news, news, path};
use sip::{Method, Name};

use super::{Phone, entry, group_of, user, world};
use crate::Input;
use crate::testing::{World, call_sdp, chat_sdp, sdp_of};

/// The legs and paths that the data plane has, as ordered.
fn ordered(world: &World) -> (Vec<contract::Leg>, Vec<contract::Path>) {
    let (mut legs, mut paths) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    for change in world.batches.iter().flat_map(|b| &b.changes) {
        match change.verb.clone().unwrap() {
            Verb::PutLeg(leg) => drop(legs.insert(leg.id, leg)),
            Verb::RemoveLeg(key) => {
                legs.remove(&key.leg);
                for path in paths.values_mut() {
                    let path: &mut contract::Path = path;
                    for set in [&mut path.sources, &mut path.targets].into_iter().flatten() {
                        set.legs.retain(|leg| *leg != key.leg);
                    }
                }
            }
            Verb::PutPath(path) => drop(paths.insert(path.id, path)),
            Verb::RemovePath(key) => drop(paths.remove(&key.path)),
            Verb::PutContext(_) | Verb::RemoveContext(_) => {}
        }
    }
    (legs.into_values().collect(), paths.into_values().collect())
}

fn msrp(leg: &contract::Leg) -> &contract::MsrpLeg {
    match &leg.kind {
        Some(leg::Kind::Msrp(msrp)) => msrp,
        other => panic!("{other:?}"),
    }
}

/// The chat leg of a user.
fn chat_leg(world: &World, name: &str) -> contract::Leg {
    let (legs, _) = ordered(world);
    let own = user(name).as_str().to_owned();
    let is = |l: &contract::Leg| matches!(&l.kind, Some(leg::Kind::Msrp(m)) if m.addresses.contains(&own));
    legs.into_iter().find(is).expect("a chat leg")
}

fn tell(world: &mut World, what: news::What) {
    world.input(Input::News(News { what: Some(what) }));
    world.settle();
}

// RFC 7701: one switch for all chat legs; each leg knows whose it is and what its peer takes.
#[test]
fn chat_is_one_switch() {
    let (mut world, mut phones) = world();
    phones[1].sdp = chat_sdp("192.0.2.1", 7101, "actpass")
        .replace("a=sendrecv", "a=chatroom:private-messages\r\na=sendrecv");
    let focus = group_of(&mut world, &mut phones, &[1]);
    let (legs, paths) = ordered(&world);
    assert_eq!((legs.len(), paths.len()), (2, 1));
    let Some(path::Parameters::Switch(switch)) = &paths[0].parameters else { panic!("a switch") };
    assert!(switch.private_messages && switch.nicknames);
    let id = focus.split('@').next().unwrap();
    assert!(
        switch.room.contains(&format!("{id}@weir.example"))
            && switch.room.contains(&format!("{id}@127.0.0.1:5060"))
    );
    let bob = chat_leg(&world, "bob");
    let bob = msrp(&bob);
    assert!(bob.private_messages && !msrp(&chat_leg(&world, "alice")).private_messages);
    assert_eq!(bob.remote_path, ["msrp://192.0.2.1:7101/7101x;tcp"]);
    assert_eq!(bob.setup(), contract::Setup::Passive, "bob answered active");
}

fn audio(phone: &mut Phone, port: u16, formats: &str, rich: bool) {
    let mark = if rich { "a=mid:a\r\n" } else { "" };
    phone.sdp = format!(
        "v=0\r\no=- {port} 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio {port} RTP/AVP {formats}\r\n\
         a=rtpmap:96 opus/48000/2\r\na=rtpmap:97 PCMU/8000\r\n{mark}"
    );
}

// REQ-CF-14: a plain phone is selected for, the others get every stream; everybody speaks the room's codec.
#[test]
fn audio_is_distributed_in_one_codec_and_plain_phones_get_one_stream() {
    let (mut world, [mut alice, mut bob, mut carol, _]) = world();
    audio(&mut alice, 9000, "96 0", true);
    audio(&mut bob, 9002, "0", false);
    audio(&mut carol, 9004, "0", true);
    let request = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, request);
    assert_eq!(answer.code, 200);
    let taken = sdp_of(&answer.body);
    let payloads = |sdp: &sdp::Session| {
        sdp.lines[0].rtp().unwrap().formats.iter().map(|f| f.payload).collect::<Vec<_>>()
    };
    assert_eq!(payloads(&taken), [0], "G.711, which everybody has");
    world.pass(1);
    bob.answer(&mut world);
    world.settle();
    alice.within(
        &mut world,
        Method::Refer,
        &[(Name::ReferTo, "<sip:carol@weir.example>"), (Name::ReferSub, "false")],
        None,
    );
    world.pass(1);
    carol.answer(&mut world);
    let (legs, paths) = ordered(&world);
    assert_eq!(legs.len(), 3);
    let mode = |mode: Mode| paths.iter().find(|p| p.mode() == mode).unwrap();
    let (rich, plain) = (mode(Mode::Distribute), mode(Mode::Select));
    assert_eq!(rich.sources.as_ref().unwrap().legs, plain.sources.as_ref().unwrap().legs);
    assert_eq!(
        (rich.targets.as_ref().unwrap().legs.len(), plain.targets.as_ref().unwrap().legs.len()),
        (2, 1)
    );
    let Some(path::Parameters::Select(select)) = &plain.parameters else { panic!("select") };
    assert_eq!(select.slots, 1);
    // Bob goes: his leg leaves every path.
    bob.bye(&mut world, None);
    let (legs, paths) = ordered(&world);
    assert_eq!(legs.len(), 2);
    assert!(paths.iter().all(|p| p.mode() != Mode::Select || p.targets.as_ref().unwrap().legs.is_empty()));
}

// RFC 4585 §4.2: of the feedback that is offered what the data plane can do is answered, and ordered of it.
#[test]
fn feedback_is_agreed_and_ordered_as_it_was_offered() {
    let (mut world, [mut alice, mut bob, ..]) = world();
    audio(&mut alice, 9000, "96", true);
    alice.sdp.push_str("a=rtcp-fb:96 nack\r\na=rtcp-fb:* goog-remb\r\na=rtcp-fb:96 transport-cc\r\n");
    audio(&mut bob, 9002, "96", false);
    let request = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, request);
    assert_eq!(answer.code, 200);
    let taken = sdp_of(&answer.body);
    let values: Vec<&str> =
        taken.lines[0].rtp().unwrap().feedback.iter().map(|fb| fb.value.as_str()).collect();
    assert_eq!(values, ["nack", "goog-remb"], "who numbers nothing cannot be told of it");
    world.pass(1);
    bob.answer(&mut world);
    world.settle();
    let (legs, _) = ordered(&world);
    let agreed: Vec<contract::RtcpAgreed> = legs
        .iter()
        .filter_map(|leg| {
            if let Some(leg::Kind::Rtp(rtp)) = &leg.kind { rtp.rtcp.as_deref().cloned() } else { None }
        })
        .collect();
    let plain = contract::RtcpAgreed { codec: "opus".to_owned(), ..Default::default() };
    let rich = contract::RtcpAgreed { nack: true, remb: true, ..plain.clone() };
    assert_eq!(agreed, [rich, plain]);
}

// draft-holmer-rmcat-transport-wide-cc-extensions-01: a sender of video that numbers his packets is told when they came.
#[test]
fn transport_wide_feedback_is_agreed_with_who_numbers_his_video() {
    let uri = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    for (mark, agreed) in [(format!("a=extmap:5 {uri}\r\n"), true), (String::new(), false)] {
        let (mut world, [mut alice, mut bob, ..]) = world();
        audio(&mut alice, 9000, "96", true);
        let numbers = format!("{mark}a=rtcp-fb:* transport-cc\r\n");
        alice
            .sdp
            .push_str(&format!("{numbers}m=video 9004 RTP/AVPF 96\r\na=rtpmap:96 VP8/90000\r\n{numbers}"));
        audio(&mut bob, 9002, "96", false);
        bob.sdp += "m=video 0 RTP/AVP 96\r\n";
        let request = alice.founding(&[entry("bob")], "1", "");
        let answer = alice.invite(&mut world, request);
        assert_eq!(answer.code, 200);
        let taken = sdp_of(&answer.body);
        let says = |line: usize| {
            let rtp = taken.lines[line].rtp().unwrap();
            let feedback = rtp.feedback.iter().any(|fb| fb.value == "transport-cc");
            (feedback, rtp.extensions.iter().find(|e| e.uri == uri).map(|e| e.id))
        };
        assert_eq!((says(0), says(1)), ((false, None), (agreed, agreed.then_some(5))));
        world.pass(1);
        bob.answer(&mut world);
        world.settle();
        let (legs, _) = ordered(&world);
        let ids = legs.iter().filter_map(|leg| match &leg.kind {
            Some(leg::Kind::Rtp(rtp)) => rtp.rtcp.as_deref().map(|a| (rtp.video, a.transport_wide_id)),
            _ => None,
        });
        let ids: Vec<_> = ids.filter(|(_, id)| *id != 0).collect();
        assert_eq!(ids, if agreed { vec![(true, 5)] } else { vec![] });
    }
}

// RFC 5506 §5, RFC 3611 §5.2, RFC 8866 §5.8: what is offered of it is answered and ordered; what may be sent is said and held.
#[test]
fn reduced_size_round_trips_and_bandwidth_are_agreed_and_ordered() {
    let mut config = super::config();
    (config.controlling.audio_kbps, config.media.police_headroom_percent) = (96, 25);
    let (mut world, [mut alice, mut bob, ..]) = super::world_with(config);
    audio(&mut alice, 9000, "96", true);
    alice.sdp.push_str("a=rtcp-rsize\r\na=rtcp-xr:rcvr-rtt=all:10000 voip-metrics\r\n");
    audio(&mut bob, 9002, "96", false);
    let request = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, request);
    assert_eq!(answer.code, 200);
    let taken = &sdp_of(&answer.body).lines[0];
    let rtp = taken.rtp().unwrap();
    assert!(rtp.rtcp_rsize && rtp.reports("rcvr-rtt") && !rtp.reports("voip-metrics"));
    assert_eq!(taken.bandwidth_kbps(), Some(96));
    world.pass(1);
    bob.answer(&mut world);
    world.settle();
    let (legs, _) = ordered(&world);
    let agreed: Vec<(bool, bool, u32)> = legs
        .iter()
        .filter_map(|leg| {
            let Some(leg::Kind::Rtp(rtp)) = &leg.kind else { return None };
            let rtcp = rtp.rtcp.as_deref()?;
            Some((rtcp.reduced, rtcp.extended, rtp.bandwidth_kbps))
        })
        .collect();
    assert_eq!(agreed, [(true, true, 120), (false, false, 120)]);
}

// RFC 4568: who offers keys is answered with keys, who does not is not; both are in one conference.
#[test]
fn members_with_keys_and_without_are_in_one_conference() {
    let (mut world, [mut alice, mut bob, ..]) = world();
    let theirs = sdp::Crypto::new(5, sdp::CryptoSuite::AeadAes128Gcm, &[7; 28]).unwrap();
    audio(&mut alice, 9000, "0", true);
    audio(&mut bob, 9002, "0", false);
    let mut offer = sdp_of(&alice.sdp.clone().into());
    offer.lines[0].proto = sdp::Proto::RtpSavp;
    if let sdp::Body::Rtp(rtp) = &mut offer.lines[0].body {
        rtp.crypto = vec![theirs.clone()];
    }
    alice.sdp = String::from_utf8(offer.to_bytes().to_vec()).unwrap();
    let request = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, request);
    assert_eq!(answer.code, 200);
    let taken = sdp_of(&answer.body);
    assert_eq!(taken.lines[0].proto, sdp::Proto::RtpSavp);
    let [ours] = &taken.lines[0].rtp().unwrap().crypto[..] else { panic!("one key") };
    assert_eq!((ours.tag, ours.suite), (5, theirs.suite));
    assert_ne!(ours.key(), theirs.key());
    world.pass(1);
    bob.answer(&mut world);
    world.settle();
    let (legs, _) = ordered(&world);
    let keys: Vec<_> = legs
        .iter()
        .map(|leg| match &leg.kind {
            Some(leg::Kind::Rtp(rtp)) => {
                rtp.srtp.as_deref().map(|s| (s.send_key.clone(), s.receive_key.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(keys, [Some((ours.key().to_vec(), theirs.key().to_vec())), None]);
}

// A peer's payload types are mapped onto the room's; one without the codec is refused.
#[test]
fn payload_types_are_mapped_and_other_codecs_refused() {
    let (mut world, [mut alice, mut bob, ..]) = world();
    alice.sdp = call_sdp("192.0.2.1", 9000, "sendrecv", 1);
    let request = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, request);
    let focus = super::focus_of(&answer.headers);
    audio(&mut bob, 9002, "97", false);
    assert_eq!(bob.join(&mut world, &focus).code, 200);
    let (legs, _) = ordered(&world);
    let maps: Vec<(u32, u32)> = legs
        .iter()
        .filter_map(|l| match &l.kind {
            Some(leg::Kind::Rtp(rtp)) if rtp.remote.as_ref().is_some_and(|r| r.port == 9002) => {
                Some(rtp.payloads.clone())
            }
            _ => None,
        })
        .flatten()
        .map(|p| (p.peer, p.context))
        .collect();
    assert_eq!(maps, [(97, 0)]);
    bob.bye(&mut world, None);
    audio(&mut bob, 9002, "96", false);
    assert_eq!(bob.join(&mut world, &focus).code, 488);
}

// RFC 3264 §8: hold, and a refresh that changes nothing keeps the o= version.
#[test]
fn a_participant_changes_its_session() {
    let (mut world, [mut alice, mut bob, ..]) = world();
    alice.sdp = call_sdp("192.0.2.1", 9000, "sendrecv", 1);
    bob.sdp = call_sdp("192.0.2.1", 9002, "sendrecv", 1);
    let request = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, request);
    let first = sdp_of(&answer.body);
    world.pass(1);
    bob.answer(&mut world);
    alice.subscribe(&mut world);
    alice.take(&mut world);
    let same = alice.sdp.clone();
    let again = alice.within(&mut world, Method::Invite, &[], Some(("application/sdp", &same)));
    assert_eq!((again.code, sdp_of(&again.body).origin.version), (200, first.origin.version));
    let held = call_sdp("192.0.2.1", 9000, "sendonly", 2);
    let answer = alice.within(&mut world, Method::Update, &[], Some(("application/sdp", &held)));
    let sdp = sdp_of(&answer.body);
    assert_eq!(
        (answer.code, sdp.lines[0].direction, sdp.origin.version),
        (200, sdp::Direction::RecvOnly, first.origin.version + 1)
    );
    let (legs, _) = ordered(&world);
    assert!(legs.iter().any(|l| l.direction() == contract::Direction::Sendonly));
    world.pass(10);
    alice.take(&mut world);
    assert_eq!(alice.sees("alice"), Some(cpm::conference::Status::OnHold));
    let broken = alice.within(&mut world, Method::Update, &[], Some(("application/sdp", "v=0\r\n")));
    assert_eq!(broken.code, 488);
}

// REQ-CF-25; RFC 7701 §7: granted, taken, malformed; shown in the conference's state.
#[test]
fn nicknames_are_decided_and_shown() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1]);
    let [mut alice, ..] = phones;
    alice.subscribe(&mut world);
    alice.take(&mut world);
    let ask = |world: &mut World, name: &str, id: u64, text: &str| {
        let leg = chat_leg(world, name).key();
        tell(
            world,
            news::What::Message(MessageNews {
                leg: Some(leg),
                id,
                what: Some(message_news::What::Nickname(text.into())),
            }),
        );
        let decide = world.decisions.last().unwrap().clone();
        assert_eq!((decide.id, decide.leg), (id, Some(leg)));
        (decide.status, decide.nickname)
    };
    assert_eq!(ask(&mut world, "alice", 1, "Big Al"), (200, "Big Al".to_owned()));
    assert_eq!(ask(&mut world, "bob", 2, "big  al"), (425, String::new()));
    assert_eq!(ask(&mut world, "bob", 3, "\u{202e}x"), (424, String::new()));
    assert_eq!(ask(&mut world, "bob", 4, "Bobby"), (200, "Bobby".to_owned()));
    world.pass(10);
    alice.take(&mut world);
    let shown = |name: &str| alice.roster.user(user(name).as_str()).unwrap().nickname.clone();
    assert_eq!((shown("alice").as_deref(), shown("bob").as_deref()), (Some("Big Al"), Some("Bobby")));
    // The wanted state of the leg holds it too.
    assert_eq!(msrp(&chat_leg(&world, "bob")).nickname, "Bobby");
}

// CPM-FACTS §3.3: a lost connection is repaired by re-INVITE with a new path.
#[test]
fn a_lost_chat_is_set_up_anew() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1]);
    let [_, mut bob, ..] = phones;
    let before = chat_leg(&world, "bob");
    tell(&mut world, news::What::LegLost(LegLost { leg: Some(before.key()), reason: 1 }));
    assert!(bob.take(&mut world).is_empty(), "a BYE may be about to come");
    world.pass(3);
    let (tx, invite) = bob.take(&mut world).pop().expect("a re-INVITE");
    assert!(invite.to_tag().is_some());
    let sdp = sdp_of(&invite.body);
    let path = sdp.message_line().unwrap().1.message().unwrap().path.clone();
    assert_ne!(path, msrp(&before).local.clone().unwrap().path);
    bob.sdp = chat_sdp("192.0.2.1", 7102, "active");
    world.reply(tx, crate::testing::reply(&invite, 200, "x", &bob.sdp));
    let after = chat_leg(&world, "bob");
    assert_eq!(msrp(&after).remote_path, ["msrp://192.0.2.1:7102/7102x;tcp"]);
    assert_ne!(after.id, before.id);
    world.pass(60);
    assert!(bob.take(&mut world).is_empty() && bob.byes.is_empty());
}

// When nobody answers the re-INVITE the participant is disconnected, and a member still.
#[test]
fn a_chat_that_stays_lost_ends_the_session() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1]);
    let [mut alice, mut bob, ..] = phones;
    alice.subscribe(&mut world);
    alice.take(&mut world);
    let leg = chat_leg(&world, "bob").key();
    tell(&mut world, news::What::LegLost(LegLost { leg: Some(leg), reason: 1 }));
    world.pass(3);
    let (tx, _) = bob.take(&mut world).pop().unwrap();
    world.expire(tx);
    world.pass(10);
    alice.take(&mut world);
    assert_eq!(alice.sees("bob"), Some(cpm::conference::Status::Disconnected));
    assert_eq!(bob.join(&mut world, &focus).code, 200);
    let unknown = LegKey::new(leg.context, 999);
    tell(&mut world, news::What::LegLost(LegLost { leg: Some(unknown), reason: 1 }));
}

// A new data plane: everything is put again, plain RTP with its ports, chat with a re-INVITE.
#[test]
fn a_new_data_plane_gets_the_room_again() {
    let (mut world, mut phones) = world();
    for (phone, port) in phones.iter_mut().zip([9000, 9002, 9004, 9006]) {
        let audio = call_sdp("192.0.2.1", port, "sendrecv", 1);
        let at = audio.find("m=audio").unwrap();
        phone.sdp.push_str(&audio[at..]);
    }
    group_of(&mut world, &mut phones, &[1]);
    let ports = |legs: &[contract::Leg]| -> Vec<u32> {
        let rtp = legs.iter().filter_map(|l| match &l.kind {
            Some(leg::Kind::Rtp(rtp)) => rtp.local.as_ref()?.advertised.as_ref().map(|a| a.port),
            _ => None,
        });
        rtp.collect()
    };
    // What is wanted is in the row of the context.
    let row = world.rows(crate::Table::Context)[0].clone();
    let crate::Record::Context(body) = &row.record else { panic!("a context") };
    let before = crate::media::Anchor::restore(body, row.version).unwrap();
    let before = ports(&before.legs().cloned().collect::<Vec<_>>());
    world.batches.clear();
    let welcome = contract::Welcome { instance: 2, ..contract::Welcome::default() };
    world.input(Input::DataplaneUp { welcome, instance_changed: true });
    world.settle();
    let (legs, _) = ordered(&world);
    assert_eq!(ports(&legs), before, "the same ports");
    world.pass(1);
    for phone in &mut phones[..2] {
        let (tx, invite) = phone.take(&mut world).pop().expect("a re-INVITE");
        let sdp = phone.sdp.replace("actpass", "active");
        world.reply(tx, crate::testing::reply(&invite, 200, "x", &sdp));
    }
    world.pass(60);
    assert!(phones.iter().all(|p| p.byes.is_empty()));
}

// DESIGN §2, invariant 8: what an audit misses is put again, what it names is left alone.
#[test]
fn a_room_that_the_data_plane_does_not_hold_is_given_back_to_it() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1]);
    let crate::Record::Context(body) = world.rows(crate::Table::Context)[0].record.clone() else {
        panic!("a context")
    };
    let welcome = contract::Welcome { instance: 2, ..contract::Welcome::default() };
    for (held, again) in [(vec![body.context], 0), (vec![], 1)] {
        world.batches.clear();
        world.input(Input::DataplaneDown);
        world.input(Input::DataplaneUp { welcome: welcome.clone(), instance_changed: false });
        world.input(Input::Audited { contexts: held });
        world.settle();
        assert_eq!(ordered(&world).0.is_empty(), again == 0);
        world.pass(1);
        for phone in &mut phones[..2] {
            let invites = phone.take(&mut world);
            assert_eq!(invites.len(), again, "message legs have new paths then");
            for (tx, invite) in invites {
                let sdp = phone.sdp.replace("actpass", "active");
                world.reply(tx, crate::testing::reply(&invite, 200, "x", &sdp));
            }
        }
    }
    world.pass(60);
    assert!(phones.iter().all(|p| p.byes.is_empty()));
}

// A peer that accepts every new path and never connects is given up, not re-invited for ever.
#[test]
fn repairs_are_counted() {
    let (mut world, mut phones) = world();
    group_of(&mut world, &mut phones, &[1]);
    let [_, mut bob, ..] = phones;
    for round in 0..4 {
        let leg = chat_leg(&world, "bob").key();
        if round == 1 {
            tell(&mut world, news::What::LegUp(contract::LegUp { leg: Some(leg) }));
        }
        tell(&mut world, news::What::LegLost(LegLost { leg: Some(leg), reason: 7 }));
        world.pass(3);
        let (tx, invite) = bob.take(&mut world).pop().expect("a re-INVITE");
        let sdp = bob.sdp.replace("actpass", "active");
        world.reply(tx, crate::testing::reply(&invite, 200, "x", &sdp));
    }
    let leg = chat_leg(&world, "bob").key();
    tell(&mut world, news::What::LegLost(LegLost { leg: Some(leg), reason: 7 }));
    world.pass(3);
    assert!(bob.take(&mut world).is_empty());
    assert_eq!(bob.byes.len(), 1);
}

// CPM-FACTS §2.27: nothing said for long: asleep, without 410; an INVITE of a member wakes it.
#[test]
fn a_silent_group_falls_asleep_and_wakes_up() {
    let mut config = super::config();
    config.controlling.retention_s = 600;
    let (mut world, mut phones) = super::world_with(config);
    let focus = group_of(&mut world, &mut phones, &[1]);
    let [mut alice, mut bob, ..] = phones;
    let counters = |world: &World, idle_ms| {
        let (legs, _) = ordered(world);
        let legs =
            legs.iter().map(|l| contract::LegCounters { leg: Some(l.key()), idle_ms, ..Default::default() });
        news::What::Counters(contract::Counters { legs: legs.collect() })
    };
    let busy = counters(&world, 1000);
    tell(&mut world, busy);
    assert!(alice.take(&mut world).is_empty() && alice.byes.is_empty());
    let idle = counters(&world, 1_800_000);
    tell(&mut world, idle);
    for phone in [&mut alice, &mut bob] {
        phone.take(&mut world);
        assert_eq!(phone.byes, ["SIP;cause=408;text=\"Inactivity\""]);
    }
    assert!(world.rows(crate::Table::Context).is_empty() && world.rows(crate::Table::Dialog).is_empty());
    world.restart();
    world.batches.clear();
    assert_eq!(bob.join(&mut world, &focus).code, 200, "the record is kept");
    world.pass(1);
    alice.answer(&mut world);
    assert_eq!(ordered(&world).0.len(), 2);
    // Kept for so long, and no longer.
    alice.bye(&mut world, None);
    bob.bye(&mut world, None);
    world.pass(601);
    assert_eq!(bob.join(&mut world, &focus).code, 404);
}

// RFC 7701 §6.3: a member's sessions are one participant; beyond the limit the oldest goes.
#[test]
fn several_sessions_are_one_participant() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1]);
    let [mut alice, mut bob, ..] = phones;
    for _ in 0..4 {
        let sdp = bob.sdp.clone();
        let request = bob.request("INVITE", &focus, "", "application/sdp", &sdp);
        let tx = world.send(bob.peer, request.clone());
        world.settle();
        bob.conclude(&mut world, tx, &request);
    }
    let (legs, _) = ordered(&world);
    let mut whose: Vec<&str> = legs.iter().map(|l| l.participant.as_str()).collect();
    whose.sort_unstable();
    assert_eq!(whose, ["p0", "p1", "p1", "p1", "p1"]);
    alice.subscribe(&mut world);
    alice.take(&mut world);
    assert_eq!(alice.roster.user(user("bob").as_str()).unwrap().endpoints.len(), 4);
    assert_eq!(alice.roster.current().unwrap().users.as_ref().unwrap().users.len(), 2);
}

/// What a browser offers: audio and video, keys by DTLS, ICE.
fn browser(port: u16) -> String {
    let mut text = format!("v=0\r\no=- {port} 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n");
    for (mid, kind, codec) in [
        (0, "audio 9 UDP/TLS/RTP/SAVPF 0", "0 PCMU/8000"),
        (1, "video 9 UDP/TLS/RTP/SAVPF 96", "96 VP8/90000"),
    ] {
        text += &format!(
            "m={kind}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=rtcp-mux\r\na=setup:actpass\r\na=ice-ufrag:abcd\r\n\
             a=ice-pwd:apasswordof22charsOrMore\r\na=fingerprint:SHA-256 {}\r\na=rtpmap:{codec}\r\n",
            ["4A"; 32].join(":")
        );
    }
    text
}

// RFC 5763, RFC 8839: a browser is in one conference with a plain phone; when it has gone without a word, both its lines
// go, one after the other, and its session with the second one.
#[test]
fn a_browser_is_a_member_beside_a_plain_phone_until_none_of_its_lines_is_left() {
    let (mut world, [mut alice, mut bob, ..]) = world();
    let welcome =
        contract::Welcome { version: 2, dtls_fingerprint: vec![0xee; 32], ..contract::Welcome::default() };
    world.input(Input::DataplaneUp { welcome, instance_changed: false });
    alice.sdp = browser(9000);
    audio(&mut bob, 9002, "0", false);
    bob.sdp += "m=video 0 RTP/AVP 96\r\n";
    let request = alice.founding(&[entry("bob")], "1", "");
    let answer = alice.invite(&mut world, request);
    assert_eq!(answer.code, 200);
    let taken = sdp_of(&answer.body);
    assert_eq!((taken.bundle(), taken.lines.len()), (vec![0, 1], 2));
    for line in &taken.lines {
        assert_eq!((&line.proto, line.setup), (&sdp::Proto::DtlsSavpf, Some(sdp::Setup::Passive)));
        assert_eq!(line.sha256_fingerprints(), [[0xee; 32]]);
        let ice = line.ice.as_ref().unwrap();
        assert!(ice.lite && ice.candidates[0].contains(&format!(" {} typ host", line.port)));
    }
    // One transport for both, which the tagged line alone speaks of.
    assert_eq!((taken.lines[0].port, &taken.lines[0].ice), (taken.lines[1].port, &taken.lines[1].ice));
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert_eq!([text.matches("a=ice-ufrag").count(), text.matches("a=rtcp-mux").count()], [1, 2]);
    world.pass(1);
    bob.answer(&mut world);
    world.settle();
    let (legs, _) = ordered(&world);
    let keyed: Vec<&contract::Leg> = legs
        .iter()
        .filter(|leg| matches!(&leg.kind, Some(leg::Kind::Rtp(rtp)) if rtp.bundle.is_some()))
        .collect();
    let [sound, picture] = keyed[..] else { panic!("{}", keyed.len()) };
    let rtp = |leg: &contract::Leg| match &leg.kind {
        Some(leg::Kind::Rtp(rtp)) => rtp.clone(),
        _ => panic!("an RTP leg"),
    };
    let (carrier, rider) = (rtp(sound), rtp(picture));
    assert!(carrier.dtls.is_some() && carrier.ice.is_some() && rider.dtls.is_none() && rider.ice.is_none());
    let of = |rtp: &contract::RtpLeg| {
        let bundle = rtp.bundle.as_deref().unwrap();
        (bundle.carrier, bundle.mid.clone(), bundle.payloads.clone())
    };
    assert_eq!([of(&carrier), of(&rider)], [(0, "0".into(), vec![0]), (sound.id, "1".into(), vec![96])]);
    assert!(legs.len() > 2, "and Bob's");
    let lost = |leg: &contract::Leg| {
        let reason = contract::leg_lost::Reason::IceFailed.into();
        news::What::LegLost(LegLost { leg: Some(leg.key()), reason })
    };
    let heard = |leg: &contract::Leg| {
        let counters = contract::LegCounters { leg: Some(leg.key()), idle_ms: 20, ..Default::default() };
        news::What::Counters(contract::Counters { legs: vec![counters] })
    };
    // Sound comes back before the picture goes: the session lives.
    for what in [lost(sound), heard(sound), lost(picture), heard(picture)] {
        tell(&mut world, what);
    }
    alice.take(&mut world);
    assert!(alice.byes.is_empty());
    for what in [lost(picture), lost(sound)] {
        tell(&mut world, what);
    }
    alice.take(&mut world);
    assert_eq!(alice.byes.len(), 1, "{:?}", alice.byes);
}
