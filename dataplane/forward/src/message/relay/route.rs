//! Where a request goes on to (RFC 4976 §6.3, §6.4): our URI is taken from the head of To-Path and put before From-Path,
//! and a session's URI works between its client and one peer only.

use base::Now;
use msrp::{Head, Method, Status, UriRef};

use super::super::{Message, Reading};
use super::dial::Reached;
use crate::media::Tx;
use crate::{ConnId, Drop};

/// What is to be done with a request.
pub(super) enum Next {
    /// It goes on there, with these paths.
    On { conn: ConnId, to: String, from: String },
    /// The connection to its next hop is on its way.
    Wait,
    /// It does not go on.
    Refuse(Status, Drop),
}

impl Message {
    /// Takes the head of a request if it is the relay's.
    pub(in super::super) fn relay_head(
        &mut self,
        now: Now,
        conn: ConnId,
        head: &Head,
        tx: &mut Tx<'_>,
    ) -> Option<Reading> {
        self.relay.config.as_ref()?;
        let method = head.method()?;
        let mut uris = head.to_path().uris();
        let (first, more) = (uris.next()?, uris.next().is_some());
        let ours = first.session().is_some_and(|id| self.relay.sessions.contains_key(id));
        // A client does not know a session of ours before its first AUTH: that goes to the bare relay.
        let asks = method == Method::Auth && !more && (ours || first.session().is_none());
        if !ours && !asks {
            return None;
        }
        let row = self.conns.get_mut(&conn)?;
        row.prefix = None;
        if asks {
            self.auth(now, conn, head, tx);
            return Some(Reading::Skip);
        }
        match self.route(now, conn, head, tx) {
            Next::On { conn: target, to, from } => {
                tx.totals.requests_in += 1;
                tx.totals.requests_taken += 1;
                if let Some(row) = self.conns.get_mut(&conn) {
                    row.arrival = None;
                }
                Some(self.pass_begins(now, conn, target, head, (to, from)))
            }
            Next::Wait => {
                if let Some(row) = self.conns.get_mut(&conn) {
                    row.blocked = true;
                    row.waiting = Some(Box::new(head.clone()));
                }
                Some(Reading::Skip)
            }
            Next::Refuse(status, why) => Some(self.refuse(now, conn, head.clone(), status, why, tx)),
        }
    }

    fn route(&mut self, now: Now, conn: ConnId, head: &Head, tx: &mut Tx<'_>) -> Next {
        match self.try_route(now, conn, head, tx) {
            Ok(next) => next,
            Err((status, why)) => Next::Refuse(status, why),
        }
    }

    fn try_route(
        &mut self,
        now: Now,
        conn: ConnId,
        head: &Head,
        tx: &mut Tx<'_>,
    ) -> Result<Next, (Status, Drop)> {
        let gone = (Status::NO_SESSION, Drop::MsrpNoSession);
        let refused = (Status::FORBIDDEN, Drop::MsrpRelayRefused);
        let to_path = head.to_path();
        let mut uris = to_path.uris();
        let own = uris.next().ok_or(gone)?;
        let secure = self.conns.get(&conn).is_some_and(|c| c.tls);
        let session = own.session().and_then(|id| self.relay.sessions.get_mut(id)).ok_or(gone)?;
        // What is named msrps is come to by TLS (RFC 4976 §6.3). Only where the client itself named a next hop without,
        // that one answers on the connection that we have opened to it.
        if session.secure && !secure && session.link != Some(conn) {
            return Err(refused);
        }
        // A relay is nobody's endpoint.
        let next = uris.next().ok_or(refused)?;
        let third = uris.next();
        let from = head.from_path();
        if session.client != conn {
            // From the peer: to the client, and to nobody else.
            let previous = from.first().ok_or(refused)?;
            let client = session.client;
            pin(&mut session.peer, &previous)?;
            // An endpoint's session is on one connection (RFC 4975 §5.4). A relay has others to us than the one that was
            // dialled to it.
            match session.link.filter(|link| *link != conn && self.conns.contains_key(link)) {
                Some(_) if session.chained => {}
                Some(_) => return Err((Status::OTHER_CONNECTION, Drop::MsrpOtherConnection)),
                None => session.link = Some(conn),
            }
            let (to, from) = (after(to_path.as_str(), 1), behind(own.as_str(), from.as_str()));
            return Ok(self.on(client, to, from));
        }
        // From the client. An AUTH goes through to further relays, before there is a peer.
        if head.method() != Some(Method::Auth) {
            pin(&mut session.peer, &next)?;
            session.chained |= third.is_some();
        }
        let link = session.link.filter(|link| self.conns.get(link).is_some_and(|c| c.closing.is_none()));
        if self.is_local(&next) {
            third.ok_or(refused)?;
            return self.through((&own, &next), to_path.as_str(), from.as_str());
        }
        let paths = (after(to_path.as_str(), 1), behind(own.as_str(), from.as_str()));
        if let Some(link) = link.filter(|_| head.method() != Some(Method::Auth)) {
            return Ok(self.on(link, paths.0, paths.1));
        }
        Ok(match self.reach(now, conn, &next, tx) {
            Reached::Up(link) => {
                let id = own.session().unwrap_or_default();
                if let Some(session) = self.relay.sessions.get_mut(id)
                    && head.method() != Some(Method::Auth)
                {
                    session.link = Some(link);
                }
                self.on(link, paths.0, paths.1)
            }
            Reached::Dialing => Next::Wait,
            Reached::Forbidden => return Err(refused),
            // RFC 4976 §6.4.1: it will not get there.
            Reached::Failed => return Err((Status::TIMEOUT, Drop::MsrpNoTarget)),
        })
    }

    /// Both ends are clients of ours: what would go out and come in again is passed at once.
    fn through(
        &mut self,
        (previous, second): (&UriRef<'_>, &UriRef<'_>),
        to: &str,
        from: &str,
    ) -> Result<Next, (Status, Drop)> {
        let id = second.session().unwrap_or_default();
        let session = self.relay.sessions.get_mut(id).ok_or((Status::NO_SESSION, Drop::MsrpNoSession))?;
        pin(&mut session.peer, previous)?;
        let client = session.client;
        let from = behind(second.as_str(), &behind(previous.as_str(), from));
        Ok(self.on(client, after(to, 2), from))
    }

    fn on(&self, conn: ConnId, to: String, from: String) -> Next {
        match self.conns.get(&conn).filter(|row| row.closing.is_none()) {
            Some(_) => Next::On { conn, to, from },
            None => Next::Refuse(Status::TIMEOUT, Drop::MsrpNoTarget),
        }
    }

    /// Whether a URI is one of the sessions of this engine.
    fn is_local(&self, uri: &UriRef<'_>) -> bool {
        let session = uri.session().and_then(|id| self.relay.sessions.get(id));
        session.is_some_and(|s| UriRef::parse(&s.uri).is_ok_and(|own| own.matches(uri)))
    }
}

/// The first peer is the only one.
fn pin(peer: &mut Option<String>, uri: &UriRef<'_>) -> Result<(), (Status, Drop)> {
    // It is nearly always written as it was at first.
    if peer.as_deref() == Some(uri.as_str()) {
        return Ok(());
    }
    match peer.as_deref().map(UriRef::parse) {
        Some(Ok(pinned)) if pinned.matches(uri) => Ok(()),
        Some(_) => Err((Status::FORBIDDEN, Drop::MsrpRelayRefused)),
        None => {
            *peer = Some(uri.as_str().to_owned());
            Ok(())
        }
    }
}

/// A path without its first URIs.
fn after(path: &str, uris: usize) -> String {
    let mut whole = String::with_capacity(path.len());
    for uri in path.split(' ').filter(|uri| !uri.is_empty()).skip(uris) {
        let blank = if whole.is_empty() { "" } else { " " };
        [blank, uri].iter().for_each(|part| whole.push_str(part));
    }
    whole
}

/// A path with one more hop before it.
fn behind(hop: &str, path: &str) -> String {
    let mut whole = String::with_capacity(hop.len() + 1 + path.len());
    [hop, " ", path].iter().for_each(|part| whole.push_str(part));
    whole
}
