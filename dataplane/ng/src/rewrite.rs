//! A description as the other side gets it: our addresses and ports, everything else as it came.

use sdp::{Anchor, Host, MediaLine, RtpAnchor, Session};

use crate::call::{Call, is_relayed};
use crate::flags::Flags;

/// What stands at the session level and speaks of the peer's own transport.
const OF_THE_HOP: [&str; 5] = ["ice-ufrag", "ice-pwd", "ice-options", "ice-lite", "ice-pacing"];

/// A description of one side as the side `to` gets it; an error is the reason that the peer is told.
pub(crate) fn towards(
    to: usize,
    session: &Session,
    call: &Call,
    flags: &Flags,
    is_answer: bool,
) -> Result<Vec<u8>, &'static str> {
    let mut ours = session.clone();
    // RFC 9143 §7.3.3: every line has a port of its own here.
    ours.groups.retain(|group| !group.semantics.eq_ignore_ascii_case("BUNDLE"));
    ours.others.retain(|attribute| !OF_THE_HOP.contains(&attribute.name.as_str()));
    let mut first = None;
    for (index, line) in ours.lines.iter_mut().enumerate() {
        if is_relayed(line) {
            match anchored(to, index, line, call, flags, is_answer)? {
                Some(new) => {
                    first = first.or_else(|| new.host.clone());
                    *line = new;
                }
                // An answer to a line that was not offered.
                None => *line = line.refused(),
            }
        }
    }
    let Some(host) = first else { return Ok(ours.to_bytes().to_vec()) };
    if flags.replace_session && ours.host.is_some() {
        ours.host = Some(host.clone());
    }
    if flags.replace_origin {
        ours.origin.host = host;
    }
    Ok(ours.to_bytes().to_vec())
}

fn anchored(
    to: usize,
    index: usize,
    line: &MediaLine,
    call: &Call,
    flags: &Flags,
    is_answer: bool,
) -> Result<Option<MediaLine>, &'static str> {
    let Some(Some(known)) = call.lines.get(index) else { return Ok(None) };
    let end = known.end(to);
    let local = end.placed.as_ref().ok_or("No port")?;
    let at = local.advertised.as_ref().or(local.bound.as_ref()).and_then(contract::Address::socket);
    let at = at.ok_or("No address")?;
    let rtcp = u16::try_from(local.rtcp_port).ok().filter(|port| Some(*port) != at.port().checked_add(1));
    let asked = line.rtp().is_some_and(|rtp| rtp.rtcp_mux);
    let anchor = RtpAnchor {
        host: Host::from(call.side(to).address.unwrap_or(at.ip())),
        port: at.port(),
        rtcp_mux: if is_answer { end.mux } else { flags.mux_offer || (asked && !flags.mux_remove) },
        rtcp_port: rtcp,
        crypto: end.own.clone(),
        dtls: None,
    };
    let mut new = line.anchored(&Anchor::Rtp(anchor)).ok_or("A line that is none")?;
    new.proto = end.proto.clone();
    if let sdp::Body::Rtp(rtp) = &mut new.body {
        if !is_answer && !flags.strip.is_empty() {
            rtp.retain(|format| !flags.strips(&format.codec.name));
            if rtp.formats.is_empty() {
                return Err("No codec is left");
            }
        }
        if matches!(new.proto, sdp::Proto::RtpAvp | sdp::Proto::RtpSavp) {
            // RFC 4585 §4: feedback is for the profiles with an F.
            rtp.feedback.clear();
        }
    }
    Ok(Some(new))
}
