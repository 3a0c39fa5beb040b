//! The bytes of the contract do not change by accident: each message here is held to a committed file of hex.
//! A difference means that a running peer of the last version reads something else. To add a message, run
//! with `WEIR_GOLDEN=write` and read the new file before you commit it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use std::path::PathBuf;

use contract::{
    Address, Applied, Audit, Audited, Auth, AuthVerdict, Batch, Bundle, Capture, Change, Context, Counters,
    Decide, Direction, Distribute, Drain, Dtls, ExtensionMap, Extensions, Floor, FromDataplane, Hello, Ice,
    Latched, Learning, Leg, LegCounters, LegKey, LegLost, LegSet, Load, MessageNews, Mode, MsrpLeg,
    MsrpLocal, News, Path, PathKey, PayloadMap, Placement, Pressure, Refusal, Report, Retransmission,
    RtcpAgreed, RtpContinuity, RtpLeg, RtpLocal, Select, Setup, SlotContinuity, Srtp, SrtpProgress,
    SrtpSuite, Switch, ToDataplane, VideoCodec, Welcome, change, from_dataplane, leg, leg_lost, message_news,
    news, path, placement, refusal, to_dataplane,
};
use prost::Message;

fn address(port: u32) -> Option<Address> {
    Some(Address { ip: vec![127, 0, 0, 1], port })
}

fn continuity() -> Option<RtpContinuity> {
    Some(RtpContinuity {
        ssrc: 0xdead_beef,
        sequence: 65_535,
        timestamp: 160,
        rollover: 1,
        srtcp_index: 2,
        sent: vec![],
        received: vec![],
        slots: vec![],
    })
}

fn rtp_leg() -> Leg {
    Leg {
        id: 1,
        context: 7,
        media: "audio".into(),
        direction: Direction::Sendrecv.into(),
        participant: "p1".into(),
        unseen: false,
        kind: Some(leg::Kind::Rtp(RtpLeg {
            local: Some(RtpLocal {
                interface: "default".into(),
                bound: address(20_000),
                advertised: address(20_000),
                rtcp_port: 20_001,
            }),
            remote: address(4000),
            remote_rtcp: address(4001).map(Box::new),
            rtcp_mux: false,
            learning: Learning::Window.into(),
            learning_ms: 5000,
            payloads: vec![PayloadMap { peer: 8, context: 0, codec: 0 }],
            clock_rate: 8000,
            bandwidth_kbps: 80,
            media_timeout_ms: 60_000,
            cname: "c1".into(),
            continuity: continuity().map(Box::new),
            video: false,
            audio_level_id: 0,
            srtp: None,
            extensions: None,
            ice: None,
            dtls: None,
            rtcp: None,
            bundle: None,
        })),
    }
}

/// A leg of a context with slots.
fn video_leg() -> Leg {
    let slot = |slot, ssrc| SlotContinuity { path: 2, slot, ssrc, sequence: 65_535, timestamp: 90_000 };
    let continuity = RtpContinuity { slots: vec![slot(0, 0xdead_beef), slot(1, 5)], ..continuity().unwrap() };
    let rtp = RtpLeg {
        payloads: vec![PayloadMap { peer: 96, context: 97, codec: VideoCodec::Vp8.into() }],
        video: true,
        continuity: Some(Box::new(continuity)),
        extensions: Some(Box::new(Extensions { ids: vec![ExtensionMap { peer: 3, context: 1 }] })),
        ..RtpLeg::default()
    };
    Leg {
        id: 4,
        context: 7,
        participant: "p1".into(),
        unseen: true,
        kind: Some(leg::Kind::Rtp(rtp)),
        ..Leg::default()
    }
}

/// Paths with slots.
fn slot_paths() -> Vec<Path> {
    let select = Select { slots: 3, hold_ms: 500, follows: 2, contributors: true };
    let floor = Floor { holders: vec![4, 1], slots: 2, contributors: true };
    let path = |id, mode: Mode, parameters| Path {
        id,
        context: 7,
        mode: mode.into(),
        parameters: Some(parameters),
        ..Path::default()
    };
    vec![
        path(8, Mode::Select, path::Parameters::Select(select)),
        path(9, Mode::Floor, path::Parameters::Floor(floor)),
    ]
}

/// A leg with keys, as it is put again after a restart.
fn srtp_leg() -> Leg {
    let progress = |ssrc| SrtpProgress {
        ssrc,
        started: true,
        rollover: 1,
        sequence: 65_535,
        seen: u64::MAX,
        rtcp_index: 7,
        rtcp_seen: 0x7f,
    };
    let srtp = Srtp {
        suite: SrtpSuite::AeadAes128Gcm.into(),
        send_key: vec![0x11; 28],
        receive_key: vec![0x22; 28],
    };
    let continuity = RtpContinuity {
        sent: vec![progress(0xdead_beef), progress(2)],
        received: vec![progress(3)],
        ..continuity().unwrap()
    };
    let rtp =
        RtpLeg { srtp: Some(Box::new(srtp)), continuity: Some(Box::new(continuity)), ..RtpLeg::default() };
    Leg { id: 3, context: 7, kind: Some(leg::Kind::Rtp(rtp)), ..Leg::default() }
}

/// A leg of a WebRTC peer.
fn webrtc_leg() -> Leg {
    let ice =
        Ice { ufrag: "ours".into(), password: "a-password-of-ours-22c".into(), peer_ufrag: "theirs".into() };
    let dtls = Dtls { setup: Setup::Active.into(), fingerprints: vec![vec![0xab; 32], vec![0xcd; 32]] };
    let rtp =
        RtpLeg { rtcp_mux: true, ice: Some(Box::new(ice)), dtls: Some(Box::new(dtls)), ..RtpLeg::default() };
    Leg { id: 4, context: 7, kind: Some(leg::Kind::Rtp(rtp)), ..Leg::default() }
}

/// A leg with all that can be agreed about RTCP.
fn rtcp_leg() -> Leg {
    let agreed = RtcpAgreed {
        nack: true,
        pli: true,
        fir: true,
        tmmbr: true,
        remb: true,
        transport_wide: true,
        reduced: true,
        extended: true,
        retransmissions: vec![Retransmission { payload: 97, of: 96 }],
        codec: "opus".into(),
        transport_wide_id: 5,
    };
    let rtp = RtpLeg { rtcp: Some(Box::new(agreed)), ..RtpLeg::default() };
    Leg { id: 4, context: 7, kind: Some(leg::Kind::Rtp(rtp)), ..Leg::default() }
}

/// A leg on another one's transport.
fn bundled_leg() -> Leg {
    let bundle = Bundle {
        carrier: 4,
        mid: "v1".into(),
        mid_id: 9,
        ssrcs: vec![0xdead_beef, 2],
        writes_mid: true,
        payloads: vec![96, 97],
    };
    let rtp = RtpLeg { rtcp_mux: true, bundle: Some(Box::new(bundle)), ..RtpLeg::default() };
    Leg { id: 5, context: 7, kind: Some(leg::Kind::Rtp(rtp)), ..Leg::default() }
}

fn msrp_leg() -> Leg {
    Leg {
        id: 2,
        context: 7,
        media: "msrp".into(),
        direction: Direction::Recvonly.into(),
        participant: "p2".into(),
        unseen: true,
        kind: Some(leg::Kind::Msrp(MsrpLeg {
            local: Some(MsrpLocal {
                session: "s".into(),
                path: "msrp://127.0.0.1:2855/s;tcp".into(),
                advertised: address(2855),
            }),
            remote_path: vec!["msrp://127.0.0.1:7394/r;tcp".into()],
            setup: Setup::Active.into(),
            connect: address(7394),
            tls: true,
            fingerprint: vec![0xab; 32],
            addresses: vec!["sip:bob@example.com".into()],
            accept_types: vec!["message/cpim".into()],
            accept_wrapped_types: vec!["*".into()],
            max_size: 1_048_576,
            private_messages: true,
            nickname: "Bob".into(),
            muted: true,
            away: true,
        })),
    }
}

fn paths() -> Vec<Path> {
    let all = |media: &str| Some(LegSet { legs: vec![], media: media.into() });
    let one = |id| Some(LegSet { legs: vec![id], media: String::new() });
    let path = |id, mode: Mode, sources, targets, parameters| Path {
        id,
        context: 7,
        mode: mode.into(),
        sources,
        targets,
        parameters,
    };
    vec![
        path(1, Mode::Relay, one(1), one(2), None),
        path(
            2,
            Mode::Distribute,
            all("audio"),
            all("audio"),
            Some(path::Parameters::Distribute(Distribute { imdn_once: true })),
        ),
        path(
            3,
            Mode::Select,
            all("audio"),
            one(1),
            Some(path::Parameters::Select(Select { slots: 1, hold_ms: 500, ..Select::default() })),
        ),
        path(
            4,
            Mode::Switch,
            all("msrp"),
            all("msrp"),
            Some(path::Parameters::Switch(Switch {
                room: vec!["sip:room@example.com".into()],
                private_messages: true,
                nicknames: true,
                nickname_required: false,
                max_size: 1_048_576,
            })),
        ),
        path(5, Mode::Floor, all("video"), all("video"), None),
        path(6, Mode::Tap, one(1), one(2), None),
    ]
}

fn load() -> Load {
    Load {
        shards: 2,
        contexts: 3,
        contexts_max: 1000,
        legs: 6,
        legs_max: 9000,
        busy_permille: 250,
        draining: true,
        relay_sessions: 0,
        spill_bytes: 0,
        spill_files: 0,
    }
}

fn to_dataplane_messages() -> Vec<(&'static str, ToDataplane)> {
    use to_dataplane::Body;
    let put = |verb| Change { verb: Some(verb) };
    let mut changes = vec![
        put(change::Verb::PutContext(Context { id: 7 })),
        put(change::Verb::PutLeg(rtp_leg())),
        put(change::Verb::PutLeg(msrp_leg())),
    ];
    changes.extend(paths().into_iter().map(|p| put(change::Verb::PutPath(p))));
    let remove = vec![
        put(change::Verb::RemovePath(PathKey { context: 7, path: 1 })),
        put(change::Verb::RemoveLeg(LegKey::new(7, 2))),
        put(change::Verb::RemoveContext(7)),
    ];
    let batch = |generation, changes| Batch { generation, epoch: 9, trace: "t-1".into(), changes };
    let mut slots = vec![put(change::Verb::PutLeg(video_leg()))];
    slots.extend(slot_paths().into_iter().map(|p| put(change::Verb::PutPath(p))));
    let leg = Some(LegKey::new(7, 2));
    let decide = Decide { leg, id: 11, status: 425, nickname: "Bob".into(), auth: None };
    let verdict = AuthVerdict {
        challenges: vec!["Digest realm=\"r\", nonce=\"n\"".into()],
        info: "qop=auth".into(),
        account: 99,
    };
    let decide_auth = Decide { id: 12, status: 401, auth: Some(verdict), ..Decide::default() };
    let capture = Capture { context: 7, file: "call.pcap".into(), on: true, max_bytes: 1 << 20, leg: 0 };
    let record = Capture { file: "leg.rtpdump".into(), leg: 2, ..capture.clone() };
    let hello = Hello { version_min: 1, version_max: 1, epoch: 9, owner: "control-a".into() };
    [
        ("hello", Body::Hello(hello)),
        ("batch_put", Body::Batch(batch(1, changes))),
        ("batch_put_srtp", Body::Batch(batch(3, vec![put(change::Verb::PutLeg(srtp_leg()))]))),
        ("batch_put_slots", Body::Batch(batch(4, slots))),
        ("batch_put_bundled", Body::Batch(batch(5, vec![put(change::Verb::PutLeg(bundled_leg()))]))),
        ("batch_put_webrtc", Body::Batch(batch(4, vec![put(change::Verb::PutLeg(webrtc_leg()))]))),
        ("batch_put_rtcp", Body::Batch(batch(4, vec![put(change::Verb::PutLeg(rtcp_leg()))]))),
        ("batch_remove", Body::Batch(batch(2, remove))),
        ("audit", Body::Audit(Audit { id: 5 })),
        ("decide", Body::Decide(decide)),
        ("decide_auth", Body::Decide(decide_auth)),
        ("capture", Body::Capture(capture)),
        ("capture_leg", Body::Capture(record)),
        ("drain", Body::Drain(Drain { on: true })),
    ]
    .map(|(name, body)| (name, ToDataplane { body: Some(body) }))
    .into()
}

fn from_dataplane_messages() -> Vec<(&'static str, FromDataplane)> {
    use from_dataplane::Body;
    let key = Some(LegKey::new(7, 2));
    let placement = Placement {
        context: 7,
        leg: 2,
        at: Some(placement::At::Msrp(MsrpLocal {
            session: "s".into(),
            path: "msrp://127.0.0.1:2855/s;tcp".into(),
            advertised: address(2855),
        })),
    };
    let of_version = |version, dtls_fingerprint| Welcome {
        version,
        instance: 0x0102_0304_0506_0708,
        generation: 2,
        driver: "uring".into(),
        driver_reason: "540 ns a packet against 900".into(),
        load: Some(load()),
        fingerprint: vec![0xcd; 32],
        dtls_fingerprint,
    };
    let refusal = Refusal {
        generation: 3,
        reason: refusal::Reason::NoPort.into(),
        change: 1,
        detail: "port 20000 is taken".into(),
    };
    let audited = Audited {
        id: 5,
        contexts: vec![Context { id: 7 }],
        legs: vec![rtp_leg(), msrp_leg()],
        paths: paths(),
        placements: vec![placement.clone()],
        generation: 2,
        more: false,
    };
    let counters = LegCounters {
        leg: key,
        packets_in: 1,
        packets_out: 2,
        bytes_in: 3,
        bytes_out: 4,
        dropped: 5,
        lost: 6,
        jitter_us: 7,
        idle_ms: 8,
        continuity: continuity(),
        ..LegCounters::default()
    };
    let last_counters = LegCounters {
        video: true,
        reordered: 12,
        duplicates: 13,
        round_trip_us: 14,
        mos_centi: 415,
        lost_out: 16,
        jitter_out_us: 17,
        mos_out_centi: 418,
        bandwidth_bps: 19,
        retransmitted: 20,
        policed: 21,
        up_ms: 22,
        ended: true,
        ..counters.clone()
    };
    let news = [
        ("news_leg_up", news::What::LegUp(contract::LegUp { leg: key })),
        ("news_leg_lost", news::What::LegLost(LegLost { leg: key, reason: leg_lost::Reason::Reset.into() })),
        (
            "news_leg_lost_dtls",
            news::What::LegLost(LegLost { leg: key, reason: leg_lost::Reason::DtlsFailed.into() }),
        ),
        ("news_latched", news::What::Latched(Latched { leg: key, remote: address(4000), rtcp: true })),
        ("news_report", news::What::Report(Report { leg: key, message_id: "m".into(), status: 200 })),
        (
            "news_message_auth",
            news::What::Message(MessageNews {
                leg: None,
                id: 12,
                what: Some(message_news::What::Auth(Auth {
                    authorization: "Digest username=\"ann\"".into(),
                    uri: "msrps://relay.example.com:2856;tcp".into(),
                })),
            }),
        ),
        (
            "news_message",
            news::What::Message(MessageNews {
                leg: key,
                id: 11,
                what: Some(message_news::What::Nickname("Bob".into())),
            }),
        ),
        (
            "news_pressure",
            news::What::Pressure(Pressure { leg: key, on: true, waiting_bytes: 65_536, kept: false }),
        ),
        (
            "news_pressure_kept",
            news::What::Pressure(Pressure { leg: key, on: true, waiting_bytes: 1 << 30, kept: true }),
        ),
        ("news_counters", news::What::Counters(Counters { legs: vec![counters] })),
        ("news_counters_last", news::What::Counters(Counters { legs: vec![last_counters] })),
        ("news_load", news::What::Load(load())),
        ("news_load_relay", news::What::Load(Load { relay_sessions: 5, ..load() })),
        ("news_load_spill", news::What::Load(Load { spill_bytes: 1 << 30, spill_files: 2, ..load() })),
    ];
    let capture_state = contract::CaptureState {
        context: 7,
        file: "call.pcap".into(),
        on: true,
        packets: 10,
        bytes: 2000,
        missed: 1,
        error: String::new(),
        leg: 0,
    };
    let mut all = vec![
        ("welcome", Body::Welcome(of_version(1, vec![]))),
        ("welcome_2", Body::Welcome(of_version(2, vec![0xef; 32]))),
        ("applied", Body::Applied(Applied { generation: 2, placements: vec![placement] })),
        ("refusal", Body::Refusal(refusal)),
        ("audited", Body::Audited(audited)),
        ("capture_state", Body::CaptureState(capture_state)),
    ];
    all.extend(news.map(|(name, what)| (name, Body::News(News { what: Some(what) }))));
    all.into_iter().map(|(name, body)| (name, FromDataplane { body: Some(body) })).collect()
}

#[expect(clippy::disallowed_methods, reason = "a test may write its golden file when asked to")]
fn hold<M: Message + Default + PartialEq + std::fmt::Debug>(name: &str, message: &M) {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "golden", &format!("{name}.hex")].iter().collect();
    let bytes = message.encode_to_vec();
    if std::env::var_os("WEIR_GOLDEN").is_some_and(|v| v == "write") && !file.exists() {
        let wrapped: Vec<String> = hex::encode(&bytes)
            .as_bytes()
            .chunks(100)
            .map(|c| String::from_utf8(c.into()).unwrap())
            .collect();
        std::fs::write(&file, wrapped.join("\n") + "\n").unwrap();
    }
    let text: String = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{name}: {e}; run with WEIR_GOLDEN=write"))
        .split_whitespace()
        .collect();
    let golden = hex::decode(text).unwrap();
    assert_eq!(hex::encode(&bytes), hex::encode(&golden), "{name} is written otherwise than before");
    assert_eq!(&M::decode(golden.as_slice()).unwrap(), message, "{name} is read otherwise than before");
}

#[test]
fn what_control_says_has_its_golden_bytes() {
    for (name, message) in to_dataplane_messages() {
        hold(name, &message);
    }
}

#[test]
fn what_the_data_plane_says_has_its_golden_bytes() {
    for (name, message) in from_dataplane_messages() {
        hold(name, &message);
    }
}

#[test]
fn no_golden_file_without_its_message() {
    let known: Vec<String> = to_dataplane_messages()
        .iter()
        .map(|(n, _)| *n)
        .chain(from_dataplane_messages().iter().map(|(n, _)| *n))
        .map(|n| format!("{n}.hex"))
        .collect();
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "golden"].iter().collect();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "golden/{name} has no message");
    }
}

#[test]
fn a_reader_of_this_version_skips_what_a_later_one_adds() {
    let mut bytes = ToDataplane { body: Some(to_dataplane::Body::Audit(Audit { id: 5 })) }.encode_to_vec();
    bytes.extend_from_slice(&[0xfa, 0x3e, 0x03, b'n', b'e', b'w']); // field 1007, three bytes
    let read = ToDataplane::decode(bytes.as_slice()).expect("unknown fields are legal");
    assert_eq!(read.body, Some(to_dataplane::Body::Audit(Audit { id: 5 })));
}
