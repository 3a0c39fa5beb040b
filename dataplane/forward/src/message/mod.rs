//! MSRP.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base::{Entropy, Instant, Now};
use bytes::Bytes;

use crate::media::Tx;
use crate::wanted::Wanted;
use crate::{CloseReason, Config, ConnId, DialId};

/// Whether each URI of a path parses.
pub(crate) fn path_is_sound(path: &[String]) -> bool {
    path.iter().all(|uri| uri.starts_with("msrp"))
}

#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) conn: ConnId,
    pub(crate) dial: Option<DialId>,
    pub(crate) tls: bool,
    pub(crate) fingerprint: Option<[u8; 32]>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct Message {}
impl Message {
    pub(crate) fn new(_config: &Config, _entropy: Entropy) -> Self {
        Message {}
    }
    pub(crate) fn opened(&mut self, _now: Now, opened: Opened, _tx: &mut Tx<'_>) {
        let _ = (opened.conn, opened.dial, opened.tls, opened.fingerprint, opened.peer, opened.local);
    }
    pub(crate) fn dial_failed(&mut self, _now: Now, _dial: DialId, _why: CloseReason, _tx: &mut Tx<'_>) {}
    pub(crate) fn received(&mut self, _now: Now, _conn: ConnId, _bytes: Bytes, _tx: &mut Tx<'_>) {}
    pub(crate) fn sent(&mut self, _now: Now, _conn: ConnId, _bytes: usize, _tx: &mut Tx<'_>) {}
    pub(crate) fn closed(&mut self, _now: Now, _conn: ConnId, _why: CloseReason, _tx: &mut Tx<'_>) {}
    pub(crate) fn decide(&mut self, _now: Now, _decide: &contract::Decide, _tx: &mut Tx<'_>) {}
    pub(crate) fn timeout(&mut self, _now: Now, _tx: &mut Tx<'_>) {}
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        None
    }
    pub(crate) fn flush(&mut self, _tx: &mut Tx<'_>) -> bool {
        false
    }
    pub(crate) fn capture(&mut self, _at: u32, _on: bool) {}
    pub(crate) fn counters(&self, _now: Now, _at: u32) -> Option<contract::LegCounters> {
        None
    }
    pub(crate) fn session_taken(&self, _session: &str, _by: contract::LegKey) -> bool {
        false
    }
    pub(crate) fn put(
        &mut self,
        _now: Now,
        _leg: &contract::Leg,
        _msrp: &contract::MsrpLeg,
        seat: Option<u32>,
        _tx: &mut Tx<'_>,
    ) -> u32 {
        seat.unwrap_or(0)
    }
    pub(crate) fn remove(&mut self, _now: Now, _at: u32, _tx: &mut Tx<'_>) {}
    pub(crate) fn flatten(
        &mut self,
        _now: Now,
        _id: u64,
        _legs: &BTreeMap<u64, u32>,
        _wanted: &Wanted,
        _tx: &mut Tx<'_>,
    ) {
    }
    pub(crate) fn forget_context(&mut self, _id: u64) {}
}
