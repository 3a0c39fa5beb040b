//! The spool: the one thread of the data plane that touches files: the packets of a context, or what comes to one leg, in
//! a file; and what waits for receivers that are slower than others of the same messages ([`spill`]).
//!
//! Shards hand packets over and never wait for it: with its queue full a packet is missed, and counted. What waits for a
//! receiver is never missed: the engine gives no more to the disk than was agreed, until it hears that it is written.

mod files;
mod pcap;
mod rtpdump;
mod spill;

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contract::CaptureState;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use forward::Packet;

pub use files::{Files, SpoolFile};

use crate::config::SpoolSettings;
use crate::mail::{Outgoing, ToShard, ToSteward};
use spill::Spills;

/// To the spool.
#[derive(Debug)]
pub(crate) enum ToSpool {
    /// Begin a capture.
    Open { context: u64, leg: Option<u64>, file: String, max_bytes: u64 },
    /// End it.
    Close { context: u64, leg: Option<u64> },
    /// A packet of a captured context.
    Packet(Box<Packet>),
    /// What waits for a slow receiver of a shard.
    Spill { shard: u16, order: Box<forward::SpillOrder> },
    /// Write what is there, and end.
    Stop,
}

/// Octets gathered before they are written.
const WRITE_BYTES: usize = 64 << 10;
/// How long octets wait at most.
const IDLE: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_millis(1);

/// A context, and a leg of it where the file is of that one alone.
type Which = (u64, Option<u64>);

/// How a file is written.
enum Format {
    Pcap(pcap::Streams),
    RtpDump(rtpdump::Dump),
}

struct Capture {
    name: String,
    file: SpoolFile,
    format: Format,
    buffer: Vec<u8>,
    max_bytes: u64,
    packets: u64,
    missed: u64,
}

impl Capture {
    fn bytes(&self) -> u64 {
        self.file.length() + self.buffer.len() as u64
    }
}

/// The thread's state.
pub(crate) struct Spool<W, S> {
    files: Files,
    folder: PathBuf,
    settings: SpoolSettings,
    captures: BTreeMap<Which, Capture>,
    spills: Spills,
    steward: Outgoing<ToSteward, W>,
    shards: Vec<Outgoing<ToShard, S>>,
}

impl<W: crate::mail::Waker, S: crate::mail::Waker> Spool<W, S> {
    pub(crate) fn new(
        files: Files,
        (folder, spill_folder): (PathBuf, PathBuf),
        settings: SpoolSettings,
        steward: Outgoing<ToSteward, W>,
        shards: Vec<Outgoing<ToShard, S>>,
    ) -> Self {
        let spills = Spills::new(spill_folder);
        Spool { files, folder, settings, captures: BTreeMap::new(), spills, steward, shards }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self, mailbox: &Receiver<ToSpool>) {
        let mut written = Instant::now();
        loop {
            // What did not fit into a shard's mailbox is tried again soon.
            let late = self.shards.iter().any(|shard| shard.late() > 0);
            match mailbox.recv_timeout(if late { SOON } else { IDLE }) {
                Ok(ToSpool::Open { context, leg, file, max_bytes }) => {
                    self.open((context, leg), file, max_bytes)
                }
                Ok(ToSpool::Close { context, leg }) if self.captures.contains_key(&(context, leg)) => {
                    self.close((context, leg), String::new());
                }
                Ok(ToSpool::Close { context, leg }) => {
                    let error = "this context is not being captured".to_owned();
                    let leg = leg.unwrap_or(0);
                    self.tell(CaptureState { context, leg, error, ..CaptureState::default() }, false);
                }
                Ok(ToSpool::Packet(packet)) => self.packet(&packet),
                Ok(ToSpool::Spill { shard, order }) => self.spill(shard, *order),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(ToSpool::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            // By the clock, not when nothing comes: speech leaves no pause as long as that.
            if written.elapsed() >= IDLE {
                self.write_all();
                written = Instant::now();
            }
            self.steward.flush();
            // One waking for all that was done in a row.
            if mailbox.is_empty() {
                self.shards.iter_mut().for_each(Outgoing::flush);
            }
        }
        let open: Vec<Which> = self.captures.keys().copied().collect();
        open.into_iter().for_each(|which| self.close(which, String::new()));
    }

    fn spill(&mut self, shard: u16, order: forward::SpillOrder) {
        let word = self.spills.perform(&self.files, shard, order);
        if let Some((word, shard)) = word.zip(self.shards.get_mut(usize::from(shard))) {
            shard.send(ToShard::Spilled(word));
        }
    }

    fn open(&mut self, which: Which, name: String, max_bytes: u64) {
        let (context, leg) = (which.0, which.1.unwrap_or(0));
        let refused = |error: String| CaptureState {
            context,
            leg,
            file: name.clone(),
            error,
            ..CaptureState::default()
        };
        if self.captures.contains_key(&which) {
            return self.tell(refused("this context is being captured".into()), false);
        }
        if self.captures.len() >= self.settings.files_max {
            return self.tell(refused("too many captures".into()), true);
        }
        let made = folder(&self.folder).and_then(|()| self.files.create(&self.folder.join(&name)));
        let file = match made {
            Ok(file) => file,
            Err(error) => return self.tell(refused(error.to_string()), true),
        };
        let max_bytes = match max_bytes {
            0 => self.settings.file_bytes_max,
            max => max.min(self.settings.file_bytes_max),
        };
        let (format, buffer) = match name.ends_with(".rtpdump") {
            // Its header has the first packet's time and place in it.
            true => (Format::RtpDump(rtpdump::Dump::default()), Vec::new()),
            false => (Format::Pcap(pcap::Streams::default()), pcap::file_header().to_vec()),
        };
        let capture = Capture { name, file, format, buffer, max_bytes, packets: 0, missed: 0 };
        self.tell(state(which, &capture, true, String::new()), false);
        self.captures.insert(which, capture);
    }

    fn packet(&mut self, packet: &Packet) {
        let which = (packet.context, packet.leg);
        let Some(capture) = self.captures.get_mut(&which) else { return };
        if capture.bytes() + packet.bytes.len() as u64 + 128 > capture.max_bytes {
            capture.missed += 1;
            if capture.missed == 1 {
                return self.close(which, "the file has its full size".into());
            }
            return;
        }
        match &mut capture.format {
            Format::Pcap(streams) => pcap::append(packet, streams, &mut capture.buffer),
            Format::RtpDump(dump) => dump.append(packet, &mut capture.buffer),
        }
        capture.packets += 1;
        if capture.buffer.len() >= WRITE_BYTES
            && let Err(error) = write(&self.files, capture)
        {
            self.close(which, error.to_string());
        }
    }

    fn write_all(&mut self) {
        let mut broken = Vec::new();
        for (which, capture) in &mut self.captures {
            if let Err(error) = write(&self.files, capture) {
                broken.push((*which, error.to_string()));
            }
        }
        broken.into_iter().for_each(|(which, error)| self.close(which, error));
    }

    fn close(&mut self, which: Which, mut error: String) {
        let Some(mut capture) = self.captures.remove(&which) else { return };
        if let Err(failed) = write(&self.files, &mut capture) {
            error = failed.to_string();
        }
        self.tell(state(which, &capture, false, error), true);
        if let Err(error) = self.files.close(capture.file) {
            tracing::warn!(%error, "a capture did not close");
        }
    }

    fn tell(&mut self, state: CaptureState, over: bool) {
        self.steward.send(ToSteward::Captured { state, over });
        self.steward.flush();
    }
}

/// Makes the folder, if it is not there. Who was recorded, and when, stands in its names: those are nobody else's either.
pub(super) fn folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write(files: &Files, capture: &mut Capture) -> std::io::Result<()> {
    if capture.buffer.is_empty() {
        return Ok(());
    }
    let (done, buffer) = files.append(&mut capture.file, std::mem::take(&mut capture.buffer));
    capture.buffer = buffer;
    done
}

fn state(which: Which, capture: &Capture, on: bool, error: String) -> CaptureState {
    CaptureState {
        context: which.0,
        leg: which.1.unwrap_or(0),
        file: capture.name.clone(),
        on,
        packets: capture.packets,
        bytes: capture.bytes(),
        missed: capture.missed,
        error,
    }
}

/// The spool's files: by tokio-uring, or by std where that is not to be had, said aloud.
pub(crate) fn files() -> Files {
    Files::uring().unwrap_or_else(|error| {
        tracing::warn!(%error, "io_uring is not to be had: the spool writes through std");
        Files::std()
    })
}

/// The end of the spool's mailbox that a shard holds.
#[derive(Debug)]
pub(crate) struct Keep {
    sender: Sender<ToSpool>,
    /// Orders that did not fit: one for each command of control at most, and of what waits for slow receivers as much as the
    /// engine may give to the disk.
    late: VecDeque<ToSpool>,
}

impl Keep {
    pub(crate) fn new(sender: Sender<ToSpool>) -> Self {
        Keep { sender, late: VecDeque::new() }
    }

    /// True while something waits that did not fit.
    pub(crate) fn is_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// False when there was no room.
    pub(crate) fn packet(&self, packet: Box<Packet>) -> bool {
        self.late.is_empty() && self.sender.try_send(ToSpool::Packet(packet)).is_ok()
    }

    /// An order is never missed: without room it waits here.
    pub(crate) fn order(&mut self, order: ToSpool) {
        self.late.push_back(order);
        self.flush();
    }

    pub(crate) fn flush(&mut self) {
        while let Some(order) = self.late.pop_front() {
            if let Err(TrySendError::Full(order)) = self.sender.try_send(order) {
                return self.late.push_front(order);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::mail::{Waker, mailbox};

    struct Nobody;

    impl Waker for Nobody {
        fn wake(&self) {}
    }

    fn packet(context: u64) -> ToSpool {
        let at = SocketAddr::from(([127, 0, 0, 1], 4000));
        ToSpool::Packet(Box::new(Packet {
            context,
            leg: None,
            at: base::UnixTime::from_millis(5),
            from: at,
            to: at,
            transport: forward::Transport::Udp,
            bytes: vec![0x80; 172].into(),
        }))
    }

    // Hostile reading 4, finding 4: octets were written when nothing had come for 100 ms, which speech, or another capture, never
    // leaves: a file stood empty until it had 64 KB.
    #[test]
    fn what_is_captured_is_written_while_packets_go_on_coming() {
        let outer = tempfile::tempdir().unwrap();
        let place = outer.path().join("spool");
        let (steward, _heard) = mailbox(1024);
        let (sender, orders) = crossbeam::channel::bounded(1024);
        let (folder, steward) = (place.clone(), Outgoing::new(steward, Nobody));
        let thread = std::thread::spawn(move || {
            let folders = (folder.clone(), folder.join("spill"));
            let shards: Vec<Outgoing<_, Nobody>> = Vec::new();
            Spool::new(files(), folders, SpoolSettings::default(), steward, shards).run(&orders);
        });
        let open = ToSpool::Open { context: 1, leg: None, file: "a.pcap".to_owned(), max_bytes: 0 };
        sender.send(open).unwrap();
        let mut written = 0;
        for _ in 0..150 {
            sender.send(packet(1)).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            written = std::fs::metadata(place.join("a.pcap")).map_or(0, |file| file.len());
            if written > 24 {
                break;
            }
        }
        assert!(written > 24, "more than the file's head");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&place), mode(&place.join("a.pcap"))), (0o700, 0o600));
        sender.send(ToSpool::Stop).unwrap();
        thread.join().unwrap();
    }
}
