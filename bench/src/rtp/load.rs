//! The load: sends RTP packets, drains the sinks, keeps a fixed number of packets under way, counts.
//!
//! The same for everything that is measured. A closed loop: nothing is sent faster than it comes out, so
//! nothing is lost in queues, and the measured thread has a backlog.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netio::{Ring, RingConfig};

use super::PACKET_BYTES;
use super::bare::Running;
use super::clock;

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// CPU nanoseconds of the measured thread and its core's ksoftirqd for one packet that arrived at a sink.
    pub(crate) ns_per_packet: f64,
    /// The same of all that ran on the core.
    pub(crate) core_ns_per_packet: f64,
    /// Packets that arrived, in a second.
    pub(crate) packets_per_s: f64,
    /// Share of the time in which the measured thread ran.
    pub(crate) busy: f64,
    /// Packets that never arrived.
    pub(crate) lost: u64,
}

/// Senders, sinks, and the packets between them.
pub(crate) struct Load {
    /// Our ends. The first `sources` of them send; all are sinks where packets may arrive.
    pub(crate) ends: Vec<UdpSocket>,
    /// How many ends send.
    pub(crate) sources: usize,
    /// Packets that come out for each that is sent.
    pub(crate) copies: usize,
    /// Octets of a packet, its header included.
    pub(crate) bytes: usize,
    /// Sent packets under way at most.
    window: usize,
    /// The load has a core of its own; else it gives the core away when it has nothing to do.
    alone: bool,
}

/// Before each measurement.
const START: Duration = Duration::from_millis(300);

/// What has not come for so long is given up.
const QUIET: Duration = Duration::from_millis(200);

/// A socket on loopback with large buffers.
pub(crate) fn socket() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(4 << 20)?;
    options.set_send_buffer_size(4 << 20)?;
    Ok(socket)
}

impl Load {
    /// One source and `targets` sinks; packets of so many octets.
    pub(crate) fn distribute(targets: usize, bytes: usize) -> anyhow::Result<Self> {
        Load::conference(1, targets, bytes, 32)
    }

    /// Each of the sources to each of the sinks, which do not send.
    pub(crate) fn conference(
        sources: usize,
        targets: usize,
        bytes: usize,
        window: usize,
    ) -> anyhow::Result<Self> {
        let ends = (0..sources + targets).map(|_| socket()).collect::<anyhow::Result<_>>()?;
        Ok(Load { ends, sources, copies: targets, bytes, window, alone: true })
    }

    /// The same load where the shards leave it no core of its own.
    pub(crate) fn crowded(self) -> Self {
        Load { alone: false, ..self }
    }

    /// `calls` pairs of ends, each sending to the other: end 2i and end 2i+1.
    pub(crate) fn relay(calls: usize) -> anyhow::Result<Self> {
        let ends = (0..2 * calls).map(|_| socket()).collect::<anyhow::Result<_>>()?;
        Ok(Load::pairs(ends, true))
    }

    /// The same with these ends, perhaps on the core that is measured.
    pub(crate) fn pairs(ends: Vec<UdpSocket>, alone: bool) -> Self {
        let sources = ends.len();
        Load { ends, sources, copies: 1, bytes: PACKET_BYTES, window: sources, alone }
    }

    /// The addresses of our ends.
    pub(crate) fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        self.ends.iter().map(|end| Ok(end.local_addr()?)).collect()
    }

    /// Runs the load against what runs, and measures after a start in which sources are learned and caches fill.
    pub(crate) fn measure(
        &mut self,
        running: &Running,
        core: usize,
        time: Duration,
    ) -> anyhow::Result<Sample> {
        self.measure_at(&running.entries, running.who, core, time)
    }

    /// The same with what is not one `Running` for each load.
    pub(crate) fn measure_at(
        &mut self,
        entries: &[SocketAddr],
        who: clock::Who,
        core: usize,
        time: Duration,
    ) -> anyhow::Result<Sample> {
        self.measure_all(entries, &[(who, core)], time)
    }

    /// The same of several, each on its core; what they took is added up.
    pub(crate) fn measure_all(
        &mut self,
        entries: &[SocketAddr],
        all: &[(clock::Who, usize)],
        time: Duration,
    ) -> anyhow::Result<Sample> {
        let busy = || all.iter().map(|(who, core)| clock::busy_ns(*who, *core)).sum::<u64>();
        let cores_busy = || all.iter().map(|(_, core)| clock::core_busy_ns(*core)).sum::<u64>();
        for (end, to) in self.ends.iter().zip(entries) {
            end.connect(to)?;
        }
        let mut sender = Sender::new(self)?;
        let mut turn = Turn { sent: 0, arrived: 0, lost: 0, quiet: Instant::now() };
        self.drive(&mut sender, &mut turn, START)?;
        let (cpu, start, before) = (busy(), Instant::now(), turn.arrived);
        let whole = cores_busy();
        self.drive(&mut sender, &mut turn, time)?;
        let cpu = busy().saturating_sub(cpu) as f64;
        let whole = cores_busy().saturating_sub(whole) as f64;
        let (wall, packets) = (start.elapsed().as_secs_f64(), turn.arrived - before);
        anyhow::ensure!(packets > 0, "nothing arrived");
        Ok(Sample {
            ns_per_packet: cpu / packets as f64,
            core_ns_per_packet: whole / packets as f64,
            packets_per_s: packets as f64 / wall,
            busy: cpu / 1e9 / wall,
            lost: turn.lost,
        })
    }

    fn drive(&self, sender: &mut Sender, turn: &mut Turn, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            // Half a window at a time: the measured thread always has the other half before it.
            let expected = turn.sent * self.copies as u64;
            let under_way = expected.saturating_sub(turn.arrived + turn.lost) / self.copies as u64;
            if under_way as usize <= self.window / 2 {
                let burst = self.window - under_way as usize;
                sender.burst(burst)?;
                turn.sent += burst as u64;
            }
            let got: usize = self.ends.iter().map(netio::discard).sum();
            turn.arrived += got as u64;
            if got == 0 && !self.alone {
                std::thread::yield_now();
            }
            if got > 0 {
                turn.quiet = Instant::now();
            } else if turn.quiet.elapsed() > QUIET {
                turn.lost = expected.saturating_sub(turn.arrived);
                turn.quiet = Instant::now();
            }
            // What was given up and came after all was not lost: the measured thread had no core meanwhile.
            turn.lost = turn.lost.min((turn.sent * self.copies as u64).saturating_sub(turn.arrived));
        }
        Ok(())
    }
}

struct Turn {
    sent: u64,
    arrived: u64,
    lost: u64,
    quiet: Instant,
}

/// Sends bursts round the sources through a ring: the cheapest way, so that the load is not the limit.
struct Sender {
    ring: Ring,
    sources: usize,
    next: usize,
    sequence: Vec<u16>,
    bytes: usize,
}

impl Sender {
    fn new(load: &Load) -> anyhow::Result<Self> {
        let config = RingConfig {
            slots: u16::try_from(load.sources).context("too many sources")?.max(256),
            slot_bytes: u32::try_from(load.bytes.max(256))?,
            files: u32::try_from(load.sources)?,
            buffers: 2,
            ..RingConfig::default()
        };
        let mut ring = Ring::new(config)?;
        for (file, end) in (0..).zip(load.ends.iter().take(load.sources)) {
            ring.set_file(file, end)?;
        }
        Ok(Sender {
            ring,
            sources: load.sources,
            next: 0,
            sequence: vec![0; load.sources],
            bytes: load.bytes,
        })
    }

    fn burst(&mut self, packets: usize) -> anyhow::Result<()> {
        for packet in 0..packets {
            let source = self.next % self.sources;
            self.next += 1;
            // Each packet of a burst has its slot until the enter below.
            let slot = u16::try_from(packet % usize::from(self.ring.config().slots))?;
            let sequence = self.sequence.get_mut(source).context("source")?;
            *sequence = sequence.wrapping_add(1);
            let header = rtp_header(*sequence, u32::try_from(source)?);
            self.ring.slot(slot)[..12].copy_from_slice(&header);
            self.ring.send_slot(u32::try_from(source)?, slot, u32::try_from(self.bytes)?, 0)?;
        }
        self.ring.enter(0, None)?;
        Ok(())
    }
}

/// Version 2, PCMU, 160 samples a packet, an SSRC for each source (RFC 3550 §5.1).
pub(crate) fn rtp_header(sequence: u16, source: u32) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = 0x80;
    header[2..4].copy_from_slice(&sequence.to_be_bytes());
    header[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    header[8..12].copy_from_slice(&(0x5eed_0000 + source).to_be_bytes());
    header
}
