//! Requests that may go to one peer after another (RFC 3263 §4.3): what is kept of each until it has its final answer,
//! and which peers are left for last because they failed a short while ago.
//!
//! ```text
//!   Waiting --peers--> Trying(first) --503, timer B or F, transport error--> Trying(next) --...--> none left: the failure is told
//!   Trying --any other final answer--> over          any --CANCEL--> no further peer
//! ```
//!
//! Each try is a transaction of its own, with a branch of its own (RFC 3263 §4.3): the [`crate::Stack`] draws it.

use std::collections::VecDeque;
use std::time::Duration;

use base::{HashSeed, Instant, Map, map};

use crate::message::{Request, Response};
use crate::name::Name;
use crate::peer::Peer;
use crate::stack::ClientKey;

/// Peers that are remembered as failed.
const AVOIDED_MAX: usize = 1024;
/// The longest that a peer's own Retry-After keeps requests from it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// One request and where it may go yet.
#[derive(Debug)]
struct Try {
    request: Request,
    /// The name that was located.
    host: String,
    now: Option<Peer>,
    rest: VecDeque<Peer>,
}

/// A try: the request, without our Via, to that peer, which was found by that name.
#[derive(Debug)]
pub struct Next {
    /// To whom.
    pub peer: Peer,
    /// The name that its certificate must have (RFC 5922 §4).
    pub host: String,
    /// What.
    pub request: Request,
}

/// What becomes of a request whose peer has failed.
#[derive(Debug)]
pub enum Failed {
    /// It goes to another one.
    Next(Box<Next>),
    /// There is no other one.
    Over,
    /// It was not sent to a name.
    Foreign,
}

/// Every request that was sent to a name and has no final answer yet.
#[derive(Debug)]
pub struct Tries {
    open: Map<ClientKey, Try>,
    avoided: Map<Peer, Instant>,
    requests_max: usize,
    peers_max: usize,
    avoid: Duration,
}

impl Tries {
    /// At most so many requests at once, each to so many peers; a peer that failed is tried last for a while.
    pub fn new(seed: HashSeed, requests_max: usize, peers_max: usize, avoid: Duration) -> Self {
        Tries { open: map(seed), avoided: map(seed), requests_max, peers_max: peers_max.max(1), avoid }
    }

    /// Keeps a request until it is known whom the name means; false when there is no room.
    pub fn wait(&mut self, key: ClientKey, host: &str, request: Request) -> bool {
        if self.open.len() >= self.requests_max || self.open.contains_key(&key) {
            return false;
        }
        let host = host.to_owned();
        let new = Try { request, host, now: None, rest: VecDeque::new() };
        self.open.insert(key, new);
        true
    }

    /// These are meant, best first.
    pub fn found(&mut self, now: Instant, key: ClientKey, peers: Vec<Peer>) -> Failed {
        self.avoided.retain(|_, until| *until > now);
        let (good, bad): (Vec<_>, Vec<_>) =
            peers.into_iter().partition(|peer| !self.avoided.contains_key(peer));
        let Some(open) = self.open.get_mut(&key) else { return Failed::Foreign };
        open.rest = good.into_iter().chain(bad).take(self.peers_max).collect();
        self.next(key)
    }

    /// The request was cancelled by its sender; given back when it has gone nowhere yet.
    pub fn cancel(&mut self, key: ClientKey) -> Option<Request> {
        let open = self.open.get_mut(&key)?;
        if open.now.is_some() {
            open.rest.clear();
            return None;
        }
        self.open.remove(&key).map(|open| open.request)
    }

    /// No final answer came: timer B or F, or a transport error (to be treated as 503, RFC 3261 §8.1.3.1).
    pub fn expired(&mut self, now: Instant, key: ClientKey) -> Failed {
        self.avoid(now, key, self.avoid);
        self.next(key)
    }

    /// The peer has asked for less (RFC 7339 §5.5), so the request does not go to it: another one may have it. A peer that
    /// still takes some of what there is is not avoided.
    pub fn withheld(&mut self, key: ClientKey) -> Failed {
        self.next(key)
    }

    /// An answer came. Only after 503 is another peer tried (RFC 3263 §4.3); what the peer says in Retry-After is obeyed
    /// (RFC 3261 §21.5.4).
    pub fn answered(&mut self, now: Instant, key: ClientKey, response: &Response) -> Failed {
        match response.code {
            0..200 => Failed::Foreign,
            503 => {
                let said = response.headers.text(&Name::RetryAfter).and_then(seconds);
                self.avoid(now, key, said.map_or(self.avoid, |said| said.min(RETRY_AFTER_MAX)));
                self.next(key)
            }
            _ => match self.open.remove(&key) {
                Some(_) => Failed::Over,
                None => Failed::Foreign,
            },
        }
    }

    /// Requests now.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// No requests.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn avoid(&mut self, now: Instant, key: ClientKey, how_long: Duration) {
        let Some(peer) = self.open.get(&key).and_then(|open| open.now) else { return };
        if self.avoided.len() < AVOIDED_MAX || self.avoided.contains_key(&peer) {
            self.avoided.insert(peer, now + how_long);
        }
    }

    fn next(&mut self, key: ClientKey) -> Failed {
        let Some(open) = self.open.get_mut(&key) else { return Failed::Foreign };
        let Some(peer) = open.rest.pop_front() else {
            self.open.remove(&key);
            return Failed::Over;
        };
        open.now = Some(peer);
        Failed::Next(Box::new(Next { peer, host: open.host.clone(), request: open.request.clone() }))
    }
}

/// The delta-seconds of Retry-After (RFC 3261 §20.33).
fn seconds(text: &str) -> Option<Duration> {
    let digits = text.trim().split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Method;
    use crate::peer::Transport;

    const KEY: ClientKey = ClientKey(7);

    fn peers(many: u16) -> Vec<Peer> {
        (1..=many).map(|n| Peer::new(Transport::Udp, ([192, 0, 2, 1], n).into())).collect()
    }

    fn request() -> Request {
        Request::new(Method::Options, "sip:example.com".parse().unwrap())
    }

    fn tries() -> Tries {
        Tries::new(HashSeed(1), 2, 3, Duration::from_secs(30))
    }

    fn port(failed: Failed) -> u16 {
        match failed {
            Failed::Next(next) => {
                assert_eq!(next.host, "example.com");
                next.peer.addr.port()
            }
            Failed::Over => 0,
            Failed::Foreign => 9999,
        }
    }

    fn answer(code: u16, retry_after: &str) -> Response {
        let mut response = request().respond(code);
        if !retry_after.is_empty() {
            response.headers.push(Name::RetryAfter, retry_after);
        }
        response
    }

    // RFC 3263 §4.3: 503, a time-out and a transport error bring the next peer, nothing else does.
    #[test]
    fn the_next_peer_is_tried_after_503_and_after_silence() {
        let (mut tries, now) = (tries(), Instant::ZERO);
        assert!(tries.wait(KEY, "example.com", request()));
        assert_eq!(port(tries.found(now, KEY, peers(5))), 1);
        assert_eq!(port(tries.answered(now, KEY, &answer(180, ""))), 9999, "goes to the sender");
        assert_eq!(port(tries.answered(now, KEY, &answer(503, ""))), 2);
        assert_eq!(port(tries.expired(now, KEY)), 3);
        assert_eq!(port(tries.expired(now, KEY)), 0, "three are tried at most");
        assert_eq!(port(tries.expired(now, KEY)), 9999, "it is over");
        for code in [200, 302, 404, 480, 486, 500, 504, 603] {
            assert!(tries.wait(KEY, "example.com", request()));
            tries.found(now, KEY, peers(2));
            assert_eq!(port(tries.answered(now, KEY, &answer(code, ""))), 0, "{code}");
            assert!(tries.is_empty());
        }
    }

    #[test]
    fn who_failed_is_tried_last_for_a_while() {
        let (mut tries, now) = (tries(), Instant::ZERO);
        tries.wait(KEY, "example.com", request());
        tries.found(now, KEY, peers(2));
        assert_eq!(port(tries.expired(now, KEY)), 2);
        tries.answered(now, KEY, &answer(200, ""));
        tries.wait(KEY, "example.com", request());
        assert_eq!(port(tries.found(now + Duration::from_secs(29), KEY, peers(2))), 2);
        assert_eq!(port(tries.expired(now + Duration::from_secs(29), KEY)), 1, "last, and still tried");
        tries.answered(now, KEY, &answer(200, ""));
        tries.wait(KEY, "example.com", request());
        assert_eq!(port(tries.found(now + Duration::from_secs(31), KEY, peers(2))), 1);
    }

    // RFC 3261 §21.5.4: Retry-After of a 503.
    #[test]
    fn retry_after_is_obeyed_within_reason() {
        for (said, until) in [("5 (busy);duration=9", 5), ("99999999", 300), ("soon", 30)] {
            let (mut tries, now) = (tries(), Instant::ZERO);
            tries.wait(KEY, "example.com", request());
            tries.found(now, KEY, peers(2));
            tries.answered(now, KEY, &answer(503, said));
            tries.answered(now, KEY, &answer(200, ""));
            for (at, first) in [(until - 1, 2), (until + 1, 1)] {
                tries.wait(KEY, "example.com", request());
                assert_eq!(port(tries.found(now + Duration::from_secs(at), KEY, peers(2))), first, "{said}");
                tries.answered(now, KEY, &answer(200, ""));
            }
        }
    }

    #[test]
    fn a_cancelled_request_goes_nowhere_else() {
        let (mut tries, now) = (tries(), Instant::ZERO);
        tries.wait(KEY, "example.com", request());
        assert!(tries.cancel(KEY).is_some(), "it waited for its name");
        assert_eq!(port(tries.found(now, KEY, peers(2))), 9999);
        tries.wait(KEY, "example.com", request());
        tries.found(now, KEY, peers(2));
        assert!(tries.cancel(KEY).is_none());
        assert_eq!(port(tries.expired(now, KEY)), 0);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut tries = tries();
        assert!(tries.wait(ClientKey(1), "a", request()));
        assert!(!tries.wait(ClientKey(1), "a", request()));
        assert!(tries.wait(ClientKey(2), "a", request()));
        assert!(!tries.wait(ClientKey(3), "a", request()));
        assert_eq!(port(tries.found(Instant::ZERO, ClientKey(1), Vec::new())), 0, "the name means nobody");
        assert!(tries.wait(ClientKey(3), "a", request()));
    }
}
