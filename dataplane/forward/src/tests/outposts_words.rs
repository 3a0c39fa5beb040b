//! What stays with a leg on its own shard, and what crosses between shards about its packets: feedback, clocks, names, keys,
//! counters and captures.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base::{Entropy, Outbox};
use contract::{RtcpAgreed, Srtp, SrtpSuite};
use rtp::srtp::{Inbound, Keying, Outbound, Suite, TRAILER_MAX};
use rtp::{Packet, RtcpWriter};

use super::rig::{CONTEXT, addr, edit, packet, peer, put_leg, rtp_leg, socket};
use super::shards::{Left, Shards, place, reports, three, to};
use crate::{Handed, Input, Output};

#[test]
fn key_frames_are_asked_for_over_shards_once_in_half_a_second() {
    // CPM-FACTS §4.3; RFC 4585 §6.3.1.
    let mut shards = Shards::new(3, 5);
    let video = |n| edit(rtp_leg(n), |rtp| rtp.video = true);
    shards.room((1..=6).map(video).collect());
    let plis = |left: &[Left]| {
        let all = reports(left, 1);
        all.iter().filter(|p| matches!(p, Packet::Payload(f) if f.format == 1 && f.media == 5)).count()
    };
    let first = shards.hear_all(1, &packet(5, 1, 0, 96, &[1]));
    assert_eq!(plis(&first), 1, "its receivers elsewhere have missed what came before");
    let mut writer = RtcpWriter::new();
    writer.receiver(9, &[]).picture_loss(9, 5);
    let ask = writer.finish();
    shards.run(1000);
    let mut asked = 0;
    for n in 0..30 {
        asked += plis(&shards.hear_all(2 + n % 5, &ask));
        asked += plis(&shards.run(10));
    }
    assert_eq!(asked, 1, "300 ms");
    asked += plis(&shards.run(1000));
    assert!((2..=3).contains(&asked), "{asked}: what was asked meanwhile is asked once, each shard's own");
    assert_eq!(plis(&shards.run(2000)), 0);
    // Somebody joins, far from the source.
    shards.left.clear();
    shards.put(vec![put_leg(video(8))]);
    assert_eq!(plis(&shards.left), 1);
}

#[test]
fn what_is_missed_is_answered_on_the_spot_or_asked_of_the_source() {
    let mut shards = Shards::new(3, 5);
    let nack = |n| {
        edit(rtp_leg(n), |rtp| {
            rtp.rtcp = Some(Box::new(RtcpAgreed { nack: true, ..RtcpAgreed::default() }));
        })
    };
    shards.room((1..=6).map(nack).collect());
    for sequence in [10, 11, 13] {
        shards.hear_all(1, &packet(5, sequence, 0, 0, &[sequence as u8]));
    }
    shards.run(100);
    let mut writer = RtcpWriter::new();
    writer.receiver(9, &[]).nack(9, 5, [11, 12].into_iter());
    let handed = shards.engines[1].totals().handed_in;
    let left = shards.hear_all(2, &writer.finish());
    assert_eq!(to(&left, 2), [&packet(5, 11, 0, 0, &[11])[..]], "kept on its own shard");
    let asked: Vec<u16> = reports(&left, 1)
        .into_iter()
        .filter_map(|p| match p {
            Packet::Transport(f) if f.media == 5 => Some(f.lost().collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(asked, [12], "of the source, over the mailbox");
    assert_eq!(shards.engines[1].totals().handed_in, handed + 1);
    // The answer goes to all that miss it.
    assert_eq!(shards.hear_all(1, &packet(5, 12, 0, 0, &[12])).len(), 5);
}

#[test]
fn the_slowest_receiver_of_any_shard_sets_the_rate() {
    let mut shards = Shards::new(3, 5);
    let remb = |n| {
        edit(rtp_leg(n), |rtp| {
            rtp.rtcp = Some(Box::new(RtcpAgreed { remb: true, ..RtcpAgreed::default() }));
        })
    };
    shards.room((1..=3).map(remb).collect());
    shards.hear_all(1, &packet(5, 1, 0, 0, &[1]));
    let told = |left: &[Left]| {
        let all = reports(left, 1);
        let rate = |p: &Packet<'_>| match p {
            Packet::Payload(f) => f.receiver_estimate().map(|e| e.bits_per_second),
            _ => None,
        };
        all.iter().filter_map(rate).collect::<Vec<_>>()
    };
    let say = |bits| {
        let mut writer = RtcpWriter::new();
        writer.receiver(9, &[]).receiver_estimate(9, bits, &[5]);
        writer.finish()
    };
    assert_eq!(told(&shards.hear_all(2, &say(400_000))), [400_000]);
    shards.run(1500);
    assert_eq!(told(&shards.hear_all(3, &say(900_000))), [400_000], "the other shard's is the least still");
    shards.run(1500);
    assert_eq!(told(&shards.hear_all(3, &say(100_000))), [100_000]);
}

#[test]
fn receivers_elsewhere_hear_the_sources_clock_and_name() {
    let mut shards = Shards::new(3, 5);
    let nameless = |n| edit(rtp_leg(n), |rtp| rtp.cname.clear());
    shards.room((1..=3).map(nameless).collect());
    let mut senders: BTreeMap<u64, Vec<rtp::SenderInfo>> = BTreeMap::new();
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let far = rtp::Ntp(0x1234_5678_0000_0000);
    for n in 0..600u32 {
        shards.hear_all(1, &packet(5, n as u16, 160 * n, 0, &[1; 160]));
        if n % 100 == 50 {
            let mut writer = RtcpWriter::new();
            let ntp = far.0 + (u64::from(n) << 32) / 50;
            let info = rtp::SenderInfo { ssrc: 5, ntp, timestamp: 160 * n, packets: n, octets: 160 * n };
            writer.sender(&info, &[]);
            shards.hear_all(1, &writer.finish());
        }
        let left = shards.run(20);
        for leg in [2, 3] {
            for report in reports(&left, leg) {
                match report {
                    Packet::Sender(info, _) if info.ssrc == 5 => senders.entry(leg).or_default().push(info),
                    Packet::Description(mut chunks) => {
                        let own = chunks.find(|chunk| chunk.ssrc == 5).and_then(|chunk| chunk.cname());
                        own.map(|name| names.insert(leg, name.to_vec()));
                    }
                    _ => {}
                }
            }
        }
    }
    for leg in [2, 3] {
        let last = senders[&leg].last().unwrap();
        // On the line of the source's own clock, not on ours.
        let at = (160.0 * 50.0) * ((last.ntp - far.0) as f64 / f64::from(1u32 << 16) / f64::from(1u32 << 16));
        assert!((f64::from(last.timestamp) - at).abs() < 400.0, "{last:?} should be at {at}");
        assert!(last.packets > 200 && last.octets == last.packets * 160, "{last:?}");
    }
    assert!(!names[&2].is_empty());
    assert_eq!(names[&2], names[&3], "a participant has one name on all shards");
}

#[test]
fn keys_of_a_leg_are_used_on_its_own_shard() {
    let keying = Keying::draw(Suite::AeadAes128Gcm, &mut Entropy::from_number(3));
    let mut shards = Shards::new(3, 5);
    let guarded = edit(rtp_leg(2), |rtp| {
        rtp.srtp = Some(Box::new(Srtp {
            suite: SrtpSuite::AeadAes128Gcm.into(),
            send_key: keying.expose().to_vec(),
            receive_key: keying.expose().to_vec(),
        }));
    });
    shards.room(vec![rtp_leg(1), guarded, rtp_leg(3), rtp_leg(5)]);
    let mut inbound: Inbound = Inbound::new(&keying, rtp::srtp::Config::default()).unwrap();
    for sequence in 0..10 {
        let clear = packet(5, sequence, 0, 0, &[7; 20]);
        let left = shards.hear_all(1, &clear);
        assert_eq!(left.len(), 3);
        let mut sealed = to(&left, 2)[0].to_vec();
        assert_ne!(sealed[12..32], clear[12..32]);
        let length = inbound.rtp(&mut sealed).unwrap();
        assert_eq!(sealed[..length], clear);
        [3, 5].into_iter().for_each(|leg| assert_eq!(to(&left, leg), [&clear[..]]));
    }
    // What it sends is opened there, and crosses in clear.
    let mut outbound: Outbound = Outbound::new(&keying, rtp::srtp::Config::default()).unwrap();
    let clear = packet(6, 1, 0, 0, &[8; 20]);
    let mut sealed = clear.clone();
    sealed.resize(clear.len() + TRAILER_MAX, 0);
    let length = outbound.rtp(&mut sealed, clear.len()).unwrap();
    let left = shards.hear_all(2, &sealed[..length]);
    [1, 3, 5].into_iter().for_each(|leg| assert_eq!(to(&left, leg), [&clear[..]]));
    assert!(shards.hear_all(2, &clear).is_empty(), "in clear nothing of it passes");
    shards.check_sums();
}

#[test]
fn payload_types_are_each_receivers_own() {
    let mut shards = Shards::new(2, 5);
    let map = |n, peer| {
        edit(rtp_leg(n), |rtp| {
            rtp.payloads = vec![contract::PayloadMap { peer, context: 96, codec: 0 }];
        })
    };
    shards.room(vec![map(1, 100), map(2, 101), map(3, 102), map(4, 100)]);
    let left = shards.hear_all(1, &packet(5, 1, 0, 100, &[1]));
    for (leg, payload) in [(2, 101), (3, 102), (4, 100)] {
        assert_eq!(to(&left, leg), [&packet(5, 1, 0, payload, &[1])[..]]);
    }
}

#[test]
fn an_audit_and_the_counters_know_each_leg_once() {
    let mut shards = three(1..=7, 1);
    for sequence in 0..10 {
        shards.hear_all(1, &packet(5, sequence, 0, 0, &[1; 8]));
    }
    let (mut legs, mut paths, mut placements) = (Vec::new(), 0, 0);
    for engine in &shards.engines {
        let part = engine.audit(None).unwrap();
        assert_eq!(part.contexts.len(), 1);
        assert_eq!(part.paths.is_empty(), engine.is_outpost(CONTEXT));
        legs.extend(part.legs.iter().map(|leg| leg.id));
        paths += part.paths.len();
        placements += part.placements.len();
        assert!(engine.audit(Some(CONTEXT)).is_none());
    }
    legs.sort_unstable();
    assert_eq!((legs, paths, placements), ((1..=7).collect(), 1, 7));
    let mut counted = BTreeMap::new();
    for engine in &shards.engines {
        let (context, counters) = engine.counters(shards.now, None).unwrap();
        assert_eq!(context, CONTEXT);
        for leg in counters.legs {
            assert!(counted.insert(leg.leg.unwrap().leg, (leg.packets_in, leg.packets_out)).is_none());
        }
    }
    let expected = (1..=7).map(|leg| (leg, if leg == 1 { (10, 0) } else { (0, 10) })).collect();
    assert_eq!(counted, expected);
    assert_eq!(shards.engines[1].legs_silent(shards.now), 0);
}

#[test]
fn a_capture_has_what_each_shard_received_and_sent() {
    let mut shards = three(1..=6, 1);
    for shard in 0..3 {
        shards.input(shard, Input::Capture { context: CONTEXT, leg: None, on: true });
    }
    let mut spooled = Vec::new();
    let bytes = packet(5, 1, 0, 0, &[1; 8]);
    shards.hear_with_spool(1, &bytes, &mut spooled);
    spooled.sort_unstable();
    // As it came, and to five receivers.
    let mut expected = vec![(peer(1), addr("192.0.2.1:10002"))];
    expected.extend((2..=6).map(|n| (addr(&format!("192.0.2.1:{}", 10_000 + 2 * n)), peer(n))));
    expected.sort_unstable();
    assert_eq!(spooled, expected);
    // One leg's record is on its own shard.
    assert!(shards.engines[1].is_recordable(CONTEXT, 1));
    assert!(!shards.engines[2].is_recordable(CONTEXT, 1) && !shards.engines[0].is_recordable(CONTEXT, 1));
}

impl Shards {
    /// Like `hear_all`, but for what the spool gets.
    fn hear_with_spool(&mut self, leg: u64, bytes: &[u8], spooled: &mut Vec<(SocketAddr, SocketAddr)>) {
        let shard = place(leg, self.count());
        let mut handed = Vec::new();
        let mut take = |out: &mut Outbox<Output>, handed: &mut Vec<(u16, Box<Handed>)>| {
            for output in out.drain() {
                match output {
                    Output::Spool(packet) => spooled.push((packet.from, packet.to)),
                    Output::Hand { shard, handed: what } => handed.push((shard, what)),
                    _ => {}
                }
            }
        };
        let input = Input::Datagram { socket: socket(leg), from: peer(leg), bytes };
        self.engines[usize::from(shard)].handle(self.now, input, &mut self.out);
        take(&mut self.out, &mut handed);
        for (to, what) in std::mem::take(&mut handed) {
            self.engines[usize::from(to)].handle(self.now, Input::Handed(&what), &mut self.out);
            take(&mut self.out, &mut handed);
        }
    }
}
