//! The ids that tie CPM requests together (OMA CPM Conversation Functions, appendix C; CPM-FACTS §2.2, §7.1).
//!
//! Each is an opaque token of 1 to 255 visible ASCII characters that compares byte by byte.

use std::fmt;

use base::Entropy;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Octets of an id.
pub const OCTETS_MAX: usize = 255;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $header:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The SIP header that carries it.
            pub const HEADER: &'static str = $header;

            /// Reads a header value; surrounding blanks do not count.
            pub fn parse(value: &str) -> Result<Self, Error> {
                token(value).map(|t| $name(t.to_owned())).ok_or(Error::Value($header))
            }

            /// As it goes on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(value: String) -> Result<Self, Error> {
                $name::parse(&value)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id! {
    /// Names a conversation across its contributions; drawn once, by whoever begins it.
    ConversationId, "Conversation-ID"
}
id! {
    /// Names one contribution (a message, a session) within its conversation.
    ContributionId, "Contribution-ID"
}
id! {
    /// The contribution to which a request is the reply.
    InReplyToContributionId, "InReplyTo-Contribution-ID"
}
id! {
    /// The Contribution-ID of the one-to-one session that a group session replaces for this invitee.
    SessionReplaces, "Session-Replaces"
}

impl ConversationId {
    /// A new one: 128 random bits as lower-case hex.
    pub fn draw(entropy: &mut Entropy) -> Self {
        ConversationId(hex128(entropy))
    }
}

impl ContributionId {
    /// A new one: 128 random bits as 32 lower-case hex digits, the shape that CPM suggests.
    pub fn draw(entropy: &mut Entropy) -> Self {
        ContributionId(hex128(entropy))
    }
}

impl From<ContributionId> for SessionReplaces {
    fn from(id: ContributionId) -> Self {
        SessionReplaces(id.0)
    }
}

impl From<SessionReplaces> for ContributionId {
    fn from(id: SessionReplaces) -> Self {
        ContributionId(id.0)
    }
}

impl From<ContributionId> for InReplyToContributionId {
    fn from(id: ContributionId) -> Self {
        InReplyToContributionId(id.0)
    }
}

fn hex128(entropy: &mut Entropy) -> String {
    format!("{:016x}{:016x}", entropy.u64(), entropy.u64())
}

fn token(value: &str) -> Option<&str> {
    let value = value.trim_matches([' ', '\t']);
    let legal = (1..=OCTETS_MAX).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    legal.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    // CPM-FACTS §7.1: token-like 1*255(VCHAR); opaque, byte compare.
    #[test]
    fn ids_are_opaque_visible_ascii_and_case_sensitive() {
        let id = ConversationId::parse(" 0c9f7a52-7D0E ").unwrap();
        assert_eq!(id.as_str(), "0c9f7a52-7D0E");
        assert_ne!(id, ConversationId::parse("0c9f7a52-7d0e").unwrap());
        for bad in ["", " ", "a b", "a\r\nVia: x", "ä", &"x".repeat(256)] {
            assert_eq!(ConversationId::parse(bad), Err(Error::Value("Conversation-ID")), "{bad:?}");
        }
    }

    #[test]
    fn drawn_ids_are_32_hex_digits() {
        let id = ContributionId::draw(&mut Entropy::from_number(1));
        assert_eq!(id.as_str().len(), 32);
        assert!(id.as_str().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    }
}
