//! Reason (RFC 3326) and Warning (RFC 3261 §20.43).

use std::fmt;

use super::{BadHeader, Value, own_header};
use crate::params::Params;
use crate::scan::{Scan, digits, is_blank, quote, unquote};

/// Why a request was sent: `SIP;cause=200;text="Call completed elsewhere"`. Judge by the cause, not the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// `SIP`, `Q.850` ...
    pub protocol: String,
    /// `cause`, `text` and others.
    pub params: Params,
}

impl Reason {
    /// A reason with a SIP status code.
    pub fn sip(cause: u16, text: &str) -> Reason {
        let mut params = Params::default().with("cause", Some(&cause.to_string()));
        params.set_quoted("text", text);
        Reason { protocol: "SIP".into(), params }
    }

    /// The cause number.
    pub fn cause(&self) -> Option<u16> {
        self.params.number("cause").and_then(|n| u16::try_from(n).ok())
    }

    /// The text without quotes.
    pub fn text(&self) -> Option<String> {
        self.params.text("text").map(|t| t.into_owned())
    }
}

impl Value for Reason {
    fn parse(bytes: &[u8]) -> Result<Reason, BadHeader> {
        let mut scan = Scan::new(bytes);
        scan.blanks();
        let protocol = scan.token().ok_or(BadHeader { header: "Reason", what: "no protocol" })?.to_owned();
        Ok(Reason { protocol, params: Params::parse(&mut scan, "Reason")? })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.protocol, self.params)
    }
}

own_header!(Reason = Reason, "Reason");

/// A warning. OMA codes stand inside the text: `399 host "127 Service not authorised"`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// Three digits.
    pub code: u16,
    /// Who warns: a host or a pseudonym.
    pub agent: String,
    /// The text without quotes.
    pub text: String,
}

impl Warning {
    /// The three-digit code that the text begins with (OMA CPM).
    pub fn text_code(&self) -> Option<u16> {
        let (code, rest) = self.text.as_bytes().split_at_checked(3)?;
        let ends = rest.first().is_none_or(|b| is_blank(*b));
        digits(code).filter(|_| ends).and_then(|n| u16::try_from(n).ok())
    }
}

impl Value for Warning {
    fn parse(bytes: &[u8]) -> Result<Warning, BadHeader> {
        let bad = |what| BadHeader { header: "Warning", what };
        let mut scan = Scan::new(bytes);
        scan.blanks();
        let code = scan.take_while(|b| b.is_ascii_digit()).filter(|c| c.len() == 3).and_then(digits);
        let code = code.and_then(|c| u16::try_from(c).ok()).ok_or(bad("no three-digit code"))?;
        scan.blanks();
        let agent = scan.take_while(|b| !is_blank(b) && b != b'"').ok_or(bad("no agent"))?;
        let agent = crate::scan::lossy(agent);
        scan.blanks();
        let text = unquote(scan.quoted().ok_or(bad("no quoted text"))?);
        scan.blanks();
        if !scan.is_done() {
            return Err(bad("text after the quoted text"));
        }
        Ok(Warning { code, agent, text })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03} {} {}", self.code, self.agent, quote(&self.text))
    }
}

own_header!(Warning = Warning, "Warning");
