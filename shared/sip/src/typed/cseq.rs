//! CSeq (RFC 3261 §20.16) and RAck (RFC 3262 §7.2).

use std::fmt;

use super::{BadHeader, Value, own_header};
use crate::method::Method;
use crate::scan::{Scan, digits};

/// Sequence number and method.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CSeq {
    /// Below 2^31 (RFC 3261 §8.1.1.5).
    pub seq: u32,
    /// The method.
    pub method: Method,
}

impl CSeq {
    /// A CSeq.
    pub const fn new(seq: u32, method: Method) -> CSeq {
        CSeq { seq, method }
    }
}

fn number(scan: &mut Scan<'_>) -> Option<u32> {
    scan.blanks();
    let n = digits(scan.take_while(|b| b.is_ascii_digit())?)?;
    u32::try_from(n).ok()
}

fn method(scan: &mut Scan<'_>) -> Option<Method> {
    if !scan.blanks() {
        return None;
    }
    let method = Method::parse(scan.token()?.as_bytes())?;
    scan.blanks();
    scan.is_done().then_some(method)
}

impl Value for CSeq {
    fn parse(bytes: &[u8]) -> Result<CSeq, BadHeader> {
        let mut scan = Scan::new(bytes);
        let bad = |what| BadHeader { header: "CSeq", what };
        let seq = number(&mut scan).filter(|n| *n < 1 << 31).ok_or(bad("no number below 2^31"))?;
        Ok(CSeq { seq, method: method(&mut scan).ok_or(bad("no method"))? })
    }
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.seq, self.method)
    }
}

own_header!(CSeq = CSeq, "CSeq");

/// What a PRACK acknowledges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RAck {
    /// RSeq of the provisional response.
    pub rseq: u32,
    /// CSeq number of it.
    pub seq: u32,
    /// CSeq method of it.
    pub method: Method,
}

impl Value for RAck {
    fn parse(bytes: &[u8]) -> Result<RAck, BadHeader> {
        let mut scan = Scan::new(bytes);
        let bad = |what| BadHeader { header: "RAck", what };
        let rseq = number(&mut scan).ok_or(bad("no RSeq"))?;
        let seq = number(&mut scan).ok_or(bad("no CSeq"))?;
        Ok(RAck { rseq, seq, method: method(&mut scan).ok_or(bad("no method"))? })
    }
}

impl fmt::Display for RAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.rseq, self.seq, self.method)
    }
}

own_header!(RAck = RAck, "RAck");
