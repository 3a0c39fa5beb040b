//! SRTP without sockets: what an engine spends more on a sent packet when its targets have keys, beside a bare loop that
//! only encrypts those octets with aws-lc-rs. One packet in, sixteen out.
//!
//! CPU is the thread's own, in the scheduler's nanoseconds; kinds are measured in turns, the table shows medians.

use std::hint::black_box;
use std::net::SocketAddr;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base::{Entropy, Instant, Now, Outbox};
use contract::{
    Batch, Change, Context, Leg, LegSet, Mode, Path, RtpLeg, RtpLocal, Srtp, SrtpSuite, change::Verb,
    leg::Kind,
};
use forward::{Attachment, Config, Engine, Input, Limits, Listener, Output, SocketId};
use rtp::srtp::{Keying, Outbound, Suite, TRAILER_MAX};

use crate::report::{Machine, Report};

/// Receivers of each packet.
const FAN_OUT: usize = 16;
/// Packets in of one measurement.
const PACKETS: usize = 20_000;
/// RTP header and 20 ms of G.711; and a packet of video.
const SIZES: [usize; 2] = [172, 1200];

/// What is measured, by name: nanoseconds per packet out for packets of so many octets.
type Measure = (&'static str, fn(usize) -> f64);

const KINDS: &[Measure] = &[
    ("bare_gcm", bare),
    ("protect_gcm", |bytes| protect(Suite::AeadAes128Gcm, bytes)),
    ("protect_cm", |bytes| protect(Suite::AesCm128HmacSha1_80, bytes)),
    ("engine_plain", |bytes| engine(None, bytes)),
    ("engine_gcm", |bytes| engine(Some((SrtpSuite::AeadAes128Gcm, 28)), bytes)),
    ("engine_cm", |bytes| engine(Some((SrtpSuite::AesCm128HmacSha180, 30)), bytes)),
];

/// Runs everything, interleaved.
pub(crate) fn run(rounds: usize) -> Report {
    let mut report = Report::new(Machine::here("none"));
    for bytes in SIZES {
        let mut samples: Vec<Vec<f64>> = KINDS.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for ((_, measure), samples) in KINDS.iter().zip(&mut samples) {
                samples.push(measure(bytes));
            }
        }
        let ns: Vec<f64> = samples.iter_mut().map(|of| median(of)).collect();
        let of = |name: &str| KINDS.iter().position(|(n, _)| *n == name).map_or(f64::NAN, |at| ns[at]);
        let extra = of("engine_gcm") - of("engine_plain");
        let what = format!("{FAN_OUT}x{bytes}");
        let note =
            "CPU that AES-GCM-128 adds to a sent packet in the engine, over a bare loop that only encrypts";
        report.row(format!("srtp_engine_extra_{what}"), extra / of("bare_gcm"), "ratio", note);
        report.row(format!("srtp_engine_extra_ns_{what}"), extra, "ns/packet", "the same");
        for ((name, _), ns) in KINDS.iter().zip(&ns) {
            report.row(format!("srtp_{name}_{what}"), *ns, "ns/packet", "per packet out");
        }
    }
    report
}

/// What AES-GCM-128 adds to a sent packet of so many octets in the engine, and what a loop takes that only encrypts it: in
/// nanoseconds, measured in turns.
pub(crate) fn gcm_extra(bytes: usize, rounds: usize) -> (f64, f64) {
    let (mut extra, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.push(bare(bytes));
        let plain = engine(None, bytes);
        extra.push(engine(Some((SrtpSuite::AeadAes128Gcm, 28)), bytes) - plain);
    }
    (median(&mut extra), median(&mut alone))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nanoseconds per packet out of something that is done for each packet in.
fn time(mut each: impl FnMut(u16)) -> f64 {
    let cpu_ns = || -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    (0..1000).for_each(&mut each);
    let before = cpu_ns();
    for n in 0..PACKETS {
        each((n + 1000) as u16);
    }
    (cpu_ns() - before) as f64 / (PACKETS * FAN_OUT) as f64
}

fn packet(bytes: usize, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0xd5; bytes];
    packet[..12].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet
}

/// The least that encryption can cost: the same octets, in place, under sixteen keys.
fn bare(bytes: usize) -> f64 {
    let keys: Vec<LessSafeKey> = (0..FAN_OUT)
        .filter_map(|n| UnboundKey::new(&AES_128_GCM, &[n as u8; 16]).ok())
        .map(LessSafeKey::new)
        .collect();
    let mut packet = packet(bytes, 0);
    time(|sequence| {
        let (head, payload) = packet.split_at_mut(12);
        let mut nonce = [0; 12];
        nonce[10..].copy_from_slice(&sequence.to_be_bytes());
        for key in &keys {
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*head), payload);
            black_box(tag.is_ok());
        }
    })
}

/// `rtp::srtp` alone: a copy of the packet for each target, protected in place.
fn protect(suite: Suite, bytes: usize) -> f64 {
    let mut entropy = Entropy::from_number(1);
    let mut contexts: Vec<Outbound> = (0..FAN_OUT)
        .filter_map(|_| Outbound::new(&Keying::draw(suite, &mut entropy), rtp::srtp::Config::default()).ok())
        .collect();
    let mut clear = packet(bytes, 0);
    let mut room = vec![0; bytes + TRAILER_MAX];
    time(|sequence| {
        clear[2..4].copy_from_slice(&sequence.to_be_bytes());
        for context in &mut contexts {
            room[..bytes].copy_from_slice(&clear);
            assert!(context.rtp(black_box(&mut room), bytes).is_ok());
        }
    })
}

fn peer(n: u64) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n as u8], 4000))
}

/// A whole engine that distributes; its outputs are looked at and thrown away.
fn engine(keys: Option<(SrtpSuite, usize)>, bytes: usize) -> f64 {
    let limits = Limits { sockets_max: 64, ..Limits::default() };
    let msrp = Listener { authority: "192.0.2.1:2855".into() };
    let mut engine = Engine::new(
        Config { shard: 0, shards: 1, msrp, msrps: None, relay: None, limits },
        Entropy::from_number(1),
    );
    let mut out = Outbox::with_max(engine.room_needed());
    let mut changes = vec![Verb::PutContext(Context { id: 1 })];
    let mut attachments = Vec::new();
    for n in 0..=FAN_OUT as u64 {
        let srtp = keys.filter(|_| n > 0).map(|(suite, octets)| {
            Box::new(Srtp {
                suite: suite.into(),
                send_key: vec![n as u8; octets],
                receive_key: vec![99; octets],
            })
        });
        let rtp = RtpLeg {
            remote: Some(peer(n).into()),
            rtcp_mux: true,
            clock_rate: 8000,
            srtp,
            ..RtpLeg::default()
        };
        let leg =
            Leg { id: n, context: 1, media: "audio".into(), kind: Some(Kind::Rtp(rtp)), ..Leg::default() };
        let bound = Some(SocketAddr::from(([192, 0, 2, 1], 9000)).into());
        let local = RtpLocal { bound, ..RtpLocal::default() };
        attachments.push(Attachment { leg: leg.key(), rtp: SocketId(n as u32), rtcp: None, local });
        changes.push(Verb::PutLeg(leg));
    }
    let legs = |ids: Vec<u64>| Some(LegSet { legs: ids, media: String::new() });
    changes.push(Verb::PutPath(Path {
        id: 1,
        context: 1,
        mode: Mode::Distribute as i32,
        sources: legs(vec![0]),
        targets: legs((1..=FAN_OUT as u64).collect()),
        parameters: None,
    }));
    let changes = changes.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
    let batch = Batch { generation: 1, epoch: 1, trace: String::new(), changes };
    engine.handle(Now::default(), Input::Batch { batch: &batch, attachments: &attachments }, &mut out);
    out.drain();
    let mut clear = packet(bytes, 0);
    let now = Now { mono: Instant::from_millis(1000), ..Now::default() };
    time(|sequence| {
        clear[2..4].copy_from_slice(&sequence.to_be_bytes());
        let input = Input::Datagram { socket: SocketId(0), from: peer(0), bytes: &clear };
        engine.handle(now, input, &mut out);
        let mut sent = 0;
        for output in out.drain() {
            sent += usize::from(matches!(output, Output::Forward { .. } | Output::SendHeld { .. }));
        }
        assert_eq!(sent, FAN_OUT);
    })
}
