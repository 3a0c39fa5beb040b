//! Writes heads and end-lines (RFC 4975 §7.1, §7.2, §9): small buffers that go out before and after bodies.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};

use crate::{ByteRange, FailureReport, Flag, Head, Method, Start, Status, Tid};

/// Writes one head into a buffer. To-Path and From-Path come first by construction; Content-Type comes last
/// because only [`HeadWriter::body`] writes it.
#[derive(Debug)]
pub struct HeadWriter<'b> {
    buffer: &'b mut BytesMut,
    tid: Tid,
}

impl<'b> HeadWriter<'b> {
    /// A request. `method` is letters only.
    pub fn request(buffer: &'b mut BytesMut, tid: &Tid, method: &str, to: &[u8], from: &[u8]) -> Self {
        buffer.reserve(160 + to.len() + from.len());
        HeadWriter::begin(buffer, tid, |b| put(b, method.as_bytes()), to, from)
    }

    /// The rest of a head whose start line and paths are written elsewhere.
    pub fn rest(buffer: &'b mut BytesMut, tid: &Tid) -> Self {
        buffer.reserve(160);
        HeadWriter { buffer, tid: *tid }
    }

    /// A response.
    pub fn response(buffer: &'b mut BytesMut, tid: &Tid, status: Status, to: &[u8], from: &[u8]) -> Self {
        let word = |b: &mut BytesMut| {
            let _ = write!(b, "{status}");
            if !status.comment().is_empty() {
                b.extend_from_slice(b" ");
                b.extend_from_slice(status.comment().as_bytes());
            }
        };
        HeadWriter::begin(buffer, tid, word, to, from)
    }

    fn begin(
        buffer: &'b mut BytesMut,
        tid: &Tid,
        word: impl Fn(&mut BytesMut),
        to: &[u8],
        from: &[u8],
    ) -> Self {
        buffer.extend_from_slice(b"MSRP ");
        buffer.extend_from_slice(tid.as_bytes());
        buffer.extend_from_slice(b" ");
        word(buffer);
        buffer.extend_from_slice(b"\r\n");
        HeadWriter { buffer, tid: *tid }.header(b"To-Path", to).header(b"From-Path", from)
    }

    /// Message-ID.
    pub fn message_id(self, id: &str) -> Self {
        self.header(b"Message-ID", id.as_bytes())
    }

    /// Byte-Range.
    pub fn byte_range(self, range: ByteRange) -> Self {
        self.buffer.extend_from_slice(b"Byte-Range: ");
        range.put(self.buffer);
        self.buffer.extend_from_slice(b"\r\n");
        self
    }

    /// Success-Report, left out when it is the default `no`.
    pub fn success_report(self, wanted: bool) -> Self {
        if wanted { self.header(b"Success-Report", b"yes") } else { self }
    }

    /// Failure-Report, left out when it is the default `yes`.
    pub fn failure_report(self, value: FailureReport) -> Self {
        if value == FailureReport::Yes {
            self
        } else {
            self.header(b"Failure-Report", value.as_str().as_bytes())
        }
    }

    /// Status of a REPORT, in namespace 000.
    pub fn status(self, status: Status) -> Self {
        let comment = status.comment();
        let blank = if comment.is_empty() { "" } else { " " };
        self.number_line(format_args!("Status: 000 {status}{blank}{comment}\r\n"))
    }

    /// Use-Nickname, quoted (RFC 7701 §7).
    pub fn use_nickname(self, nickname: &str) -> Self {
        let mut quoted = Vec::with_capacity(nickname.len() + 2);
        quoted.push(b'"');
        for c in nickname.bytes() {
            if matches!(c, b'"' | b'\\') {
                quoted.push(b'\\');
            }
            quoted.push(c);
        }
        quoted.push(b'"');
        self.header(b"Use-Nickname", &quoted)
    }

    /// Any other line. A CR or LF in name or value becomes a blank, so that nothing can add lines.
    pub fn header(self, name: &[u8], value: &[u8]) -> Self {
        put(self.buffer, name);
        self.buffer.extend_from_slice(b": ");
        put(self.buffer, value);
        self.buffer.extend_from_slice(b"\r\n");
        self
    }

    /// The lines of another head that a hop passes on unread.
    pub fn others_of(self, head: &Head) -> Self {
        head.others().fold(self, |writer, (name, value)| writer.header(name, value))
    }

    /// Ends the head before a body: Content-Type and the empty line. The body comes next, then [`end_line`].
    pub fn body(self, content_type: &[u8]) {
        let writer = self.header(b"Content-Type", content_type);
        writer.buffer.extend_from_slice(b"\r\n");
    }

    /// Ends a message that has no body.
    pub fn end(self, flag: Flag) {
        put_end_line(self.buffer, &self.tid, flag);
    }

    fn number_line(self, line: std::fmt::Arguments<'_>) -> Self {
        // Writing into a growing buffer cannot fail.
        let _ = self.buffer.write_fmt(line);
        self
    }
}

fn put(buffer: &mut BytesMut, text: &[u8]) {
    if memchr::memchr2(b'\r', b'\n', text).is_none() {
        buffer.extend_from_slice(text);
    } else {
        buffer.extend(text.iter().map(|c| if matches!(c, b'\r' | b'\n') { b' ' } else { *c }));
    }
}

fn put_end_line(buffer: &mut BytesMut, tid: &Tid, flag: Flag) {
    buffer.extend_from_slice(b"-------");
    buffer.extend_from_slice(tid.as_bytes());
    buffer.extend_from_slice(&[flag.octet(), b'\r', b'\n']);
}

/// What follows a body: CRLF and the end-line.
pub fn end_line(tid: &Tid, flag: Flag) -> Bytes {
    let mut buffer = BytesMut::with_capacity(12 + tid.as_bytes().len());
    buffer.extend_from_slice(b"\r\n");
    put_end_line(&mut buffer, tid, flag);
    buffer.freeze()
}

/// The response to a request. A SEND is answered to the previous hop alone, that is the first URI of its
/// From-Path (RFC 4975 §7.2); AUTH and NICKNAME along the whole path (RFC 4976 §5.1, RFC 7701 §7.1). It comes
/// from the URI that the request was sent to.
///
/// `None` where RFC 4975 §7.1.1, §7.1.2 and §7.2 forbid one: to a response, to a REPORT, and to a SEND whose
/// Failure-Report does not want this status.
pub fn response(request: &Head, status: Status) -> Option<Bytes> {
    let to = match request.start() {
        Start::Response(_) | Start::Request(Method::Report) => return None,
        Start::Request(Method::Send) => {
            if !request.failure_report().answers(status) {
                return None;
            }
            request.from_path().first_text()
        }
        Start::Request(Method::Auth | Method::Nickname | Method::Other) => request.from_path().as_str(),
    };
    let own = request.to_path().first_text();
    let mut buffer = BytesMut::with_capacity(96 + to.len() + own.len());
    HeadWriter::response(&mut buffer, request.tid(), status, to.as_bytes(), own.as_bytes()).end(Flag::Last);
    Some(buffer.freeze())
}

/// A REPORT about octets of a message that came by `request`: along its whole From-Path, from the URI it was
/// sent to, with a computed range (RFC 4975 §7.1.2). The caller knows whether the sender wants one.
pub fn report(tid: &Tid, request: &Head, range: ByteRange, status: Status) -> Bytes {
    let to = request.from_path().as_str();
    let own = request.to_path().first_text();
    let mut buffer = BytesMut::new();
    HeadWriter::request(&mut buffer, tid, Method::Report.as_str(), to.as_bytes(), own.as_bytes())
        .message_id(request.message_id())
        .byte_range(range)
        .status(status)
        .end(Flag::Last);
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PATHS, head};
    use crate::{Event, Framer, Limits};

    #[test]
    fn what_is_written_is_read_back() {
        let incoming = head(&format!(
            "MSRP abcd SEND\n{PATHS}X-One: 1\nMessage-ID: 87652491\nX-Two:   2\nContent-Description: d\nContent-Type: x/y\n-------abcd$\n"
        ));
        let tid = Tid::parse(b"9gdgh4ss").unwrap();
        let mut buffer = BytesMut::new();
        HeadWriter::request(&mut buffer, &tid, "SEND", b"msrp://c:4/w;tcp", b"msrp://b:2/own;tcp")
            .message_id(incoming.message_id())
            .success_report(true)
            .failure_report(FailureReport::No)
            .byte_range(ByteRange::OPEN)
            .others_of(&incoming)
            .body(b"x/y");
        let mut bytes = buffer.freeze();
        assert_eq!(
            bytes,
            "MSRP 9gdgh4ss SEND\r\nTo-Path: msrp://c:4/w;tcp\r\nFrom-Path: msrp://b:2/own;tcp\r\n\
             Message-ID: 87652491\r\nSuccess-Report: yes\r\nFailure-Report: no\r\nByte-Range: 1-*/*\r\nX-One: 1\r\n\
             X-Two: 2\r\nContent-Description: d\r\nContent-Type: x/y\r\n\r\n"
        );
        let mut framer = Framer::new(Limits::default());
        assert!(matches!(framer.next(&mut bytes), Ok(Some(Event::Head(_)))));
        let mut end = end_line(&tid, Flag::More);
        assert_eq!(end, "\r\n-------9gdgh4ss+\r\n");
        assert!(matches!(framer.next(&mut end), Ok(Some(Event::End(Flag::More)))));
    }

    #[test]
    fn no_value_can_add_lines() {
        let tid = Tid::parse(b"abcd").unwrap();
        let mut buffer = BytesMut::new();
        HeadWriter::request(&mut buffer, &tid, "SEND", b"t", b"f")
            .header(b"X\r\nEvil", b"1\r\n-------abcd$\r\n")
            .end(Flag::Last);
        assert_eq!(
            buffer,
            "MSRP abcd SEND\r\nTo-Path: t\r\nFrom-Path: f\r\nX  Evil: 1  -------abcd$  \r\n-------abcd$\r\n"
        );
    }

    #[test]
    fn rfc4975_s7_2_who_is_answered_and_where() {
        let one_hop = "To-Path: msrp://r:3/z;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\n";
        let whole = "To-Path: msrp://r:3/z;tcp msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\n";
        for (start, more, status, path) in [
            ("SEND", "", Status::OK, Some(one_hop)),
            ("SEND", "Failure-Report: partial\n", Status::OK, None),
            ("SEND", "Failure-Report: partial\n", Status::STOP, Some(one_hop)),
            ("SEND", "Failure-Report: no\n", Status::NO_SESSION, None),
            ("NICKNAME", "", Status::NICKNAME_IN_USE, Some(whole)),
            ("AUTH", "", Status::UNAUTHORIZED, Some(whole)),
            ("PING", "", Status::UNKNOWN_METHOD, Some(whole)),
            ("REPORT", "Status: 000 200\n", Status::BAD_REQUEST, None),
            ("200 OK", "", Status::BAD_REQUEST, None),
        ] {
            let request = head(&format!("MSRP abcd {start}\n{PATHS}Message-ID: abcd\n{more}-------abcd$\n"));
            let expected =
                path.map(|path| format!("MSRP abcd {status} {}\r\n{path}-------abcd$\r\n", status.comment()));
            assert_eq!(
                response(&request, status).as_deref(),
                expected.as_deref().map(str::as_bytes),
                "{start} {more}"
            );
        }
    }
}
