//! Headers that are a number: Expires and its kin, Max-Forwards, RSeq, Retry-After.

use std::fmt;

use super::{BadHeader, Value, own_header};
use crate::params::Params;
use crate::scan::{Scan, digits, trim};

/// `1*DIGIT` up to a maximum.
fn number(bytes: &[u8], header: &'static str, max: u32) -> Result<u32, BadHeader> {
    digits(trim(bytes))
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| *n <= max)
        .ok_or(BadHeader { header, what: "is no number in range" })
}

macro_rules! numeric {
    ($(#[$doc:meta])* $name:ident = $label:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub struct $name(pub u32);

        impl Value for $name {
            fn parse(bytes: &[u8]) -> Result<Self, BadHeader> {
                number(bytes, $label, $max).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        own_header!($name = $name, $label);
    };
}

numeric! {
    /// Seconds (RFC 3261 §20.19).
    Expires = "Expires", u32::MAX
}
numeric! {
    /// Seconds (RFC 3261 §20.23).
    MinExpires = "Min-Expires", u32::MAX
}
numeric! {
    /// Hops left, 0 to 255 (RFC 3261 §20.22).
    MaxForwards = "Max-Forwards", 255
}
numeric! {
    /// Seconds until a large message is worthless (OMA CPM).
    MessageExpires = "Message-Expires", u32::MAX
}
numeric! {
    /// RFC 3262 §7.1.
    RSeq = "RSeq", u32::MAX
}
numeric! {
    /// Seconds between keep-alives (RFC 5626 §10).
    FlowTimer = "Flow-Timer", u32::MAX
}

/// The least session interval in seconds (RFC 4028 §5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MinSe {
    /// Seconds.
    pub seconds: u32,
    /// Other parameters.
    pub params: Params,
}

impl MinSe {
    /// Without parameters.
    pub fn new(seconds: u32) -> MinSe {
        MinSe { seconds, params: Params::default() }
    }
}

impl Value for MinSe {
    fn parse(bytes: &[u8]) -> Result<MinSe, BadHeader> {
        let mut scan = Scan::new(bytes);
        let seconds = scan.take_while(|b| b.is_ascii_digit()).unwrap_or_default();
        Ok(MinSe {
            seconds: number(seconds, "Min-SE", u32::MAX)?,
            params: Params::parse(&mut scan, "Min-SE")?,
        })
    }
}

impl fmt::Display for MinSe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.seconds, self.params)
    }
}

own_header!(MinSe = MinSe, "Min-SE");

/// Seconds to wait, with an optional comment that is not kept (RFC 3261 §20.33).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetryAfter {
    /// Seconds.
    pub seconds: u32,
    /// `duration` and others.
    pub params: Params,
}

impl RetryAfter {
    /// Without parameters.
    pub fn new(seconds: u32) -> RetryAfter {
        RetryAfter { seconds, params: Params::default() }
    }
}

impl Value for RetryAfter {
    fn parse(bytes: &[u8]) -> Result<RetryAfter, BadHeader> {
        let mut scan = Scan::new(bytes);
        let seconds = scan.take_while(|b| b.is_ascii_digit()).unwrap_or_default();
        let seconds = number(seconds, "Retry-After", u32::MAX)?;
        scan.blanks();
        if scan.peek() == Some(b'(') {
            let (mut depth, mut escaped) = (0u32, false);
            let mut comment = |b: u8| {
                match b {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'(' => depth += 1,
                    b')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                depth > 0
            };
            let end = scan.rest().iter().position(|b| !comment(*b));
            let end = end.ok_or(BadHeader { header: "Retry-After", what: "comment does not end" })?;
            scan = Scan::new(scan.rest().get(end + 1..).unwrap_or_default());
        }
        Ok(RetryAfter { seconds, params: Params::parse(&mut scan, "Retry-After")? })
    }
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.seconds, self.params)
    }
}

own_header!(RetryAfter = RetryAfter, "Retry-After");
