//! Which lane an event belongs to. Roles meet by SIP-shaped messages between lanes (REQ-GEN-02).
//!
//! A key is one of 65536 buckets, so that it fits everywhere: into the `lane` parameter of the Contact URIs
//! that we hand out (in-dialog requests come back with it) and into the upper 16 bits of a context id (news of
//! the data plane). The number of lanes may change between starts; the bucket of a user never does.

use std::fmt;

use serde::{Deserialize, Serialize};
use sip::typed::Route;
use sip::{Method, Name, NameAddr, Request, Uri};

use crate::{Config, UserId};

/// How the names of ad-hoc groups begin: `grp-<bucket>-<random>`.
pub(crate) const AD_HOC: &str = "grp-";

/// The URI parameter that carries the key in our Contacts.
pub(crate) const LANE_PARAM: &str = "lane";

/// A bucket of served users and conferences.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LaneKey(pub u16);

impl LaneKey {
    /// The bucket of a served user.
    pub fn of_user(user: &UserId) -> Self {
        LaneKey::hash(user.as_str().as_bytes())
    }

    /// The bucket of a conference, by the user part of its focus URI. The name of an ad-hoc group says it.
    pub fn of_conference(focus: &str) -> Self {
        let said = focus.strip_prefix(AD_HOC).and_then(|rest| LaneKey::parse(rest.split('-').next()?));
        said.unwrap_or_else(|| LaneKey::hash(focus.as_bytes()))
    }

    /// The bucket of whoever shows these credentials (the value of an Authorization header): the counts of a nonce are
    /// remembered in one place.
    pub fn of_credentials(authorization: &str) -> Self {
        let (_, rest) = authorization.split_once("username=\"").unwrap_or_default();
        LaneKey::hash(rest.split('"').next().unwrap_or_default().as_bytes())
    }

    /// The bucket of a context (see [`LaneKey::context`]).
    pub const fn of_context(context: u64) -> Self {
        LaneKey((context >> 48) as u16)
    }

    /// A context id of this bucket, from 48 random bits.
    pub const fn context(self, random: u64) -> u64 {
        ((self.0 as u64) << 48) | (random & 0xffff_ffff_ffff)
    }

    /// Which of `lanes` lanes has the bucket.
    pub fn lane(self, lanes: usize) -> usize {
        usize::from(self.0) % lanes.max(1)
    }

    /// From the text of the URI parameter.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 4).then(|| u16::from_str_radix(text, 16).ok().map(LaneKey)).flatten()
    }

    /// FNV-1a, folded: stable for the life of the rows, spread well enough for buckets.
    fn hash(bytes: &[u8]) -> Self {
        let h = bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3));
        let folded = h ^ (h >> 32);
        LaneKey(((folded ^ (folded >> 16)) & 0xffff) as u16)
    }
}

impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

/// The bucket of a request that came from the network.
///
/// 1. Inside a dialog our own Contact in the Request-URI names it; so does a topmost Route of ours.
/// 2. A trusted peer sends for the user in the Request-URI, unless it says that the session case is
///    originating (`orig` in the topmost Route, or P-Served-User: CPM-FACTS §2.5, §2.26).
/// 3. Everybody else speaks for himself: P-Preferred-Identity, From, the user name of his credentials.
///
/// Whether the sender may speak for that user is decided later, in the lane.
pub fn lane_of(config: &Config, request: &Request, trusted: bool) -> LaneKey {
    // Outside a dialog our Contact is an address like any other (a client that comes back to a focus).
    if let Some(key) = lane_in(&request.uri).filter(|_| request.to_tag().is_some()) {
        return key;
    }
    let top = request.headers.typed::<Route>().ok().flatten();
    if let Some(key) = top.as_ref().and_then(|route| lane_in(&route.uri)) {
        return key;
    }
    if request.method == Method::Register {
        return request
            .to()
            .ok()
            .and_then(|to| user_of(config, &to.uri))
            .map_or(LaneKey(0), |u| LaneKey::of_user(&u));
    }
    let originating = !trusted || is_originating(request, top.as_ref());
    // RFC 5502: an S-CSCF says whom it means.
    let served = trusted.then(|| crate::isc::served(config, request)).flatten();
    let named = || if originating { sender(config, request) } else { user_of(config, &request.uri) };
    let user = served.or_else(named);
    user.map_or_else(
        || LaneKey::hash(request.call_id().unwrap_or_default().as_bytes()),
        |u| LaneKey::of_user(&u),
    )
}

/// The bucket that one of our Contact URIs names.
pub(crate) fn lane_in(uri: &Uri) -> Option<LaneKey> {
    uri.params.get(LANE_PARAM).and_then(LaneKey::parse)
}

/// The subscriber whom a URI means. Our own addresses stand for the first domain: `sip:alice@127.0.0.1:5060`
/// is a call to `sip:alice@weir.example` when we listen there.
pub(crate) fn user_of(config: &Config, uri: &Uri) -> Option<UserId> {
    // By a name and with nothing behind it, the usual one: there is nothing to take away from it.
    let bare = uri.password.is_none() && uri.params.is_empty() && uri.headers.is_empty();
    if bare && matches!(uri.host, sip::Host::Name(_)) {
        return UserId::parse(&uri.to_string()).ok();
    }
    let mut uri = uri.address_of_record();
    let host = uri.host.to_string();
    if uri.is_sip() && config.is_ours(&host) && !config.serves(&host) {
        let ours = Uri::sip("", config.domain());
        uri.host = ours.host;
        uri.port = None;
    }
    UserId::parse(&uri.to_string()).ok()
}

/// RFC 5502 and the `orig` parameter of TS 24.229 §5.7.
pub(crate) fn is_originating(request: &Request, top_route: Option<&Route>) -> bool {
    let served = request.headers.text(&Name::PServedUser).unwrap_or_default().to_ascii_lowercase();
    top_route.is_some_and(|r| r.uri.params.has("orig")) || served.contains("sescase=orig")
}

/// Whom the sender claims to be.
pub(crate) fn sender(config: &Config, request: &Request) -> Option<UserId> {
    let identities = [Name::PAssertedIdentity, Name::PPreferredIdentity];
    let named = identities.iter().find_map(|name| request.headers.one::<NameAddr>(name).ok().flatten());
    let named = named.and_then(|n| user_of(config, &n.uri));
    let from = || request.from().ok().and_then(|f| user_of(config, &f.uri)).filter(|u| !u.is_anonymous());
    named.or_else(from).or_else(|| credentials_user(config, request))
}

/// The user that the credentials' user name means: an address, a number, or a name at our domain.
pub(crate) fn credentials_user(config: &Config, request: &Request) -> Option<UserId> {
    let text =
        [Name::ProxyAuthorization, Name::Authorization].iter().find_map(|n| request.headers.text(n))?;
    let (_, rest) = text.split_once("username=\"")?;
    let (name, _) = rest.split_once('"')?;
    user_of_name(config, name)
}

/// See [`credentials_user`].
pub(crate) fn user_of_name(config: &Config, name: &str) -> Option<UserId> {
    UserId::parse(name).ok().or_else(|| match name.strip_prefix('+') {
        Some(_) => UserId::parse(&format!("tel:{name}")).ok(),
        None if name.contains('@') => UserId::parse(&format!("sip:{name}")).ok(),
        None => UserId::parse(&format!("sip:{name}@{}", config.domain())).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The usual address is read by a shorter way: it means the same user as the longer spellings do.
    #[test]
    fn every_spelling_of_an_address_means_one_user() {
        let mut config = Config::default();
        config.node.domains = vec!["weir.example".to_owned()];
        config.listeners.udp = Some(([192, 0, 2, 1], 5060).into());
        let user = |text: &str| user_of(&config, &text.parse().unwrap());
        let ann = UserId::parse("sip:ann@weir.example").ok();
        assert!(ann.is_some());
        for spelling in [
            "sip:ann@weir.example",
            "sips:ann@Weir.EXAMPLE",
            "sip:ann@weir.example:5060",
            "sip:ann:secret@weir.example",
            "sip:ann@weir.example;transport=tcp",
            "sip:ann@weir.example?Subject=x",
            "sip:%61nn@weir.example",
            "sip:ann@192.0.2.1",
            "sip:ann@192.0.2.1:5060;lr",
        ] {
            assert_eq!(user(spelling), ann, "{spelling}");
        }
        let number = UserId::parse("tel:+15550100001").ok();
        for spelling in ["tel:+1-555-010-0001", "sip:+15550100001@weir.example;user=phone"] {
            assert_eq!(user(spelling), number, "{spelling}");
        }
        assert_ne!(user("sip:bob@weir.example"), ann);
        assert_ne!(user("sip:ann@192.0.2.2"), ann);
    }
}
