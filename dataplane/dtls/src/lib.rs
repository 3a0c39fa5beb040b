#![forbid(unsafe_code)]
//! DTLS handshakes that agree on SRTP keys (RFC 5764), in DTLS 1.2 (RFC 6347) or 1.3 (RFC 9147), as server or client;
//! the protocol itself is the crate dimpl.
//!
//! No socket and no thread: datagrams, and the time, are handed in, what is to be sent comes out. That crate draws its
//! randomness itself, so this one stands at the edge, beside the process, and not on the floors where the same inputs
//! give the same outputs. Whose certificate is believed is for others to say: here any is taken, and its fingerprint
//! told (RFC 8122).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dimpl::{Dtls, DtlsCertificate, Output, SrtpProfile};
use rtp::srtp::{Keying, Suite};
use rustls_pki_types::CertificateDer;

/// Octets of one datagram that we send, as dimpl makes them.
const MTU: usize = 1150;

/// Why something cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DtlsError {
    /// A certificate could not be made.
    #[error("a certificate cannot be made: {0}")]
    Made(String),
    /// Its key is none that DTLS takes here.
    #[error("the key is not one of ECDSA with P-256 or P-384: {0}")]
    Key(String),
    /// Times that cannot be.
    #[error("{0}")]
    Config(String),
}

/// Whom we show ourselves as, and how long a handshake may take.
#[derive(Clone)]
pub struct Identity {
    config: Arc<dimpl::Config>,
    certificate: DtlsCertificate,
    fingerprint: fingerprint::Fingerprint,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// A self-signed certificate, made now.
    pub fn make(longest: Duration) -> Result<Self, DtlsError> {
        let made = |error: rcgen::Error| DtlsError::Made(error.to_string());
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(made)?;
        // RFC 8122 §5: nobody looks at the name.
        let parameters = rcgen::CertificateParams::new(vec!["weir".to_owned()]).map_err(made)?;
        let certificate = parameters.self_signed(&key).map_err(made)?;
        Identity::new(certificate.der(), key.serialize_der(), longest)
    }

    /// With a certificate and its key, both DER.
    pub fn new(certificate: &CertificateDer<'_>, key: Vec<u8>, longest: Duration) -> Result<Self, DtlsError> {
        let config = dimpl::Config::builder()
            .mtu(MTU)
            .require_client_certificate(true)
            .handshake_timeout(longest)
            .build()
            .map_err(|error| DtlsError::Config(error.to_string()))?;
        // The library takes any octets for a key and panics at the first handshake.
        config
            .crypto_provider()
            .key_provider
            .load_private_key(&key)
            .map_err(|error| DtlsError::Key(error.to_string()))?;
        Ok(Identity {
            config: Arc::new(config),
            fingerprint: fingerprint::of(certificate),
            certificate: DtlsCertificate { certificate: certificate.to_vec(), private_key: key },
        })
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> fingerprint::Fingerprint {
        self.fingerprint
    }
}

/// What a handshake came to.
#[derive(Clone, Debug)]
pub struct Keys {
    /// SHA-256 of the peer's certificate.
    pub fingerprint: fingerprint::Fingerprint,
    /// With what we send.
    pub send: Keying,
    /// With what the peer sends.
    pub receive: Keying,
}

/// What comes out.
#[derive(Clone, Debug)]
pub enum Event {
    /// A datagram for the peer.
    Send(Bytes),
    /// Done.
    Keys(Box<Keys>),
    /// It came to nothing; the handshake is of no use any more.
    Failed,
    /// The peer has ended it.
    Closed,
}

/// One handshake. It stays of use when it is done: the peer may have missed our last flight.
pub struct Handshake {
    dtls: Dtls,
    active: bool,
    shown: Option<fingerprint::Fingerprint>,
    agreed: Option<(Keying, Keying)>,
    connected: bool,
    told: bool,
    over: bool,
    next: Option<Instant>,
    room: Vec<u8>,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("active", &self.active)
            .field("told", &self.told)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

impl Handshake {
    /// `active`: as client, who begins at the first [`Handshake::timeout`].
    pub fn new(identity: &Identity, active: bool, now: Instant) -> Self {
        let (config, certificate) = (Arc::clone(&identity.config), identity.certificate.clone());
        let mut dtls = Dtls::new_auto(config, certificate, now);
        if active {
            dtls.set_active(true);
        }
        Handshake {
            dtls,
            active,
            shown: None,
            agreed: None,
            connected: false,
            told: false,
            over: false,
            next: None,
            room: vec![0; 2048],
        }
    }

    /// A datagram of the peer.
    pub fn datagram(&mut self, now: Instant, bytes: &[u8], out: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let bytes = if self.connected { bytes } else { before_clear_alert(bytes) };
        if bytes.is_empty() {
            return;
        }
        let taken = self.dtls.handle_timeout(now).and_then(|()| {
            // Each change is followed by a look at what it caused.
            self.drain(out);
            self.dtls.handle_packet(bytes)
        });
        self.drain(out);
        self.fail_on(taken.is_err_and(|error| !is_passed_by(&error)), out);
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Instant, out: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let done = self.dtls.handle_timeout(now);
        self.drain(out);
        self.fail_on(done.is_err(), out);
    }

    /// When [`Handshake::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next.filter(|_| !self.over)
    }

    /// It is of no use any more.
    pub fn is_over(&self) -> bool {
        self.over
    }

    fn fail_on(&mut self, failed: bool, out: &mut Vec<Event>) {
        if failed && !self.over {
            self.over = true;
            // What is agreed stays agreed.
            if !self.told {
                out.push(Event::Failed);
            }
        }
    }

    fn drain(&mut self, out: &mut Vec<Event>) {
        loop {
            match self.dtls.poll_output(&mut self.room) {
                Output::Packet(packet) => out.push(Event::Send(Bytes::copy_from_slice(packet))),
                Output::BufferTooSmall { needed } => self.room.resize(needed, 0),
                Output::PeerCert(certificate) => {
                    self.shown = Some(fingerprint::of(&CertificateDer::from(certificate)));
                }
                Output::KeyingMaterial(material, profile) => {
                    self.agreed = split(&material, profile, self.active);
                }
                Output::Connected => self.connected = true,
                Output::CloseNotify if !self.over => {
                    self.over = true;
                    out.push(Event::Closed);
                }
                Output::Timeout(at) => {
                    self.next = Some(at);
                    break;
                }
                // Nothing is spoken over it but keys.
                _ => {}
            }
        }
        if self.connected && !self.told {
            match (self.shown, self.agreed.take()) {
                (Some(fingerprint), Some((send, receive))) => {
                    self.told = true;
                    out.push(Event::Keys(Box::new(Keys { fingerprint, send, receive })));
                }
                // RFC 5764 §4.1: without the extension, or without a certificate, there is nothing to speak of.
                _ => self.fail_on(true, out),
            }
        }
    }
}

/// What the library has let be, though it says so: as client it waits on for the server's first words (RFC 6347
/// §4.1.2.7).
fn is_passed_by(error: &dimpl::Error) -> bool {
    use dimpl::UnexpectedMessageError::UnrecognizedAutoServerResponse;
    matches!(error, dimpl::Error::UnexpectedMessage(UnrecognizedAutoServerResponse))
}

/// The records before the first alert in clear. Before there are keys nobody can tell whose an alert is, and anybody who
/// knows both addresses could end a handshake with one: it is let go by (RFC 6347 §4.1.2.7), and a peer that has really
/// given up is noticed by its silence.
fn before_clear_alert(bytes: &[u8]) -> &[u8] {
    /// RFC 6347 §4.1: type, version, epoch, sequence number, length.
    const HEAD: usize = 13;
    /// RFC 5246 §6.2.1: ContentType.
    const ALERT: u8 = 21;
    let mut at = 0;
    while let Some([kind, _, _, e0, e1, .., l0, l1]) = bytes.get(at..).and_then(|b| b.first_chunk::<HEAD>()) {
        if *kind == ALERT && [*e0, *e1] == [0, 0] {
            break;
        }
        // What is not in clear (RFC 9147 §4) has another header, and no alert in clear behind it.
        if !(20..=26).contains(kind) {
            return bytes;
        }
        at += HEAD + usize::from(u16::from_be_bytes([*l0, *l1]));
    }
    bytes.get(..at).unwrap_or(bytes)
}

/// RFC 5764 §4.2: the client's key, the server's, the client's salt, the server's. What we send with comes first.
fn split(material: &[u8], profile: SrtpProfile, active: bool) -> Option<(Keying, Keying)> {
    let suite = match profile {
        SrtpProfile::AES128_CM_SHA1_80 => Suite::AesCm128HmacSha1_80,
        SrtpProfile::AEAD_AES_128_GCM => Suite::AeadAes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => Suite::AeadAes256Gcm,
        _ => return None,
    };
    let (key, salt) = (suite.key_octets(), suite.salt_octets());
    let keying = |of: usize| {
        let key_at = of * key;
        let salt_at = 2 * key + of * salt;
        let both = [material.get(key_at..key_at + key)?, material.get(salt_at..salt_at + salt)?].concat();
        Keying::new(suite, &both)
    };
    let (client, server) = (keying(0)?, keying(1)?);
    Some(if active { (client, server) } else { (server, client) })
}

#[cfg(test)]
mod tests;
