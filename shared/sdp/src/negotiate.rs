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
        check_crypto(offered, answered)?;
        check_dtls(answered)?;
    }
    Ok(())
}

/// RFC 4568 §5.1.3: the answer has exactly one key, under the tag and suite of an offered line.
fn check_crypto(offered: &MediaLine, answered: &MediaLine) -> Result<(), SdpError> {
    let (true, Some(offered), Some(answered)) = (answered.proto.is_sdes(), offered.rtp(), answered.rtp())
    else {
        return Ok(());
    };
    let fits = match answered.crypto.as_slice() {
        [one] => offered.crypto.iter().any(|o| o.tag == one.tag && o.suite == one.suite),
        _ => false,
    };
    if fits { Ok(()) } else { Err(SdpError::Mismatch) }
}

/// RFC 5763 §5, RFC 8122 §5: the answer names the certificate that will be shown; and RTCP shares the port, for one
/// handshake.
fn check_dtls(answered: &MediaLine) -> Result<(), SdpError> {
    let names =
        || !answered.sha256_fingerprints().is_empty() && answered.rtp().is_some_and(|rtp| rtp.rtcp_mux);
    if !answered.proto.is_dtls() || names() { Ok(()) } else { Err(SdpError::Mismatch) }
}

/// RTP/AVP answered by RTP/AVPF and the like happens; RTP answered by MSRP, or plain by secure, does not.
fn same_transport(offered: &MediaLine, answered: &MediaLine) -> bool {
    offered.proto.is_rtp() == answered.proto.is_rtp()
        && offered.proto.is_msrp() == answered.proto.is_msrp()
        && offered.proto.is_secure() == answered.proto.is_secure()
        && offered.proto.is_dtls() == answered.proto.is_dtls()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    fn session(lines: &str) -> Session {
        let text = format!("v=0\no=- 7 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\n{lines}");
        Session::parse(text.as_bytes(), &Limits::default()).unwrap()
    }

    const AUDIO: &str = "m=audio 9 RTP/AVP 96\na=rtpmap:96 opus/48000/2\n";
    const VIDEO: &str = "m=video 9 RTP/AVP 99\na=rtpmap:99 VP8/90000\n";

    #[test]
    fn rfc3264_s6_answers_that_do_not_fit() {
        let offer = session(&format!("{AUDIO}{VIDEO}m=audio 0 RTP/AVP 0\n"));
        let refused = "m=video 0 RTP/AVP 99\nm=audio 0 RTP/AVP 0\n";
        for (answer, verdict) in [
            (format!("{AUDIO}{refused}"), Ok(())),
            // Another payload type for the same codec is legal (§6.1).
            (format!("m=audio 9 RTP/AVP 97\na=rtpmap:97 OPUS/48000/2\n{refused}"), Ok(())),
            (AUDIO.to_owned(), Err(SdpError::Mismatch)),
            (format!("{AUDIO}{refused}{VIDEO}"), Err(SdpError::Mismatch)),
            (format!("{VIDEO}{AUDIO}m=audio 0 RTP/AVP 0\n"), Err(SdpError::Mismatch)),
            (format!("{AUDIO}m=video 0 RTP/AVP 99\nm=audio 9 RTP/AVP 0\n"), Err(SdpError::Mismatch)),
            (format!("m=audio 9 RTP/SAVP 96\na=rtpmap:96 opus/48000/2\n{refused}"), Err(SdpError::Mismatch)),
            (format!("m=audio 9 RTP/AVP 0\n{refused}"), Err(SdpError::FormatNotOffered)),
        ] {
            assert_eq!(check_answer(&offer, &session(&answer)), verdict, "{answer}");
        }
    }

    #[test]
    fn rfc3264_s8_lines_keep_their_place() {
        let before = session(&format!("{AUDIO}m=video 0 RTP/AVP 99\n"));
        let application = "m=application 9 UDP/BFCP *\n";
        for (offer, verdict) in [
            (format!("{AUDIO}{VIDEO}{application}"), Ok(())),
            (format!("{AUDIO}{application}"), Ok(())),
            (format!("{VIDEO}m=video 0 RTP/AVP 99\n"), Err(SdpError::Mismatch)),
            (AUDIO.to_owned(), Err(SdpError::Mismatch)),
        ] {
            assert_eq!(check_next_offer(&before, &session(&offer)), verdict, "{offer}");
        }
    }

    #[test]
    fn rfc6135_s4_2_who_connects() {
        let line = |setup: &str| {
            let setup = if setup.is_empty() { String::new() } else { format!("a=setup:{setup}\n") };
            let text = format!("m=message 9 TCP/MSRP *\na=path:msrp://a:9/b;tcp\na=accept-types:*\n{setup}");
            session(&text).lines.swap_remove(0)
        };
        for (offer, answer, role) in [
            ("actpass", "passive", Role::Active),
            ("actpass", "active", Role::Passive),
            ("active", "passive", Role::Active),
            ("actpass", "", Role::Active),
            ("", "", Role::Active),
        ] {
            assert_eq!(message_role(&line(offer), &line(answer)), role, "{offer} {answer}");
        }
    }
}
