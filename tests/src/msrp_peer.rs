//! An MSRP peer by hand: every octet that it sends and reads is the test's to see. Over TCP and TLS, blocking.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use sip::digest::{Algorithm, Challenge};
use sip::typed::Value as _;
use ue::{Identity, Trust};

/// How long a peer waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

enum Wire {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One message as it came: its head, its body, its flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The start line and header lines.
    pub head: String,
    /// The body; empty when there is none.
    pub body: Vec<u8>,
    /// `$`, `+` or `#`.
    pub flag: char,
}

impl Frame {
    /// The transaction id.
    pub fn tid(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default().trim_end()
    }

    /// The method, or the status code.
    pub fn word(&self) -> &str {
        self.head.split([' ', '\r']).nth(2).unwrap_or_default()
    }

    /// The value of a header line.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The same of a line that must be there.
    pub fn line(&self, name: &str) -> &str {
        self.value(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

/// See the head of the file.
pub struct Peer {
    wire: Wire,
    read: Vec<u8>,
    /// Its own URI.
    pub own: String,
    serial: u32,
}

impl Peer {
    /// Connects by TCP.
    pub fn connect(to: SocketAddr) -> Peer {
        Peer::of(TcpStream::connect(to).unwrap())
    }

    /// On a connection that is there.
    pub fn of(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let own = format!(
            "msrp://{}/own{}session;tcp",
            stream.local_addr().unwrap(),
            stream.local_addr().unwrap().port()
        );
        Peer { wire: Wire::Plain(stream), read: Vec::new(), own, serial: 0 }
    }

    /// Connects by TLS and believes any certificate.
    pub fn connect_tls(to: SocketAddr) -> Peer {
        let Peer { wire: Wire::Plain(stream), own, .. } = Peer::connect(to) else { panic!() };
        let config = Identity::generate(&["localhost"]).unwrap().client(&Trust::Anybody).unwrap();
        let session = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
        let wire = Wire::Secure(Box::new(StreamOwned::new(session, stream)));
        Peer { wire, read: Vec::new(), own: own.replace("msrp:", "msrps:"), serial: 0 }
    }

    /// Takes the next caller of a listener.
    pub fn accept(listener: &TcpListener) -> Peer {
        let own = format!(
            "msrp://{}/far{}session;tcp",
            listener.local_addr().unwrap(),
            listener.local_addr().unwrap().port()
        );
        Peer { own, ..Peer::of(listener.accept().unwrap().0) }
    }

    /// The socket below.
    pub fn stream(&self) -> &TcpStream {
        match &self.wire {
            Wire::Plain(stream) => stream,
            Wire::Secure(secure) => &secure.sock,
        }
    }

    /// Says goodbye in TLS and sends nothing more, but reads on.
    pub fn half_close(&mut self) {
        if let Wire::Secure(secure) = &mut self.wire {
            secure.conn.send_close_notify();
            let _ = secure.flush();
        }
        let _ = self.stream().shutdown(Shutdown::Write);
    }

    /// Sends octets.
    pub fn raw(&mut self, octets: &[u8]) {
        self.try_raw(octets).unwrap();
    }

    /// Sends octets, if the far end still takes them.
    pub fn try_raw(&mut self, octets: &[u8]) -> std::io::Result<()> {
        match &mut self.wire {
            Wire::Plain(stream) => stream.write_all(octets),
            Wire::Secure(secure) => secure.write_all(octets).and_then(|()| secure.flush()),
        }
    }

    /// A request; gives its transaction id. `rest`: header lines and what follows them, up to the end-line.
    pub fn request(&mut self, method: &str, to: &str, rest: &str) -> String {
        self.serial += 1;
        let tid = format!("tid{:04}", self.serial);
        let own = &self.own;
        let text =
            format!("MSRP {tid} {method}\r\nTo-Path: {to}\r\nFrom-Path: {own}\r\n{rest}-------{tid}$\r\n");
        self.raw(text.as_bytes());
        tid
    }

    /// A SEND with a body of text.
    pub fn send(&mut self, to: &str, id: &str, lines: &str, body: &str) -> String {
        let size = body.len();
        let rest = format!(
            "Message-ID: {id}\r\n{lines}Byte-Range: 1-{size}/{size}\r\nContent-Type: text/plain\r\n\r\n{body}\r\n"
        );
        self.request("SEND", to, &rest)
    }

    /// The 200 to a SEND (RFC 4975 §7.2).
    pub fn answer(&mut self, frame: &Frame, status: &str) {
        let to = frame.line("From-Path").split(' ').next().unwrap_or_default().to_owned();
        let own = frame.line("To-Path").split(' ').next().unwrap_or_default();
        let tid = frame.tid();
        let text = format!("MSRP {tid} {status}\r\nTo-Path: {to}\r\nFrom-Path: {own}\r\n-------{tid}$\r\n");
        self.raw(text.as_bytes());
    }

    /// The next message. It fails when none comes.
    pub fn frame(&mut self) -> Frame {
        loop {
            if let Some((frame, rest)) = cut(&self.read) {
                self.read = rest;
                return frame;
            }
            match self.try_read() {
                Ok(count) if count > 0 => {}
                end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&self.read)),
            }
        }
    }

    /// The next message that is not the answer to a transaction of ours, or is that one.
    pub fn frame_of(&mut self, word: &str) -> Frame {
        loop {
            let frame = self.frame();
            if frame.word() == word {
                return frame;
            }
        }
    }

    /// The status that a transaction is answered with.
    pub fn status(&mut self, tid: &str) -> String {
        loop {
            let frame = self.frame();
            if frame.tid() == tid {
                return frame.word().to_owned();
            }
        }
    }

    /// Reads until the far end closes; true if it does in time.
    pub fn is_closed(&mut self) -> bool {
        loop {
            match self.try_read() {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        }
    }

    /// Whether nothing at all comes for a while.
    pub fn is_silent(&mut self, wait: Duration) -> bool {
        self.stream().set_read_timeout(Some(wait)).unwrap();
        let silent = self.read.is_empty()
            && self
                .try_read()
                .is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        self.stream().set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    fn try_read(&mut self) -> std::io::Result<usize> {
        let mut piece = [0; 65_536];
        let count = match &mut self.wire {
            Wire::Plain(stream) => stream.read(&mut piece)?,
            Wire::Secure(secure) => secure.read(&mut piece)?,
        };
        self.read.extend_from_slice(piece.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// AUTH until it is granted (RFC 4976 §5.1): with which hash, with or without `uri` and `opaque`.
    pub fn auth(&mut self, relay: &str, user: &str, password: &str, how: Auth) -> Frame {
        // A node whose control is not linked yet, or is busy, cannot judge: 408, and asked again.
        let (tid, refused) = loop {
            let tid = self.request("AUTH", relay, "");
            let refused = self.frame();
            if refused.word() != "408" {
                break (tid, refused);
            }
        };
        assert_eq!((refused.tid(), refused.word()), (tid.as_str(), "401"), "{refused:?}");
        let challenges = refused.head.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: "));
        let challenges = challenges.map(|text| Challenge::parse(text.as_bytes()).unwrap());
        let challenge = challenges.into_iter().find(|c| c.known_algorithm() == Some(how.algorithm)).unwrap();
        assert!(challenge.opaque.is_some());
        let shown = how.shown(&challenge, relay, user, password);
        self.request("AUTH", relay, &format!("Authorization: {shown}\r\n{}", how.lines));
        self.frame()
    }
}

/// How a client shows its password.
#[derive(Clone, Copy, Debug)]
pub struct Auth {
    /// With which hash.
    pub algorithm: Algorithm,
    /// Whether it names the digest-uri.
    pub uri: bool,
    /// Whether it gives `opaque` back.
    pub opaque: bool,
    /// Further header lines.
    pub lines: &'static str,
}

impl Default for Auth {
    fn default() -> Self {
        Auth { algorithm: Algorithm::Md5, uri: true, opaque: true, lines: "" }
    }
}

impl Auth {
    /// The value of Authorization.
    pub fn shown(self, challenge: &Challenge, relay: &str, user: &str, password: &str) -> String {
        // H(a:b:c) is what is made of a user name, a realm and a password.
        let h = |a: &str, b: &str, c: &str| self.algorithm.ha1(a, b, c);
        let (realm, nonce, algorithm) = (&challenge.realm, &challenge.nonce, self.algorithm);
        let (scheme, rest) = relay.split_once(':').unwrap();
        // Challenges of one millisecond have one nonce: the client's own must differ.
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let cnonce = format!("c{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        let middle = format!("{nonce}:00000001:{cnonce}:auth");
        let response = h(&h(user, realm, password), &middle, &h("AUTH", scheme, rest));
        let uri = if self.uri { format!("uri=\"{relay}\", ") } else { String::new() };
        let opaque = challenge.opaque.as_ref().filter(|_| self.opaque);
        let opaque = opaque.map(|opaque| format!(", opaque=\"{opaque}\"")).unwrap_or_default();
        format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", {uri}response=\"{response}\", \
             algorithm={algorithm}, qop=auth, nc=00000001, cnonce=\"{cnonce}\"{opaque}"
        )
    }
}

/// The first whole message, and what follows it.
fn cut(read: &[u8]) -> Option<(Frame, Vec<u8>)> {
    let find = |needle: &[u8]| read.windows(needle.len()).position(|window| window == needle);
    let start = read.get(..find(b"\r\n")?)?;
    let tid = std::str::from_utf8(start).ok()?.split(' ').nth(1)?;
    let line = format!("-------{tid}");
    let (mut from, mut end) = (0, None);
    while let Some(at) = read.get(from..)?.windows(line.len()).position(|window| window == line.as_bytes()) {
        let flag = from + at + line.len();
        if matches!(read.get(flag..flag + 3), Some([b'$' | b'+' | b'#', b'\r', b'\n'])) {
            end = Some((from + at, flag));
            break;
        }
        from += at + 1;
    }
    let (end, flag) = end?;
    let whole = read.get(..end)?;
    let blank = whole.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = match blank {
        Some(at) => (whole.get(..at + 2)?, whole.get(at + 4..end.checked_sub(2)?).unwrap_or_default()),
        None => (whole, &[][..]),
    };
    let frame = Frame {
        head: String::from_utf8_lossy(head).into_owned(),
        body: body.to_vec(),
        flag: char::from(*read.get(flag)?),
    };
    Some((frame, read.get(flag + 3..)?.to_vec()))
}
