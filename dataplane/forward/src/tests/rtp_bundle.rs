//! Lines that share one transport (RFC 9143): told apart by MID, SSRC and payload type; one ICE, one handshake, one socket.

use contract::change::Verb;
use contract::{Bundle, Direction, Leg, Mode, from_dataplane::Body, refusal::Reason};
use rtp::{Block, RtcpWriter, RtpView, SenderInfo};

use super::browser::*;
use super::rig::*;
use crate::{Drop, Limits, SocketId};

/// What the browser calls the element for the MID.
const MID_ID: u8 = 9;
/// Payload types of the two lines.
const AUDIO: u8 = 0;
const VIDEO: u8 = 96;

fn bundle(carrier: u64, mid: &str, payload: u8) -> Option<Box<Bundle>> {
    Some(Box::new(Bundle {
        carrier,
        mid: mid.into(),
        mid_id: MID_ID.into(),
        payloads: vec![payload.into()],
        ..Bundle::default()
    }))
}

/// The browser's audio, whose transport it is.
fn audio(browser: &Browser) -> Leg {
    edit(browser.leg(), |rtp| rtp.bundle = bundle(0, "a", AUDIO))
}

/// Its video, leg 2, on the same transport.
fn video() -> Leg {
    edit(rtp_leg(2), |rtp| (rtp.remote, rtp.bundle) = (None, bundle(1, "v", VIDEO)))
}

fn announced(leg: Leg, ssrcs: &[u32]) -> Leg {
    edit(leg, |rtp| rtp.bundle.as_mut().unwrap().ssrcs = ssrcs.to_vec())
}

/// A browser with two lines, legs 1 and 2, and two plain phones: leg 3 for its audio, leg 4 for its video.
fn put(browser: &Browser, video: Leg) -> Rig {
    put_in(Rig::new(), browser, video)
}

fn put_in(mut rig: Rig, browser: &Browser, video: Leg) -> Rig {
    let relay = |id, from, to| path(id, Mode::Relay, &[from], &[to]);
    let placements = rig.set(
        vec![video, audio(browser), rtp_leg(3), rtp_leg(4)],
        vec![relay(1, 1, 3), relay(2, 3, 1), relay(3, 2, 4), relay(4, 4, 2)],
    );
    let at = |leg| placements.iter().find(|p| p.leg == leg).unwrap().at.clone();
    assert_eq!(at(1), at(2), "one port");
    rig
}

fn connected() -> (Browser, Edge, Rig) {
    connected_with(video())
}

fn connected_with(video: Leg) -> (Browser, Edge, Rig) {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = put(&browser, video);
    browser.connect(&mut rig, &mut edge);
    assert!(browser.is_connected());
    (browser, edge, rig)
}

fn media(ssrc: u32, sequence: u16, payload_type: u8) -> Vec<u8> {
    packet(ssrc, sequence, 160, payload_type, &[1; 60])
}

fn with_mid(mut packet: Vec<u8>, id: u8, mid: &str) -> Vec<u8> {
    let length = packet.len();
    packet.resize(length + 300, 0);
    let length = rtp::add_element(&mut packet, length, id, mid.as_bytes()).unwrap();
    packet.truncate(length);
    packet
}

/// Where a packet of the browser goes.
fn led(rig: &mut Rig, browser: &mut Browser, clear: &[u8]) -> Vec<SocketId> {
    let wire = browser.says(clear);
    sockets(&rig.hear_peer(1, &wire))
}

fn reported(rig: &mut Rig, browser: &mut Browser, clear: &RtcpWriter) -> Vec<(SocketId, Vec<u8>)> {
    let wire = browser.reports(clear.octets());
    let done = rig.hear_peer(1, &wire);
    sent(&done).into_iter().map(|(to, bytes)| (to, bytes.to_vec())).collect()
}

// RFC 9143 §9.2.
#[test]
fn a_packet_is_told_by_its_mid_then_its_ssrc_then_its_payload_type() {
    let (mut browser, _edge, mut rig) = connected_with(announced(video(), &[70]));
    for (clear, to) in [
        (media(60, 1, AUDIO), Some(3)),
        (media(61, 1, VIDEO), Some(4)),
        // A payload type of nobody: announced, named, and known from then on.
        (media(70, 1, 5), Some(4)),
        (with_mid(media(50, 1, 5), MID_ID, "v"), Some(4)),
        (media(50, 2, 5), Some(4)),
        (media(51, 1, 5), None),
        // The MID comes before what was known and before the payload type.
        (with_mid(media(60, 2, AUDIO), MID_ID, "v"), Some(4)),
        (with_mid(media(61, 2, VIDEO), MID_ID, "a"), Some(3)),
        (media(61, 3, VIDEO), Some(3)),
        // Another element than the agreed one says nothing.
        (with_mid(media(62, 1, AUDIO), 8, "v"), Some(3)),
    ] {
        assert_eq!(led(&mut rig, &mut browser, &clear), to.map(socket).into_iter().collect::<Vec<_>>());
    }
    assert_eq!(rig.engine.dropped(Drop::Bundle), 1);
    rig.check_sum();
}

#[test]
fn both_lines_are_spoken_to_over_one_socket_with_one_key() {
    let (mut browser, _edge, mut rig) = connected();
    for (from, clear) in [(3, media(7, 1, AUDIO)), (4, media(8, 1, VIDEO))] {
        let done = rig.hear_peer(from, &clear);
        let [(to, wire)] = sent(&done)[..] else { panic!("{done:?}") };
        assert_eq!((to, browser.hears(wire)), (socket(1), clear));
    }
    assert_eq!(rig.engine.totals().handshakes, 1);
    // Where the peer goes, all lines go.
    rig.pass(100);
    let new = addr("203.0.113.8:8");
    let check = browser.check(true);
    rig.datagram(socket(1), new, &check);
    let wire = browser.says(&media(61, 1, VIDEO));
    let done = rig.datagram(socket(1), new, &wire);
    assert_eq!((sockets(&done), aimed(&done, socket(1))), (vec![socket(4)], Some(Some(new))));
    assert_eq!(sockets(&rig.hear_peer(4, &media(8, 2, VIDEO))), [socket(1)]);
    rig.check_sum();
}

// Hostile.
#[test]
fn mids_of_nobody_lead_nowhere_and_an_ssrc_is_his_who_named_it_last() {
    let (mut browser, _edge, mut rig) = connected();
    assert_eq!(led(&mut rig, &mut browser, &media(60, 1, AUDIO)), [socket(3)]);
    let long = "v".repeat(17);
    let longest = "v".repeat(255);
    let nobodys = ["x", "av", "V", long.as_str(), longest.as_str()];
    for (sequence, mid) in (2..).zip(nobodys) {
        // Even where its SSRC is known.
        assert!(led(&mut rig, &mut browser, &with_mid(media(60, sequence, AUDIO), MID_ID, mid)).is_empty());
    }
    // Two-byte form, without an octet.
    let mut empty = vec![0x90, AUDIO, 0, 20, 0, 0, 0, 160, 0, 0, 0, 60, 0x10, 0, 0, 1, MID_ID, 0, 0, 0];
    empty.extend([1; 60]);
    assert!(led(&mut rig, &mut browser, &empty).is_empty());
    assert_eq!(rig.engine.dropped(Drop::Bundle), nobodys.len() as u64 + 1);
    for (sequence, mid, to) in [(30, "a", 3), (32, "v", 4), (34, "a", 3)] {
        let clear = with_mid(media(90, sequence, 5), MID_ID, mid);
        assert_eq!(led(&mut rig, &mut browser, &clear), [socket(to)]);
        assert_eq!(led(&mut rig, &mut browser, &media(90, sequence + 1, 5)), [socket(to)]);
    }
    // Ever other SSRCs take no room for ever, and what was announced stays known.
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let rig = Rig::with(Limits { sockets_max: 256, leg_sources_max: 4, ..Limits::default() });
    let mut rig = put_in(rig, &browser, announced(video(), &[70]));
    browser.connect(&mut rig, &mut edge);
    // A table of nine.
    for ssrc in 1000..1024 {
        led(&mut rig, &mut browser, &with_mid(media(ssrc, 1, 5), MID_ID, "a"));
    }
    assert_eq!(led(&mut rig, &mut browser, &media(70, 1, 5)), [socket(4)]);
    rig.check_sum();
}

// Announced for two lines it tells neither.
#[test]
fn an_ssrc_announced_for_two_lines_is_told_by_what_its_packets_say() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let mut rig = put(&browser, announced(video(), &[70]));
    rig.put(vec![put_leg(announced(audio(&browser), &[70]))]);
    browser.connect(&mut rig, &mut edge);
    assert!(led(&mut rig, &mut browser, &media(70, 1, 5)).is_empty());
    assert_eq!(led(&mut rig, &mut browser, &media(70, 2, AUDIO)), [socket(3)]);
}

#[test]
fn nothing_that_does_not_open_changes_whose_an_ssrc_is() {
    let (mut browser, _edge, mut rig) = connected();
    assert_eq!(led(&mut rig, &mut browser, &media(60, 1, AUDIO)), [socket(3)]);
    for forged in [with_mid(media(60, 2, AUDIO), MID_ID, "v"), with_mid(media(60, 3, 5), MID_ID, "x")] {
        assert!(rig.hear_peer(1, &forged).is_empty());
    }
    assert_eq!(rig.engine.dropped(Drop::SrtpUnauthentic), 2);
    assert_eq!(led(&mut rig, &mut browser, &media(60, 4, 5)), [socket(3)]);
}

// RFC 9143 §9.2: RTCP by its SSRCs, feedback by its target.
#[test]
fn rtcp_goes_to_the_leg_that_it_speaks_of() {
    let (mut browser, _edge, mut rig) = connected();
    led(&mut rig, &mut browser, &media(60, 1, AUDIO));
    led(&mut rig, &mut browser, &media(61, 1, VIDEO));
    rig.hear_peer(3, &media(7, 1, AUDIO));
    rig.hear_peer(4, &media(8, 1, VIDEO));
    let block = |ssrc| Block { ssrc, ..Block::default() };
    // One report about both: each leg has its own block.
    let info = SenderInfo { ssrc: 61, ntp: 1, timestamp: 2, packets: 3, octets: 4 };
    let mut writer = RtcpWriter::new();
    writer.sender(&info, &[block(7), block(8)]).description([(61, "x")].into_iter());
    let mut out = reported(&mut rig, &mut browser, &writer);
    out.sort();
    let mut voice = RtcpWriter::new();
    voice.receiver(61, &[block(7)]);
    let mut pictures = RtcpWriter::new();
    pictures.sender(&info, &[block(8)]).description([(61, "x")].into_iter());
    assert_eq!(out, [(socket(3), voice.octets().to_vec()), (socket(4), pictures.octets().to_vec())]);
    // Feedback by its target, whoever speaks.
    for (target, to) in [(7, 3), (8, 4)] {
        let mut writer = RtcpWriter::new();
        writer.picture_loss(60, target);
        assert_eq!(reported(&mut rig, &mut browser, &writer), [(socket(to), writer.octets().to_vec())]);
        let mut writer = RtcpWriter::new();
        writer.full_intra(60, target, 1);
        assert_eq!(reported(&mut rig, &mut browser, &writer), [(socket(to), writer.octets().to_vec())]);
    }
    let mut writer = RtcpWriter::new();
    writer.receiver(1, &[block(8)]).bye(&[60]);
    let mut out = reported(&mut rig, &mut browser, &writer);
    out.sort();
    assert_eq!(out.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [socket(3), socket(4)]);
    // Of nobody, and about nobody.
    let before = rig.engine.dropped(Drop::Bundle);
    let mut foreign: [RtcpWriter; 4] = std::array::from_fn(|_| RtcpWriter::new());
    foreign[0].receiver(999, &[block(998)]);
    foreign[1].picture_loss(60, 998);
    foreign[2].bye(&[999]);
    foreign[3].sender(&SenderInfo { ssrc: 999, ..info }, &[]);
    for writer in &foreign {
        assert!(reported(&mut rig, &mut browser, writer).is_empty());
    }
    assert_eq!(rig.engine.dropped(Drop::Bundle), before + 4);
    rig.check_sum();
}

#[test]
fn the_mid_is_written_where_the_peer_needs_it() {
    let (mut browser, mut edge) = (Browser::new(1), Edge::new());
    let writing = |leg| edit(leg, |rtp| rtp.bundle.as_mut().unwrap().writes_mid = true);
    let mut rig = put(&browser, writing(video()));
    rig.put(vec![put_leg(writing(audio(&browser)))]);
    browser.connect(&mut rig, &mut edge);
    for (from, mid, clear) in [
        (3, "a", media(7, 1, AUDIO)),
        (4, "v", media(8, 1, VIDEO)),
        (4, "v", with_mid(media(8, 2, VIDEO), 3, "kept")),
    ] {
        let done = rig.hear_peer(from, &clear);
        let [(_, wire)] = sent(&done)[..] else { panic!("{done:?}") };
        let heard = browser.hears(wire);
        let (heard, clear) = (RtpView::parse(&heard).unwrap(), RtpView::parse(&clear).unwrap());
        assert_eq!(heard.elements().element(MID_ID), Some(mid.as_bytes()));
        assert_eq!(heard.elements().element(3), clear.elements().element(3));
        assert_eq!((heard.payload(), heard.sequence()), (clear.payload(), clear.sequence()));
    }
}

#[test]
fn a_transport_stays_as_long_as_one_rides_on_it_and_goes_with_the_last() {
    let (mut browser, mut edge, mut rig) = connected();
    let generation = rig.generation;
    let (body, done) = rig.batch(vec![Verb::RemoveLeg(key(1))]);
    assert!(matches!(&body, Body::Refusal(r) if r.reason() == Reason::BadLeg), "{body:?}");
    assert!(done.is_empty() && rig.generation > generation);
    assert_eq!(led(&mut rig, &mut browser, &media(61, 1, VIDEO)), [socket(4)]);
    // Its line ends, its transport is needed on.
    let bare = edit(directed(audio(&browser), Direction::Inactive), |rtp| {
        let bundle = rtp.bundle.as_mut().unwrap();
        (bundle.mid, bundle.payloads) = (String::new(), Vec::new());
    });
    rig.put(vec![put_leg(bare)]);
    assert_eq!(led(&mut rig, &mut browser, &media(61, 2, VIDEO)), [socket(4)]);
    assert!(led(&mut rig, &mut browser, &with_mid(media(60, 1, AUDIO), MID_ID, "a")).is_empty());
    let done = rig.put(vec![Verb::RemoveLeg(key(2)), Verb::RemoveLeg(key(1))]);
    let closed: Vec<_> = done.iter().filter(|d| matches!(d, Done::Closed(_))).collect();
    assert!(matches!(closed[..], [Done::Closed(s)] if *s == socket(1)), "{closed:?}");
    let before = edge.ended;
    edge.run(&mut rig, done);
    assert_eq!(edge.ended, before + 1);
}

#[test]
fn a_line_leaves_and_comes_back_and_its_transport_goes_on() {
    let (mut browser, mut edge, mut rig) = connected();
    let done = rig.put(vec![Verb::RemoveLeg(key(2))]);
    assert!(!done.iter().any(|d| matches!(d, Done::Closed(_))), "{done:?}");
    assert_eq!(led(&mut rig, &mut browser, &media(60, 1, AUDIO)), [socket(3)]);
    assert!(led(&mut rig, &mut browser, &media(61, 1, VIDEO)).is_empty());
    let relay = |id, from, to| put_path(path(id, Mode::Relay, &[from], &[to]));
    rig.put(vec![put_leg(video()), relay(3, 2, 4), relay(4, 4, 2)]);
    assert_eq!(led(&mut rig, &mut browser, &media(61, 2, VIDEO)), [socket(4)]);
    assert_eq!(sockets(&rig.hear_peer(4, &media(8, 1, VIDEO))), [socket(1)]);
    // A port of its own, in clear, and back.
    let done = rig.put(vec![put_leg(rtp_leg(2))]);
    assert!(!done.iter().any(|d| matches!(d, Done::Closed(_))), "{done:?}");
    assert_eq!(sockets(&rig.hear_peer(2, &media(5, 1, VIDEO))), [socket(4)]);
    assert_eq!(sockets(&rig.hear_peer(4, &media(8, 2, VIDEO))), [socket(2)]);
    let done = rig.put(vec![put_leg(video())]);
    assert!(done.iter().any(|d| matches!(d, Done::Closed(s) if *s == socket(2))), "{done:?}");
    assert_eq!(sockets(&rig.hear_peer(4, &media(8, 3, VIDEO))), [socket(1)]);
    // Without keys nothing leaves, in clear least of all.
    let id = edge.last().unwrap();
    let done = rig.input(crate::Input::Dtls { id, word: crate::DtlsWord::Closed });
    edge.run(&mut rig, done);
    assert!(
        rig.hear_peer(4, &media(8, 4, VIDEO)).is_empty() && rig.hear_peer(3, &media(7, 4, AUDIO)).is_empty()
    );
    let done = rig.put(vec![Verb::RemoveLeg(key(1)), Verb::RemoveLeg(key(2))]);
    assert!(sent(&done).is_empty());
    rig.check_sum();
}

#[test]
fn what_cannot_share_a_transport_is_refused() {
    type Change = fn(&mut contract::RtpLeg);
    let riders: [Change; 13] = [
        |rtp| rtp.rtcp_mux = false,
        |rtp| rtp.srtp = Some(Box::default()),
        |rtp| rtp.dtls = Some(Box::default()),
        |rtp| rtp.bundle.as_mut().unwrap().carrier = 2,
        |rtp| rtp.bundle.as_mut().unwrap().carrier = 3,
        |rtp| rtp.bundle.as_mut().unwrap().carrier = 9,
        |rtp| rtp.bundle.as_mut().unwrap().carrier = 0,
        |rtp| rtp.bundle.as_mut().unwrap().mid = "a".into(),
        |rtp| rtp.bundle.as_mut().unwrap().mid = "seventeen-octets-".into(),
        |rtp| rtp.bundle.as_mut().unwrap().mid = "v w".into(),
        |rtp| rtp.bundle.as_mut().unwrap().mid_id = 256,
        |rtp| rtp.bundle.as_mut().unwrap().payloads = vec![128],
        |rtp| rtp.bundle.as_mut().unwrap().ssrcs = vec![1; 33],
    ];
    for change in riders {
        let browser = Browser::new(1);
        let mut rig = put(&browser, video());
        let (body, _) = rig.batch(vec![put_leg(edit(video(), change))]);
        assert!(
            matches!(&body, Body::Refusal(r) if matches!(r.reason(), Reason::BadLeg | Reason::NoPort)),
            "{body:?}"
        );
    }
    let browser = Browser::new(1);
    let mut rig = put(&browser, video());
    let (body, _) = rig.batch(vec![put_leg(edit(audio(&browser), |rtp| rtp.dtls = None))]);
    assert!(matches!(&body, Body::Refusal(r) if r.reason() == Reason::BadLeg), "{body:?}");
}

/// What comes of all lines in one datagram is policed as a whole: work is not done before it is known to be allowed.
#[test]
fn rtcp_of_a_shared_transport_is_policed_before_it_is_taken_apart() {
    let of = |kbps: u32| {
        let (mut browser, mut edge) = (Browser::new(1), Edge::new());
        let narrow = |leg| edit(leg, |rtp| rtp.bandwidth_kbps = kbps);
        let mut rig = put(&browser, narrow(video()));
        rig.put(vec![put_leg(narrow(audio(&browser)))]);
        browser.connect(&mut rig, &mut edge);
        let mut writer = RtcpWriter::new();
        writer.receiver(60, &[]);
        for n in 0..60 {
            writer.picture_loss(60, 9000 + n);
        }
        for _ in 0..200 {
            let wire = browser.reports(writer.octets());
            rig.hear_peer(1, &wire);
        }
        rig.engine.dropped(Drop::Bandwidth)
    };
    assert_eq!(of(0), 0);
    assert!(of(64) > 100, "feedback that speaks of no leg's streams is no leg's to police");
}
