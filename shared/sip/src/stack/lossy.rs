//! Two stacks over a network that loses, doubles and reorders: every request has one outcome, nothing is told
//! twice, and both forget everything.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Entropy, Instant, Outbox};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{Dialog, Host, Limits, Method, Name, Request, Timing, Uri};

const CALLS: u64 = 12;

/// A packet on its way: arrival, order of sending, to whom, what.
type Packet = (Instant, u64, usize, Bytes);

struct World {
    stacks: [Stack; 2],
    now: Instant,
    chance: Entropy,
    loss_percent: u64,
    packets: Vec<Packet>,
    serial: u64,
    /// Final outcomes per key: status code, or 0 for an expiry.
    outcomes: BTreeMap<u64, Vec<u16>>,
    /// How often the callee was told of a request, by Call-ID and CSeq.
    told: BTreeMap<String, u32>,
    acks: BTreeMap<String, u32>,
    dialogs: BTreeMap<String, Dialog>,
    /// Answers that the callee gives later.
    answers: Vec<(Instant, ServerKey, Request, u16)>,
}

fn address(side: usize) -> Peer {
    let host = if side == 0 { "192.0.2.1:5060" } else { "192.0.2.2:5060" };
    Peer::new(Transport::Udp, host.parse().unwrap())
}

impl World {
    fn new(seed: u64, loss_percent: u64) -> World {
        let stack = |side: usize| {
            let addr = address(side).addr;
            let sent_by = vec![(Transport::Udp, HostPort { host: Host::from(addr.ip()), port: Some(5060) })];
            let config = Config { sent_by, limits: Limits::default(), timing: Timing::default() };
            Stack::new(config, Entropy::from_number(seed + side as u64))
        };
        World {
            stacks: [stack(0), stack(1)],
            now: Instant::from_millis(1),
            chance: Entropy::from_number(seed + 100),
            loss_percent,
            packets: Vec::new(),
            serial: 0,
            outcomes: BTreeMap::new(),
            told: BTreeMap::new(),
            acks: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            answers: Vec::new(),
        }
    }

    fn give(&mut self, side: usize, input: Input) {
        let mut out = Outbox::with_max(OUTPUTS_MAX);
        self.stacks[side].handle(self.now, input, &mut out);
        self.perform(side, out);
    }

    fn perform(&mut self, side: usize, mut out: Outbox<Output>) {
        assert_eq!(out.refused(), 0);
        for output in out.drain().collect::<Vec<_>>() {
            match output {
                Output::Transmit { peer, bytes } => {
                    assert_eq!(peer, address(1 - side));
                    for _ in 0..=u64::from(self.chance.below(10) == 0) {
                        if self.chance.below(100) >= self.loss_percent {
                            let delay = Duration::from_millis(5 + self.chance.below(300));
                            self.serial += 1;
                            self.packets.push((self.now + delay, self.serial, 1 - side, bytes.clone()));
                        }
                    }
                }
                Output::Request { server, request, .. } => self.callee(server, request),
                Output::Ack { request, .. } => {
                    *self.acks.entry(request.call_id().unwrap().to_owned()).or_default() += 1;
                }
                Output::Response { key, response, .. } if response.code >= 200 => {
                    self.outcomes.entry(key.0).or_default().push(response.code);
                    let call_id = response.headers.text(&Name::CallId).unwrap().to_owned();
                    if response.is_success() && response.cseq().unwrap().method == Method::Invite {
                        let dialog = Dialog::uac(&invite(key.0), &response).unwrap();
                        self.give(side, Input::Ack { to: address(1 - side), request: dialog.ack(1) });
                        self.dialogs.insert(call_id, dialog);
                    }
                }
                Output::Expired { key, why } => {
                    assert_eq!(why, Expiry::Timeout);
                    self.outcomes.entry(key.0).or_default().push(0);
                }
                Output::Response { .. } | Output::Cancelled { .. } | Output::AckMissing { .. } => {}
            }
        }
    }

    fn callee(&mut self, server: ServerKey, request: Request) {
        let cseq = request.cseq().unwrap();
        let call_id = request.call_id().unwrap().to_owned();
        *self.told.entry(format!("{call_id} {cseq}")).or_default() += 1;
        let code = if request.method == Method::Invite && self.chance.below(3) == 0 { 486 } else { 200 };
        let after = Duration::from_millis(self.chance.below(2000));
        if request.method == Method::Invite && self.chance.below(2) == 0 {
            self.give(1, Input::Respond { server, response: request.respond(180) });
        }
        self.answers.push((self.now + after, server, request, code));
    }

    /// The next thing that happens; false when nothing will.
    fn step(&mut self) -> bool {
        let packet = self.packets.iter().map(|(at, serial, ..)| (*at, *serial)).min();
        let answer = self.answers.iter().map(|(at, key, ..)| (*at, key.0)).min();
        let timer = self.stacks.iter().filter_map(Stack::next_timeout).min();
        let first = [packet.map(|p| p.0), answer.map(|a| a.0), timer].into_iter().flatten().min();
        let Some(at) = first else { return false };
        self.now = self.now.max(at);
        if packet.is_some_and(|p| p.0 == at) {
            let index = self.packets.iter().position(|(a, s, ..)| Some((*a, *s)) == packet).unwrap();
            let (_, _, side, bytes) = self.packets.swap_remove(index);
            let message = crate::datagram(bytes, &Limits::default()).unwrap().unwrap();
            self.give(side, Input::Received { peer: address(1 - side), message });
        } else if answer.is_some_and(|a| a.0 == at) {
            let index = self.answers.iter().position(|(a, k, ..)| Some((*a, k.0)) == answer).unwrap();
            let (_, server, request, code) = self.answers.swap_remove(index);
            let mut response = request.respond(code);
            response.headers.push(Name::Contact, "<sip:callee@192.0.2.2>");
            self.give(1, Input::Respond { server, response });
        } else {
            for side in 0..2 {
                let mut out = Outbox::with_max(OUTPUTS_MAX);
                self.stacks[side].timeout(self.now, &mut out);
                self.perform(side, out);
            }
        }
        true
    }

    fn run(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 100_000, "it never ends");
        }
    }
}

fn invite(key: u64) -> Request {
    let mut request = Request::new(Method::Invite, Uri::sip("callee", "192.0.2.2"));
    request.headers.push(Name::From, "<sip:caller@192.0.2.1>;tag=f");
    request.headers.push(Name::To, "<sip:callee@192.0.2.2>");
    request.headers.push(Name::CallId, format!("call-{key}"));
    request.headers.push(Name::CSeq, "1 INVITE");
    request.headers.push(Name::Contact, "<sip:caller@192.0.2.1>");
    request
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_request_has_one_outcome(seed in any::<u32>(), loss_percent in 0u64..60) {
        let mut world = World::new(u64::from(seed), loss_percent);
        for key in 0..CALLS {
            world.give(0, Input::Send { key: ClientKey(key), to: address(1), request: invite(key) });
        }
        world.run();
        let dialogs: Vec<Dialog> = world.dialogs.values().cloned().collect();
        for (at, mut dialog) in dialogs.into_iter().enumerate() {
            let request = dialog.request(Method::Bye);
            world.give(0, Input::Send { key: ClientKey(1000 + at as u64), to: address(1), request });
        }
        world.run();
        // One final outcome each, and with no loss at all it is never an expiry.
        let sent = CALLS as usize + world.dialogs.len();
        prop_assert_eq!(world.outcomes.len(), sent);
        for (key, codes) in &world.outcomes {
            prop_assert_eq!(codes.len(), 1, "{}: {:?}", key, codes);
            prop_assert!(loss_percent > 0 || codes[0] != 0);
        }
        // The callee hears of each request once, and of each ACK once, however often they came.
        prop_assert!(world.told.values().all(|count| *count == 1), "{:?}", world.told);
        prop_assert!(world.acks.values().all(|count| *count == 1), "{:?}", world.acks);
        prop_assert!(loss_percent > 0 || world.acks.len() == world.dialogs.len());
        for stack in &world.stacks {
            prop_assert_eq!((stack.server_transactions(), stack.client_transactions()), (0, 0));
        }
    }
}
