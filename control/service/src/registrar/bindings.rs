//! The bindings of a lane's users: a bounded table in memory, each row of it in the store too.
//!
//! A binding is a flow to a device (RFC 5626 §6): with `+sip.instance` its key is instance and reg-id, so
//! a device that comes back under a new Contact replaces its old one; without, it is the Contact URI
//! (RFC 3261 §10.2.1, compared as a URI).

use base::{Map, Private, TimerId, UnixTime, map};
use cpm::feature::FeatureSet;
use sip::{Peer, Uri};

use crate::config::FlowTrust;
use crate::records::{Binding, Columns, Record, Row};
use crate::turn::{Desk, Turn, Wake};
use crate::{Key, LaneKey, Source, Table, UserId};

/// In the place of a reg-id: the binding is an S-CSCF's. No device has it (RFC 5626 §4.2: 1 to 2^31-1).
pub(crate) const OF_CORE: u32 = u32::MAX;

/// A binding in memory.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Its key in the store, and the name of the device elsewhere.
    pub(crate) key: String,
    /// Its body.
    pub(crate) binding: Binding,
    version: u64,
    /// Names it in documents.
    number: u64,
    timer: Option<TimerId>,
    /// The connection of its REGISTER, while that stands; 0 for datagrams.
    connection: Option<u64>,
}

impl Bound {
    /// The Contact as a URI.
    pub(crate) fn contact(&self) -> Option<Uri> {
        self.binding.contact.expose().parse().ok()
    }

    /// Where requests to it go: the flow of its REGISTER. A phone without outbound (RFC 5626) may listen on
    /// another port of the same host than it registered from; its Contact says where. A connection that is gone
    /// leads nowhere: who comes from that address next is somebody else (RFC 5626 §5.3).
    pub(crate) fn peer(&self) -> Option<Peer> {
        let flow = self.binding.flow;
        if self.is_of_core() {
            return Some(flow);
        }
        let reliable = flow.transport.is_reliable();
        if self.connection.is_some() && (reliable || self.binding.reg_id.is_some()) {
            return Some(flow);
        }
        let named = sip::hop::target_of(&self.contact()?).and_then(|target| target.peer());
        let there = named.filter(|p| p.transport == flow.transport && p.addr.ip() == flow.addr.ip());
        if reliable {
            return there.filter(|p| *p != flow && self.binding.reg_id.is_none());
        }
        Some(there.unwrap_or(flow))
    }

    /// It is known by an S-CSCF's word, and reached through that (see `third_party`).
    pub(crate) fn is_of_core(&self) -> bool {
        self.binding.reg_id == Some(OF_CORE)
    }

    /// Its features, `+sip.instance` not among them (RFC 3840 §9).
    pub(crate) fn features(&self) -> FeatureSet {
        FeatureSet::parse(&self.binding.features)
    }

    /// True for a flow of that device.
    pub(crate) fn is_of(&self, instance: Option<&str>) -> bool {
        let own = self.binding.instance.as_ref().map(|i| i.expose().as_str());
        matches!((own, instance), (Some(own), Some(other)) if cpm::feature::same_instance(own, other))
    }

    /// True for a GRUU's `gr` parameter that means this device.
    pub(crate) fn is_instance(&self, gr: &str) -> bool {
        let own = self.binding.instance.as_ref().map(|i| i.expose().as_str());
        own.is_some_and(|own| cpm::feature::same_instance(own, &format!("<{gr}>")))
    }

    /// The device's public GRUU (RFC 5627 §3.2): the address of record with the instance as `gr`.
    pub(crate) fn gruu(&self) -> Option<Uri> {
        let mut uri: Uri = self.binding.aor.expose().parse().ok()?;
        let urn = self.binding.instance.as_ref()?.expose().trim_matches(['<', '>']).to_owned();
        if !uri.is_sip() {
            return None;
        }
        uri.params.set("gr", Some(&urn));
        Some(uri)
    }

    /// Its name in documents; never another one's.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// True until it ends.
    pub(crate) fn is_live(&self, now: UnixTime) -> bool {
        self.binding.expires > now
    }
}

/// All bindings of one lane.
#[derive(Debug)]
pub(crate) struct Bindings {
    users: Map<UserId, Vec<Bound>>,
    total: usize,
    /// The bindings that stand on a connection.
    flows: Map<u64, Vec<(UserId, String)>>,
    /// Whose have changed in this turn, and what went.
    changed: Vec<(UserId, Option<cpm::reginfo::Contact>)>,
}

/// A binding's key. Instances of `urn:uuid:` compare without case (RFC 4122 §3), others as they are
/// (CPM-FACTS §2.8).
pub(crate) fn key_of(user: &UserId, contact: &Uri, instance: Option<&str>, reg_id: Option<u32>) -> String {
    match instance {
        Some(instance) => {
            let uuid = instance.get(..10).is_some_and(|p| p.eq_ignore_ascii_case("<urn:uuid:"));
            let instance = if uuid { instance.to_ascii_lowercase() } else { instance.to_owned() };
            format!("{}|{instance}|{}", user.as_str(), reg_id.unwrap_or(0))
        }
        None => format!("{}|{contact}", user.as_str()),
    }
}

impl Bindings {
    pub(crate) fn new(desk: &Desk) -> Self {
        Bindings { users: map(desk.seed), total: 0, flows: map(desk.seed), changed: Vec::new() }
    }

    /// What has happened since this was asked last.
    pub(crate) fn take_changed(&mut self) -> Vec<(UserId, Option<cpm::reginfo::Contact>)> {
        std::mem::take(&mut self.changed)
    }

    /// How many there are, dead ones that wait for their timer included.
    pub(crate) fn len(&self) -> usize {
        self.total
    }

    /// A user's live bindings, oldest first.
    pub(crate) fn live(&self, user: &UserId, now: UnixTime) -> impl Iterator<Item = &Bound> {
        self.all(user).iter().filter(move |b| b.is_live(now))
    }

    /// A user's bindings.
    pub(crate) fn all(&self, user: &UserId) -> &[Bound] {
        self.users.get(user).map_or(&[], Vec::as_slice)
    }

    /// The binding of that key.
    pub(crate) fn by_key(&self, user: &UserId, key: &str) -> Option<&Bound> {
        self.all(user).iter().find(|b| b.key == key)
    }

    /// The user's live binding whose flow that is, where flows are believed: who speaks there is the user.
    pub(crate) fn by_flow(&self, turn: &Turn<'_>, user: &UserId, source: &Source) -> Option<&Bound> {
        let Source::Network { peer, connection, .. } = source else { return None };
        let is_its = |b: &&Bound| match turn.config().identity.registered_flow_suffices {
            FlowTrust::Never => false,
            FlowTrust::Connections => peer.transport.is_reliable() && b.connection == Some(*connection),
            FlowTrust::Always => true,
        };
        self.live(user, turn.now.wall).filter(|b| b.binding.flow == *peer).find(is_its)
    }

    /// The flows of a connection end with it.
    pub(crate) fn disconnected(&mut self, connection: u64) {
        for (user, key) in self.flows.remove(&connection).unwrap_or_default() {
            let list = self.users.get_mut(&user).map_or(&mut [][..], Vec::as_mut_slice);
            for bound in list.iter_mut().filter(|b| b.key == key && b.connection == Some(connection)) {
                bound.connection = None;
            }
        }
    }

    /// Puts a binding, in place of an equal one (same key, or an equivalent Contact URI without an instance).
    pub(crate) fn put(&mut self, turn: &mut Turn<'_>, key: String, binding: Binding, connection: u64) {
        let user = binding.user.clone();
        if connection != 0 {
            let on_it = self.flows.entry(connection).or_default();
            if !on_it.iter().any(|(_, known)| *known == key) {
                on_it.push((user.clone(), key.clone()));
            }
        }
        let alive = binding.expires.since(turn.now.wall);
        let list = self.users.entry(user.clone()).or_default();
        let at = match list.iter().position(|b| b.key == key) {
            Some(at) => at,
            None => {
                list.push(Bound {
                    key: key.clone(),
                    binding: binding.clone(),
                    version: 0,
                    number: turn.desk.serial(),
                    timer: None,
                    connection: None,
                });
                self.total += 1;
                list.len() - 1
            }
        };
        let Some(bound) = list.get_mut(at) else { return };
        turn.unwake(&mut bound.timer);
        bound.timer = turn.wake_in(alive, Wake::Binding(user.clone(), key.clone()));
        bound.version += 1;
        bound.binding = binding;
        bound.connection = Some(connection);
        self.changed.push((user.clone(), None));
        turn.put_row(Row {
            key: Key::new(Table::Binding, key),
            lane: LaneKey::of_user(&user),
            version: bound.version,
            columns: Columns { owner: Private::new(user.as_str().to_owned()), ..Columns::default() },
            record: Record::Binding(bound.binding.clone()),
        });
    }

    /// Removes a binding, for a reason in the words of RFC 3680 §5.3.2.
    pub(crate) fn remove(&mut self, turn: &mut Turn<'_>, user: &UserId, key: &str, why: &str) {
        let Some(list) = self.users.get_mut(user) else { return };
        let Some(at) = list.iter().position(|b| b.key == key) else { return };
        let mut gone = list.remove(at);
        let last = super::notifier::contact_of(&gone, turn.now.wall, Some(why));
        self.changed.push((user.clone(), Some(last)));
        if let Some(on_it) = gone.connection.and_then(|connection| self.flows.get_mut(&connection)) {
            on_it.retain(|(_, known)| *known != gone.key);
        }
        if list.is_empty() {
            self.users.remove(user);
        }
        self.total -= 1;
        turn.unwake(&mut gone.timer);
        turn.remove_row(Key::new(Table::Binding, gone.key));
    }

    /// A binding's timer fired: it goes if it is over.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, user: &UserId, key: &str) {
        let now = turn.now.wall;
        match self.by_key(user, key) {
            Some(bound) if !bound.is_live(now) => self.remove(turn, user, key, "expired"),
            Some(bound) => {
                // The wall clock was set back: sleep for what is left.
                let left = bound.binding.expires.since(now);
                let timer = turn.wake_in(left, Wake::Binding(user.clone(), key.to_owned()));
                if let Some(b) = self.users.get_mut(user).and_then(|l| l.iter_mut().find(|b| b.key == key)) {
                    b.timer = timer;
                }
            }
            None => {}
        }
    }

    /// Back from the store; a dead one is removed there too.
    pub(crate) fn restore(&mut self, turn: &mut Turn<'_>, key: String, version: u64, binding: Binding) {
        if binding.expires <= turn.now.wall {
            turn.remove_row(Key::new(Table::Binding, key));
            return;
        }
        let user = binding.user.clone();
        let alive = binding.expires.since(turn.now.wall);
        let timer = turn.wake_in(alive, Wake::Binding(user.clone(), key.clone()));
        // No connection has outlived the process.
        let lost = binding.flow.transport.is_reliable()
            && turn.config().identity.registered_flow_suffices != FlowTrust::Always;
        let connection = (!lost).then_some(0);
        let number = turn.desk.serial();
        let bound = Bound { key, binding, version, number, timer, connection };
        self.users.entry(user).or_default().push(bound);
        self.total += 1;
    }
}
