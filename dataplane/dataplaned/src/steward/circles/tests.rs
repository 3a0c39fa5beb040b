//! What is a circle and what is none, and that a refusal leaves nothing behind.

use super::*;
use contract::{Change, Context, Leg, LegKey, Mode, Path, Placement, RtpLeg};

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// The address by which others know us.
const NAT: &str = "203.0.113.9";
/// A phone somewhere else.
const PHONE: &str = "198.51.100.7:4000";

fn leg(context: u64, id: u64, remote: SocketAddr) -> Verb {
    let rtp = RtpLeg { remote: Some(remote.into()), rtcp_mux: true, ..RtpLeg::default() };
    Verb::PutLeg(Leg { id, context, media: "audio".into(), kind: Some(Kind::Rtp(rtp)), ..Leg::default() })
}

fn path(context: u64, id: u32, sources: &[u64], targets: &[u64]) -> Verb {
    let set = |legs: &[u64]| match legs {
        [] => Some(LegSet { legs: vec![], media: "audio".into() }),
        legs => Some(LegSet { legs: legs.to_vec(), media: String::new() }),
    };
    let (sources, targets) = (set(sources), set(targets));
    Verb::PutPath(Path { id, context, mode: Mode::Relay.into(), sources, targets, ..Path::default() })
}

/// A call between two phones: its legs get the ports 1000 * context + id.
fn call(context: u64, one: SocketAddr, two: SocketAddr) -> Vec<Verb> {
    vec![
        Verb::PutContext(Context { id: context }),
        leg(context, 1, one),
        leg(context, 2, two),
        path(context, 1, &[1], &[2]),
        path(context, 2, &[2], &[1]),
    ]
}

fn place(context: u64, id: u64) -> SocketAddr {
    at((1000 * context + id) as u16)
}

struct World {
    circles: Circles,
    generation: u64,
}

impl World {
    fn new() -> World {
        let own = OwnMedia::new([vec![at(0).ip(), NAT.parse().unwrap()]]);
        World { circles: Circles::new(Arc::new(own)), generation: 0 }
    }

    fn send(&mut self, verbs: Vec<Verb>) -> (Batch, bool) {
        self.generation += 1;
        let changes = verbs.into_iter().map(|verb| Change { verb: Some(verb) }).collect();
        let batch = Batch { generation: self.generation, changes, ..Batch::default() };
        let sent = self.circles.send(3, &batch).is_ok();
        (batch, sent)
    }

    /// Sends a batch that its shard applies; whether it was sent.
    fn put(&mut self, verbs: Vec<Verb>) -> bool {
        let (batch, sent) = self.send(verbs);
        let placed = |change: &Change| match &change.verb {
            Some(Verb::PutLeg(leg)) => {
                let bound = Some(place(leg.context, leg.id).into());
                let local = RtpLocal { bound, ..RtpLocal::default() };
                Some(Placement { context: leg.context, leg: leg.id, at: Some(At::Rtp(local)) })
            }
            _ => None,
        };
        let placements = batch.changes.iter().filter_map(placed).collect();
        let applied = Applied { generation: batch.generation, placements };
        self.circles.answered(3, batch.generation, Some(&applied));
        sent
    }

    fn end(&mut self, context: u64) {
        let removed = Verb::RemoveContext(context);
        assert!(self.put(vec![removed]));
    }

    fn is_empty(&self) -> bool {
        let Circles { own: _, contexts, places, sent } = &self.circles;
        contexts.is_empty() && places.is_empty() && sent.is_empty()
    }
}

fn phone() -> SocketAddr {
    PHONE.parse().unwrap()
}

#[test]
fn two_calls_that_name_each_others_legs_are_a_circle_and_refused() {
    let mut world = World::new();
    assert!(world.put(call(1, phone(), phone())) && world.put(call(2, phone(), phone())));
    // One end of each: what comes in at the other ends still leaves by a phone.
    assert!(world.put(vec![leg(1, 1, place(2, 1))]) && world.put(vec![leg(2, 1, place(1, 1))]));
    assert!(!world.put(vec![leg(1, 2, place(2, 2))]), "to 2.2, by 2.1 to 1.1, and that leaves by 1.2");
    assert!(!world.put(vec![leg(2, 2, place(1, 2))]), "the other way round");
    // Nothing of it stayed.
    assert!(world.put(vec![leg(1, 2, phone())]) && world.put(vec![leg(2, 2, phone())]));
    world.end(1);
    world.end(2);
    assert!(world.is_empty());
}

#[test]
fn a_leg_that_is_sent_what_its_own_call_sends_is_a_circle() {
    let mut world = World::new();
    assert!(world.put(call(1, phone(), phone())));
    assert!(world.put(vec![leg(1, 1, place(1, 1))]), "an echo: it comes to leg 1 and leaves by leg 2");
    assert!(
        !world.put(vec![leg(1, 1, place(1, 2))]),
        "what leg 1 sends comes to leg 2, and that goes to leg 1"
    );
    let rtcp = RtpLeg { remote_rtcp: Some(Box::new(place(1, 2).into())), ..RtpLeg::default() };
    let named =
        Leg { id: 1, context: 1, media: "audio".into(), kind: Some(Kind::Rtp(rtcp)), ..Leg::default() };
    assert!(!world.put(vec![Verb::PutLeg(named)]), "RTCP too");
}

/// By the address that its SDP says, which is not where it is bound.
#[test]
fn a_circle_by_the_advertised_address_is_one() {
    let mut world = World::new();
    assert!(world.put(call(1, phone(), phone())));
    let outside = SocketAddr::new(NAT.parse().unwrap(), place(1, 2).port());
    assert!(!world.put(vec![leg(1, 1, outside)]));
    let another = SocketAddr::new(phone().ip(), place(1, 2).port());
    assert!(world.put(vec![leg(1, 1, another)]), "a port of somebody else's");
}

#[test]
fn a_conference_and_the_sessions_of_its_members_are_no_circle() {
    let mut world = World::new();
    let room = 50;
    assert!(world.put(vec![Verb::PutContext(Context { id: room }), path(room, 1, &[], &[])]));
    for member in 1..=20 {
        assert!(world.put(call(member, phone(), phone())));
        assert!(world.put(vec![leg(room, member, place(member, 2))]));
        assert!(world.put(vec![leg(member, 2, place(room, member))]));
    }
    // What one member is sent, another one would bring in.
    assert!(!world.put(vec![leg(1, 1, place(2, 1))]));
}

#[test]
fn a_path_can_close_a_circle_and_what_is_refused_is_taken_back() {
    let mut world = World::new();
    let legs = vec![Verb::PutContext(Context { id: 1 }), leg(1, 1, phone()), leg(1, 2, phone())];
    assert!(world.put(legs) && world.put(vec![leg(1, 1, place(1, 2))]));
    assert!(!world.put(vec![path(1, 1, &[2], &[1])]));
    assert!(world.put(vec![path(1, 1, &[1], &[2])]));
    // The shard refuses what would have opened it.
    let (batch, sent) = world.send(vec![Verb::RemoveLeg(LegKey { context: 1, leg: 1 })]);
    assert!(sent);
    world.circles.answered(3, batch.generation, None);
    assert!(!world.put(vec![path(1, 2, &[2], &[1])]));
    // A batch counts while it is on its way.
    assert!(world.put(call(2, phone(), phone())) && !world.put(vec![leg(2, 1, place(2, 2))]));
    let (_, sent) = world.send(vec![leg(2, 1, place(2, 1))]);
    assert!(sent);
    world.end(1);
}

#[test]
fn after_a_restart_the_places_that_control_names_are_known_at_once() {
    let mut world = World::new();
    let named = |context, id, remote: SocketAddr| {
        let local = RtpLocal { bound: Some(place(context, id).into()), ..RtpLocal::default() };
        let rtp = RtpLeg { remote: Some(remote.into()), local: Some(local), ..RtpLeg::default() };
        Verb::PutLeg(Leg { id, context, media: "audio".into(), kind: Some(Kind::Rtp(rtp)), ..Leg::default() })
    };
    let both = |context, other| {
        let mut verbs = call(context, phone(), phone());
        verbs[1] = named(context, 1, place(other, 1));
        verbs[2] = named(context, 2, place(other, 2));
        verbs
    };
    // Neither is answered yet.
    assert!(world.send(both(1, 2)).1);
    assert!(!world.send(both(2, 1)).1);
    assert!(world.circles.places.iter().all(|(_, key)| key.0 == 1), "nothing of the refused one");
}

/// A leg that is removed and put again by one batch is somewhere else.
#[test]
fn a_place_that_a_leg_has_left_is_nobodys() {
    let mut world = World::new();
    assert!(world.put(call(1, phone(), phone())));
    let again = vec![Verb::RemoveLeg(LegKey { context: 1, leg: 1 }), leg(1, 1, phone())];
    let (batch, sent) = world.send(again);
    assert!(sent);
    let local = RtpLocal { bound: Some(at(4444).into()), ..RtpLocal::default() };
    let placements = vec![Placement { context: 1, leg: 1, at: Some(At::Rtp(local)) }];
    let applied = Applied { generation: batch.generation, placements };
    world.circles.answered(3, batch.generation, Some(&applied));
    let is_at = |port| world.circles.places.contains(&(Place { interface: 0, port }, (1, 1)));
    assert!(is_at(4444) && !is_at(place(1, 1).port()));
    world.end(1);
    assert!(world.is_empty());
}
