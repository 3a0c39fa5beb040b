//! Connections to next hops: dialled once for all sessions that lead there.
//!
//! ```text
//!  ── first request for it ──► Naming ── addresses ──► Dialing ── up ──► Up ── closed ──► (gone)
//!      (a literal address)  ───────────────────────────►┘  └── failed ──► Failed ── 5 s ──► (gone)
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, Now};
use msrp::UriRef;

use super::super::Message;
use crate::media::Tx;
use crate::{ConnId, DialId, Output};

/// What failed is not tried again for so long: each request that wants it would wait for it.
const REST: Duration = Duration::from_secs(5);
/// A name, and then an address, that says nothing for so long is given up; the driver's own patience is shorter.
const PATIENCE: Duration = Duration::from_secs(30);

/// A next hop: with TLS or without, its host as written, its port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Hop {
    secure: bool,
    host: String,
    port: u16,
}

/// How far the connection to it is.
#[derive(Debug)]
pub(super) enum Link {
    /// On its way, until then at the latest; these wait.
    Dialing {
        dial: DialId,
        until: Instant,
        waiting: Vec<ConnId>,
    },
    Up(ConnId),
    /// Not again before then.
    Failed(Instant),
}

impl Link {
    pub(super) fn is_on(&self, conn: ConnId) -> bool {
        matches!(self, Link::Up(up) if *up == conn)
    }
}

/// Whether a next hop can be sent to.
pub(super) enum Reached {
    Up(ConnId),
    Dialing,
    /// Not where next hops may be.
    Forbidden,
    Failed,
}

impl Message {
    /// The connection to a next hop; `conn` waits for it if it must be dialled.
    pub(super) fn reach(&mut self, now: Now, conn: ConnId, next: &UriRef<'_>, tx: &mut Tx<'_>) -> Reached {
        // RFC 4975 §6.1: there is no default. SRV is for names without a port, which we do not look up.
        let Some(port) = next.port() else { return Reached::Failed };
        // What is named msrps never leaves in the clear: without TLS of our own it does not leave.
        let in_clear = next.is_secure() && self.relay.secure.is_none();
        if in_clear || !next.transport().eq_ignore_ascii_case("tcp") {
            return Reached::Failed;
        }
        let hop = Hop { secure: next.is_secure(), host: next.host().to_ascii_lowercase(), port };
        match self.relay.hops.get_mut(&hop) {
            Some(Link::Up(up)) => return Reached::Up(*up),
            Some(Link::Failed(_)) => return Reached::Failed,
            Some(Link::Dialing { waiting, .. }) => {
                waiting.push(conn);
                return Reached::Dialing;
            }
            None => {}
        }
        let Some(config) = &self.relay.config else { return Reached::Failed };
        if self.relay.hops.len() >= config.sessions_max {
            return Reached::Failed;
        }
        let to = next.ip().map(|ip| SocketAddr::new(ip, port));
        if to.is_some_and(|to| !config.reaches(to.ip())) {
            return Reached::Forbidden;
        }
        let dial = DialId(self.number());
        tx.push(match to {
            Some(to) => Output::Dial { dial, to, tls: hop.secure },
            None => Output::LookUp { dial, host: hop.host.clone(), port },
        });
        self.relay.dials.insert(dial, hop.clone());
        self.relay.hops.insert(hop, Link::Dialing { dial, until: now.mono + PATIENCE, waiting: vec![conn] });
        self.relay_arms(now);
        Reached::Dialing
    }

    /// A host's addresses: the first one that may be reached is dialled.
    pub(crate) fn looked_up(&mut self, now: Now, dial: DialId, found: &[SocketAddr], tx: &mut Tx<'_>) {
        let Some(hop) = self.relay.dials.get(&dial) else { return };
        let config = self.relay.config.as_ref();
        let to = found.iter().find(|to| config.is_some_and(|config| config.reaches(to.ip())));
        if let Some(to) = to {
            tx.push(Output::Dial { dial, to: *to, tls: hop.secure });
        } else {
            self.dial_ended(now, dial, None);
        }
        self.work(now, tx);
    }

    /// Whether a dial was the relay's: it is up, or failed.
    pub(in super::super) fn dial_ended(&mut self, now: Now, dial: DialId, conn: Option<ConnId>) -> bool {
        let Some(hop) = self.relay.dials.remove(&dial) else { return false };
        let link = conn.map_or(Link::Failed(now.mono + REST), Link::Up);
        if let Some(Link::Dialing { waiting, .. }) = self.relay.hops.insert(hop, link) {
            self.unblock(&waiting);
        }
        self.relay_arms(now);
        true
    }

    /// Dials that say nothing, and failures that are old enough.
    pub(super) fn dials_due(&mut self, now: Now) {
        let is_late = |link: &Link| matches!(link, Link::Dialing { until, .. } if *until <= now.mono);
        let late = self.relay.hops.values().filter(|link| is_late(link));
        let late: Vec<DialId> = late
            .filter_map(|l| if let Link::Dialing { dial, .. } = l { Some(*dial) } else { None })
            .collect();
        for dial in late {
            self.dial_ended(now, dial, None);
        }
        self.relay.hops.retain(|_, link| !matches!(link, Link::Failed(until) if *until <= now.mono));
    }
}
