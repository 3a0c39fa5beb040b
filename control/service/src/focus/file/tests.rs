//! A file for a group, from outside: the sender's phone and the members' on one side of the lane, a data plane on the other
//! (RFC 5547; CPM-FACTS §2.1, §2.2, §2.4, §2.7).

mod restart;

use std::collections::BTreeMap;

use contract::{Direction, Leg, LegKey, Mode, News, Path, change::Verb, leg, leg_lost, news};
use sip::{Method, Name, Response};

use crate::focus::say;
use crate::focus::tests::{Phone, config, entry, group, group_of, world, world_with};
use crate::testing::{Event, World, reply, sdp_of};
use crate::{ClientTx, Input, ServerTx};

const SELECTOR: &str = "name:\"holiday plan.pdf\" type:application/pdf size:20000000 hash:sha-1:72:24:5F:E8";

/// A description of the file: an offer of its sender's, or with `recvonly` a member's answer.
fn file(port: u16, direction: &str, more: &str) -> String {
    let setup = if direction == "recvonly" { "active" } else { "actpass" };
    format!(
        "v=0\r\no=- {port} 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=message {port} TCP/MSRP *\r\na=path:msrp://192.0.2.1:{port}/{port}f;tcp\r\na=setup:{setup}\r\n\
         a=accept-types:application/pdf\r\na={direction}\r\na=file-selector:{SELECTOR}\r\n\
         a=file-transfer-id:Q6LMoGymJdh0\r\n{more}"
    )
}

/// What the sender's client writes beside it.
const HEADERS: &str = "Conversation-ID: another\r\nContribution-ID: cont-file\r\nP-Preferred-Service: \
                       urn:urn-7:3gpp-service.ims.icsi.oma.cpm.filetransfer.group\r\nAccept-Contact: \
                       *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.filetransfer\"\r\n";

/// Sends an INVITE with that description to the group.
fn offer(world: &mut World, phone: &mut Phone, focus: &str, sdp: &str) -> (ServerTx, sip::Request) {
    let request = phone.request("INVITE", focus, HEADERS, "application/sdp", sdp);
    let tx = world.send(phone.peer, request.clone());
    world.settle();
    (tx, request)
}

/// The INVITE that a member has got.
fn invited(world: &mut World, phone: &mut Phone) -> (ClientTx, sip::Request) {
    let mut invites = phone.take(world);
    assert_eq!(invites.len(), 1, "{} is offered it once", phone.user);
    invites.pop().unwrap()
}

/// A member takes it.
fn accept(world: &mut World, phone: &mut Phone, invite: (ClientTx, sip::Request), more: &str) {
    phone.sdp = file(phone.peer.addr.port(), "recvonly", more);
    phone.accept(world, invite);
    world.settle();
}

/// What the data plane has of the file's context.
struct Wanted {
    legs: Vec<Leg>,
    path: Option<Path>,
    is_there: bool,
}

impl Wanted {
    fn of(world: &World) -> Wanted {
        let (mut legs, mut paths, mut there) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut ours = 0;
        for verb in world.batches.iter().flat_map(|b| &b.changes).filter_map(|c| c.verb.as_ref()) {
            match verb {
                Verb::PutContext(context) => drop(there.insert(context.id, true)),
                Verb::RemoveContext(context) => drop(there.insert(*context, false)),
                Verb::PutLeg(leg) => {
                    // The one with a leg that only sends.
                    if leg.direction() == Direction::Sendonly {
                        ours = leg.context;
                    }
                    legs.insert((leg.context, leg.id), leg.clone());
                }
                Verb::RemoveLeg(key) => drop(legs.remove(&(key.context, key.leg))),
                Verb::PutPath(path) => drop(paths.insert((path.context, path.id), path.clone())),
                Verb::RemovePath(key) => drop(paths.remove(&(key.context, key.path))),
            }
        }
        Wanted {
            legs: legs.into_values().filter(|leg| leg.context == ours).collect(),
            path: paths.remove(&(ours, 1)),
            is_there: there.get(&ours) == Some(&true),
        }
    }

    fn key(&self, participant: &str) -> LegKey {
        self.legs.iter().find(|leg| leg.participant == participant).unwrap().key()
    }

    /// Whose legs get it.
    fn takers(&self) -> Vec<String> {
        let named = &self.path.as_ref().unwrap().targets.as_ref().unwrap().legs;
        self.legs.iter().filter(|leg| named.contains(&leg.id)).map(|leg| leg.participant.clone()).collect()
    }
}

fn tell(world: &mut World, what: news::What) {
    world.input(Input::News(News { what: Some(what) }));
    world.settle();
}

fn lost(leg: LegKey) -> news::What {
    news::What::LegLost(contract::LegLost { leg: Some(leg), reason: leg_lost::Reason::Reset.into() })
}

fn warning(response: &Response) -> &str {
    response.headers.text(&Name::Warning).unwrap_or_default()
}

/// Alice, Bob, Carol and Dave in a group; Alice has offered a file and the others have got it.
fn offered(
    world: &mut World,
    phones: &mut [Phone; 4],
    more: &str,
) -> (ServerTx, sip::Request, Vec<(ClientTx, sip::Request)>) {
    let focus = group_of(world, phones, &[1, 2, 3]);
    phones.iter_mut().for_each(|phone| drop(phone.take(world)));
    world.batches.clear();
    let (tx, request) = offer(world, &mut phones[0], &focus, &file(5001, "sendonly", more));
    let invites = phones[1..].iter_mut().map(|phone| invited(world, phone)).collect();
    (tx, request, invites)
}

/// The same, and Bob and Carol have taken it, Dave has not; it is under way.
fn under_way(world: &mut World, phones: &mut [Phone; 4]) {
    let (tx, request, mut invites) = offered(world, phones, "");
    let dave = invites.pop().unwrap();
    world.reply(dave.0, dave.1.respond(603));
    let carol = invites.pop().unwrap();
    accept(world, &mut phones[2], carol, "");
    accept(world, &mut phones[1], invites.pop().unwrap(), "");
    assert_eq!(phones[0].conclude(world, tx, &request).code, 200);
}

// RFC 5547 §8.2, §8.3; CPM-FACTS §2.1, §2.2; REQ-CF-02, REQ-CF-14, REQ-CF-22: each member is offered the same file by the
// group, with the ids of the group's conversation and of this contribution; the sender hears when it is known who takes it.
#[test]
fn rfc5547_s8_a_file_is_offered_to_each_member_and_goes_to_those_who_take_it() {
    let (mut world, mut phones) = world();
    let more = "a=file-disposition:attachment\r\na=file-date:creation:\"Mon, 15 May 2006 15:01:31 +0300\"\r\n\
                a=file-icon:cid:icon1@example.com\r\n";
    let (tx, request, invites) = offered(&mut world, &mut phones, more);
    for (at, (_, invite)) in invites.iter().enumerate() {
        let line = &sdp_of(&invite.body).lines[0];
        let message = line.message().unwrap();
        let named = message.file.clone().unwrap();
        assert_eq!(
            (named.selector.as_deref(), named.transfer_id.as_deref()),
            (Some(SELECTOR), Some("Q6LMoGymJdh0"))
        );
        assert_eq!(named.disposition.as_deref(), Some("attachment"));
        assert_eq!(named.icon.as_deref(), Some("cid:icon1@example.com"));
        assert!(named.date.unwrap().contains("15 May 2006") && named.range.is_none());
        assert_eq!(line.effective_direction(), sdp::Direction::SendOnly);
        assert!(message.path.starts_with("msrp://192.0.2.200:"), "our end, not Alice's");
        assert_eq!(message.accept_types, ["application/pdf"], "no CPIM around it");
        let text = |name: &Name| invite.headers.text(name).unwrap_or_default().to_owned();
        assert_eq!(text(&Name::ConversationId), "conv-1", "the group's");
        assert_eq!(text(&Name::ContributionId), "cont-file", "its own");
        assert!(text(&Name::PAssertedService).ends_with("oma.cpm.filetransfer.group"));
        assert!(text(&Name::AcceptContact).contains("oma.cpm.filetransfer\""));
        assert_eq!(text(&Name::ReferredBy), "<sip:alice@weir.example>");
        assert!(text(&Name::PAssertedIdentity).contains("sip:grp-"), "from the group");
        assert!(text(&Name::Contact).contains("isfocus"), "{at}");
    }
    let [bob, carol, dave]: [_; 3] = invites.try_into().unwrap();
    accept(&mut world, &mut phones[1], bob, "");
    assert!(world.answer(tx).is_none(), "two have not said anything yet");
    // RFC 5547 §8.3.1: one says no, the other refuses the line.
    world.reply(carol.0, carol.1.respond(603));
    let no = file(7301, "recvonly", "").replace("m=message 7301", "m=message 0");
    world.reply(dave.0, reply(&dave.1, 200, "davet", &no));
    world.settle();
    assert_eq!(phones[3].take(&mut world).len() + phones[3].byes.len(), 1, "his session ends");
    let answer = phones[0].conclude(&mut world, tx, &request);
    assert_eq!(answer.code, 200);
    let line = &sdp_of(&answer.body).lines[0];
    let named = line.message().unwrap().file.clone().unwrap();
    assert_eq!(line.effective_direction(), sdp::Direction::RecvOnly);
    assert_eq!(
        (named.selector.as_deref(), named.transfer_id.as_deref()),
        (Some(SELECTOR), Some("Q6LMoGymJdh0"))
    );
    assert!(named.range.is_none());
    assert_eq!(answer.headers.text(&Name::ContributionId), Some("cont-file"));
    let wanted = Wanted::of(&world);
    let path = wanted.path.clone().unwrap();
    assert_eq!((path.mode(), path.sources.unwrap().legs), (Mode::Distribute, vec![wanted.key("sender").leg]));
    assert_eq!(wanted.takers(), ["p0"]);
    assert_eq!(wanted.legs.len(), 2, "who does not take it has no leg");
    for leg in &wanted.legs {
        let Some(leg::Kind::Msrp(msrp)) = &leg.kind else { panic!() };
        assert!(!msrp.remote_path.is_empty() && msrp.accept_types == ["application/pdf"]);
    }
    assert_eq!(world.service.counters().files, 1);
}

// CPM-FACTS §2.8 "T=20 s", §2.27: one that rings on does not keep the others from it, and is called off: there is no coming
// in later, because a tail is no file.
#[test]
fn who_does_not_answer_in_time_is_called_off() {
    let (mut world, mut phones) = world();
    let (tx, request, mut invites) = offered(&mut world, &mut phones, "");
    let [bob, carol, dave]: [_; 3] = std::mem::take(&mut invites).try_into().unwrap();
    world.reply(carol.0, reply(&carol.1, 180, "carolt", ""));
    assert!(world.answers[&tx].iter().any(|r| r.code == 180), "it rings somewhere");
    world.reply(dave.0, dave.1.respond(486));
    world.pass(60);
    accept(&mut world, &mut phones[1], bob, "");
    world.pass(19);
    assert!(world.answer(tx).is_none());
    world.pass(2);
    assert_eq!(phones[0].conclude(&mut world, tx, &request).code, 200);
    assert!(matches!(world.next(phones[2].peer), Some(Event::Cancel(called, _)) if called == carol.0));
    assert_eq!(Wanted::of(&world).takers(), ["p0"]);
    // RFC 3261 §9.1: her yes had been on its way.
    accept(&mut world, &mut phones[2], carol, "");
    phones[2].take(&mut world);
    assert_eq!(phones[2].byes.len(), 1);
    assert_eq!(Wanted::of(&world).takers(), ["p0"]);
}

// CPM-FACTS §2.7: all decline, or nobody is there.
#[test]
fn the_sender_hears_that_nobody_takes_it() {
    for (codes, heard) in [([603, 603, 603], 603), ([603, 480, 486], 480), ([486, 486, 486], 486)] {
        let (mut world, mut phones) = world();
        let (tx, _, invites) = offered(&mut world, &mut phones, "");
        for ((asked, invite), code) in invites.into_iter().zip(codes) {
            assert!(world.answer(tx).is_none());
            world.reply(asked, invite.respond(code));
            world.settle();
        }
        assert_eq!(world.code(tx), Some(heard), "{codes:?}");
        assert!(!Wanted::of(&world).is_there, "nothing is left in the data plane");
        assert_eq!(world.service.counters().files, 0);
    }
}

// RFC 3261 §9.2.
#[test]
fn a_sender_who_takes_it_back_takes_it_back_from_everybody() {
    let (mut world, mut phones) = world();
    let (tx, _, invites) = offered(&mut world, &mut phones, "");
    let [bob, carol, dave]: [_; 3] = invites.try_into().unwrap();
    accept(&mut world, &mut phones[1], bob, "");
    world.reply(dave.0, reply(&dave.1, 180, "davet", ""));
    world.reply(carol.0, reply(&carol.1, 180, "carolt", ""));
    world.cancel(tx);
    world.settle();
    assert_eq!(world.code(tx), Some(487));
    phones[1].take(&mut world);
    assert_eq!(phones[1].byes.len(), 1);
    for (asked, invite) in [carol, dave] {
        world.reply(asked, invite.respond(487));
    }
    assert!(!Wanted::of(&world).is_there);
    assert_eq!(world.service.counters().files, 0);
}

// RFC 5547 §6 file-range, §8: the sender offers what is left of it to the group; who has it all declines; the answer names
// what is wanted of it.
#[test]
fn rfc5547_s6_a_file_goes_on_by_its_range() {
    let (mut world, mut phones) = world();
    let (tx, request, invites) = offered(&mut world, &mut phones, "a=file-range:1000001-*\r\n");
    let [bob, carol, dave]: [_; 3] = invites.try_into().unwrap();
    let range = |body: &bytes::Bytes| sdp_of(body).lines[0].message().unwrap().file.clone().unwrap().range;
    assert_eq!(range(&bob.1.body).as_deref(), Some("1000001-*"));
    world.reply(dave.0, dave.1.respond(603));
    // What two want of it, together; nothing before what is offered.
    accept(&mut world, &mut phones[1], bob, "a=file-range:5000001-20000000\r\n");
    accept(&mut world, &mut phones[2], carol, "a=file-range:2000001-6000000\r\n");
    let answer = phones[0].conclude(&mut world, tx, &request);
    assert_eq!(range(&answer.body).as_deref(), Some("2000001-20000000"));
    assert_eq!(Wanted::of(&world).takers(), ["p0", "p1"]);
}

// RFC 5547 §8.3: an answer about another file, or by somebody who does not know what a file is, or who has no room for it.
#[test]
fn rfc5547_s8_3_who_answers_otherwise_gets_nothing() {
    let unfit = [
        ("a=max-size:1000\r\n", "", ""),
        ("", "72:24:5F:E8", "00:00:00:00"),
        ("", "Q6LMoGymJdh0", "another"),
        ("", "a=file-selector", "a=x-selector"),
        ("", "recvonly", "sendonly"),
        ("a=file-range:9-3\r\n", "", ""),
    ];
    for (more, from, to) in unfit {
        let (mut world, mut phones) = world();
        let (tx, request, invites) = offered(&mut world, &mut phones, "");
        let [bob, carol, dave]: [_; 3] = invites.try_into().unwrap();
        accept(&mut world, &mut phones[1], bob, "");
        world.reply(dave.0, dave.1.respond(603));
        let mut sdp = file(7201, "recvonly", more);
        if !from.is_empty() {
            sdp = sdp.replace(from, to);
        }
        world.reply(carol.0, reply(&carol.1, 200, "carolt", &sdp));
        world.settle();
        phones[2].take(&mut world);
        assert_eq!(phones[2].byes.len(), 1, "{more} {to}");
        assert_eq!(phones[0].conclude(&mut world, tx, &request).code, 200);
        assert_eq!(Wanted::of(&world).takers(), ["p0"], "{more} {to}");
    }
}

// REQ-CF-05 to REQ-CF-07, REQ-CF-17; CPM-FACTS §2.4 "133 Size exceeded", §2.7.
#[test]
fn who_may_send_what_to_whom() {
    let mut config = config();
    config.controlling.groups = vec![group("books", &["alice", "bob"])];
    config.controlling.file_max_bytes = 20_000_000;
    config.controlling.files_per_user_max = 1;
    let (mut world, mut phones) = world_with(config);
    let focus = group_of(&mut world, &mut phones, &[1, 2]);
    let ask = |world: &mut World, phone: &mut Phone, to: &str, sdp: &str| {
        let (tx, _) = offer(world, phone, to, sdp);
        world.answer(tx).map(|r| (r.code, warning(r).to_owned()))
    };
    let good = file(5001, "sendonly", "");
    let refused = |answer: Option<(u16, String)>, code: u16, text: &str| {
        let (was, said) = answer.expect("an answer");
        assert!(was == code && said.contains(text), "{was} {said}: {code} {text}");
    };
    refused(ask(&mut world, &mut phones[3], &focus, &good), 403, "127 Service not authorised");
    refused(
        ask(&mut world, &mut phones[3], "sip:books@weir.example", &good),
        403,
        "127 Service not authorised",
    );
    refused(ask(&mut world, &mut phones[0], "sip:grp-0000-none@weir.example", &good), 404, "");
    // A room in which nobody is.
    refused(ask(&mut world, &mut phones[0], "sip:books@weir.example", &good), 480, "");
    let large = good.replace("size:20000000", "size:20000001");
    refused(ask(&mut world, &mut phones[0], &focus, &large), 403, "133 Size exceeded");
    refused(
        ask(&mut world, &mut phones[0], &focus, &good.replace("size:20000000 ", "")),
        403,
        "133 Size exceeded",
    );
    // RFC 5547 §8.2: a group has nothing that could be fetched from it.
    refused(ask(&mut world, &mut phones[0], &focus, &good.replace("sendonly", "recvonly")), 488, "");
    refused(
        ask(&mut world, &mut phones[0], &focus, &file(5001, "sendonly", "a=file-range:0-9\r\n")),
        400,
        "",
    );
    assert!(ask(&mut world, &mut phones[0], &focus, &good).is_none(), "it is offered");
    refused(ask(&mut world, &mut phones[0], &focus, &good), 486, "");
    assert!(ask(&mut world, &mut phones[1], &focus, &good).is_none(), "another's are another's");
}

// REQ-CF-07, REQ-CF-16: no files, or no messages at all, by the word of the provider or of the group.
#[test]
fn files_may_be_switched_off() {
    use crate::focus::config::Medium;
    let mut silent = config();
    silent.controlling.groups = vec![group("books", &["alice", "bob"])];
    silent.controlling.groups[0].media = vec![Medium::Audio];
    silent.controlling.groups[0].invite_members = true;
    let mut on = silent.clone();
    on.controlling.groups[0].media = Vec::new();
    let mut off = on.clone();
    off.controlling.files = false;
    for (config, code) in [(off, Some(403)), (silent, Some(403)), (on, None)] {
        let (mut world, mut phones) = world_with(config);
        let (tx, _) =
            offer(&mut world, &mut phones[0], "sip:books@weir.example", &file(5001, "sendonly", ""));
        assert_eq!(world.code(tx), code);
        // A group that invites its members needs no session for that.
        assert_eq!(phones[1].take(&mut world).len(), usize::from(code.is_none()));
    }
}

// RFC 5547 §8.3.1: one file for each session; the others are refused by port 0.
#[test]
fn rfc5547_one_file_for_each_session() {
    let (mut world, mut phones) = world();
    let focus = group_of(&mut world, &mut phones, &[1]);
    phones[1].take(&mut world);
    let one = file(5001, "sendonly", "");
    let second =
        one.split_once("m=message").unwrap().1.replace("5001", "5003").replace("Q6LMoGymJdh0", "second");
    let (tx, request) = offer(&mut world, &mut phones[0], &focus, &format!("{one}m=message{second}"));
    let invite = invited(&mut world, &mut phones[1]);
    assert_eq!(sdp_of(&invite.1.body).lines.len(), 1);
    accept(&mut world, &mut phones[1], invite, "");
    let answer = sdp_of(&phones[0].conclude(&mut world, tx, &request).body);
    let ports: Vec<bool> = answer.lines.iter().map(sdp::MediaLine::is_refused).collect();
    assert_eq!(ports, [false, true]);
}

// Who hangs up, is lost or does not read is out by himself; with the last one the sender's session ends.
#[test]
fn one_member_after_the_other_goes_and_nobody_else_notices() {
    let (mut world, mut phones) = world();
    under_way(&mut world, &mut phones);
    let wanted = Wanted::of(&world);
    assert_eq!(wanted.takers(), ["p0", "p1"]);
    let (bob, carol) = (wanted.key("p0"), wanted.key("p1"));
    // DESIGN §3, Pressure: his copy has been aborted, he has no file any more.
    tell(
        &mut world,
        news::What::Pressure(contract::Pressure { leg: Some(bob), on: true, waiting_bytes: 1, kept: false }),
    );
    phones[1].take(&mut world);
    assert!(phones[1].byes[0].contains("Too slow"));
    phones[0].take(&mut world);
    phones[2].take(&mut world);
    assert!(phones[0].byes.is_empty() && phones[2].byes.is_empty());
    let left = Wanted::of(&world);
    assert_eq!(left.legs.iter().map(|leg| leg.id).collect::<Vec<_>>(), [wanted.key("sender").leg, carol.leg]);
    tell(&mut world, lost(carol));
    assert!(world.next(phones[2].peer).is_none(), "a BYE may be on its way");
    world.pass(3);
    phones[2].take(&mut world);
    phones[0].take(&mut world);
    assert!(phones[2].byes[0].contains("Media lost"));
    assert!(phones[0].byes[0].contains("Media lost"), "nobody is left to send it to");
    assert!(!Wanted::of(&world).is_there);
    assert_eq!(world.service.counters().files, 0);
}

#[test]
fn members_who_have_it_hang_up_and_so_does_the_group() {
    let (mut world, mut phones) = world();
    under_way(&mut world, &mut phones);
    phones[1].bye(&mut world, Some("SIP;cause=200"));
    phones[0].take(&mut world);
    assert!(phones[0].byes.is_empty());
    phones[2].bye(&mut world, Some("SIP;cause=200"));
    phones[0].take(&mut world);
    assert!(phones[0].byes[0].contains("cause=200"));
    assert!(!Wanted::of(&world).is_there);
}

// What is queued for members goes out after the sender has hung up, and not for ever.
#[test]
fn what_is_on_its_way_outlives_its_sender() {
    let (mut world, mut phones) = world();
    under_way(&mut world, &mut phones);
    phones[0].bye(&mut world, None);
    let sender = Wanted::of(&world).key("sender");
    tell(&mut world, lost(sender));
    world.pass(5);
    assert!(
        Wanted::of(&world).is_there && phones[1].take(&mut world).is_empty() && phones[1].byes.is_empty()
    );
    phones[1].bye(&mut world, None);
    world.pass(6);
    phones[2].take(&mut world);
    assert!(phones[2].byes[0].contains("cause=200"));
    assert!(!Wanted::of(&world).is_there);
    assert_eq!(world.service.counters().files, 0);
}

// A member who reads more slowly than others: the rest waits on the data plane's disk, and his session for it.
#[test]
fn who_is_slower_than_others_has_time_for_it_when_the_sender_and_they_are_gone() {
    let behind = |leg, on| {
        news::What::Pressure(contract::Pressure { leg: Some(leg), on, waiting_bytes: 1, kept: true })
    };
    for in_time in [true, false] {
        let (mut world, mut phones) = world();
        under_way(&mut world, &mut phones);
        let wanted = Wanted::of(&world);
        let (bob, carol) = (wanted.key("p0"), wanted.key("p1"));
        tell(&mut world, behind(bob, true));
        tell(&mut world, behind(carol, true));
        tell(&mut world, behind(bob, false));
        phones[0].bye(&mut world, None);
        world.pass(11);
        phones[1].take(&mut world);
        phones[2].take(&mut world);
        assert!(phones[1].byes[0].contains("cause=200"), "he has all of it");
        assert!(phones[2].byes.is_empty() && Wanted::of(&world).is_there);
        if in_time {
            world.pass(600);
            phones[2].take(&mut world);
            assert!(phones[2].byes.is_empty());
            tell(&mut world, behind(carol, false));
        } else {
            world.pass(7201);
        }
        phones[2].take(&mut world);
        assert!(phones[2].byes[0].contains("cause=200"));
        assert!(!Wanted::of(&world).is_there);
        assert_eq!(world.service.counters().files, 0);
    }
}

// Who reads nothing for too long is cut loose by the data plane: his session ends at once, and nobody else's.
#[test]
fn who_is_cut_loose_is_told_so() {
    let (mut world, mut phones) = world();
    under_way(&mut world, &mut phones);
    let bob = Wanted::of(&world).key("p0");
    let reason = leg_lost::Reason::Slow.into();
    tell(&mut world, news::What::LegLost(contract::LegLost { leg: Some(bob), reason }));
    phones[1].take(&mut world);
    assert!(phones[1].byes[0].contains("Too slow"));
    phones[2].take(&mut world);
    assert!(phones[2].byes.is_empty() && Wanted::of(&world).is_there);
}

// A sender whose connection breaks has no way to go on with this session: it ends, and the file goes on by its range.
#[test]
fn a_sender_who_is_lost_ends_it() {
    let (mut world, mut phones) = world();
    under_way(&mut world, &mut phones);
    let sender = Wanted::of(&world).key("sender");
    tell(&mut world, lost(sender));
    world.pass(3);
    for phone in &mut phones[..3] {
        phone.take(&mut world);
        assert!(phone.byes[0].contains("Media lost"), "{}", phone.user);
    }
    assert_eq!(world.service.counters().files, 0);
}

// DESIGN §2 invariant 8: octets that the data plane held are gone with it.
#[test]
fn a_data_plane_that_starts_again_has_no_files() {
    for audited in [false, true] {
        let (mut world, mut phones) = world();
        under_way(&mut world, &mut phones);
        match audited {
            true => world.input(Input::Audited { contexts: Vec::new() }),
            false => {
                let welcome =
                    contract::Welcome { version: contract::VERSION, ..contract::Welcome::default() };
                world.input(Input::DataplaneUp { welcome, instance_changed: true });
            }
        }
        world.settle();
        world.pass(1);
        for phone in &mut phones[..3] {
            phone.take(&mut world);
            assert!(
                phone.byes.iter().any(|bye| bye.contains("Media lost")),
                "{}: {:?}",
                phone.user,
                phone.byes
            );
        }
        assert_eq!(world.service.counters().files, 0);
    }
}

// What the data plane refuses of one member is his fault alone; what it refuses of all is ours.
#[test]
fn orders_that_are_refused() {
    let (mut world, mut phones) = world();
    world.dataplane_dislikes = |change| match &change.verb {
        Some(Verb::PutLeg(leg)) => {
            matches!(&leg.kind, Some(leg::Kind::Msrp(m)) if m.remote_path.iter().any(|uri| uri.contains("7201f")))
        }
        _ => false,
    };
    under_way(&mut world, &mut phones);
    phones[2].take(&mut world);
    assert!(phones[2].byes[0].contains("488"));
    assert_eq!(Wanted::of(&world).takers(), ["p0"]);
    let (mut world, mut phones) = self::world();
    let focus = group_of(&mut world, &mut phones, &[1]);
    phones[1].take(&mut world);
    world.dataplane_full = true;
    let (tx, _) = offer(&mut world, &mut phones[0], &focus, &file(5001, "sendonly", ""));
    assert_eq!(world.code(tx), Some(503));
    assert!(phones[1].take(&mut world).is_empty(), "nobody was offered it");
    assert_eq!(world.service.counters().files, 0);
}

// RFC 5547 §8.1: the same file-transfer-id again is the same transfer (RFC 4028's re-INVITE); another is not to be had here.
#[test]
fn rfc5547_s8_1_a_refresh_begins_nothing() {
    let (mut world, mut phones) = world();
    under_way(&mut world, &mut phones);
    let before = world.batches.len();
    let same = file(5001, "sendonly", "").replace("o=- 5001 1", "o=- 5001 2");
    let answer = phones[0].within(&mut world, Method::Invite, &[], Some(("application/sdp", &same)));
    assert_eq!(answer.code, 200);
    let line = &sdp_of(&answer.body).lines[0];
    assert_eq!(line.effective_direction(), sdp::Direction::RecvOnly);
    assert_eq!(line.setup, Some(sdp::Setup::Passive));
    let other = same.replace("Q6LMoGymJdh0", "another").replace("o=- 5001 2", "o=- 5001 3");
    assert_eq!(
        phones[0].within(&mut world, Method::Invite, &[], Some(("application/sdp", &other))).code,
        488
    );
    assert_eq!(phones[0].within(&mut world, Method::Update, &[], None).code, 200);
    let theirs = file(7101, "recvonly", "").replace("active", "actpass");
    let answer = phones[1].within(&mut world, Method::Invite, &[], Some(("application/sdp", &theirs)));
    let line = &sdp_of(&answer.body).lines[0];
    assert_eq!((answer.code, line.effective_direction()), (200, sdp::Direction::SendOnly));
    assert_eq!(world.batches.len(), before, "and nothing is ordered");
    assert_eq!(Wanted::of(&world).takers(), ["p0", "p1"]);
}

// RFC 3261 §13.3.1.4: his own Participating Function hangs up for him.
#[test]
fn a_sender_who_never_acknowledges_ends_it() {
    let (mut world, mut phones) = world();
    let (tx, _, invites) = offered(&mut world, &mut phones, "");
    for (at, invite) in invites.into_iter().enumerate() {
        accept(&mut world, &mut phones[at + 1], invite, "");
    }
    assert_eq!(world.code(tx), Some(200));
    world.input(Input::AckMissing { tx });
    world.settle();
    world.pass(11);
    for phone in &mut phones[1..] {
        phone.take(&mut world);
        assert_eq!(phone.byes.len(), 1);
    }
    assert_eq!(world.service.counters().files, 0);
}

// RFC 5366, RFC 5364 §5; REQ-CF-10: to a list, by the factory; each learns of the others what he may, and no conference
// comes of it.
#[test]
fn rfc5366_a_file_to_a_list_makes_no_conference() {
    let (mut world, mut phones) = world();
    phones[0].sdp = file(5001, "sendonly", "");
    let mut blind = entry("dave");
    blind.copy = cpm::resource_lists::Copy::Bcc;
    let request = phones[0].founding(&[entry("bob"), entry("carol"), blind], "file", "");
    let tx = world.send(phones[0].peer, request.clone());
    world.settle();
    let invites: Vec<_> = phones[1..].iter_mut().map(|phone| invited(&mut world, phone)).collect();
    let lists = invites.iter().map(|(_, invite)| {
        assert_eq!(invite.headers.text(&Name::ConversationId), Some("conv-file"));
        assert_eq!(invite.headers.text(&Name::ContributionId), Some("cont-file"));
        assert!(!invite.headers.has(&Name::Require), "recipient-list-invite was for the factory");
        let sdp = crate::body::sdp_in(&invite.headers, &invite.body).unwrap();
        let path = sdp_of(&sdp).lines[0].message().unwrap().path.clone();
        assert!(path.starts_with("msrp://192.0.2.200:"), "{path}");
        let list = say::part(&invite.headers, &invite.body, cpm::media_type::RESOURCE_LISTS).unwrap();
        assert!(String::from_utf8_lossy(&invite.body).contains("recipient-list-history"));
        let list = cpm::resource_lists::ResourceList::read(&list, &cpm::Limits::default()).unwrap();
        list.entries.into_iter().map(|e| e.uri).collect::<Vec<_>>()
    });
    let lists: Vec<Vec<String>> = lists.collect();
    let (bob, carol) = ("sip:bob@weir.example", "sip:carol@weir.example");
    assert_eq!(lists, [vec![carol], vec![bob], vec![bob, carol]]);
    for (at, invite) in invites.into_iter().enumerate() {
        accept(&mut world, &mut phones[at + 1], invite, "");
    }
    assert_eq!(phones[0].conclude(&mut world, tx, &request).code, 200);
    assert_eq!(Wanted::of(&world).takers(), ["p0", "p1", "p2"]);
    let counters = world.service.counters();
    assert_eq!((counters.files, counters.conferences), (1, 0));
    // Without a list there is nobody to send it to.
    let (tx, _) =
        offer(&mut world, &mut phones[1], "sip:conference-factory@weir.example", &file(7101, "sendonly", ""));
    assert_eq!(world.code(tx), Some(400));
}
