//! What a client says: requests built once and numbered in place, so that a load costs little.

use bytes::BytesMut;
use msrp::{ByteRange, FailureReport, Flag, HeadWriter, Method, Status, Tid, end_line};

/// Octets of a message's content, CPIM headers included.
pub(crate) const MESSAGE_BYTES: usize = 1024;
/// Digits of a number: in transaction ids, Message-IDs, and of a time in a body.
const DIGITS: usize = 16;
/// A transaction id and a Message-ID are as long as those that servers draw: 20 characters.
const TAIL: &str = "Wb3h";

/// Where a session is, seen from its client.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// To-Path of what the client sends.
    pub(crate) to: String,
    /// Its From-Path.
    pub(crate) from: String,
}

impl Ends {
    /// A client's own URI, as long as a server's.
    pub(crate) fn client(number: usize) -> String {
        format!("msrp://127.0.0.1:7000/c{number:0>28};tcp")
    }

    /// Ends that nobody looks at.
    pub(crate) fn blank(number: usize) -> Self {
        Ends { to: format!("msrp://127.0.0.1:7000/s{number:0>28};tcp"), from: Ends::client(number) }
    }
}

/// What a message holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// To a room: CPIM.
    Room,
    /// To one member of a room, by his number.
    Private(usize),
    /// Between two: any octets.
    Plain,
}

/// A SEND that is numbered anew for each message.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    /// Where the numbers stand: the transaction id at both ends, the Message-ID.
    numbers: Vec<usize>,
    stamp: usize,
    start: Option<usize>,
    flag: usize,
}

/// The CPIM address of a client.
pub(crate) fn address(number: usize) -> String {
    format!("sip:user{number}@bench.example")
}

fn hex(number: u64) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for (at, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * at) & 15) as usize];
    }
    digits
}

/// A number that [`Request::stamp`] wrote.
pub(crate) fn read_hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits.get(..DIGITS)?).ok()?, 16).ok()
}

/// What stands before the time in a body.
pub(crate) const STAMP: &[u8] = b"\r\nat=";

fn body(content: Content, client: usize, octets: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(octets);
    let to = match content {
        Content::Room => Some("sip:anonymous@anonymous.invalid".to_owned()),
        Content::Private(member) => Some(address(member)),
        Content::Plain => None,
    };
    if let Some(to) = to {
        let own = address(client);
        body.extend_from_slice(
            format!("From: <{own}>\r\nTo: <{to}>\r\n\r\nContent-Type: text/plain\r\n\r\nhello").as_bytes(),
        );
    }
    body.extend_from_slice(STAMP);
    body.extend_from_slice(&[b'0'; DIGITS]);
    let more = octets.saturating_sub(body.len());
    body.extend((0..more).map(|at| b'a' + (at % 26) as u8));
    body
}

impl Request {
    /// A whole message of so many octets of content from a client.
    pub(crate) fn whole(
        ends: &Ends,
        content: Content,
        client: usize,
        octets: usize,
        failure: FailureReport,
    ) -> anyhow::Result<Self> {
        let body = body(content, client, octets);
        let total = Some(body.len() as u64);
        let range = ByteRange { start: 1, end: total, total };
        Request::build(ends, content, &body, range, failure, Flag::Last)
    }

    /// A chunk of a longer message; [`Request::chunk`] says where it begins.
    pub(crate) fn part(ends: &Ends, octets: usize, total: u64) -> anyhow::Result<Self> {
        let body = body(Content::Plain, 0, octets);
        let range = ByteRange { start: 1_000_000_000, end: None, total: Some(total.max(1_000_000_000)) };
        let mut request = Request::build(ends, Content::Plain, &body, range, FailureReport::No, Flag::More)?;
        let at = find(&request.bytes, b"Byte-Range: ")? + b"Byte-Range: ".len();
        // The placeholder's total has ten digits as its start has.
        request.bytes.splice(at + 13..at + 23, format!("{total:0>10}").into_bytes());
        request.start = Some(at);
        Ok(request)
    }

    fn build(
        ends: &Ends,
        content: Content,
        body: &[u8],
        range: ByteRange,
        failure: FailureReport,
        flag: Flag,
    ) -> anyhow::Result<Self> {
        let name = format!("{}{TAIL}", "0".repeat(DIGITS));
        let tid = Tid::parse(name.as_bytes())?;
        let mut bytes = BytesMut::new();
        let kind: &[u8] = match content {
            Content::Room | Content::Private(_) => b"message/cpim",
            Content::Plain => b"application/octet-stream",
        };
        HeadWriter::request(
            &mut bytes,
            &tid,
            Method::Send.as_str(),
            ends.to.as_bytes(),
            ends.from.as_bytes(),
        )
        .message_id(&name)
        .byte_range(range)
        .failure_report(failure)
        .body(kind);
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&end_line(&tid, flag));
        let bytes = bytes.to_vec();
        let message_id = find(&bytes, b"Message-ID: ")? + b"Message-ID: ".len();
        let stamp = find(&bytes, STAMP)? + STAMP.len();
        let numbers = vec![b"MSRP ".len(), message_id, bytes.len() - 3 - name.len()];
        let flag = bytes.len() - 3;
        Ok(Request { bytes, numbers, stamp, start: None, flag })
    }

    /// Numbers the transaction and the message.
    pub(crate) fn number(&mut self, number: u64) {
        let digits = hex(number);
        for at in &self.numbers {
            self.bytes[*at..at + DIGITS].copy_from_slice(&digits);
        }
    }

    /// A chunk of message `message` that begins with octet `start`, counted from 1.
    pub(crate) fn chunk(&mut self, number: u64, message: u64, start: u64, is_last: bool) {
        self.number(number);
        let digits = hex(message);
        if let Some(at) = self.numbers.get(1) {
            self.bytes[*at..at + DIGITS].copy_from_slice(&digits);
        }
        if let Some(at) = self.start {
            self.bytes[at..at + 10].copy_from_slice(format!("{start:0>10}").as_bytes());
        }
        self.bytes[self.flag] = if is_last { b'$' } else { b'+' };
    }

    /// Writes a time into the body.
    pub(crate) fn stamp(&mut self, ns: u64) {
        self.bytes[self.stamp..self.stamp + DIGITS].copy_from_slice(&hex(ns));
    }

    /// The octets.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The empty SEND by which an active end binds its connection (RFC 4975 §5.4); nobody answers it.
pub(crate) fn binding(ends: &Ends) -> anyhow::Result<Vec<u8>> {
    let name = format!("bind{}", "0".repeat(DIGITS));
    let tid = Tid::parse(name.as_bytes())?;
    let mut bytes = BytesMut::new();
    let (to, from) = (ends.to.as_bytes(), ends.from.as_bytes());
    HeadWriter::request(&mut bytes, &tid, Method::Send.as_str(), to, from)
        .message_id(&name)
        .byte_range(ByteRange::EMPTY)
        .failure_report(FailureReport::No)
        .end(Flag::Last);
    Ok(bytes.to_vec())
}

/// A 200 to a request with this transaction id.
pub(crate) fn answer(tid: &[u8], ends: &Ends) -> anyhow::Result<Vec<u8>> {
    let tid = Tid::parse(tid)?;
    let mut bytes = BytesMut::new();
    HeadWriter::response(&mut bytes, &tid, Status::OK, ends.to.as_bytes(), ends.from.as_bytes())
        .end(Flag::Last);
    Ok(bytes.to_vec())
}

fn find(bytes: &[u8], what: &[u8]) -> anyhow::Result<usize> {
    let found = bytes.windows(what.len()).position(|window| window == what);
    found.ok_or_else(|| anyhow::anyhow!("not in the request"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use msrp::{Event, Framer, Limits};

    fn events(bytes: &[u8]) -> Vec<Event> {
        let mut framer = Framer::new(Limits::default());
        let mut input = Bytes::copy_from_slice(bytes);
        std::iter::from_fn(|| framer.next(&mut input).unwrap()).collect()
    }

    #[test]
    fn what_a_client_says_is_read_as_it_was_meant() {
        let ends = Ends::blank(3);
        let mut request = Request::whole(&ends, Content::Room, 3, MESSAGE_BYTES, FailureReport::No).unwrap();
        request.number(0x2a);
        request.stamp(77);
        let read = events(request.bytes());
        let [Event::Head(head), Event::Body(body), Event::End(Flag::Last)] = read.as_slice() else {
            panic!("{read:?}")
        };
        assert_eq!((head.message_id(), body.len()), ("000000000000002aWb3h", MESSAGE_BYTES));
        assert_eq!(read_hex(&body[body.windows(5).position(|w| w == STAMP).unwrap() + 5..]), Some(77));
        let mut part = Request::part(&ends, 2048, 100_000).unwrap();
        part.chunk(7, 1, 2049, false);
        let read = events(part.bytes());
        let [Event::Head(head), Event::Body(body), Event::End(Flag::More)] = read.as_slice() else {
            panic!("{read:?}")
        };
        let range = head.byte_range().unwrap();
        assert_eq!((range.start, range.end, range.total, body.len()), (2049, None, Some(100_000), 2048));
        assert_eq!(events(&binding(&ends).unwrap()).len(), 2);
        assert_eq!(events(&answer(b"000000000000002aWb3h", &ends).unwrap()).len(), 2);
    }
}
