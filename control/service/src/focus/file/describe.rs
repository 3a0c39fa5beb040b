//! Session descriptions of a file for a group (RFC 5547 §6, §8; CPM-FACTS §2.4 "File transfer over MSRP").
//!
//! What names the file passes as it was written; the MSRP ends are ours. One file for each session: a second line that
//! offers one is refused by port 0, and its sender sends it by itself.

use bytes::Bytes;
use contract::{Leg, MsrpLeg, MsrpLocal, leg};
use sdp::{
    Accept, AcceptBody, AcceptMessage, Body, Choice, Direction, File, Fingerprint, Host, Kind, MediaLine,
    Message, Origin, Proto, Session, Setup,
};

use crate::media::Anchor;

/// Octets `first` to `last` of a file, from 1; `None`: to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) last: Option<u64>,
}

impl Span {
    /// All of it.
    pub(super) const WHOLE: Span = Span { first: 1, last: None };

    /// RFC 5547 §6, `file-range`: start "-" stop, where the stop may be `*`.
    pub(super) fn parse(text: &str) -> Option<Span> {
        let (first, last) = text.trim().split_once('-')?;
        let first: u64 = first.trim().parse().ok()?;
        let last = match last.trim() {
            "*" => None,
            last => Some(last.parse::<u64>().ok()?),
        };
        (first > 0 && last.is_none_or(|last| last >= first)).then_some(Span { first, last })
    }

    /// What of `wanted` is in here; `None` when nothing is.
    pub(super) fn within(self, wanted: Span) -> Option<Span> {
        let first = self.first.max(wanted.first);
        let last = match (self.last, wanted.last) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        last.is_none_or(|last| last >= first).then_some(Span { first, last })
    }

    /// The least that holds both.
    pub(super) fn hull(self, other: Span) -> Span {
        let last = match (self.last, other.last) {
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        };
        Span { first: self.first.min(other.first), last }
    }

    /// How many octets of a file of that size.
    pub(super) fn octets(self, size: u64) -> u64 {
        let last = self.last.unwrap_or(size).min(size);
        last.saturating_add(1).saturating_sub(self.first)
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.last {
            Some(last) => write!(f, "{}-{last}", self.first),
            None => write!(f, "{}-*", self.first),
        }
    }
}

/// What a sender offers.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    session: Session,
    at: usize,
    line: MediaLine,
    message: Message,
    file: File,
    pub(super) span: Span,
}

impl Offered {
    /// Whether a description is about files and nothing else.
    pub(super) fn is_one(session: &Session) -> bool {
        let mut used = session.lines.iter().filter(|line| !line.is_refused()).peekable();
        used.peek().is_some() && used.all(|line| line.message().is_some_and(|m| m.file.is_some()))
    }

    /// Reads an offer. An error is a SIP status.
    pub(super) fn read(session: Session) -> Result<Offered, u16> {
        let fits = |line: &MediaLine| {
            // RFC 5547 §8.2: who sends it says `sendonly`. A group has no file that could be fetched.
            !line.is_refused() && line.proto.is_msrp() && line.effective_direction() == Direction::SendOnly
        };
        let at = session.lines.iter().position(fits).ok_or(488_u16)?;
        let line = session.lines.get(at).cloned().ok_or(488_u16)?;
        let message = line.message().cloned().ok_or(488_u16)?;
        let file = message.file.clone().filter(|file| file.selector.is_some()).ok_or(488_u16)?;
        let span = file.range.as_deref().map_or(Some(Span::WHOLE), Span::parse).ok_or(400_u16)?;
        Ok(Offered { session, at, line, message, file, span })
    }

    /// The offer as it came.
    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    /// Octets of the whole file, where the selector says it.
    pub(super) fn size(&self) -> Option<u64> {
        self.file.size()
    }

    /// The line that offers the file.
    pub(super) const fn line(&self) -> &MediaLine {
        &self.line
    }

    /// True for MSRP over TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.line.proto == Proto::MsrpTls
    }

    /// Our end is the one that connects (RFC 6135 §4.2.2: we wait where it is left to us).
    pub(super) fn makes_us_active(&self) -> bool {
        Setup::answered(self.line.setup, true) == Some(Setup::Active)
    }

    /// A later description of the same dialog that says the same: RFC 5547 §8.1, the same file-transfer-id is the same
    /// transfer and begins nothing.
    pub(super) fn is_repeated_by(&self, session: &Session) -> bool {
        let message = session.lines.get(self.at).and_then(MediaLine::message);
        let id = |file: &File| file.transfer_id.clone();
        session.lines.len() == self.session.lines.len()
            && message.is_some_and(|m| {
                m.path == self.message.path && m.file.as_ref().is_some_and(|file| id(file) == id(&self.file))
            })
    }

    /// What a member is offered (RFC 5547 §8.2): the same file, from our end.
    pub(super) fn pass_on(
        &self,
        local: &MsrpLocal,
        fingerprint: Option<[u8; 32]>,
        fresh: Origin,
    ) -> Option<Session> {
        let addr = local.advertised.as_ref()?.socket()?;
        let theirs = &self.message;
        let body = Message {
            path: local.path.clone(),
            accept_types: theirs.accept_types.clone(),
            accept_wrapped_types: theirs.accept_wrapped_types.clone(),
            max_size: theirs.max_size,
            cema: true,
            chatroom: None,
            file: Some(self.file.clone()),
        };
        let mut line =
            MediaLine::new(Kind::Message, addr.port(), self.line.proto.clone(), Body::Message(body));
        line.host = Some(Host::Ip(addr.ip()));
        line.direction = Direction::SendOnly;
        // Never passive in an offer (RFC 6135 §4.2).
        line.setup = Some(Setup::ActPass);
        line.fingerprints = self.fingerprints(fingerprint);
        let host = Host::Ip(addr.ip());
        let mut offer = Session::new(Origin { host: host.clone(), ..fresh });
        offer.host = Some(host);
        Some(offer.with(line))
    }

    /// What a member's answer comes to; the error is the status that it counts as.
    pub(super) fn taken(&self, offer: &Session, answer: &Session) -> Result<Taken, u16> {
        sdp::check_answer(offer, answer).map_err(|_| 488_u16)?;
        let line = answer.lines.first().ok_or(488_u16)?;
        // RFC 5547 §8.3.1: port 0 declines the file.
        if line.is_refused() {
            return Err(603);
        }
        let message = line.message().ok_or(488_u16)?;
        if !matches!(line.effective_direction(), Direction::RecvOnly | Direction::SendRecv) {
            return Err(488);
        }
        // RFC 5547 §8.3: an answer that does not repeat the selector is from somebody who knows nothing of files; one
        // with another transfer or another digest is about another file.
        let file = message.file.as_ref().ok_or(488_u16)?;
        let selector = file.selector.as_deref().ok_or(488_u16)?;
        let same_id = file.transfer_id.is_none() || file.transfer_id == self.file.transfer_id;
        let digests = digest(selector).zip(self.file.selector.as_deref().and_then(digest));
        if !same_id || digests.is_some_and(|(theirs, ours)| !theirs.eq_ignore_ascii_case(ours)) {
            return Err(488);
        }
        let wanted = file.range.as_deref().map_or(Some(Span::WHOLE), Span::parse).ok_or(488_u16)?;
        let span = self.span.within(wanted).ok_or(488_u16)?;
        let octets = self.size().map(|size| span.octets(size));
        if octets.zip(message.max_size).is_some_and(|(octets, max)| octets > max) {
            return Err(413);
        }
        Ok(Taken { line: line.clone(), span, types: message.accept_types.clone() })
    }

    /// What the sender is answered (RFC 5547 §8.3): selector and file-transfer-id repeated, `recvonly`, every other line
    /// refused. `span`: what the members want of it.
    pub(super) fn answer(&self, ours: Ours<'_>, fresh: Origin) -> Option<Session> {
        let addr = ours.local.advertised.as_ref()?.socket()?;
        let host = Host::Ip(addr.ip());
        let accept = || Accept {
            host: Some(host.clone()),
            port: addr.port(),
            direction: Direction::SendRecv,
            fingerprints: self.fingerprints(ours.fingerprint),
            label: None,
            body: AcceptBody::Message(AcceptMessage {
                path: ours.local.path.clone(),
                reachable: true,
                accept_types: ours.types.clone(),
                accept_wrapped_types: self.message.accept_wrapped_types.clone(),
                max_size: ours.max_size,
                cema: true,
                chatroom: None,
            }),
        };
        let choose = |at: usize, _: &MediaLine| {
            if at == self.at { Choice::accept(accept()) } else { Choice::Refuse }
        };
        let mut answer =
            sdp::answer(&self.session, Origin { host: host.clone(), ..fresh }, host.clone(), choose);
        let range = (self.file.range.is_some() || ours.span != Span::WHOLE).then(|| ours.span.to_string());
        if let Some(line) = answer.lines.get_mut(self.at)
            && let Body::Message(message) = &mut line.body
            && let Some(file) = &mut message.file
        {
            file.range = range;
        }
        Some(answer)
    }

    fn fingerprints(&self, fingerprint: Option<[u8; 32]>) -> Vec<Fingerprint> {
        fingerprint.filter(|_| self.is_tls()).map(Fingerprint::sha256).into_iter().collect()
    }
}

/// Our end towards the sender.
pub(super) struct Ours<'a> {
    pub(super) local: &'a MsrpLocal,
    pub(super) fingerprint: Option<[u8; 32]>,
    pub(super) types: Vec<String>,
    pub(super) max_size: Option<u64>,
    pub(super) span: Span,
}

/// A member takes the file.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) line: MediaLine,
    pub(super) span: Span,
    pub(super) types: Vec<String>,
}

/// The types in which all of them take it, out of the sender's own.
pub(super) fn common_types<'a>(offered: &Offered, takers: impl Iterator<Item = &'a Taken>) -> Vec<String> {
    let mut takers = takers.map(|taken| &taken.types).peekable();
    let own = &offered.message.accept_types;
    let any = own.iter().any(|t| t == "*");
    let first = if any { takers.peek().map_or(own, |types| *types) } else { own };
    let mut common = first.clone();
    for types in takers {
        common.retain(|t| types.iter().any(|theirs| theirs == "*" || theirs.eq_ignore_ascii_case(t)));
    }
    if common.is_empty() { own.clone() } else { common }
}

/// The digest that a selector names.
fn digest(selector: &str) -> Option<&str> {
    // The name is quoted and may hold anything.
    let outside = selector.split('"').step_by(2);
    outside.flat_map(str::split_whitespace).find_map(|part| part.strip_prefix("hash:"))
}

/// A leg whose peer is not known yet. Content comes from the sender only.
pub(super) fn new_leg(anchor: &mut Anchor, offered: &Offered, participant: &str, sends: bool) -> u64 {
    let id = anchor.draw_leg();
    let direction = if sends { contract::Direction::Sendonly } else { contract::Direction::Recvonly };
    let kind = MsrpLeg { local: Some(MsrpLocal::default()), tls: offered.is_tls(), ..MsrpLeg::default() };
    anchor.put_leg(Leg {
        id,
        context: anchor.id(),
        media: "msrp".to_owned(),
        direction: direction.into(),
        participant: participant.to_owned(),
        kind: Some(leg::Kind::Msrp(kind)),
        ..Leg::default()
    });
    id
}

/// The local end of a leg, once the data plane has said where it is.
pub(super) fn local_of(leg: &Leg) -> Option<&MsrpLocal> {
    match &leg.kind {
        Some(leg::Kind::Msrp(msrp)) => msrp.local.as_ref().filter(|local| !local.path.is_empty()),
        _ => None,
    }
}

/// Files in the SDP of an INVITE, or `None` when it is about something else.
pub(super) fn session_in(config: &crate::Config, headers: &sip::Headers, body: &Bytes) -> Option<Session> {
    let octets = crate::body::sdp_in(headers, body).filter(|octets| !octets.is_empty())?;
    crate::media::read(config, &octets).ok().filter(Offered::is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 5547 §6: start and stop, from 1, the stop open or not before the start.
    #[test]
    fn rfc5547_s6_ranges() {
        let span = |first, last| Some(Span { first, last });
        for (text, read) in [
            ("1-*", span(1, None)),
            ("524288001-*", span(524_288_001, None)),
            (" 5 - 5 ", span(5, Some(5))),
            ("0-9", None),
            ("9-8", None),
            ("*-9", None),
            ("9", None),
            ("1-18446744073709551616", None),
        ] {
            assert_eq!(Span::parse(text), read, "{text}");
        }
        let wide = Span { first: 100, last: None };
        assert_eq!(wide.within(Span { first: 1, last: Some(99) }), None);
        assert_eq!(wide.within(Span { first: 1, last: Some(100) }), span(100, Some(100)));
        assert_eq!(wide.hull(Span { first: 7, last: Some(9) }), Span { first: 7, last: None });
        assert_eq!((wide.octets(1000), Span { first: 1001, last: None }.octets(1000)), (901, 0));
    }

    #[test]
    fn a_digest_is_found_beside_a_name_that_looks_like_one() {
        let selector = "name:\"my hash:sha-1:00 file\" type:image/jpeg size:4 hash:sha-1:72:24";
        assert_eq!(digest(selector), Some("sha-1:72:24"));
        assert_eq!(digest("name:\"hash:x\" size:4"), None);
    }
}
