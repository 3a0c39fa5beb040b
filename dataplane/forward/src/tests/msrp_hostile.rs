//! Streams of any kind, split anywhere: no panic, no memory beyond the limits, and what we write can be read.

use std::collections::BTreeMap;

use contract::{Mode, Switch, path::Parameters};
use proptest::prelude::*;

use super::phone::*;
use super::rig::*;
use crate::{CloseReason, Input, Limits};

/// Steps that a hostile peer or an unlucky network may take.
#[derive(Clone, Debug)]
enum Step {
    Send {
        n: u64,
        id: usize,
        start: u64,
        total: Option<u64>,
        flag: char,
        body: Vec<u8>,
        cut: usize,
        lines: usize,
    },
    Raw {
        n: u64,
        bytes: Vec<u8>,
    },
    Report {
        n: u64,
        id: usize,
        code: u16,
    },
    Response {
        n: u64,
        code: u16,
    },
    Close {
        n: u64,
    },
    Open {
        n: u64,
    },
    Stall {
        n: u64,
        on: bool,
    },
    Wait {
        ms: u64,
    },
    Remove {
        n: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 1..5u64;
    let flag = prop_oneof![Just('$'), Just('+'), Just('#')];
    let cpim = (n(), 0..3usize).prop_map(|(n, to)| {
        let to = ["sip:anonymous@anonymous.invalid".to_owned(), user(2), user(9)][to].clone();
        cpim(n, &to, "text/plain", "some text that is longer than a line of it")
    });
    let body = prop_oneof![cpim, proptest::collection::vec(any::<u8>(), 0..3000)];
    let range = (prop_oneof![Just(1u64), 1..3000u64, any::<u64>()], proptest::option::of(any::<u64>()));
    prop_oneof![
        8 => (n(), 0..4usize, range, flag, body, 0..4000usize, 0..4usize).prop_map(
            |(n, id, (start, total), flag, body, cut, lines)| Step::Send { n, id, start, total, flag, body, cut, lines }),
        1 => (n(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(n, bytes)| Step::Raw { n, bytes }),
        2 => (n(), 0..4usize, prop_oneof![Just(200u16), Just(413), any::<u16>()])
            .prop_map(|(n, id, code)| Step::Report { n, id, code }),
        2 => (n(), prop_oneof![Just(200u16), Just(413), Just(481)]).prop_map(|(n, code)| Step::Response { n, code }),
        1 => n().prop_map(|n| Step::Close { n }),
        2 => n().prop_map(|n| Step::Open { n }),
        1 => (n(), any::<bool>()).prop_map(|(n, on)| Step::Stall { n, on }),
        1 => (0..40_000u64).prop_map(|ms| Step::Wait { ms: ms / 100 * 100 }),
        1 => n().prop_map(|n| Step::Remove { n }),
    ]
}

/// What each connection's peer was sent: one stream per leg and time that it connected.
type Streams = BTreeMap<(u64, u32), Vec<u8>>;

fn act(phones: &mut Phones, step: Step, seen: &mut Streams) {
    let ids = ["idAA", "idBB", "idCC", "idDD"];
    match step {
        Step::Send { n, id, start, total, flag, body, cut, lines } => {
            let extra =
                ["", "Success-Report: yes\r\n", "Failure-Report: no\r\n", "Failure-Report: partial\r\n"]
                    [lines];
            let total = total.map_or("*".into(), |t| t.to_string());
            let lines = format!(
                "Message-ID: {}\r\nByte-Range: {start}-*/{total}\r\n{extra}Content-Type: message/cpim\r\n",
                ids[id]
            );
            let bytes = phones.request(n, "SEND", "tidX", &lines, Some(&body), flag);
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            phones.say_raw(n, a);
            phones.say_raw(n, b);
        }
        Step::Raw { n, bytes } => drop(phones.say_raw(n, &bytes)),
        Step::Report { n, id, code } => {
            let lines =
                format!("Message-ID: {}\r\nByte-Range: 1-9/9\r\nStatus: 000 {:03}\r\n", ids[id], code % 1000);
            let bytes = phones.request(n, "REPORT", "tidR", &lines, None, '$');
            phones.say_raw(n, &bytes);
        }
        Step::Response { n, code } => {
            // To the last request that this peer saw.
            let Some((_, bytes)) = seen.range((n, 0)..=(n, u32::MAX)).next_back() else { return };
            let (_, read) = parse(bytes);
            if let Some(read) = read.iter().rev().find(|r| r.head.method().is_some())
                && let Some(bytes) = msrp::response(&read.head, msrp::Status(code))
            {
                phones.say_raw(n, &bytes);
            }
        }
        Step::Close { n } => drop(phones.rig.input(Input::Closed { conn: conn(n), why: CloseReason::Reset })),
        Step::Open { n } => {
            phones.rig.input(Input::Closed { conn: conn(n), why: CloseReason::Reset });
            let times = seen.range((n, 0)..=(n, u32::MAX)).next_back().map_or(0, |((_, t), _)| t + 1);
            seen.insert((n, times), Vec::new());
            phones.open(n);
            let bytes = phones.empty(n);
            phones.say_raw(n, &bytes);
        }
        Step::Stall { n, on } => {
            if on {
                phones.rig.stalled.insert(n);
            } else {
                phones.rig.stalled.remove(&n);
            }
        }
        Step::Wait { ms } => drop(phones.rig.run(ms)),
        Step::Remove { n } => drop(phones.rig.put(vec![contract::change::Verb::RemoveLeg(key(n))])),
    }
    for n in 1..5 {
        if let Some(bytes) = phones.rig.wire.remove(&n) {
            match seen.range_mut((n, 0)..=(n, u32::MAX)).next_back() {
                Some((_, stream)) => stream.extend_from_slice(&bytes),
                None => drop(seen.insert((n, 0), bytes)),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn nothing_panics_and_all_is_bounded(
        steps in proptest::collection::vec(step(), 0..40), room in any::<bool>(), once in any::<bool>(),
    ) {
        let limits = Limits {
            queue_bytes_max: 20_000, inflight_bytes_max: 5000, slow_ms: 20_000, leg_messages_max: 3,
            cpim_bytes_max: 1000, sockets_max: 1, ..Limits::default()
        };
        let all = [1, 2, 3, 4];
        let paths = if room {
            let switch = Switch { private_messages: true, nicknames: true, ..Switch::default() };
            vec![contract::Path {
                parameters: Some(Parameters::Switch(switch)), ..path(1, Mode::Switch, &all, &all)
            }]
        } else {
            let parameters = Some(Parameters::Distribute(contract::Distribute { imdn_once: once }));
            vec![
                path(1, Mode::Distribute, &[1], &[2, 3, 4]),
                contract::Path { parameters, ..path(2, Mode::Distribute, &[2, 3, 4], &[1]) },
            ]
        };
        let leg = |n| adjust(msrp_leg(n), |m| { m.addresses = vec![user(n)]; m.private_messages = true; });
        let mut phones = Phones::up_with(limits, all.map(leg).to_vec(), paths);
        let mut seen = Streams::new();
        for step in steps {
            act(&mut phones, step, &mut seen);
            let queued = phones.rig.engine.totals().queued_bytes;
            prop_assert!(queued < 4 * 40_000, "{}", queued);
        }
        phones.check_sum();
        // Everything that a peer was sent can be framed, heads and all.
        for stream in seen.values() {
            parse(stream);
        }
    }
}
