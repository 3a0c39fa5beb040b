//! The client's end: what next hops have asked of us, and which requests are kept back for it (RFC 7339 §5.4, §5.5, RFC
//! 7415 §3.5).
//!
//! ```text
//!   Free --oc, newer oc-seq--> Held(loss or rate) --newer--> Held
//!   Held --oc-validity is over, or oc-validity=0--> Free
//! ```

use std::net::IpAddr;
use std::time::Duration;

use base::{Entropy, HashSeed, Instant, Map, map};

use super::{Algorithm, Class, Seq, Settings};
use crate::peer::Peer;
use crate::typed::Via;

/// RFC 7339 §4.3: without `oc-validity`.
const VALIDITY_DEFAULT: Duration = Duration::from_millis(500);
/// The longest that a next hop may keep us back by one word.
const VALIDITY_MAX: Duration = Duration::from_secs(60);
/// RFC 7415 §3.5.1: how many requests in a row may go at once; those that go first count, and are never kept back.
const BURST: u64 = 4;
/// After how many requests the share of ordinary ones counts half.
const HALF: u32 = 64;

#[derive(Clone, Copy, Debug)]
enum Limit {
    Free,
    Loss {
        percent: u8,
    },
    /// A leaky bucket: nanoseconds that it holds, and what a request puts in.
    Rate {
        fill: u64,
        at: Instant,
        each: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Told {
    seq: Option<Seq>,
    until: Instant,
    limit: Limit,
    /// Requests lately, and those of them that may be kept back.
    all: u32,
    ordinary: u32,
}

/// What every next hop has asked.
#[derive(Debug)]
pub struct Client {
    asked: Vec<IpAddr>,
    peers_max: usize,
    peers: Map<Peer, Told>,
}

impl Client {
    /// Asks and obeys the next hops of the settings.
    pub fn new(settings: &Settings, seed: HashSeed) -> Client {
        Client { asked: settings.next_hops.clone(), peers_max: settings.next_hops_max, peers: map(seed) }
    }

    /// True for a next hop that is asked.
    pub fn asks(&self, peer: Peer) -> bool {
        self.asked.contains(&peer.addr.ip())
    }

    /// What says so in our Via (RFC 7339 §4.1, §4.2).
    pub fn ask(&self, peer: Peer, via: &mut Via) {
        if self.asks(peer) {
            via.params.set("oc", None);
            via.params.set_quoted("oc-algo", "loss,rate");
        }
    }

    /// A response came from a next hop, with this as our own Via.
    pub fn heard(&mut self, now: Instant, peer: Peer, via: &Via) {
        if !self.asks(peer) {
            return;
        }
        // RFC 7339 §4.1: without a value it is what we wrote.
        let Some(value) = via.params.number("oc") else { return };
        let algorithm = match via.params.text("oc-algo") {
            None => Algorithm::Loss,
            // §4.2: the server chooses one that we have offered.
            Some(text) => match Algorithm::parse(&text) {
                Some(known) => known,
                None => return,
            },
        };
        // §4.4: what was said before has no meaning any more.
        let seq = via.params.get("oc-seq").and_then(Seq::parse);
        if let Some(told) = self.peers.get(&peer)
            && told.until > now
            && told.seq.is_some_and(|last| seq.is_none_or(|seq| seq <= last))
        {
            return;
        }
        let validity = match via.params.get("oc-validity") {
            None => VALIDITY_DEFAULT,
            Some(_) => match via.params.number("oc-validity") {
                Some(ms) => Duration::from_millis(ms).min(VALIDITY_MAX),
                None => return,
            },
        };
        let Some(told) = self.entry(now, peer) else { return };
        (told.seq, told.until) = (seq, now + validity);
        told.limit = match (algorithm, told.limit) {
            // §5.7: the control is over. When it was said is remembered for as long as older words may come.
            _ if validity.is_zero() => {
                told.until = now + VALIDITY_DEFAULT;
                Limit::Free
            }
            // §7.1: 0 to 100.
            (Algorithm::Loss, _) => match u8::try_from(value) {
                Ok(0) => Limit::Free,
                Ok(percent @ 1..=100) => Limit::Loss { percent },
                _ => Limit::Free,
            },
            (Algorithm::Rate, limit) => {
                let each = 1_000_000_000_u64.checked_div(value);
                match limit {
                    // RFC 7415 §3.5.1: what is in the bucket stays.
                    Limit::Rate { fill, at, .. } => Limit::Rate { fill, at, each },
                    _ => Limit::Rate { fill: 0, at: now, each },
                }
            }
        };
    }

    fn entry(&mut self, now: Instant, peer: Peer) -> Option<&mut Told> {
        if !self.peers.contains_key(&peer) {
            if self.peers.len() >= self.peers_max {
                self.peers.retain(|_, told| told.until > now);
            }
            if self.peers.len() >= self.peers_max {
                return None;
            }
            let told = Told { seq: None, until: now, limit: Limit::Free, all: 0, ordinary: 0 };
            self.peers.insert(peer, told);
        }
        self.peers.get_mut(&peer)
    }

    /// Whether a request may go to a next hop now. One that may not is answered 503 here and sent nowhere (RFC 7339
    /// §5.10.1): that costs the next hop nothing.
    pub fn admits(&mut self, now: Instant, peer: Peer, class: Class, entropy: &mut Entropy) -> bool {
        let Some(told) = self.peers.get_mut(&peer) else { return true };
        // §5.7: the validity is over, and nobody has said anything since.
        if told.until <= now {
            self.peers.remove(&peer);
            return true;
        }
        let may = class.may_be_shed();
        match &mut told.limit {
            Limit::Free => true,
            Limit::Loss { percent } => {
                (told.all, told.ordinary) = (told.all + 1, told.ordinary + u32::from(may));
                let (all, ordinary) = (u64::from(told.all), u64::from(told.ordinary));
                if told.all >= 2 * HALF {
                    (told.all, told.ordinary) = (told.all / 2, told.ordinary / 2);
                }
                // §7.2: the percentage is of all requests; where some go in any case, more of the others stay.
                !may || entropy.below(ordinary * 100) >= u64::from(*percent) * all
            }
            Limit::Rate { fill, at, each } => {
                let Some(each) = *each else { return !may };
                let left = fill.saturating_sub(u64::try_from(now.since(*at).as_nanos()).unwrap_or(u64::MAX));
                // RFC 7415 §3.5.2: those that go first have room where others have none.
                if may && left > each.saturating_mul(BURST - 1) {
                    return false;
                }
                (*fill, *at) = (left.saturating_add(each).min(each.saturating_mul(4 * BURST)), now);
                true
            }
        }
    }

    /// Next hops that keep us back now.
    pub fn holding(&self, now: Instant) -> usize {
        let holds = |told: &&Told| told.until > now && !matches!(told.limit, Limit::Free);
        self.peers.values().filter(holds).count()
    }
}
