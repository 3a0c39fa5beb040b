//! Flows of the Participating Function (CPM-FACTS §7.3), through the lane.

mod bandwidth;
mod bundle;
mod early;
mod file;
mod group;
mod late_offer;
mod message;
mod passage;
mod refer;
mod reliable;
mod replaces;
pub(crate) mod session;
mod srtp;
mod webrtc;

use sip::Peer;

use crate::testing::{World, peer};

const ALICE: u16 = 7001;
const ALICE2: u16 = 7002;
const BOB: u16 = 7101;
const BOB2: u16 = 7102;

fn instance(port: u16) -> String {
    format!("urn:uuid:00000000-0000-1000-8000-00000000{port:04}")
}

/// Alice with one device, Bob with two.
fn world() -> World {
    let mut world = World::new();
    for (user, port) in [("alice", ALICE), ("bob", BOB), ("bob", BOB2)] {
        world.register(user, peer(port), &instance(port));
    }
    world
}

const fn both() -> [u16; 2] {
    [BOB, BOB2]
}

fn phone(port: u16) -> Peer {
    peer(port)
}

/// The legs as the data plane has them now.
fn legs(world: &World) -> Vec<contract::Leg> {
    let mut legs = std::collections::BTreeMap::new();
    for change in world.batches.iter().flat_map(|batch| &batch.changes) {
        match &change.verb {
            Some(contract::change::Verb::PutLeg(leg)) => drop(legs.insert(leg.id, leg.clone())),
            Some(contract::change::Verb::RemoveLeg(key)) => drop(legs.remove(&key.leg)),
            _ => {}
        }
    }
    legs.into_values().collect()
}

fn rtp(leg: &contract::Leg) -> &contract::RtpLeg {
    let Some(contract::leg::Kind::Rtp(rtp)) = &leg.kind else { panic!("an RTP leg") };
    rtp
}
