//! STUN Binding requests (RFC 8489) as the connectivity checks of ICE use them (RFC 8445 §7), for a side that only
//! answers: read in place, authenticated with the short-term credential, answered into a fixed buffer.
//!
//! Also the keep-alives of SIP flows (RFC 5626 §4.4.2), which have neither credentials nor fingerprint.
//!
//! Deliberately not here: requests of our own (an ICE-lite agent sends none), long-term credentials, and which address is
//! believed after a check (`forward`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};

/// Octets of the header.
const HEAD: usize = 20;
const COOKIE: [u8; 4] = 0x2112_A442u32.to_be_bytes();
/// What FINGERPRINT is mixed with (§14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;
/// Attributes that are looked at in one message.
const ATTRIBUTES_MAX: usize = 32;
/// Unknown attributes that an answer names.
const UNKNOWN_MAX: usize = 8;
/// Octets of the longest answer.
pub const ANSWER_MAX: usize = 128;

// RFC 8489 §18.3, RFC 8445 §16.1.
const MAPPED_ADDRESS: u16 = 0x0001;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;

const KNOWN: [u16; 11] = [
    MAPPED_ADDRESS,
    USERNAME,
    MESSAGE_INTEGRITY,
    ERROR_CODE,
    UNKNOWN_ATTRIBUTES,
    REALM,
    NONCE,
    MESSAGE_INTEGRITY_SHA256,
    XOR_MAPPED_ADDRESS,
    PRIORITY,
    USE_CANDIDATE,
];

/// What a message is (§5); only Binding is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Asks for an answer.
    Request,
    /// Asks for none.
    Indication,
    /// Answers.
    Success,
    /// Answers no.
    Error,
}

/// Why octets are no STUN message of ICE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StunError {
    /// Header, length or cookie.
    #[error("no STUN header")]
    Header,
    /// Another method than Binding.
    #[error("another method than Binding")]
    Method,
    /// An attribute beyond the end, of the wrong size, or too many of them.
    #[error("attributes that do not fit")]
    Attribute,
    /// FINGERPRINT is missing (RFC 8445 §7.1 asks for it), is not last, or is wrong.
    #[error("no right FINGERPRINT")]
    Fingerprint,
}

/// A password of the short-term credential, ready to be used. Never printed.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// Of a password as SDP carries it: ice-chars need no preparation (RFC 8265).
    pub fn new(password: &str) -> Self {
        Key(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()))
    }

    /// §14.5: over everything before the attribute, the length field counting to its end.
    fn tag(&self, before: &[u8]) -> Option<hmac::Tag> {
        let length = u16::try_from(before.len().checked_sub(HEAD)? + 24).ok()?;
        let mut context = hmac::Context::with_key(&self.0);
        context.update(before.get(..2)?);
        context.update(&length.to_be_bytes());
        context.update(before.get(4..)?);
        Some(context.sign())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// A Binding message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// What it is.
    pub class: Class,
    /// Names the transaction.
    pub transaction: [u8; 12],
    /// USERNAME.
    pub username: Option<&'a [u8]>,
    /// The sender nominates this pair (RFC 8445 §7.1.2).
    pub use_candidate: bool,
    /// The sender takes itself for the controlled side (RFC 8445 §7.1.3).
    pub controlled: bool,
    integrity: Option<(usize, &'a [u8])>,
    unknown: [u16; UNKNOWN_MAX],
    unknowns: usize,
}

impl<'a> Message<'a> {
    /// Reads a message. Attributes behind MESSAGE-INTEGRITY are not protected and mean nothing (RFC 8489 §14.5).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StunError> {
        Message::read(bytes, true)
    }

    /// `marked`: FINGERPRINT is asked for, as where other packets come on the same socket (RFC 8489 §7).
    fn read(bytes: &'a [u8], marked: bool) -> Result<Self, StunError> {
        let head = bytes.first_chunk::<HEAD>().ok_or(StunError::Header)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, transaction @ ..] = *head;
        let kind = u16::from_be_bytes([t0, t1]);
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if kind >> 14 != 0 || [c0, c1, c2, c3] != COOKIE || length % 4 != 0 || bytes.len() != HEAD + length {
            return Err(StunError::Header);
        }
        // §5: the class's two bits are 4 and 8.
        let class = match (kind & 0x0100 != 0, kind & 0x0010 != 0) {
            (false, false) => Class::Request,
            (false, true) => Class::Indication,
            (true, false) => Class::Success,
            (true, true) => Class::Error,
        };
        if kind & !0x0110 != 0x0001 {
            return Err(StunError::Method);
        }
        let mut message = Message {
            bytes,
            class,
            transaction,
            username: None,
            use_candidate: false,
            controlled: false,
            integrity: None,
            unknown: [0; UNKNOWN_MAX],
            unknowns: 0,
        };
        message.attributes(marked)?;
        Ok(message)
    }

    fn attributes(&mut self, marked: bool) -> Result<(), StunError> {
        let mut at = HEAD;
        for _ in 0..ATTRIBUTES_MAX {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let Some([t0, t1, l0, l1]) = rest.first_chunk::<4>().copied() else { break };
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let value = rest.get(4..4 + length).ok_or(StunError::Attribute)?;
            let next = at + 4 + length.next_multiple_of(4);
            let kind = u16::from_be_bytes([t0, t1]);
            if kind == FINGERPRINT {
                let claimed = value.first_chunk().copied().map(u32::from_be_bytes);
                let before = self.bytes.get(..at).unwrap_or_default();
                let right = length == 4 && next == self.bytes.len();
                return match claimed {
                    Some(claimed) if right && claimed == fingerprint(before) => Ok(()),
                    _ => Err(StunError::Fingerprint),
                };
            }
            if self.integrity.is_none() {
                self.attribute(kind, at, value)?;
            }
            at = next;
        }
        match at >= self.bytes.len() {
            true if marked => Err(StunError::Fingerprint),
            true => Ok(()),
            false => Err(StunError::Attribute),
        }
    }

    fn attribute(&mut self, kind: u16, at: usize, value: &'a [u8]) -> Result<(), StunError> {
        match kind {
            // §15: of an attribute that stands twice the first one counts.
            USERNAME => self.username = self.username.or(Some(value)),
            USE_CANDIDATE => self.use_candidate = true,
            ICE_CONTROLLED => self.controlled = true,
            MESSAGE_INTEGRITY if value.len() == 20 => self.integrity = Some((at, value)),
            MESSAGE_INTEGRITY => return Err(StunError::Attribute),
            other if other < 0x8000 && !KNOWN.contains(&other) => {
                if let Some(place) = self.unknown.get_mut(self.unknowns) {
                    *place = other;
                    self.unknowns += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Has what authenticates it: USERNAME and MESSAGE-INTEGRITY.
    pub const fn has_credentials(&self) -> bool {
        self.username.is_some() && self.integrity.is_some()
    }

    /// Was written by who knows the password (RFC 8489 §9.1.3).
    pub fn is_authentic(&self, key: &Key) -> bool {
        let Some((at, claimed)) = self.integrity else { return false };
        let ours = self.bytes.get(..at).and_then(|before| key.tag(before));
        ours.is_some_and(|ours| constant_time::verify_slices_are_equal(ours.as_ref(), claimed).is_ok())
    }

    /// Attributes that must be understood and are not (§6.3.1).
    pub fn unknown(&self) -> &[u16] {
        self.unknown.get(..self.unknowns).unwrap_or_default()
    }
}

/// Why a request is answered with an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// 400: without USERNAME or MESSAGE-INTEGRITY (RFC 8489 §9.1.3).
    BadRequest,
    /// 401: another credential.
    Unauthenticated,
    /// 420: attributes that must be understood and are not.
    UnknownAttribute,
    /// 487: both sides claim one role (RFC 8445 §7.3.1.1).
    RoleConflict,
}

impl Refusal {
    const fn wire(self) -> ([u8; 4], &'static str) {
        match self {
            Refusal::BadRequest => ([0, 0, 4, 0], "Bad Request"),
            Refusal::Unauthenticated => ([0, 0, 4, 1], "Unauthenticated"),
            Refusal::UnknownAttribute => ([0, 0, 4, 20], "Unknown Attribute"),
            Refusal::RoleConflict => ([0, 0, 4, 87], "Role Conflict"),
        }
    }
}

/// A message that we wrote.
#[derive(Clone, Copy)]
pub struct Written {
    octets: [u8; ANSWER_MAX],
    length: usize,
}

impl Written {
    fn new(kind: u16, transaction: &[u8; 12]) -> Self {
        let mut written = Written { octets: [0; ANSWER_MAX], length: 0 };
        written.put(&kind.to_be_bytes());
        written.put(&[0, 0]);
        written.put(&COOKIE);
        written.put(transaction);
        written
    }

    fn put(&mut self, octets: &[u8]) {
        if let Some(room) = self.octets.get_mut(self.length..self.length + octets.len()) {
            room.copy_from_slice(octets);
            self.length += octets.len();
        }
    }

    fn attribute(&mut self, kind: u16, value: &[&[u8]]) {
        let length: usize = value.iter().map(|part| part.len()).sum();
        self.put(&kind.to_be_bytes());
        self.put(&(length as u16).to_be_bytes());
        value.iter().for_each(|part| self.put(part));
        self.put([0; 3].get(..length.next_multiple_of(4) - length).unwrap_or_default());
        self.set_length(self.length);
    }

    fn set_length(&mut self, end: usize) {
        let length = (end - HEAD) as u16;
        if let Some(field) = self.octets.get_mut(2..4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }

    /// Authenticated where there is a key, and with its FINGERPRINT.
    fn finish(mut self, key: Option<&Key>) -> Self {
        if let Some(tag) = key.and_then(|key| key.tag(&self)) {
            self.attribute(MESSAGE_INTEGRITY, &[tag.as_ref()]);
        }
        self.set_length(self.length + 8);
        let sum = fingerprint(&self);
        self.attribute(FINGERPRINT, &[&sum.to_be_bytes()]);
        self
    }
}

impl std::ops::Deref for Written {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Written({} octets)", self.length)
    }
}

/// The answer to a check that came from `from` (RFC 8445 §7.3.1.2).
pub fn success(transaction: &[u8; 12], from: SocketAddr, key: &Key) -> Written {
    mapped(transaction, from).finish(Some(key))
}

/// What a keep-alive of a SIP flow over UDP is answered (RFC 5626 §4.4.2): without credentials, which it has not either
/// (RFC 5626 §8). Outer `None`: no STUN. Inner `None`: STUN that wants no answer.
pub fn keep_alive(bytes: &[u8], from: SocketAddr) -> Option<Option<Written>> {
    let message = Message::read(bytes, false).ok()?;
    Some(match message.class {
        Class::Request if message.unknown().is_empty() => Some(mapped(&message.transaction, from)),
        Class::Request => Some(refused(&message, Refusal::UnknownAttribute)),
        Class::Indication | Class::Success | Class::Error => None,
    })
}

/// A keep-alive as a SIP client sends it (RFC 5626 §4.4.2): for the far ends in tests.
pub fn binding(transaction: &[u8; 12]) -> Vec<u8> {
    Written::new(0x0001, transaction).to_vec()
}

fn mapped(transaction: &[u8; 12], from: SocketAddr) -> Written {
    let mut written = Written::new(0x0101, transaction);
    let [c0, c1, ..] = COOKIE;
    let [p0, p1] = from.port().to_be_bytes();
    let port = [p0 ^ c0, p1 ^ c1];
    // RFC 8489 §14.2: the address mixed with the cookie, and for IPv6 with the transaction too.
    let mask = || COOKIE.iter().chain(transaction);
    match from.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let mut octets = ip.octets();
            octets.iter_mut().zip(mask()).for_each(|(octet, mask)| *octet ^= mask);
            written.attribute(XOR_MAPPED_ADDRESS, &[&[0, 1], &port, &octets]);
        }
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            octets.iter_mut().zip(mask()).for_each(|(octet, mask)| *octet ^= mask);
            written.attribute(XOR_MAPPED_ADDRESS, &[&[0, 2], &port, &octets]);
        }
    }
    written
}

/// The refusal of a request. `key`: of one that was authentic (RFC 8489 §9.1.3: the others' refusals have none).
pub fn refuse(message: &Message<'_>, refusal: Refusal, key: Option<&Key>) -> Written {
    refused(message, refusal).finish(key)
}

fn refused(message: &Message<'_>, refusal: Refusal) -> Written {
    let mut written = Written::new(0x0111, &message.transaction);
    let (code, reason) = refusal.wire();
    written.attribute(ERROR_CODE, &[&code, reason.as_bytes()]);
    if refusal == Refusal::UnknownAttribute {
        let mut octets = [0; 2 * UNKNOWN_MAX];
        octets
            .chunks_exact_mut(2)
            .zip(message.unknown())
            .for_each(|(place, kind)| place.copy_from_slice(&kind.to_be_bytes()));
        let named = octets.get(..2 * message.unknown().len()).unwrap_or_default();
        written.attribute(UNKNOWN_ATTRIBUTES, &[named]);
    }
    written
}

/// A check as an ICE agent in the controlling role sends it: for the far ends in tests.
pub fn check(transaction: &[u8; 12], username: &str, key: &Key, nominates: bool) -> Vec<u8> {
    let mut written = Written::new(0x0001, transaction);
    written.attribute(USERNAME, &[username.as_bytes()]);
    written.attribute(PRIORITY, &[&0x6e00_1effu32.to_be_bytes()]);
    written.attribute(0x802A, &[&7u64.to_be_bytes()]); // ICE-CONTROLLING
    if nominates {
        written.attribute(USE_CANDIDATE, &[]);
    }
    written.finish(Some(key)).to_vec()
}

/// A message cut off before its integrity, with integrity and fingerprint made right: for the far ends in tests.
pub fn resign(before: &[u8], key: &Key) -> Vec<u8> {
    let mut written = Written { octets: [0; ANSWER_MAX], length: 0 };
    written.put(before);
    written.finish(Some(key)).to_vec()
}

/// §14.7: CRC-32 over everything before the attribute, the length field counting to its end.
fn fingerprint(before: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let sum = before.iter().fold(!0u32, |sum, octet| {
        let at = usize::from((sum as u8) ^ octet);
        (sum >> 8) ^ TABLE.get(at).copied().unwrap_or(0)
    });
    !sum ^ FINGERPRINT_XOR
}

/// ITU V.42, reflected.
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut sum, mut bit) = (n as u32, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { 0xEDB8_8320 ^ (sum >> 1) } else { sum >> 1 };
            bit += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, n is below 256")]
        {
            table[n] = sum;
        }
        n += 1;
    }
    table
}

#[cfg(test)]
mod tests;
