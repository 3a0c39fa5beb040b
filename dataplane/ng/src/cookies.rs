//! Replies by cookie: a retransmission is answered again and changes nothing. Bounded in number, octets and time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::Instant;

use crate::Peer;

/// What is known of a cookie.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Known {
    /// Nothing: it is new, and noted now.
    New,
    /// It is being worked on.
    Working,
    /// It was answered.
    Answered(Vec<u8>),
}

type Key = (Peer, Vec<u8>);

#[derive(Debug)]
pub(crate) struct Cookies {
    replies: BTreeMap<Key, Option<Vec<u8>>>,
    order: VecDeque<(Instant, Key)>,
    octets: usize,
    count_max: usize,
    octets_max: usize,
    life: Duration,
}

impl Cookies {
    pub(crate) fn new(count_max: usize, octets_max: usize, life: Duration) -> Self {
        let (replies, order) = (BTreeMap::new(), VecDeque::new());
        Cookies { replies, order, octets: 0, count_max: count_max.max(1), octets_max, life }
    }

    /// Looks a cookie up, and notes it when it is new.
    pub(crate) fn meet(&mut self, now: Instant, peer: Peer, cookie: &[u8]) -> Known {
        while self.order.front().is_some_and(|(since, _)| now.since(*since) > self.life) {
            self.forget_oldest();
        }
        let key = (peer, cookie.to_vec());
        match self.replies.get(&key) {
            Some(Some(reply)) => Known::Answered(reply.clone()),
            Some(None) => Known::Working,
            None => {
                while self.replies.len() >= self.count_max {
                    self.forget_oldest();
                }
                self.order.push_back((now, key.clone()));
                self.replies.insert(key, None);
                Known::New
            }
        }
    }

    /// Remembers a reply.
    pub(crate) fn answered(&mut self, peer: Peer, cookie: &[u8], reply: &[u8]) {
        let Some(place) = self.replies.get_mut(&(peer, cookie.to_vec())) else { return };
        self.octets = self.octets + reply.len() - place.as_ref().map_or(0, Vec::len);
        *place = Some(reply.to_vec());
        while self.octets > self.octets_max && !self.order.is_empty() {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            let reply = self.replies.remove(&key).flatten();
            self.octets -= reply.map_or(0, |reply| reply.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_known_by_its_peer_until_room_or_time_is_out() {
        let mut cookies = Cookies::new(2, 10, Duration::from_secs(1));
        let (a, b) = (Peer::Stream(1), Peer::Stream(2));
        let at = Instant::from_millis;
        assert_eq!(cookies.meet(at(0), a, b"x"), Known::New);
        assert_eq!(cookies.meet(at(0), a, b"x"), Known::Working);
        cookies.answered(a, b"x", b"reply");
        assert_eq!(cookies.meet(at(1), a, b"x"), Known::Answered(b"reply".to_vec()));
        assert_eq!(cookies.meet(at(1), b, b"x"), Known::New);
        // A third one takes the place of the first.
        assert_eq!(cookies.meet(at(1), b, b"y"), Known::New);
        assert_eq!(cookies.meet(at(1), b, b"y"), Known::Working);
        assert_eq!((cookies.octets, cookies.replies.len()), (0, 2));
        cookies.answered(b, b"y", b"more than ten");
        assert_eq!((cookies.octets, cookies.replies.len()), (0, 0));
        assert_eq!(cookies.meet(at(1), b, b"y"), Known::New);
        assert_eq!(cookies.meet(at(2000), b, b"y"), Known::New, "its time is out");
    }
}
