//! AUTH at the relay of the data plane (RFC 4976 §5.1): its clients are our subscribers, with the passwords that they
//! register with. The data plane asks, we judge the digest; what a session is and how long it lasts is its affair.
//!
//! ```text
//!   no credentials ────────────────────────▶ 401, a challenge for each algorithm
//!   bad ones, an old nonce, a count again ─▶ 401 (stale where the password was right)
//!   good ones ─────────────────────────────▶ 200 with proof that we know the password too; without service: 403
//! ```

use std::collections::BTreeMap;

use contract::{Auth, AuthVerdict, Decide};
use sip::digest::{Credentials, Secrets, Verdict};
use sip::typed::Value as _;

use crate::facts::Facts;
use crate::identity::Directory;
use crate::lane_key::user_of_name;
use crate::records::{Row, Subscriber};
use crate::turn::Turn;
use crate::{Ask, Key, UserId};

const METHOD: &str = "AUTH";

/// An AUTH that waits for its subscriber's row.
#[derive(Debug)]
struct Waiting {
    id: u64,
    credentials: Credentials,
    key: Key,
}

/// AUTHs of one lane.
#[derive(Debug, Default)]
pub(crate) struct Auths {
    waiting: BTreeMap<Ask, Waiting>,
}

impl Auths {
    /// The data plane asks.
    pub(crate) fn asked(&mut self, turn: &mut Turn<'_>, directory: &Directory, id: u64, auth: &Auth) {
        let Some(credentials) = credentials(auth).filter(|c| c.realm == turn.desk.digest.realm) else {
            return challenge(turn, id, false);
        };
        if !is_for_relay(&credentials.uri, &auth.uri) {
            return refuse(turn, id);
        }
        let user = user_of_name(turn.config(), &credentials.username);
        let need = match directory.by_name(&credentials.username) {
            Some(_) => None,
            None => user.and_then(|user| directory.need(&user)),
        };
        let Some(key) = need else {
            return judge(turn, directory, &Facts::default(), id, &credentials);
        };
        if self.waiting.len() >= turn.config().limits.asks_max {
            turn.desk.counters.asks_refused += 1;
            return decide(turn, id, 408, AuthVerdict::default());
        }
        let ask = turn.need(vec![key.clone()]);
        self.waiting.insert(ask, Waiting { id, credentials, key });
    }

    /// The store has answered.
    pub(crate) fn facts(&mut self, turn: &mut Turn<'_>, directory: &Directory, ask: Ask, rows: Vec<Row>) {
        if let Some(Waiting { id, credentials, key }) = self.waiting.remove(&ask) {
            judge(turn, directory, &Facts::new(vec![key], rows), id, &credentials);
        }
    }
}

/// What was shown. Clients differ in whether they name the digest-uri (PEERS): where they do not, it is the URI that
/// AUTH was sent to.
fn credentials(auth: &Auth) -> Option<Credentials> {
    let shown = &auth.authorization;
    let whole = || format!("{shown}, uri=\"{}\"", auth.uri.replace(['"', '\\'], ""));
    let parsed = Credentials::parse(shown.as_bytes()).or_else(|_| Credentials::parse(whole().as_bytes()));
    parsed.ok().filter(|c| !c.nonce.is_empty() && !c.response.is_empty())
}

/// Whether credentials speak of the relay that they were shown to: by its host; parameters and ports differ.
fn is_for_relay(digest_uri: &str, asked: &str) -> bool {
    let host = |uri: &str| {
        let (_, rest) = uri.split_once("://")?;
        let authority = rest.split(['/', ';']).next()?;
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|c| c.is_ascii_digit()) => host,
            _ => authority,
        };
        Some(host.to_ascii_lowercase())
    };
    digest_uri == asked || host(digest_uri).is_some_and(|host_named| Some(host_named) == host(asked))
}

fn judge(turn: &mut Turn<'_>, directory: &Directory, facts: &Facts, id: u64, credentials: &Credentials) {
    let known = directory.by_name(&credentials.username).or_else(|| {
        let user = user_of_name(turn.config(), &credentials.username)?;
        directory.find(&user, facts)
    });
    // For an unknown user an impossible password is tried: time tells nothing.
    let password = known.map_or("\0", |subscriber: &Subscriber| subscriber.password.expose());
    let secrets = Secrets::of(&credentials.username, turn.config().realm(), password);
    let now = turn.now.wall;
    match (turn.desk.digest.judge(credentials, METHOD, &secrets, now), known) {
        (Verdict::Accepted, Some(subscriber)) if turn.desk.replays.is_first(credentials) => {
            if !subscriber.service {
                return decide(turn, id, 403, AuthVerdict::default());
            }
            let info = turn.desk.digest.info(credentials, &secrets).to_string();
            let account = account(&subscriber.user);
            decide(turn, id, 200, AuthVerdict { challenges: Vec::new(), info, account });
        }
        // RFC 7616 §3.3: the password is right, the nonce is not fresh.
        (Verdict::Accepted | Verdict::Stale, Some(_)) => challenge(turn, id, true),
        _ => refuse(turn, id),
    }
}

fn refuse(turn: &mut Turn<'_>, id: u64) {
    turn.desk.counters.auth_failed += 1;
    challenge(turn, id, false);
}

fn challenge(turn: &mut Turn<'_>, id: u64, stale: bool) {
    turn.desk.counters.challenges += 1;
    let opaque = |nonce: &str| nonce.get(..8).map(str::to_owned);
    let challenges = turn.desk.digest.challenges(turn.now.wall, stale).into_iter();
    let challenges = challenges.map(|mut challenge| {
        challenge.opaque = opaque(&challenge.nonce);
        challenge.to_string()
    });
    let verdict = AuthVerdict { challenges: challenges.collect(), ..AuthVerdict::default() };
    decide(turn, id, 401, verdict);
}

fn decide(turn: &mut Turn<'_>, id: u64, status: u32, auth: AuthVerdict) {
    turn.decide(Decide { id, status, auth: Some(auth), ..Decide::default() });
}

/// Tells users apart without naming them.
fn account(user: &UserId) -> u64 {
    let octets = user.as_str().bytes();
    octets.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests;
