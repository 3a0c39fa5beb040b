//! Asks the DNS whom a name means (RFC 3263), beside everything else: whoever asks goes on, and is told within a deadline.
//!
//! The order of questions is [`Locate`]'s. Answers are remembered for as long as they say, by the resolver; so is that
//! there is none, for a while. A DNS that hangs costs a place among the questions under way until the deadline, and
//! whoever finds no place is told at once that nobody was found.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::Entropy;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};
use serde::{Deserialize, Serialize};
use sip::hop::Target;
use sip::locate::{Answer, Locate, Naptr, Question, Srv, Step};
use sip::{ClientKey, Peer, Transport};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::ConfigError;
use crate::metrics::{Located, Metrics};

/// The section `[dns]`: who is asked whom a name means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Servers. Empty: those of the system (`/etc/resolv.conf`), after its `/etc/hosts`.
    pub servers: Vec<SocketAddr>,
    /// Milliseconds within which a name is located; what was found until then counts.
    pub deadline_ms: u64,
    /// Milliseconds for one question to one server.
    pub question_ms: u64,
    /// Names that are being located at once; a request to a further one fails.
    pub names_max: usize,
    /// Answers that are remembered, each for as long as it says.
    pub answers_max: u64,
    /// Peers of one name that a request is sent to, one after another, when the ones before fail.
    pub peers_max: usize,
    /// Seconds for which a peer that failed is tried after the others of its name.
    pub avoid_s: u64,
    /// Requests to names that have no final answer yet; further ones fail.
    pub requests_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            servers: Vec::new(),
            deadline_ms: 4000,
            question_ms: 1500,
            names_max: 1024,
            answers_max: 8192,
            peers_max: 4,
            avoid_s: 30,
            requests_max: 50_000,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.deadline_ms == 0 || self.question_ms == 0 || self.names_max == 0 || self.peers_max == 0 {
            let why = "deadline_ms, question_ms, names_max and peers_max must be above 0".to_owned();
            return Err(ConfigError::Value { key: "dns", why });
        }
        Ok(())
    }

    pub(crate) const fn avoid(&self) -> Duration {
        Duration::from_secs(self.avoid_s)
    }
}

/// Whom a name means.
#[derive(Debug)]
pub(crate) struct Found {
    /// Of which request.
    pub(crate) key: ClientKey,
    /// Best first; none: nobody.
    pub(crate) peers: Vec<Peer>,
}

/// Locates names.
pub(crate) struct Resolver {
    /// None where the system says of no server.
    dns: Option<TokioResolver>,
    speaks: Vec<Transport>,
    places: Arc<Semaphore>,
    deadline: Duration,
    entropy: Entropy,
    metrics: Arc<Metrics>,
    found: mpsc::UnboundedSender<Found>,
}

impl Resolver {
    /// With the transports that we speak as a client, the best liked first. What is found comes out of the receiver: as
    /// much as was asked, and no more is under way than has places.
    pub(crate) fn new(
        settings: &Settings,
        speaks: Vec<Transport>,
        entropy: Entropy,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::UnboundedReceiver<Found>) {
        let (found, receive) = mpsc::unbounded_channel();
        let resolver = Resolver {
            dns: open(settings),
            speaks,
            places: Arc::new(Semaphore::new(settings.names_max)),
            deadline: Duration::from_millis(settings.deadline_ms),
            entropy,
            metrics,
            found,
        };
        (resolver, receive)
    }

    /// Begins to locate a target; an answer always comes.
    pub(crate) fn locate(&mut self, key: ClientKey, target: &Target) {
        let mut locate = Locate::new(target, &self.speaks, self.entropy.child());
        let (metrics, found) = (self.metrics.clone(), self.found.clone());
        let tell = move |what: Located, peers: Vec<Peer>| {
            metrics.located.count(what);
            // The front that asked may have ended.
            let _ = found.send(Found { key, peers });
        };
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return tell(Located::Full, Vec::new());
        };
        let Some(dns) = self.dns.clone() else { return tell(Located::Nobody, Vec::new()) };
        let deadline = Instant::now() + self.deadline;
        tokio::spawn(async move {
            let late = timeout_at(deadline, search(&dns, &mut locate)).await;
            let (what, peers) = match late {
                Ok(peers) if peers.is_empty() => (Located::Nobody, peers),
                Ok(peers) => (Located::Found, peers),
                Err(_) => (Located::Late, locate.so_far()),
            };
            tell(what, peers);
            drop(place);
        });
    }
}

/// The resolver; a system without servers is said and has none.
fn open(settings: &Settings) -> Option<TokioResolver> {
    let builder = match settings.servers.is_empty() {
        true => TokioResolver::builder_tokio(),
        false => {
            let servers = settings.servers.iter().map(|server| {
                let on = |protocol| {
                    let mut connection = ConnectionConfig::new(protocol);
                    connection.port = server.port();
                    connection
                };
                let both = vec![on(ProtocolConfig::Udp), on(ProtocolConfig::Tcp)];
                NameServerConfig::new(server.ip(), true, both)
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
        }
    };
    let built = builder.and_then(|mut builder| {
        let options = builder.options_mut();
        options.timeout = Duration::from_millis(settings.question_ms);
        options.attempts = 1;
        options.cache_size = settings.answers_max;
        options.max_active_requests = settings.names_max.saturating_mul(2);
        options.preserve_intermediates = false;
        options.case_randomization = true;
        if settings.servers.is_empty() {
            options.use_hosts_file = ResolveHosts::Always;
        }
        builder.build()
    });
    match built {
        Ok(dns) => Some(dns),
        Err(error) => {
            tracing::warn!(%error, "no DNS: names of other hosts mean nobody");
            None
        }
    }
}

async fn search(dns: &TokioResolver, locate: &mut Locate) -> Vec<Peer> {
    loop {
        let question = match locate.step() {
            Step::Found(peers) => return peers,
            Step::Ask(question) => question,
        };
        let answer = ask(dns, question).await;
        locate.answer(answer);
    }
}

/// An error is no answer: what can be known without it is gone on with (RFC 3263 §4.1, §4.2).
async fn ask(dns: &TokioResolver, question: Question) -> Answer {
    let text = |name: &Name| name.to_ascii().trim_end_matches('.').to_owned();
    match question {
        Question::Naptr(name) => {
            let mut records = Vec::new();
            if let Some(name) = absolute(&name)
                && let Ok(lookup) = dns.lookup(name, hickory_resolver::proto::rr::RecordType::NAPTR).await
            {
                records.extend(lookup.answers().iter().filter_map(|record| {
                    let RData::NAPTR(naptr) = &record.data else { return None };
                    Some(Naptr {
                        order: naptr.order,
                        preference: naptr.preference,
                        flags: String::from_utf8_lossy(&naptr.flags).into_owned(),
                        service: String::from_utf8_lossy(&naptr.services).into_owned(),
                        replacement: text(&naptr.replacement),
                    })
                }));
            }
            Answer::Naptr(records)
        }
        Question::Srv(name) => {
            let mut records = Vec::new();
            if let Some(name) = absolute(&name)
                && let Ok(lookup) = dns.lookup(name, hickory_resolver::proto::rr::RecordType::SRV).await
            {
                records.extend(lookup.answers().iter().filter_map(|record| {
                    let RData::SRV(srv) = &record.data else { return None };
                    Some(Srv {
                        priority: srv.priority,
                        weight: srv.weight,
                        port: srv.port,
                        target: text(&srv.target),
                    })
                }));
            }
            Answer::Srv(records)
        }
        Question::Addresses(name) => {
            let mut addresses: Vec<IpAddr> = Vec::new();
            if let Some(name) = absolute(&name)
                && let Ok(lookup) = dns.lookup_ip(name).await
            {
                addresses.extend(lookup.iter());
            }
            Answer::Addresses(addresses)
        }
    }
}

/// A name as it stands: the system's search list is for people, not for URIs.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}
