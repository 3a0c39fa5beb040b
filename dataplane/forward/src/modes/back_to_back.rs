//! `relay` and `distribute`, MSRP: a session of our own on each side (CPM-FACTS §3.6, B2BUA). Chunks pass as they
//! come; Message-ID is kept unless two senders use the same towards one target; 200 goes hop by hop by
//! Failure-Report, REPORTs end to end.

use base::Instant;
use bytes::Bytes;
use msrp::{Head, Status, Tid};

use crate::Drop;
use crate::message::chunk::Verdict;
use crate::message::{Copy, CopyStage, Holds, Message, Passage, Stage};

/// A message begins.
pub(crate) fn begin(
    message: &mut Message,
    source: u32,
    targets: &[u32],
    head: &Head,
    tid: Tid,
    until: Instant,
) -> Verdict {
    let (mut copies, mut coming, mut unknown, mut held) = (Vec::new(), false, false, false);
    let known = head.byte_range().and_then(|r| r.total);
    let mut too_large = false;
    for target in targets {
        let Some(row) = message.row(*target) else { continue };
        match row.stage {
            _ if !row.may_receive => held = true,
            Stage::Bound(conn) => {
                let congested = message.conns.get(&conn).is_some_and(|c| c.congested.is_some());
                if row.max_size > 0 && known.is_some_and(|total| total > row.max_size) {
                    too_large = true;
                } else if !congested || targets.len() == 1 {
                    copies.push(Copy {
                        leg: *target,
                        serial: row.serial,
                        stage: CopyStage::Live,
                        begun: false,
                    });
                }
            }
            Stage::Listening(_) | Stage::Dialing => coming = true,
            Stage::New => unknown = true,
            Stage::Lost => {}
        }
    }
    // A target whose connection is on its way is waited for; one whose peer nobody knows yet only if it is the only
    // kind there is.
    if coming || (copies.is_empty() && unknown) {
        return Verdict::Wait;
    }
    if copies.is_empty() {
        return match (too_large, held) {
            // The far leg's max-size is respected (CPM-FACTS §3.6).
            (true, _) => Verdict::Refuse(Status::STOP, Drop::MsrpRefused),
            (false, true) => Verdict::Refuse(Status::FORBIDDEN, Drop::MsrpRefused),
            (false, false) => Verdict::Refuse(Status::TIMEOUT, Drop::MsrpNoTarget),
        };
    }
    let id = message.number();
    let mut p = Box::new(Passage::new(id, head.clone(), tid, until));
    p.size_max = message.limits.message_bytes_max;
    if copies.iter().any(|copy| is_used(message, copy.leg, &p.shown_id)) {
        p.shown_id = message.entropy.token(100);
    }
    p.copies = copies;
    let Some(row) = message.row_mut(source) else { return Verdict::Wait };
    let is_cpim = head.content_type().is_some_and(|t| cpm::media_type::is(t, cpm::media_type::CPIM));
    if row.imdn_once && is_cpim {
        p.holds = Holds::Kind;
    }
    row.passages.push(p);
    Verdict::Take(id)
}

/// Whether a Message-ID is in use towards a target.
fn is_used(message: &Message, target: u32, id: &str) -> bool {
    let expected = message.row(target).is_some_and(|row| row.expects.iter().any(|e| e.message_id == id));
    expected
        || message.copies_to(target).into_iter().any(|(source, passage)| {
            let passages = message.row(source).map(|row| row.passages.as_slice()).unwrap_or_default();
            passages.iter().any(|p| p.id == passage && p.shown_id == id)
        })
}

/// What is held of a message from one of several devices may be an IMDN: of those only the first of each
/// disposition passes. Gives the octets that may go out now; `whole` says that no more will come, and then `None`
/// that none shall go out at all.
pub(crate) fn decide(message: &mut Message, source: u32, p: &mut Passage, whole: bool) -> Option<Bytes> {
    let all = |p: &Passage| Some(Bytes::copy_from_slice(&p.held));
    let too_much = p.held.len() > message.cpm.xml_octets_max.min(message.limits.cpim_bytes_max * 4);
    let head = match cpm::cpim::Head::parse(&p.held, &message.cpm) {
        Ok(cpm::cpim::Progress::Done(head)) => head,
        Ok(cpm::cpim::Progress::More) if !whole && !too_much => return None,
        // What cannot be read is passed on: its receiver judges it.
        _ => return all(p),
    };
    if !cpm::media_type::is(head.content_type(), cpm::media_type::IMDN) || too_much {
        return all(p);
    }
    if !whole {
        p.holds = Holds::Whole;
        return None;
    }
    let body = p.held.get(head.body_offset()..).unwrap_or_default();
    let Ok(imdn) = cpm::imdn::Imdn::read(body, &message.cpm) else { return all(p) };
    let Some(row) = message.row(source) else { return all(p) };
    let context = row.key.context;
    let members = message.members.get(&context).map(Vec::as_slice).unwrap_or_default();
    let devices = members.iter().filter(|leg| message.row(**leg).is_some_and(|row| row.imdn_once)).count();
    if message.memory(context).pass(&imdn, devices) { all(p) } else { None }
}
