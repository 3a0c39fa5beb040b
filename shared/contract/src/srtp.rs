//! Keys and credentials are never printed: what carries them says which kind they are and whether they are there.

use std::fmt;

use crate::{Auth, Ice, Srtp};

impl fmt::Debug for Srtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Srtp")
            .field("suite", &self.suite())
            .field("sends", &!self.send_key.is_empty())
            .field("receives", &!self.receive_key.is_empty())
            .finish()
    }
}

impl fmt::Debug for Ice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ice").field("met", &!self.peer_ufrag.is_empty()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("shown", &!self.authorization.is_empty()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Auth, Ice, Leg, RtpLeg, Srtp, SrtpSuite, leg::Kind};

    #[test]
    fn a_leg_that_is_printed_shows_no_key() {
        let srtp = Srtp {
            suite: SrtpSuite::AeadAes128Gcm.into(),
            send_key: vec![0xa7; 28],
            receive_key: vec![0xb9; 28],
        };
        let ice = Ice { ufrag: "frag".into(), password: "secret".into(), peer_ufrag: String::new() };
        let rtp = RtpLeg { srtp: Some(Box::new(srtp)), ice: Some(Box::new(ice)), ..RtpLeg::default() };
        let leg = Leg { kind: Some(Kind::Rtp(rtp)), ..Leg::default() };
        let printed = format!("{leg:?}");
        assert!(printed.contains("AeadAes128Gcm") && !printed.contains("167") && !printed.contains("185"));
        assert!(printed.contains("Ice") && !printed.contains("secret"));
        let auth =
            Auth { authorization: "Digest username=\"ann\"".into(), uri: "msrps://relay/a;tcp".into() };
        let printed = format!("{auth:?}");
        assert!(printed.contains("shown: true") && !printed.contains("ann") && !printed.contains("relay"));
    }
}
