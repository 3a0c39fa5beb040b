//! `relay` and `distribute`, MSRP: a session of our own on each side (CPM-FACTS §3.6, B2BUA). Chunks pass as they
//! come; Message-ID is kept of one sender towards each target, and replaced where others may use the same; 200 goes hop by hop by
//! Failure-Report, REPORTs end to end.

use base::Instant;
use bytes::Bytes;
use msrp::{Head, Status, Tid};

use crate::Drop;
use crate::message::chunk::{Judged, Verdict};
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
    let Some(row) = message.row(source) else { return Verdict::Wait };
    let is_cpim = head.content_type().is_some_and(|t| cpm::media_type::is(t, cpm::media_type::CPIM));
    // Directions and muting are for content: an IMDN passes all the same (CPM-FACTS §3.4).
    let silent = !row.may_send || row.muted;
    let mut judge = silent || row.imdn_once > 0;
    let sender = row;
    if silent && !is_cpim {
        return Verdict::Refuse(Status::FORBIDDEN, Drop::MsrpRefused);
    }
    let known = head.byte_range().and_then(|r| r.total);
    let (mut copies, mut coming, mut unknown, mut held, mut too_large) =
        (Vec::new(), false, false, false, false);
    let is_nobody = |copies: &[Copy]| copies.iter().all(|copy| copy.own);
    let others = |leg: &&u32| message.row(**leg).is_some_and(|row| !row.is_sibling(sender));
    let alone = targets.iter().filter(others).count() == 1;
    for target in targets {
        let Some(row) = message.row(*target) else { continue };
        let own = row.is_sibling(sender);
        match row.stage {
            _ if !row.may_receive && !is_cpim => held = true,
            Stage::Bound(conn) => {
                let congested = message.conns.get(&conn).is_some_and(|c| c.congested.is_some());
                if row.max_size > 0 && known.is_some_and(|total| total > row.max_size) {
                    too_large = true;
                } else if !congested || (alone && !own) {
                    // What was said before waits, so that the others need not: this waits behind it.
                    let waits = (own || !alone) && row.is_spilling();
                    let stage = if waits { CopyStage::Held } else { CopyStage::Live };
                    let only_imdn = !row.may_receive;
                    judge |= only_imdn;
                    copies.push(Copy {
                        leg: *target,
                        serial: row.serial,
                        stage,
                        begun: false,
                        unsure: false,
                        only_imdn,
                        own,
                    });
                }
            }
            // Nobody waits for his own other devices.
            _ if own => {}
            Stage::Listening(_) | Stage::Dialing => coming = true,
            Stage::New => unknown = true,
            Stage::Lost => {}
        }
    }
    // A target whose connection is on its way is waited for; one whose peer nobody knows yet only if it is the only
    // kind there is.
    if coming || (is_nobody(&copies) && unknown) {
        return Verdict::Wait;
    }
    if is_nobody(&copies) {
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
    let renames = message.row(source).is_some_and(|row| row.renames);
    if renames || copies.iter().any(|copy| is_used(message, copy.leg, p.tags.shown, &p.shown_id)) {
        p.show_as(message.entropy.token(100));
    }
    p.copies = copies;
    let Some(row) = message.row_mut(source) else { return Verdict::Wait };
    p.only_imdn = silent;
    // What does not begin at its beginning cannot be judged; where it need not be, it is content.
    let begins = head.byte_range().is_none_or(|range| range.start == 1);
    if judge && is_cpim && (begins || p.must_be_judged()) {
        p.holds = Holds::Kind;
    }
    row.passages.push(p);
    Verdict::Take(id)
}

/// Whether a Message-ID is in use towards a target.
fn is_used(message: &Message, target: u32, tag: u32, id: &str) -> bool {
    let Some(row) = message.row(target) else { return false };
    let goes = |p: &Passage| {
        p.copies.iter().any(|c| c.leg == target && c.serial == row.serial && !c.stage.is_over())
    };
    let members = message.members.get(&row.key.context).map(Vec::as_slice).unwrap_or_default();
    let mut sources = members.iter().filter_map(|source| message.row(*source));
    row.expects.iter().any(|e| e.is_of(tag, id))
        || sources.any(|source| source.passages.shown(tag, id).any(goes))
}

/// What is held of a CPIM message may be an IMDN. That passes where content may not; and of those from several
/// devices only the first of each disposition passes. `whole`: no more octets will come.
pub(crate) fn decide(
    message: &mut Message,
    source: u32,
    p: &mut Passage,
    whole: bool,
) -> Result<Judged, Status> {
    let too_much = p.held.len() > message.cpm.xml_octets_max.min(message.limits.cpim_bytes_max * 4);
    let head = match cpm::cpim::Head::parse(&p.held, &message.cpm) {
        Ok(cpm::cpim::Progress::Done(head)) => head,
        Ok(cpm::cpim::Progress::More) if !whole && !too_much => return Ok(Judged::More),
        // What cannot be read is passed on as content: its receiver judges it.
        _ => return content(p),
    };
    if !cpm::media_type::is(head.content_type(), cpm::media_type::IMDN) {
        return content(p);
    }
    let all = Ok(Judged::Go(Bytes::copy_from_slice(&p.held)));
    let Some(row) = message.row(source).filter(|row| row.imdn_once > 0 && !too_much) else { return all };
    let (context, leg, devices, each) = (row.key.context, row.key.leg, row.imdn_once, row.imdn_each);
    if !whole {
        p.holds = Holds::Whole;
        return Ok(Judged::More);
    }
    let body = p.held.get(head.body_offset()..).unwrap_or_default();
    let Ok(imdn) = cpm::imdn::Imdn::read(body, &message.cpm) else { return all };
    let whose = match head.from() {
        Ok(from) if each => {
            let recipient = imdn.recipient.as_ref().map_or("", |(uri, _)| uri.as_str());
            format!("{leg}\n{}\n{recipient}", from.uri)
        }
        _ => String::new(),
    };
    if message.memory(context).pass(&whose, &imdn, devices) { all } else { Ok(Judged::Swallow) }
}

/// It is content: it goes where content may go.
fn content(p: &mut Passage) -> Result<Judged, Status> {
    p.copies.retain(|copy| !copy.only_imdn);
    if p.only_imdn || p.copies.iter().all(|copy| copy.own) {
        return Err(Status::FORBIDDEN);
    }
    Ok(Judged::Go(Bytes::copy_from_slice(&p.held)))
}
