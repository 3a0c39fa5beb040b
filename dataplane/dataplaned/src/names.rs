//! The thread that looks up the names of next hops of the relay, by the host's own resolver: that blocks, so no shard does
//! it. Its mailbox is short, and a question that finds no room is not asked: the engine's own patience ends it.

use std::net::{SocketAddr, ToSocketAddrs as _};

use crossbeam::channel::{Receiver, Sender, bounded};
use forward::DialId;
use netio::Wake;

use crate::mail::{Outgoing, ToShard};

/// Names that wait to be looked up.
const WAITING_MAX: usize = 64;
/// Addresses of one name.
const FOUND_MAX: usize = 16;

/// To the thread.
#[derive(Debug)]
pub(crate) enum ToNames {
    LookUp { shard: u16, dial: DialId, host: String, port: u16 },
    Stop,
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Names(Sender<ToNames>);

impl Names {
    pub(crate) fn new() -> (Names, Receiver<ToNames>) {
        let (sender, mailbox) = bounded(WAITING_MAX);
        (Names(sender), mailbox)
    }

    pub(crate) fn ask(&self, shard: u16, dial: DialId, host: String, port: u16) {
        let _ = self.0.try_send(ToNames::LookUp { shard, dial, host, port });
    }

    pub(crate) fn stop(&self) {
        // Full: it is busy, and sees the end when it comes to it.
        let _ = self.0.send_timeout(ToNames::Stop, std::time::Duration::from_secs(1));
    }
}

/// Runs until told to stop.
pub(crate) fn run(mailbox: &Receiver<ToNames>, mut shards: Vec<Outgoing<ToShard, Wake>>) {
    while let Ok(ToNames::LookUp { shard, dial, host, port }) = mailbox.recv() {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> =
            (bare, port).to_socket_addrs().map(|found| found.take(FOUND_MAX).collect()).unwrap_or_default();
        if let Some(shard) = shards.get_mut(usize::from(shard)) {
            shard.send(ToShard::LookedUp { dial, found });
            shard.flush();
        }
    }
}
