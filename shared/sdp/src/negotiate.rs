//! What an offer and its answer come to, and whether they fit.

use crate::{Body, MediaLine, SdpError, Session, Setup};

/// Which end of a message line opens the connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Opens it and sends a SEND at once (RFC 4975 §5.4).
    Active,
    /// Waits for it.
    Passive,
}

/// The role of the offerer of a message line; the answerer has the other one. An answer without a=setup comes
/// from a peer that knows RFC 4975 alone: the offerer connects (RFC 6135 §4.2.2, RFC 4975 §5.4).
pub fn message_role(offer: &MediaLine, answer: &MediaLine) -> Role {
    if answer.setup == Some(Setup::Active) && offer.setup.is_some() { Role::Passive } else { Role::Active }
}

impl Role {
    /// The other end's.
    pub const fn other(self) -> Role {
        match self {
            Role::Active => Role::Passive,
            Role::Passive => Role::Active,
        }
    }
}

/// Whether an answer fits its offer (RFC 3264 §6): the same number of lines, each of the offer's kind and
/// transport, refused where the offer is, with formats that were offered.
pub fn check_answer(offer: &Session, answer: &Session) -> Result<(), SdpError> {
    if offer.lines.len() != answer.lines.len() {
        return Err(SdpError::Mismatch);
    }
    for (offered, answered) in offer.lines.iter().zip(&answer.lines) {
        if offered.kind != answered.kind {
            return Err(SdpError::Mismatch);
        }
        if answered.is_refused() {
            continue;
        }
        if offered.is_refused() || !same_transport(offered, answered) {
            return Err(SdpError::Mismatch);
        }
        check_formats(offered, answered)?;
    }
    Ok(())
}

/// RTP/AVP answered by RTP/AVPF and the like happens; RTP answered by MSRP, or plain by secure, does not.
fn same_transport(offered: &MediaLine, answered: &MediaLine) -> bool {
    offered.proto.is_rtp() == answered.proto.is_rtp()
        && offered.proto.is_msrp() == answered.proto.is_msrp()
        && offered.proto.is_secure() == answered.proto.is_secure()
}

/// At least one format of an answer is the offer's. Payload types may differ by direction (RFC 3264 §6.1), the
/// codec may not.
fn check_formats(offered: &MediaLine, answered: &MediaLine) -> Result<(), SdpError> {
    let (Body::Rtp(offered), Body::Rtp(answered)) = (&offered.body, &answered.body) else { return Ok(()) };
    let shared = answered.formats.iter().any(|a| {
        let same = |o: &crate::Format| {
            o.codec.matches(&a.codec) || (o.payload == a.payload && o.codec.name.is_empty())
        };
        offered.formats.iter().any(same)
    });
    if shared { Ok(()) } else { Err(SdpError::FormatNotOffered) }
}

/// Whether a later offer fits what stood before (RFC 3264 §8): lines are never taken away and keep their place;
/// a place whose line was refused may be used for another kind (§8.1, §8.3).
pub fn check_next_offer(before: &Session, offer: &Session) -> Result<(), SdpError> {
    if offer.lines.len() < before.lines.len() {
        return Err(SdpError::Mismatch);
    }
    let fits =
        |(old, new): (&MediaLine, &MediaLine)| old.kind == new.kind || old.is_refused() || new.is_refused();
    if before.lines.iter().zip(&offer.lines).all(fits) { Ok(()) } else { Err(SdpError::Mismatch) }
}
