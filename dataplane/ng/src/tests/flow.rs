//! Calls as Kamailio sends them.

use std::time::Duration;

use contract::refusal::Reason;
use contract::{Counters, Learning, LegCounters, LegKey, Mode};

use super::rig::{Rig, answer, offer, sdp, short};
use crate::{Input, Value};

const AUDIO: &str = "m=audio 5004 RTP/AVP 0 8\na=rtcp-mux\na=candidate:1 1 UDP 1 203.0.113.1 5004 typ host\n";

fn text(reply: &Value) -> String {
    assert_eq!(reply.text("result"), Some("ok"), "{:?}", reply.text("error-reason"));
    reply.text("sdp").unwrap().replace("\r\n", "\n")
}

fn refused(reply: &Value) -> &str {
    assert_eq!(reply.text("result"), Some("error"));
    reply.text("error-reason").unwrap()
}

#[test]
fn a_call_from_offer_to_delete() {
    let mut rig = Rig::new(|_| {});
    let told = text(&rig.ask(offer(&sdp("203.0.113.1", AUDIO))));
    assert_eq!(
        told,
        "v=0\no=- 7 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\nm=audio 40002 RTP/AVP 0 8\na=rtcp-mux\n\
         a=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\na=sendrecv\n"
    );
    // Before the answer nobody is learned.
    let (_, caller) = rig.leg(1);
    assert_eq!(caller.remote.as_ref().unwrap().socket(), Some("203.0.113.1:5004".parse().unwrap()));
    assert_eq!((caller.learning(), caller.rtcp_mux), (Learning::Strict, false));
    assert_eq!(rig.leg(2).1.remote, None);

    let told = text(&rig.ask(answer(&sdp("203.0.113.2", "m=audio 6000 RTP/AVP 0\n"))));
    assert!(told.contains("m=audio 40000 RTP/AVP 0\n") && told.contains("a=rtcp-mux\n"), "{told}");
    assert!(told.contains("c=IN IP4 192.0.2.1\n") && !told.contains("203.0.113"), "{told}");
    let (_, callee) = rig.leg(2);
    assert_eq!(callee.remote.as_ref().unwrap().socket(), Some("203.0.113.2:6000".parse().unwrap()));
    assert_eq!((callee.learning(), callee.learning_ms, callee.rtcp_mux), (Learning::Window, 5000, false));
    assert!(rig.leg(1).1.rtcp_mux, "the caller asked for it");
    let ways: Vec<_> = rig
        .paths
        .values()
        .map(|p| (p.mode(), p.sources.clone().unwrap().legs, p.targets.clone().unwrap().legs))
        .collect();
    assert_eq!(ways, [(Mode::Relay, vec![1], vec![2]), (Mode::Relay, vec![2], vec![1])]);
    assert!(rig.adapter.owns(rig.contexts[0]));

    let query = rig.ask(short("query"));
    let totals = |reply: &Value| {
        let rtp = reply.get("totals").unwrap().get("RTP").unwrap();
        (rtp.number("packets").unwrap(), rtp.number("bytes").unwrap())
    };
    assert_eq!(totals(&query), (300, 48_000));
    let over = rig.ask(short("delete"));
    assert_eq!((over.text("result"), totals(&over)), (Some("ok"), (300, 48_000)));
    let tag = over.get("tags").unwrap().get("a").unwrap();
    assert_eq!((tag.text("tag"), tag.text("in dialogue with")), (Some("a"), Some("b")));
    assert!(rig.contexts.is_empty() && rig.legs.is_empty() && rig.paths.is_empty());
    assert_eq!(rig.adapter.tally().calls, 0);
    let again = rig.ask(short("delete"));
    assert!(again.text("warning").is_some() && again.text("result") == Some("ok"));
    assert_eq!(refused(&rig.ask(answer(&sdp("203.0.113.2", AUDIO)))), "Unknown call-id");
}

#[test]
fn a_retransmission_is_answered_again_and_changes_nothing() {
    let mut rig = Rig::new(|_| {});
    let body = offer(&sdp("203.0.113.1", AUDIO));
    let frame = crate::frame::Frame { cookie: b"5_1".to_vec(), encoding: crate::frame::Encoding::Json, body };
    rig.silent = true;
    assert!(rig.octets(&frame.to_octets()).is_empty());
    assert!(rig.octets(&frame.to_octets()).is_empty(), "it is worked on");
    rig.silent = false;
    assert_eq!(rig.late.len(), 1);
    let order = rig.late.remove(0);
    rig.obey(order);
    let first = rig.perform();
    assert_eq!(first.len(), 1);
    assert_eq!(rig.octets(&frame.to_octets()), first);
    assert_eq!((rig.contexts.len(), rig.adapter.tally().retransmissions), (1, 2));
}

#[test]
fn a_second_offer_from_either_side_keeps_the_ports() {
    let mut rig = Rig::new(|_| {});
    rig.ask(offer(&sdp("203.0.113.1", AUDIO)));
    rig.ask(answer(&sdp("203.0.113.2", AUDIO)));
    // The callee holds, from another port.
    let held = sdp("203.0.113.2", "m=audio 6002 RTP/AVP 0\na=sendonly\n");
    let body = Value::dictionary()
        .with("command", "offer")
        .with("call-id", "call-1")
        .with("from-tag", "b")
        .with("to-tag", "a")
        .with("sdp", held.as_str());
    let told = text(&rig.ask(body));
    assert!(told.contains("m=audio 40000 RTP/AVP 0\n") && told.contains("a=sendonly\n"), "{told}");
    // Without `replace` the rest stays as it was.
    assert!(
        told.contains("o=- 7 1 IN IP4 203.0.113.2\n") && told.contains("\nc=IN IP4 203.0.113.2\nt="),
        "{told}"
    );
    assert!(told.contains("m=audio 40000 RTP/AVP 0\nc=IN IP4 192.0.2.1\n"), "{told}");
    let (leg, callee) = rig.leg(2);
    assert_eq!(callee.remote.as_ref().unwrap().port, 6002);
    assert_eq!(leg.direction(), contract::Direction::Sendonly);
    assert_eq!(rig.legs.len(), 2);
    assert_eq!(refused(&rig.ask(offer(&sdp("203.0.113.1", AUDIO)).renamed("c"))), "Unknown from-tag");
}

impl Value {
    /// With another from-tag.
    fn renamed(self, tag: &str) -> Value {
        let Value::Dictionary(mut pairs) = self else { panic!() };
        pairs.retain(|(key, _)| key != b"from-tag");
        Value::Dictionary(pairs).with("from-tag", tag)
    }
}

#[test]
fn a_line_that_ends_gives_its_legs_back_and_one_that_is_not_ours_passes() {
    let mut rig = Rig::new(|_| {});
    let two = format!(
        "{AUDIO}m=video 5006 RTP/AVP 96\na=rtpmap:96 VP8/90000\nm=message 9 TCP/MSRP *\na=path:msrp://203.0.113.1:9/x;tcp\na=accept-types:*\n"
    );
    let told = text(&rig.ask(offer(&sdp("203.0.113.1", &two))));
    assert!(
        told.contains("m=video 40006 ") && told.contains("a=path:msrp://203.0.113.1:9/x;tcp\n"),
        "{told}"
    );
    assert!(told.contains("m=message 9 TCP/MSRP *\nc=IN IP4 203.0.113.1\n"), "{told}");
    assert_eq!((rig.legs.len(), rig.leg(3).0.media.as_str(), rig.leg(3).1.video), (4, "video", true));
    // The callee takes the audio alone.
    let back = "m=audio 6000 RTP/AVP 0\nm=video 0 RTP/AVP 96\nm=message 0 TCP/MSRP *\n";
    let told = text(&rig.ask(answer(&sdp("203.0.113.2", back))));
    assert!(told.contains("m=video 0 ") && told.contains("m=audio 40000 "), "{told}");
    assert_eq!((rig.legs.len(), rig.paths.len()), (2, 2));
}

#[test]
fn keys_end_here_on_both_sides() {
    const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
    let mut rig = Rig::new(|_| {});
    let line = format!("m=audio 5004 RTP/SAVP 0\na=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\n");
    // From SDES to plain: the callee sees no key.
    let body = offer(&sdp("203.0.113.1", &line)).with("transport-protocol", "RTP/AVP");
    let told = text(&rig.ask(body));
    assert!(told.contains("RTP/AVP 0\n") && !told.contains("crypto"), "{told}");
    let told = text(&rig.ask(answer(&sdp("203.0.113.2", "m=audio 6000 RTP/AVP 0\n"))));
    let crypto: Vec<&str> = told.lines().filter(|l| l.starts_with("a=crypto:")).collect();
    assert_eq!(crypto.len(), 1);
    assert!(crypto[0].starts_with("a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:") && !crypto[0].contains(KEY));
    assert!(told.contains("m=audio 40000 RTP/SAVP 0\n"), "{told}");
    let keys = rig.leg(1).1.srtp.clone().unwrap();
    assert_eq!((keys.send_key.len(), keys.receive_key.len()), (30, 30));
    assert!(rig.leg(2).1.srtp.is_none());
    rig.ask(short("delete"));

    // From plain to SDES: what is offered is ours, and the answer chooses.
    let body = offer(&sdp("203.0.113.1", AUDIO)).with("transport-protocol", "RTP/SAVP");
    let body = body.with("SDES", vec![Value::from("no-AEAD_AES_256_GCM")]);
    let told = text(&rig.ask(body));
    assert!(told.contains("RTP/SAVP 0 8\n") && !told.contains("AEAD_AES_256"), "{told}");
    let tag = told.lines().find(|l| l.contains("AES_CM_128_HMAC_SHA1_80")).unwrap();
    let tag = tag.split([':', ' ']).nth(1).unwrap();
    assert!(rig.leg(2).1.srtp.is_none() && rig.leg(2).1.remote.is_none());
    let plain = rig.ask(answer(&sdp("203.0.113.2", "m=audio 6000 RTP/AVP 0\n")));
    assert_eq!(refused(&plain), "The answer has another transport protocol than the offer");
    let line = format!("m=audio 6000 RTP/SAVP 0\na=crypto:{tag} AES_CM_128_HMAC_SHA1_80 inline:{KEY}\n");
    let told = text(&rig.ask(answer(&sdp("203.0.113.2", &line))));
    assert!(told.contains("m=audio 40004 RTP/AVP 0\n") && !told.contains("crypto"), "{told}");
    assert!(rig.leg(2).1.srtp.is_some() && rig.leg(1).1.srtp.is_none());

    let dtls = "m=audio 5004 UDP/TLS/RTP/SAVPF 0\na=setup:actpass\n";
    let body = offer(&sdp("203.0.113.1", dtls));
    assert_eq!(refused(&rig.ask(body)), "Unsupported transport protocol");
}

#[test]
fn interfaces_addresses_and_codecs_as_the_flags_say() {
    let mut rig = Rig::new(|_| {});
    let words = |list: [&str; 2]| -> Vec<Value> { list.map(Value::from).to_vec() };
    let codec = Value::dictionary().with("strip", vec![Value::from("PCMU")]);
    let body = offer(&sdp("10.0.0.1", AUDIO))
        .with("direction", words(["inside", "outside"]))
        .with("rtcp-mux", vec![Value::from("remove")])
        .with("codec", codec)
        .with("flags", words(["SIP-source-address", "asymmetric"]))
        .with("no-such-flag", "anything");
    let told = text(&rig.ask(body));
    assert!(told.contains("c=IN IP4 198.51.100.1\n") && told.contains("m=audio 40002 RTP/AVP 8\n"), "{told}");
    assert!(!told.contains("rtcp-mux") && !told.contains("PCMU"), "{told}");
    assert_eq!(rig.leg(1).1.remote.as_ref().unwrap().socket(), Some("203.0.113.9:5004".parse().unwrap()));
    rig.ask(answer(&sdp("203.0.113.2", "m=audio 6000 RTP/AVP 8\n")));
    assert_eq!((rig.leg(1).1.learning(), rig.leg(2).1.learning()), (Learning::Strict, Learning::Window));
}

#[test]
fn what_has_no_room_goes_to_the_next_node_and_leaves_nothing() {
    let mut rig = Rig::new(|config| config.calls_max = 1);
    for reason in [Reason::Limit, Reason::NoPort, Reason::Draining] {
        rig.refuses = Some(reason);
        assert_eq!(rig.ask(offer(&sdp("203.0.113.1", AUDIO))).text("result"), Some("load limit"));
    }
    rig.refuses = None;
    assert_eq!(rig.adapter.tally().calls, 0);
    text(&rig.ask(offer(&sdp("203.0.113.1", AUDIO))));
    let Value::Dictionary(mut pairs) = offer(&sdp("203.0.113.1", AUDIO)) else { panic!() };
    pairs.retain(|(key, _)| key != b"call-id");
    let other = Value::Dictionary(pairs).with("call-id", "call-2");
    assert_eq!(rig.ask(other.clone()).text("result"), Some("load limit"));
    rig.ask(short("delete").renamed("a"));
    rig.adapter.drain(true);
    assert_eq!(rig.ask(other).text("result"), Some("load limit"));
}

#[test]
fn requests_of_one_call_wait_for_each_other() {
    let mut rig = Rig::new(|_| {});
    rig.silent = true;
    let frame = |cookie: &str, body| crate::frame::Frame {
        cookie: cookie.as_bytes().to_vec(),
        encoding: crate::frame::Encoding::Bencode,
        body,
    };
    assert!(rig.octets(&frame("1", offer(&sdp("203.0.113.1", AUDIO))).to_octets()).is_empty());
    assert!(rig.octets(&frame("2", answer(&sdp("203.0.113.2", AUDIO))).to_octets()).is_empty());
    assert!(rig.octets(&frame("3", short("delete")).to_octets()).is_empty());
    assert_eq!(rig.late.len(), 1);
    rig.silent = false;
    let order = rig.late.remove(0);
    rig.obey(order);
    let replies = rig.perform();
    let cookies: Vec<&[u8]> = replies.iter().map(|reply| reply.cookie.as_slice()).collect();
    assert_eq!(cookies, [b"1", b"2", b"3"]);
    assert!(replies.iter().all(|reply| reply.body.text("result") == Some("ok")));
    assert!(rig.contexts.is_empty());
}

#[test]
fn what_waits_is_bounded_over_all_calls_and_told_so() {
    let mut rig = Rig::new(|_| {});
    rig.silent = true;
    let (mut asked, mut told) = (0, 0);
    for call in 0..20 {
        for turn in 0..20 {
            let Value::Dictionary(mut pairs) = offer(&sdp("203.0.113.1", AUDIO)) else { panic!() };
            pairs.retain(|(key, _)| key != b"call-id");
            let body = Value::Dictionary(pairs).with("call-id", format!("call-{call}"));
            let cookie = format!("{call}_{turn}").into_bytes();
            let encoding = crate::frame::Encoding::Bencode;
            let replies = rig.octets(&crate::frame::Frame { cookie, encoding, body }.to_octets());
            told += replies
                .iter()
                .map(|reply| refused(&reply.body))
                .filter(|r| r.starts_with("Too many"))
                .count();
            asked += 1;
        }
    }
    // One of each call is under way, sixteen wait behind it while there is room for 256 in all.
    assert_eq!((asked, told, rig.late.len()), (400, 400 - 20 - 256, 20));
    rig.silent = false;
    let mut answered = 0;
    while !rig.late.is_empty() {
        for order in std::mem::take(&mut rig.late) {
            rig.obey(order);
            answered += rig.perform().len();
        }
    }
    assert_eq!((answered, rig.contexts.len()), (276, 20));
}

#[test]
fn orders_without_an_answer_are_bounded() {
    let mut rig = Rig::new(|config| config.cookies_max = 16);
    text(&rig.ask(offer(&sdp("203.0.113.1", AUDIO))));
    rig.silent = true;
    let mut told = 0;
    for turn in 0..2100 {
        let cookie = format!("q{turn}").into_bytes();
        let encoding = crate::frame::Encoding::Json;
        let replies = rig.octets(&crate::frame::Frame { cookie, encoding, body: short("query") }.to_octets());
        told += replies.iter().filter(|reply| refused(&reply.body) == "Too many requests at once").count();
    }
    assert_eq!((told, rig.late.len()), (2100 - 2048, 2048));
}

#[test]
fn a_data_plane_that_does_not_answer_is_waited_for_and_cleaned_up_after() {
    let mut rig = Rig::new(|_| {});
    rig.silent = true;
    let body = offer(&sdp("203.0.113.1", AUDIO));
    let frame =
        crate::frame::Frame { cookie: b"1".to_vec(), encoding: crate::frame::Encoding::Bencode, body };
    assert!(rig.octets(&frame.to_octets()).is_empty());
    let replies = rig.wait(Duration::from_secs(6));
    assert_eq!(refused(&replies[0].body), "The data plane does not answer");
    assert_eq!((rig.late.len(), rig.adapter.tally().calls), (2, 0), "the offer, and its removal");
    rig.silent = false;
    for order in std::mem::take(&mut rig.late) {
        rig.obey(order);
    }
    assert!(rig.contexts.is_empty() && rig.perform().is_empty());
}

#[test]
fn silence_ends_a_call_and_media_keeps_it() {
    let mut rig = Rig::new(|_| {});
    let counted = |rig: &mut Rig, idle_ms| {
        let key = |leg| Some(LegKey::new(*rig.contexts.last().unwrap(), leg));
        let legs = [1, 2].map(|leg| LegCounters { leg: key(leg), idle_ms, ..LegCounters::default() });
        let counters = Counters { legs: legs.to_vec() };
        rig.adapter.handle(rig.now, Input::Counters(&counters), &mut rig.out);
    };
    text(&rig.ask(offer(&sdp("203.0.113.1", AUDIO))));
    text(&rig.ask(answer(&sdp("203.0.113.2", AUDIO))));
    rig.wait(Duration::from_secs(90));
    assert_eq!((rig.contexts.len(), rig.adapter.tally().calls_silent), (0, 1), "nothing was ever said");
    text(&rig.ask(offer(&sdp("203.0.113.1", AUDIO))));
    text(&rig.ask(answer(&sdp("203.0.113.2", AUDIO))));
    counted(&mut rig, 20);
    rig.wait(Duration::from_secs(90));
    assert_eq!(rig.contexts.len(), 1, "somebody spoke");
    counted(&mut rig, 61_000);
    rig.wait(Duration::from_secs(2));
    assert!(rig.contexts.is_empty());
    // An offer without an answer has a time of its own.
    text(&rig.ask(offer(&sdp("203.0.113.1", AUDIO))));
    rig.wait(Duration::from_secs(299));
    assert_eq!(rig.contexts.len(), 1);
    rig.wait(Duration::from_secs(2));
    assert!(rig.contexts.is_empty());
}

#[test]
fn the_other_commands() {
    let mut rig = Rig::new(|_| {});
    let ask = |rig: &mut Rig, command: &str| rig.ask(Value::dictionary().with("command", command));
    assert_eq!(ask(&mut rig, "ping").text("result"), Some("pong"));
    assert_eq!(refused(&ask(&mut rig, "start recording")), "Unrecognized command");
    assert_eq!(refused(&ask(&mut rig, "offer")), "No call-id in message");
    assert_eq!(refused(&ask(&mut rig, "query")), "Unknown call-id");
    assert_eq!(refused(&rig.ask(short("offer"))), "No SDP body in message");
    assert_eq!(refused(&rig.ask(short("answer"))), "No to-tag in message");
    assert_eq!(refused(&rig.ask(short("offer").with("sdp", "nonsense"))), "Failed to parse SDP");
    assert_eq!(refused(&rig.ask(short("delete").with("flags", vec![Value::from("fatal")]))).len(), 38);
    rig.ask(offer(&sdp("203.0.113.1", AUDIO)));
    assert_eq!(ask(&mut rig, "list").words("calls").collect::<Vec<_>>(), ["call-1"]);
    let statistics = ask(&mut rig, "statistics");
    let current = statistics.get("statistics").unwrap().get("currentstatistics").unwrap();
    assert_eq!(current.number("sessionsown"), Some(1));
}
