//! A load with a clock: packets leave evenly spaced at a given rate, whatever comes back, and each tells when it left.
//!
//! One thread spins: it sends what is due and looks for what arrived, both by one ring, so that neither waits for
//! the other. A delay is from just before the enter that sends a packet to when its completion was seen, so it holds
//! the kernel's work on both sides; the same load between two ends without a relay (`direct`) tells how much that is.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netio::{Completion, Ring, RingConfig};

use super::clock::{self, Who};
use super::{PACKET_BYTES, load};

/// Sends of one enter at most: more would be a burst.
const BURST: u64 = 16;
/// A packet that leaves later than this was not sent at the given rate; less is the machine's other work.
const LATE_NS: f64 = 5e6;
/// What has not come for so long after the end is lost.
const QUIET: Duration = Duration::from_millis(100);
/// In the payload: when the packet left.
const STAMP: std::ops::Range<usize> = 12..20;
const SLOT_BYTES: u32 = 256;
/// A send that failed; its packet counts as lost.
const SEND: u64 = u64::MAX;

/// Ends of two-way calls.
pub(super) struct Pace {
    ends: Vec<UdpSocket>,
    sequence: u16,
}

/// What one run gave.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    /// Packets a second that left.
    pub(super) rate: f64,
    /// Share of the packets that never arrived.
    pub(super) loss: f64,
    /// Share of the packets that could not leave when they were due: the load itself was the limit.
    pub(super) behind: f64,
    /// CPU of what is measured per packet that arrived, in nanoseconds.
    pub(super) ns_per_packet: f64,
    /// Sorted delays in nanoseconds.
    delays: Vec<u32>,
}

impl Passage {
    /// A percentile of the delays in microseconds.
    pub(super) fn delay_us(&self, share: f64) -> f64 {
        let at = (self.delays.len() as f64 * share) as usize;
        self.delays
            .get(at.min(self.delays.len().saturating_sub(1)))
            .map_or(f64::NAN, |ns| f64::from(*ns) / 1e3)
    }
}

impl Pace {
    pub(super) fn new(calls: usize) -> anyhow::Result<Self> {
        let ends = (0..2 * calls).map(|_| load::socket()).collect::<anyhow::Result<_>>()?;
        Ok(Pace { ends, sequence: 0 })
    }

    pub(super) fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        self.ends.iter().map(|end| Ok(end.local_addr()?)).collect()
    }

    /// Each end sends to its entry and hears it alone.
    pub(super) fn connect(&self, entries: &[SocketAddr]) -> anyhow::Result<()> {
        for (end, entry) in self.ends.iter().zip(entries) {
            end.connect(entry)?;
        }
        Ok(())
    }

    /// Sends so many packets a second, a moment before the measurement and during it.
    pub(super) fn run(
        &mut self,
        rate: f64,
        time: Duration,
        measured: Option<(Who, usize)>,
    ) -> anyhow::Result<Passage> {
        let ends = u32::try_from(self.ends.len())?;
        let mut ring = Ring::new(RingConfig {
            files: ends,
            buffers: 4096,
            buffer_bytes: SLOT_BYTES,
            slots: BURST as u16,
            slot_bytes: SLOT_BYTES,
            ..RingConfig::default()
        })?;
        for (file, end) in (0..ends).zip(&self.ends) {
            while netio::discard(end) > 0 {}
            ring.set_file(file, end)?;
            ring.receive(file, u64::from(file))?;
        }
        let busy = || measured.map_or(0, |(who, core)| clock::busy_ns(who, core));
        let lead = time / 4;
        let (period, start) = (1e9 / rate, Instant::now());
        let (from, end) = (lead.as_nanos() as u64, (lead + time).as_nanos() as u64);
        let mut done: Vec<Completion> = Vec::with_capacity(256);
        let (mut next, mut cpu, mut counted, mut arrived, mut late) = (0u64, None, 0u64, 0u64, 0u64);
        let mut delays = Vec::with_capacity((rate * time.as_secs_f64()) as usize + 1024);
        let mut spent = None;
        loop {
            let now = start.elapsed().as_nanos() as u64;
            if now >= from && cpu.is_none() {
                cpu = Some(busy());
            }
            if now < end {
                let due = ((now as f64 / period) as u64).saturating_sub(next);
                for slot in 0..due.min(BURST) {
                    self.push(&mut ring, next, slot as u16, now)?;
                    if now >= from {
                        counted += 1;
                        late += u64::from(due as f64 * period > LATE_NS);
                    }
                    next += 1;
                }
            } else if spent.is_none() {
                spent = Some(busy().saturating_sub(cpu.unwrap_or(0)));
            } else if arrived >= counted || now > end + QUIET.as_nanos() as u64 {
                break;
            }
            ring.enter(0, None)?;
            ring.completions(&mut done);
            let seen = start.elapsed().as_nanos() as u64;
            for completion in done.drain(..).filter(|completion| completion.user != SEND) {
                if let Some(buffer) = completion.buffer {
                    let bytes = ring.received(buffer, completion.result.max(0) as usize);
                    let stamp = bytes.get(STAMP).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
                    if let Some(left) = stamp.filter(|left| *left >= from) {
                        arrived += 1;
                        delays.push(u32::try_from(seen.saturating_sub(left)).unwrap_or(u32::MAX));
                    }
                    ring.recycle(buffer);
                }
                if !completion.more {
                    ring.receive(u32::try_from(completion.user)?, completion.user)?;
                }
            }
        }
        anyhow::ensure!(arrived > 0, "nothing arrived");
        delays.sort_unstable();
        Ok(Passage {
            rate: counted as f64 / time.as_secs_f64(),
            loss: counted.saturating_sub(arrived) as f64 / counted.max(1) as f64,
            behind: late as f64 / counted.max(1) as f64,
            ns_per_packet: spent.unwrap_or(0) as f64 / arrived as f64,
            delays,
        })
    }

    fn push(&mut self, ring: &mut Ring, number: u64, slot: u16, now: u64) -> anyhow::Result<()> {
        let source = u32::try_from(number % self.ends.len() as u64)?;
        if source == 0 {
            self.sequence = self.sequence.wrapping_add(1);
        }
        let room = ring.slot(slot);
        room.get_mut(..12).context("slot")?.copy_from_slice(&load::rtp_header(self.sequence, source));
        room.get_mut(STAMP).context("slot")?.copy_from_slice(&now.to_le_bytes());
        ring.send_slot(source, slot, PACKET_BYTES as u32, SEND)?;
        Ok(())
    }
}
