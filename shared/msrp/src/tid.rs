//! Transaction ids and continuation flags (RFC 4975 §9: transact-id, continuation-flag).

use std::fmt;

use base::Entropy;
use thiserror::Error;

use crate::octets::{IDENT, are};

/// The text is no transaction id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("not a transaction id")]
pub struct TidError;

/// A transaction id: 4 to 32 characters, held in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid {
    text: [u8; 32],
    len: u8,
}

impl Tid {
    /// Reads one. First character a letter or digit, the others also `. - + % =` (RFC 4975 §9, ident).
    pub fn parse(text: &[u8]) -> Result<Tid, TidError> {
        if !is_ident(text) {
            return Err(TidError);
        }
        let mut tid = Tid { text: [0; 32], len: u8::try_from(text.len()).map_err(|_| TidError)? };
        tid.text.get_mut(..text.len()).ok_or(TidError)?.copy_from_slice(text);
        Ok(tid)
    }

    /// A fresh one with 100 random bits: no body that streams through can be expected to hold its end-line,
    /// which nobody could search for in advance (RFC 4975 §7.1; CPM-FACTS §3.1).
    pub fn fresh(entropy: &mut Entropy) -> Tid {
        const LEN: u8 = 20;
        let mut tid = Tid { text: [0; 32], len: LEN };
        let text = tid.text.get_mut(..usize::from(LEN)).unwrap_or_default();
        entropy.fill_token(text);
        tid
    }

    /// A fresh one for a body that is at hand whole: its end-line is not in there (RFC 4975 §7.1).
    pub fn fresh_for(entropy: &mut Entropy, body: &[u8]) -> Tid {
        loop {
            let tid = Tid::fresh(entropy);
            let mut line = [b'-'; 7].to_vec();
            line.extend_from_slice(tid.as_bytes());
            if memchr::memmem::find(body, &line).is_none() {
                return tid;
            }
        }
    }

    /// The characters.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The characters as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Debug for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `ident` of RFC 4975 §9: transaction ids and Message-IDs.
pub(crate) fn is_ident(text: &[u8]) -> bool {
    (4..=32).contains(&text.len()) && text.first().is_some_and(u8::is_ascii_alphanumeric) && are(text, IDENT)
}

/// What the end-line says about the message (RFC 4975 §7.1, continuation-flag).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flag {
    /// `$`: the last chunk.
    Last,
    /// `+`: more chunks will follow.
    More,
    /// `#`: the sender gave up; what arrived is to be discarded.
    Abort,
}

impl Flag {
    /// The character on the wire.
    pub const fn octet(self) -> u8 {
        match self {
            Flag::Last => b'$',
            Flag::More => b'+',
            Flag::Abort => b'#',
        }
    }

    /// The flag of a character.
    pub const fn from_octet(octet: u8) -> Option<Flag> {
        match octet {
            b'$' => Some(Flag::Last),
            b'+' => Some(Flag::More),
            b'#' => Some(Flag::Abort),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4975_s9_ident_has_4_to_32_characters() {
        for good in ["abcd", "0.-+%=", "d93kswow", &"a".repeat(32)] {
            assert_eq!(Tid::parse(good.as_bytes()).unwrap().as_str(), good);
        }
        for bad in ["", "abc", ".abc", "ab cd", "abc$", "abcd\r", "gr\u{fc}n", &"a".repeat(33)] {
            assert_eq!(Tid::parse(bad.as_bytes()), Err(TidError), "{bad:?}");
        }
    }

    #[test]
    fn a_fresh_one_is_legal_and_another_each_time() {
        let mut entropy = Entropy::from_number(1);
        let (a, b) = (Tid::fresh(&mut entropy), Tid::fresh(&mut entropy));
        assert_eq!(a.as_str().len(), 20);
        assert_eq!(Tid::parse(a.as_bytes()), Ok(a));
        assert_ne!(a, b);
    }
}
