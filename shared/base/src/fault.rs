//! The five families of fault. Each crate's error says which it is; one `match` per protocol turns it into
//! the answer on the wire.

use std::fmt;

/// Whose fault an error is, and what the peer may be told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// The bytes do not parse.
    Malformed,
    /// Legal bytes that are illegal now.
    Misbehaved,
    /// Legal, but not done here.
    Unsupported,
    /// Policy or a limit says no.
    Refused,
    /// Our own side cannot.
    Unavailable,
}

impl Fault {
    /// Every family, for metric labels.
    pub const ALL: [Fault; 5] =
        [Fault::Malformed, Fault::Misbehaved, Fault::Unsupported, Fault::Refused, Fault::Unavailable];

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Fault::Malformed => "malformed",
            Fault::Misbehaved => "misbehaved",
            Fault::Unsupported => "unsupported",
            Fault::Refused => "refused",
            Fault::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
