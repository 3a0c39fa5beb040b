//! Files over MSRP (RFC 5547) from user to user: what the description says of the file passes both ways, and only that.

use contract::Direction;
use contract::{Leg, change::Verb, leg};
use sip::{Method, Request};

use super::session::{forked, inside, invite, msrp_legs};
use super::{ALICE, BOB, BOB2, phone, world};
use crate::testing::{Event, World, reply, sdp_of};

const SELECTOR: &str =
    "name:\"holiday plan.pdf\" type:application/pdf size:1073741824 hash:sha-1:72:24:5F:E8";

/// A push offer; `more`: what else it says of the file.
fn offer(port: u16, more: &str) -> String {
    format!(
        "v=0\r\no=- {port} 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=message {port} TCP/MSRP *\r\na=path:msrp://192.0.2.1:{port}/{port}x;tcp\r\na=setup:actpass\r\n\
         a=accept-types:*\r\na=sendonly\r\na=file-selector:{SELECTOR}\r\na=file-transfer-id:Q6LMoGymJdh0IKIgD6wD0jkcfgva4xvE\r\n\
         a=file-disposition:attachment\r\na=file-date:creation:\"Mon, 15 May 2006 15:01:31 +0300\"\r\n{more}"
    )
}

fn answer(port: u16, more: &str) -> String {
    offer(port, more)
        .replace("sendonly", "recvonly")
        .replace("actpass", "active")
        .replace("192.0.2.1", "192.0.2.2")
}

fn file_of(request: &Request) -> sdp::File {
    sdp_of(&request.body).lines[0].message().unwrap().file.clone().unwrap()
}

fn last_legs(world: &World) -> Vec<Leg> {
    let puts = world.batches.iter().flat_map(|b| &b.changes).filter_map(|c| match &c.verb {
        Some(Verb::PutLeg(leg)) => Some(leg.clone()),
        _ => None,
    });
    let mut last = std::collections::BTreeMap::new();
    puts.for_each(|leg| drop(last.insert(leg.id, leg)));
    last.into_values().collect()
}

/// RFC 5547 §6, §8.2, §8.3: each device is offered the same file; the answer repeats its selector; the octets go one way.
#[test]
fn rfc5547_s8_a_push_is_offered_to_each_device_and_taken_by_one() {
    let mut world = world();
    let tx = invite(&mut world, "f1", &offer(5001, "a=file-range:1-*\r\n"));
    let [(first, request), (second, other)] = forked(&mut world);
    for request in [&request, &other] {
        let file = file_of(request);
        assert_eq!(file.selector.as_deref(), Some(SELECTOR));
        assert_eq!(file.size(), Some(1 << 30));
        assert_eq!(file.transfer_id.as_deref(), Some("Q6LMoGymJdh0IKIgD6wD0jkcfgva4xvE"));
        assert_eq!((file.disposition.as_deref(), file.range.as_deref()), (Some("attachment"), Some("1-*")));
        assert!(file.date.as_deref().is_some_and(|date| date.contains("15 May 2006")));
        let line = &sdp_of(&request.body).lines[0];
        assert_eq!(line.effective_direction(), sdp::Direction::SendOnly);
        assert!(line.message().unwrap().path.starts_with("msrp://192.0.2.200:"), "our end, not Alice's");
    }
    world.reply(first, reply(&request, 200, "bobtag", &answer(5002, "")));
    assert!(matches!(world.next(phone(BOB)), Some(Event::Ack(_))));
    assert!(matches!(world.next(phone(BOB2)), Some(Event::Cancel(tx, Some(200))) if tx == second));
    world.reply(second, other.respond(487));
    let taken = world.answer(tx).unwrap().clone();
    assert_eq!(taken.code, 200);
    let line = &sdp_of(&taken.body).lines[0];
    let file = line.message().unwrap().file.as_ref().unwrap();
    assert_eq!(
        (file.selector.as_deref(), line.effective_direction()),
        (Some(SELECTOR), sdp::Direction::RecvOnly)
    );
    assert_eq!(file.transfer_id.as_deref(), Some("Q6LMoGymJdh0IKIgD6wD0jkcfgva4xvE"));
    world.ack(phone(ALICE), inside("ACK", 1, &taken, true, ""));
    // The data plane lets content go from Alice to Bob, and not back.
    let directions: Vec<Direction> = last_legs(&world)
        .into_iter()
        .filter(|leg| matches!(&leg.kind, Some(leg::Kind::Msrp(msrp)) if !msrp.remote_path.is_empty()))
        .map(|leg| leg.direction())
        .collect();
    assert_eq!(directions, [Direction::Sendonly, Direction::Recvonly]);
    // No limit of ours is smaller than the file.
    assert!(msrp_legs(&world).iter().all(|leg| leg.max_size == 0 || leg.max_size >= 1 << 30));
}

/// RFC 5547 §8.3.1: who does not want it refuses the line, or the whole.
#[test]
fn rfc5547_a_refused_file_is_refused_to_the_sender() {
    let mut world = world();
    let tx = invite(&mut world, "f2", &offer(5001, ""));
    for (ask, request) in forked(&mut world) {
        world.reply(ask, request.respond(603));
    }
    assert_eq!(world.code(tx), Some(603));
    assert!(
        world
            .next(phone(BOB))
            .is_none_or(|event| !matches!(event, Event::Request(_, r) if r.method == Method::Invite))
    );
}

/// RFC 5547 §8.1: a transfer that broke off is asked for again from where it broke: same file, same id, an open range.
#[test]
fn rfc5547_a_transfer_is_resumed_by_its_range() {
    let mut world = world();
    let tx = invite(&mut world, "f3", &offer(5003, "a=file-range:524288001-*\r\n"));
    let [(first, request), (second, other)] = forked(&mut world);
    assert_eq!(file_of(&request).range.as_deref(), Some("524288001-*"));
    world
        .reply(first, reply(&request, 200, "bobtag", &answer(5002, "a=file-range:524288001-1073741824\r\n")));
    world.reply(second, other.respond(487));
    let taken = world.answer(tx).unwrap();
    let line = &sdp_of(&taken.body).lines[0];
    assert_eq!(line.message().unwrap().file.as_ref().unwrap().range.as_deref(), Some("524288001-1073741824"));
}

/// RFC 5547 §8.2.2, §8.3.2: who has a part of it fetches the rest from its sender, who has it: the line is `recvonly`, the
/// answer `sendonly`, and content goes that way only.
#[test]
fn rfc5547_what_is_missing_is_fetched_from_who_has_it() {
    let mut world = world();
    let tx = invite(
        &mut world,
        "f4",
        &offer(5004, "a=file-range:524288001-*\r\n").replace("a=sendonly", "a=recvonly"),
    );
    let [(first, request), (second, other)] = forked(&mut world);
    let asked = &sdp_of(&request.body).lines[0];
    assert_eq!(asked.effective_direction(), sdp::Direction::RecvOnly);
    assert_eq!(file_of(&request).range.as_deref(), Some("524288001-*"));
    let given = offer(5002, "a=file-range:524288001-1073741824\r\n").replace("actpass", "active");
    world.reply(first, reply(&request, 200, "bobtag", &given.replace("192.0.2.1", "192.0.2.2")));
    world.reply(second, other.respond(487));
    let line = &sdp_of(&world.answer(tx).unwrap().body).lines[0];
    assert_eq!(line.effective_direction(), sdp::Direction::SendOnly);
    let file = line.message().unwrap().file.as_ref().unwrap();
    assert_eq!((file.selector.as_deref(), file.size()), (Some(SELECTOR), Some(1 << 30)));
    let directions: Vec<Direction> = last_legs(&world)
        .into_iter()
        .filter(|leg| matches!(&leg.kind, Some(leg::Kind::Msrp(msrp)) if !msrp.remote_path.is_empty()))
        .map(|leg| leg.direction())
        .collect();
    assert_eq!(directions, [Direction::Recvonly, Direction::Sendonly]);
}
