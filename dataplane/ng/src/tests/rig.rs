//! An adapter, and a data plane that takes what it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Entropy, Instant, Now, Outbox, UnixTime};
use contract::change::Verb;
use contract::from_dataplane::Body;
use contract::{
    Applied, Batch, Counters, Leg, LegCounters, LegKey, News, Path, Placement, Refusal, RtpLeg, RtpLocal,
    leg, news, placement, refusal,
};

use crate::frame::{Encoding, Frame};
use crate::{Adapter, Config, Input, Interface, Output, Peer, Value};

pub(super) const PROXY: Peer = Peer::Stream(7);

pub(super) struct Rig {
    pub(super) adapter: Adapter,
    pub(super) out: Outbox<Output>,
    pub(super) now: Now,
    pub(super) legs: BTreeMap<(u64, u64), Leg>,
    pub(super) paths: BTreeMap<(u64, u32), Path>,
    pub(super) contexts: Vec<u64>,
    /// What the data plane says instead of yes.
    pub(super) refuses: Option<refusal::Reason>,
    /// It says nothing yet.
    pub(super) silent: bool,
    pub(super) late: Vec<Output>,
    next_port: u32,
    cookie: u32,
}

impl Rig {
    pub(super) fn new(change: impl FnOnce(&mut Config)) -> Rig {
        let interface = |name: &str, ip: &str| Interface { name: name.into(), address: ip.parse().unwrap() };
        let mut config = Config {
            interfaces: vec![interface("inside", "192.0.2.1"), interface("outside", "198.51.100.1")],
            ..Config::default()
        };
        change(&mut config);
        Rig {
            adapter: Adapter::new(config, Entropy::from_number(1)),
            out: Outbox::with_max(Adapter::room_needed()),
            now: Now { mono: Instant::from_millis(1000), wall: UnixTime::from_millis(1_700_000_000_000) },
            legs: BTreeMap::new(),
            paths: BTreeMap::new(),
            contexts: Vec::new(),
            refuses: None,
            silent: false,
            late: Vec::new(),
            next_port: 40_000,
            cookie: 0,
        }
    }

    /// Sends octets as they are; the replies.
    pub(super) fn octets(&mut self, octets: &[u8]) -> Vec<Frame> {
        self.adapter.handle(self.now, Input::Request { from: PROXY, octets }, &mut self.out);
        self.perform()
    }

    /// Asks; the one reply.
    pub(super) fn ask(&mut self, body: Value) -> Value {
        self.cookie += 1;
        let cookie = format!("{}_1", self.cookie).into_bytes();
        let frame = Frame { cookie: cookie.clone(), encoding: Encoding::Bencode, body };
        let mut replies = self.octets(&frame.to_octets());
        assert_eq!(replies.len(), 1);
        let reply = replies.remove(0);
        assert_eq!(reply.cookie, cookie);
        reply.body
    }

    pub(super) fn wait(&mut self, time: Duration) -> Vec<Frame> {
        self.now.mono += time;
        self.adapter.timeout(self.now, &mut self.out);
        self.perform()
    }

    pub(super) fn perform(&mut self) -> Vec<Frame> {
        let mut replies = Vec::new();
        while let Some(output) = self.out.pop() {
            match output {
                Output::Reply { to, octets } => {
                    assert_eq!(to, PROXY);
                    replies.push(Frame::read(&octets).unwrap().0);
                }
                order if self.silent => self.late.push(order),
                order => self.obey(order),
            }
        }
        replies
    }

    pub(super) fn obey(&mut self, order: Output) {
        let (ticket, body) = match order {
            Output::Batch { ticket, batch } => (ticket, self.apply(&batch)),
            Output::Count { ticket, context } => {
                let legs = self.legs.keys().filter(|(of, _)| *of == context);
                let legs = legs.map(|(context, leg)| LegCounters {
                    leg: Some(LegKey::new(*context, *leg)),
                    packets_in: 100 * leg,
                    bytes_in: 16_000 * leg,
                    ..LegCounters::default()
                });
                let what = Some(news::What::Counters(Counters { legs: legs.collect() }));
                (ticket, Body::News(News { what }))
            }
            Output::Reply { .. } => return,
        };
        self.adapter.handle(self.now, Input::Answer { ticket, body }, &mut self.out);
    }

    fn apply(&mut self, batch: &Batch) -> Body {
        assert_eq!(batch.generation, 0);
        if let Some(reason) = self.refuses {
            return Body::Refusal(Refusal { reason: reason.into(), ..Refusal::default() });
        }
        let mut placements = Vec::new();
        for change in &batch.changes {
            match change.verb.clone().unwrap() {
                Verb::PutContext(context) if self.contexts.contains(&context.id) => {}
                Verb::PutContext(context) => self.contexts.push(context.id),
                Verb::RemoveContext(context) => {
                    self.contexts.retain(|id| *id != context);
                    self.legs.retain(|(of, _), _| *of != context);
                    self.paths.retain(|(of, _), _| *of != context);
                }
                Verb::PutLeg(mut leg) => {
                    let Some(leg::Kind::Rtp(rtp)) = &mut leg.kind else { panic!() };
                    let local = rtp.local.get_or_insert_default();
                    if local.bound.is_none() {
                        let ip =
                            if local.interface == "outside" { [198, 51, 100, 1] } else { [192, 0, 2, 1] };
                        let at: std::net::SocketAddr = (ip, self.next_port as u16).into();
                        (local.bound, local.advertised) = (Some(at.into()), Some(at.into()));
                        local.rtcp_port = self.next_port + 1;
                        self.next_port += 2;
                    }
                    let at = Some(placement::At::Rtp(RtpLocal::clone(local)));
                    placements.push(Placement { context: leg.context, leg: leg.id, at });
                    self.legs.insert((leg.context, leg.id), leg);
                }
                Verb::RemoveLeg(key) => drop(self.legs.remove(&(key.context, key.leg)).unwrap()),
                Verb::PutPath(path) => drop(self.paths.insert((path.context, path.id), path)),
                Verb::RemovePath(key) => drop(self.paths.remove(&(key.context, key.path)).unwrap()),
            }
        }
        Body::Applied(Applied { generation: 0, placements })
    }

    /// The leg of the newest context.
    pub(super) fn leg(&self, id: u64) -> (&Leg, &RtpLeg) {
        let leg = &self.legs[&(*self.contexts.last().unwrap(), id)];
        let Some(leg::Kind::Rtp(rtp)) = &leg.kind else { panic!() };
        (leg, rtp)
    }
}

/// A description with the lines after `t=`.
pub(super) fn sdp(ip: &str, lines: &str) -> String {
    let lines = lines.replace('\n', "\r\n");
    format!("v=0\r\no=- 7 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n{lines}")
}

pub(super) fn offer(sdp: &str) -> Value {
    Value::dictionary()
        .with("supports", vec![Value::from("load limit")])
        .with("sdp", sdp)
        .with("ICE", "remove")
        .with("replace", vec![Value::from("origin"), Value::from("session-connection")])
        .with("call-id", "call-1")
        .with("received-from", vec![Value::from("IP4"), Value::from("203.0.113.9")])
        .with("from-tag", "a")
        .with("command", "offer")
}

pub(super) fn answer(sdp: &str) -> Value {
    Value::dictionary()
        .with("sdp", sdp)
        .with("call-id", "call-1")
        .with("from-tag", "a")
        .with("to-tag", "b")
        .with("replace", vec![Value::from("origin"), Value::from("session-connection")])
        .with("command", "answer")
}

pub(super) fn short(command: &str) -> Value {
    Value::dictionary().with("call-id", "call-1").with("from-tag", "b").with("command", command)
}
