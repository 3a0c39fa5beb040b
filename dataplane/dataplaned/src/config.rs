//! The configuration of the data plane, `[dataplane]` of the one TOML. Unknown keys are refused with their line; each
//! key has a default that works on a laptop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::relay::RelaySettings;

/// Everything that the data plane can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of what has no path of its own. Made when missing.
    pub folder: PathBuf,
    /// The Unix socket on which control programs this data plane; without one, `dataplane.sock` in the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// The same for a control on another host.
    pub contract: ContractSettings,
    /// Another way in, for a proxy that speaks rtpengine's control protocol.
    pub ng: NgSettings,
    /// The threads that move media.
    pub shards: ShardSettings,
    /// What moves the packets.
    pub driver: DriverSettings,
    /// RTP ports and addresses.
    pub rtp: RtpSettings,
    /// MSRP listeners.
    pub msrp: MsrpSettings,
    /// Maxima.
    pub limits: LimitSettings,
    /// The Prometheus endpoint.
    pub metrics: MetricsSettings,
    /// Captures.
    pub spool: SpoolSettings,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            folder: PathBuf::from("weir-data"),
            socket: None,
            contract: ContractSettings::default(),
            ng: NgSettings::default(),
            shards: ShardSettings::default(),
            driver: DriverSettings::default(),
            rtp: RtpSettings::default(),
            msrp: MsrpSettings::default(),
            limits: LimitSettings::default(),
            metrics: MetricsSettings::default(),
            spool: SpoolSettings::default(),
        }
    }
}

/// Control by TCP with mutual TLS, beside the Unix socket. Without an address nobody is listened to there.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContractSettings {
    /// Where a control on another host programs this data plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// PEM file of the certificate chain that is shown to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// PEM file of the authorities that the control's certificate must chain to. Whoever has a certificate of theirs
    /// commands this data plane: let them sign nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<PathBuf>,
}

/// rtpengine's control protocol ("ng"): a Kamailio or OpenSIPS with its rtpengine module has its calls relayed here, beside
/// those of control. It knows no authentication, so it is spoken on loopback only. Without an address it is off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NgSettings {
    /// Where datagrams are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<SocketAddr>,
    /// Where connections are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<SocketAddr>,
    /// Calls at once.
    pub calls_max: usize,
    /// Replies that are kept for retransmitted requests.
    pub cookies_max: usize,
    /// How the source of a phone's media is learned: `strict` (only the address of its description), `window` (for a
    /// while after the answer, from that address's host or network), `trust` (for a while, from anywhere: needed where
    /// phones behind NAT write their private addresses, and open to whoever is faster than the phone).
    pub learning: String,
    /// Milliseconds after an answer in which a source may be learned.
    pub learning_ms: u64,
    /// Milliseconds without a packet from anybody after which a call is removed.
    pub silence_ms: u64,
    /// The same for a call on hold.
    pub silence_held_ms: u64,
    /// Milliseconds after which an offer that nobody answered is removed.
    pub unanswered_ms: u64,
}

impl Default for NgSettings {
    fn default() -> Self {
        NgSettings {
            udp: None,
            tcp: None,
            calls_max: 4096,
            cookies_max: 4096,
            learning: "window".to_owned(),
            learning_ms: 5000,
            silence_ms: 60_000,
            silence_held_ms: 3_600_000,
            unanswered_ms: 300_000,
        }
    }
}

/// The threads that move media, one per core.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShardSettings {
    /// The cores to pin to by their ids, one shard each; isolated cores are welcome. Empty: every core but the first
    /// one, and at least one.
    pub cores: Vec<usize>,
    /// A conference of more than this weight is spread over all shards: a leg of audio or of messages weighs 1, one of video
    /// 8. Only what is distributed to all is spread, and rooms of messages; such a conference is refused paths of other modes
    /// for legs of that kind from then on (selection of speakers, floor, relay, tap; relayed messages). 0: every conference
    /// is on one shard whole.
    pub context_weight_max: usize,
}

/// What moves the packets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DriverSettings {
    /// `auto` measures at start; `uring`; `mio`.
    pub kind: String,
    /// Events of one batch.
    pub batch_max: usize,
    /// Sends of a batch leave at the latest when so many microseconds of them are queued.
    pub batch_us: u32,
    /// Receive buffers of a shard, of 2 KiB each; the kernel goes through all of them in turn.
    pub buffers: u16,
    /// Datagrams of one batch to one receiver leave together (UDP GSO, the io_uring driver).
    pub gso: bool,
    /// Look for work this long before sleeping, in microseconds. 0 where CPU matters more than delay.
    pub spin_us: u32,
    /// Sleep at least this long when something comes meanwhile, in microseconds: packets that come in a row are done by
    /// one waking, at the price of as much delay (io_uring, Linux 6.12). What comes after a longer silence is not
    /// delayed. 0: every packet wakes.
    pub gather_us: u32,
    /// Plain one-to-one calls relayed by the kernel.
    pub kernel_relay: KernelRelaySettings,
}

/// Calls that the kernel relays by itself: plain RTP between two legs, both of whose peers are known, as long as nothing has to
/// be done to its packets. Needs Linux 6.6, CAP_BPF and CAP_NET_ADMIN; where that is not to be had, a start says so and everything
/// goes by sockets. What goes this way passes no rule of netfilter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KernelRelaySettings {
    /// The network interfaces where packets of calls arrive. Empty: the kernel relays nothing.
    pub interfaces: Vec<String>,
    /// Flows of each family (IPv4, IPv6) at once, of all shards; a call both of whose sides speak is two. Others go by sockets.
    pub flows_max: u32,
}

impl Default for KernelRelaySettings {
    fn default() -> Self {
        KernelRelaySettings { interfaces: Vec::new(), flows_max: 16_384 }
    }
}

impl Default for DriverSettings {
    fn default() -> Self {
        DriverSettings {
            kind: "auto".to_owned(),
            batch_max: 64,
            batch_us: 200,
            buffers: 512,
            gso: true,
            spin_us: 20,
            gather_us: 0,
            kernel_relay: KernelRelaySettings::default(),
        }
    }
}

/// RTP ports and addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RtpSettings {
    /// The first port, even.
    pub port_first: u16,
    /// The last port.
    pub port_last: u16,
    /// Milliseconds for which a port rests after a call before another call gets it: late packets of the old one must
    /// not reach the new one. The range must hold the ports of that time's calls too.
    pub port_rest_ms: u64,
    /// Differentiated services code point of what is sent.
    pub dscp: u8,
    /// Octets of a socket's receive buffer.
    pub receive_bytes: usize,
    /// PEM file of the certificate that DTLS handshakes show (WebRTC); without one, a self-signed certificate is made at
    /// each start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its key: ECDSA with P-256 or P-384.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The addresses that legs can be on. The first one is the default.
    pub interfaces: Vec<Interface>,
}

impl Default for RtpSettings {
    fn default() -> Self {
        RtpSettings {
            port_first: 40_000,
            port_last: 49_999,
            port_rest_ms: 5000,
            dscp: 46,
            receive_bytes: 256 << 10,
            certificate: None,
            key: None,
            interfaces: vec![Interface::default()],
        }
    }
}

/// An address that legs can be on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Interface {
    /// What control calls it.
    pub name: String,
    /// Where sockets are bound.
    pub address: IpAddr,
    /// What the SDP says, when that is another one (NAT).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised: Option<IpAddr>,
}

impl Default for Interface {
    fn default() -> Self {
        Interface { name: "default".to_owned(), address: LOOPBACK, advertised: None }
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// MSRP listeners: shard n has the ports `port + 2n` (TCP) and `port + 2n + 1` (TLS).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MsrpSettings {
    /// Where listeners are bound.
    pub address: IpAddr,
    /// What the path says, when that is another address or a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised: Option<String>,
    /// The first port; 0 takes free ones.
    pub port: u16,
    /// Listen with TLS too.
    pub tls: bool,
    /// PEM file of the certificate chain; without one, a self-signed certificate is made at each start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// A relay for clients that ask for one.
    pub relay: RelaySettings,
}

impl Default for MsrpSettings {
    fn default() -> Self {
        MsrpSettings {
            address: LOOPBACK,
            advertised: None,
            port: 2855,
            tls: true,
            certificate: None,
            key: None,
            relay: RelaySettings::default(),
        }
    }
}

/// Maxima of one shard. Start-up prints the memory that they allow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Contexts.
    pub contexts_max: usize,
    /// Legs.
    pub legs_max: usize,
    /// UDP sockets: one for each RTP leg with rtcp-mux, two without.
    pub sockets_max: usize,
    /// Legs of one context, those on other shards included.
    pub context_legs_max: usize,
    /// Receivers of one source.
    pub targets_max: usize,
    /// Slots of one context's paths together (select, floor): so many streams of our own may a leg have, up to 255.
    pub context_slots_max: usize,
    /// Legs that keep what they are sent for a while, to send again what their peers miss (NACK, where it was agreed).
    pub nack_legs_max: usize,
    /// Packets that each of them keeps.
    pub nack_packets_max: usize,
    /// Octets of them.
    pub nack_bytes_max: usize,
    /// Milliseconds for which they are kept.
    pub nack_ms: u64,
    /// Milliseconds by which a leg with a bandwidth may run ahead of it for a moment.
    pub police_burst_ms: u64,
    /// RTCP that a leg with a bandwidth may send in any case, kbit/s.
    pub rtcp_min_kbps: u32,
    /// However little one receiver says that it can take (REMB, TMMBR, losses), its source is told no less than this, kbit/s.
    pub estimate_min_kbps: u32,
    /// Stream connections.
    pub connections_max: usize,
    /// Stream connections that one address may open (one /64 with IPv6). Many phones behind one NAT are one address.
    pub connections_per_address_max: usize,
    /// Octets of one sender's messages that are on their way to another shard of his room; no more is read from him meanwhile.
    pub handed_bytes_max: usize,
    /// Octets that wait for one connection.
    pub queue_bytes_max: usize,
    /// Octets of one message when control names no limit.
    pub message_bytes_max: u64,
    /// Octets that a room holds for a member who has joined and has no connection.
    pub held_bytes_max: usize,
    /// Messages that it holds for him.
    pub held_messages_max: usize,
    /// Milliseconds for which it holds each of them.
    pub held_ms: u64,
    /// Octets that wait for an MSRP tap that is slower than what it taps, or has no connection.
    pub tap_bytes_max: usize,
    /// Messages of which something waits for it, or that are not whole yet.
    pub tap_messages_max: usize,
    /// Milliseconds from a connection's arrival to its first request.
    pub arrival_ms: u64,
    /// Milliseconds for which a receiver may be too slow before it is cut loose.
    pub slow_ms: u64,
    /// Milliseconds without a check of its peer after which a leg with ICE is lost.
    pub ice_ms: u64,
    /// Milliseconds in which a DTLS handshake is done, or has failed.
    pub dtls_ms: u64,
    /// Messages that may wait in a mailbox between two threads.
    pub mailbox_max: usize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        let engine = forward::Limits::default();
        LimitSettings {
            contexts_max: engine.contexts_max,
            legs_max: engine.legs_max,
            sockets_max: engine.sockets_max,
            context_legs_max: engine.context_legs_max,
            targets_max: engine.targets_max,
            context_slots_max: engine.context_slots_max,
            nack_legs_max: engine.nack_legs_max,
            nack_packets_max: engine.nack_packets_max,
            nack_bytes_max: engine.nack_bytes_max,
            nack_ms: engine.nack_ms,
            police_burst_ms: engine.police_burst_ms,
            rtcp_min_kbps: engine.rtcp_min_kbps,
            estimate_min_kbps: engine.estimate_min_kbps,
            connections_max: 4096,
            connections_per_address_max: 1024,
            handed_bytes_max: engine.handed_bytes_max,
            queue_bytes_max: engine.queue_bytes_max,
            message_bytes_max: engine.message_bytes_max,
            held_bytes_max: engine.held_bytes_max,
            held_messages_max: engine.held_messages_max,
            held_ms: engine.held_ms,
            tap_bytes_max: engine.tap_bytes_max,
            tap_messages_max: engine.tap_messages_max,
            arrival_ms: engine.arrival_ms,
            slow_ms: engine.slow_ms,
            ice_ms: engine.ice_ms,
            dtls_ms: engine.dtls_ms,
            mailbox_max: 4096,
        }
    }
}

impl LimitSettings {
    /// The engine's maxima.
    pub(crate) fn engine(&self) -> forward::Limits {
        forward::Limits {
            contexts_max: self.contexts_max,
            legs_max: self.legs_max,
            sockets_max: self.sockets_max,
            context_legs_max: self.context_legs_max,
            targets_max: self.targets_max,
            context_slots_max: self.context_slots_max.min(255),
            nack_legs_max: self.nack_legs_max,
            nack_packets_max: self.nack_packets_max,
            nack_bytes_max: self.nack_bytes_max,
            nack_ms: self.nack_ms,
            police_burst_ms: self.police_burst_ms,
            rtcp_min_kbps: self.rtcp_min_kbps,
            estimate_min_kbps: self.estimate_min_kbps,
            connections_max: self.connections_max,
            handed_bytes_max: self.handed_bytes_max,
            queue_bytes_max: self.queue_bytes_max,
            message_bytes_max: self.message_bytes_max,
            held_bytes_max: self.held_bytes_max,
            held_messages_max: self.held_messages_max,
            held_ms: self.held_ms,
            tap_bytes_max: self.tap_bytes_max,
            tap_messages_max: self.tap_messages_max,
            arrival_ms: self.arrival_ms,
            slow_ms: self.slow_ms,
            ice_ms: self.ice_ms,
            dtls_ms: self.dtls_ms,
            ..forward::Limits::default()
        }
    }
}

/// The Prometheus endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Serve Prometheus' text format at `/metrics`.
    pub on: bool,
    /// Where.
    pub address: SocketAddr,
    /// Milliseconds between two looks at a shard's counters.
    pub tick_ms: u64,
    /// Milliseconds between two reports of each leg's counters to control.
    pub counters_ms: u64,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        MetricsSettings {
            on: true,
            address: SocketAddr::new(LOOPBACK, 9462),
            tick_ms: 500,
            counters_ms: 5000,
        }
    }
}

/// Captures, and what waits for slow devices: written by the spool thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolSettings {
    /// Their folder; without one, `spool` in the folder. Made when a capture begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Packets that may wait to be written; further ones are missed, and counted.
    pub packets_max: usize,
    /// Captures at once.
    pub files_max: usize,
    /// Octets of one file when control names no limit.
    pub file_bytes_max: u64,
    /// Folder of what waits for devices that read a message more slowly than others do that have it at the same time; without
    /// one, `spill` in the folder. Made when something waits. Its files have no names, and what a run that died has left there
    /// is removed at the next start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spill_folder: Option<PathBuf>,
    /// Octets that may wait there for one device; beyond them the sender is paced by it.
    pub spill_file_bytes_max: u64,
    /// Octets that may wait there altogether, shared out to the shards. 0: nothing waits there, and the slowest device paces
    /// the others.
    pub spill_bytes_max: u64,
    /// Devices of one shard for which something may wait there at once.
    pub spill_files_max: usize,
    /// Octets of one shard that are not written yet; beyond them senders wait for the disk.
    pub spill_unwritten_bytes_max: usize,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        let engine = forward::Limits::default();
        SpoolSettings {
            folder: None,
            packets_max: 16_384,
            files_max: 64,
            file_bytes_max: 1 << 30,
            spill_folder: None,
            spill_file_bytes_max: engine.spill_file_bytes_max,
            spill_bytes_max: 8 << 30,
            spill_files_max: engine.spill_files_max,
            spill_unwritten_bytes_max: engine.spill_unwritten_bytes_max,
        }
    }
}

impl Config {
    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.folder.join("dataplane.sock"))
    }

    /// The folder of captures.
    pub fn spool_folder(&self) -> PathBuf {
        self.spool.folder.clone().unwrap_or_else(|| self.folder.join("spool"))
    }

    /// The folder of what waits for slow devices.
    pub fn spill_folder(&self) -> PathBuf {
        self.spool.spill_folder.clone().unwrap_or_else(|| self.folder.join("spill"))
    }

    /// The maxima of one engine.
    pub(crate) fn engine_limits(&self) -> forward::Limits {
        let spool = &self.spool;
        forward::Limits {
            spill_file_bytes_max: spool.spill_file_bytes_max,
            spill_bytes_max: spool.spill_bytes_max / self.cores().len().max(1) as u64,
            spill_files_max: spool.spill_files_max,
            spill_unwritten_bytes_max: spool.spill_unwritten_bytes_max,
            ..self.limits.engine()
        }
    }

    /// The cores that shards run on.
    pub fn cores(&self) -> Vec<usize> {
        if !self.shards.cores.is_empty() {
            return self.shards.cores.clone();
        }
        match std::thread::available_parallelism().map_or(1, usize::from) {
            1 => vec![0],
            cores => (1..cores).collect(),
        }
    }

    /// What does not fit together, for people.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.rtp.port_first.is_multiple_of(2), "rtp.port_first must be even (RFC 3550 §11)");
        anyhow::ensure!(
            self.rtp.port_last > self.rtp.port_first,
            "rtp.port_last is not after rtp.port_first"
        );
        anyhow::ensure!(!self.rtp.interfaces.is_empty(), "rtp.interfaces is empty");
        anyhow::ensure!(
            self.msrp.certificate.is_some() == self.msrp.key.is_some(),
            "msrp.certificate and msrp.key come together"
        );
        anyhow::ensure!(
            self.rtp.certificate.is_some() == self.rtp.key.is_some(),
            "rtp.certificate and rtp.key come together"
        );
        anyhow::ensure!(
            self.limits.ice_ms >= 1000 && self.limits.dtls_ms >= 1000,
            "limits.ice_ms and limits.dtls_ms are at least 1000"
        );
        let contract = &self.contract;
        anyhow::ensure!(
            contract.address.is_none()
                || (contract.certificate.is_some() && contract.key.is_some() && contract.trust.is_some()),
            "contract.address needs contract.certificate, contract.key and contract.trust"
        );
        anyhow::ensure!(
            self.ng.udp.iter().chain(&self.ng.tcp).all(|at| at.ip().is_loopback()),
            "ng.udp and ng.tcp are loopback addresses: whoever reaches them commands calls"
        );
        anyhow::ensure!(
            ["strict", "window", "trust"].contains(&self.ng.learning.as_str()),
            "ng.learning is strict, window or trust"
        );
        anyhow::ensure!(
            !self.msrp.relay.on || self.msrp.tls || self.msrp.relay.plain,
            "msrp.relay needs msrp.tls: clients authenticate over TLS (or msrp.relay.plain, where that will do)"
        );
        self.msrp.relay.engine()?;
        self.driver.kind.parse::<netio::Wanted>().map_err(anyhow::Error::msg)?;
        anyhow::ensure!(
            self.driver.kernel_relay.flows_max > 0,
            "driver.kernel_relay.flows_max is at least 1"
        );
        anyhow::ensure!(
            self.spool.spill_bytes_max == 0
                || (self.spool.spill_file_bytes_max >= 1 << 20
                    && self.spool.spill_unwritten_bytes_max >= 1 << 16),
            "spool.spill_file_bytes_max is at least 1048576 and spool.spill_unwritten_bytes_max at least 65536"
        );
        anyhow::ensure!(self.cores().len() <= 64, "more than 64 shards");
        anyhow::ensure!(
            (1..=4096).contains(&self.driver.batch_max) && self.driver.buffers >= 64,
            "driver.batch_max is 1..4096 and driver.buffers at least 64"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_survive_toml() {
        let config = Config::default();
        config.check().unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = toml::from_str::<Config>("[rtp]\nport_frist = 1\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("port_frist"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut odd = Config::default();
        odd.rtp.port_first = 40_001;
        let mut alone = Config::default();
        alone.msrp.key = Some("key.pem".into());
        let mut driver = Config::default();
        driver.driver.kind = "xdp".into();
        let mut open = Config::default();
        open.contract.address = Some(SocketAddr::new(LOOPBACK, 2860));
        let mut reachable = Config::default();
        reachable.ng.udp = Some(SocketAddr::from(([0, 0, 0, 0], 2223)));
        let mut learning = Config::default();
        learning.ng.learning = "all".into();
        for config in [odd, alone, driver, open, reachable, learning] {
            assert!(config.check().is_err());
        }
    }
}
