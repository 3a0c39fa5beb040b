//! kill -9 of control in the midst of a file (DESIGN §2, invariant 8): whoever starts again takes it over. And senders who are
//! gone without a word.

use contract::change::Verb;
use contract::news;
use sip::Method;

use super::{Wanted, accept, file, lost, offered, tell, under_way};
use crate::Table;
use crate::focus::tests::world;
use crate::testing::World;

/// Rows of a file, of which there are none besides of conferences.
fn rows_of_files(world: &World) -> usize {
    world.rows(Table::Roster).iter().filter(|row| row.key.id.expose().starts_with("file-")).count()
}

fn contexts(world: &World) -> usize {
    world.rows(Table::Context).len()
}

#[test]
fn a_restarted_control_takes_a_file_over_and_ends_it() {
    let (mut world, mut phones) = world();
    under_way(&mut world, &mut phones);
    let before = Wanted::of(&world);
    assert_eq!((rows_of_files(&world), contexts(&world)), (1, 2));
    let batches = world.batches.len();
    world.restart();
    world.pass(1);
    // The octets flow on: nothing was ordered, nobody was told anything.
    let touched = |verb: &Verb| match verb {
        Verb::PutContext(context) => context.id == before.legs[0].context,
        Verb::RemoveContext(context) => *context == before.legs[0].context,
        Verb::PutLeg(leg) => leg.context == before.legs[0].context,
        _ => false,
    };
    let orders = world.batches[batches..].iter().flat_map(|b| &b.changes).filter_map(|c| c.verb.as_ref());
    assert_eq!(orders.filter(|verb| touched(verb)).count(), 0);
    assert_eq!(world.service.counters().files, 1);
    for phone in &mut phones {
        assert!(phone.take(&mut world).is_empty() && phone.byes.is_empty(), "{}", phone.user);
    }
    // A session timer's word is answered as before,
    let same = file(5001, "sendonly", "");
    let again = phones[0].within(&mut world, Method::Invite, &[], Some(("application/sdp", &same)));
    assert_eq!(again.code, 200);
    // a member who is lost is taken out, after a while,
    tell(&mut world, lost(before.key("p1")));
    world.pass(3);
    phones[2].take(&mut world);
    assert_eq!(phones[2].byes.len(), 1);
    assert_eq!(Wanted::of(&world).takers(), ["p0"]);
    // and when its sender has sent it all, the last member hangs up, and nothing is left of it.
    phones[0].bye(&mut world, None);
    phones[1].bye(&mut world, None);
    assert!(!Wanted::of(&world).is_there);
    assert_eq!((rows_of_files(&world), contexts(&world), world.service.counters().files), (0, 1, 0));
}

#[test]
fn a_file_that_was_drained_when_control_died_ends_in_its_time() {
    let (mut world, mut phones) = world();
    under_way(&mut world, &mut phones);
    phones[0].bye(&mut world, None);
    world.restart();
    world.pass(1);
    assert_eq!(world.service.counters().files, 1, "what is queued for members goes out");
    world.pass(3600);
    for phone in &mut phones[1..3] {
        phone.take(&mut world);
        assert_eq!(phone.byes.len(), 1, "{}", phone.user);
    }
    assert_eq!((rows_of_files(&world), world.service.counters().files), (0, 0));
}

#[test]
fn of_a_file_that_was_still_offered_nothing_is_left_and_who_has_taken_it_is_told() {
    let (mut world, mut phones) = world();
    let (_, _, mut invites) = offered(&mut world, &mut phones, "");
    assert_eq!(rows_of_files(&world), 0, "nobody has taken it yet");
    accept(&mut world, &mut phones[1], invites.remove(0), "");
    assert_eq!(rows_of_files(&world), 1);
    world.restart();
    world.pass(1);
    phones[1].take(&mut world);
    assert_eq!(phones[1].byes.len(), 1);
    assert!(!Wanted::of(&world).is_there);
    assert_eq!((rows_of_files(&world), contexts(&world), world.service.counters().files), (0, 1, 0));
}

#[test]
fn a_file_of_which_nothing_comes_any_more_ends_whoever_began_it() {
    for restarts in [false, true] {
        let (mut world, mut phones) = world();
        under_way(&mut world, &mut phones);
        let leg = Wanted::of(&world).key("sender");
        if restarts {
            world.restart();
        }
        let told = |world: &mut World, bytes_in: u64| {
            let counters =
                contract::LegCounters { leg: Some(leg), bytes_in, ..contract::LegCounters::default() };
            tell(world, news::What::Counters(contract::Counters { legs: vec![counters] }));
            world.service.counters().files
        };
        // It is slow, and moves.
        for minute in 1..=20 {
            world.pass(60);
            assert_eq!(told(&mut world, minute * 100), 1);
        }
        for _ in 1..=4 {
            world.pass(60);
            assert_eq!(told(&mut world, 2000), 1);
        }
        world.pass(61);
        assert_eq!(told(&mut world, 2000), 0);
        for phone in [0, 1, 2] {
            phones[phone].take(&mut world);
            assert!(phones[phone].byes[0].contains("Media lost"), "{phone}");
        }
    }
}
