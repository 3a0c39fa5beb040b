//! Legs on one transport (RFC 9143), checked when a batch is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::leg::Kind;

use super::{Wanted, bundle_of, rides_on};
use crate::media::{ANNOUNCED_MAX, BUNDLE_LEGS_MAX, MID_MAX};

/// Gives each leg that rides on another one's transport that one's place; or says what is wrong.
pub(super) fn place_riders(wanted: &mut Wanted) -> Result<(), &'static str> {
    let mut mids: BTreeMap<u64, (usize, BTreeSet<String>)> = BTreeMap::new();
    let mut places = Vec::new();
    for leg in wanted.legs.values() {
        let (Some(Kind::Rtp(rtp)), Some(bundle)) = (&leg.kind, bundle_of(leg)) else { continue };
        if !is_sound(bundle) {
            return Err("a bundled line whose MID, payload types or SSRCs cannot be");
        }
        let carrier = rides_on(leg).unwrap_or(leg.id);
        let (count, mids) = mids.entry(carrier).or_default();
        *count += 1;
        if *count > BUNDLE_LEGS_MAX || !(bundle.mid.is_empty() || mids.insert(bundle.mid.clone())) {
            return Err("too many lines on one transport, or two of the same MID");
        }
        if carrier == leg.id {
            if rtp.dtls.is_none() || bundle.carrier != 0 {
                return Err("a transport to share without a handshake");
            }
            continue;
        }
        if rtp.dtls.is_some() || rtp.ice.is_some() || rtp.srtp.is_some() || !rtp.rtcp_mux {
            return Err("keys, ICE or a port for RTCP of a leg that rides on another one's transport");
        }
        let on = wanted.legs.get(&carrier).filter(|on| bundle_of(on).is_some_and(|b| b.carrier == 0));
        match on.map(|on| &on.kind) {
            Some(Some(Kind::Rtp(on))) => places.push((leg.id, on.local.clone())),
            _ => return Err("a leg that rides on one that is not there, or shares nothing"),
        }
    }
    for (id, local) in places {
        let Some(leg) = wanted.legs.get_mut(&id) else { continue };
        let differs = |rtp: &contract::RtpLeg| rtp.local != local;
        if matches!(&leg.kind, Some(Kind::Rtp(rtp)) if differs(rtp))
            && let Some(Kind::Rtp(rtp)) = &mut Arc::make_mut(leg).kind
        {
            rtp.local = local;
        }
    }
    Ok(())
}

fn is_sound(bundle: &contract::Bundle) -> bool {
    // RFC 8866 §9: token, which is what a=mid is (RFC 5888 §4).
    let is_token = bundle.mid.bytes().all(|c| c.is_ascii_graphic());
    bundle.mid.len() <= MID_MAX
        && is_token
        && bundle.mid_id <= 255
        && bundle.ssrcs.len() <= ANNOUNCED_MAX
        && bundle.payloads.len() <= 128
        && bundle.payloads.iter().all(|payload| *payload < 128)
        && (!bundle.writes_mid || (bundle.mid_id != 0 && !bundle.mid.is_empty()))
}
