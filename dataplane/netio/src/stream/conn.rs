//! One connection and its life.
//!
//! ```text
//!            dial()                     accept()
//!              │                           │
//!         Connecting ──writable──► Securing (with TLS only)
//!              │ error                │ done           │ error
//!          DialFailed               Open ◄─────────────┘ DialFailed, or counted
//!                                     │ shut()   │ end of stream, error
//!                                  Leaving       └──► Closed
//!                                     │ all sent: FIN
//!                                  Lingering ── peer's end, or time over ──► gone
//! ```

use std::net::SocketAddr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::table::Happening;
use super::transport::{End, Transport};
use crate::driver::Gone;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Connecting,
    Securing,
    Open,
    Leaving,
    Lingering,
}

/// What became of a connection after it had its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Nothing more to do until it is ready again.
    Waits,
    /// It has more to read; others first.
    Again,
    /// Remove it. An accepted connection that never opened is to be counted.
    Over { opened: bool },
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: u64,
    pub(crate) dial: Option<u64>,
    pub(crate) transport: Transport,
    pub(crate) state: State,
    pub(crate) peer: SocketAddr,
    pub(crate) deadline: Option<Instant>,
    /// The driver's registration.
    pub(crate) file: u32,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer's end or an error is behind what can be read: it is read until it shows.
    pub(crate) ended: bool,
    /// What waits first is with the driver, which tells how much of it was taken; nothing else is written meanwhile.
    pub(crate) sending: bool,
    pub(crate) paused: bool,
    /// Stands in the list of those that have work.
    pub(crate) queued: bool,
}

impl Conn {
    /// Does what can be done now without blocking.
    pub(crate) fn work(
        &mut self,
        read_max: usize,
        arena: &mut BytesMut,
        tell: &mut impl FnMut(Happening),
    ) -> Fate {
        if self.state == State::Connecting {
            match self.connected() {
                Ok(true) => {}
                Ok(false) => return Fate::Waits,
                Err(()) => {
                    tell(Happening::DialFailed { dial: self.dial.unwrap_or(0), why: Gone::ConnectFailed });
                    return Fate::Over { opened: true };
                }
            }
        }
        match self.exchange(read_max, arena, tell) {
            Ok(fate) => fate,
            Err(end) => self.ended(&end, tell),
        }
    }

    /// What there is to send, if it is one piece and the kernel may take it as it is.
    pub(crate) fn only_piece(&self) -> Option<&Bytes> {
        let may = self.state == State::Open && self.writable && !self.sending;
        if may { self.transport.only_piece() } else { None }
    }

    /// Whether an attempt has come through (connect(2), EINPROGRESS).
    fn connected(&mut self) -> Result<bool, ()> {
        if !self.writable {
            return Ok(false);
        }
        match self.transport.stream().take_error() {
            Ok(None) => {}
            _ => return Err(()),
        }
        if self.transport.stream().peer_addr().is_err() {
            self.writable = false;
            return Ok(false);
        }
        self.state = State::Securing;
        Ok(true)
    }

    fn exchange(
        &mut self,
        read_max: usize,
        arena: &mut BytesMut,
        tell: &mut impl FnMut(Happening),
    ) -> Result<Fate, End> {
        self.send(tell)?;
        let mut read = 0;
        while self.readable && !(self.paused && self.state == State::Open) {
            self.open_if_secure(tell);
            if read >= read_max {
                return Ok(Fate::Again);
            }
            let Some((bytes, more)) = self.transport.read(arena)? else {
                self.readable = false;
                break;
            };
            // What comes from now on makes an edge of its own.
            self.readable = more || self.ended;
            read += bytes.len().max(1);
            self.open_if_secure(tell);
            if self.state == State::Open && !bytes.is_empty() {
                tell(Happening::Received { conn: self.id, bytes });
            }
            if self.transport.handshaking() {
                self.send(tell)?;
            }
        }
        self.open_if_secure(tell);
        self.send(tell)?;
        if self.state == State::Leaving {
            self.transport.farewell();
            self.send(tell)?;
        }
        if self.state == State::Leaving && self.transport.is_drained() {
            let _ = self.transport.stream().shutdown(std::net::Shutdown::Write);
            self.state = State::Lingering;
        }
        Ok(Fate::Waits)
    }

    fn open_if_secure(&mut self, tell: &mut impl FnMut(Happening)) {
        if self.state != State::Securing || self.transport.handshaking() {
            return;
        }
        self.state = State::Open;
        self.deadline = None;
        let stream = self.transport.stream();
        tell(Happening::Opened {
            conn: self.id,
            dial: self.dial,
            tls: self.transport.has_tls(),
            fingerprint: self.transport.fingerprint(),
            peer: self.peer,
            local: stream.local_addr().unwrap_or(self.peer),
        });
    }

    fn send(&mut self, tell: &mut impl FnMut(Happening)) -> Result<(), End> {
        if self.writable && !self.sending && !self.transport.is_drained() {
            let (bytes, more) = self.transport.write()?;
            self.writable = more;
            if bytes > 0 && self.state == State::Open {
                tell(Happening::Sent { conn: self.id, bytes });
            }
        }
        Ok(())
    }

    fn ended(&mut self, end: &End, tell: &mut impl FnMut(Happening)) -> Fate {
        let why = match end {
            End::Closed => Gone::Closed,
            End::Tls => Gone::TlsFailed,
            End::Reset => Gone::Reset,
        };
        match (self.state, self.dial) {
            (State::Connecting | State::Securing, Some(dial)) => {
                let why = if self.transport.has_tls() { Gone::TlsFailed } else { Gone::ConnectFailed };
                tell(Happening::DialFailed { dial, why });
                Fate::Over { opened: true }
            }
            (State::Connecting | State::Securing, None) => Fate::Over { opened: false },
            (State::Open, _) => {
                tell(Happening::Closed { conn: self.id, why });
                Fate::Over { opened: true }
            }
            (State::Leaving | State::Lingering, _) => Fate::Over { opened: true },
        }
    }
}
