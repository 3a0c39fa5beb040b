//! The reg event, as both ends: served for those who register here, and watched at an S-CSCF (RFC 3680, RFC 6665).

use cpm::reginfo::{RegInfo, State};
use sip::typed::{Event as EventHeader, SubscriptionState, Substate};
use sip::{Method, Name, Peer, Request, Transport};

use crate::testing::{Event, World, peer, request, text, via};
use crate::{ClientTx, ServerTx, Table};

const PHONE: &str = "urn:uuid:00000000-0000-1000-8000-000000000007";
const OTHER: &str = "urn:uuid:00000000-0000-1000-8000-000000000008";
const BOB: u16 = 7101;

fn scscf() -> Peer {
    Peer::new(Transport::Udp, ([10, 0, 0, 9], 5060).into())
}

fn world() -> World {
    let mut world = World::configured(|config| {
        config.identity.trusted_peers = vec![scscf().addr.ip()];
        config.ims.reg_event = true;
    });
    world.register("bob", peer(BOB), PHONE);
    world
}

fn subscribe(from: &str, id: &str, extra: &str) -> Request {
    let extra = format!("Event: reg\r\n{extra}");
    request("SUBSCRIBE", from, "bob", id, &extra, "", "")
}

fn document(notify: &Request) -> RegInfo {
    RegInfo::read(&notify.body, &cpm::Limits::default()).unwrap()
}

fn state(notify: &Request) -> SubscriptionState {
    notify.headers.must::<SubscriptionState>().unwrap()
}

/// Bob has subscribed, and has his first NOTIFY.
fn subscribed(world: &mut World) -> (sip::Response, ClientTx, Request) {
    let tx = world.send(peer(BOB), subscribe("bob", "s1", "Expires: 600\r\n"));
    let ok = world.answer(tx).unwrap().clone();
    assert_eq!((ok.code, ok.headers.text(&Name::Expires)), (200, Some("600")));
    let (client, notify) = world.request(peer(BOB), &Method::Notify);
    (ok, client, notify)
}

/// A SUBSCRIBE in the dialog.
fn again(world: &mut World, ok: &sip::Response, seq: u32, expires: u32) -> ServerTx {
    let mut next = crate::participating::tests::session::inside("SUBSCRIBE", seq, ok, true, "");
    next.headers.push(Name::Event, "reg");
    next.headers.push(Name::Expires, expires.to_string());
    world.send(peer(BOB), next)
}

#[test]
fn rfc3680_s4_a_subscriber_hears_of_all_his_devices_and_of_each_change() {
    let mut world = world();
    let (_, client, notify) = subscribed(&mut world);
    let first = document(&notify);
    assert!(first.full && first.version == 0 && first.registrations[0].aor == "sip:bob@weir.example");
    let contact = &first.registrations[0].contacts[0];
    assert!(contact.params.contains(&("+sip.instance".into(), format!("\"<{PHONE}>\""))));
    assert!(contact.params.iter().any(|(name, _)| name == "+g.3gpp.icsi-ref"), "REQ-PF-32 (c)");
    assert_eq!(contact.pub_gruu, Some(format!("sip:bob@weir.example;gr={PHONE}")));
    assert_eq!((state(&notify).state, state(&notify).expires()), (Substate::Active, Some(600)));
    // Another phone comes while the first NOTIFY is on its way: one more, afterwards.
    world.register("bob", peer(7102), OTHER);
    assert!(world.next(peer(BOB)).is_none(), "one at a time");
    world.reply(client, notify.respond(200));
    let (client, notify) = world.request(peer(BOB), &Method::Notify);
    let second = document(&notify);
    assert_eq!((second.version, second.registrations[0].contacts.len()), (1, 2));
    world.reply(client, notify.respond(200));
    // Both go: they are in the last document, and what has happened to them.
    let tx = world.send(peer(7102), text(&format!(
        "REGISTER sip:weir.example SIP/2.0\r\n{}From: <sip:bob@weir.example>;tag=r\r\nTo: <sip:bob@weir.example>\r\n\
         Call-ID: reg-bob-7102\r\nCSeq: 9 REGISTER\r\nContact: *\r\nExpires: 0\r\nContent-Length: 0\r\n\r\n",
        via()
    )));
    let challenge = world.answer(tx).unwrap().clone();
    let mut gone = text(&format!(
        "REGISTER sip:weir.example SIP/2.0\r\n{}From: <sip:bob@weir.example>;tag=r\r\nTo: <sip:bob@weir.example>\r\n\
         Call-ID: reg-bob-7102\r\nCSeq: 9 REGISTER\r\nContact: *\r\nExpires: 0\r\nContent-Length: 0\r\n\r\n",
        via()
    ));
    crate::testing::authorize(&mut gone, &challenge, "bob", "secret");
    let tx = world.send(peer(7102), gone);
    assert_eq!(world.code(tx), Some(200));
    let (_, notify) = world.request(peer(BOB), &Method::Notify);
    let last = document(&notify);
    assert_eq!(last.registrations[0].state, State::Terminated);
    assert!(last.registrations[0].contacts.iter().all(|c| !c.active && c.event == "unregistered"));
    assert_eq!(last.registrations[0].contacts.len(), 2);
}

#[test]
fn rfc6665_s4_refreshed_ended_by_the_subscriber_and_by_time() {
    let mut world = world();
    let (ok, client, notify) = subscribed(&mut world);
    world.reply(client, notify.respond(200));
    world.pass(500);
    let refreshed = again(&mut world, &ok, 2, 600);
    assert_eq!(world.code(refreshed), Some(200));
    let (client, notify) = world.request(peer(BOB), &Method::Notify);
    assert_eq!(document(&notify).version, 1);
    world.reply(client, notify.respond(200));
    world.pass(599);
    assert!(world.next(peer(BOB)).is_none());
    let ended = again(&mut world, &ok, 3, 0);
    assert_eq!(world.code(ended), Some(200));
    let (_, notify) = world.request(peer(BOB), &Method::Notify);
    assert_eq!(state(&notify).reason(), Some("timeout"));
    let late = again(&mut world, &ok, 4, 600);
    assert_eq!(world.code(late), Some(481));
    // Time does the same.
    let (_, client, notify) = subscribed(&mut world);
    world.reply(client, notify.respond(200));
    world.pass(601);
    let (_, notify) = world.request(peer(BOB), &Method::Notify);
    assert_eq!((state(&notify).state, state(&notify).reason()), (Substate::Terminated, Some("timeout")));
}

#[test]
fn rfc6665_s4_2_a_notify_that_is_refused_or_not_answered_ends_it() {
    for answered in [true, false] {
        let mut world = world();
        let (ok, client, notify) = subscribed(&mut world);
        if answered {
            world.reply(client, notify.respond(481));
        } else {
            world.expire(client);
        }
        let late = again(&mut world, &ok, 2, 600);
        assert_eq!(world.code(late), Some(481));
    }
}

#[test]
fn rfc3680_s4_5_only_the_user_himself_and_trusted_neighbours_may() {
    let mut world = world();
    world.register("alice", peer(7001), OTHER);
    let tx = world.send(peer(7001), subscribe("alice", "s1", ""));
    assert_eq!(world.code(tx), Some(403));
    let tx = world.send(peer(7009), subscribe("bob", "s2", ""));
    assert_eq!(world.code(tx), Some(407), "whoever says that he is Bob");
    let tx = world.send(scscf(), subscribe("server", "s3", ""));
    assert_eq!(world.code(tx), Some(200));
    let (_, notify) = world.request(scscf(), &Method::Notify);
    assert_eq!(document(&notify).registrations[0].contacts.len(), 1);
}

#[test]
fn malformed_and_excessive_subscriptions_are_refused() {
    let mut world = World::configured(|config| config.limits.reg_events_per_user_max = 2);
    world.register("bob", peer(BOB), PHONE);
    for (n, (extra, code)) in [
        ("Accept: text/plain\r\n", 406),
        ("Expires: 5\r\n", 423),
        ("Expires: soon\r\n", 400),
        ("Expires: 600\r\n", 200),
        ("Expires: 600\r\n", 200),
        ("Expires: 600\r\n", 503),
    ]
    .into_iter()
    .enumerate()
    {
        let tx = world.send(peer(BOB), subscribe("bob", &format!("s{n}"), extra));
        assert_eq!(world.code(tx), Some(code), "{extra}");
    }
    let other = request("SUBSCRIBE", "bob", "bob", "p1", "Event: dialog\r\n", "", "");
    let tx = world.send(peer(BOB), other);
    let refused = world.answer(tx).unwrap();
    assert_eq!(
        (refused.code, refused.headers.text(&Name::AllowEvents)),
        (489, Some("conference, reg, presence"))
    );
}

/// Carol registers at the S-CSCF; its answer to our SUBSCRIBE is still to come.
fn watched(world: &mut World) -> (ClientTx, Request) {
    let told = text(&format!(
        "REGISTER sip:weir.example SIP/2.0\r\n{}From: <sip:scscf.weir.example>;tag=s\r\nTo: <sip:carol@weir.example>\r\n\
         Call-ID: r1\r\nCSeq: 1 REGISTER\r\nContact: <sip:10.0.0.9:5060>\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n",
        via()
    ));
    let tx = world.send(scscf(), told);
    assert_eq!(world.code(tx), Some(200));
    world.request(scscf(), &Method::Subscribe)
}

fn ok_of(subscribe: &Request) -> sip::Response {
    let mut ok = subscribe.respond(200);
    ok.set_to_tag("s9");
    ok.headers.push(Name::Contact, "<sip:10.0.0.9:5060>");
    ok.headers.push(Name::Expires, "600");
    ok
}

/// A NOTIFY of the S-CSCF.
fn notify(subscribe: &Request, seq: u32, state: &str, kind: &str, body: &str) -> Request {
    let h = |name| subscribe.headers.text(&name).unwrap_or_default();
    text(&format!(
        "NOTIFY sip:weir.example SIP/2.0\r\n{}From: {};tag=s9\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {seq} NOTIFY\r\n\
         Contact: <sip:10.0.0.9:5060>\r\nEvent: reg\r\nSubscription-State: {state}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        via(),
        h(Name::To),
        h(Name::From),
        subscribe.call_id().unwrap(),
        body.len()
    ))
}

fn reginfo(version: u32, how: &str, contacts: &[(&str, &str)]) -> String {
    let contacts: String = contacts
        .iter()
        .map(|(instance, state)| {
            format!(
                "<contact id='{instance}' state='{state}' event='registered' expires='600'><uri>sip:c@10.0.0.50</uri>\
                 <unknown-param name='+sip.instance'>\"&lt;{instance}&gt;\"</unknown-param></contact>"
            )
        })
        .collect();
    format!(
        "<reginfo xmlns='urn:ietf:params:xml:ns:reginfo' version='{version}' state='{how}'>\
         <registration aor='sip:carol@weir.example' id='a' state='active'>{contacts}</registration></reginfo>"
    )
}

const KIND: &str = "application/reginfo+xml";

fn instances(world: &World) -> Vec<String> {
    let rows = world.rows(Table::Binding).into_iter();
    let mut all: Vec<String> = rows
        .filter_map(|row| match &row.record {
            crate::Record::Binding(b) if b.user.as_str().contains("carol") => {
                Some(b.instance.as_ref().map(|i| i.expose().clone()).unwrap_or_default())
            }
            _ => None,
        })
        .collect();
    all.sort();
    all
}

#[test]
fn ts24229_s5_7_1_1_we_watch_whom_an_scscf_has_registered() {
    let mut world = world();
    let (client, subscribe) = watched(&mut world);
    assert_eq!(subscribe.uri.to_string(), "sip:carol@weir.example");
    assert_eq!(subscribe.headers.text(&Name::Route), Some("<sip:10.0.0.9:5060;lr>"));
    assert_eq!(subscribe.headers.must::<EventHeader>().unwrap().package, "reg");
    assert_eq!(subscribe.headers.text(&Name::Accept), Some(KIND));
    // RFC 6665 §4.1.2.4: the NOTIFY is faster than the 2xx.
    let full = reginfo(0, "full", &[(PHONE, "active"), (OTHER, "active")]);
    let tx = world.send(scscf(), notify(&subscribe, 1, "active;expires=600", KIND, &full));
    assert_eq!(world.code(tx), Some(200));
    world.reply(client, ok_of(&subscribe));
    assert_eq!(
        instances(&world),
        [format!("<{PHONE}>"), format!("<{OTHER}>")],
        "and the nameless one is gone"
    );
    // What has changed only.
    let partial = reginfo(1, "partial", &[(PHONE, "terminated")]);
    let tx = world.send(scscf(), notify(&subscribe, 2, "active;expires=600", KIND, &partial));
    assert_eq!((world.code(tx), instances(&world)), (Some(200), vec![format!("<{OTHER}>")]));
    // It is refreshed at half of its time.
    world.pass(301);
    let (client, next) = world.request(scscf(), &Method::Subscribe);
    assert_eq!((next.to_tag().as_deref(), next.cseq().unwrap().seq), (Some("s9"), 2));
    world.reply(client, ok_of(&next));
}

#[test]
fn rfc3680_s5_2_old_versions_are_left_alone_and_a_gap_is_asked_for() {
    let mut world = world();
    let (client, subscribe) = watched(&mut world);
    world.reply(client, ok_of(&subscribe));
    let mut seq = 0;
    let mut told = |world: &mut World, version, how: &str, contacts: &[(&str, &str)]| {
        seq += 1;
        let body = reginfo(version, how, contacts);
        let tx = world.send(scscf(), notify(&subscribe, seq, "active;expires=600", KIND, &body));
        assert_eq!(world.code(tx), Some(200));
    };
    told(&mut world, 5, "full", &[(PHONE, "active")]);
    told(&mut world, 5, "full", &[(OTHER, "active")]);
    told(&mut world, 4, "partial", &[(PHONE, "terminated")]);
    assert_eq!(instances(&world), [format!("<{PHONE}>")]);
    told(&mut world, 7, "partial", &[(OTHER, "active")]);
    assert_eq!(instances(&world), [format!("<{PHONE}>")], "6 is missing");
    world.request(scscf(), &Method::Subscribe);
    told(&mut world, 8, "full", &[(OTHER, "active")]);
    assert_eq!(instances(&world), [format!("<{OTHER}>")]);
}

#[test]
fn malformed_notifications_change_nothing() {
    let mut world = world();
    let (client, subscribe) = watched(&mut world);
    world.reply(client, ok_of(&subscribe));
    let before = instances(&world);
    let full = reginfo(0, "full", &[(PHONE, "active")]);
    for (seq, (kind, body, code)) in (1..).zip([
        (KIND, "<reginfo", 400),
        (KIND, "<reginfo version='x' state='full'/>", 400),
        (KIND, "<!DOCTYPE x [<!ENTITY a 'b'>]><reginfo version='0' state='full'>&a;</reginfo>", 400),
        ("text/plain", full.as_str(), 415),
    ]) {
        let tx = world.send(scscf(), notify(&subscribe, seq, "active;expires=600", kind, body));
        assert_eq!((world.code(tx), instances(&world)), (Some(code), before.clone()), "{body}");
    }
    let mut other = notify(&subscribe, 9, "active", KIND, &full);
    other.headers.set(Name::Event, "presence");
    let tx = world.send(scscf(), other);
    assert_eq!(world.code(tx), Some(489));
    let mut stateless = notify(&subscribe, 10, "active", KIND, &full);
    stateless.headers.remove(&Name::SubscriptionState);
    let tx = world.send(scscf(), stateless);
    assert_eq!(world.code(tx), Some(400));
    // Somebody else's registration is nobody's here.
    let foreign = full.replace("carol@", "dave@");
    let tx = world.send(scscf(), notify(&subscribe, 11, "active", KIND, &foreign));
    assert_eq!(world.code(tx), Some(200));
    assert!(instances(&world).iter().all(|instance| !instance.contains("0007")));
    // A stranger does not get in.
    let tx = world.send(peer(7009), notify(&subscribe, 12, "active", KIND, &full));
    assert_eq!(world.code(tx), Some(407));
}

#[test]
fn rfc6665_s4_1_3_an_ended_watch_begins_anew_where_it_may() {
    for (reason, anew) in
        [("deactivated", true), ("timeout", true), ("rejected", false), ("noresource", false)]
    {
        let mut world = world();
        let (client, subscribe) = watched(&mut world);
        world.reply(client, ok_of(&subscribe));
        let state = format!("terminated;reason={reason}");
        let tx = world.send(scscf(), notify(&subscribe, 1, &state, KIND, ""));
        assert_eq!(world.code(tx), Some(200));
        let next = world.next(scscf());
        assert_eq!(matches!(next, Some(Event::Request(..))), anew, "{reason}");
    }
}

#[test]
fn a_watch_that_is_refused_or_not_answered_is_given_up_and_begun_by_the_next_register() {
    let mut world = world();
    let (client, subscribe) = watched(&mut world);
    world.reply(client, subscribe.respond(489));
    world.pass(60);
    assert!(world.next(scscf()).is_none());
    assert_eq!(instances(&world).len(), 1, "what the REGISTER said stays");
    let mut world = self::world();
    let (client, _) = watched(&mut world);
    world.expire(client);
    world.pass(60);
    assert!(world.next(scscf()).is_none());
}
