//! SRTP against libsrtp, as GStreamer's `srtpenc` and `srtpdec` carry it: what we protect it opens, what it protects we
//! open, octet by octet, for every suite that both have, over a rollover, RTP and RTCP.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::Entropy;
use rtp::srtp::{Config, Inbound, Keying, Outbound, Suite, TRAILER_MAX};

const SSRC: u32 = 4321;
const FIRST: u16 = 65_500;
const PACKETS: u16 = 200;

/// A suite in GStreamer's words: cipher, and authentication of RTP and of RTCP.
const SUITES: [(Suite, &str, &str, &str); 6] = [
    (Suite::AesCm128HmacSha1_80, "aes-128-icm", "hmac-sha1-80", "hmac-sha1-80"),
    (Suite::AesCm128HmacSha1_32, "aes-128-icm", "hmac-sha1-32", "hmac-sha1-80"),
    (Suite::AesCm256HmacSha1_80, "aes-256-icm", "hmac-sha1-80", "hmac-sha1-80"),
    (Suite::AesCm256HmacSha1_32, "aes-256-icm", "hmac-sha1-32", "hmac-sha1-80"),
    (Suite::AeadAes128Gcm, "aes-128-gcm", "null", "null"),
    (Suite::AeadAes256Gcm, "aes-256-gcm", "null", "null"),
];

struct Pipeline(Child);

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether somebody receives on that UDP port of ours.
pub fn is_bound(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/udp").expect("the kernel's table");
    table
        .lines()
        .any(|line| line.split_whitespace().nth(1).is_some_and(|a| a.ends_with(&format!(":{port:04X}"))))
}

/// Starts a pipeline and waits until it plays and receives on its ports.
fn launch(words: &str, ports: [u16; 2]) -> Pipeline {
    let mut child = Command::new("gst-launch-1.0")
        .args(words.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("GStreamer is installed");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let pipeline = Pipeline(child);
    for line in output.lines() {
        if line.expect("text").contains("New clock") {
            let start = std::time::Instant::now();
            while !ports.into_iter().all(is_bound) {
                assert!(start.elapsed() < Duration::from_secs(5), "nobody receives: {words}");
                std::thread::sleep(Duration::from_millis(10));
            }
            return pipeline;
        }
    }
    panic!("the pipeline did not start: {words}");
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    socket
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().expect("an address").port()
}

/// A port that is free now.
pub fn free_port() -> u16 {
    port(&socket())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn packet(n: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend_from_slice(&FIRST.wrapping_add(n).to_be_bytes());
    packet.extend_from_slice(&(u32::from(n) * 160).to_be_bytes());
    packet.extend_from_slice(&SSRC.to_be_bytes());
    packet.extend((0..40 + n % 7).map(|i| (i + n) as u8));
    packet
}

fn report(n: u16) -> Vec<u8> {
    let mut writer = rtp::RtcpWriter::new();
    writer.receiver(SSRC, &[]).description([(SSRC, format!("c{n}").as_str())].into_iter());
    writer.finish().to_vec()
}

/// Sends a packet and gives what comes back for it. A pipeline drops what reaches it before it plays, so an
/// unanswered packet is sent again; one that was answered never is.
fn exchange(socket: &UdpSocket, bytes: &[u8], port: u16, what: &str) -> Vec<u8> {
    let mut buffer = [0; 2048];
    for _ in 0..20 {
        socket.send_to(bytes, ("127.0.0.1", port)).expect("sent");
        if let Ok(length) = socket.recv(&mut buffer) {
            return buffer[..length].to_vec();
        }
    }
    panic!("{what}: no answer");
}

#[test]
fn libsrtp_opens_what_we_protect_and_we_open_what_it_protects() {
    for (suite, cipher, auth, rtcp_auth) in SUITES {
        let keying = Keying::draw(suite, &mut Entropy::from_number(77));
        let key = hex(keying.expose());
        let (rtp, rtcp, out, out_rtcp) = (socket(), socket(), free_port(), free_port());
        let caps = |rest: &str| {
            format!(
                "{rest},ssrc=(uint){SSRC},roc=(uint)0,srtp-key=(buffer){key},srtp-cipher=(string){cipher},\
                 srtp-auth=(string){auth},srtcp-cipher=(string){cipher},srtcp-auth=(string){rtcp_auth}"
            )
        };
        let mut outbound: Outbound = Outbound::new(&keying, Config::default()).expect("a context");
        let pipeline = launch(
            &format!(
                "srtpdec name=d udpsrc address=127.0.0.1 port={out} caps={} ! d.rtp_sink \
             d.rtp_src ! udpsink host=127.0.0.1 port={} sync=false async=false \
             udpsrc address=127.0.0.1 port={out_rtcp} caps={} ! d.rtcp_sink \
             d.rtcp_src ! udpsink host=127.0.0.1 port={} sync=false async=false",
                caps("application/x-srtp,media=audio,clock-rate=8000,payload=96"),
                port(&rtp),
                caps("application/x-srtcp"),
                port(&rtcp),
            ),
            [out, out_rtcp],
        );
        for n in 0..PACKETS {
            let clear = packet(n);
            let mut wire = clear.clone();
            wire.resize(clear.len() + TRAILER_MAX, 0);
            let length = outbound.rtp(&mut wire, clear.len()).expect("protected");
            assert_eq!(exchange(&rtp, &wire[..length], out, cipher), clear, "{suite:?} {n}");
            if n % 20 == 0 {
                let clear = report(n);
                let mut wire = clear.clone();
                wire.resize(clear.len() + TRAILER_MAX, 0);
                let length = outbound.rtcp(&mut wire, clear.len()).expect("protected");
                let back = exchange(&rtcp, &wire[..length], out_rtcp, cipher);
                assert_eq!(back, clear, "{suite:?} RTCP {n}");
            }
        }
        drop(pipeline);

        let (plain, plain_rtcp) = (free_port(), free_port());
        let mut inbound: Inbound = Inbound::new(&keying, Config::default()).expect("a context");
        let pipeline = launch(
            &format!(
                "srtpenc name=e key={key} rtp-cipher={cipher} rtp-auth={auth} rtcp-cipher={cipher} rtcp-auth={rtcp_auth} \
             udpsrc address=127.0.0.1 port={plain} \
             caps=application/x-rtp,media=audio,clock-rate=8000,payload=96,ssrc=(uint){SSRC} ! e.rtp_sink_0 \
             e.rtp_src_0 ! udpsink host=127.0.0.1 port={} sync=false async=false \
             udpsrc address=127.0.0.1 port={plain_rtcp} caps=application/x-rtcp ! e.rtcp_sink_0 \
             e.rtcp_src_0 ! udpsink host=127.0.0.1 port={} sync=false async=false",
                port(&rtp),
                port(&rtcp),
            ),
            [plain, plain_rtcp],
        );
        for n in 0..PACKETS {
            let clear = packet(n);
            let mut wire = exchange(&rtp, &clear, plain, cipher);
            assert_eq!(wire.len(), clear.len() + suite.rtp_octets(), "{suite:?}");
            let length = inbound.rtp(&mut wire).expect("authentic");
            assert_eq!(wire[..length], clear, "{suite:?} {n}");
            if n % 20 == 0 {
                let clear = report(n);
                let mut wire = exchange(&rtcp, &clear, plain_rtcp, cipher);
                let length = inbound.rtcp(&mut wire).expect("authentic");
                assert_eq!(wire[..length], clear, "{suite:?} RTCP {n}");
            }
        }
        let progress = inbound.progress().next().expect("one source");
        assert_eq!((progress.rollover, progress.sequence), (1, FIRST.wrapping_add(PACKETS - 1)));
        drop(pipeline);
        println!("{suite:?}: {PACKETS} packets each way, octet by octet, over a rollover");
    }
}
