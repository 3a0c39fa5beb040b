//! A WebRTC end that is not a browser: checks as the controlling side of ICE (RFC 8445), shakes hands as DTLS client (RFC
//! 5764), speaks and hears SRTP; on loopback, by one socket, in the caller's thread.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dtls::{Event, Handshake, Identity};
use rtp::srtp::{Config, Inbound, Outbound, TRAILER_MAX};
use rtp::stun::{self, Key};

const UFRAG: &str = "peer";
const PASSWORD: &str = "apasswordof22charsOrMore";
const PATIENCE: Duration = Duration::from_secs(10);

/// The end.
#[derive(Debug)]
pub struct End {
    socket: UdpSocket,
    identity: Identity,
    handshake: Handshake,
    keys: Option<(Outbound, Inbound)>,
    /// The certificate that the other side has shown.
    pub shown: Option<[u8; 32]>,
    remote: Option<(SocketAddr, String, Key)>,
    checks: u32,
    checked: bool,
    sequence: u16,
}

impl Default for End {
    fn default() -> Self {
        End::new()
    }
}

impl End {
    /// One with a socket and a certificate of its own.
    pub fn new() -> End {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let identity = Identity::make(Duration::from_secs(30)).expect("a certificate");
        let handshake = Handshake::new(&identity, true, Instant::now());
        End {
            socket,
            identity,
            handshake,
            keys: None,
            shown: None,
            remote: None,
            checks: 0,
            checked: false,
            sequence: 0,
        }
    }

    /// An offer as a browser writes it: one line of audio, no address that means anything, other codecs than the one spoken
    /// here beside it.
    pub fn offer(&self) -> String {
        let print: Vec<String> = self.identity.fingerprint().iter().map(|o| format!("{o:02X}")).collect();
        format!(
            "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
             a=extmap-allow-mixed\r\na=msid-semantic: WMS s\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0 110\r\n\
             c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:{UFRAG}\r\na=ice-pwd:{PASSWORD}\r\n\
             a=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\na=setup:actpass\r\na=mid:0\r\n\
             a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a=sendrecv\r\na=msid:s t\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:111 opus/48000/2\r\n\
             a=rtcp-fb:111 transport-cc\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:110 telephone-event/48000\r\n\
             a=ssrc:77 cname:c\r\n",
            print.join(":")
        )
    }

    /// Takes the answer, checks the candidate that it names and shakes hands.
    pub fn connect(&mut self, answer: &[u8]) {
        let answer = sdp::Session::parse(answer, &sdp::Limits::default()).expect("an answer");
        let line = &answer.lines[0];
        assert!(line.proto == sdp::Proto::DtlsSavpf && !line.is_refused(), "{line:?}");
        assert_eq!((line.mid.as_deref(), line.setup), (Some("0"), Some(sdp::Setup::Passive)));
        assert!(line.rtp().is_some_and(|rtp| rtp.rtcp_mux) && answer.bundle() == [0]);
        let ice = line.ice.as_ref().expect("ICE");
        assert!(ice.lite);
        let words: Vec<&str> = ice.candidates[0].split(' ').collect();
        let [_, "1", "udp", _, ip, port, "typ", "host"] = words[..] else { panic!("{words:?}") };
        let at: SocketAddr = format!("{ip}:{port}").parse().expect("an address");
        self.remote = Some((at, format!("{}:{UFRAG}", ice.ufrag), Key::new(&ice.password)));
        let began = Instant::now();
        while self.keys.is_none() {
            assert!(began.elapsed() < PATIENCE, "no keys; checked: {}", self.checked);
            self.check();
            let mut events = Vec::new();
            if self.checked {
                self.handshake.timeout(Instant::now(), &mut events);
            }
            self.act(events);
            self.receive();
        }
        assert_eq!(line.sha256_fingerprints(), [self.shown.expect("a certificate")], "the one announced");
    }

    /// A check that nominates: at the beginning, and to go on consenting.
    pub fn check(&mut self) {
        let Some((at, name, key)) = &self.remote else { return };
        self.checks += 1;
        let mut transaction = [3; 12];
        transaction[..4].copy_from_slice(&self.checks.to_be_bytes());
        let check = stun::check(&transaction, name, key, true);
        self.socket.send_to(&check, at).expect("sent");
    }

    fn act(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Send(bytes) => self.send(&bytes),
                Event::Keys(keys) => {
                    let config = Config::default();
                    self.shown = Some(keys.fingerprint);
                    self.keys = Some((
                        Outbound::new(&keys.send, config).expect("keys"),
                        Inbound::new(&keys.receive, config).expect("keys"),
                    ));
                }
                Event::Failed | Event::Closed => panic!("the handshake: {event:?}"),
            }
        }
    }

    fn send(&self, bytes: &[u8]) {
        let (at, ..) = self.remote.as_ref().expect("an answer");
        self.socket.send_to(bytes, at).expect("sent");
    }

    /// Takes what comes within a moment; the RTP packet in it.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        let (length, from) = self.socket.recv_from(&mut buffer).ok()?;
        assert_eq!(Some(from), self.remote.as_ref().map(|(at, ..)| *at));
        let bytes = &buffer[..length];
        match rtp::kind(bytes) {
            rtp::Kind::Stun => {
                let message = stun::Message::parse(bytes).expect("STUN");
                let (_, _, key) = self.remote.as_ref()?;
                self.checked |= message.class == stun::Class::Success && message.is_authentic(key);
            }
            rtp::Kind::Dtls => {
                let mut events = Vec::new();
                self.handshake.datagram(Instant::now(), bytes, &mut events);
                self.act(events);
            }
            rtp::Kind::Rtp => {
                let (_, inbound) = self.keys.as_mut()?;
                let mut clear = bytes.to_vec();
                let length = inbound.rtp(&mut clear).expect("what its keys protect");
                clear.truncate(length);
                return Some(clear);
            }
            _ => {}
        }
        None
    }

    /// Says a packet of G.711.
    pub fn say(&mut self) {
        self.sequence += 1;
        let mut wire = vec![0x80, 0];
        wire.extend_from_slice(&self.sequence.to_be_bytes());
        wire.extend_from_slice(&(u32::from(self.sequence) * 160).to_be_bytes());
        wire.extend_from_slice(&77u32.to_be_bytes());
        wire.extend_from_slice(&[0xd5; 160]);
        let length = wire.len();
        wire.resize(length + TRAILER_MAX, 0);
        let (outbound, _) = self.keys.as_mut().expect("keys");
        let length = outbound.rtp(&mut wire, length).expect("protected");
        self.send(&wire[..length]);
    }

    /// Says as many packets in their time, and counts what is heard meanwhile and a moment after.
    pub fn converse(&mut self, packets: usize) -> usize {
        let (began, mut heard, mut said) = (Instant::now(), 0, 0);
        while began.elapsed() < Duration::from_millis(20 * packets as u64 + 500) {
            if said < packets && began.elapsed() >= Duration::from_millis(20 * said as u64) {
                self.say();
                said += 1;
            }
            heard += usize::from(self.receive().is_some());
        }
        heard
    }
}
