//! A user whom a focus invites: passed on to one device, joined once and fanned out to several
//! (CPM-FACTS §2.8 "PF joins once").

use contract::{
    LegCounters, LegKey, LegLost, LegSet, Mode, News, Path, Pressure, change::Verb, leg_lost, news,
};
use sip::{Method, Name, Peer, Request, Transport};

use super::{BOB, BOB2, both, instance, phone};
use crate::testing::{Event, World, chat_sdp, reply, sdp_of, text, via};
use crate::{Input, ServerTx, Table};

/// The focus is a trusted neighbour here: to the Participating Function it makes no difference.
const FOCUS: Peer = Peer::new(
    Transport::Tcp,
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 9)), 5060),
);

fn world(devices: &[u16]) -> World {
    let mut config = World::new().config;
    config.identity.trusted_peers = vec![FOCUS.addr.ip()];
    let mut world = World::with(config);
    for port in devices {
        world.register("bob", phone(*port), &instance(*port));
    }
    world
}

fn invited(world: &mut World) -> ServerTx {
    let sdp = chat_sdp("192.0.2.100", 5000, "actpass");
    let list = "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"/>";
    let body = format!(
        "--xyz\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--xyz\r\nContent-Type: \
         application/resource-lists+xml\r\nContent-Disposition: recipient-list-history\r\n\r\n{list}\r\n--xyz--\r\n"
    );
    let request = text(&format!(
        "INVITE sip:bob@weir.example SIP/2.0\r\n{}From: <sip:grp-1@weir.example>;tag=g\r\n\
         To: <sip:bob@weir.example>\r\nCall-ID: g1\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:grp-1@127.0.0.9>;isfocus;+g.3gpp.iari-ref=\"x\"\r\nReferred-By: <sip:alice@weir.example>\r\n\
         P-Asserted-Identity: <sip:grp-1@weir.example>\r\nConversation-ID: k\r\nContribution-ID: b\r\n\
         Content-Type: multipart/mixed;boundary=xyz\r\nContent-Length: {}\r\n\r\n{body}",
        via(),
        body.len()
    ));
    world.send(FOCUS, request)
}

/// A request inside the dialog of a side, as its owner writes it from the INVITE that it got.
fn inside(method: &str, seq: u32, invite: &Request, tag: &str, extra: &str) -> Request {
    let h = |name: Name| invite.headers.text(&name).unwrap_or_default();
    text(&format!(
        "{method} sip:grp-1@weir.example SIP/2.0\r\n{}From: {};tag={tag}\r\nTo: {}\r\nCall-ID: {}\r\n\
         CSeq: {seq} {method}\r\nContact: <sip:me@127.0.0.1:9999>\r\n{extra}Content-Length: 0\r\n\r\n",
        via(),
        h(Name::To),
        h(Name::From),
        h(Name::CallId),
    ))
}

fn paths(world: &World) -> Vec<Path> {
    let puts = world.batches.iter().flat_map(|b| &b.changes).filter_map(|c| match &c.verb {
        Some(Verb::PutPath(path)) => Some(path.clone()),
        _ => None,
    });
    puts.collect()
}

#[test]
fn one_device_speaks_to_the_focus_itself() {
    let mut world = world(&[BOB]);
    let tx = invited(&mut world);
    let (client, invite) = world.request(phone(BOB), &Method::Invite);
    // The focus shows through: clients subscribe and come back to it (RFC 4579 §5.2).
    let contact = invite.headers.text(&Name::Contact).unwrap();
    assert!(contact.starts_with("<sip:grp-1@127.0.0.1:5060") && contact.contains(";isfocus"), "{contact}");
    assert_eq!(invite.headers.text(&Name::ReferredBy), Some("<sip:alice@weir.example>"));
    assert!(invite.headers.text(&Name::ContentType).unwrap().starts_with("multipart/mixed"));
    assert!(String::from_utf8_lossy(&invite.body).contains("192.0.2.100"), "SDP passes unchanged");
    world.reply(client, reply(&invite, 200, "b1", &chat_sdp("192.0.2.2", 5002, "active")));
    assert_eq!(world.code(tx), Some(200));
    assert!(world.batches.is_empty());
}

// REQ-PF-24.
#[test]
fn several_devices_are_joined_once() {
    let mut world = world(&both());
    let tx = invited(&mut world);
    let [(first, one), (second, two)] = both().map(|port| world.request(phone(port), &Method::Invite));
    for invite in [&one, &two] {
        let body = String::from_utf8_lossy(&invite.body).into_owned();
        assert!(!body.contains("192.0.2.100") && body.contains("recipient-list-history"), "{body}");
    }
    world.reply(first, reply(&one, 200, "b1", &chat_sdp("192.0.2.2", 5002, "active")));
    let answer = world.answer(tx).unwrap().clone();
    assert_eq!(answer.code, 200);
    assert!(sdp_of(&answer.body).lines[0].message().unwrap().path.contains("192.0.2.200"));
    // The other device answers too, and stays.
    world.reply(second, reply(&two, 200, "b2", &chat_sdp("192.0.2.3", 5003, "active")));
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Ack(_))));
    assert!(world.next(phone(BOB2)).is_none());
    let wired = paths(&world);
    let modes: Vec<_> = wired.iter().map(|p| (p.id, p.mode())).collect();
    assert_eq!(modes, [(1, Mode::Distribute), (2, Mode::Distribute)], "the second device joins the set");
    let near = |set: &Option<LegSet>| set.as_ref().unwrap().media.clone();
    assert_eq!(
        (near(&wired[0].targets), near(&wired[1].sources)),
        ("near-0".to_owned(), "near-0".to_owned())
    );
    assert_eq!(wired[1].targets.as_ref().unwrap().legs, wired[0].sources.as_ref().unwrap().legs);
    let row = world.rows(Table::Session)[0].record.clone();
    let crate::Record::Session(session) = row else { panic!() };
    assert!(session.fan_out && session.downstream.len() == 2);

    // A REFER of one device goes to the focus, and its NOTIFY comes back to that device.
    let refer = inside("REFER", 5, &two, "b2", "Refer-To: <sip:carol@weir.example;method=INVITE>\r\n");
    let tx = world.send(phone(BOB2), refer);
    let (client, passed) = world.request(FOCUS, &Method::Refer);
    assert_eq!(passed.headers.text(&Name::ReferTo), Some("<sip:carol@weir.example;method=INVITE>"));
    world.reply(client, passed.respond(202));
    assert_eq!(world.code(tx), Some(202));
    let notify = text(&format!(
        "NOTIFY sip:x@weir.example SIP/2.0\r\n{}From: <sip:grp-1@weir.example>;tag=g\r\nTo: {}\r\nCall-ID: g1\r\n\
         CSeq: 9 NOTIFY\r\nContact: <sip:grp-1@127.0.0.9>\r\nEvent: refer\r\nSubscription-State: active\r\n\
         Content-Length: 0\r\n\r\n",
        via(),
        answer.headers.text(&Name::To).unwrap()
    ));
    let tx = world.send(FOCUS, notify);
    let (client, notify) = world.request(phone(BOB2), &Method::Notify);
    world.reply(client, notify.respond(200));
    assert_eq!(world.code(tx), Some(200));

    // One device leaves; the user stays. Then the other one, and the focus hears of it.
    world.inbox.clear();
    let bye = inside("BYE", 6, &one, "b1", "Reason: SIP;cause=200;text=\"Call completed\"\r\n");
    world.send(phone(BOB), bye);
    assert!(world.next(FOCUS).is_none());
    world.restart();
    let bye = inside("BYE", 7, &two, "b2", "Reason: SIP;cause=200;text=\"Call completed\"\r\n");
    world.send(phone(BOB2), bye);
    let (_, bye) = world.request(FOCUS, &Method::Bye);
    assert!(bye.headers.text(&Name::Reason).unwrap().contains("cause=200"));
    assert!(world.rows(Table::Session).is_empty() && world.rows(Table::Context).is_empty());
}

#[test]
fn the_end_of_the_group_reaches_every_device_with_its_reason() {
    let mut world = world(&both());
    let tx = invited(&mut world);
    let [(first, one), (second, _)] = both().map(|port| world.request(phone(port), &Method::Invite));
    world.reply(first, reply(&one, 200, "b1", &chat_sdp("192.0.2.2", 5002, "active")));
    let answer = world.answer(tx).unwrap().clone();
    let bye = text(&format!(
        "BYE sip:x@weir.example SIP/2.0\r\n{}From: <sip:grp-1@weir.example>;tag=g\r\nTo: {}\r\nCall-ID: g1\r\n\
         CSeq: 2 BYE\r\nReason: SIP;cause=410;text=\"Gone\"\r\nContent-Length: 0\r\n\r\n",
        via(),
        answer.headers.text(&Name::To).unwrap()
    ));
    world.send(FOCUS, bye);
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    let (_, bye) = world.request(phone(BOB), &Method::Bye);
    assert!(bye.headers.text(&Name::Reason).unwrap().contains("cause=410"));
    // The device that still rang is called off.
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Cancel(t, _)) if t == second));
}

/// The end of the group, as the focus says it.
fn end_of_group(answer: &sip::Response) -> Request {
    text(&format!(
        "BYE sip:x@weir.example SIP/2.0\r\n{}From: <sip:grp-1@weir.example>;tag=g\r\nTo: {}\r\nCall-ID: g1\r\n\
         CSeq: 2 BYE\r\nReason: SIP;cause=410;text=\"Gone\"\r\nContent-Length: 0\r\n\r\n",
        via(),
        answer.headers.text(&Name::To).unwrap()
    ))
}

/// Both devices have joined, and the second one is behind: what it has not read yet waits on the data plane's disk. The focus
/// has ended the session.
fn one_is_behind() -> (World, Request, LegKey) {
    let mut config = World::new().config;
    config.identity.trusted_peers = vec![FOCUS.addr.ip()];
    config.participating.slow_max_s = 100;
    config.participating.idle_s = 20;
    let mut world = World::with(config);
    both().iter().for_each(|port| world.register("bob", phone(*port), &instance(*port)));
    let tx = invited(&mut world);
    let [(first, one), (second, two)] = both().map(|port| world.request(phone(port), &Method::Invite));
    world.reply(first, reply(&one, 200, "b1", &chat_sdp("192.0.2.2", 5002, "active")));
    let answer = world.answer(tx).unwrap().clone();
    world.reply(second, reply(&two, 200, "b2", &chat_sdp("192.0.2.3", 5003, "active")));
    let row = world.rows(Table::Session)[0].record.clone();
    let crate::Record::Session(session) = row else { panic!() };
    let of = |at: usize| LegKey::new(session.context, session.downstream[at].legs[0]);
    // The first one was for a moment.
    for (leg, on) in [(of(0), true), (of(1), true), (of(0), false)] {
        world.input(pressure(leg, on));
    }
    for port in both() {
        assert!(matches!(world.next(phone(port)), Some(Event::Ack(_))));
    }
    world.send(FOCUS, end_of_group(&answer));
    let (_, bye) = world.request(phone(BOB), &Method::Bye);
    assert!(bye.headers.text(&Name::Reason).unwrap().contains("cause=410"));
    assert!(world.next(phone(BOB2)).is_none(), "its bytes still wait");
    assert_eq!(super::session::contexts_removed(&world), 0);
    (world, two, of(1))
}

fn pressure(leg: LegKey, on: bool) -> Input {
    let what = Pressure { leg: Some(leg), on, waiting_bytes: 5, kept: true };
    Input::News(News { what: Some(news::What::Pressure(what)) })
}

fn lost(leg: LegKey, reason: leg_lost::Reason) -> Input {
    Input::News(News { what: Some(news::What::LegLost(LegLost { leg: Some(leg), reason: reason.into() })) })
}

// CPM-FACTS §7.3 F2: devices get their BYE after what was sent to them has gone out.
#[test]
fn a_device_that_is_behind_hears_of_the_end_when_it_has_read_all() {
    let (mut world, two, leg) = one_is_behind();
    world.pass(30);
    assert!(world.next(phone(BOB2)).is_none());
    // Nobody is left to whom anything of it could be passed on.
    let tx = world.send(phone(BOB2), inside("INFO", 6, &two, "b2", ""));
    assert_eq!(world.code(tx), Some(481));
    let tx = world.send(phone(BOB2), inside("UPDATE", 7, &two, "b2", ""));
    assert_eq!(world.code(tx), Some(200), "a refresh is answered here");
    // Its peer has long been silent, as who only reads is.
    let idle = |leg: &contract::Leg| LegCounters {
        leg: Some(leg.key()),
        idle_ms: 1_000_000,
        ..LegCounters::default()
    };
    let legs = super::legs(&world).iter().map(idle).collect();
    world.input(Input::News(News { what: Some(news::What::Counters(contract::Counters { legs })) }));
    assert!(world.next(phone(BOB2)).is_none());
    world.input(pressure(leg, false));
    let (_, bye) = world.request(phone(BOB2), &Method::Bye);
    assert!(bye.headers.text(&Name::Reason).unwrap().contains("cause=410"));
    assert_eq!(super::session::contexts_removed(&world), 1);
    assert!(world.rows(Table::Session).is_empty() && world.rows(Table::Context).is_empty());
}

#[test]
fn nobody_waits_for_ever_for_a_device_that_is_behind() {
    let (mut world, ..) = one_is_behind();
    world.pass(101);
    let (_, bye) = world.request(phone(BOB2), &Method::Bye);
    assert!(bye.headers.text(&Name::Reason).unwrap().contains("cause=410"));
    assert!(world.rows(Table::Session).is_empty() && super::session::contexts_removed(&world) == 1);
}

#[test]
fn a_device_that_is_behind_may_hang_up_or_be_lost() {
    let (mut world, two, _) = one_is_behind();
    world.send(phone(BOB2), inside("BYE", 6, &two, "b2", ""));
    assert!(world.rows(Table::Session).is_empty() && super::session::contexts_removed(&world) == 1);
    for reason in [leg_lost::Reason::Reset, leg_lost::Reason::Slow] {
        let (mut world, _, leg) = one_is_behind();
        world.input(lost(leg, reason));
        world.request(phone(BOB2), &Method::Bye);
        assert!(world.rows(Table::Session).is_empty() && super::session::contexts_removed(&world) == 1);
    }
}

// One device's slowness is never another's.
#[test]
fn a_device_that_is_cut_loose_goes_alone() {
    let mut world = world(&both());
    let tx = invited(&mut world);
    let [(first, one), (second, two)] = both().map(|port| world.request(phone(port), &Method::Invite));
    world.reply(first, reply(&one, 200, "b1", &chat_sdp("192.0.2.2", 5002, "active")));
    assert_eq!(world.code(tx), Some(200));
    world.reply(second, reply(&two, 200, "b2", &chat_sdp("192.0.2.3", 5003, "active")));
    let row = world.rows(Table::Session)[0].record.clone();
    let crate::Record::Session(session) = row else { panic!() };
    let leg = LegKey::new(session.context, session.downstream[1].legs[0]);
    world.inbox.clear();
    world.input(lost(leg, leg_lost::Reason::Slow));
    let (_, bye) = world.request(phone(BOB2), &Method::Bye);
    assert!(bye.headers.text(&Name::Reason).unwrap().contains("Too slow"));
    assert!(world.next(phone(BOB)).is_none() && world.next(FOCUS).is_none());
    assert_eq!(world.rows(Table::Session).len(), 1);
}
