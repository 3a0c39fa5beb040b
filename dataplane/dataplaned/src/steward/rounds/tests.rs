//! Where legs go, and how rounds end.

use super::*;
use contract::{Applied, Context, Leg, LegSet, Mode, Path};

const LINK: u64 = 5;

fn rounds(weight_max: usize, shards: usize) -> Rounds {
    let mut config = Config::default();
    config.shards.context_weight_max = weight_max;
    (config.rtp.port_first, config.rtp.port_last) = (40_000, 40_099);
    Rounds::new(&config, shards)
}

fn leg(context: u64, id: u64, port: u16, video: bool) -> Verb {
    let local = (port != 0).then(|| RtpLocal {
        bound: Some(std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()),
        ..RtpLocal::default()
    });
    let rtp = RtpLeg { video, local, ..RtpLeg::default() };
    Verb::PutLeg(Leg { id, context, kind: Some(Kind::Rtp(rtp)), ..Leg::default() })
}

fn path(context: u64, id: u32, mode: Mode) -> Verb {
    let all = Some(LegSet { media: "audio".into(), legs: vec![] });
    let (sources, targets) = (all.clone(), all);
    Verb::PutPath(Path { id, context, mode: mode as i32, sources, targets, ..Path::default() })
}

fn batch(generation: u64, verbs: Vec<Verb>) -> Batch {
    let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
    Batch { generation, epoch: 1, changes, ..Batch::default() }
}

fn room(context: u64, legs: impl Iterator<Item = u64>) -> Vec<Verb> {
    let mut verbs = vec![Verb::PutContext(Context { id: context })];
    verbs.extend(legs.map(|id| leg(context, id, 0, false)));
    verbs.push(path(context, 1, Mode::Distribute));
    verbs
}

fn applied(generation: u64) -> Body {
    Body::Applied(Applied { generation, ..Applied::default() })
}

fn kinds(step: &Step) -> Vec<(u16, &'static str)> {
    let kind = |message: &ToShard| match message {
        ToShard::Bind { .. } => "bind",
        ToShard::Unbind { .. } => "unbind",
        ToShard::SpreadBatch(_) => "spread",
        _ => "other",
    };
    step.send.iter().map(|(shard, message)| (*shard, kind(message))).collect()
}

/// A whole round in which all goes well.
fn run(rounds: &mut Rounds, home: usize, batch: Batch) {
    let generation = batch.generation;
    let plan = rounds.plan(home, &batch).unwrap();
    if plan.is_at_home() {
        rounds.sent(LINK, generation, plan);
        return rounds.answered(LINK, generation, true);
    }
    let step = rounds.begin(LINK, batch, plan);
    let shards: Vec<u16> = step.send.iter().map(|(shard, _)| *shard).collect();
    let number = rounds.next - 1;
    for shard in &shards {
        rounds.bound(number, *shard, Ok(vec![]));
    }
    rounds.decided(number, applied(generation));
    for shard in &shards {
        rounds.followed(number, *shard);
    }
    assert!(!rounds.is_busy());
}

fn shards_of(rounds: &Rounds, context: u64) -> Vec<usize> {
    let legs = rounds.rosters.get(&context).map(|roster| roster.legs.keys().copied().collect::<Vec<_>>());
    legs.unwrap_or_default().into_iter().filter_map(|leg| rounds.shard_of(context, leg)).collect()
}

#[test]
fn legs_are_at_home_up_to_the_weight_and_then_where_the_context_weighs_least() {
    let mut rounds = rounds(4, 3);
    run(&mut rounds, 1, batch(1, room(7, 1..=4)));
    assert_eq!(shards_of(&rounds, 7), [1; 4]);
    run(&mut rounds, 1, batch(2, (5..=14).map(|id| leg(7, id, 0, false)).collect()));
    // From the home's neighbour on, until all weigh the same.
    assert_eq!(shards_of(&rounds, 7)[4..], [2, 0, 2, 0, 2, 0, 2, 0, 1, 2]);
    // Put again, or beside others that leave, a leg is where it was.
    let again = vec![Verb::RemoveLeg(LegKey::new(7, 1)), leg(7, 6, 0, false), leg(7, 5, 0, false)];
    run(&mut rounds, 1, batch(3, again));
    assert_eq!(shards_of(&rounds, 7)[3..6], [2, 0, 2]);
    // Who comes and goes in one batch weighs nothing.
    let brief = vec![leg(7, 20, 0, false), Verb::RemoveLeg(LegKey::new(7, 20))];
    run(&mut rounds, 1, batch(4, brief));
    assert_eq!(shards_of(&rounds, 7).len(), 13);
    run(&mut rounds, 1, batch(5, vec![Verb::RemoveContext(7)]));
    assert!(rounds.rosters.is_empty());
}

#[test]
fn video_weighs_more() {
    let mut rounds = rounds(8, 2);
    let mut verbs = room(7, 1..=1);
    verbs.insert(2, leg(7, 2, 0, true));
    run(&mut rounds, 0, batch(1, verbs));
    assert_eq!(shards_of(&rounds, 7), [0, 1]);
}

#[test]
fn a_named_port_says_where_the_leg_is() {
    let mut rounds = rounds(100, 3);
    let mut verbs = room(7, 0..0);
    // The pairs of the range belong to the shards in turn.
    verbs.extend(
        [40_000, 40_003, 40_004, 40_006, 9].iter().zip(1..).map(|(port, id)| leg(7, id, *port, false)),
    );
    run(&mut rounds, 0, batch(1, verbs.clone()));
    assert_eq!(shards_of(&rounds, 7), [0, 1, 2, 0, 0]);
    // Not where the context is not spread.
    verbs.push(path(7, 2, Mode::Select));
    rounds.rosters.clear();
    run(&mut rounds, 0, batch(2, verbs));
    assert_eq!(shards_of(&rounds, 7), [0; 5]);
}

#[test]
fn what_chooses_is_not_spread() {
    for mode in [Mode::Select, Mode::Floor, Mode::Relay, Mode::Tap] {
        let mut rounds = rounds(2, 2);
        let mut verbs = room(7, 1..=6);
        verbs.push(path(7, 2, mode));
        run(&mut rounds, 0, batch(1, verbs));
        assert_eq!(shards_of(&rounds, 7), [0; 6], "{mode:?}: at home, whole");
        run(&mut rounds, 0, batch(2, room(8, 1..=6)));
        assert_eq!(shards_of(&rounds, 8), [0, 0, 1, 1, 0, 1]);
        let late = batch(3, vec![leg(8, 7, 0, false), path(8, 2, mode)]);
        let (reason, change, _) = rounds.plan(0, &late).unwrap_err();
        assert_eq!((reason, change), (Reason::Unsupported, 1), "{mode:?}: refused, by name");
        // Messages are at home beside it, and without a path for a while it is where it is.
        let gone = Verb::RemovePath(contract::PathKey { context: 8, path: 1 });
        run(&mut rounds, 0, batch(4, vec![path(8, 3, Mode::Switch), gone]));
        assert_eq!(shards_of(&rounds, 8), [0, 0, 1, 1, 0, 1]);
    }
}

#[test]
fn a_round_goes_from_binding_to_following_and_nothing_else_meanwhile() {
    let mut rounds = rounds(1, 3);
    let first = batch(1, room(7, 1..=3));
    let plan = rounds.plan(0, &first).unwrap();
    let step = rounds.begin(LINK, first, plan);
    assert_eq!(kinds(&step), [(1, "bind"), (2, "bind")]);
    let ToShard::Bind { batch: part, sizes, .. } = &step.send[0].1 else { panic!() };
    assert_eq!((part.changes.len(), &sizes[..]), (1, &[(7, 3)][..]));
    assert!(rounds.is_busy() && rounds.blocks(&batch(2, room(8, 1..=1))));
    let local = |port: u16| RtpLocal { rtcp_port: u32::from(port), ..RtpLocal::default() };
    assert_eq!(kinds(&rounds.bound(1, 2, Ok(vec![(LegKey::new(7, 3), local(40_004))]))), []);
    assert_eq!(kinds(&rounds.bound(9, 1, Ok(vec![]))), [], "of another round");
    let step = rounds.bound(1, 1, Ok(vec![(LegKey::new(7, 2), local(40_002))]));
    assert_eq!(kinds(&step), [(0, "spread")]);
    let ToShard::SpreadBatch(spread) = &step.send[0].1 else { panic!() };
    let told: Vec<_> = spread.elsewhere.iter().map(|e| (e.leg.leg, e.shard, e.local.clone())).collect();
    assert_eq!(told, [(2, 1, Some(local(40_002))), (3, 2, Some(local(40_004)))]);
    assert_eq!(spread.outposts, [(1, vec![7]), (2, vec![7])]);
    assert_eq!(spread.batch.changes.len(), 5);
    // An outpost may be faster than the home's word.
    assert!(rounds.followed(1, 2).answer.is_none());
    assert!(rounds.decided(1, applied(1)).answer.is_none());
    assert_eq!(rounds.followed(1, 1).answer, Some((LINK, applied(1))));
    assert!(!rounds.is_busy());
    assert_eq!(rounds.outposts(7, 0).into_iter().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_refusal_by_an_outpost_or_by_the_home_undoes_the_round() {
    for by_home in [false, true] {
        let mut rounds = rounds(1, 3);
        let first = batch(1, room(7, 1..=3));
        let plan = rounds.plan(0, &first).unwrap();
        rounds.begin(LINK, first, plan);
        let step = match by_home {
            false => {
                let none = rounds.bound(1, 1, Err((0, Reason::NoPort, "no port is free")));
                assert!(none.answer.is_none(), "the other one has not answered");
                rounds.bound(1, 2, Ok(vec![]))
            }
            true => {
                rounds.bound(1, 1, Ok(vec![]));
                rounds.bound(1, 2, Ok(vec![]));
                let refusal = Refusal { reason: Reason::NoPort as i32, change: 2, ..Refusal::default() };
                rounds.decided(1, Body::Refusal(refusal))
            }
        };
        assert_eq!(kinds(&step), [(1, "unbind"), (2, "unbind")]);
        let Some((LINK, Body::Refusal(refusal))) = step.answer else { panic!() };
        assert_eq!((refusal.reason(), refusal.change), (Reason::NoPort, 2));
        assert!(!rounds.is_busy() && rounds.rosters.is_empty());
    }
}

#[test]
fn a_batch_waits_for_the_answer_about_its_own_context_only() {
    let mut rounds = rounds(4, 2);
    let first = batch(1, room(7, 1..=2));
    let plan = rounds.plan(0, &first).unwrap();
    rounds.sent(LINK, 1, plan);
    assert!(!rounds.blocks(&batch(2, room(8, 1..=1))));
    let second = batch(3, room(7, 3..=3));
    assert!(rounds.blocks(&second));
    rounds.wait(1, second);
    assert!(rounds.is_busy() && rounds.go_on().is_none());
    rounds.answered(LINK, 1, false);
    assert_eq!(rounds.go_on().map(|(token, batch)| (token, batch.generation)), Some((1, 3)));
    assert!(!rounds.is_busy() && rounds.rosters.is_empty(), "what was refused is not remembered");
}

/// RFC 9143: a transport is one socket, and a socket is on one shard.
#[test]
fn lines_that_share_a_transport_are_at_home() {
    let mut rounds = rounds(2, 2);
    run(&mut rounds, 0, batch(1, room(7, 1..=3)));
    assert_eq!(shards_of(&rounds, 7), [0, 0, 1]);
    let bundled = |id, carrier| {
        let Verb::PutLeg(mut leg) = leg(7, id, 0, true) else { panic!("a leg") };
        if let Some(Kind::Rtp(rtp)) = &mut leg.kind {
            rtp.bundle = Some(Box::new(contract::Bundle { carrier, ..contract::Bundle::default() }));
        }
        Verb::PutLeg(leg)
    };
    run(&mut rounds, 0, batch(2, vec![bundled(4, 0), bundled(5, 4)]));
    assert_eq!(shards_of(&rounds, 7), [0, 0, 1, 0, 0]);
    let refused = rounds.plan(0, &batch(3, vec![bundled(3, 4)])).unwrap_err();
    assert_eq!((refused.0, refused.1), (Reason::Unsupported, 0));
}

fn chat(context: u64, id: u64, participant: &str, session: &str) -> Verb {
    let local = (!session.is_empty())
        .then(|| contract::MsrpLocal { session: session.into(), ..contract::MsrpLocal::default() });
    let msrp = contract::MsrpLeg { local, ..contract::MsrpLeg::default() };
    let (media, participant) = ("msrp".into(), participant.into());
    Verb::PutLeg(Leg { id, context, media, participant, kind: Some(Kind::Msrp(msrp)), ..Leg::default() })
}

/// A path of all of a media.
fn of_all(context: u64, id: u32, mode: Mode, media: &str) -> Verb {
    let all = Some(LegSet { media: media.into(), legs: vec![] });
    let (sources, targets) = (all.clone(), all);
    Verb::PutPath(Path { id, context, mode: mode as i32, sources, targets, ..Path::default() })
}

fn chats(context: u64, participants: &[(u64, &str, &str)]) -> Vec<Verb> {
    let mut verbs = vec![Verb::PutContext(Context { id: context })];
    verbs.extend(
        participants.iter().map(|(id, participant, session)| chat(context, *id, participant, session)),
    );
    verbs.push(of_all(context, 1, Mode::Switch, "msrp"));
    verbs
}

#[test]
fn legs_of_a_room_are_spread_and_those_of_one_participant_are_together() {
    let mut rounds = rounds(2, 3);
    let members =
        [(1, "a", ""), (2, "b", ""), (3, "c", ""), (4, "c", ""), (5, "d", ""), (6, "a", ""), (7, "", "")];
    run(&mut rounds, 1, batch(1, chats(7, &members)));
    assert_eq!(shards_of(&rounds, 7), [1, 1, 2, 2, 0, 1, 0]);
    // The heir of a leg that the batch removes is where that one was: what waits for him waits there.
    let heir =
        vec![Verb::RemoveLeg(LegKey::new(7, 3)), Verb::RemoveLeg(LegKey::new(7, 4)), chat(7, 9, "c", "")];
    run(&mut rounds, 1, batch(2, heir));
    assert_eq!(rounds.shard_of(7, 9), Some(2));
    // A session that control names says where its leg is; one of a shard that is not there says nothing.
    run(&mut rounds, 1, batch(3, vec![chat(7, 10, "e", "002xyz"), chat(7, 11, "f", "00fxyz")]));
    assert_eq!((rounds.shard_of(7, 10), rounds.shard_of(7, 11)), (Some(2), Some(2)));
}

#[test]
fn relayed_messages_are_at_home_and_a_spread_room_is_refused_them() {
    let mut rounds = rounds(1, 2);
    let mut verbs = chats(7, &[(1, "a", ""), (2, "b", ""), (3, "c", "")]);
    verbs.push(of_all(7, 2, Mode::Distribute, "msrp"));
    run(&mut rounds, 0, batch(1, verbs));
    assert_eq!(shards_of(&rounds, 7), [0, 0, 0]);
    run(&mut rounds, 0, batch(2, chats(8, &[(1, "a", ""), (2, "b", ""), (3, "c", "")])));
    assert_eq!(shards_of(&rounds, 8), [0, 1, 0]);
    for mode in [Mode::Relay, Mode::Distribute] {
        let refused =
            rounds.plan(0, &batch(3, vec![of_all(8, 3, Mode::Select, "audio"), of_all(8, 2, mode, "msrp")]));
        assert_eq!(refused.unwrap_err().1, 1);
    }
    // Its taps go with it, and may be anywhere.
    let Verb::PutLeg(tap) = chat(8, 9, "tap", "") else { panic!() };
    let tap = Leg { media: "tap".into(), ..tap };
    run(&mut rounds, 0, batch(4, vec![Verb::PutLeg(tap), of_all(8, 4, Mode::Tap, "msrp")]));
    assert_eq!(shards_of(&rounds, 8), [0, 1, 0, 1]);
    // What its voices do is another matter: they are at home.
    run(
        &mut rounds,
        0,
        batch(5, vec![of_all(8, 3, Mode::Select, "audio"), leg(8, 10, 0, false), leg(8, 11, 0, false)]),
    );
    assert_eq!(shards_of(&rounds, 8), [0, 1, 0, 1, 0, 0]);
}
