//! Digest authentication (RFC 7616 as RFC 8760 profiles it for SIP): MD5, SHA-256 and SHA-512-256, qop `auth`.
//!
//! The server keeps nothing: a nonce is a time and its HMAC, so any process with the secret can check it.
//! [`Replays`] adds a bounded memory of nonce counts where a repeated request would do harm.

mod client;
mod header;
mod server;

use std::fmt;

use base::Private;
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512_256};

pub use client::{Client, Unanswerable};
pub use header::{
    AuthenticationInfo, Authorization, Challenge, Credentials, ProxyAuthenticate, ProxyAuthorization,
    WwwAuthenticate,
};
pub use server::{Kind, Refusal, Replays, Server, Verdict};

/// A hash of RFC 8760 §2.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Algorithm {
    /// MD5, which old clients know only.
    Md5,
    /// SHA-256.
    Sha256,
    /// SHA-512/256.
    Sha512,
}

impl Algorithm {
    /// Every one.
    pub const ALL: [Algorithm; 3] = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha512 => "SHA-512-256",
        }
    }

    /// Reads a name in any case; the `-sess` variants are not supported.
    pub fn parse(text: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.as_str().eq_ignore_ascii_case(text))
    }

    fn hex(self, text: &str) -> String {
        match self {
            Algorithm::Md5 => hex::encode(Md5::digest(text)),
            Algorithm::Sha256 => hex::encode(Sha256::digest(text)),
            Algorithm::Sha512 => hex::encode(Sha512_256::digest(text)),
        }
    }

    /// H(username:realm:password) (RFC 7616 §3.4.2).
    pub fn ha1(self, username: &str, realm: &str, password: &str) -> String {
        self.hex(&format!("{username}:{realm}:{password}"))
    }

    /// The response (RFC 7616 §3.4.1); without qop the older form of RFC 2069.
    fn response(self, ha1: &str, method: &str, parts: &Parts<'_>) -> String {
        let ha2 = self.hex(&format!("{method}:{}", parts.uri));
        match parts.qop {
            Some((qop, nc, cnonce)) => self.hex(&format!("{ha1}:{}:{nc}:{cnonce}:{qop}:{ha2}", parts.nonce)),
            None => self.hex(&format!("{ha1}:{}:{ha2}", parts.nonce)),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

struct Parts<'a> {
    nonce: &'a str,
    uri: &'a str,
    /// qop, nc, cnonce.
    qop: Option<(&'a str, &'a str, &'a str)>,
}

/// What a password proves itself by, while a request is judged: user name, realm and password, hashed by the algorithm that
/// the request has chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Secrets {
    a1: Private<String>,
}

impl Secrets {
    /// Of a password.
    pub fn of(username: &str, realm: &str, password: &str) -> Secrets {
        Secrets { a1: format!("{username}:{realm}:{password}").into() }
    }

    fn ha1(&self, algorithm: Algorithm) -> String {
        algorithm.hex(self.a1.expose())
    }
}

#[cfg(test)]
mod tests;
