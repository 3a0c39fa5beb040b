//! The client's side: answer challenges, and use a nonce again while it is good.

use base::{Entropy, Private};

use super::server::Kind;
use super::{Algorithm, AuthenticationInfo, Challenge, Credentials, Parts};
use crate::message::{Request, Response};
use crate::name::Name;
use crate::typed::{CSeq, Value};

/// Realms that a client remembers.
const REALMS_MAX: usize = 8;

/// A challenge that cannot be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unanswerable {
    /// There is none that we understand.
    #[error("no challenge that is understood")]
    NoChallenge,
    /// The password was refused: the same realm asks again, and not because the nonce is old.
    #[error("the password was refused")]
    Refused,
}

#[derive(Debug)]
struct Realm {
    kind: Kind,
    challenge: Challenge,
    algorithm: Algorithm,
    count: u32,
}

/// A user name with its password, and what realms asked last.
#[derive(Debug)]
pub struct Client {
    username: Private<String>,
    password: Private<String>,
    realms: Vec<Realm>,
}

impl Client {
    /// A client that was not challenged yet.
    pub fn new(username: &str, password: &str) -> Client {
        Client {
            username: username.to_owned().into(),
            password: password.to_owned().into(),
            realms: Vec::new(),
        }
    }

    /// The request to send after a 401 or 407: credentials added, CSeq one higher (RFC 3261 §22.2). `request`
    /// is the one that was given to the stack, without Via.
    pub fn answer(
        &mut self,
        request: &Request,
        response: &Response,
        entropy: &mut Entropy,
    ) -> Result<Request, Unanswerable> {
        let mut next = request.clone();
        let mut understood = false;
        for kind in [Kind::User, Kind::Proxy] {
            understood |= self.learn(kind, request, response)?;
        }
        if !understood {
            return Err(Unanswerable::NoChallenge);
        }
        if let Ok(cseq) = request.cseq() {
            next.headers.put(&CSeq::new(cseq.seq + 1, cseq.method));
        }
        self.authorise(&mut next, entropy);
        Ok(next)
    }

    /// Takes the first challenge of each realm that is understood (RFC 8760 §2.4).
    fn learn(&mut self, kind: Kind, request: &Request, response: &Response) -> Result<bool, Unanswerable> {
        let (challenge_name, credentials_name) = kind.headers();
        let mut learned: Vec<String> = Vec::new();
        for challenge in response.headers.values(&challenge_name).filter_map(|v| Challenge::parse(v).ok()) {
            let qop =
                challenge.qop.is_empty() || challenge.qop.iter().any(|q| q.eq_ignore_ascii_case("auth"));
            let Some(algorithm) = challenge.known_algorithm().filter(|_| qop) else { continue };
            if learned.contains(&challenge.realm) {
                continue;
            }
            let shown = request
                .headers
                .values(&credentials_name)
                .filter_map(|v| Credentials::parse(v).ok())
                .any(|c| c.realm == challenge.realm && !c.response.is_empty());
            if shown && !challenge.stale {
                return Err(Unanswerable::Refused);
            }
            learned.push(challenge.realm.clone());
            self.realms.retain(|r| r.kind != kind || r.challenge.realm != challenge.realm);
            if self.realms.len() >= REALMS_MAX {
                self.realms.remove(0);
            }
            self.realms.push(Realm { kind, challenge, algorithm, count: 0 });
        }
        Ok(!learned.is_empty())
    }

    /// Adds credentials for every realm that asked before; nothing when none did. Saves a round trip for
    /// each request after the first.
    pub fn authorise(&mut self, request: &mut Request, entropy: &mut Entropy) {
        request.headers.remove(&Name::Authorization);
        request.headers.remove(&Name::ProxyAuthorization);
        let uri = request.uri.to_string();
        for realm in &mut self.realms {
            realm.count += 1;
            let (nc, cnonce) = (format!("{:08x}", realm.count), entropy.token(80));
            let with_qop = !realm.challenge.qop.is_empty();
            let parts = Parts {
                nonce: &realm.challenge.nonce,
                uri: &uri,
                qop: with_qop.then_some(("auth", nc.as_str(), cnonce.as_str())),
            };
            let name = &realm.challenge.realm;
            let ha1 = realm.algorithm.ha1(self.username.expose(), name, self.password.expose());
            let response = realm.algorithm.response(&ha1, request.method.as_str(), &parts);
            let credentials = Credentials {
                username: self.username.expose().clone(),
                realm: name.clone(),
                nonce: realm.challenge.nonce.clone(),
                uri: uri.clone(),
                response,
                algorithm: realm.challenge.algorithm.clone(),
                cnonce: with_qop.then_some(cnonce),
                opaque: realm.challenge.opaque.clone(),
                qop: with_qop.then(|| "auth".to_owned()),
                nc: with_qop.then_some(nc),
            };
            request.headers.push(realm.kind.headers().1, credentials.to_string());
        }
    }

    /// Judges the Authentication-Info of a success: `Some(false)` when the server does not know the
    /// password, `None` when it does not say.
    pub fn is_mutual(&self, request: &Request, info: &AuthenticationInfo) -> Option<bool> {
        let given = info.rspauth.as_deref()?;
        let shown = Credentials::parse(request.headers.first(&Name::Authorization)?).ok()?;
        let qop = shown.qop.as_deref().zip(shown.nc.as_deref()).zip(shown.cnonce.as_deref());
        let parts = Parts { nonce: &shown.nonce, uri: &shown.uri, qop: qop.map(|((q, n), c)| (q, n, c)) };
        let algorithm = shown.known_algorithm()?;
        let ha1 = algorithm.ha1(self.username.expose(), &shown.realm, self.password.expose());
        Some(algorithm.response(&ha1, "", &parts).eq_ignore_ascii_case(given))
    }
}
