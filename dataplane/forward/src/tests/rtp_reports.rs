//! Our own RTCP, leg by leg (RFC 3550 §6, RFC 7667 §3.7), and what peers' RTCP tells.

use contract::{Direction, LegCounters, Mode, PayloadMap, RtcpAgreed, news};
use rtp::{Dlrr, Extended, Feedback, Packet, RtcpWriter, SenderInfo, WriteExtended, compound};

use super::rig::*;
use crate::{Drop, Limits};

fn agreed(n: u64, change: impl FnOnce(&mut RtcpAgreed)) -> contract::Leg {
    edit(rtp_leg(n), |rtp| {
        let mut agreed = RtcpAgreed::default();
        change(&mut agreed);
        rtp.rtcp = Some(Box::new(agreed));
    })
}

fn room_of(legs: Vec<contract::Leg>) -> Rig {
    let mut rig = Rig::new();
    let ids: Vec<u64> = legs.iter().map(|leg| leg.id).collect();
    rig.set(legs, vec![path(1, Mode::Distribute, &ids, &ids)]);
    rig
}

/// The RTCP packets that went to leg `n`'s peer; each datagram keeps to its bounds.
fn told(done: &[Done], n: u64) -> Vec<Packet<'_>> {
    let to = sent(done).into_iter().filter(|(s, b)| *s == socket(n) && rtp::kind(b) == rtp::Kind::Rtcp);
    to.flat_map(|(_, bytes)| {
        assert!(bytes.len() <= rtp::RTCP_MAX);
        compound(bytes, true).unwrap()
    })
    .collect()
}

fn senders(done: &[Done], n: u64) -> Vec<SenderInfo> {
    told(done, n)
        .into_iter()
        .filter_map(|p| if let Packet::Sender(info, _) = p { Some(info) } else { None })
        .collect()
}

fn names(done: &[Done], n: u64) -> Vec<(u32, String)> {
    let mut names: Vec<(u32, String)> = told(done, n)
        .into_iter()
        .filter_map(|p| if let Packet::Description(chunks) = p { Some(chunks) } else { None })
        .flatten()
        .map(|c| (c.ssrc, String::from_utf8(c.cname().unwrap().to_vec()).unwrap()))
        .collect();
    names.sort();
    names.dedup();
    names
}

fn counters(rig: &Rig, leg: u64) -> LegCounters {
    let (_, counters) = rig.engine.counters(rig.now, None).unwrap();
    counters.legs.into_iter().find(|c| c.leg == Some(key(leg))).unwrap()
}

#[test]
fn a_sender_report_counts_what_that_receiver_was_sent_under_that_ssrc() {
    // RFC 3550 §6.4.1: packets and octets of this SSRC, to this receiver; another SSRC begins anew.
    let map = |n, types: &[u32]| {
        edit(rtp_leg(n), |rtp| {
            rtp.payloads =
                types.iter().map(|t| PayloadMap { peer: *t, context: *t, ..PayloadMap::default() }).collect()
        })
    };
    let mut rig = room_of(vec![map(1, &[0, 101]), map(2, &[0, 101]), map(3, &[0])]);
    let mut done = Vec::new();
    for n in 0..500u16 {
        // Two sources at once, one of them with events that leg 3 has not agreed to.
        let event = if n % 5 == 0 { 101 } else { 0 };
        rig.hear_peer(1, &packet(5, n, 160 * u32::from(n), event, &[1; 100]));
        if n >= 250 {
            rig.hear_peer(1, &packet(6, n, 160 * u32::from(n), 0, &[1; 50]));
        }
        done.extend(rig.run(20));
    }
    let last =
        |done: &[Done], leg, ssrc| senders(done, leg).into_iter().rev().find(|i| i.ssrc == ssrc).unwrap();
    for (leg, all) in [(2, true), (3, false)] {
        let five = last(&done, leg, 5);
        let six = last(&done, leg, 6);
        assert_eq!((five.octets, six.octets), (five.packets * 100, six.packets * 50), "{leg}");
        // The last reports are at most 6.2 s old.
        let least = if all { 190 } else { 150 };
        assert!(
            (least..=500).contains(&five.packets) && (1..=250).contains(&six.packets),
            "{five:?} {six:?}"
        );
        if !all {
            assert!(five.packets <= 400, "events were not sent to it: {five:?}");
        }
    }
    let (two, three) = (counters(&rig, 2), counters(&rig, 3));
    assert_eq!((two.packets_out, three.packets_out), (750, 650), "our own RTCP is no media");
}

#[test]
fn a_distributed_sources_reports_lie_on_its_own_clock() {
    // CPM-FACTS §4.2: the receiver keeps audio and video of one participant together by the source's NTP times.
    let mut rig = room_of(vec![rtp_leg(1), rtp_leg(2)]);
    let ntp = 0xe000_0000_8000_0000_u64;
    rig.hear_peer(1, &packet(5, 1, 1000, 0, &[1; 160]));
    let mut writer = RtcpWriter::new();
    writer.sender(&SenderInfo { ssrc: 5, ntp, timestamp: 80_000, packets: 1, octets: 160 }, &[]);
    rig.hear_peer(1, &writer.finish());
    let heard = rig.now.mono;
    let mut found = 0;
    for n in 2..1000u16 {
        rig.hear_peer(1, &packet(5, n, 160 * u32::from(n), 0, &[1; 160]));
        let done = rig.run(20);
        for info in senders(&done, 2) {
            // Both have gone on by the same time.
            let passed = info.ntp.wrapping_sub(ntp);
            let ms = (passed >> 32) * 1000 + (((passed & 0xffff_ffff) * 1000) >> 32);
            let ticks = u64::from(info.timestamp.wrapping_sub(80_000));
            assert!(ticks.abs_diff(ms * 8) <= 16, "{ms} ms, {ticks} ticks");
            assert!(ms <= rig.now.mono.since(heard).as_millis() as u64);
            found += 1;
        }
    }
    assert!(found >= 2);
}

#[test]
fn audio_and_video_of_one_participant_have_one_name_and_others_have_others() {
    // RFC 3550 §6.5.1, RFC 7022 §4.2: drawn, where control names none.
    let nameless = |n, who: &str, video| contract::Leg {
        participant: who.into(),
        ..edit(rtp_leg(n), |rtp| (rtp.cname, rtp.video) = (String::new(), video))
    };
    let legs = vec![
        nameless(1, "ann", false),
        nameless(2, "ann", true),
        nameless(3, "bob", false),
        nameless(4, "", false),
        nameless(5, "", false),
        rtp_leg(6),
    ];
    let mut rig = room_of(legs);
    let mut done = Vec::new();
    for n in 0..400u16 {
        for leg in 1..6u64 {
            rig.hear_peer(leg, &packet(leg as u32, n, 160 * u32::from(n), 0, &[1]));
        }
        done.extend(rig.run(20));
    }
    let names: std::collections::BTreeMap<u32, String> = names(&done, 6).into_iter().collect();
    assert_eq!(names[&1], names[&2]);
    let all: std::collections::BTreeSet<_> = (1..6).map(|ssrc| &names[&ssrc]).collect();
    assert_eq!(all.len(), 4, "{names:?}");
    assert!(all.iter().all(|name| name.len() >= 16 && !name.contains("ann")), "{names:?}");
}

#[test]
fn every_source_of_a_large_room_is_reported_in_compounds_of_any_mtu() {
    let ids: Vec<u64> = (1..=60).collect();
    let mut rig = Rig::new();
    let name = "a-name-that-is-as-long-as-names-may-be-".repeat(7);
    rig.set(
        ids.iter().map(|n| edit(rtp_leg(*n), |rtp| rtp.cname = name[..200].into())).collect(),
        vec![path(1, Mode::Distribute, &ids, &ids)],
    );
    let mut done = Vec::new();
    for n in 0..400u16 {
        for leg in &ids {
            rig.hear_peer(*leg, &packet(*leg as u32, n, 160 * u32::from(n), 0, &[1]));
        }
        done.extend(rig.run(20));
    }
    let reported: std::collections::BTreeSet<u32> = senders(&done, 1).into_iter().map(|i| i.ssrc).collect();
    assert_eq!(reported, (2..=60).collect());
    for (_, bytes) in sent(&done).into_iter().filter(|(_, b)| rtp::kind(b) == rtp::Kind::Rtcp) {
        assert!(compound(bytes, false).unwrap().is_full(), "a report first and a name in it (RFC 3550 §6.1)");
    }
}

#[test]
fn reports_come_in_their_interval_and_sooner_with_early_feedback() {
    // RFC 3550 §6.3.1: half to one and a half of five seconds, over 1.218. RFC 4585 §3.4: sooner with AVPF.
    let mut rig = room_of(vec![rtp_leg(1), agreed(2, |a| a.nack = true)]);
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..30_000u64 {
        if n % 100 == 0 {
            rig.hear_peer(1, &packet(5, n as u16, 0, 0, &[1]));
        }
        let done = rig.run(10);
        for (leg, times) in [1, 2].into_iter().zip(&mut times) {
            if !told(&done, leg).is_empty() {
                times.push(n * 10);
            }
        }
    }
    for (times, low, high) in [(&times[0], 2040, 6170), (&times[1], 400, 1250)] {
        let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.len() > 40 && gaps.iter().all(|gap| (low..=high).contains(gap)), "{gaps:?}");
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(most - least > low / 2, "drawn, not fixed: {gaps:?}");
    }
}

#[test]
fn the_round_trip_is_known_where_reports_end_and_where_they_pass() {
    // RFC 3550 §6.4.1.
    let mut rig = room_of(vec![rtp_leg(1), rtp_leg(2)]);
    let mut done = Vec::new();
    while senders(&done, 2).is_empty() {
        rig.hear_peer(1, &packet(5, 1, 0, 0, &[1]));
        done = rig.run(10);
    }
    let info = senders(&done, 2)[0];
    rig.pass(120);
    let block = rtp::Block {
        ssrc: 5,
        cumulative_lost: 3,
        jitter: 80,
        last_sr: info.ntp_middle(),
        // It waited 50 ms of the 120.
        delay: 65_536 / 20,
        ..rtp::Block::default()
    };
    let mut writer = RtcpWriter::new();
    writer.receiver(9, &[block]);
    rig.hear_peer(2, &writer.finish());
    let heard = counters(&rig, 2);
    assert!((69_900..=80_100).contains(&heard.round_trip_us), "{heard:?}");
    assert_eq!((heard.lost_out, heard.jitter_out_us), (3, 10_000));
    assert!(heard.mos_out_centi > 100 && counters(&rig, 1).round_trip_us == 0);

    let mut rig = Rig::new();
    rig.set(
        vec![rtp_leg(1), rtp_leg(2)],
        vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])],
    );
    let mut writer = RtcpWriter::new();
    writer.sender(&SenderInfo { ssrc: 5, ntp: 77 << 16, timestamp: 0, packets: 1, octets: 1 }, &[]);
    assert_eq!(sockets(&rig.hear_peer(1, &writer.finish())), [socket(2)], "passed as it is");
    rig.pass(40);
    let mut writer = RtcpWriter::new();
    writer.receiver(9, &[rtp::Block { ssrc: 5, last_sr: 77, ..rtp::Block::default() }]);
    assert_eq!(sockets(&rig.hear_peer(2, &writer.finish())), [socket(1)]);
    assert_eq!(counters(&rig, 2).round_trip_us, 40_000, "from here to the receiver and back");
}

#[test]
fn a_receiver_learns_the_round_trip_by_extended_reports_where_agreed() {
    // RFC 3611 §4.4, §4.5.
    let mut rig = room_of(vec![agreed(1, |a| a.extended = true), rtp_leg(2)]);
    let clock = RtcpWriter::new()
        .receiver(70, &[])
        .extended(70, &[WriteExtended::ReceiverReference(rtp::Ntp(0x1111_2222_3333_4444))])
        .finish();
    rig.hear_peer(1, &clock);
    rig.hear_peer(2, &clock);
    let mut ours = None;
    let mut answered = 0;
    for _ in 0..20 {
        let done = rig.run(1000);
        for packet in told(&done, 1) {
            let Packet::Extended(ssrc, blocks) = packet else { continue };
            for block in blocks {
                match block {
                    Extended::ReceiverReference(ntp) => ours = Some((ssrc, (ntp >> 16) as u32)),
                    Extended::Dlrr(list) => {
                        let list: Vec<Dlrr> = list.collect();
                        assert_eq!((list.len(), list[0].ssrc, list[0].last), (1, 70, 0x2222_3333));
                        answered += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(!told(&done, 2).iter().any(|p| matches!(p, Packet::Extended(..))), "not agreed there");
    }
    let (ssrc, last) = ours.expect("our clock, for we send nothing");
    assert!(answered > 0);
    let echo = RtcpWriter::new()
        .receiver(70, &[])
        .extended(70, &[WriteExtended::Dlrr(&[Dlrr { ssrc, last, delay: 0 }])])
        .finish();
    rig.hear_peer(1, &echo);
    assert!(counters(&rig, 1).round_trip_us > 0);
}

#[test]
fn key_frames_are_asked_for_per_source_in_the_words_that_were_agreed() {
    // RFC 5104 §4.3.1.1, RFC 5506: FIR with growing numbers, by itself where reduced size was agreed.
    let video = |n, change: fn(&mut RtcpAgreed)| edit(agreed(n, change), |rtp| rtp.video = true);
    let mut rig =
        room_of(vec![video(1, |a| (a.fir, a.reduced) = (true, true)), video(2, |_| {}), video(3, |_| {})]);
    for ssrc in [5, 6] {
        rig.hear_peer(1, &packet(ssrc, 1, 0, 96, &[1]));
    }
    let fir = |number| RtcpWriter::new().receiver(9, &[]).full_intra(9, 5, number).finish();
    let asked = |done: &[Done]| -> Vec<(u32, u8)> {
        // Reports come too, now and then.
        let to = sent(done).into_iter().filter(|(s, b)| *s == socket(1) && b[1] == 206);
        to.map(|(_, bytes)| {
            let all: Vec<_> = compound(bytes, true).unwrap().collect();
            let [Packet::Payload(feedback)] = all[..] else { panic!("{all:?}") };
            assert_eq!(feedback.format, Feedback::FIR);
            feedback.full_intra().next().unwrap()
        })
        .collect()
    };
    assert_eq!(asked(&rig.hear_peer(2, &fir(1))), [(5, 1)]);
    // The other source has not been asked yet.
    let pli = RtcpWriter::new().receiver(9, &[]).picture_loss(9, 6).finish();
    assert_eq!(asked(&rig.hear_peer(3, &pli)), [(6, 1)]);
    rig.run(600);
    assert!(asked(&rig.hear_peer(2, &fir(1))).is_empty(), "the same number is the same request");
    assert_eq!(asked(&rig.hear_peer(2, &fir(2))), [(5, 2)]);
    assert!(asked(&rig.hear_peer(2, &fir(3))).is_empty(), "within 500 ms");
    assert!(asked(&rig.hear_peer(3, &pli)).len() == 1, "its 500 ms are over");
    assert_eq!(asked(&rig.run(510)), [(5, 3)], "what waited, once");
}

#[test]
fn a_source_is_told_the_least_that_its_receivers_can_take() {
    // CPM-FACTS §4.3; draft-alvestrand-rmcat-remb-03; RFC 5104 §4.2.
    let mut rig =
        room_of(vec![agreed(1, |a| a.remb = true), rtp_leg(2), agreed(3, |a| a.tmmbr = true), rtp_leg(4)]);
    rig.hear_peer(1, &packet(5, 1, 0, 96, &[1]));
    let remb = |bits| RtcpWriter::new().receiver(9, &[]).receiver_estimate(9, bits, &[5]).finish();
    let estimates = |done: &[Done]| -> Vec<u64> {
        let all = told(done, 1).into_iter();
        all.filter_map(|p| if let Packet::Payload(f) = p { f.receiver_estimate() } else { None })
            .map(|e| {
                assert_eq!(e.ssrcs.collect::<Vec<_>>(), [5]);
                e.bits_per_second
            })
            .collect()
    };
    assert_eq!(estimates(&rig.hear_peer(2, &remb(1_000_000))), [1_000_000]);
    assert!(estimates(&rig.hear_peer(2, &remb(900_000))).is_empty(), "told just now");
    rig.pass(250);
    // Another receiver can take less: it is told, and the receiver that its word binds.
    let tmmbr = RtcpWriter::new()
        .receiver(8, &[])
        .rate_request(8, &[rtp::TmmbrEntry { ssrc: 5, bits_per_second: 256_000, overhead: 40 }])
        .finish();
    let done = rig.hear_peer(3, &tmmbr);
    assert_eq!(estimates(&done), [256_000]);
    let bound = told(&done, 3).into_iter().find_map(|p| match p {
        Packet::Transport(f) if f.format == Feedback::TMMBN => f.limits().next(),
        _ => None,
    });
    assert_eq!(bound, Some(rtp::TmmbrEntry { ssrc: 8, bits_per_second: 256_000, overhead: 40 }));
    rig.pass(1100);
    assert_eq!(estimates(&rig.hear_peer(2, &remb(2_000_000))), [256_000], "the least of all");
    assert_eq!(counters(&rig, 3).bandwidth_bps, 256_000);
    assert_eq!(counters(&rig, 2).bandwidth_bps, 2_000_000);
    // Who says nothing any more binds nobody.
    rig.pass(20_000);
    rig.hear_peer(1, &packet(5, 2, 0, 96, &[1]));
    assert_eq!(estimates(&rig.hear_peer(2, &remb(3_000_000))), [3_000_000]);
    assert!(told(&rig.hear_peer(4, &tmmbr), 4).is_empty(), "not agreed: heard, but not answered");
}

// draft-holmer-rmcat-transport-wide-cc-extensions-01: who numbers his packets is told when they came.
#[test]
fn who_agreed_to_transport_wide_feedback_is_told_of_each_packet() {
    let numbered = |n: u16, number: u16| {
        let mut bytes = packet(5, n, 3000 * u32::from(n), 96, &[]);
        bytes[0] |= 0x10;
        let [high, low] = number.to_be_bytes();
        bytes.extend([0xbe, 0xde, 0, 1, 5 << 4 | 1, high, low, 0, 7, 7]);
        bytes
    };
    let peer = |id| agreed(1, move |a| (a.transport_wide, a.transport_wide_id) = (true, id));
    for id in [5, 0] {
        let mut rig = room_of(vec![peer(id), rtp_leg(2)]);
        let mut done = Vec::new();
        for n in 0..40u16 {
            if n % 10 != 3 {
                done.extend(rig.hear_peer(1, &numbered(n, n.wrapping_add(65_530))));
            }
            done.extend(rig.run(20));
        }
        let (mut spoken, mut missing, mut next, mut numbers) = (0, 0, 65_530u16, 0u8);
        for packet in told(&done, 1) {
            let Packet::Transport(feedback) = packet else { continue };
            let wide = feedback.transport_wide().unwrap();
            assert_eq!((feedback.media, wide.first, wide.number), (5, next, numbers));
            let mut last = None;
            for (number, moment) in wide.arrivals() {
                assert_eq!(number, next);
                next = next.wrapping_add(1);
                spoken += 1;
                missing += usize::from(moment.is_none());
                // 20 ms apart, in units of 250 us.
                if let (Some((before, at)), Some(moment)) = (last, moment) {
                    assert_eq!(moment - at, 80 * i32::from(number.wrapping_sub(before)));
                }
                last = moment.map(|moment| (number, moment)).or(last);
            }
            numbers += 1;
        }
        assert_eq!(
            (spoken >= 30, missing >= 3, numbers >= 5),
            (id != 0, id != 0, id != 0),
            "{spoken} {missing}"
        );
        rig.check_sum();
    }
}

#[test]
fn one_receiver_that_can_take_nothing_silences_no_source() {
    for (floor, told_bits) in [(Limits::default().estimate_min_kbps, 64_000), (30, 30_000)] {
        let limits = Limits { sockets_max: 64, estimate_min_kbps: floor, ..Limits::default() };
        let mut rig = Rig::with(limits);
        let legs = vec![agreed(1, |a| a.remb = true), agreed(2, |a| a.tmmbr = true), rtp_leg(3), rtp_leg(4)];
        rig.set(legs, vec![path(1, Mode::Distribute, &[1, 2, 3, 4], &[1, 2, 3, 4])]);
        rig.hear_peer(1, &packet(5, 1, 0, 96, &[1]));
        rig.hear_peer(2, &packet(6, 1, 0, 96, &[1]));
        let remb = RtcpWriter::new().receiver(9, &[]).receiver_estimate(9, 0, &[5]).finish();
        let done = rig.hear_peer(3, &remb);
        let said = told(&done, 1).into_iter().find_map(|p| match p {
            Packet::Payload(f) => f.receiver_estimate().map(|e| e.bits_per_second),
            _ => None,
        });
        // REMB has a mantissa of 18 bits.
        assert_eq!(said, Some(told_bits));
        let limit = told(&done, 2).into_iter().find_map(|p| match p {
            Packet::Transport(f) if f.format == Feedback::TMMBR => f.limits().next(),
            _ => None,
        });
        assert_eq!(limit.map(|l| l.bits_per_second), Some(told_bits));
        assert_eq!(counters(&rig, 3).bandwidth_bps, 0, "what it said itself is not hidden");
    }
}

#[test]
fn over_its_bandwidth_nothing_passes_and_all_is_counted() {
    let mut rig = Rig::with(Limits { sockets_max: 64, police_burst_ms: 100, ..Limits::default() });
    rig.set(
        vec![edit(rtp_leg(1), |rtp| rtp.bandwidth_kbps = 80), rtp_leg(2)],
        vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])],
    );
    let (mut there, mut back) = (0, 0);
    for n in 0..1000u16 {
        // 160 kbit/s each way; 80 were agreed in one.
        for half in 0..2 {
            let voice = packet(5, 2 * n + half, 0, 0, &[1; 160]);
            there += rig.hear_peer(1, &voice).len();
            back += rig.hear_peer(2, &voice).len();
        }
        rig.pass(20);
    }
    assert!((1000..=1010).contains(&there), "{there}");
    assert_eq!(back, 2000);
    let heard = counters(&rig, 1);
    assert_eq!((heard.policed, heard.dropped), (2000 - there as u64, 2000 - there as u64));
    assert_eq!(rig.engine.dropped(Drop::Bandwidth), heard.policed);
    rig.check_sum();
}

#[test]
fn rtcp_is_no_way_around_the_agreed_bandwidth() {
    for (min, octets) in [(256, 600_000..=650_000), (512, 1_200_000..=1_300_000)] {
        rtcp_within(min, octets);
    }
}

fn rtcp_within(rtcp_min_kbps: u32, wanted: std::ops::RangeInclusive<usize>) {
    let limits = Limits { sockets_max: 64, police_burst_ms: 100, rtcp_min_kbps, ..Limits::default() };
    let mut rig = Rig::with(limits);
    rig.set(
        vec![edit(rtp_leg(1), |rtp| rtp.bandwidth_kbps = 80), rtp_leg(2)],
        vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])],
    );
    // RR, and an APP (RFC 3550 §6.7) that fills the datagram: 960 octets.
    let mut compound = RtcpWriter::new().receiver(5, &[]).finish().to_vec();
    compound.extend([0x80, 204, 0, 237, 0, 0, 0, 5]);
    compound.resize(960, 0);
    let mut octets = 0;
    for _ in 0..1000 {
        for _ in 0..10 {
            octets += sent(&rig.hear_peer(1, &compound)).iter().map(|(_, b)| b.len() + 28).sum::<usize>();
        }
        // What media has agreed to is not used up by it.
        assert_eq!(rig.hear_peer(1, &packet(5, 1, 0, 0, &[1; 120])).len(), 1);
        rig.pass(20);
    }
    assert!(wanted.contains(&octets), "{octets} in 20 s: {rtcp_min_kbps} kbit/s");
    assert_eq!(rig.engine.dropped(Drop::Bandwidth), counters(&rig, 1).policed);
    rig.check_sum();
}

#[test]
fn silence_on_hold_does_not_count_and_after_it_counts_anew() {
    // CPM-FACTS §4.7.
    let leg = |direction| directed(edit(rtp_leg(1), |rtp| rtp.media_timeout_ms = 60_000), direction);
    let mut rig = Rig::new();
    rig.set(vec![leg(Direction::Sendrecv), rtp_leg(2)], vec![path(1, Mode::Relay, &[1], &[2])]);
    let lost = |done: &[Done]| news(done).iter().filter(|n| matches!(n, news::What::LegLost(_))).count();
    rig.hear_peer(1, &packet(5, 1, 0, 0, &[1]));
    for held in [Direction::Recvonly, Direction::Inactive] {
        rig.put(vec![put_leg(leg(held))]);
        assert_eq!(lost(&rig.run(300_000)), 0, "{held:?}");
        rig.put(vec![put_leg(leg(Direction::Sendrecv))]);
        assert_eq!(lost(&rig.run(59_000)), 0, "the minute begins with the end of the hold");
    }
    assert_eq!(lost(&rig.run(61_000)), 1);
    assert_eq!(lost(&rig.run(300_000)), 0, "once");
}

#[test]
fn a_leg_that_goes_leaves_its_last_counters() {
    let mut rig = room_of(vec![agreed(1, |a| a.codec = "PCMU".into()), rtp_leg(2), rtp_leg(3)]);
    for n in [0u16, 1, 3, 2, 2, 5, 6, 7, 8, 9] {
        rig.hear_peer(1, &packet(5, n, 160 * u32::from(n), 0, &[1; 160]));
        rig.pass(20);
    }
    // A source that is gone counts on.
    rig.hear_peer(1, &RtcpWriter::new().receiver(5, &[]).bye(&[5]).finish());
    let done = rig.put(vec![contract::change::Verb::RemoveLeg(key(1))]);
    let last: Vec<_> = news(&done)
        .into_iter()
        .filter_map(|n| if let news::What::Counters(c) = n { Some(&c.legs) } else { None })
        .flatten()
        .collect();
    assert_eq!(last.len(), 1, "only of the leg that goes");
    let last = last[0];
    assert!(last.ended && last.leg == Some(key(1)) && !last.video);
    assert_eq!((last.packets_in, last.lost, last.reordered, last.duplicates), (10, 1, 1, 1));
    assert_eq!(last.up_ms, 200);
    assert!((100..=441).contains(&last.mos_centi), "{last:?}");
    assert!(!counters(&rig, 2).ended);
    let done = rig.put(vec![contract::change::Verb::RemoveContext(CONTEXT)]);
    let last =
        news(&done).into_iter().filter_map(|n| if let news::What::Counters(c) = n { Some(c) } else { None });
    assert_eq!(last.map(|c| c.legs.len()).sum::<usize>(), 2);
}

// A call ends one leg after the other: the second one's record had nothing of what it was sent.
#[test]
fn what_a_leg_was_sent_counts_when_its_source_has_gone_before_it() {
    for mode in [Mode::Relay, Mode::Distribute] {
        let mut rig = Rig::new();
        rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![path(1, mode, &[1], &[2]), path(2, mode, &[2], &[1])]);
        for n in 0..10u16 {
            rig.hear_peer(1, &packet(5, n, 160 * u32::from(n), 0, &[1; 160]));
        }
        let before = counters(&rig, 2);
        rig.put(vec![contract::change::Verb::RemoveLeg(key(1))]);
        let after = counters(&rig, 2);
        assert!(before.packets_out >= 10 && after.packets_out >= before.packets_out, "{mode:?}: {after:?}");
        assert!(after.bytes_out >= before.bytes_out, "{mode:?}: {after:?}");
    }
}

#[test]
fn a_leg_is_recorded_by_itself() {
    let mut rig = room_of(vec![rtp_leg(1), rtp_leg(2)]);
    assert!(rig.engine.is_recordable(CONTEXT, 1) && !rig.engine.is_recordable(CONTEXT, 9));
    let capture = |rig: &mut Rig, leg, on| rig.input(crate::Input::Capture { context: CONTEXT, leg, on });
    let spooled = |done: Vec<Done>| -> Vec<Option<u64>> {
        done.into_iter().filter_map(|d| if let Done::Spooled(p) = d { Some(p.leg) } else { None }).collect()
    };
    capture(&mut rig, Some(1), true);
    let voice = packet(5, 1, 0, 0, &[1]);
    assert_eq!(spooled(rig.hear_peer(1, &voice)), [Some(1)]);
    assert!(
        spooled(rig.hear_peer(2, &packet(6, 1, 0, 0, &[1]))).is_empty(),
        "what it is sent is not its own"
    );
    assert_eq!(spooled(rig.hear_peer(1, &RtcpWriter::new().receiver(5, &[]).finish())), [Some(1)]);
    // Beside a capture of the whole context, each in its own file.
    capture(&mut rig, None, true);
    assert_eq!(spooled(rig.hear_peer(1, &packet(5, 2, 0, 0, &[1]))), [None, Some(1), None]);
    capture(&mut rig, None, false);
    assert_eq!(spooled(rig.hear_peer(1, &packet(5, 3, 0, 0, &[1]))), [Some(1)]);
    capture(&mut rig, Some(1), false);
    assert!(spooled(rig.hear_peer(1, &packet(5, 4, 0, 0, &[1]))).is_empty());
}

// Hostile reading 4, finding 3: a datagram holds fifty estimates, each was a sum over all receivers of all sources, and each of
// those one over all that it is sent.
#[test]
fn what_all_receivers_can_take_is_summed_up_five_times_a_second_at_most() {
    let mut rig = room_of(vec![agreed(1, |a| a.remb = true), rtp_leg(2), rtp_leg(3)]);
    rig.hear_peer(1, &packet(5, 1, 0, 96, &[1]));
    let remb = |bits| RtcpWriter::new().receiver(9, &[]).receiver_estimate(9, bits, &[5]).finish();
    let mut steps = Vec::new();
    for (ms, bits) in [(0, 1_000_000), (210, 1_000_000), (60, 200_000), (100, 200_000), (50, 200_000)] {
        rig.pass(ms);
        steps.push(told(&rig.hear_peer(2, &remb(bits)), 1).len());
    }
    assert_eq!(steps.iter().map(|told| usize::from(*told > 0)).collect::<Vec<_>>(), [1, 0, 0, 0, 1]);
}
