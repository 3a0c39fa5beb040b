//! Our parser beside rsip, message by message and field by field, on everything that rsip accepts: the two
//! torture corpora and generated CPM traffic. Where they differ rsip is wrong, and by name ([`wrong`]): a
//! difference without a name fails, and so does a name that no message shows any more.

mod reading;
mod traffic;
mod wrong;

use std::collections::BTreeMap;

use bytes::Bytes;
use sipx_testkit::{rfc4475, rfc5118};

use reading::{Reading, ours, theirs};
use wrong::WRONG;

/// A message with the name of its kind.
struct Sample {
    name: String,
    wire: Bytes,
}

fn samples() -> Vec<Sample> {
    let torture =
        rfc4475::CASES.iter().map(|c| Sample { name: c.name.into(), wire: Bytes::from_static(c.bytes) });
    let ipv6 = rfc5118::CASES.iter().map(|c| Sample { name: c.name.into(), wire: c.wire() });
    let traffic = traffic::generate(400).into_iter().map(|(name, wire)| Sample { name, wire });
    torture.chain(ipv6).chain(traffic).collect()
}

/// One field that the two read differently.
struct Difference {
    sample: String,
    field: &'static str,
    ours: String,
    theirs: String,
}

/// True for the parts of an address or Via that one of the two refuses whole: its host says so already.
fn follows_refusal(reading: &Reading, field: &str) -> bool {
    let Some((group, part)) = field.split_once('.') else { return false };
    let host = match group {
        "via" => "via.host",
        "from" => "from.host",
        "to" => "to.host",
        "contact" => "contact.host",
        _ => return false,
    };
    !matches!(part, "host" | "count") && reading.get(host).is_some_and(|h| h == reading::REFUSED)
}

fn differences(sample: &Sample, theirs: &Reading) -> Vec<Difference> {
    let ours = ours(&sample.wire);
    let fields: Vec<&'static str> = if ours["accepted"] != theirs["accepted"] {
        vec!["accepted"]
    } else {
        let mut all: Vec<_> = ours.keys().chain(theirs.keys()).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let text = |reading: &Reading, field| reading.get(field).cloned().unwrap_or_else(|| "(none)".into());
    fields
        .into_iter()
        .map(|field| Difference {
            sample: sample.name.clone(),
            field,
            ours: text(&ours, field),
            theirs: text(theirs, field),
        })
        .filter(|d| d.ours != d.theirs && !follows_refusal(theirs, d.field))
        .collect()
}

#[test]
fn every_difference_has_a_name_and_every_name_a_difference() {
    let mut compared = 0;
    let mut seen: BTreeMap<&str, usize> = WRONG.iter().map(|w| (w.name, 0)).collect();
    let mut nameless = Vec::new();
    for sample in samples() {
        let Some(theirs) = theirs(&sample.wire) else { continue };
        compared += 1;
        for d in differences(&sample, &theirs) {
            match WRONG.iter().find(|w| (w.shows)(&d)) {
                Some(wrong) => *seen.entry(wrong.name).or_default() += 1,
                None => {
                    nameless.push(format!("{} {}: ours {:?}, rsip {:?}", d.sample, d.field, d.ours, d.theirs))
                }
            }
        }
    }
    assert!(nameless.is_empty(), "{} without a name:\n{}", nameless.len(), nameless.join("\n"));
    let gone: Vec<_> = WRONG.iter().filter(|w| seen[w.name] == 0).map(|w| (w.name, w.clause)).collect();
    assert!(gone.is_empty(), "no longer shown: {gone:?}");
    assert!(compared > 200, "rsip accepted only {compared}");
}

/// What rsip refuses though it is legal, and we read.
#[test]
fn what_rsip_refuses() {
    let refused: Vec<&str> = rfc4475::CASES
        .iter()
        .filter(|c| c.section.starts_with("3.1.1") && theirs(&Bytes::from_static(c.bytes)).is_none())
        .map(|c| c.name)
        .collect();
    assert_eq!(refused, wrong::REFUSED_BY_RSIP);
    for name in refused {
        let case = rfc4475::case(name).unwrap();
        assert_eq!(ours(&Bytes::from_static(case.bytes))["accepted"], "yes", "{name}");
    }
}

/// The parts of CPM traffic that rsip refuses wherever they stand; we read every message.
#[test]
fn what_rsip_refuses_of_the_traffic() {
    let mut parts: BTreeMap<String, bool> = BTreeMap::new();
    for (name, wire) in traffic::generate(400) {
        assert_eq!(ours(&wire)["accepted"], "yes", "{name}");
        let refused = theirs(&wire).is_none();
        for part in name.split(' ').skip(1) {
            *parts.entry(part.to_owned()).or_insert(true) &= refused;
        }
    }
    let always: Vec<&str> =
        parts.iter().filter(|(_, refused)| **refused).map(|(part, _)| part.as_str()).collect();
    assert_eq!(always, wrong::PARTS_REFUSED_BY_RSIP);
}

/// A message that both hold goes there and back and means the same.
#[test]
fn conversions_keep_what_rsip_can_hold() {
    let mut held = 0;
    for sample in samples() {
        let Ok(Some(message)) = sip::datagram(sample.wire.clone(), &sip::Limits::default()) else { continue };
        let Ok(theirs) = rsip::SipMessage::try_from(&message) else { continue };
        let again = sip::Message::try_from(&theirs).unwrap();
        held += 1;
        let fields = |m: &sip::Message| {
            let kept = m.headers().named().filter(|(n, _)| *n != sip::Name::ContentLength);
            kept.map(|(n, v)| (n, v.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!((fields(&again), again.body()), (fields(&message), message.body()), "{}", sample.name);
        match (&message, &again) {
            (sip::Message::Request(a), sip::Message::Request(b)) => {
                assert_eq!(a.method, b.method);
                assert!(a.uri.equivalent(&b.uri), "{}: {} {}", sample.name, a.uri, b.uri);
            }
            (sip::Message::Response(a), sip::Message::Response(b)) => assert_eq!(a.code, b.code),
            _ => panic!("{}", sample.name),
        }
    }
    assert!(held > 200, "{held}");
}
