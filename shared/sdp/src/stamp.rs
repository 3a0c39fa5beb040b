//! The o= line of everything that one dialog sends (RFC 3264 §5, §8): one id for life, and a version that goes
//! up by one when the description differs from the last one sent, and stays when it does not.

use crate::{Host, Origin, Session};

/// Stamps descriptions of one dialog. To resume after a restart, read back the last description sent.
#[derive(Clone, Debug)]
pub struct Stamp {
    origin: Origin,
    last: Option<Session>,
}

impl Stamp {
    /// For a new dialog.
    pub fn new(origin: Origin) -> Self {
        Stamp { origin, last: None }
    }

    /// For a dialog whose last description sent is known.
    pub fn resume(last: Session) -> Self {
        Stamp { origin: last.origin.clone(), last: Some(last) }
    }

    /// The last description stamped.
    pub fn last(&self) -> Option<&Session> {
        self.last.as_ref()
    }

    /// Where the o= line says that we are.
    pub fn host(&self) -> &Host {
        &self.origin.host
    }

    /// The o= line to begin with; [`Stamp::stamp`] puts the right version in.
    pub fn origin(&self) -> Origin {
        self.origin.clone()
    }

    /// Puts the right o= line on what is to be sent next.
    pub fn stamp(&mut self, mut session: Session) -> Session {
        session.origin = self.origin.clone();
        if let Some(last) = &self.last
            && *last != session
        {
            self.origin.version = self.origin.version.saturating_add(1);
            session.origin = self.origin.clone();
        }
        self.last = Some(session.clone());
        session
    }
}
