//! Chunking, interleaving, reordered chunks, lost connections, late joiners: each accepted message is delivered
//! exactly once to each recipient that it was frozen for, in its sender's order. And the checker itself is held
//! against streams that break the rules.

use std::collections::BTreeMap;

use contract::{Mode, Switch, path::Parameters};
use proptest::prelude::*;

use super::phone::*;
use super::rig::*;
use crate::{CloseReason, Input};

const ALL: &str = "sip:anonymous@anonymous.invalid";

/// A message cut into chunks, its sender, and when each chunk is said.
#[derive(Clone, Debug)]
struct Plan {
    from: u64,
    text: usize,
    cuts: Vec<usize>,
    swap: bool,
}

fn member(n: u64) -> contract::Leg {
    adjust(msrp_leg(n), |m| m.addresses = vec![user(n)])
}

fn body(number: usize, plan: &Plan) -> Vec<u8> {
    cpim(plan.from, ALL, "text/plain", &format!("{number}:{}", "x".repeat(plan.text)))
}

/// Messages put together from a stream by Message-ID, in the order of their ends. `Err`: a rule is broken.
fn heard(stream: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut open: BTreeMap<String, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
    let (mut ended, mut whole) = (BTreeMap::new(), Vec::new());
    for read in
        parse(stream).1.into_iter().filter(|r| r.is(msrp::Method::Send) && !r.head.message_id().is_empty())
    {
        let id = read.head.message_id().to_owned();
        if read.flag == msrp::Flag::Abort {
            open.remove(&id);
            continue;
        }
        let start = read.head.byte_range().ok_or("no range")?.start;
        if !read.head.has_body() {
            continue;
        }
        let parts = open.entry(id.clone()).or_default();
        if !read.body.is_empty() && parts.insert(start, read.body).is_some() {
            return Err("a chunk came twice");
        }
        if read.flag == msrp::Flag::Last {
            ended.insert(id.clone(), ());
        }
        let mut next = 1;
        let gapless = parts.iter().all(|(start, part)| {
            let fits = *start == next;
            next = start + part.len() as u64;
            fits
        });
        if gapless && ended.contains_key(&id) {
            ended.remove(&id);
            whole.push(open.remove(&id).unwrap_or_default().into_values().flatten().collect());
        }
    }
    if ended.is_empty() { Ok(whole) } else { Err("a message ended with a hole") }
}

/// What recipient `n` must have heard of what was accepted: whole, once, each sender in order.
fn check(heard: &[Vec<u8>], expected: &[(u64, Vec<u8>)]) -> Result<(), &'static str> {
    let mut all: Vec<_> = heard.to_vec();
    let mut wanted: Vec<_> = expected.iter().map(|(_, body)| body.clone()).collect();
    all.sort();
    wanted.sort();
    if all != wanted {
        return Err("not each message once");
    }
    for sender in 1..5 {
        let theirs: Vec<_> = expected.iter().filter(|(from, _)| *from == sender).map(|(_, b)| b).collect();
        let came: Vec<_> = heard.iter().filter(|b| theirs.contains(b)).collect();
        if came != theirs {
            return Err("out of a sender's order");
        }
    }
    Ok(())
}

fn plan() -> impl Strategy<Value = Plan> {
    (1..5u64, 0..300usize, proptest::collection::vec(1..200usize, 0..5), any::<bool>())
        .prop_map(|(from, text, cuts, swap)| Plan { from, text, cuts, swap })
}

/// Message, start, octets, whether it is the last, octets of the message.
type Chunk = (usize, usize, Vec<u8>, bool, usize);

/// The chunks of a message as (start, bytes), the first one long enough to come first whatever is swapped.
fn chunks(whole: &[u8], plan: &Plan) -> Vec<(usize, Vec<u8>)> {
    let mut at = 0;
    let mut out = Vec::new();
    for cut in plan.cuts.iter().copied().chain([whole.len()]) {
        let end = whole.len().min(at + if at == 0 { cut.max(120) } else { cut });
        if at < end {
            out.push((at + 1, whole[at..end].to_vec()));
        }
        at = end;
    }
    let last = out.len();
    if plan.swap && last > 3 {
        out.swap(1, 2);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn each_accepted_message_once_in_order(
        plans in proptest::collection::vec(plan(), 1..8),
        order in proptest::collection::vec(any::<u8>(), 60),
        lost in proptest::option::of((1..5u64, 0..20usize)),
        split in 1..400usize,
    ) {
        let ids = [1, 2, 3, 4];
        let switch = Parameters::Switch(Switch::default());
        let set = Some(contract::LegSet { legs: vec![], media: "msrp".into() });
        let path = contract::Path {
            sources: set.clone(), targets: set, parameters: Some(switch), ..path(1, Mode::Switch, &[], &[])
        };
        let mut phones = Phones::up(ids.map(member).to_vec(), vec![path]);
        // One sender's messages follow each other; different senders' chunks interleave.
        let mut queues: BTreeMap<u64, Vec<Chunk>> = BTreeMap::new();
        for (number, plan) in plans.iter().enumerate() {
            let whole = body(number, plan);
            let chunks = chunks(&whole, plan);
            let last_start = chunks.iter().map(|c| c.0).max().unwrap_or(1);
            for (start, bytes) in chunks {
                let queue = queues.entry(plan.from).or_default();
                queue.push((number, start, bytes, start == last_start, whole.len()));
            }
        }
        let (mut begun, mut done): (BTreeMap<usize, Vec<u64>>, Vec<usize>) = Default::default();
        let (mut up, mut step, mut order) = (ids.to_vec(), 0, order.into_iter().cycle());
        let mut left: BTreeMap<usize, usize> = BTreeMap::new();
        for queue in queues.values() {
            for chunk in queue { *left.entry(chunk.0).or_default() += 1; }
        }
        while queues.values().any(|q| !q.is_empty()) {
            if let Some((who, when)) = lost && when == step {
                phones.rig.input(Input::Closed { conn: conn(who), why: CloseReason::Reset });
                up.retain(|n| *n != who);
                queues.remove(&who);
                for to in begun.values_mut() { to.retain(|n| *n != who); }
            }
            if step == 10 {
                // Late: gets only what begins after it.
                phones.join(member(5));
                up.push(5);
            }
            step += 1;
            let ready: Vec<u64> = queues.iter().filter(|(_, q)| !q.is_empty()).map(|(n, _)| *n).collect();
            let Some(from) = ready.get(usize::from(order.next().unwrap_or(0)) % ready.len().max(1)).copied() else { break };
            let (number, start, bytes, is_last, total) = queues.get_mut(&from).unwrap().remove(0);
            begun.entry(number).or_insert_with(|| up.iter().copied().filter(|n| *n != from).collect());
            let lines = format!("Byte-Range: {start}-*/{total}\r\n{CPIM_LINES}");
            let (tid, id) = (format!("tid{step}"), format!("message{number}"));
            let lines = format!("Message-ID: {id}\r\n{lines}");
            let raw = phones.request(from, "SEND", &tid, &lines, Some(&bytes), if is_last { '$' } else { '+' });
            for piece in raw.chunks(split) { phones.say_raw(from, piece); }
            let count = left.get_mut(&number).unwrap();
            *count -= 1;
            if *count == 0 { done.push(number); }
        }
        for n in up {
            let expected: Vec<_> = done.iter().filter(|m| begun[m].contains(&n))
                .map(|m| (plans[*m].from, body(*m, &plans[*m]))).collect();
            let stream = phones.rig.wire.get(&n).cloned().unwrap_or_default();
            let verdict = heard(&stream).and_then(|heard| check(&heard, &expected));
            prop_assert_eq!(verdict, Ok(()), "recipient {}", n);
        }
        phones.check_sum();
    }
}

#[test]
fn the_checker_catches_what_it_must() {
    let chunk = |id: &str, start: usize, body: &str, flag: char| {
        format!(
            "MSRP tid1 SEND\r\nTo-Path: {0}\r\nFrom-Path: {0}\r\nMessage-ID: {id}\r\nByte-Range: {start}-*/*\r\n\
             Content-Type: a/b\r\n\r\n{body}\r\n-------tid1{flag}\r\n",
            their(1)
        )
    };
    let expected = [(1, b"onetwo".to_vec()), (1, b"three".to_vec())];
    let verdict = |stream: String| heard(stream.as_bytes()).and_then(|h| check(&h, &expected));
    let (one, two, three) =
        (chunk("idA1", 1, "one", '+'), chunk("idA1", 4, "two", '$'), chunk("idB1", 1, "three", '$'));
    assert_eq!(verdict([&one[..], &two, &three].concat()), Ok(()));
    for (bad, stream) in [
        ("a lost end flag", [&one[..], &chunk("idA1", 4, "two", '+'), &three].concat()),
        ("a doubled chunk", [&one[..], &one, &two, &three].concat()),
        ("a doubled message", [&one[..], &two, &three, &three].concat()),
        ("a lost chunk", [&two[..], &three].concat()),
        ("a late joiner served the tail", [&chunk("idA1", 4, "two", '$')[..], &three].concat()),
        ("two messages of one sender exchanged", [&three[..], &one, &two].concat()),
        ("an aborted one counted as whole", [&one[..], &chunk("idA1", 4, "two", '#'), &three].concat()),
    ] {
        assert!(verdict(stream).is_err(), "{bad}");
    }
}
