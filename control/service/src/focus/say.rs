//! The words of a focus: requests and answers that it writes (CPM-FACTS §2.6, §2.7).

use bytes::Bytes;
use cpm::feature::Service;
use cpm::media_type;
use cpm::resource_lists::{Copy, Entry, ResourceList};
use sip::multipart::Part;
use sip::{Headers, Method, Name, Request, Response, Uri};

use super::call::Call;
use super::conference::Conference;
use super::roster::MemberId;
use crate::supported;
use crate::turn::Turn;
use crate::{Config, Route, UserId};

/// "127": neither allowed to start nor to join (CPM-FACTS §2.7).
pub(crate) const NOT_AUTHORISED: &str = "127 Service not authorised";
/// More than fit.
pub(crate) const TOO_MANY: &str = "102 Too many participants";
/// A file above the limit.
pub(crate) const TOO_LARGE: &str = "133 Size exceeded";
/// Who asks to stay unnamed must not be named: refused where we cannot keep it.
pub(crate) const NO_ANONYMITY: &str = "119 Anonymity not allowed";
/// The group is closed, or only an administrator may.
pub(crate) const NOT_ALLOWED: &str = "100 Function not allowed due to group policy";

/// The end of the group: not to be restarted by clients (CPM-FACTS §2.6).
pub(crate) const GONE: &str = "SIP;cause=410;text=\"Gone\"";
/// A member was removed, or has another session.
pub(crate) const COMPLETED: &str = "SIP;cause=200;text=\"Call completed\"";
/// Nobody says anything.
pub(crate) const INACTIVE: &str = "SIP;cause=408;text=\"Inactivity\"";

/// The SDP part or the list of a body, by media type.
pub(crate) fn part(headers: &Headers, body: &Bytes, wanted: &str) -> Option<Bytes> {
    let kind = headers.typed::<sip::typed::ContentType>().ok().flatten()?.0;
    if kind.is(wanted) {
        return Some(body.clone());
    }
    if kind.kind.eq_ignore_ascii_case("multipart") {
        let parts = sip::multipart::parse(&kind, body, &sip::Limits::default()).ok()?;
        let is = |p: &&Part| {
            p.headers.typed::<sip::typed::ContentType>().ok().flatten().is_some_and(|k| k.is(wanted))
        };
        return parts.iter().find(is).map(|p| p.body.clone());
    }
    None
}

/// The one who sent a request, as far as the trust domain vouches for it: user, address, name.
pub(crate) fn sender(request: &Request) -> Option<(UserId, String, String)> {
    let mut identities = request.headers.all::<sip::typed::PAssertedIdentity>().ok()?;
    // RFC 3325 §9.1: a SIP and a tel URI may stand together; they are one user's.
    let at = identities.iter().position(|i| i.uri.is_sip()).unwrap_or(0);
    let address = if identities.is_empty() { request.from().ok()?.0 } else { identities.swap_remove(at).0 };
    let uri = address.uri.to_string();
    let user = UserId::parse(&uri).ok()?;
    Some((user, uri, address.display.unwrap_or_default()))
}

/// Every address that a request says is its sender's.
pub(crate) fn sender_addresses(request: &Request) -> Vec<String> {
    let asserted = request.headers.all::<sip::typed::PAssertedIdentity>().unwrap_or_default();
    let from = request.from().ok().map(|f| f.uri.to_string());
    asserted.iter().map(|a| a.uri.to_string()).chain(from).collect()
}

/// RFC 3323 §4.2, RFC 3325 §9.3: the sender wants to stay unnamed.
pub(crate) fn wants_privacy(request: &Request) -> bool {
    let asked = request
        .headers
        .values(&Name::Privacy)
        .flat_map(|v| v.split(|b| *b == b';'))
        .any(|v| [&b"id"[..], b"user", b"header"].iter().any(|p| v.trim_ascii().eq_ignore_ascii_case(p)));
    let anonymous = request.from().is_ok_and(|f| cpm::address::is_anonymous(&f.uri.to_string()));
    asked || anonymous
}

impl Conference {
    /// The INVITE to a member (CPM-FACTS §2.6 "Conference factory"), with our offer in it.
    pub(crate) fn invitation(
        &self,
        turn: &mut Turn<'_>,
        call: &Call,
        member: MemberId,
        sdp: Bytes,
    ) -> Option<Request> {
        let it = self.roster.get(member)?;
        let target = Uri::parse(it.address.expose().as_bytes()).ok()?;
        let own = self.uri(turn.config());
        let mut request = Request::new(Method::Invite, target);
        let h = &mut request.headers;
        h.push(Name::MaxForwards, "70");
        h.push(Name::From, format!("<{own}>;tag={}", call.tag));
        h.push(Name::To, format!("<{}>", it.address.expose()));
        let call_id = turn.token();
        h.push(Name::CallId, format!("{call_id}@{}", turn.config().domain()));
        h.push(Name::CSeq, "1 INVITE");
        h.push(Name::Contact, self.contact(turn.config(), &call.route));
        h.push(Name::PAssertedIdentity, format!("<{own}>"));
        h.push(Name::PAssertedService, Service::SessionGroup.urn());
        h.push(Name::AcceptContact, Service::SessionGroup.accept_contact());
        h.push(Name::ConversationId, &self.conversation);
        h.push(Name::ContributionId, &self.contribution);
        if let Some(by) = &it.referred_by {
            h.push(Name::ReferredBy, format!("<{}>", by.expose()));
        }
        if let Some(replaced) = &it.session_replaces {
            h.push(Name::SessionReplaces, replaced);
        }
        if !self.subject.is_empty() {
            h.push(Name::Subject, &self.subject);
        }
        h.push(Name::Allow, supported::ALLOW);
        h.push(Name::AllowEvents, "conference, refer");
        self.put_bodies(turn, &mut request, member, sdp);
        Some(request)
    }

    /// SDP, and the others who are invited (RFC 5364 §5): nobody who was blind-copied, not the invitee.
    fn put_bodies(&self, turn: &mut Turn<'_>, request: &mut Request, invitee: MemberId, sdp: Bytes) {
        let others = self.roster.iter().filter(|(id, m)| *id != invitee && m.named && m.is_expected());
        let entries: Vec<Entry> =
            others.map(|(_, m)| Entry { copy: Copy::To, ..Entry::new(m.user.as_str()) }).collect();
        if entries.is_empty() {
            request.set_body(media_type::SDP, sdp);
            return;
        }
        let list = ResourceList { entries, references: 0 }.write();
        let mut offer = Part::new(media_type::SDP, sdp);
        offer.headers.push(Name::ContentDisposition, "session");
        let mut history = Part::new(media_type::RESOURCE_LISTS, list);
        history.headers.push(Name::ContentDisposition, "recipient-list-history; handling=optional");
        let boundary = turn.token();
        let (kind, body) = sip::multipart::build("mixed", &[offer, history], &boundary);
        request.set_body(&kind, body);
    }

    /// What every 2xx of the focus to an INVITE says.
    pub(crate) fn dress(&self, config: &Config, route: &Route, tag: &str, response: &mut Response) {
        response.set_to_tag(tag);
        response.headers.set(Name::Contact, self.contact(config, route));
        response.headers.set(Name::Allow, supported::ALLOW);
        response.headers.set(Name::AllowEvents, "conference, refer");
        response.headers.set(Name::PAssertedIdentity, format!("<{}>", self.uri(config)));
        response.headers.set(Name::ConversationId, &self.conversation);
        response.headers.set(Name::ContributionId, &self.contribution);
    }
}
