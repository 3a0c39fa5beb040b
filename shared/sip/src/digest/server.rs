//! The server's side: challenge and verify, without state.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Private, UnixTime};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{Algorithm, AuthenticationInfo, Challenge, Credentials, Parts, Secrets};
use crate::message::{Request, Response};
use crate::name::Name;
use crate::uri::Uri;

/// Who asks: the registrar and UAS by 401, a proxy by 407 (RFC 3261 §22.2 and §22.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// 401, WWW-Authenticate, Authorization.
    User,
    /// 407, Proxy-Authenticate, Proxy-Authorization.
    Proxy,
}

impl Kind {
    pub(super) fn headers(self) -> (Name, Name) {
        match self {
            Kind::User => (Name::WwwAuthenticate, Name::Authorization),
            Kind::Proxy => (Name::ProxyAuthenticate, Name::ProxyAuthorization),
        }
    }
}

/// A digest server for one realm.
#[derive(Clone, Debug)]
pub struct Server {
    /// The realm that clients are shown.
    pub realm: String,
    /// The algorithms, the preferred one first; one challenge is made for each (RFC 8760 §2.3).
    pub algorithms: Vec<Algorithm>,
    /// How long a nonce is good.
    pub nonce_lifetime: Duration,
    /// The digest-uri need not be the Request-URI: RFC 3261 §22.4 (item 5) makes that the server's choice, and
    /// clients exist that name the server there. The user of this then looks at `Credentials::uri` himself.
    pub any_uri: bool,
    secret: Private<[u8; 32]>,
}

/// What credentials are worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The user is who it says.
    Accepted,
    /// The password is right, the nonce too old or not ours: challenge again with `stale=true`.
    Stale,
    /// Refused.
    Refused(Refusal),
}

/// Why credentials are refused. A closed set: each is a metric label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal {
    /// The response is wrong: the password, or something of the request was changed.
    Response,
    /// An algorithm that is not offered.
    Algorithm,
    /// No qop, or one that is not offered, or without cnonce and nc.
    Qop,
    /// The digest-uri is not that of the request.
    Uri,
    /// The realm is another.
    Realm,
}

impl Refusal {
    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Refusal::Response => "response",
            Refusal::Algorithm => "algorithm",
            Refusal::Qop => "qop",
            Refusal::Uri => "uri",
            Refusal::Realm => "realm",
        }
    }
}

impl Server {
    /// A server that offers SHA-256 and MD5, with nonces good for five minutes. Every process that shares
    /// the secret accepts the nonces of the others.
    pub fn new(realm: &str, secret: [u8; 32]) -> Server {
        Server {
            realm: realm.to_owned(),
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            nonce_lifetime: Duration::from_secs(300),
            any_uri: false,
            secret: Private::new(secret),
        }
    }

    /// The challenges, in order of preference.
    pub fn challenges(&self, now: UnixTime, stale: bool) -> Vec<Challenge> {
        let challenge = |algorithm: &Algorithm| Challenge {
            realm: self.realm.clone(),
            nonce: self.nonce(now),
            algorithm: Some(algorithm.as_str().to_owned()),
            qop: vec!["auth".to_owned()],
            stale,
            opaque: None,
        };
        self.algorithms.iter().map(challenge).collect()
    }

    /// The 401 or 407 for a request.
    pub fn demand(&self, kind: Kind, request: &Request, now: UnixTime, stale: bool) -> Response {
        let code = match kind {
            Kind::User => 401,
            Kind::Proxy => 407,
        };
        let mut response = request.respond(code);
        for challenge in self.challenges(now, stale) {
            response.headers.push(kind.headers().0, challenge.to_string());
        }
        response
    }

    /// The credentials of a request for this realm. Other schemes, other realms and the empty ones of a
    /// first IMS REGISTER count as none, so the request is challenged (RFC 4475 §3.3.7).
    pub fn credentials(&self, kind: Kind, request: &Request) -> Option<Credentials> {
        request
            .headers
            .values(&kind.headers().1)
            .filter_map(|value| <Credentials as crate::typed::Value>::parse(value).ok())
            .find(|c| c.realm == self.realm && !c.nonce.is_empty() && !c.response.is_empty())
    }

    /// Judges credentials. The user's secrets are looked up by `credentials.username`; for an unknown user
    /// give those of an impossible password, so that time tells nothing.
    pub fn verify(
        &self,
        credentials: &Credentials,
        request: &Request,
        secrets: &Secrets,
        now: UnixTime,
    ) -> Verdict {
        let judged = self.judge(credentials, request.method.as_str(), secrets, now);
        // What is wrong with the credentials themselves comes first: so it was counted.
        match judged {
            Verdict::Refused(Refusal::Realm | Refusal::Algorithm | Refusal::Qop) => judged,
            _ if !self.any_uri && !is_same_resource(&credentials.uri, &request.uri) => {
                Verdict::Refused(Refusal::Uri)
            }
            _ => judged,
        }
    }

    /// The same for a request of another protocol: its method, and whether the digest-uri is right is the caller's to
    /// say.
    pub fn judge(
        &self,
        credentials: &Credentials,
        method: &str,
        secrets: &Secrets,
        now: UnixTime,
    ) -> Verdict {
        if credentials.realm != self.realm {
            return Verdict::Refused(Refusal::Realm);
        }
        let Some(algorithm) = credentials.known_algorithm().filter(|a| self.algorithms.contains(a)) else {
            return Verdict::Refused(Refusal::Algorithm);
        };
        let Some(qop) = qop(credentials) else { return Verdict::Refused(Refusal::Qop) };
        let parts = Parts { nonce: &credentials.nonce, uri: &credentials.uri, qop: Some(qop) };
        let expected = algorithm.response(&secrets.ha1(algorithm), method, &parts);
        let given = credentials.response.to_ascii_lowercase();
        if !bool::from(expected.as_bytes().ct_eq(given.as_bytes())) {
            return Verdict::Refused(Refusal::Response);
        }
        if self.is_fresh(&credentials.nonce, now) { Verdict::Accepted } else { Verdict::Stale }
    }

    /// The Authentication-Info of a success (RFC 7616 §3.5), with the proof that we know the password too.
    pub fn info(&self, credentials: &Credentials, secrets: &Secrets) -> AuthenticationInfo {
        let rspauth = credentials.known_algorithm().zip(qop(credentials)).map(|(algorithm, qop)| {
            let parts = Parts { nonce: &credentials.nonce, uri: &credentials.uri, qop: Some(qop) };
            algorithm.response(&secrets.ha1(algorithm), "", &parts)
        });
        AuthenticationInfo {
            nextnonce: None,
            qop: credentials.qop.clone(),
            rspauth,
            cnonce: credentials.cnonce.clone(),
            nc: credentials.nc.clone(),
        }
    }

    /// Milliseconds and their HMAC: 16 and 32 hexadecimal digits.
    fn nonce(&self, at: UnixTime) -> String {
        format!("{:016x}{}", at.as_millis(), self.seal(at.as_millis()))
    }

    fn seal(&self, ms: u64) -> String {
        // A key of 32 bytes always fits; any length would.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.expose()) else { return String::new() };
        mac.update(&ms.to_be_bytes());
        mac.update(self.realm.as_bytes());
        hex::encode(mac.finalize().into_bytes().get(..16).unwrap_or_default())
    }

    fn is_fresh(&self, nonce: &str, now: UnixTime) -> bool {
        let Some((time, seal)) = nonce.split_at_checked(16) else { return false };
        let Ok(ms) = u64::from_str_radix(time, 16) else { return false };
        let at = UnixTime::from_millis(ms);
        // A clock that was set back must not make old nonces young: one from the future is none of ours.
        bool::from(self.seal(ms).as_bytes().ct_eq(seal.as_bytes()))
            && at <= now + Duration::from_secs(60)
            && now.since(at) <= self.nonce_lifetime
    }
}

fn qop(credentials: &Credentials) -> Option<(&str, &str, &str)> {
    let qop = credentials.qop.as_deref().filter(|q| q.eq_ignore_ascii_case("auth"))?;
    credentials.count()?;
    Some((qop, credentials.nc.as_deref()?, credentials.cnonce.as_deref().filter(|c| !c.is_empty())?))
}

/// RFC 3261 §22.4 wants the Request-URI; clients differ from it in parameters, so those are not compared.
fn is_same_resource(digest_uri: &str, request_uri: &Uri) -> bool {
    let Ok(mut given) = digest_uri.parse::<Uri>() else { return false };
    let mut wanted = request_uri.clone();
    for uri in [&mut given, &mut wanted] {
        uri.params = crate::Params::default();
        uri.headers.clear();
    }
    given.equivalent(&wanted)
}

/// The highest count seen of each nonce and cnonce, of the latest nonces only: a request that comes again with
/// the same count is a replay (RFC 7616 §3.4). Clients that are challenged in the same millisecond get the same
/// nonce; their cnonces tell them apart, and who has not the password cannot choose one.
#[derive(Debug)]
pub struct Replays {
    /// Nonces begin with their time, so the first one is the oldest.
    highest: BTreeMap<String, u32>,
    max: usize,
}

impl Replays {
    /// Remembers at most `max` nonces.
    pub fn with_max(max: usize) -> Replays {
        Replays { highest: BTreeMap::new(), max }
    }

    /// Nonces remembered.
    pub fn len(&self) -> usize {
        self.highest.len()
    }

    /// True before the first.
    pub fn is_empty(&self) -> bool {
        self.highest.is_empty()
    }

    /// True when the count is higher than all before. Call it for accepted credentials only, so that nobody
    /// else can fill the memory.
    pub fn is_first(&mut self, credentials: &Credentials) -> bool {
        let Some(count) = credentials.count() else { return false };
        let nonce = format!("{}{}", credentials.nonce, credentials.cnonce.as_deref().unwrap_or_default());
        if let Some(highest) = self.highest.get_mut(&nonce) {
            let first = count > *highest;
            *highest = count.max(*highest);
            return first;
        }
        if self.highest.len() >= self.max {
            self.highest.pop_first();
        }
        self.highest.insert(nonce, count);
        true
    }
}
