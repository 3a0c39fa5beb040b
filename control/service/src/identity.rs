//! Who sends a request (RFC 3325, RFC 3261 §22, CPM-FACTS §2.5 steps 1 and 2, §2.26).
//!
//! ```text
//!   another lane, a trusted peer ────────────────▶ P-Asserted-Identity, else From
//!   the registered flow of the claimed user ─────▶ that user
//!   good credentials of the claimed user ────────▶ that user        of another user: 403
//!   anything else ───────────────────────────────▶ 407; bad or old credentials: 407 again
//! ```
//!
//! A challenge costs no state: the nonce carries its time and our mark.

use std::collections::BTreeMap;

use base::Private;
use sip::digest::{Kind, Secrets, Verdict};
use sip::typed::{PAssertedIdentity, PPreferredIdentity};
use sip::{Name, NameAddr, Request, Response, Uri};

use crate::b2b;
use crate::facts::Facts;
use crate::lane_key::{credentials_user, sender, user_of, user_of_name};
use crate::participating::Caller;
use crate::records::Subscriber;
use crate::registrar::Bindings;
use crate::turn::Turn;
use crate::{Config, Key, Source, Table, UserId};

/// Subscribers known without a store.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    users: BTreeMap<UserId, Subscriber>,
    /// Who has a digest user name; of several the first by address.
    names: Private<BTreeMap<String, UserId>>,
}

impl Directory {
    pub(crate) fn new(config: &Config) -> Self {
        let known = config.subscribers.iter().map(|entry| {
            let subscriber = Subscriber {
                user: entry.address.clone(),
                name: entry.name.clone(),
                password: entry.password.clone(),
                service: true,
            };
            (entry.address.clone(), subscriber)
        });
        let users: BTreeMap<UserId, Subscriber> = known.collect();
        let mut names = BTreeMap::new();
        for (user, subscriber) in &users {
            names.entry(digest_name(subscriber).to_owned()).or_insert_with(|| user.clone());
        }
        Directory { users, names: Private::new(names) }
    }

    /// The subscriber, from here or from the facts.
    pub(crate) fn find<'a>(&'a self, user: &UserId, facts: &'a Facts) -> Option<&'a Subscriber> {
        self.users.get(user).or_else(|| facts.subscriber(user))
    }

    /// The subscriber whose digest user name that is.
    pub(crate) fn by_name(&self, name: &str) -> Option<&Subscriber> {
        self.users.get(self.names.expose().get(name)?)
    }

    /// The key to ask the store for, when the user is not known here.
    pub(crate) fn need(&self, user: &UserId) -> Option<Key> {
        (!self.users.contains_key(user)).then(|| Key::new(Table::Subscriber, user.as_str()))
    }
}

/// The user name of a subscriber's credentials: his own, else the user part of his address.
fn digest_name(subscriber: &Subscriber) -> &str {
    let own = subscriber.name.expose();
    if !own.is_empty() {
        return own;
    }
    let (_, rest) = subscriber.user.as_str().split_once(':').unwrap_or_default();
    rest.split('@').next().unwrap_or(rest)
}

/// True when the source's word is taken for the identity.
pub(crate) fn is_trusted(config: &Config, source: &Source) -> bool {
    match source {
        Source::Lane(_) => true,
        Source::Network { peer, trusted, .. } => {
            *trusted || config.identity.trusted_peers.contains(&peer.addr.ip())
        }
    }
}

/// The user that the claims of a request mean: what the credentials name counts only as a last resort.
pub(crate) fn claimed(config: &Config, request: &Request) -> Option<UserId> {
    sender(config, request)
}

/// Takes away what only a trusted peer may say.
pub(crate) fn strip(request: &mut Request) {
    for name in [
        Name::PAssertedIdentity,
        Name::PAssertedService,
        Name::PServedUser,
        Name::PChargingVector,
        Name::PChargingFunctionAddresses,
        Name::PCalledPartyId,
    ] {
        request.headers.remove(&name);
    }
}

/// The facts that identifying the sender needs.
pub(crate) fn needs(
    turn: &Turn<'_>,
    bindings: &Bindings,
    directory: &Directory,
    source: &Source,
    request: &Request,
) -> Option<Key> {
    if is_trusted(turn.config(), source) || by_flow(turn, bindings, source, request).is_some() {
        return None;
    }
    let name =
        if request.method == sip::Method::Register { Name::Authorization } else { Name::ProxyAuthorization };
    request.headers.first(&name)?;
    let user = credentials_user(turn.config(), request)?;
    directory.by_name(user.as_str()).is_none().then(|| directory.need(&user)).flatten()
}

/// The claimed user, when the request comes on his registered flow.
fn by_flow(
    turn: &Turn<'_>,
    bindings: &Bindings,
    source: &Source,
    request: &Request,
) -> Option<(UserId, bool)> {
    let user = claimed(turn.config(), request)?;
    bindings.by_flow(turn, &user, source).map(|bound| (user, bound.binding.service))
}

/// Who sends the request; or what he is answered.
pub(crate) fn identify(
    turn: &mut Turn<'_>,
    bindings: &Bindings,
    directory: &Directory,
    facts: &Facts,
    source: &Source,
    request: &Request,
) -> Result<Caller, Box<Response>> {
    if is_trusted(turn.config(), source) {
        return Ok(asserted(turn.config(), request));
    }
    if let Some((user, service)) = by_flow(turn, bindings, source, request) {
        return vouch(turn, request, user, service);
    }
    let subscriber = authenticate(turn, directory, facts, request, Kind::Proxy)?;
    let (user, service) = (subscriber.user.clone(), subscriber.service);
    match claimed(turn.config(), request) {
        // Nobody asserts another one's identity (RFC 3325 §5).
        Some(claimed) if claimed != user => Err(Box::new(b2b::refuse(turn.config(), request, 403))),
        _ => vouch(turn, request, user, service),
    }
}

fn vouch(turn: &Turn<'_>, request: &Request, user: UserId, service: bool) -> Result<Caller, Box<Response>> {
    if !service {
        // REQ-PF-06
        return Err(Box::new(b2b::refuse_with(turn.config(), request, 403, NOT_AUTHORISED)));
    }
    Ok(Caller { identity: vec![identity_of(turn.config(), request, &user)], user: Some(user) })
}

/// CPM-FACTS §2.7.
pub(crate) const NOT_AUTHORISED: &str = "127 Service not authorised";

/// How we assert a user: in the form that he prefers or uses himself when it means him, with its display name.
fn identity_of(config: &Config, request: &Request, user: &UserId) -> String {
    let preferred = request.headers.typed::<PPreferredIdentity>().ok().flatten().map(|p| p.0);
    let from = request.from().ok().map(|f| f.0);
    let own =
        [preferred, from].into_iter().flatten().find(|a| user_of(config, &a.uri).as_ref() == Some(user));
    match own {
        // An address by our host means the same user, and no one else's network knows it.
        Some(NameAddr { uri, .. }) if uri.is_sip() && !config.serves(&uri.host.to_string()) => {
            format!("<{}>", user.as_str())
        }
        Some(NameAddr { display, uri, .. }) => {
            NameAddr { display, ..NameAddr::new(uri.address_of_record()) }.to_string()
        }
        None => format!("<{}>", user.as_str()),
    }
}

/// What a trusted peer says about the sender.
fn asserted(config: &Config, request: &Request) -> Caller {
    let asserted: Vec<NameAddr> =
        request.headers.all::<PAssertedIdentity>().unwrap_or_default().into_iter().map(|p| p.0).collect();
    let from = request
        .from()
        .ok()
        .map(|f| f.0)
        .filter(|f| user_of(config, &f.uri).is_some_and(|u| !u.is_anonymous()));
    let named = asserted.first().cloned().or_else(|| from.clone());
    let identity = match asserted.is_empty() {
        false => asserted.iter().map(ToString::to_string).collect(),
        true => from
            .map(|f| NameAddr { display: f.display, ..NameAddr::new(f.uri.address_of_record()) }.to_string())
            .into_iter()
            .collect(),
    };
    Caller { user: named.and_then(|n| user_of(config, &n.uri)), identity }
}

/// Good credentials, or the challenge.
pub(crate) fn authenticate<'a>(
    turn: &mut Turn<'_>,
    directory: &'a Directory,
    facts: &'a Facts,
    request: &Request,
    kind: Kind,
) -> Result<&'a Subscriber, Box<Response>> {
    let now = turn.now.wall;
    let Some(credentials) = turn.desk.digest.credentials(kind, request) else {
        return Err(challenge(turn, request, kind, false));
    };
    let known = directory.by_name(&credentials.username).or_else(|| {
        let user = user_of_name(turn.config(), &credentials.username)?;
        directory.find(&user, facts)
    });
    // For an unknown user an impossible password is tried: time tells nothing.
    let password = known.map_or("\0", |subscriber| subscriber.password.expose());
    let secrets = Secrets::of(&credentials.username, turn.config().realm(), password);
    let verdict = turn.desk.digest.verify(&credentials, request, &secrets, now);
    match (verdict, known.filter(|_| is_for_us(turn.config(), request, &credentials.uri))) {
        (Verdict::Accepted, Some(subscriber)) if turn.desk.replays.is_first(&credentials) => Ok(subscriber),
        // A count that was used before, or an old nonce: right password, new nonce (RFC 7616 §3.3).
        (Verdict::Accepted | Verdict::Stale, Some(_)) => Err(challenge(turn, request, kind, true)),
        _ => {
            turn.desk.counters.auth_failed += 1;
            Err(challenge(turn, request, kind, false))
        }
    }
}

/// RFC 3261 §22.4: the digest-uri need not be the Request-URI, but it must name what we answer for: the same
/// resource, or this node (some clients name the server that they speak to).
fn is_for_us(config: &Config, request: &Request, digest_uri: &str) -> bool {
    let Ok(uri) = digest_uri.parse::<Uri>() else { return false };
    uri.equivalent(&request.uri) || !uri.is_sip() || config.is_ours(&uri.host.to_string())
}

fn challenge(turn: &mut Turn<'_>, request: &Request, kind: Kind, stale: bool) -> Box<Response> {
    turn.desk.counters.challenges += 1;
    Box::new(turn.desk.digest.demand(kind, request, turn.now.wall, stale))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By his own digest name, else by the user part of his address; of two with one name the first address counts.
    #[test]
    fn a_digest_name_finds_its_subscriber() {
        let entry = |address: &str, name: &str| crate::SubscriberEntry {
            address: UserId::parse(address).unwrap(),
            name: name.to_owned().into(),
            password: "secret".to_owned().into(),
        };
        let subscribers = vec![
            entry("sip:zoe@weir.example", "z"),
            entry("sip:ann@weir.example", ""),
            entry("sip:ann@other.example", ""),
        ];
        let known = Directory::new(&Config { subscribers, ..Config::default() });
        let of = |name: &str| known.by_name(name).map(|subscriber| subscriber.user.as_str().to_owned());
        assert_eq!(of("z").as_deref(), Some("sip:zoe@weir.example"));
        assert_eq!(of("zoe"), None);
        assert_eq!(of("ann").as_deref(), Some("sip:ann@other.example"));
        assert_eq!(of("sip:ann@weir.example"), None);
    }
}
