//! One connection of control: frames in and out, never blocking, bounded both ways.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use contract::{FrameError, FromDataplane, ToDataplane, decode_frame, encode_frame, from_dataplane};
use mio::net::UnixStream;

/// Octets that may wait for a control that does not read; beyond them the connection is given up, and control audits
/// when it comes back.
const OUT_MAX: usize = 64 << 20;
const READ_BYTES: usize = 64 << 10;

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
}

impl End {
    /// Every label.
    pub(crate) const LABELS: [&'static str; 9] =
        ["closed", "failed", "malformed", "slow", "silent", "early", "refused", "replaced", "full"];

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
        }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) stream: UnixStream,
    pub(super) greeted: bool,
    pub(super) since: Instant,
    read: BytesMut,
    out: BytesMut,
}

impl Link {
    pub(super) fn new(id: u64, stream: UnixStream) -> Self {
        let (read, out) = (BytesMut::new(), BytesMut::new());
        Link { id, stream, greeted: false, since: Instant::now(), read, out }
    }

    pub(super) fn say(&mut self, body: from_dataplane::Body) {
        encode_frame(&FromDataplane { body: Some(body) }, &mut self.out);
    }

    /// Reads once; false when nothing is there now.
    pub(super) fn fill(&mut self) -> Result<bool, End> {
        let start = self.read.len();
        self.read.resize(start + READ_BYTES, 0);
        let result = self.stream.read(self.read.get_mut(start..).unwrap_or_default());
        self.read.truncate(start + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(End::Failed(error)),
        }
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
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(n) => self.out.advance(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(End::Failed(error)),
            }
        }
        if self.out.len() > OUT_MAX { Err(End::Slow) } else { Ok(()) }
    }
}
