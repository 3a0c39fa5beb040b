//! Batches: checked whole, applied all or nothing, idempotent by generation.

use contract::change::Verb;
use contract::{Context, Mode, PathKey, from_dataplane::Body, refusal::Reason};

use super::rig::*;
use crate::{Input, Limits};

fn refused(body: &Body) -> (Reason, u32) {
    let Body::Refusal(refusal) = body else { panic!("{body:?}") };
    (refusal.reason(), refusal.change)
}

#[test]
fn each_refusal_names_its_change_and_changes_nothing() {
    let set = |path: contract::Path, change: fn(&mut contract::Path)| {
        let mut path = path;
        change(&mut path);
        Verb::PutPath(path)
    };
    let select = |slots, follows| {
        contract::path::Parameters::Select(contract::Select { slots, follows, ..contract::Select::default() })
    };
    let floor = |slots, holders: &[u64]| {
        let holders = holders.to_vec();
        contract::path::Parameters::Floor(contract::Floor { holders, slots, contributors: false })
    };
    let slots = |mode, parameters| {
        Verb::PutPath(contract::Path { parameters: Some(parameters), ..path(9, mode, &[1, 2], &[1, 2]) })
    };
    let distribute = || path(9, Mode::Distribute, &[1, 2], &[1, 2]);
    for (verb, reason) in [
        (put_leg(contract::Leg { context: 99, ..rtp_leg(3) }), Reason::UnknownContext),
        (put_leg(contract::Leg { kind: None, ..rtp_leg(3) }), Reason::BadLeg),
        (
            put_leg(edit(rtp_leg(3), |r| r.remote = Some(contract::Address { ip: vec![1], port: 1 }))),
            Reason::BadLeg,
        ),
        (
            put_leg(edit(rtp_leg(3), |r| {
                r.payloads = vec![contract::PayloadMap { peer: 128, ..contract::PayloadMap::default() }]
            })),
            Reason::BadLeg,
        ),
        (set(distribute(), |p| p.context = 99), Reason::UnknownContext),
        (set(distribute(), |p| p.sources = legs(&[1, 55])), Reason::UnknownLeg),
        (set(distribute(), |p| p.mode = Mode::Unspecified as i32), Reason::BadPath),
        (set(distribute(), |p| p.mode = Mode::Relay as i32), Reason::BadPath),
        (set(distribute(), |p| p.mode = Mode::Switch as i32), Reason::BadPath),
        (slots(Mode::Select, select(17, 0)), Reason::Limit),
        (slots(Mode::Select, select(16, 9)), Reason::BadPath), // follows itself
        (slots(Mode::Select, floor(1, &[])), Reason::BadPath),
        (slots(Mode::Floor, select(1, 0)), Reason::BadPath),
        (slots(Mode::Floor, floor(17, &[])), Reason::Limit),
        (slots(Mode::Floor, floor(1, &[3])), Reason::BadPath), // no source
        (
            put_leg(edit(rtp_leg(3), |r| {
                let ids = vec![contract::ExtensionMap { peer: 256, context: 1 }];
                r.extensions = Some(Box::new(contract::Extensions { ids }));
            })),
            Reason::BadLeg,
        ),
    ] {
        let mut rig = Rig::new();
        rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![]);
        let before = rig.engine.audit(None);
        let fine = Verb::PutPath(path(1, Mode::Distribute, &[1, 2], &[1, 2]));
        let (body, done) = rig.batch(vec![fine, verb.clone()]);
        assert_eq!(refused(&body), (reason, 1), "{verb:?}");
        assert!(done.is_empty());
        assert_eq!(rig.engine.audit(None), before, "nothing of it was applied");
        // The same generation may be tried again, mended.
        rig.generation -= 1;
        rig.put(vec![Verb::PutPath(path(1, Mode::Distribute, &[1, 2], &[1, 2]))]);
    }
}

#[test]
fn a_leg_without_a_socket_has_no_port() {
    let mut rig = Rig::new();
    rig.set(vec![], vec![]);
    let batch = contract::Batch {
        generation: 9,
        epoch: 1,
        trace: String::new(),
        changes: vec![contract::Change { verb: Some(put_leg(rtp_leg(1))) }],
    };
    let done = rig.input(Input::Batch { batch: &batch, attachments: &[] });
    let Done::Answer(body) = &done[0] else { panic!() };
    assert_eq!(refused(body), (Reason::NoPort, 0));
}

#[test]
fn generations_and_epochs_only_grow() {
    let mut rig = Rig::new();
    rig.set(vec![rtp_leg(1)], vec![]);
    rig.generation = 5;
    rig.put(vec![put_leg(rtp_leg(2))]);
    let again = rig.batch_as(vec![put_leg(rtp_leg(2))], 6);
    let Body::Applied(applied) = &again.0 else { panic!() };
    assert_eq!((applied.generation, applied.placements.len(), again.1.len()), (6, 1, 0), "answered again");
    assert_eq!(refused(&rig.batch_as(vec![], 5).0), (Reason::Generation, 0));
    let batch = contract::Batch { generation: 7, epoch: 0, trace: String::new(), changes: vec![] };
    let done = rig.input(Input::Batch { batch: &batch, attachments: &[] });
    let Done::Answer(body) = &done[0] else { panic!() };
    assert_eq!(refused(body), (Reason::Epoch, 0));
    assert_eq!(rig.engine.generation(), 6);
}

#[test]
fn a_batch_without_a_generation_takes_no_part_in_the_order_of_the_others() {
    let mut rig = Rig::new();
    rig.set(vec![rtp_leg(1)], vec![]);
    rig.generation = 5;
    rig.put(vec![put_leg(rtp_leg(2))]);
    for context in [20, 21] {
        let changes = vec![contract::Change { verb: Some(Verb::PutContext(Context { id: context })) }];
        let batch = contract::Batch { generation: 0, epoch: 0, trace: String::new(), changes };
        let done = rig.input(Input::Batch { batch: &batch, attachments: &[] });
        let Done::Answer(Body::Applied(applied)) = &done[0] else { panic!() };
        assert_eq!((applied.generation, rig.engine.generation()), (0, 6));
    }
    let again = rig.batch_as(vec![put_leg(rtp_leg(2))], 6);
    let Body::Applied(applied) = &again.0 else { panic!() };
    assert_eq!(
        (applied.generation, applied.placements.len()),
        (6, 1),
        "the last answer is still that of the order"
    );
}

#[test]
fn limits_refuse() {
    let limits =
        Limits { contexts_max: 2, legs_max: 3, context_legs_max: 2, sockets_max: 64, ..Limits::default() };
    let mut rig = Rig::with(limits);
    rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![]);
    assert_eq!(refused(&rig.batch(vec![put_leg(rtp_leg(3))]).0).0, Reason::Limit);
    rig.generation -= 1;
    rig.put(vec![Verb::PutContext(Context { id: 8 })]);
    assert_eq!(refused(&rig.batch(vec![Verb::PutContext(Context { id: 9 })]).0).0, Reason::Limit);
    rig.generation -= 1;
    let other = |n| put_leg(contract::Leg { context: 8, ..rtp_leg(n) });
    assert_eq!(refused(&rig.batch(vec![other(5), other(6)]).0).0, Reason::Limit);
    rig.generation -= 1;
    rig.put(vec![other(5)]);
    assert!(limits_are_summed());
}

fn limits_are_summed() -> bool {
    Limits::default().budget().total_bytes() > 1 << 20
}

#[test]
fn a_drain_lets_nothing_new_in() {
    let mut rig = Rig::new();
    rig.set(vec![rtp_leg(1)], vec![]);
    rig.input(Input::Drain(true));
    assert_eq!(refused(&rig.batch(vec![Verb::PutContext(Context { id: 8 })]).0), (Reason::Draining, 0));
    rig.generation -= 1;
    rig.put(vec![put_leg(rtp_leg(2))]);
    rig.input(Input::Drain(false));
    rig.put(vec![Verb::PutContext(Context { id: 8 })]);
}

#[test]
fn an_audit_tells_the_whole_state_with_ports_and_restores_it() {
    let mut rig = Rig::new();
    let placements = rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![path(1, Mode::Relay, &[1], &[2])]);
    rig.put(vec![Verb::PutContext(Context { id: 8 })]);
    let part = rig.engine.audit(None).unwrap();
    assert_eq!((part.contexts.len(), part.legs.len(), part.paths.len()), (2, 2, 1));
    assert_eq!(part.placements, placements);
    assert_eq!(rig.engine.audit(Some(8)), None);
    let mut other = Rig::new();
    let mut verbs = vec![Verb::PutContext(Context { id: CONTEXT }), Verb::PutContext(Context { id: 8 })];
    verbs.extend(part.legs.iter().cloned().map(Verb::PutLeg));
    verbs.extend(part.paths.iter().cloned().map(Verb::PutPath));
    other.put(verbs);
    let again = other.engine.audit(None).unwrap();
    assert_eq!((again.legs, again.paths, again.placements), (part.legs, part.paths, part.placements));
}

#[test]
fn a_removed_context_takes_its_legs_and_is_gone_twice() {
    let mut rig = Rig::new();
    rig.set(vec![rtp_leg(1), rtp_leg(2)], vec![path(1, Mode::Relay, &[1], &[2])]);
    let done = rig.put(vec![Verb::RemoveContext(CONTEXT)]);
    assert_eq!(done.iter().filter(|d| matches!(d, Done::Closed(_))).count(), 2);
    rig.put(vec![Verb::RemoveContext(CONTEXT)]);
    rig.put(vec![Verb::RemovePath(PathKey { context: CONTEXT, path: 1 }), Verb::RemoveLeg(key(1))]);
    assert_eq!((rig.engine.totals().contexts, rig.engine.totals().legs), (0, 0));
}
