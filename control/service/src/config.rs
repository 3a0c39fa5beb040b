//! The sections of the configuration that `service` owns. Everything has a default that works on a laptop;
//! unknown keys are refused.

use std::net::{IpAddr, SocketAddr};

use base::{Budget, Private};
use serde::{Deserialize, Serialize};
use sip::Transport;

use crate::UserId;
use crate::focus::config::Controlling;

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value makes no sense.
    #[error("{key}: {reason}")]
    Value {
        /// Which key.
        key: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// An address is no SIP or tel URI.
    #[error("{key}: not an address")]
    Address {
        /// Which key.
        key: &'static str,
    },
}

/// Everything that decisions depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Names of this node.
    pub node: Node,
    /// Who is trusted, who must prove himself.
    pub identity: Identity,
    /// Registrations.
    pub registrar: Registrar,
    /// The Participating Function.
    pub participating: Participating,
    /// The Controlling Function.
    pub controlling: Controlling,
    /// Behind an IMS core.
    pub ims: Ims,
    /// What users publish of themselves.
    pub publications: Publishing,
    /// Media that we anchor.
    pub media: Media,
    /// Ways to other domains.
    pub away: Vec<Away>,
    /// Tables.
    pub limits: Limits,
    /// Subscribers known without a store.
    pub subscribers: Vec<SubscriberEntry>,
    /// Where our listeners are; the driver fills it in after binding.
    #[serde(skip)]
    pub listeners: Listeners,
    /// Secret of the stateless nonces; the driver draws it at start.
    #[serde(skip)]
    pub nonce_secret: [u8; 32],
}

/// Names of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Domains that are served here; the first one names the node in Warning and in our own URIs.
    pub domains: Vec<String>,
    /// The `Server` and `User-Agent` header; empty = none.
    pub product: String,
}

impl Default for Node {
    fn default() -> Self {
        Node { domains: vec!["weir.example".to_owned()], product: "CPM-serv/OMA2.2 weir".to_owned() }
    }
}

/// The way to another domain: a border element, a trunk, the core before us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Away {
    /// Which domains are reached by it; `*` is every one that is not ours.
    pub domains: Vec<String>,
    /// The next hop, a SIP URI: its host is an address or a name that is located (RFC 3263).
    pub next: String,
    /// It is told who our users are even where they ask for privacy, and what networks tell each other (RFC 3325 §5).
    #[serde(default)]
    pub trusted: bool,
}

/// Which registered flows speak for their user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowTrust {
    /// None: each request that opens something is challenged.
    Never,
    /// The connection that a REGISTER was authenticated on, as long as it stands. Anybody can write a source
    /// address on a datagram.
    #[default]
    Connections,
    /// The address, of a datagram or of whatever connection: the network before us keeps others from using it.
    Always,
}

/// Who is trusted, who must prove himself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Digest realm; empty = the first domain.
    pub realm: String,
    /// Addresses whose P-Asserted-Identity is believed and who are never challenged (IMS core, test peers).
    pub trusted_peers: Vec<IpAddr>,
    /// Life of a nonce, seconds.
    pub nonce_life_s: u32,
    /// Where a request from the registered flow of its user needs no digest of its own.
    pub registered_flow_suffices: FlowTrust,
    /// Offer SHA-512-256 (RFC 8760), first.
    pub sha512_256: bool,
    /// Offer SHA-256 (RFC 8760), before MD5. Old clients look at the first challenge only and know MD5 alone.
    pub sha256: bool,
    /// Offer MD5.
    pub md5: bool,
}

impl Default for Identity {
    fn default() -> Self {
        Identity {
            realm: String::new(),
            trusted_peers: Vec::new(),
            nonce_life_s: 300,
            registered_flow_suffices: FlowTrust::Connections,
            sha512_256: false,
            sha256: true,
            md5: true,
        }
    }
}

/// Registrations (RFC 3261 §10, RFC 5626, RFC 3327, RFC 3608).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registrar {
    /// Granted when nothing is asked, seconds.
    pub expires_default_s: u32,
    /// Below it: 423 with Min-Expires, seconds.
    pub expires_min_s: u32,
    /// Never granted more, seconds.
    pub expires_max_s: u32,
    /// Answer with pub-gruu to a contact with +sip.instance (RFC 5627).
    pub gruu: bool,
    /// Answer with Service-Route (RFC 3608).
    pub service_route: bool,
}

impl Default for Registrar {
    fn default() -> Self {
        Registrar {
            expires_default_s: 3600,
            expires_min_s: 60,
            expires_max_s: 600_000,
            gruu: true,
            service_route: false,
        }
    }
}

/// The Participating Function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Participating {
    /// True: Conversation-ID and Contribution-ID are made up where a request lacks them; false: 400.
    pub lenient_ids: bool,
    /// Octets of a MESSAGE body; above: 413.
    pub pager_max_bytes: u32,
    /// How long an IMDN state is kept, days.
    pub imdn_keep_days: u32,
    /// How long an undelivered message is kept, seconds.
    pub message_keep_s: u32,
    /// How long devices may ring, seconds (Timer C).
    pub ringing_max_s: u32,
    /// A session whose every media leg is silent for so long is ended, seconds; 0 = never.
    pub idle_s: u32,
    /// Session-Expires that we ask for, seconds (RFC 4028).
    pub session_expires_s: u32,
    /// Min-SE, seconds.
    pub session_expires_min_s: u32,
    /// A lost MSRP leg may be set up again for so long before BYE, seconds.
    pub leg_lost_grace_s: u32,
    /// When the other side has hung up, a device that has not read yet all that was sent to it, though others have, keeps
    /// its session for so long, seconds; 0: nobody waits for it.
    pub slow_max_s: u32,
    /// One 603 ends the fork.
    pub decline_all: bool,
}

impl Default for Participating {
    fn default() -> Self {
        Participating {
            lenient_ids: true,
            pager_max_bytes: 8192,
            imdn_keep_days: 30,
            message_keep_s: 259_200,
            ringing_max_s: 180,
            idle_s: 300,
            session_expires_s: 1800,
            session_expires_min_s: 90,
            leg_lost_grace_s: 30,
            slow_max_s: 7200,
            decline_all: true,
        }
    }
}

/// Behind an IMS core (TS 24.229 §5.7), and the reg event (RFC 3680).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ims {
    /// Requests to the core that have no P-Charging-Vector get one (RFC 7315 §4.6).
    pub charging_vector: bool,
    /// A third-party REGISTER begins a subscription to the S-CSCF's reg event of its user (RFC 3680).
    pub reg_event: bool,
    /// Seconds that we ask for, and that we grant at most.
    pub reg_event_s: u32,
    /// Less is refused with 423, seconds.
    pub reg_event_min_s: u32,
    /// The P-Charging-Function-Addresses of requests to the core that have none (RFC 7315 §4.5); empty = none.
    pub charging_functions: String,
}

impl Default for Ims {
    fn default() -> Self {
        Ims {
            charging_vector: false,
            reg_event: false,
            reg_event_s: 3761,
            reg_event_min_s: 60,
            charging_functions: String::new(),
        }
    }
}

/// Event state that devices publish (RFC 3903).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publishing {
    /// Seconds that are granted when nothing is asked, and at most.
    pub expires_s: u32,
    /// Less is refused with 423, seconds.
    pub expires_min_s: u32,
    /// Octets of one document; more are refused with 413.
    pub body_max_bytes: usize,
}

impl Default for Publishing {
    fn default() -> Self {
        Publishing { expires_s: 3600, expires_min_s: 60, body_max_bytes: 16 << 10 }
    }
}

/// Media that we anchor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// Whose RTP is heard besides the announced address's.
    pub latching: Latching,
    /// How long the source of an RTP stream may be learned, milliseconds.
    pub learning_ms: u32,
    /// An RTP leg without packets for so long is lost, milliseconds; 0 = never.
    pub rtp_timeout_ms: u32,
    /// What a peer sends is held to the bandwidth that it was told (b=AS, b=TIAS), where it was told one.
    pub police: bool,
    /// So much more of it passes, per cent: many phones name what their codec needs and leave the headers out.
    pub police_headroom_percent: u32,
    /// Octets of one MSRP message; 0 = the data plane's limit.
    pub msrp_max_bytes: u64,
    /// What becomes of lines with keys (RTP/SAVP, RFC 4568).
    pub srtp: Srtp,
    /// What becomes of lines with keys by DTLS (WebRTC). A device that is registered by WebSocket (RFC 7118) is offered
    /// them whatever the other side has, unless they are refused.
    pub dtls: Srtp,
    /// Crypto suites that we take, and offer in this order.
    pub srtp_suites: Vec<SrtpSuite>,
}

impl Default for Media {
    fn default() -> Self {
        Media {
            latching: Latching::Window,
            learning_ms: 10_000,
            rtp_timeout_ms: 60_000,
            police: true,
            police_headroom_percent: 100,
            msrp_max_bytes: 0,
            srtp: Srtp::Mirror,
            dtls: Srtp::Terminate,
            srtp_suites: vec![
                SrtpSuite::AeadAes256Gcm,
                SrtpSuite::AeadAes128Gcm,
                SrtpSuite::AesCm256HmacSha1_80,
                SrtpSuite::AesCm128HmacSha1_80,
                SrtpSuite::AesCm128HmacSha1_32,
            ],
        }
    }
}

impl Media {
    /// The bandwidth that a leg is held to whose peer was told so much; 0: to none.
    pub(crate) fn policed_kbps(&self, told_kbps: u64) -> u32 {
        let more = told_kbps.saturating_mul(u64::from(self.police_headroom_percent)) / 100;
        if self.police { u32::try_from(told_kbps.saturating_add(more)).unwrap_or(u32::MAX) } else { 0 }
    }
}

/// What becomes of lines with keys in sessions between two; a conference takes each member's line as it is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Srtp {
    /// They are refused, in conferences too.
    Refuse,
    /// Who offers keys is answered with keys, and the other side is offered keys of its own.
    Mirror,
    /// Who offers keys is answered with keys, and the other side is offered plain RTP.
    Terminate,
}

/// A crypto suite by its name in SDP (RFC 4568 §6.2, RFC 6188 §4, RFC 7714 §14.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SrtpSuite {
    /// AES in counter mode, tags of 80 bits.
    #[serde(rename = "AES_CM_128_HMAC_SHA1_80")]
    AesCm128HmacSha1_80,
    /// The same with tags of 32 bits in RTP.
    #[serde(rename = "AES_CM_128_HMAC_SHA1_32")]
    AesCm128HmacSha1_32,
    /// With keys of 256 bits.
    #[serde(rename = "AES_256_CM_HMAC_SHA1_80")]
    AesCm256HmacSha1_80,
    /// The same with tags of 32 bits in RTP.
    #[serde(rename = "AES_256_CM_HMAC_SHA1_32")]
    AesCm256HmacSha1_32,
    /// AES-GCM.
    #[serde(rename = "AEAD_AES_128_GCM")]
    AeadAes128Gcm,
    /// AES-GCM with keys of 256 bits.
    #[serde(rename = "AEAD_AES_256_GCM")]
    AeadAes256Gcm,
}

impl SrtpSuite {
    pub(crate) const fn crypto(self) -> sdp::CryptoSuite {
        match self {
            SrtpSuite::AesCm128HmacSha1_80 => sdp::CryptoSuite::AesCm128HmacSha1_80,
            SrtpSuite::AesCm128HmacSha1_32 => sdp::CryptoSuite::AesCm128HmacSha1_32,
            SrtpSuite::AesCm256HmacSha1_80 => sdp::CryptoSuite::AesCm256HmacSha1_80,
            SrtpSuite::AesCm256HmacSha1_32 => sdp::CryptoSuite::AesCm256HmacSha1_32,
            SrtpSuite::AeadAes128Gcm => sdp::CryptoSuite::AeadAes128Gcm,
            SrtpSuite::AeadAes256Gcm => sdp::CryptoSuite::AeadAes256Gcm,
        }
    }
}

/// Whose RTP a leg hears (CPM-FACTS §4.4). The address that the peer's SDP announced always comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Latching {
    /// The announced address only.
    Strict,
    /// Within the window another of its network (the same /24 or /48), when the announced one stays silent.
    Window,
    /// Within the window the first one that speaks, from anywhere: for phones behind NAT.
    Trust,
}

impl From<Latching> for contract::Learning {
    fn from(latching: Latching) -> Self {
        match latching {
            Latching::Strict => contract::Learning::Strict,
            Latching::Window => contract::Learning::Window,
            Latching::Trust => contract::Learning::Trust,
        }
    }
}

/// Tables of one lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bindings in all.
    pub bindings_max: usize,
    /// Contacts of one user.
    pub bindings_per_user_max: usize,
    /// Sessions.
    pub sessions_max: usize,
    /// Sessions of one user.
    pub sessions_per_user_max: usize,
    /// Messages between acceptance and the last device's answer.
    pub messages_max: usize,
    /// IMDN states kept in memory (the others are in the store).
    pub imdn_max: usize,
    /// Requests that wait for facts.
    pub asks_max: usize,
    /// Timers.
    pub timers_max: usize,
    /// Devices that one request is forked to.
    pub fork_max: usize,
    /// Subscriptions to registrations, ours at an S-CSCF and others' here, each.
    pub reg_events_max: usize,
    /// Others' to one user's.
    pub reg_events_per_user_max: usize,
    /// Published event states.
    pub publications_max: usize,
    /// Those of one user.
    pub publications_per_user_max: usize,
    /// Early dialogs that one INVITE of ours may bring (RFC 3261 §12.1).
    pub early_dialogs_max: usize,
    /// Media lines of one session description.
    pub media_lines_max: usize,
    /// Nonces whose use count is remembered against replay.
    pub nonces_max: usize,
    /// Relayed dialogs that are no sessions (SUBSCRIBE, REFER).
    pub relays_max: usize,
    /// Those of one user.
    pub relays_per_user_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            bindings_max: 100_000,
            bindings_per_user_max: 10,
            sessions_max: 50_000,
            sessions_per_user_max: 1000,
            messages_max: 50_000,
            imdn_max: 100_000,
            asks_max: 10_000,
            timers_max: 500_000,
            fork_max: 10,
            reg_events_max: 50_000,
            reg_events_per_user_max: 10,
            publications_max: 10_000,
            publications_per_user_max: 10,
            early_dialogs_max: 8,
            media_lines_max: 16,
            nonces_max: 100_000,
            relays_max: 50_000,
            relays_per_user_max: 100,
        }
    }
}

impl Limits {
    /// The memory of so many lanes at most, as rows: about what full tables take.
    pub fn budget(&self, lanes: u64) -> Budget {
        let all = |of_one: usize| lanes * of_one as u64;
        let mut budget = Budget::default();
        budget
            .row("bindings", all(self.bindings_max), 1 << 10)
            // Descriptions of a handful of sides, their dialogs, the wanted media.
            .row("sessions", all(self.sessions_max), 24 << 10)
            .row("messages under way", all(self.messages_max), 12 << 10)
            .row("notification states", all(self.imdn_max), 512)
            .row("requests that wait for facts", all(self.asks_max), 4 << 10)
            .row("timers", all(self.timers_max), 96)
            .row("nonces", all(self.nonces_max), 128)
            .row("relayed subscriptions", all(self.relays_max), 4 << 10)
            .row("subscriptions to registrations", all(self.reg_events_max), 2 * (4 << 10))
            .row("published event states", all(self.publications_max), 16 << 10);
        budget
    }
}

/// A subscriber in the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriberEntry {
    /// The address of record, `tel:` or `sip:`.
    pub address: UserId,
    /// Digest username; empty = the user part of the address.
    #[serde(default)]
    pub name: Private<String>,
    /// Digest password.
    pub password: Private<String>,
}

/// Where we listen, as peers see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listeners {
    /// SIP over UDP.
    pub udp: Option<SocketAddr>,
    /// SIP over TCP.
    pub tcp: Option<SocketAddr>,
    /// SIP over TLS.
    pub tls: Option<SocketAddr>,
    /// SIP over WebSocket.
    pub ws: Option<SocketAddr>,
    /// SIP over WebSocket under TLS.
    pub wss: Option<SocketAddr>,
}

impl Listeners {
    /// The address that belongs into Contact and Via towards a peer of that transport.
    pub fn of(&self, transport: Transport) -> Option<SocketAddr> {
        match transport {
            Transport::Udp => self.udp,
            Transport::Tcp => self.tcp,
            Transport::Tls => self.tls,
            Transport::Ws => self.ws,
            Transport::Wss => self.wss,
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = SocketAddr> {
        [self.udp, self.tcp, self.tls, self.ws, self.wss].into_iter().flatten()
    }
}

impl Config {
    /// The first domain.
    pub fn domain(&self) -> &str {
        self.node.domains.first().map_or("localhost", String::as_str)
    }

    /// The digest realm.
    pub fn realm(&self) -> &str {
        if self.identity.realm.is_empty() { self.domain() } else { &self.identity.realm }
    }

    /// True for one of our domains.
    pub fn serves(&self, host: &str) -> bool {
        self.node.domains.iter().any(|d| d.eq_ignore_ascii_case(host))
    }

    /// True when the host names this node: a served domain, or the address of a listener.
    pub fn is_ours(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        self.serves(bare) || bare.parse::<IpAddr>().is_ok_and(|ip| self.listeners.all().any(|a| a.ip() == ip))
    }

    /// The way to another domain, where there is one: the first that names it, else the first for all.
    pub(crate) fn away(&self, host: &str) -> Option<&Away> {
        let named = |name: &str| {
            let is = move |domain: &String| domain.eq_ignore_ascii_case(name);
            self.away.iter().find(|away| away.domains.iter().any(is))
        };
        named(host).or_else(|| named("*"))
    }

    /// Refuses what could not work; the driver calls it before it starts lanes.
    pub fn check(&self) -> Result<(), ConfigError> {
        let value = |key, reason| Err(ConfigError::Value { key, reason });
        if self.node.domains.iter().all(String::is_empty) {
            return value("node.domains", "at least one is needed");
        }
        if !self.identity.sha512_256 && !self.identity.sha256 && !self.identity.md5 {
            return value("identity", "one of sha512_256, sha256 and md5 is needed");
        }
        let r = &self.registrar;
        if r.expires_min_s > r.expires_default_s || r.expires_default_s > r.expires_max_s {
            return value("registrar.expires_*_s", "min <= default <= max must hold");
        }
        // RFC 4028 §4: 90 s is the least that a session interval may be.
        if self.participating.session_expires_min_s < 90 {
            return value("participating.session_expires_min_s", "at least 90");
        }
        if self.participating.session_expires_s < self.participating.session_expires_min_s {
            return value("participating.session_expires_s", "not below session_expires_min_s");
        }
        if self.limits.early_dialogs_max == 0 || self.limits.early_dialogs_max > 64 {
            return value("limits.early_dialogs_max", "1 to 64");
        }
        for away in &self.away {
            let next: Option<sip::Uri> = away.next.parse().ok();
            if away.domains.is_empty() || next.and_then(|next| sip::hop::target_of(&next)).is_none() {
                return value("away", "domains, and a SIP URI as the next hop, are needed");
            }
        }
        if self.limits.fork_max == 0 || self.limits.fork_max > 32 {
            return value("limits.fork_max", "1 to 32");
        }
        self.controlling.check()
    }
}
