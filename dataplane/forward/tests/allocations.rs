//! The RTP path allocates nothing after the start (DESIGN §4): counted, over every mode and changes of speaker, with keys and other
//! names of header extensions.
#![expect(unsafe_code, reason = "a counting allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use base::{Entropy, Instant, Now, Outbox, UnixTime};
use contract::{
    Batch, Bundle, Change, Context, Dtls, ExtensionMap, Extensions, Floor, Leg, LegSet, Mode, Path,
    RtcpAgreed, RtpLeg, RtpLocal, Select, Srtp, SrtpSuite, change::Verb, leg::Kind, path::Parameters,
};
use forward::{Attachment, Config, DtlsKeys, DtlsWord, Engine, Input, Limits, Listener, Output, SocketId};
use rtp::srtp::{Keying, Outbound, Suite, TRAILER_MAX};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is the system allocator's; only a number of this thread is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// With which the peers of guarded legs send.
const KEY: [u8; 28] = [7; 28];

fn peer(n: u64) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n as u8], 4000))
}

/// Slots for three, who are named to the receivers.
fn parameters(mode: Mode) -> Option<Parameters> {
    match mode {
        Mode::Select => {
            Some(Parameters::Select(Select { slots: 3, contributors: true, ..Select::default() }))
        }
        Mode::Floor => {
            Some(Parameters::Floor(Floor { holders: vec![0, 1, 2, 3], slots: 4, contributors: false }))
        }
        _ => None,
    }
}

/// Legs from the fourth on have keys, when `guarded`; each calls header extensions otherwise.
fn engine(mode: Mode, legs: u64, guarded: bool) -> (Engine, Outbox<forward::Output>) {
    let config = Config {
        shard: 0,
        shards: 1,
        msrp: Listener { authority: "192.0.2.1:2855".into() },
        msrps: None,
        relay: None,
        limits: Limits::default(),
    };
    let mut engine = Engine::new(config, Entropy::from_number(1));
    let mut out = Outbox::with_max(engine.room_needed());
    let mut changes = vec![Verb::PutContext(Context { id: 1 })];
    let mut attachments = Vec::new();
    for n in 0..legs {
        let srtp = (guarded && n >= 3).then(|| Srtp {
            suite: SrtpSuite::AeadAes128Gcm.into(),
            send_key: vec![n as u8; 28],
            receive_key: KEY.to_vec(),
        });
        let rtp = RtpLeg {
            remote: Some(peer(n).into()),
            rtcp_mux: true,
            clock_rate: 8000,
            srtp: srtp.map(Box::new),
            extensions: Some(Box::new(Extensions {
                ids: vec![ExtensionMap { peer: 1 + n as u32 % 8, context: 1 }],
            })),
            // Some keep what they are sent, guarded or not, and one is policed.
            rtcp: (n % 3 == 1).then(|| Box::new(RtcpAgreed { nack: true, ..RtcpAgreed::default() })),
            bandwidth_kbps: if n == 1 { 100_000 } else { 0 },
            ..RtpLeg::default()
        };
        let leg =
            Leg { id: n, context: 1, media: "audio".into(), kind: Some(Kind::Rtp(rtp)), ..Leg::default() };
        let local =
            RtpLocal { bound: Some(SocketAddr::from(([192, 0, 2, 1], 9000)).into()), ..RtpLocal::default() };
        attachments.push(Attachment { leg: leg.key(), rtp: SocketId(n as u32), rtcp: None, local });
        changes.push(Verb::PutLeg(leg));
    }
    let all = Some(LegSet { legs: (0..legs).collect(), media: String::new() });
    changes.push(Verb::PutPath(Path {
        id: 1,
        context: 1,
        mode: mode as i32,
        sources: all.clone(),
        targets: all,
        parameters: parameters(mode),
    }));
    let changes = changes.into_iter().map(|v| Change { verb: Some(v) }).collect();
    let batch = Batch { generation: 1, epoch: 1, trace: String::new(), changes };
    engine.handle(Now::default(), Input::Batch { batch: &batch, attachments: &attachments }, &mut out);
    out.drain();
    (engine, out)
}

#[test]
fn the_packet_loop_allocates_nothing() {
    let modes = [Mode::Distribute, Mode::Select, Mode::Floor, Mode::Tap];
    for (mode, guarded) in modes.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let (mut engine, mut out) = engine(mode, 17, guarded);
        let keying = Keying::new(Suite::AeadAes128Gcm, &KEY).expect("28 octets");
        let mut far: Outbound = Outbound::new(&keying, rtp::srtp::Config::default()).expect("a context");
        let mut now =
            Now { mono: Instant::from_millis(1000), wall: UnixTime::from_millis(1_800_000_000_000) };
        let mut packet = [0u8; 172];
        packet[0] = 0x90;
        packet[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
        let (mut sent, mut before) = (0, 0);
        for n in 0..4000u16 {
            let leg = u64::from(n % 4);
            packet[2..4].copy_from_slice(&(n / 4).to_be_bytes());
            packet[4..8].copy_from_slice(&(160 * u32::from(n / 4)).to_be_bytes());
            packet[8..12].copy_from_slice(&(leg as u32 + 1).to_be_bytes());
            // Each talks for a while, the others are silent.
            packet[16..20].copy_from_slice(&[0x10 + 0x10 * leg as u8, 7, 0, 0]);
            packet[20..].fill(if u64::from(n / 1000) == leg { 0x80 } else { 0xff });
            if n == 8 {
                before = ALLOCATIONS.with(Cell::get);
            }
            let mut wire = [0u8; 172 + TRAILER_MAX];
            wire[..172].copy_from_slice(&packet);
            let length =
                if guarded && leg == 3 { far.rtp(&mut wire, 172).expect("protected") } else { packet.len() };
            let bytes = &wire[..length];
            let input = Input::Datagram { socket: SocketId(leg as u32), from: peer(leg), bytes };
            engine.handle(now, input, &mut out);
            sent += out.drain().count();
            now.mono += Duration::from_millis(5);
        }
        let allocations = ALLOCATIONS.with(Cell::get) - before;
        assert!(sent > 10_000, "{mode:?}: {sent}");
        assert_eq!(allocations, 0, "{mode:?} {guarded}");
        let totals = engine.totals();
        assert_eq!(totals.packets_in, 4000);
    }
}

/// Two lines of a peer on one transport, legs 1 and 2, whose packets are told apart by their MID both ways; a plain phone for
/// each, legs 3 and 4.
fn bundled() -> (Engine, Outbox<Output>) {
    let config = Config {
        shard: 0,
        shards: 1,
        msrp: Listener { authority: "192.0.2.1:2855".into() },
        msrps: None,
        relay: None,
        limits: Limits::default(),
    };
    let mut engine = Engine::new(config, Entropy::from_number(1));
    let mut out = Outbox::with_max(engine.room_needed());
    let mut changes = vec![Verb::PutContext(Context { id: 1 })];
    let mut attachments = Vec::new();
    for n in 1..=4u64 {
        let bundle = (n < 3).then(|| {
            Box::new(Bundle {
                carrier: if n == 1 { 0 } else { 1 },
                mid: n.to_string(),
                mid_id: 4,
                writes_mid: true,
                ..Bundle::default()
            })
        });
        let dtls = Dtls { fingerprints: vec![vec![9; 32]], ..Dtls::default() };
        let rtp = RtpLeg {
            remote: (n != 2).then(|| peer(n).into()),
            rtcp_mux: true,
            dtls: (n == 1).then(|| Box::new(dtls)),
            bundle,
            ..RtpLeg::default()
        };
        let leg = Leg { id: n, context: 1, kind: Some(Kind::Rtp(rtp)), ..Leg::default() };
        if n != 2 {
            let bound = SocketAddr::from(([192, 0, 2, 1], 9000 + n as u16));
            let local = RtpLocal { bound: Some(bound.into()), ..RtpLocal::default() };
            attachments.push(Attachment { leg: leg.key(), rtp: SocketId(n as u32), rtcp: None, local });
        }
        changes.push(Verb::PutLeg(leg));
    }
    let one = |leg| Some(LegSet { legs: vec![leg], media: String::new() });
    for (id, from, to) in [(1, 1, 3), (2, 3, 1), (3, 2, 4), (4, 4, 2)] {
        let (sources, targets) = (one(from), one(to));
        let mode = Mode::Relay.into();
        changes.push(Verb::PutPath(Path { id, context: 1, mode, sources, targets, parameters: None }));
    }
    let changes = changes.into_iter().map(|v| Change { verb: Some(v) }).collect();
    let batch = Batch { generation: 1, epoch: 1, trace: String::new(), changes };
    engine.handle(Now::default(), Input::Batch { batch: &batch, attachments: &attachments }, &mut out);
    out.drain();
    (engine, out)
}

#[test]
fn lines_on_one_transport_allocate_nothing_either() {
    let (mut engine, mut out) = bundled();
    let keying = Keying::new(Suite::AeadAes128Gcm, &KEY).expect("28 octets");
    let hello = Input::Datagram { socket: SocketId(1), from: peer(1), bytes: &[22; 40] };
    engine.handle(Now::default(), hello, &mut out);
    let asked = out.drain().find_map(|o| if let Output::Dtls { id, .. } = o { Some(id) } else { None });
    let id = asked.expect("a handshake");
    let keys = DtlsKeys { fingerprint: [9; 32], send: keying, receive: keying };
    engine.handle(Now::default(), Input::Dtls { id, word: DtlsWord::Keys(Box::new(keys)) }, &mut out);
    out.drain();
    let mut far: Outbound = Outbound::new(&keying, rtp::srtp::Config::default()).expect("a context");
    let mut now = Now { mono: Instant::from_millis(1000), wall: UnixTime::from_millis(1_800_000_000_000) };
    let (mut sent, mut before) = (0, 0);
    for n in 0..4000u16 {
        let from = u64::from(n % 4) + 1;
        let mut wire = [0u8; 180 + TRAILER_MAX];
        let clear = &mut wire[..180];
        clear[0] = 0x80;
        clear[2..4].copy_from_slice(&(n / 4).to_be_bytes());
        clear[8..12].copy_from_slice(&(from as u32).to_be_bytes());
        if from < 3 {
            // The peer's own lines: named in every other packet.
            clear[0] = 0x90;
            clear[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
            clear[16..18].copy_from_slice(&if n / 4 % 2 == 0 { [0x40, b'0' + from as u8] } else { [0, 0] });
        }
        if n == 8 {
            before = ALLOCATIONS.with(Cell::get);
        }
        let length = if from < 3 { far.rtp(&mut wire, 180).expect("protected") } else { 180 };
        let (socket, at) =
            if from < 3 { (SocketId(1), peer(1)) } else { (SocketId(from as u32), peer(from)) };
        engine.handle(now, Input::Datagram { socket, from: at, bytes: &wire[..length] }, &mut out);
        sent += out.drain().count();
        now.mono += Duration::from_millis(5);
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    assert_eq!((sent, engine.totals().packets_forwarded), (4000, 4000));
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.with(Cell::get);
    let thing = std::hint::black_box(vec![1u8; 100]);
    assert!(ALLOCATIONS.with(Cell::get) > before && !thing.is_empty());
}
