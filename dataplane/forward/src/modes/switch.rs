//! `switch`: the MSRP room (RFC 7701), each message judged in the order of CPM-FACTS §3.8. Recipients are frozen at
//! the first chunk; the switch is the endpoint that answers and reports; recipients' reports end here.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Instant;
use bytes::Bytes;
use cpm::UserId;
use cpm::cpim::{Address, Progress};
use msrp::{Head, Status, Tid};

use crate::Drop;
use crate::message::chunk::{Judged, Verdict};
use crate::message::{Copy, CopyStage, Far, Holds, Lead, Message, Passage};

/// One room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    addresses: Vec<String>,
    users: Vec<UserId>,
    private_messages: bool,
    pub(crate) nicknames: bool,
    nickname_required: bool,
    max_size: u64,
    pub(crate) members: Vec<u32>,
    /// Members on other shards.
    away: Vec<Away>,
    /// The same by shard, in the order of their ids.
    shards: Vec<(u16, Arc<[u64]>)>,
}

/// A leg on another shard, as control put it.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    pub(crate) shard: u16,
    pub(crate) leg: Arc<contract::Leg>,
    /// Legs whose place it has taken lately: its shard may not know yet that it has.
    pub(crate) formerly: Vec<u64>,
}

/// By shard, each in the order of ids.
pub(crate) fn by_shard<'a>(away: impl Iterator<Item = &'a Away>) -> Vec<(u16, Arc<[u64]>)> {
    let mut shards: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for Away { shard, leg, formerly } in away {
        let names = shards.entry(*shard).or_default();
        names.push(leg.id);
        names.extend(formerly);
    }
    let sorted = |mut legs: Vec<u64>| {
        legs.sort_unstable();
        legs.into()
    };
    shards.into_iter().map(|(shard, legs)| (shard, sorted(legs))).collect()
}

impl Room {
    pub(crate) fn set(&mut self, switch: &contract::Switch, members: Vec<u32>, away: Vec<Away>) {
        self.shards = by_shard(away.iter());
        self.away = away;
        self.addresses.clone_from(&switch.room);
        self.users = switch.room.iter().filter_map(|a| UserId::parse(a).ok()).collect();
        self.private_messages = switch.private_messages;
        self.nicknames = switch.nicknames;
        self.nickname_required = switch.nickname_required;
        self.max_size = switch.max_size;
        self.members = members;
    }

    /// The room itself, or nobody in particular: RCS group chats write anonymous.invalid (step 5).
    fn is_addressed(&self, uri: &str) -> bool {
        match UserId::parse(uri) {
            Ok(user) => user.is_anonymous() || self.users.contains(&user),
            Err(_) => self.addresses.iter().any(|a| cpm::address::uri_of(a) == uri),
        }
    }
}

/// A message begins: step 2, and the size that is announced. Step 1 is `arrive::session`.
pub(crate) fn begin(
    message: &mut Message,
    source: u32,
    room: u32,
    head: &Head,
    tid: Tid,
    until: Instant,
) -> Verdict {
    let refuse = |status| Verdict::Refuse(status, Drop::MsrpRefused);
    let Some(room) = message.rooms.get(room as usize) else { return refuse(Status::FORBIDDEN) };
    let size_max = if room.max_size == 0 { message.limits.message_bytes_max } else { room.max_size };
    if !head.content_type().is_some_and(|t| cpm::media_type::is(t, cpm::media_type::CPIM)) {
        return refuse(Status::UNSUPPORTED_TYPE);
    }
    let range = head.byte_range().unwrap_or(msrp::ByteRange::OPEN);
    if range.total.is_some_and(|total| total > size_max) {
        return refuse(Status::STOP);
    }
    if range.start != 1 {
        // The rest of a message whose beginning never came, or whose end did: nobody gets a tail (step 8).
        return Verdict::Refuse(Status::BAD_REQUEST, Drop::MsrpStray);
    }
    let id = message.number();
    let mut p = Box::new(Passage::new(id, head.clone(), tid, until));
    p.room = true;
    p.size_max = size_max;
    p.holds = Holds::Recipients;
    // Two senders may use one id: what recipients see is ours.
    p.show_as(message.entropy.token(100));
    if let Some(row) = message.row_mut(source) {
        row.passages.push(p);
    }
    Verdict::Take(id)
}

/// The CPIM headers, as far as they came, and of an IMDN all of it. Gives what goes out first. `whole`: no more octets
/// will come.
pub(crate) fn decide(
    message: &mut Message,
    source: u32,
    p: &mut Passage,
    whole: bool,
) -> Result<Judged, Status> {
    let too_much = p.held.len() > message.cpm.xml_octets_max.min(message.limits.cpim_bytes_max * 4);
    let (judged, is_imdn) = judge(message, source, p)?;
    if matches!(judged, Judged::More) && whole {
        return Err(Status::BAD_REQUEST);
    }
    if !is_imdn || too_much {
        return Ok(judged);
    }
    if !whole {
        p.holds = Holds::Whole;
        return Ok(Judged::More);
    }
    // CPM-FACTS §2.11, REQ-PF-17: each thing once from a recipient, whichever of his sessions says it.
    if passes(message, source, p)? { Ok(judged) } else { Ok(Judged::Swallow) }
}

/// Whether an IMDN is the first of its disposition from its participant. One in another's name is refused.
fn passes(message: &mut Message, source: u32, p: &Passage) -> Result<bool, Status> {
    let Ok(Progress::Done(head)) = cpm::cpim::Head::parse(&p.held, &message.cpm) else { return Ok(true) };
    let body = p.held.get(head.body_offset()..).unwrap_or_default();
    let Ok(imdn) = cpm::imdn::Imdn::read(body, &message.cpm) else { return Ok(true) };
    let Some(row) = message.row(source) else { return Ok(true) };
    let Lead::Room(room) = row.lead else { return Ok(true) };
    let Some(room) = message.rooms.get(room as usize) else { return Ok(true) };
    // Step 4 for the body of a notification (CPM-FACTS §2.11): who received is not for a device to choose. What was
    // sent to the room may name the room.
    let may_name = |uri: &str| row.is_user(uri) || room.is_addressed(uri);
    if imdn.recipient.as_ref().is_some_and(|(recipient, _)| !may_name(recipient)) {
        return Err(Status::FORBIDDEN);
    }
    let members = room.members.as_slice();
    let of_sender =
        |leg: &&u32| **leg == source || message.row(**leg).is_some_and(|other| row.is_sibling(other));
    let sessions = members.iter().filter(of_sender).count().max(1);
    let whose = if row.participant.is_empty() { format!("{}", row.key.leg) } else { row.participant.clone() };
    let context = row.key.context;
    Ok(message.memory(context).pass(&whose, &imdn, sessions))
}

/// Steps 3 to 6, 8, 9 and 12; and whether it is an IMDN.
fn judge(message: &Message, source: u32, p: &mut Passage) -> Result<(Judged, bool), Status> {
    let head = match cpm::cpim::Head::parse(&p.held, &message.cpm) {
        Ok(Progress::Done(head)) => head,
        Ok(Progress::More) => return Ok((Judged::More, false)),
        Err(cpm::Error::TooLarge(_)) => return Err(Status::STOP),
        Err(_) => return Err(Status::BAD_REQUEST),
    };
    let row = message.row(source).ok_or(Status::NO_SESSION)?;
    let Lead::Room(room) = row.lead else { return Err(Status::FORBIDDEN) };
    let room = message.rooms.get(room as usize).ok_or(Status::FORBIDDEN)?;
    // Step 4: nobody speaks in another's name.
    let from = head.from().map_err(|_| Status::BAD_REQUEST)?;
    if !row.is_user(&from.uri) {
        return Err(Status::FORBIDDEN);
    }
    // Step 5.
    let to = head.only_to().map_err(|error| match error {
        cpm::Error::Repeated(_) => Status::FORBIDDEN,
        _ => Status::BAD_REQUEST,
    })?;
    let inner = head.content_type();
    let (recipients, elsewhere) = if room.is_addressed(&to.uri) {
        (room.members.clone(), room.shards.clone())
    } else {
        private_recipients(message, room, &to.uri, inner)?
    };
    // Step 6. Directions and muting are for what is said, not for dispositions (CPM-FACTS §3.4).
    let is_imdn = cpm::media_type::is(inner, cpm::media_type::IMDN);
    let nameless = room.nickname_required && row.nickname.is_empty();
    if (row.muted || !row.may_send || nameless) && !is_imdn {
        return Err(Status::FORBIDDEN);
    }
    let kind = Kind { inner, is_imdn, total: p.total };
    let others = recipients.iter().filter(|leg| **leg != source);
    p.copies = others.filter_map(|leg| copy_for(message, *leg, &kind)).collect();
    // Each of the other shards looks at its own members in the same way (see `message::across`).
    p.far = Far::new(inner, is_imdn, elsewhere, row.far_taps());
    // The first address is how others see the participant.
    match row.addresses.first() {
        Some(shown) if !is_same(shown, &from.uri) => {
            let shown = Address::uri(cpm::address::uri_of(shown));
            let mut first = head.with_from(&p.held, &shown).map_err(|_| Status::BAD_REQUEST)?;
            first.extend_from_slice(p.held.get(head.body_offset()..).unwrap_or_default());
            Ok((Judged::Go(first.into()), is_imdn))
        }
        _ => Ok((Judged::Go(Bytes::copy_from_slice(&p.held)), is_imdn)),
    }
}

/// What decides who takes a message.
pub(crate) struct Kind<'a> {
    pub(crate) inner: &'a str,
    pub(crate) is_imdn: bool,
    pub(crate) total: Option<u64>,
}

/// The copy of a message to a member, if he takes it: steps 8 and 9.
pub(crate) fn copy_for(message: &Message, leg: u32, kind: &Kind<'_>) -> Option<Copy> {
    let target = message.row(leg)?;
    let conn = target.conn().and_then(|conn| message.conns.get(&conn));
    let stage = match conn {
        Some(conn) if conn.congested.is_none() && !target.is_backed_up() => CopyStage::Live,
        // Who has joined shall have it when his connection is there, there again, or has room.
        _ if target.joined => CopyStage::Held,
        _ => return None,
    };
    let fits = target.max_size == 0 || kind.total.is_none_or(|total| total <= target.max_size);
    let takes = (target.may_receive || kind.is_imdn)
        && fits
        && target.accepts(cpm::media_type::CPIM)
        && target.accepts(kind.inner);
    takes.then_some(Copy {
        leg,
        serial: target.serial,
        stage,
        begun: false,
        unsure: false,
        only_imdn: false,
        own: false,
    })
}

fn is_same(a: &str, b: &str) -> bool {
    match (UserId::parse(a), UserId::parse(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => cpm::address::uri_of(a) == b,
    }
}

/// Legs here, and by shard those elsewhere.
type Recipients = (Vec<u32>, Vec<(u16, Arc<[u64]>)>);

/// A private message goes to that participant's sessions alone, and never to the room instead (RFC 7701 §6.2).
fn private_recipients(message: &Message, room: &Room, to: &str, inner: &str) -> Result<Recipients, Status> {
    let user = UserId::parse(to).ok();
    let is_theirs = |leg: &&u32| message.row(**leg).is_some_and(|row| row.is_one(to, user.as_ref()));
    let theirs: Vec<u32> = room.members.iter().filter(is_theirs).copied().collect();
    let away: Vec<&Away> = room.away.iter().filter(|away| away.is_user(to, user.as_ref())).collect();
    if theirs.is_empty() && away.is_empty() {
        return Err(Status::NOT_FOUND);
    }
    // A disposition goes to whom it is for, whatever the room allows.
    if cpm::media_type::is(inner, cpm::media_type::IMDN) {
        return Ok((theirs, by_shard(away.into_iter())));
    }
    let declared: Vec<u32> =
        theirs.into_iter().filter(|leg| message.row(*leg).is_some_and(|row| row.private)).collect();
    let away = by_shard(away.into_iter().filter(|away| away.takes_private()));
    if !room.private_messages || (declared.is_empty() && away.is_empty()) {
        return Err(Status::NO_PRIVATE_MESSAGES);
    }
    Ok((declared, away))
}

impl Away {
    fn msrp(&self) -> Option<&contract::MsrpLeg> {
        match &self.leg.kind {
            Some(contract::leg::Kind::Msrp(msrp)) => Some(msrp),
            _ => None,
        }
    }

    /// See `Row::is_user`.
    fn is_user(&self, uri: &str, user: Option<&UserId>) -> bool {
        let addresses = self.msrp().map(|msrp| msrp.addresses.as_slice()).unwrap_or_default();
        match user {
            Some(user) => addresses.iter().any(|a| UserId::parse(a).is_ok_and(|a| a == *user)),
            None => addresses.iter().any(|a| cpm::address::uri_of(a) == uri),
        }
    }

    fn takes_private(&self) -> bool {
        self.msrp().is_some_and(|msrp| msrp.private_messages)
    }
}
