//! Multipart bodies (RFC 2046 §5.1, RFC 5621): parts are octets and are not copied when read.

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::header_block;
use crate::headers::Headers;
use crate::limits::Limits;
use crate::name::Name;
use crate::typed::{ContentDisposition, ContentType, MediaType};

/// One part.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// Its header fields.
    pub headers: Headers,
    /// Its octets.
    pub body: Bytes,
}

impl Part {
    /// A part of a type.
    pub fn new(content_type: &str, body: impl Into<Bytes>) -> Part {
        let mut headers = Headers::new();
        headers.push(Name::ContentType, content_type);
        Part { headers, body: body.into() }
    }

    /// The type; `text/plain` when none is given (RFC 2046 §5.1) or it does not parse.
    pub fn media_type(&self) -> MediaType {
        match self.headers.typed::<ContentType>() {
            Ok(Some(kind)) => kind.0,
            _ => MediaType::new("text", "plain"),
        }
    }

    /// True for this Content-Disposition: `is_disposition("recipient-list")`.
    pub fn is_disposition(&self, kind: &str) -> bool {
        matches!(self.headers.typed::<ContentDisposition>(), Ok(Some(d)) if d.kind.eq_ignore_ascii_case(kind))
    }
}

/// A body that is not multipart of that boundary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed multipart body: {0}")]
pub struct BadMultipart(pub &'static str);

/// The most parts that one body may have.
pub const PARTS_MAX: usize = 64;

/// Splits a body of that type into its parts. What stands before the first and after the last delimiter is
/// ignored. A body that is not closed is refused: it may have been cut.
pub fn parse(kind: &MediaType, body: &Bytes, limits: &Limits) -> Result<Vec<Part>, BadMultipart> {
    if kind.kind != "multipart" {
        return Err(BadMultipart("type is not multipart"));
    }
    let boundary = kind.boundary().ok_or(BadMultipart("no boundary"))?;
    if boundary.len() > 70 {
        return Err(BadMultipart("boundary is longer than 70 characters"));
    }
    let delimiter = format!("\r\n--{boundary}");
    let mut parts = Vec::new();
    // The first delimiter may be the beginning of the body, without a line end of its own.
    let mut open = None;
    let mut at = 0;
    loop {
        let found = match at {
            0 if body.starts_with(delimiter.as_bytes().get(2..).unwrap_or_default()) => {
                Some((0, delimiter.len() - 2))
            }
            _ => body
                .get(at..)
                .and_then(|rest| memchr::memmem::find(rest, delimiter.as_bytes()))
                .map(|found| (at + found, delimiter.len())),
        };
        let Some((start, len)) = found else { return Err(BadMultipart("is not closed")) };
        let after = start + len;
        let rest = body.get(after..).unwrap_or_default();
        let (is_close, line_end) = match rest {
            [b'-', b'-', ..] => (true, Some(0)),
            _ => (false, line_end(rest)),
        };
        let Some(line_end) = line_end else {
            // Text that only begins like the delimiter.
            at = after;
            continue;
        };
        if let Some(part_start) = open {
            if parts.len() >= PARTS_MAX {
                return Err(BadMultipart("too many parts"));
            }
            parts.push(part(&body.slice(part_start..start.max(part_start)), limits)?);
        }
        if is_close {
            return Ok(parts);
        }
        // The CRLF of the delimiter line may also begin the next delimiter.
        open = Some(after + line_end);
        at = after + line_end - 2;
    }
}

/// Length of `*LWSP CRLF`.
fn line_end(rest: &[u8]) -> Option<usize> {
    let blanks = rest.iter().position(|b| !crate::scan::is_blank(*b))?;
    rest.get(blanks..)?.starts_with(b"\r\n").then_some(blanks + 2)
}

fn part(bytes: &Bytes, limits: &Limits) -> Result<Part, BadMultipart> {
    let (headers, len) = header_block(bytes, limits).ok_or(BadMultipart("header of a part"))?;
    Ok(Part { headers, body: bytes.slice(len.min(bytes.len())..) })
}

/// Writes parts as `multipart/<subtype>`: the value for Content-Type and the body. The boundary is a token of
/// the caller's [`base::Entropy`]; should a part hold it, it is made longer until none does.
pub fn build(subtype: &str, parts: &[Part], boundary: &str) -> (String, Bytes) {
    let mut boundary: String = boundary.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    if boundary.is_empty() {
        boundary.push('b');
    }
    while boundary.len() < 70
        && parts.iter().any(|part| memchr::memmem::find(&part.body, boundary.as_bytes()).is_some())
    {
        boundary.push('x');
    }
    let size: usize = parts.iter().map(|p| p.body.len() + p.headers.write_len() + boundary.len() + 8).sum();
    let mut out = BytesMut::with_capacity(size + boundary.len() + 8);
    for part in parts {
        out.put_slice(format!("--{boundary}\r\n").as_bytes());
        for (name, value) in part.headers.iter() {
            out.put_slice(name.as_bytes());
            out.put_slice(b": ");
            out.put_slice(value);
            out.put_slice(b"\r\n");
        }
        out.put_slice(b"\r\n");
        out.put_slice(&part.body);
        out.put_slice(b"\r\n");
    }
    out.put_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/{subtype};boundary=\"{boundary}\""), out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::typed::Value;

    fn read(body: impl Into<Bytes>) -> Result<Vec<Part>, BadMultipart> {
        let kind = MediaType::parse(b"multipart/mixed;boundary=\"b d\"").unwrap();
        parse(&kind, &body.into(), &Limits::default())
    }

    #[test]
    fn binary_parts_read_back() {
        let mut sdp = Part::new("application/sdp", "v=0\r\n");
        sdp.headers.push(Name::ContentId, "<1@h>");
        let parts = [
            sdp,
            Part::new("application/octet-stream", &b"\x00\r\n--\xff\r\n"[..]),
            Part::new("text/plain", ""),
        ];
        let (kind, body) = build("mixed", &parts, "token");
        let read = parse(&MediaType::parse(kind.as_bytes()).unwrap(), &body, &Limits::default()).unwrap();
        assert_eq!(read, parts);
        assert_eq!(read[0].headers.text(&Name::ContentId), Some("<1@h>"));
    }

    #[test]
    fn preamble_epilogue_and_lookalikes() {
        let body = "preamble\r\n--b d \t\r\n\r\none\r\n--b dx\r\n\r\n--b d\r\nContent-Type: a/b\r\nX:\r\n y\r\n\r\ntwo\r\n--b d\r\n\r\n--b d--epilogue\r\n--b d\r\n";
        let parts = read(body).unwrap();
        let bodies: Vec<_> = parts.iter().map(|p| &p.body[..]).collect();
        assert_eq!(bodies, [&b"one\r\n--b dx\r\n"[..], b"two", b""]);
        assert!(parts[1].media_type().is("a/b") && parts[0].media_type().is("text/plain"));
    }

    #[test]
    fn a_part_may_be_header_only() {
        for body in
            ["--b d\r\nX: y\r\n\r\n--b d--", "--b d\r\nX: y\r\n--b d--", "--b d\r\nX: y\r\n\r\n\r\n--b d--"]
        {
            let parts = read(body).unwrap();
            assert_eq!((parts[0].headers.text(&Name::from("x")), parts[0].body.len()), (Some("y"), 0));
        }
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(read("--b d\r\n\r\nopen"), Err(BadMultipart("is not closed")));
        assert_eq!(read(""), Err(BadMultipart("is not closed")));
        assert_eq!(read("--b d\r\nno header\r\n\r\n--b d--"), Err(BadMultipart("header of a part")));
        let many = "--b d\r\n\r\n\r\n".repeat(PARTS_MAX + 1) + "--b d--";
        assert_eq!(read(many), Err(BadMultipart("too many parts")));
        let kind = MediaType::parse(b"multipart/mixed").unwrap();
        assert!(parse(&kind, &Bytes::new(), &Limits::default()).is_err());
    }

    #[test]
    fn a_boundary_never_stands_in_a_part() {
        let parts = [Part::new("text/plain", "bbx")];
        let (kind, body) = build("mixed", &parts, "b");
        assert_eq!(kind, "multipart/mixed;boundary=\"bxx\"");
        assert_eq!(
            parse(&MediaType::parse(kind.as_bytes()).unwrap(), &body, &Limits::default()).unwrap(),
            parts
        );
    }
}
