//! GStreamer's cameras and microphones in a context of our data plane, GStreamer's decoders as receivers: one is sent who
//! speaks (`select`, the picture follows the sound), one who holds the floor (`floor`). Both play one stream of each medium over
//! all changes of source, and their decoders find nothing wrong with it. VP8 with libvpx, H.264 with x264 and libav.
//!
//! The test stands between GStreamer and the data plane as a network does: it joins RTP and RTCP on one port, and keeps
//! the headers of what comes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use contract::change::Verb;
use contract::{
    Applied, Batch, Change, Context, Direction, Floor, FromDataplane, Hello, Leg, LegSet, Mode, Path,
    PayloadMap, RtpLeg, Select, ToDataplane, VideoCodec, decode_frame, encode_frame, from_dataplane, leg,
    path, placement, to_dataplane,
};
use rtp::{Packet, RtpView};

use crate::srtp::{free_port, is_bound};

/// Each speaks, and holds the floor, for so long.
const TURN: Duration = Duration::from_secs(3);
const TURNS: usize = 3;
const RATE: usize = 8000;
/// So long a sender's feedback is on its way: what is passed on before the key frame comes has a wrong picture under it.
const FEEDBACK: Duration = Duration::from_millis(250);

/// A codec in GStreamer's words: how it is sent, how it is received.
struct Codec {
    codec: VideoCodec,
    name: &'static str,
    send: &'static str,
    receive: &'static str,
}

const CODECS: [Codec; 2] = [
    Codec {
        codec: VideoCodec::Vp8,
        name: "VP8",
        send: "vp8enc deadline=1 cpu-used=8 threads=1 keyframe-max-dist=3000 target-bitrate=600000 ! \
               rtpvp8pay pt=96 mtu=1000 picture-id-mode=2",
        receive: "rtpvp8depay ! vp8dec",
    },
    Codec {
        codec: VideoCodec::H264,
        name: "H264",
        send: "videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 key-int-max=3000 bitrate=600 ! \
               video/x-h264,profile=baseline ! rtph264pay pt=96 mtu=1000 config-interval=-1",
        receive: "rtph264depay ! h264parse ! avdec_h264",
    },
];

/// GStreamer at work, with all that it says in a file.
struct Pipeline {
    child: Child,
    log: std::path::PathBuf,
}

impl Pipeline {
    fn launch(folder: &FilePath, name: &str, words: &str, ports: &[u16]) -> Pipeline {
        let log = folder.join(format!("{name}.log"));
        let file = fs::File::create(&log).expect("a log");
        let child = Command::new("gst-launch-1.0")
            .arg("-q")
            .args(words.split_whitespace())
            .env("GST_DEBUG", "2")
            .env("GST_DEBUG_NO_COLOR", "1")
            .stdout(file.try_clone().expect("a handle"))
            .stderr(file)
            .stdin(Stdio::null())
            .spawn()
            .expect("GStreamer is installed");
        let pipeline = Pipeline { child, log };
        let began = Instant::now();
        while !ports.iter().copied().all(is_bound) {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{name} does not listen:\n{}",
                pipeline.said()
            );
            sleep(Duration::from_millis(10));
        }
        pipeline
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The header of a packet that came: SSRC, sequence number, timestamp.
type Head = (u32, u16, u32);

/// Between GStreamer and one leg.
struct Line {
    /// Where the leg's peer is, as the data plane sees it.
    outer: UdpSocket,
    /// Where GStreamer sends RTP and RTCP.
    inner: UdpSocket,
    /// Where GStreamer hears RTP (a receiver) or RTCP (a sender).
    ear: u16,
    heads: Arc<Mutex<Vec<Head>>>,
    /// Key frames that were asked for.
    asked: Arc<AtomicUsize>,
}

impl Line {
    fn new() -> Line {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
            socket
        };
        let (heads, asked) = (Arc::default(), Arc::default());
        Line { outer: socket(), inner: socket(), ear: free_port(), heads, asked }
    }

    fn inner_port(&self) -> u16 {
        self.inner.local_addr().expect("an address").port()
    }

    /// Carries what GStreamer sends to the data plane, and of what comes back RTP to a receiver and RTCP to a sender.
    fn carry(&self, to: SocketAddr, sends: bool, ends: &Arc<AtomicBool>) -> [JoinHandle<()>; 2] {
        let clone = |socket: &UdpSocket| socket.try_clone().expect("a handle");
        let (inner, outer, end) = (clone(&self.inner), clone(&self.outer), ends.clone());
        let up = spawn(move || {
            let mut buffer = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                if let Ok(length) = inner.recv(&mut buffer) {
                    outer.send_to(&buffer[..length], to).expect("sent");
                }
            }
        });
        let (outer, inner, end, ear) = (clone(&self.outer), clone(&self.inner), ends.clone(), self.ear);
        let (heads, asked) = (self.heads.clone(), self.asked.clone());
        let down = spawn(move || {
            let mut buffer = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                let Ok(length) = outer.recv(&mut buffer) else { continue };
                let bytes = &buffer[..length];
                let is_rtp = rtp::kind(bytes) == rtp::Kind::Rtp;
                if is_rtp {
                    let view = RtpView::parse(bytes).expect("RTP");
                    heads.lock().expect("heads").push((view.ssrc(), view.sequence(), view.timestamp()));
                } else {
                    let packets = rtp::compound(bytes, true).expect("RTCP");
                    let asks = packets.filter(|p| matches!(p, Packet::Payload(f) if f.format == 1)).count();
                    asked.fetch_add(asks, Ordering::Relaxed);
                }
                if is_rtp != sends {
                    sleep(if is_rtp { Duration::ZERO } else { FEEDBACK });
                    inner.send_to(bytes, ("127.0.0.1", ear)).expect("sent");
                }
            }
        });
        [up, down]
    }
}

/// Control's end of the contract.
struct Control {
    stream: UnixStream,
    read: BytesMut,
    generation: u64,
}

impl Control {
    fn new(socket: &FilePath) -> Control {
        let stream = UnixStream::connect(socket).expect("the data plane");
        let mut control = Control { stream, read: BytesMut::new(), generation: 0 };
        let version = contract::VERSION;
        let hello = Hello { version_min: version, version_max: version, epoch: 1, owner: "interop".into() };
        control.say(to_dataplane::Body::Hello(hello));
        assert!(matches!(control.answer(), from_dataplane::Body::Welcome(_)));
        control
    }

    fn say(&mut self, body: to_dataplane::Body) {
        let mut frame = BytesMut::new();
        encode_frame(&ToDataplane { body: Some(body) }, &mut frame);
        self.stream.write_all(&frame).expect("written");
    }

    fn answer(&mut self) -> from_dataplane::Body {
        loop {
            while let Some(frame) = decode_frame::<FromDataplane>(&mut self.read).expect("a frame") {
                match frame.body.expect("a body") {
                    from_dataplane::Body::News(_) => {}
                    body => return body,
                }
            }
            let mut piece = [0; 4096];
            let length = self.stream.read(&mut piece).expect("read");
            assert_ne!(length, 0, "the data plane hung up");
            self.read.extend_from_slice(&piece[..length]);
        }
    }

    fn put(&mut self, verbs: Vec<Verb>) -> Applied {
        self.generation += 1;
        let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
        let batch = Batch { generation: self.generation, epoch: 1, trace: "interop".into(), changes };
        self.say(to_dataplane::Body::Batch(batch));
        match self.answer() {
            from_dataplane::Body::Applied(applied) => applied,
            other => panic!("{other:?}"),
        }
    }
}

/// Who is there: two who send, one who is sent the speaker, one who is sent the floor's holder.
const SENDERS: [u64; 2] = [1, 2];
const SELECTED: u64 = 3;
const FLOORED: u64 = 4;
const ALL: [u64; 4] = [1, 2, 3, 4];

const fn audio(who: u64) -> u64 {
    who
}

const fn video(who: u64) -> u64 {
    10 + who
}

fn put_leg(id: u64, who: u64, line: &Line, codec: &Codec) -> Verb {
    let is_video = id == video(who);
    let (payload, kind) = if is_video { (96, codec.codec) } else { (0, VideoCodec::Unspecified) };
    let rtp = RtpLeg {
        remote: Some(line.outer.local_addr().expect("an address").into()),
        rtcp_mux: true,
        video: is_video,
        clock_rate: if is_video { 90_000 } else { 8000 },
        payloads: vec![PayloadMap { peer: payload, context: payload, codec: kind.into() }],
        cname: format!("p{who}"),
        ..RtpLeg::default()
    };
    let direction = if SENDERS.contains(&who) { Direction::Sendonly } else { Direction::Recvonly };
    Verb::PutLeg(Leg {
        id,
        context: 1,
        media: if is_video { "video" } else { "audio" }.into(),
        direction: direction.into(),
        participant: format!("p{who}"),
        kind: Some(leg::Kind::Rtp(rtp)),
        ..Leg::default()
    })
}

fn put_path(id: u32, mode: Mode, of: fn(u64) -> u64, to: u64, parameters: path::Parameters) -> Verb {
    Verb::PutPath(Path {
        id,
        context: 1,
        mode: mode.into(),
        sources: Some(LegSet { legs: SENDERS.map(of).to_vec(), media: String::new() }),
        targets: Some(LegSet { legs: vec![of(to)], media: String::new() }),
        parameters: Some(parameters),
    })
}

fn floor(holder: u64) -> Vec<Verb> {
    let to = |of: fn(u64) -> u64| {
        path::Parameters::Floor(Floor { holders: vec![of(holder)], slots: 1, contributors: false })
    };
    vec![
        put_path(3, Mode::Floor, audio, FLOORED, to(audio)),
        put_path(4, Mode::Floor, video, FLOORED, to(video)),
    ]
}

fn select() -> Vec<Verb> {
    let of =
        |follows| path::Parameters::Select(Select { slots: 1, hold_ms: 300, follows, contributors: false });
    vec![put_path(1, Mode::Select, audio, SELECTED, of(0)), put_path(2, Mode::Select, video, SELECTED, of(1))]
}

/// A voice that is heard in every second turn: a tone.
fn voice(who: u64) -> Vec<u8> {
    let samples = 0..RATE * TURN.as_secs() as usize * TURNS;
    let speaks = |at: usize| (at / (RATE * TURN.as_secs() as usize)) as u64 % 2 == who - 1;
    let tone = |at: usize| (at as f64 * hertz(who) * std::f64::consts::TAU / RATE as f64).sin() * 12_000.0;
    samples.flat_map(|at| (if speaks(at) { tone(at) as i16 } else { 0 }).to_le_bytes()).collect()
}

fn hertz(who: u64) -> f64 {
    [440.0, 1000.0][who as usize - 1]
}

/// Whose tone a tenth of a second has, if it has one.
fn heard(samples: &[i16]) -> Option<u64> {
    let power = |who| {
        let step = hertz(who) * std::f64::consts::TAU / RATE as f64;
        let part = |f: fn(f64) -> f64| {
            samples.iter().enumerate().map(|(at, s)| f64::from(*s) * f(step * at as f64)).sum::<f64>()
        };
        part(f64::sin).hypot(part(f64::cos)) / samples.len() as f64
    };
    SENDERS.into_iter().find(|who| power(*who) > 3000.0)
}

/// Whose picture it is: the first one's has no colour, the second one's has much; `None`: neither one nor the other.
fn seen(frame: &[u8]) -> Option<u64> {
    let chroma = &frame[32 * 24..];
    let colour = chroma.iter().map(|c| u32::from(c.abs_diff(128))).sum::<u32>() / chroma.len() as u32;
    match colour {
        0..=6 => Some(1),
        20.. => Some(2),
        _ => None,
    }
}

fn sender(who: u64, folder: &FilePath, codec: &Codec, sound: &Line, picture: &Line) -> Pipeline {
    let file = folder.join(format!("voice{who}.raw"));
    fs::write(&file, voice(who)).expect("a voice");
    let pattern =
        ["pattern=zone-plate kx2=20 ky2=20 kt=3", "pattern=smpte horizontal-speed=3"][who as usize - 1];
    let words = format!(
        "rtpbin name=r \
         videotestsrc is-live=true {pattern} ! video/x-raw,width=320,height=240,framerate=30/1 ! {} ! r.send_rtp_sink_0 \
         r.send_rtp_src_0 ! udpsink host=127.0.0.1 port={port} sync=false async=false \
         r.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={port} sync=false async=false \
         udpsrc address=127.0.0.1 port={} caps=application/x-rtcp ! r.recv_rtcp_sink_0 \
         filesrc location={} blocksize=320 ! rawaudioparse format=pcm pcm-format=s16le sample-rate={RATE} num-channels=1 ! \
         mulawenc ! rtppcmupay min-ptime=20000000 max-ptime=20000000 ! \
         udpsink host=127.0.0.1 port={} sync=true async=false",
        codec.send,
        picture.ear,
        file.display(),
        sound.inner_port(),
        port = picture.inner_port(),
    );
    Pipeline::launch(folder, &format!("sender{who}"), &words, &[picture.ear])
}

fn receiver(who: u64, folder: &FilePath, codec: &Codec, sound: &Line, picture: &Line) -> Pipeline {
    let words = format!(
        "udpsrc address=127.0.0.1 port={} caps=application/x-rtp,media=video,clock-rate=90000,encoding-name={},payload=96 ! \
         rtpjitterbuffer latency=60 ! {} ! videoconvert ! videoscale ! video/x-raw,format=I420,width=32,height=24 ! \
         filesink location={} buffer-mode=2 sync=false async=false \
         udpsrc address=127.0.0.1 port={} caps=application/x-rtp,media=audio,clock-rate=8000,encoding-name=PCMU,payload=0 ! \
         rtpjitterbuffer latency=60 ! rtppcmudepay ! mulawdec ! \
         filesink location={} buffer-mode=2 sync=false async=false",
        picture.ear,
        codec.name,
        codec.receive,
        folder.join(format!("picture{who}.raw")).display(),
        sound.ear,
        folder.join(format!("sound{who}.raw")).display(),
    );
    Pipeline::launch(folder, &format!("receiver{who}"), &words, &[picture.ear, sound.ear])
}

/// One stream, each number once and in order, no time back; audio in whole packets.
fn check_stream(heads: &[Head], step: u32, what: &str) {
    assert!(heads.len() > 100, "{what}: {} packets", heads.len());
    for pair in heads.windows(2) {
        let [(ssrc, n, ts), (ssrc2, n2, ts2)] = pair else { panic!("two") };
        assert_eq!((ssrc, n.wrapping_add(1)), (ssrc2, *n2), "{what}");
        let passed = ts2.wrapping_sub(*ts);
        assert!(passed < 2 * 90_000 && passed.is_multiple_of(step), "{what}: a step of {passed}");
    }
}

/// The runs of what was seen or heard, without what is too short to be one.
fn runs(all: impl Iterator<Item = Option<u64>>, least: usize) -> Vec<u64> {
    let mut runs: Vec<(u64, usize)> = Vec::new();
    for whose in all.flatten() {
        match runs.last_mut() {
            Some((last, count)) if *last == whose => *count += 1,
            _ => runs.push((whose, 1)),
        }
    }
    let mut whose: Vec<u64> =
        runs.into_iter().filter(|(_, count)| *count >= least).map(|(who, _)| who).collect();
    whose.dedup();
    whose
}

#[test]
fn gstreamer_decodes_who_speaks_and_who_has_the_floor_over_all_changes() {
    for codec in &CODECS {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "folder = \"{}\"\n[metrics]\non = false\n[msrp]\nport = 0\n[rtp]\nport_first = 28000\nport_last = 28099\n",
            folder.path().display()
        );
        let dataplane = dataplaned::start(toml::from_str(&text).expect("settings")).expect("a data plane");
        let mut control = Control::new(&dataplane.addresses().socket);
        let lines: Vec<(u64, Line)> =
            ALL.into_iter().flat_map(|who| [audio(who), video(who)].map(|id| (id, Line::new()))).collect();
        let line = |id: u64| &lines.iter().find(|(of, _)| *of == id).expect("a line").1;
        let mut verbs = vec![Verb::PutContext(Context { id: 1 })];
        for who in ALL {
            verbs.extend([audio(who), video(who)].map(|id| put_leg(id, who, line(id), codec)));
        }
        verbs.extend(select());
        verbs.extend(floor(1));
        let ends = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for placement in control.put(verbs).placements {
            let Some(placement::At::Rtp(local)) = placement.at else { panic!("{placement:?}") };
            let at = local.bound.as_ref().and_then(contract::Address::socket).expect("an address");
            let sends = SENDERS.contains(&(placement.leg % 10));
            threads.extend(line(placement.leg).carry(at, sends, &ends));
        }
        let receivers = [SELECTED, FLOORED]
            .map(|who| receiver(who, folder.path(), codec, line(audio(who)), line(video(who))));
        let senders =
            SENDERS.map(|who| sender(who, folder.path(), codec, line(audio(who)), line(video(who))));
        for turn in 1..=TURNS {
            sleep(TURN);
            if turn < TURNS {
                control.put(floor(1 + turn as u64 % 2));
            }
        }
        sleep(Duration::from_millis(500));
        drop(senders);
        sleep(Duration::from_millis(500));
        ends.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("a line's thread");
        }
        let asked = SENDERS.map(|who| line(video(who)).asked.load(Ordering::Relaxed));
        for (who, receiver) in [SELECTED, FLOORED].into_iter().zip(&receivers) {
            let what = format!("{} {}", codec.name, if who == SELECTED { "select" } else { "floor" });
            let said = receiver.said();
            assert!(!said.contains("WARN") && !said.contains("ERROR"), "{what}:\n{said}");
            let heads = |id: u64| line(id).heads.lock().expect("heads").clone();
            check_stream(&heads(audio(who)), 160, &format!("{what} audio"));
            check_stream(&heads(video(who)), 1, &format!("{what} video"));
            let picture = fs::read(folder.path().join(format!("picture{who}.raw"))).expect("pictures");
            let frames: Vec<Option<u64>> = picture.chunks_exact(32 * 24 * 3 / 2).map(seen).collect();
            let mixed = frames.iter().filter(|whose| whose.is_none()).count();
            let sound = fs::read(folder.path().join(format!("sound{who}.raw"))).expect("sound");
            let samples: Vec<i16> = sound.chunks_exact(2).map(|s| i16::from_le_bytes([s[0], s[1]])).collect();
            let saw = runs(frames.iter().copied(), 15);
            let listened = runs(samples.chunks_exact(RATE / 10).map(heard), 5);
            println!(
                "{what}: {} frames decoded, {:.1} s of sound, seen {saw:?}, heard {listened:?}, key frames asked for {asked:?}",
                frames.len(),
                samples.len() as f64 / RATE as f64
            );
            assert_eq!(mixed, 0, "{what}: pictures of nobody");
            assert!(frames.len() > 30 * 6, "{what}: {} frames", frames.len());
            assert_eq!(saw, [1, 2, 1], "{what}");
            // The floor follows control's clock, not the speakers'.
            assert!(listened.starts_with(&[1, 2]), "{what}: {listened:?}");
        }
    }
}
