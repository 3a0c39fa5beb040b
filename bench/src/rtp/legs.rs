//! How many legs a data plane holds, and what each takes of its memory.
//!
//! The data plane is a process of its own: this program again, told to be one. Its resident memory is read when few
//! legs have carried audio and again when all have, after the news that waited for control were read. The kernel's
//! sockets are not in it. All legs have one peer, so that their number is not bounded by ours.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::weir::{Control, Setup};
use super::{PACKET_BYTES, clock, load};
use crate::report::{Reach, Report};

const FEW: usize = 100;
const MANY: usize = 10_000;
/// Packets to each leg: 200 ms of audio.
const PACKETS: u16 = 10;
/// Packets that are sent before those that came are read.
const BURST: usize = 200;
/// What has not come for so long is lost.
const QUIET: Duration = Duration::from_millis(500);
const START: Duration = Duration::from_secs(10);

/// Adds both rows.
pub(super) fn run(report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, measured) = clock::cores();
    clock::pin(ours);
    let config = Setup::new("uring", measured).config(folder.path());
    let mut plane = Plane::start(&config, folder.path())?;
    let mut control = Control::connect(&config.socket(), "uring")?;
    let peer = load::socket()?;
    peer.set_nonblocking(true)?;
    let at = peer.local_addr()?;
    let mut entries = control.relay(1, &vec![at; FEW])?;
    carry(&peer, &entries)?;
    control.drain()?;
    let few = plane.resident()?;
    entries.extend(control.relay(FEW as u64, &vec![at; MANY - FEW])?);
    let up = carry(&peer, &entries)?;
    control.drain()?;
    let many = plane.resident()?;
    let each = many.saturating_sub(few) as f64 / (MANY - FEW) as f64;
    let note = format!(
        "resident {:.1} MiB with {FEW} legs and {:.1} MiB with {MANY}, two in a call, rtcp-mux, no NACK cache",
        few as f64 / 1_048_576.0,
        many as f64 / 1_048_576.0
    );
    report.held("leg_bytes", each, "octets", Reach::AtMost(4096.0), note);
    let note = "legs by which audio came out; one shard, rtcp-mux, a socket for each";
    report.held("legs_up", up as f64, "legs", Reach::AtLeast(MANY as f64), note);
    Ok(())
}

/// Sends audio to each leg; by how many legs some came out.
fn carry(peer: &UdpSocket, entries: &[SocketAddr]) -> anyhow::Result<usize> {
    let mut seen = BTreeSet::new();
    let mut buffer = [0; 2048];
    let mut take = |seen: &mut BTreeSet<SocketAddr>| -> bool {
        let before = seen.len();
        let mut any = false;
        while let Ok((_, from)) = peer.recv_from(&mut buffer) {
            any = true;
            seen.insert(from);
        }
        any || seen.len() > before
    };
    for sequence in 0..PACKETS {
        for (index, entry) in entries.iter().enumerate() {
            let mut packet = [0; PACKET_BYTES];
            packet[..12].copy_from_slice(&load::rtp_header(sequence, u32::try_from(index)?));
            peer.send_to(&packet, entry)?;
            if index % BURST == 0 {
                take(&mut seen);
            }
        }
    }
    let mut last = Instant::now();
    while last.elapsed() < QUIET {
        if take(&mut seen) {
            last = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(seen.len())
}

/// A data plane in a process of its own; ended when dropped.
pub(crate) struct Plane(Child);

impl Plane {
    pub(crate) fn start(config: &dataplaned::Config, folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join("plane.json");
        std::fs::write(&file, serde_json::to_vec(config)?)?;
        let child = Command::new(std::env::current_exe()?).arg("plane").arg(&file).spawn()?;
        let plane = Plane(child);
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(config.socket()).is_err() {
            anyhow::ensure!(start.elapsed() < START, "the data plane did not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(plane)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Octets of resident memory.
    pub(crate) fn resident(&mut self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
