//! What control says and hears: greetings, batches, audits, refusals.

use contract::from_dataplane::Body as Word;
use contract::refusal::Reason;
use contract::to_dataplane::Body as Order;
use contract::{Audit, Context, Drain, News, change::Verb, news};

use crate::control::{Node, at, call, phone, rtp_leg};

#[test]
fn a_welcome_says_who_where_and_why() {
    for (kind, name) in [("mio", "mio"), ("auto", "")] {
        let node = Node::start(kind, |_| {});
        let control = node.control(1);
        let welcome = &control.welcome;
        assert!(name.is_empty() || welcome.driver == name);
        assert!(["uring", "mio"].contains(&welcome.driver.as_str()) && !welcome.driver_reason.is_empty());
        assert_eq!(
            (welcome.version, welcome.generation, welcome.fingerprint.len()),
            (contract::VERSION, 0, 32)
        );
        assert_ne!(welcome.instance, 0);
    }
}

#[test]
fn a_control_of_an_earlier_epoch_or_another_version_is_refused() {
    let node = Node::start("mio", |_| {});
    let mut second = node.control(2);
    let (mut first, word) = node.meet(1, 1);
    assert!(matches!(word, Word::Refusal(r) if r.reason() == Reason::Epoch));
    assert!(first.next().is_none(), "and closed");
    let (_, word) = node.meet(3, 9);
    assert!(matches!(word, Word::Refusal(r) if r.reason() == Reason::Version));
    // The owner is as it was; a later one takes over.
    second.applied(vec![Verb::PutContext(Context { id: 1 })]);
    let third = node.control(3);
    assert_eq!(third.welcome.generation, 1);
    while second.next().is_some() {}
    node.until_metric("weir_dataplane_batches_total{answer=\"refused_epoch\"} 1");
}

#[test]
fn who_says_anything_before_hello_is_closed() {
    let node = Node::start("mio", |_| {});
    let mut control = node.control(1);
    let (mut rude, _) = node.meet(1, 9);
    assert!(rude.next().is_none());
    control.say(Order::Audit(Audit { id: 3 }));
    assert!(matches!(control.answer(), Word::Audited(part) if part.id == 3 && !part.more));
}

#[test]
fn whoever_only_holds_places_keeps_no_control_out() {
    let node = Node::start("mio", |_| {});
    let socket = &node.running().addresses().socket;
    let silent: Vec<_> = (0..20).map(|_| std::os::unix::net::UnixStream::connect(socket).unwrap()).collect();
    let mut control = node.control(1);
    control.applied(vec![Verb::PutContext(Context { id: 1 })]);
    // And an owner is nobody's place.
    let more: Vec<_> = (0..20).map(|_| std::os::unix::net::UnixStream::connect(socket).unwrap()).collect();
    control.applied(vec![Verb::PutContext(Context { id: 2 })]);
    node.until_metric("weir_dataplane_links_ended_total{reason=\"full\"} 33");
    drop((silent, more));
}

#[test]
fn a_batch_is_all_or_nothing_with_its_ports_and_the_same_again_changes_nothing() {
    for kind in ["mio", "auto"] {
        let node = Node::start(kind, |config| config.rtp.port_rest_ms = 0);
        let mut control = node.control(1);
        let (a, b) = (phone(), phone());
        // The range has 32 ports; a batch that needs more takes none.
        let mut many = vec![Verb::PutContext(Context { id: 7 })];
        many.extend((1..=40).map(|leg| Verb::PutLeg(rtp_leg(7, leg, &a))));
        let refusal = control.refused(many);
        assert_eq!((refusal.reason(), refusal.change), (Reason::NoPort, 33));
        let applied = control.applied(call(8, &a, &b));
        let again = control.again(call(8, &a, &b));
        assert_eq!(again, Word::Applied(applied.clone()), "answered from memory");
        assert_eq!(applied.placements.len(), 2);
        // All ports but two are still free.
        let mut rest = vec![Verb::PutContext(Context { id: 9 })];
        rest.extend((1..=30).map(|leg| Verb::PutLeg(rtp_leg(9, leg, &a))));
        assert_eq!(control.applied(rest).placements.len(), 30);
        assert_eq!(control.refused(call(10, &a, &b)).reason(), Reason::NoPort);
        control.applied(vec![Verb::RemoveContext(9)]);
        control.applied(call(10, &a, &b));
    }
}

#[test]
fn a_leg_refused_by_the_engine_gives_its_port_back() {
    let node = Node::start("auto", |config| config.rtp.port_last = config.rtp.port_first + 1);
    let mut control = node.control(1);
    let (a, b) = (phone(), phone());
    for _ in 0..3 {
        // The path names a leg that is not there: the batch fails after its sockets were bound.
        let mut verbs = call(1, &a, &b);
        verbs.push(crate::control::relay(1, 3, 1, 99));
        let refusal = control.refused(verbs);
        assert!(matches!(refusal.reason(), Reason::UnknownLeg | Reason::BadPath), "{refusal:?}");
    }
    control.applied(call(1, &a, &b));
}

#[test]
fn a_leg_that_one_batch_puts_and_removes_leaves_no_port_behind() {
    let node = Node::start("auto", |config| {
        config.rtp.port_last = config.rtp.port_first + 1;
        config.rtp.port_rest_ms = 0;
    });
    let mut control = node.control(1);
    let (a, b) = (phone(), phone());
    control.applied(vec![Verb::PutContext(Context { id: 1 })]);
    for _ in 0..3 {
        let gone = contract::LegKey { context: 1, leg: 1 };
        control.applied(vec![Verb::PutLeg(rtp_leg(1, 1, &a)), Verb::RemoveLeg(gone)]);
        let mut all = call(2, &a, &b);
        all.push(Verb::RemoveContext(2));
        control.applied(all);
    }
    assert_eq!(control.applied(call(3, &a, &b)).placements.len(), 2);
}

/// RFC 3264 §6: what cannot be reached is refused, not agreed to and never sent to.
#[test]
fn a_peer_of_the_other_family_is_refused_and_finds_the_interface_of_his() {
    let to = |leg: &mut contract::Leg, remote: &str| {
        let Some(contract::leg::Kind::Rtp(rtp)) = &mut leg.kind else { panic!() };
        rtp.remote = Some(remote.parse::<std::net::SocketAddr>().unwrap().into());
    };
    let six = "[::1]:4000";
    let node = Node::start("auto", |_| {});
    let mut control = node.control(1);
    let mut leg = rtp_leg(1, 1, &phone());
    let put = |leg: &contract::Leg| vec![Verb::PutContext(Context { id: 1 }), Verb::PutLeg(leg.clone())];
    control.applied(put(&leg));
    to(&mut leg, six);
    assert_eq!(control.refused(put(&leg)).reason(), Reason::BadLeg, "one that is there");
    leg.id = 2;
    assert_eq!(control.refused(put(&leg)).reason(), Reason::BadLeg, "a new one");

    let node = Node::start("auto", |config| {
        let address = std::net::Ipv6Addr::LOCALHOST.into();
        let six = dataplaned::Interface { name: "six".into(), address, advertised: None };
        config.rtp.interfaces.push(six);
    });
    let mut control = node.control(1);
    let applied = control.applied(put(&leg));
    let Some(contract::placement::At::Rtp(local)) = &applied.placements[0].at else { panic!() };
    assert_eq!(local.interface, "six");
}

#[test]
fn a_port_rests_after_a_call_before_another_call_gets_it() {
    for (rest_ms, in_time) in [(600_000, false), (50, true)] {
        let node = Node::start("auto", |config| {
            config.rtp.port_last = config.rtp.port_first + 1;
            config.rtp.port_rest_ms = rest_ms;
        });
        let mut control = node.control(1);
        let (a, b) = (phone(), phone());
        let first = control.applied(call(1, &a, &b));
        control.applied(vec![Verb::RemoveContext(1)]);
        // DESIGN §2, invariant 10: the phones of the old call may go on sending.
        if in_time {
            std::thread::sleep(std::time::Duration::from_millis(rest_ms + 10));
            assert_eq!(control.applied(call(2, &a, &b)).placements.len(), 2);
        } else {
            assert_eq!(control.refused(call(2, &a, &b)).reason(), Reason::NoPort);
            // The old call itself, put again, has them by name.
            let mut verbs = call(1, &a, &b);
            for (verb, placement) in verbs.iter_mut().skip(1).zip(&first.placements) {
                let (Verb::PutLeg(leg), Some(contract::placement::At::Rtp(local))) = (verb, &placement.at)
                else {
                    panic!()
                };
                let Some(contract::leg::Kind::Rtp(rtp)) = &mut leg.kind else { panic!() };
                rtp.local = Some(local.clone());
            }
            assert_eq!(control.applied(verbs).placements, first.placements);
        }
    }
}

#[test]
fn named_ports_come_back_after_a_restart() {
    for kind in ["mio", "uring"] {
        let mut node = Node::start(kind, |_| {});
        let mut control = node.control(1);
        let (a, b) = (phone(), phone());
        let first = control.applied(call(5, &a, &b));
        let instance = control.welcome.instance;
        node.restart();
        let mut control = node.control(1);
        assert_ne!(control.welcome.instance, instance);
        assert_eq!(control.welcome.generation, 0);
        let mut verbs = call(5, &a, &b);
        for (verb, placement) in verbs.iter_mut().skip(1).zip(&first.placements) {
            let (Verb::PutLeg(leg), Some(contract::placement::At::Rtp(local))) = (verb, &placement.at) else {
                panic!()
            };
            let Some(contract::leg::Kind::Rtp(rtp)) = &mut leg.kind else { panic!() };
            rtp.local = Some(local.clone());
        }
        assert_eq!(control.applied(verbs).placements, first.placements);
    }
}

#[test]
fn a_named_port_that_somebody_else_holds_is_refused() {
    let node = Node::start("mio", |_| {});
    let mut control = node.control(1);
    let (a, other) = (phone(), phone());
    let mut leg = rtp_leg(1, 1, &a);
    let Some(contract::leg::Kind::Rtp(rtp)) = &mut leg.kind else { panic!() };
    rtp.local = Some(contract::RtpLocal {
        bound: Some(other.local_addr().unwrap().into()),
        ..contract::RtpLocal::default()
    });
    let refusal = control.refused(vec![Verb::PutContext(Context { id: 1 }), Verb::PutLeg(leg.clone())]);
    assert_eq!((refusal.reason(), refusal.change), (Reason::NoPort, 1));
    let Some(contract::leg::Kind::Rtp(rtp)) = &mut leg.kind else { panic!() };
    rtp.local = Some(contract::RtpLocal { interface: "wan".into(), ..contract::RtpLocal::default() });
    let refusal = control.refused(vec![Verb::PutContext(Context { id: 1 }), Verb::PutLeg(leg)]);
    assert_eq!(refusal.reason(), Reason::BadLeg);
}

#[test]
fn an_audit_tells_what_is_up_on_all_shards_and_a_batch_stays_on_one() {
    let node = Node::start("auto", |config| {
        config.shards.cores = vec![0, 0, 0];
        config.rtp.port_last = config.rtp.port_first + 63;
    });
    let mut control = node.control(1);
    assert_eq!(control.welcome.load.as_ref().unwrap().shards, 3);
    let (a, b) = (phone(), phone());
    for context in 1..=9 {
        let applied = control.applied(call(context, &a, &b));
        assert_eq!(applied.placements.len(), 2);
    }
    let spread = (1..=9).map(|id| Verb::PutContext(Context { id })).collect();
    assert_eq!(control.refused(spread).reason(), Reason::Unsupported);
    control.say(Order::Audit(Audit { id: 77 }));
    let (mut contexts, mut ports, mut paths) = (Vec::new(), Vec::new(), 0);
    loop {
        let Word::Audited(part) = control.answer() else { panic!() };
        assert_eq!((part.id, part.generation), (77, 9));
        contexts.extend(part.contexts.iter().map(|context| context.id));
        ports.extend(part.placements.iter().map(at));
        paths += part.paths.len();
        if !part.more {
            break;
        }
    }
    contexts.sort_unstable();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!((contexts, ports.len(), paths), ((1..=9).collect(), 18, 18));
}

#[test]
fn a_draining_data_plane_takes_no_new_context_and_says_so() {
    let node = Node::start("mio", |_| {});
    let mut control = node.control(1);
    let (a, b) = (phone(), phone());
    control.applied(call(1, &a, &b));
    control.say(Order::Drain(Drain { on: true }));
    assert_eq!(control.refused(call(2, &a, &b)).reason(), Reason::Draining);
    control.applied(vec![Verb::PutLeg(rtp_leg(1, 3, &a))]);
    loop {
        if let Word::News(News { what: Some(news::What::Load(load)) }) = control.word()
            && load.draining
            // The sums are mailed on a tick: the word may come before them.
            && load.legs == 3
        {
            assert_eq!(load.contexts, 1);
            break;
        }
    }
}

#[test]
fn a_second_data_plane_on_the_same_socket_does_not_start() {
    let node = Node::start("mio", |_| {});
    let error = dataplaned::start(node.config.clone()).unwrap_err();
    assert!(error.to_string().contains("another data plane"), "{error}");
    // And the first one is as it was.
    node.control(1);
}
