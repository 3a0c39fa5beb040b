//! Session-Expires (RFC 4028), Replaces (RFC 3891), Join (RFC 3911), Target-Dialog (RFC 4538).

use std::fmt;

use super::{BadHeader, Value, own_header};
use crate::params::Params;
use crate::scan::{Scan, digits, is_blank, lossy};

/// Who refreshes the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refresher {
    /// The caller of the refresh.
    Uac,
    /// The callee of the refresh.
    Uas,
}

/// The session interval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionExpires {
    /// Seconds.
    pub seconds: u32,
    /// Other parameters, `refresher` among them.
    pub params: Params,
}

impl SessionExpires {
    /// An interval with its refresher.
    pub fn new(seconds: u32, refresher: Option<Refresher>) -> SessionExpires {
        let mut params = Params::default();
        match refresher {
            Some(Refresher::Uac) => params.set("refresher", Some("uac")),
            Some(Refresher::Uas) => params.set("refresher", Some("uas")),
            None => {}
        }
        SessionExpires { seconds, params }
    }

    /// Who refreshes.
    pub fn refresher(&self) -> Option<Refresher> {
        match self.params.get("refresher")? {
            r if r.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
            r if r.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
            _ => None,
        }
    }
}

impl Value for SessionExpires {
    fn parse(bytes: &[u8]) -> Result<SessionExpires, BadHeader> {
        let mut scan = Scan::new(bytes);
        scan.blanks();
        let seconds =
            scan.take_while(|b| b.is_ascii_digit()).and_then(digits).and_then(|n| u32::try_from(n).ok());
        let seconds = seconds.ok_or(BadHeader { header: "Session-Expires", what: "no seconds" })?;
        Ok(SessionExpires { seconds, params: Params::parse(&mut scan, "Session-Expires")? })
    }
}

impl fmt::Display for SessionExpires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.seconds, self.params)
    }
}

own_header!(SessionExpires = SessionExpires, "Session-Expires");

fn call_id<'a>(scan: &mut Scan<'a>, header: &'static str) -> Result<&'a [u8], BadHeader> {
    scan.blanks();
    scan.take_while(|b| !is_blank(b) && b != b';').ok_or(BadHeader { header, what: "no Call-ID" })
}

macro_rules! dialog_reference {
    ($(#[$doc:meta])* $name:ident = $label:literal, $local:literal, $remote:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name {
            /// Call-ID.
            pub call_id: String,
            #[doc = concat!("The tag of the receiver of the request: `", $local, "`.")]
            pub local_tag: String,
            #[doc = concat!("The tag of the other party of that dialog: `", $remote, "`.")]
            pub remote_tag: String,
            /// Other parameters.
            pub params: Params,
        }

        impl Value for $name {
            fn parse(bytes: &[u8]) -> Result<Self, BadHeader> {
                let mut scan = Scan::new(bytes);
                let call_id = lossy(call_id(&mut scan, $label)?);
                let mut params = Params::parse(&mut scan, $label)?;
                let tag = |name: &str| {
                    params.get(name).filter(|t| !t.is_empty()).map(str::to_owned)
                        .ok_or(BadHeader { header: $label, what: "a tag is missing" })
                };
                let (local_tag, remote_tag) = (tag($local)?, tag($remote)?);
                params.remove($local);
                params.remove($remote);
                Ok($name { call_id, local_tag, remote_tag, params })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    concat!("{};", $local, "={};", $remote, "={}{}"),
                    self.call_id, self.local_tag, self.remote_tag, self.params
                )
            }
        }

        own_header!($name = $name, $label);
    };
}

dialog_reference! {
    /// The dialog that this INVITE takes the place of; `early-only` is among the parameters.
    Replaces = "Replaces", "to-tag", "from-tag"
}
dialog_reference! {
    /// The dialog that this INVITE joins.
    Join = "Join", "to-tag", "from-tag"
}
dialog_reference! {
    /// The dialog that authorises this request.
    TargetDialog = "Target-Dialog", "local-tag", "remote-tag"
}
