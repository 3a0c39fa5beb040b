//! Overload control: RFC 7339 (loss) and RFC 7415 (rate), both ends, without a socket or a clock.
//!
//! ```text
//!   client (per next hop)                        server
//!   Via: ...;oc;oc-algo="loss,rate"   ──────▶    Meter: how long each request waited for its queue
//!   Client::admits                               Server: budget of each queue, share that is refused
//!   Client::heard  ◀── oc=20;oc-algo="loss";oc-validity=500;oc-seq=1.2 ──  Advice: what is put into our responses
//! ```
//!
//! What is deliberately not here: the load of the processor. A queue that is short needs no control however busy the
//! processor is, and one that is long needs it however idle: what is measured is how long a request waits.

#[cfg(test)]
mod burst;
mod client;
mod meter;
mod server;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::message::Request;
use crate::typed::Via;
use crate::uri::Scheme;

pub use client::Client;
pub use meter::{Meter, Sample};
pub use server::{Obeys, Server, Shed, Tick};

/// How a client is told to send less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// A percentage that is not sent (RFC 7339 §7).
    Loss,
    /// Requests in a second that are (RFC 7415).
    Rate,
}

impl Algorithm {
    /// The token in `oc-algo`.
    pub const fn token(self) -> &'static str {
        match self {
            Algorithm::Loss => "loss",
            Algorithm::Rate => "rate",
        }
    }

    fn parse(token: &str) -> Option<Algorithm> {
        [Algorithm::Loss, Algorithm::Rate].into_iter().find(|a| a.token().eq_ignore_ascii_case(token.trim()))
    }
}

/// The settings of both ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether requests are refused by how long they would wait.
    pub on: bool,
    /// Milliseconds that a request may wait for its lane: where even the least wait of an interval is longer, less is
    /// taken.
    pub target_ms: u64,
    /// Milliseconds beyond which a request would come too late to be taken at all.
    pub wait_max_ms: u64,
    /// Milliseconds of an interval.
    pub interval_ms: u64,
    /// Milliseconds within which what waits beyond the target is worked off.
    pub drain_ms: u64,
    /// Milliseconds for which peers obey what we say (`oc-validity`).
    pub validity_ms: u64,
    /// Seconds in `Retry-After` of a 503 for overload, up to twice as many, each drawn.
    pub retry_after_s: u32,
    /// What peers are told that understand both.
    pub prefer: Algorithm,
    /// Peers among which a rate is shared; further ones do not count.
    pub rate_peers_max: usize,
    /// Addresses of next hops which we ask to tell us when they have too much, and obey. A next hop that is not here is
    /// not asked: whoever answers for it could keep us from it.
    pub next_hops: Vec<std::net::IpAddr>,
    /// Next hops whose word is remembered.
    pub next_hops_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            on: true,
            target_ms: 50,
            // A disk that is slow once is no overload: what stands is judged by the target.
            wait_max_ms: 2000,
            interval_ms: 100,
            drain_ms: 500,
            // RFC 7339 §4.3: what holds when nothing is said.
            validity_ms: 500,
            retry_after_s: 5,
            prefer: Algorithm::Loss,
            rate_peers_max: 1024,
            next_hops: Vec::new(),
            next_hops_max: 4096,
        }
    }
}

impl Settings {
    /// What cannot work: the key, and why.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.target_ms == 0 || self.interval_ms == 0 || self.drain_ms == 0 {
            return Err(("target_ms", "target_ms, interval_ms and drain_ms must be above 0"));
        }
        if self.wait_max_ms <= self.target_ms {
            return Err(("wait_max_ms", "above target_ms"));
        }
        if self.validity_ms < self.interval_ms {
            return Err((
                "validity_ms",
                "no less than interval_ms: what we say would end before we say it again",
            ));
        }
        Ok(())
    }
}

/// Whether a request may be refused for overload (RFC 7339 §5.10.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// It begins something: that is what is refused.
    Ordinary,
    /// Inside a dialog: work was spent on it already, and ending it frees some.
    InDialog,
    /// An emergency call (RFC 5031).
    Emergency,
    /// By a Resource-Priority that is honoured (RFC 4412, RFC 7135).
    Priority,
}

impl Class {
    /// True where the request may be refused.
    pub fn may_be_shed(self) -> bool {
        self == Class::Ordinary
    }
}

const RESOURCE_PRIORITY: &str = "Resource-Priority";
/// Namespaces of it that go first: emergency (RFC 7135) and the two of RFC 4412 for the same end.
const NAMESPACES: [&str; 3] = ["esnet", "ets", "wps"];

/// The class of a request. Resource-Priority is honoured only from whom it is believed (RFC 4412 §8): anyone could write it.
pub fn class_of(request: &Request, believed: bool) -> Class {
    if request.to_tag().is_some() {
        return Class::InDialog;
    }
    let uri = &request.uri;
    if matches!(&uri.scheme, Scheme::Other(name) if &**name == "urn")
        && uri.user.as_deref().is_some_and(is_sos)
    {
        return Class::Emergency;
    }
    let first = |value: &[u8]| {
        let namespace = value.split(|b| *b == b'.').next().unwrap_or_default().trim_ascii();
        NAMESPACES.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(namespace))
    };
    // RFC 4412 §3.1: a list.
    let mut priorities =
        request.headers.fields(&RESOURCE_PRIORITY.into()).flat_map(|f| f.split(|b| *b == b','));
    if believed && priorities.any(first) {
        return Class::Priority;
    }
    Class::Ordinary
}

/// `service:sos` with or without sub-services (RFC 5031 §4.2).
fn is_sos(rest: &str) -> bool {
    let (service, sub) = rest.split_at_checked("service:sos".len()).unwrap_or_default();
    service.eq_ignore_ascii_case("service:sos") && (sub.is_empty() || sub.starts_with('.'))
}

/// What a client's Via says that it can do: none, where it has no `oc` (RFC 7339 §4.1, §5.1). Where it names no algorithm
/// that we know it is taken to know the default one, which it must (§4.2).
pub fn algorithm(via: &Via, prefer: Algorithm) -> Option<Algorithm> {
    if !via.params.has("oc") {
        return None;
    }
    let list = via.params.text("oc-algo").unwrap_or_default();
    let preferred = list.split(',').filter_map(Algorithm::parse).any(|known| known == prefer);
    let rate_only = list.split(',').all(|token| Algorithm::parse(token) == Some(Algorithm::Rate));
    Some(if preferred {
        prefer
    } else if rate_only && !list.is_empty() {
        Algorithm::Rate
    } else {
        Algorithm::Loss
    })
}

/// A value of `oc-seq`: it grows with each news (RFC 7339 §4.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Seq {
    whole: u64,
    /// In units of 1/100000.
    part: u32,
}

impl Seq {
    /// Of milliseconds since the epoch: it goes on after a restart.
    pub fn of_millis(ms: u64) -> Seq {
        let part = u32::try_from(ms % 1000).unwrap_or(0) * 100;
        Seq { whole: ms / 1000, part }
    }

    /// `1*12DIGIT "." 1*5DIGIT` (RFC 7339 §9).
    fn parse(text: &str) -> Option<Seq> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str, max: usize| {
            (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 12) || !digits(part, 5) {
            return None;
        }
        Some(Seq { whole: whole.parse().ok()?, part: format!("{part:0<5}").parse().ok()? })
    }
}

impl std::fmt::Display for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:05}", self.whole, self.part)
    }
}

/// What our responses tell clients that ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advice {
    /// How many of a hundred requests not to send.
    pub loss: u8,
    /// How many to send in a second, where there is a limit.
    pub rate: Option<u32>,
    /// For how long; zero: the control is over.
    pub validity: Duration,
    /// When this was said.
    pub seq: Seq,
    /// What is said to whom understands both.
    pub prefer: Algorithm,
}

/// What stands as a rate where there is no limit, beside the validity of zero: nobody must read it as "nothing".
const RATE_AT_REST: u32 = 1_000_000;

impl Advice {
    /// Puts it into the topmost Via of a response whose request had `oc` there; other Vias are not ours to touch
    /// (RFC 7339 §5.2, §5.6). A server that has nothing to say says so (§5.7), and that it can (§5.1).
    pub fn stamp(&self, via: &mut Via) {
        let Some(algorithm) = algorithm(via, self.prefer) else { return };
        let value = match algorithm {
            Algorithm::Loss => u32::from(self.loss),
            Algorithm::Rate => self.rate.unwrap_or(RATE_AT_REST),
        };
        let over = match algorithm {
            Algorithm::Loss => self.loss == 0,
            Algorithm::Rate => self.rate.is_none(),
        };
        let validity = if over { 0 } else { self.validity.as_millis() };
        via.params.set("oc", Some(&value.to_string()));
        // §4.2: the one that the server has chosen, and no other.
        via.params.set_quoted("oc-algo", algorithm.token());
        via.params.set("oc-validity", Some(&validity.to_string()));
        via.params.set("oc-seq", Some(&self.seq.to_string()));
    }
}
