//! A client's way behind a relay (RFC 4976 §5.1): AUTH, the challenge, AUTH again with its digest, the path to use.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use msrp::{Event, Framer, Head, Limits, Start};

use super::words::Ends;

/// How long a relay may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Who a client is.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Asks a relay for a path; the stream is read no further than the answer.
pub(crate) fn use_path<S: std::io::Read + std::io::Write>(
    stream: &mut S,
    relay: &str,
    own: &str,
    who: &Credentials,
) -> anyhow::Result<String> {
    let mut framer = Framer::new(Limits::default());
    let challenge = ask(stream, &mut framer, relay, own, "auth0001", "")?;
    let granted = match challenge.start() {
        Start::Response(status) if status.0 == 401 => {
            let line = header(&challenge, "WWW-Authenticate").context("no challenge")?;
            let authorization = respond(&line, relay, who)?;
            ask(stream, &mut framer, relay, own, "auth0002", &authorization)?
        }
        _ => challenge,
    };
    anyhow::ensure!(
        matches!(granted.start(), Start::Response(status) if status.0 == 200),
        "the relay refused AUTH: {:?}",
        granted.start()
    );
    header(&granted, "Use-Path").context("no Use-Path")
}

/// RFC 2617 as RFC 4976 §9.1 uses it: MD5, `qop=auth`.
fn respond(challenge: &str, relay: &str, who: &Credentials) -> anyhow::Result<String> {
    let of = |name: &str| {
        let rest = challenge.split(&format!("{name}=\"")).nth(1)?;
        rest.split('"').next().map(str::to_owned)
    };
    let (realm, nonce) = (of("realm").context("no realm")?, of("nonce").context("no nonce")?);
    let digest = |text: String| hex::encode(Md5::digest(text));
    let (user, cnonce) = (&who.user, "c0ffee");
    let ha1 = digest(format!("{user}:{realm}:{}", who.password));
    let ha2 = digest(format!("AUTH:{relay}"));
    let response = digest(format!("{ha1}:{nonce}:00000001:{cnonce}:auth:{ha2}"));
    let opaque = of("opaque").map(|opaque| format!(", opaque=\"{opaque}\"")).unwrap_or_default();
    Ok(format!(
        "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{relay}\", qop=auth, \
         nc=00000001, cnonce=\"{cnonce}\", response=\"{response}\"{opaque}\r\n"
    ))
}

fn ask<S: std::io::Read + std::io::Write>(
    stream: &mut S,
    framer: &mut Framer,
    relay: &str,
    own: &str,
    tid: &str,
    more: &str,
) -> anyhow::Result<Head> {
    let text = format!("MSRP {tid} AUTH\r\nTo-Path: {relay}\r\nFrom-Path: {own}\r\n{more}-------{tid}$\r\n");
    stream.write_all(text.as_bytes())?;
    let mut octets = [0; 4096];
    loop {
        let count = stream.read(&mut octets)?;
        anyhow::ensure!(count > 0, "the relay closed the connection");
        let mut input = Bytes::copy_from_slice(&octets[..count]);
        let mut head = None;
        while let Some(event) = framer.next(&mut input)? {
            if let Event::Head(read) = event {
                head = Some(read);
            }
        }
        if let Some(head) = head {
            return Ok(head);
        }
    }
}

fn header(head: &Head, name: &str) -> Option<String> {
    let mut all = head.others();
    let (_, value) = all.find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// A connection to a relay, and the path behind it.
pub(crate) fn connect(
    at: SocketAddr,
    own: &str,
    who: &Credentials,
) -> anyhow::Result<(std::net::TcpStream, String)> {
    let mut stream = std::net::TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let path = use_path(&mut stream, &format!("msrp://{at};tcp"), own, who)?;
    stream.set_read_timeout(None)?;
    Ok((stream, path))
}

/// Pairs of clients at a relay: the second of each two is behind it, the first one sends straight to that one's path.
pub(crate) fn pairs(
    at: SocketAddr,
    clients: usize,
    who: &Credentials,
) -> anyhow::Result<(Vec<std::net::TcpStream>, Vec<Ends>)> {
    let (mut streams, mut ends) = (Vec::new(), Vec::new());
    for pair in 0..clients / 2 {
        let (from, to) = (Ends::client(2 * pair), Ends::client(2 * pair + 1));
        let (target, path) = connect(at, &to, who)?;
        let source = std::net::TcpStream::connect(at)?;
        source.set_nodelay(true)?;
        streams.extend([source, target]);
        ends.extend([Ends { to: format!("{path} {to}"), from: from.clone() }, Ends { to: from, from: to }]);
    }
    Ok((streams, ends))
}
