//! What a batch holds until its events have been looked at.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::driver::Event;
use crate::stream::Happening;

#[derive(Debug)]
pub(crate) enum Item {
    /// In one of the driver's buffers.
    Datagram {
        socket: u32,
        from: SocketAddr,
        buffer: u16,
        start: u16,
        length: u16,
    },
    /// Read apart from the buffers.
    Loose {
        socket: u32,
        from: SocketAddr,
        bytes: Bytes,
    },
    Unreachable {
        socket: u32,
    },
    Stream(Happening),
    Woken,
}

impl Item {
    /// The datagram, if it is not in a buffer.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        match self {
            Item::Loose { bytes, .. } => Some(bytes.clone()),
            _ => None,
        }
    }

    /// As an event; datagrams in buffers are the driver's to show.
    pub(crate) fn event(&self) -> Event<'_> {
        match self {
            Item::Datagram { socket, from, .. } => {
                Event::Datagram { socket: *socket, from: *from, bytes: &[] }
            }
            Item::Loose { socket, from, bytes } => Event::Datagram { socket: *socket, from: *from, bytes },
            Item::Unreachable { socket } => Event::Unreachable { socket: *socket },
            Item::Woken => Event::Woken,
            Item::Stream(happening) => match happening {
                Happening::Opened { conn, dial, tls, fingerprint, peer, local } => Event::Opened {
                    conn: *conn,
                    dial: *dial,
                    tls: *tls,
                    fingerprint: *fingerprint,
                    peer: *peer,
                    local: *local,
                },
                Happening::DialFailed { dial, why } => Event::DialFailed { dial: *dial, why: *why },
                Happening::Received { conn, bytes } => Event::Received { conn: *conn, bytes },
                Happening::Sent { conn, bytes } => Event::Sent { conn: *conn, bytes: *bytes },
                Happening::Closed { conn, why } => Event::Closed { conn: *conn, why: *why },
            },
        }
    }
}
