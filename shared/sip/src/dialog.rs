//! Dialogs (RFC 3261 §12): what both ends remember of each other. Plain data: a row in a store.
//!
//! ```text
//!   uac(INVITE, 1xx with tag) ------> Early --2xx (update)--> Confirmed
//!   uac(INVITE, 2xx) / uas(INVITE, answer) -----------------> Confirmed
//!   in-dialog request: accept() checks CSeq and refreshes the target (§12.2.2)
//! ```

use serde::{Deserialize, Serialize};

use crate::hop::{Target, target_of};
use crate::message::{Request, Response};
use crate::method::Method;
use crate::name::Name;
use crate::typed::{BadHeader, CSeq, Contact, From, NameAddr, RecordRoute, To};
use crate::uri::Uri;

/// What names a dialog (§12): Call-ID and both tags.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DialogId {
    /// Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The peer's tag; empty for a peer of RFC 2543 (§12.1.1).
    pub remote_tag: String,
}

impl DialogId {
    /// Of a request that arrived inside a dialog; `None` without a To tag.
    pub fn of_request(request: &Request) -> Option<DialogId> {
        Some(DialogId {
            call_id: request.call_id()?.to_owned(),
            local_tag: request.to_tag()?,
            remote_tag: request.from_tag().unwrap_or_default(),
        })
    }

    /// Of a response to a request of ours; `None` without a To tag.
    pub fn of_response(response: &Response) -> Option<DialogId> {
        let from = response.headers.typed::<From>().ok()??;
        Some(DialogId {
            call_id: response.headers.text(&Name::CallId)?.to_owned(),
            local_tag: from.tag().unwrap_or_default().to_owned(),
            remote_tag: response.to_tag()?,
        })
    }
}

/// How far a dialog is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Made by a provisional response.
    Early,
    /// Made or confirmed by a 2xx.
    Confirmed,
}

/// One end of a dialog.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dialog {
    /// Its name.
    pub id: DialogId,
    /// Early or confirmed.
    pub phase: Phase,
    /// We sent the request that made it.
    pub is_caller: bool,
    /// Our address, with our tag.
    pub local: NameAddr,
    /// The peer's address, with its tag.
    pub remote: NameAddr,
    /// Where requests are addressed: the peer's latest Contact.
    pub remote_target: Uri,
    /// The routes that requests take, nearest first.
    pub route_set: Vec<Uri>,
    /// The CSeq number of our latest request; `None` before the first.
    pub local_seq: Option<u32>,
    /// The CSeq number of the peer's latest request; `None` before the first.
    pub remote_seq: Option<u32>,
    /// The request that made it came for a sips URI over TLS (§12.1).
    pub is_secure: bool,
}

/// A request that may not come now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misbehaved {
    /// CSeq is lower than the last: to be answered with 500 (§12.2.2).
    #[error("CSeq goes backwards")]
    OutOfOrder,
    /// It is not of this dialog: to be answered with 481.
    #[error("not of this dialog")]
    OtherDialog,
    /// A header that the dialog needs does not parse or is missing: to be answered with 400.
    #[error("{0}")]
    Header(BadHeader),
}

impl Misbehaved {
    /// The status code of the answer.
    pub const fn code(self) -> u16 {
        match self {
            Misbehaved::OutOfOrder => 500,
            Misbehaved::OtherDialog => 481,
            Misbehaved::Header(_) => 400,
        }
    }
}

impl std::convert::From<BadHeader> for Misbehaved {
    fn from(bad: BadHeader) -> Misbehaved {
        Misbehaved::Header(bad)
    }
}

fn addr(mut address: NameAddr, tag: &str) -> NameAddr {
    address.params = crate::Params::default();
    if !tag.is_empty() {
        address.params.set("tag", Some(tag));
    }
    address
}

fn phase_of(code: u16) -> Phase {
    if code < 200 { Phase::Early } else { Phase::Confirmed }
}

impl Dialog {
    /// The caller's end, from its request and a response 101 to 299 with a To tag (§12.1.2). For SUBSCRIBE
    /// and REFER likewise (RFC 6665 §4.4.1).
    pub fn uac(request: &Request, response: &Response) -> Result<Dialog, BadHeader> {
        let (from, to) = (request.from()?, response.headers.must::<To>()?);
        let target = response.headers.typed::<Contact>()?.map(|c| c.0.uri);
        let mut route_set: Vec<Uri> =
            response.headers.all::<RecordRoute>()?.into_iter().map(|r| r.0.uri).collect();
        route_set.reverse();
        let id = DialogId {
            call_id: call_id(request)?,
            local_tag: from.tag().unwrap_or_default().to_owned(),
            remote_tag: to.tag().unwrap_or_default().to_owned(),
        };
        Ok(Dialog {
            phase: phase_of(response.code),
            is_caller: true,
            local: addr(from.0, &id.local_tag),
            remote: addr(to.0, &id.remote_tag),
            // A provisional response need not have a Contact (§12.1.1 asks for one, and not all obey).
            remote_target: target.unwrap_or_else(|| request.uri.clone()),
            route_set,
            local_seq: Some(request.cseq()?.seq),
            remote_seq: None,
            is_secure: request.uri.is_secure(),
            id,
        })
    }

    /// The callee's end, from the request that arrived and the response that we give, which must have its To
    /// tag (§12.1.1).
    pub fn uas(request: &Request, response: &Response) -> Result<Dialog, BadHeader> {
        let (from, to) = (request.from()?, response.headers.must::<To>()?);
        let contact = request.headers.must::<Contact>()?;
        let route_set = request.headers.all::<RecordRoute>()?.into_iter().map(|r| r.0.uri).collect();
        let id = DialogId {
            call_id: call_id(request)?,
            local_tag: to.tag().ok_or(BadHeader { header: "To", what: "has no tag" })?.to_owned(),
            remote_tag: from.tag().unwrap_or_default().to_owned(),
        };
        Ok(Dialog {
            phase: phase_of(response.code),
            is_caller: false,
            local: addr(to.0, &id.local_tag),
            remote: addr(from.0, &id.remote_tag),
            remote_target: contact.0.uri,
            route_set,
            local_seq: None,
            remote_seq: Some(request.cseq()?.seq),
            is_secure: request.uri.is_secure(),
            id,
        })
    }

    /// Takes a later response to the request that made an early dialog: the route set is computed again from
    /// the 2xx, the target refreshed (§13.2.2.4).
    pub fn update(&mut self, response: &Response) -> Result<(), BadHeader> {
        if let Some(contact) = response.headers.typed::<Contact>()? {
            self.remote_target = contact.0.uri;
        }
        if self.phase == Phase::Early && response.is_success() {
            self.phase = Phase::Confirmed;
            if self.is_caller {
                let mut routes: Vec<Uri> =
                    response.headers.all::<RecordRoute>()?.into_iter().map(|r| r.0.uri).collect();
                routes.reverse();
                self.route_set = routes;
            }
        }
        Ok(())
    }

    /// True when the request belongs to this dialog.
    pub fn matches(&self, request: &Request) -> bool {
        DialogId::of_request(request).is_some_and(|id| id == self.id)
    }

    /// Accepts a request of the peer: it must be of this dialog and its CSeq must go up (§12.2.2). A target
    /// refresh (INVITE, UPDATE, SUBSCRIBE, NOTIFY, REFER) moves the remote target. ACK and CANCEL carry the
    /// number of their INVITE.
    pub fn accept(&mut self, request: &Request) -> Result<(), Misbehaved> {
        if !self.matches(request) {
            return Err(Misbehaved::OtherDialog);
        }
        let seq = request.cseq()?.seq;
        if matches!(request.method, Method::Ack | Method::Cancel) {
            return Ok(());
        }
        if self.remote_seq.is_some_and(|last| seq <= last) {
            return Err(Misbehaved::OutOfOrder);
        }
        self.remote_seq = Some(seq);
        if is_target_refresh(&request.method)
            && let Some(contact) = request.headers.typed::<Contact>()?
        {
            self.remote_target = contact.0.uri;
        }
        Ok(())
    }

    /// A new request inside the dialog (§12.2.1.1): next CSeq, tags, route set. Contact is the caller's.
    pub fn request(&mut self, method: Method) -> Request {
        let seq = self.local_seq.map_or(1, |last| last.saturating_add(1));
        self.local_seq = Some(seq);
        self.numbered(method, seq)
    }

    /// The ACK of a 2xx to the INVITE with that CSeq number (§13.2.2.4).
    pub fn ack(&self, invite_seq: u32) -> Request {
        self.numbered(Method::Ack, invite_seq)
    }

    fn numbered(&self, method: Method, seq: u32) -> Request {
        let mut uri = self.remote_target.clone();
        uri.headers.clear();
        let mut routes: Vec<Uri> = self.route_set.clone();
        // §12.2.1.1: with a strict router on top it becomes the Request-URI and the target goes last.
        if let Some(first) = routes.first()
            && !first.is_loose_router()
        {
            let router = routes.remove(0);
            routes.push(std::mem::replace(&mut uri, router));
            uri.headers.clear();
            uri.params.remove("method");
        }
        let mut request = Request::new(method.clone(), uri);
        for route in routes {
            request.headers.add(&crate::typed::Route(NameAddr::new(route)));
        }
        request.headers.add(&From(self.local.clone()));
        request.headers.add(&To(self.remote.clone()));
        request.headers.push(Name::CallId, &self.id.call_id);
        request.headers.add(&CSeq::new(seq, method));
        request.headers.push(Name::MaxForwards, "70");
        request
    }

    /// The next hop of its requests: the first route, else the remote target.
    pub fn next_hop(&self) -> Option<Target> {
        target_of(self.route_set.first().unwrap_or(&self.remote_target))
    }
}

fn call_id(request: &Request) -> Result<String, BadHeader> {
    request.call_id().map(str::to_owned).ok_or(BadHeader { header: "Call-ID", what: "is missing" })
}

fn is_target_refresh(method: &Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer)
}

#[cfg(test)]
mod tests;
