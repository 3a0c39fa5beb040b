//! One connection of control: frames in and out, never blocking, bounded both ways.

use std::fmt;
use std::io;
use std::time::Instant;

use bytes::BytesMut;
use contract::{FrameError, FromDataplane, ToDataplane, decode_frame, encode_frame, from_dataplane};

use super::wire::Wire;

/// Octets that may wait for a control that does not read; beyond them the connection is given up, and control audits
/// when it comes back.
const OUT_MAX: usize = 64 << 20;

/// Why a connection is over.
#[derive(Debug)]
pub(crate) enum End {
    /// Control closed it.
    Closed,
    /// The transport failed.
    Failed(io::Error),
    /// The bytes are no contract.
    Malformed(FrameError),
    /// Control does not read.
    Slow,
    /// It did not say Hello in time.
    Silent,
    /// It said something else before its Hello, or after another control took over.
    Early,
    /// Its Hello was refused.
    Refused,
    /// Another control took over.
    Replaced,
    /// There are too many connections.
    Full,
    /// What came is no TLS, or not the one that is spoken here.
    Tls(rustls::Error),
    /// It shows no certificate, or one of somebody who is not trusted here.
    Stranger(rustls::Error),
}

impl End {
    /// Every label.
    pub(crate) const LABELS: [&'static str; 11] = [
        "closed",
        "failed",
        "malformed",
        "slow",
        "silent",
        "early",
        "refused",
        "replaced",
        "full",
        "tls",
        "stranger",
    ];

    /// A session that cannot go on.
    pub(super) fn of_tls(error: rustls::Error) -> End {
        match error {
            rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_) => {
                End::Stranger(error)
            }
            error => End::Tls(error),
        }
    }

    /// The label in metrics: one of [`End::LABELS`].
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Failed(_) => "failed",
            End::Malformed(_) => "malformed",
            End::Slow => "slow",
            End::Silent => "silent",
            End::Early => "early",
            End::Refused => "refused",
            End::Replaced => "replaced",
            End::Full => "full",
            End::Tls(_) => "tls",
            End::Stranger(_) => "stranger",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Closed => f.write_str("it closed the connection"),
            End::Failed(error) => error.fmt(f),
            End::Malformed(error) => error.fmt(f),
            End::Slow => f.write_str("it does not read"),
            End::Silent => f.write_str("it said no Hello in time"),
            End::Early => f.write_str("it spoke before its Hello, or after it had lost the ownership"),
            End::Refused => f.write_str("its Hello was refused"),
            End::Replaced => f.write_str("another control takes over"),
            End::Full => f.write_str("there are too many connections"),
            End::Tls(error) => write!(f, "TLS: {error}"),
            End::Stranger(error) => write!(f, "its certificate is not trusted: {error}"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) wire: Wire,
    pub(super) greeted: bool,
    pub(super) since: Instant,
    read: BytesMut,
    out: BytesMut,
}

impl Link {
    pub(super) fn new(id: u64, wire: Wire) -> Self {
        let (read, out) = (BytesMut::new(), BytesMut::new());
        Link { id, wire, greeted: false, since: Instant::now(), read, out }
    }

    pub(super) fn say(&mut self, body: from_dataplane::Body) {
        encode_frame(&FromDataplane { body: Some(body) }, &mut self.out);
    }

    /// Reads once; false when nothing is there now.
    pub(super) fn fill(&mut self) -> Result<bool, End> {
        self.wire.read(&mut self.read)
    }

    /// The next whole frame.
    pub(super) fn frame(&mut self) -> Result<Option<ToDataplane>, End> {
        decode_frame(&mut self.read).map_err(End::Malformed)
    }

    /// True when it ended within a frame.
    pub(super) fn is_within(&self) -> bool {
        !self.read.is_empty()
    }

    /// Writes what the kernel takes.
    pub(super) fn flush(&mut self) -> Result<(), End> {
        self.wire.write(&mut self.out)?;
        if self.out.len() > OUT_MAX { Err(End::Slow) } else { Ok(()) }
    }
}
