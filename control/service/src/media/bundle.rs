//! Lines of a peer on one transport (RFC 9143): the legs of those that it bundles ride on the leg of one of them.
//!
//! ```text
//!   peer offers:  share (its bundle, of what we take) ──▶ write: our answer names the same lines, its tagged one first
//!   we offer:     write (each line with a port of its own) ··· the answer: share (what it bundles rides from now on)
//! ```
//!
//! The transport is that of the leg that was the first to carry others: when its line ends, it stays as a transport alone for
//! as long as others ride on it ([`Anchor::remove_leg`]), and the tagged line of our descriptions speaks for it.

use contract::{Bundle, Leg, RtpLeg, RtpLocal, leg};
use sdp::{Extension, MediaLine, Session};

use super::{Anchor, webrtc};

/// RFC 8285 §4.2: what a packet has room for. A line whose name is longer has a transport of its own.
const MID_MAX: usize = 16;
/// SSRCs of one line that the data plane is told.
const SSRCS_MAX: usize = 32;

/// A leg over RTP.
pub(crate) fn rtp(leg: &Leg) -> Option<&RtpLeg> {
    match &leg.kind {
        Some(leg::Kind::Rtp(rtp)) => Some(rtp),
        _ => None,
    }
}

/// What a leg has to do with others' transports.
pub(crate) fn of(leg: &Leg) -> Option<&Bundle> {
    rtp(leg)?.bundle.as_deref()
}

/// The leg on whose transport a leg rides.
pub(crate) fn rides_on(leg: &Leg) -> Option<u64> {
    of(leg).map(|bundle| bundle.carrier).filter(|carrier| *carrier != 0)
}

/// True for a leg that is a transport alone: its line has ended.
pub(crate) fn is_bare(leg: &Leg) -> bool {
    of(leg).is_some_and(|bundle| bundle.carrier == 0 && bundle.mid.is_empty())
}

/// Whether a line may be one of a bundle.
fn fits(line: &MediaLine) -> bool {
    line.proto.is_dtls()
        && !line.is_refused()
        && line.mid.as_ref().is_some_and(|mid| (1..=MID_MAX).contains(&mid.len()))
}

/// Puts into a side's legs what its peer's description, read whole, says of its bundle. `legs`: by line, 0 for none.
/// `renew` puts what the tagged line says of ICE and certificates into the leg that carries.
pub(crate) fn share(
    anchor: &mut Anchor,
    theirs: &Session,
    legs: &[u64],
    renew: impl FnOnce(&mut Leg, usize),
) {
    let leg_of = |at: usize| legs.get(at).copied().filter(|id| *id != 0);
    let speaks = |anchor: &Anchor, id: u64| {
        anchor.leg(id).is_some_and(|leg| webrtc::is_dtls(leg) || rides_on(leg).is_some())
    };
    let members: Vec<(usize, u64)> = theirs
        .bundle()
        .into_iter()
        .filter(|at| theirs.lines.get(*at).is_some_and(fits))
        .filter_map(|at| Some((at, leg_of(at)?)))
        .filter(|(_, id)| speaks(anchor, *id))
        .collect();
    let alone = |id: &u64| !members.iter().any(|(_, member)| member == id);
    for (_, id) in theirs.lines.iter().zip(legs).filter(|(line, id)| !line.is_refused() && alone(id)) {
        leave(anchor, *id);
    }
    let Some((tagged, first)) = members.first().copied() else { return };
    // What the side has is kept, also for lines that are new to it.
    let known = members.iter().map(|(_, id)| id).chain(legs).find_map(|id| {
        let leg = anchor.leg(*id)?;
        of(leg)?;
        rides_on(leg).or(Some(*id)).filter(|carrier| anchor.leg(*carrier).is_some())
    });
    let carrier = known.unwrap_or(first);
    anchor.change_leg(carrier, |leg| renew(leg, tagged));
    for (at, id) in &members {
        let Some(line) = theirs.lines.get(*at) else { continue };
        let mid_id = line.mid_extension().filter(|id| (1..=255).contains(id)).map_or(0, u32::from);
        let bundle = Bundle {
            carrier: if *id == carrier { 0 } else { carrier },
            mid: line.mid.clone().unwrap_or_default(),
            mid_id,
            ssrcs: line.ssrcs().into_iter().take(SSRCS_MAX).collect(),
            // RFC 9143 §15: who agreed to it looks for it, and may look at nothing else.
            writes_mid: mid_id != 0,
            payloads: line
                .rtp()
                .map(|rtp| rtp.formats.iter().map(|f| f.payload.into()).collect())
                .unwrap_or_default(),
        };
        anchor.change_leg(*id, |leg| board(leg, bundle));
    }
}

/// A leg shares a transport.
fn board(leg: &mut Leg, bundle: Bundle) {
    let Some(leg::Kind::Rtp(own)) = &mut leg.kind else { return };
    if bundle.carrier != 0 {
        if own.bundle.as_ref().is_none_or(|old| old.carrier != bundle.carrier) {
            own.local = Some(RtpLocal::default());
        }
        (own.dtls, own.ice, own.srtp, own.continuity) = (None, None, None, None);
        (own.remote, own.remote_rtcp, own.rtcp_mux) = (None, None, true);
    }
    own.bundle = Some(Box::new(bundle));
}

/// A leg whose line is of no bundle has a transport of its own. One that carries others stays what it is.
fn leave(anchor: &mut Anchor, id: u64) {
    if anchor.leg(id).and_then(of).is_none() || anchor.carries(id) {
        return;
    }
    let carrier = anchor.leg(id).and_then(rides_on);
    anchor.change_leg(id, |leg| {
        if let Some(leg::Kind::Rtp(own)) = &mut leg.kind
            && let Some(bundle) = own.bundle.take()
            && bundle.carrier != 0
        {
            own.local = Some(RtpLocal::default());
        }
    });
    let is_left = |carrier: &u64| anchor.leg(*carrier).is_some_and(is_bare) && !anchor.carries(*carrier);
    if let Some(bare) = carrier.filter(is_left) {
        anchor.remove_leg(bare);
    }
}

/// True when a line can be no line of its own: others ride on its leg, and its peer has taken it out of the bundle.
pub(crate) fn is_torn(anchor: &Anchor, theirs: &Session, at: usize, id: u64) -> bool {
    anchor.carries(id) && !theirs.bundle().contains(&at)
}

/// Names the bundle in a description of ours: in an answer the lines of the offer's, without those that are refused or have a
/// transport of their own; in an offer every line that can be one of it, those that are already first.
pub(crate) fn write(anchor: &Anchor, ours: &mut Session, legs: &[u64], answering: Option<&Session>) {
    let leg = |at: usize| legs.get(at).and_then(|id| anchor.leg(*id));
    let shares = |at: usize| leg(at).is_some_and(|leg| of(leg).is_some());
    let used = |ours: &Session, at: usize| ours.lines.get(at).is_some_and(fits);
    let places: Vec<usize> = match answering {
        Some(offer) => offer.bundle().into_iter().filter(|at| used(ours, *at) && shares(*at)).collect(),
        None => {
            let mut all: Vec<usize> = (0..ours.lines.len()).filter(|at| used(ours, *at)).collect();
            all.sort_by_key(|at| !shares(*at));
            all
        }
    };
    ours.write_bundle(&places, shares);
    // RFC 9143 §15: what we write into packets is agreed, and stays so in offers of ours.
    for at in places {
        let agreed = leg(at).and_then(of).filter(|bundle| bundle.writes_mid);
        let Some(id) = agreed.and_then(|bundle| u16::try_from(bundle.mid_id).ok()) else { continue };
        if let Some(line) = ours.lines.get_mut(at)
            && line.mid_extension().is_none()
            && let sdp::Body::Rtp(rtp) = &mut line.body
            && rtp.extensions.iter().all(|extension| extension.id != id)
        {
            let uri = sdp::MID_URI.to_owned();
            rtp.extensions.push(Extension { id, direction: None, uri, parameters: None });
        }
    }
}
