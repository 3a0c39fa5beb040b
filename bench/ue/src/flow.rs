//! One RTP flow of a device: a pair of sockets, a sender that paces audio, a receiver that counts (RFC 3550).
//!
//! With keys all of it is SRTP (`rtp::srtp`): what does not authenticate is counted and not heard.
//!
//! Not here: SDP, and what a number means for a test.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Entropy, Instant, UnixTime};
use rtp::srtp::{Config, Inbound, Keying, Outbound, SrtpError, TRAILER_MAX};
use rtp::{Clock, Kind, Ntp, Packet, Reception, RtcpWriter, RtpView, SenderInfo};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::audio::{FRAME_SAMPLES, Probe, SAMPLE_RATE, ulaw_decode, ulaw_encode};
use crate::stats::FlowStats;

/// PCMU (RFC 3551 table 4).
const PAYLOAD_TYPE: u8 = 0;
const FRAME: Duration = Duration::from_millis(20);
/// Synchronisation sources that one flow tells apart.
const SOURCES_MAX: usize = 31;
const DATAGRAM_MAX: usize = 2048;
/// Tries to find an even port with a free odd one above it.
const PAIR_TRIES: usize = 50;

/// How one flow behaves.
#[derive(Clone, Debug)]
pub struct FlowOptions {
    /// Time between two RTCP reports (RFC 3550 §6.2 asks for 5 s or more in production).
    pub rtcp_every: Duration,
    /// Samples of what is heard that are kept; 0 = none.
    pub keep_samples_max: usize,
    /// Name in SDES.
    pub cname: String,
}

impl Default for FlowOptions {
    fn default() -> Self {
        FlowOptions { rtcp_every: Duration::from_secs(5), keep_samples_max: 0, cname: "ue".to_owned() }
    }
}

/// A flow. Dropping it closes its sockets.
#[derive(Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    local: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
    playing: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    rtp: UdpSocket,
    rtcp: Option<UdpSocket>,
    options: FlowOptions,
    ssrc: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stats: FlowStats,
    remote: Option<SocketAddr>,
    remote_rtcp: Option<SocketAddr>,
    sending: bool,
    sequence: u16,
    timestamp: u32,
    octets: u32,
    /// One per synchronisation source, at most [`SOURCES_MAX`].
    receptions: Vec<Reception>,
    packets: u32,
    heard: Vec<i16>,
    keys: Option<Keys>,
}

/// What both ends protect with.
#[derive(Debug)]
struct Keys {
    ours: Keying,
    theirs: Keying,
    outbound: Outbound,
    inbound: Inbound,
}

impl Keys {
    fn new(ours: Keying, theirs: Keying) -> Result<Self, SrtpError> {
        let (outbound, inbound) =
            (Outbound::new(&ours, Config::default())?, Inbound::new(&theirs, Config::default())?);
        Ok(Keys { ours, theirs, outbound, inbound })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    /// Opens the sockets on an address: RTP on an even port, RTCP on the odd one above it where that is free.
    pub async fn open(ip: IpAddr, entropy: &mut Entropy, options: FlowOptions) -> std::io::Result<Flow> {
        let (rtp, rtcp) = bind_pair(ip).await?;
        let local = rtp.local_addr()?;
        let shared = Arc::new(Shared {
            rtp,
            rtcp,
            options,
            ssrc: entropy.u32(),
            state: Mutex::new(State {
                stats: FlowStats::default(),
                remote: None,
                remote_rtcp: None,
                sending: true,
                // Below 2^15, so that SRTP could guess its rollover counter (RFC 3711 §3.3.1).
                sequence: (entropy.u32() & 0x7fff) as u16,
                timestamp: entropy.u32(),
                octets: 0,
                receptions: Vec::new(),
                packets: 0,
                heard: Vec::new(),
                keys: None,
            }),
        });
        let tasks = vec![
            tokio::spawn(receive(Arc::clone(&shared), false)),
            tokio::spawn(receive(Arc::clone(&shared), true)),
            tokio::spawn(report(Arc::clone(&shared))),
        ];
        Ok(Flow { shared, local, tasks, playing: None })
    }

    /// Where RTP is received.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Where RTCP is received when it is not multiplexed.
    pub fn local_rtcp(&self) -> Option<SocketAddr> {
        self.shared.rtcp.as_ref().and_then(|s| s.local_addr().ok())
    }

    /// Our synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.shared.ssrc
    }

    /// Points the flow at the far end; `rtcp` is the same as `rtp` with rtcp-mux.
    pub fn aim(&self, rtp: SocketAddr, rtcp: SocketAddr) {
        let mut state = self.shared.state();
        state.remote = Some(rtp);
        state.remote_rtcp = Some(rtcp);
    }

    /// From now on the flow is SRTP, with our key and the far end's, or plain. The same keys as before go on.
    pub fn guard(&self, keys: Option<(Keying, Keying)>) -> Result<(), SrtpError> {
        let mut state = self.shared.state();
        let same = match (&state.keys, &keys) {
            (Some(old), Some((ours, theirs))) => old.ours == *ours && old.theirs == *theirs,
            (None, None) => true,
            _ => false,
        };
        if !same {
            state.keys = keys.map(|(ours, theirs)| Keys::new(ours, theirs)).transpose()?;
        }
        Ok(())
    }

    /// Whether the negotiated direction lets us send.
    pub fn allow_sending(&self, on: bool) {
        self.shared.state().sending = on;
    }

    /// Plays samples in real time, each packet with a probe of `source`; ends a play that runs. Returns at once.
    pub fn play(&mut self, samples: Arc<Vec<i16>>, source: u16) {
        self.stop();
        self.playing = Some(tokio::spawn(play(Arc::clone(&self.shared), samples, source)));
    }

    /// True while a play runs.
    pub fn is_playing(&self) -> bool {
        self.playing.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Ends the play.
    pub fn stop(&mut self) {
        if let Some(task) = self.playing.take() {
            task.abort();
        }
    }

    /// Where the far end receives RTP, once that is negotiated.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.shared.state().remote
    }

    /// Sends octets to the far end as they are, from the socket of RTP: rubbish that comes from the right address.
    pub fn inject(&self, octets: &[u8]) -> std::io::Result<()> {
        let to = self.remote().ok_or(std::io::ErrorKind::NotConnected)?;
        self.shared.rtp.try_send_to(octets, to).map(drop)
    }

    /// What was counted so far.
    pub fn stats(&self) -> FlowStats {
        self.shared.state().stats.clone()
    }

    /// The samples heard, as far as they are kept, in order of arrival.
    pub fn heard(&self) -> Vec<i16> {
        self.shared.state().heard.clone()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop();
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn bind_pair(ip: IpAddr) -> std::io::Result<(UdpSocket, Option<UdpSocket>)> {
    let mut odd = None;
    for _ in 0..PAIR_TRIES {
        let rtp = UdpSocket::bind((ip, 0)).await?;
        let port = rtp.local_addr()?.port();
        if port % 2 == 0
            && let Ok(rtcp) = UdpSocket::bind((ip, port + 1)).await
        {
            return Ok((rtp, Some(rtcp)));
        }
        odd = Some(rtp);
    }
    odd.map(|rtp| (rtp, None)).ok_or_else(|| std::io::ErrorKind::AddrInUse.into())
}

pub(crate) fn unix_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

async fn play(shared: Arc<Shared>, samples: Arc<Vec<i16>>, source: u16) {
    let mut tick = tokio::time::interval(FRAME);
    // A late tick is made up for at once: the stream keeps its rate.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    for (n, frame) in samples.chunks(FRAME_SAMPLES).enumerate() {
        tick.tick().await;
        let mut payload = [0xff_u8; FRAME_SAMPLES];
        for (octet, sample) in payload.iter_mut().zip(frame) {
            *octet = ulaw_encode(*sample);
        }
        let probe = Probe { source, sequence: n as u32, sent_ns: unix_ns() };
        probe.write(&mut payload);
        let Some((packet, to)) = shared.state().next_packet(shared.ssrc, n == 0, &payload) else { continue };
        let sent = shared.rtp.send_to(&packet, to).await;
        let mut state = shared.state();
        match sent {
            Ok(_) => state.stats.sent += 1,
            Err(_) => state.stats.send_errors += 1,
        }
    }
}

impl State {
    fn next_packet(&mut self, ssrc: u32, marker: bool, payload: &[u8]) -> Option<(Vec<u8>, SocketAddr)> {
        let to = self.remote.filter(|_| self.sending)?;
        // RFC 3550 §5.1: version 2, no padding, extension or contributors.
        let mut packet = Vec::with_capacity(12 + payload.len());
        packet.extend_from_slice(&[0x80, PAYLOAD_TYPE | if marker { 0x80 } else { 0 }]);
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&self.timestamp.to_be_bytes());
        packet.extend_from_slice(&ssrc.to_be_bytes());
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(payload.len() as u32);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        self.packets = self.packets.wrapping_add(1);
        Some((self.protected(packet, false)?, to))
    }

    /// With keys, protected; `None`: that cannot be.
    fn protected(&mut self, mut packet: Vec<u8>, rtcp: bool) -> Option<Vec<u8>> {
        let Some(keys) = &mut self.keys else { return Some(packet) };
        let clear = packet.len();
        packet.resize(clear + TRAILER_MAX, 0);
        let sealed =
            if rtcp { keys.outbound.rtcp(&mut packet, clear) } else { keys.outbound.rtp(&mut packet, clear) };
        packet.truncate(sealed.ok()?);
        Some(packet)
    }

    fn take(&mut self, datagram: &mut [u8], now_ns: u64, keep_max: usize) {
        let kind = rtp::kind(datagram);
        let opened = match (&mut self.keys, kind) {
            (Some(keys), Kind::Rtp) => keys.inbound.rtp(datagram),
            (Some(keys), Kind::Rtcp) => keys.inbound.rtcp(datagram),
            _ => Ok(datagram.len()),
        };
        let Ok(length) = opened else {
            self.stats.unauthentic += 1;
            return;
        };
        let clear = datagram.get(..length).unwrap_or_default();
        match kind {
            Kind::Rtp => self.take_rtp(clear, now_ns, keep_max),
            Kind::Rtcp => self.take_rtcp(clear, now_ns),
            _ => self.stats.malformed += 1,
        }
    }

    fn take_rtp(&mut self, datagram: &[u8], now_ns: u64, keep_max: usize) {
        let Ok(view) = RtpView::parse(datagram) else {
            self.stats.malformed += 1;
            return;
        };
        self.stats.received += 1;
        self.stats.received_bytes += datagram.len() as u64;
        let ssrc = view.ssrc();
        if self.stats.ssrcs.len() < SOURCES_MAX || self.stats.ssrcs.contains_key(&ssrc) {
            *self.stats.ssrcs.entry(ssrc).or_default() += 1;
        }
        let at = Instant::from_nanos(now_ns);
        if self.receptions.len() < SOURCES_MAX && !self.receptions.iter().any(|r| r.ssrc() == ssrc) {
            self.receptions.push(Reception::new(&view));
        }
        if let Some(reception) = self.receptions.iter_mut().find(|r| r.ssrc() == ssrc) {
            reception.update(&view, at, Clock(SAMPLE_RATE));
        }
        match Probe::read(view.payload()) {
            Some(probe) => self.stats.probe(probe, now_ns),
            None => self.stats.unprobed += 1,
        }
        if view.payload_type() == PAYLOAD_TYPE {
            let room = keep_max.saturating_sub(self.heard.len());
            self.heard.extend(view.payload().iter().take(room).map(|octet| ulaw_decode(*octet)));
        }
    }

    fn take_rtcp(&mut self, datagram: &[u8], now_ns: u64) {
        let Ok(compound) = rtp::compound(datagram, false) else {
            self.stats.malformed += 1;
            return;
        };
        for packet in compound {
            let (kind, mut blocks) = match packet {
                Packet::Sender(info, blocks) => {
                    if let Some(reception) = self.receptions.iter_mut().find(|r| r.ssrc() == info.ssrc) {
                        reception.sender_report(&info, Instant::from_nanos(now_ns));
                    }
                    (200, Some(blocks))
                }
                Packet::Receiver(_, blocks) => (201, Some(blocks)),
                Packet::Description(_) => (202, None),
                Packet::Bye(_) => (203, None),
                Packet::Transport(_) => (205, None),
                Packet::Payload(_) => (206, None),
                Packet::Extended(..) => (207, None),
                Packet::Other(kind) => (kind, None),
            };
            *self.stats.rtcp.entry(kind).or_default() += 1;
            if let Some(block) = blocks.as_mut().and_then(Iterator::next) {
                self.stats.reported = Some((block.fraction_lost, block.jitter));
            }
        }
    }

    /// A compound packet of ours: SR while we send, RR else, then SDES (RFC 3550 §6.1).
    fn report(&mut self, ssrc: u32, cname: &str, now_ns: u64) -> Option<(Vec<u8>, SocketAddr)> {
        let to = self.remote_rtcp?;
        let now = Instant::from_nanos(now_ns);
        let blocks: Vec<_> = self.receptions.iter_mut().map(|r| r.report(now)).collect();
        let mut writer = RtcpWriter::new();
        if self.packets > 0 {
            let info = SenderInfo {
                ssrc,
                ntp: Ntp::from(UnixTime::from_millis(now_ns / 1_000_000)).0,
                timestamp: self.timestamp,
                packets: self.packets,
                octets: self.octets,
            };
            writer.sender(&info, &blocks);
        } else {
            writer.receiver(ssrc, &blocks);
        }
        writer.description([(ssrc, cname)].into_iter());
        Some((self.protected(writer.octets().to_vec(), true)?, to))
    }
}

async fn receive(shared: Arc<Shared>, odd: bool) {
    let Some(socket) = (if odd { shared.rtcp.as_ref() } else { Some(&shared.rtp) }) else { return };
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, _)) => {
                let datagram = buffer.get_mut(..length).unwrap_or_default();
                shared.state().take(datagram, unix_ns(), shared.options.keep_samples_max);
            }
            // An ICMP error of an earlier send: nobody listens there at the moment.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn report(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(shared.options.rtcp_every);
    tick.tick().await;
    loop {
        tick.tick().await;
        let Some((packet, to)) = shared.state().report(shared.ssrc, &shared.options.cname, unix_ns()) else {
            continue;
        };
        let muxed = shared.state().remote == Some(to);
        let socket = shared.rtcp.as_ref().filter(|_| !muxed).unwrap_or(&shared.rtp);
        let _ = socket.send_to(&packet, to).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{correlation, voice};

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn two_flows_hear_each_other_and_report() {
        let mut entropy = Entropy::from_number(1);
        let options = FlowOptions {
            rtcp_every: Duration::from_millis(100),
            keep_samples_max: 8000,
            ..FlowOptions::default()
        };
        let mut a = Flow::open(IP, &mut entropy, options.clone()).await.unwrap();
        let b = Flow::open(IP, &mut entropy, options).await.unwrap();
        a.aim(b.local(), b.local_rtcp().unwrap());
        b.aim(a.local(), a.local());
        let said = voice(9, 0.6);
        a.play(Arc::new(said.clone()), 4);
        while a.is_playing() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        let (sent, heard) = (a.stats(), b.stats());
        assert_eq!((sent.sent, heard.received, heard.lost()), (30, 30, 0));
        let source = &heard.sources[&4];
        assert!(source.delay_us.max() < 1_000_000 && source.duplicates == 0);
        // SR with SDES one way, RR with SDES the other way; b reports no loss.
        assert!(heard.rtcp[&200] > 0 && heard.rtcp[&202] > 0 && sent.rtcp[&201] > 0);
        assert_eq!(sent.reported.map(|r| r.0), Some(0));
        assert!(correlation(&said, &b.heard(), 0) > 0.98);
    }
}
