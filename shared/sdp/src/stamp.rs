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
        // As bytes: what was read back may be built otherwise and say the same.
        let said = |session: &Session| {
            let mut resolved = session.clone();
            resolved.resolve_bundle();
            resolved.to_bytes()
        };
        if self.last.as_ref().is_some_and(|last| said(last) != said(&session)) {
            self.origin.version = self.origin.version.saturating_add(1);
            session.origin = self.origin.clone();
        }
        self.last = Some(session.clone());
        session
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Codec, Format, Kind, MediaLine, Proto, Rtp};
    use base::Entropy;

    #[test]
    fn rfc3264_s8_the_version_follows_changes() {
        let host = Host::Ip([192, 0, 2, 1].into());
        let mut stamp = Stamp::new(Origin::fresh(&mut Entropy::from_number(5), host));
        let codec = Codec::new("PCMU", 8000);
        let rtp = Rtp { formats: vec![Format { payload: 0, codec, parameters: None }], ..Rtp::default() };
        let line = MediaLine::new(Kind::Audio, 4000, Proto::RtpAvp, Body::Rtp(rtp));
        let refused = MediaLine::new(Kind::Video, 0, Proto::RtpAvp, Body::Other(vec!["34".into()]));
        let session = Session::new(stamp.origin()).with(line).with(refused);
        let first = stamp.stamp(session.clone());
        assert!(first.origin.id.bytes().all(|c| c.is_ascii_digit()));
        assert_eq!(stamp.stamp(session.clone()).to_bytes(), first.to_bytes());

        let mut held = session.clone();
        held.lines[0].direction = crate::Direction::SendOnly;
        let second = stamp.stamp(held.clone());
        assert_eq!(second.origin.version, first.origin.version + 1);

        // After a restart the last description is all that is known.
        let read = Session::parse(&second.to_bytes(), &crate::Limits::default()).unwrap();
        let mut stamp = Stamp::resume(read);
        assert_eq!(stamp.stamp(held).to_bytes(), second.to_bytes());
        assert_eq!(stamp.stamp(session).origin.version, first.origin.version + 2);
    }
}
