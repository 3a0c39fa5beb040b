//! The second reading: every SIP message that arrives is read with rsip too, and the two readings are compared, so
//! that the far end is never only our own code (DESIGN §6).

use bytes::Bytes;
use rsip::headers::ToTypedHeader;
use rsip::message::HasHeaders;
use sip::typed::{CSeq, From, NameAddr, To, Via};
use sip::{Headers, Message};

/// What the second reading came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Second {
    /// Both readings agree.
    Same,
    /// rsip cannot read this, for a reason that is known.
    Excused(&'static str),
    /// They differ.
    Differs(String),
}

/// Reads the octets of a message that we read as `ours`.
pub(crate) fn compare(bytes: &Bytes, ours: &Message) -> Second {
    let theirs = match rsip::SipMessage::try_from(bytes.as_ref()) {
        Ok(theirs) => theirs,
        Err(e) => {
            return match excuse(bytes, ours) {
                Some(why) => Second::Excused(why),
                None => Second::Differs(format!("rsip cannot read it: {e}")),
            };
        }
    };
    let difference = start_line(ours, &theirs)
        .or_else(|| fields(ours.headers(), &theirs))
        .or_else(|| typed(ours.headers(), &theirs))
        .or_else(|| body(ours, &theirs));
    match difference {
        None => Second::Same,
        Some(what) => match excuse(bytes, ours) {
            Some(why) => Second::Excused(why),
            None => Second::Differs(what),
        },
    }
}

/// Where rsip 0.4 is known to be wrong.
fn excuse(bytes: &[u8], ours: &Message) -> Option<&'static str> {
    let has = |needle: &str| bytes.windows(needle.len()).any(|w| w.eq_ignore_ascii_case(needle.as_bytes()));
    if std::str::from_utf8(bytes).is_err() {
        return Some("octets that are no UTF-8 are re-encoded");
    }
    if let Message::Request(request) = ours
        && !request.uri.is_sip()
    {
        return Some("a Request-URI that is no SIP URI is refused");
    }
    [
        ("tel:", "tel: URIs are refused"),
        ("gr=urn:", "gr=urn:uuid: is cut at the colon"),
        ("@[", "IPv6 hosts are refused"),
        ("//[", "IPv6 hosts are refused"),
    ]
    .into_iter()
    .find_map(|(needle, why)| has(needle).then_some(why))
}

fn start_line(ours: &Message, theirs: &rsip::SipMessage) -> Option<String> {
    match (ours, theirs) {
        (Message::Request(ours), rsip::SipMessage::Request(theirs)) => {
            let same = ours.method.as_str().eq_ignore_ascii_case(&theirs.method.to_string())
                && ours.uri.to_string().eq_ignore_ascii_case(&theirs.uri.to_string());
            (!same).then(|| format!("request line: {} {}", theirs.method, ours.method.as_str()))
        }
        (Message::Response(ours), rsip::SipMessage::Response(theirs)) => {
            let code = theirs.status_code.code();
            (code != ours.code).then(|| format!("status: {code} and {}", ours.code))
        }
        _ => Some("one reads a request, the other a response".to_owned()),
    }
}

/// Names and values in order. Content-Length is no field of ours: the body has its length.
fn fields(ours: &Headers, theirs: &rsip::SipMessage) -> Option<String> {
    let is_length =
        |name: &str| name.eq_ignore_ascii_case("Content-Length") || name.eq_ignore_ascii_case("l");
    let theirs: Vec<(String, String)> = theirs
        .headers()
        .iter()
        .filter_map(|h| {
            h.to_string().split_once(':').map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()))
        })
        .filter(|(name, _)| !is_length(name))
        .collect();
    let ours: Vec<(&str, &[u8])> = ours.iter().filter(|(name, _)| !is_length(name)).collect();
    if ours.len() != theirs.len() {
        return Some(format!("{} header fields and {}", ours.len(), theirs.len()));
    }
    ours.iter().zip(&theirs).find_map(|((name, value), (their_name, their_value))| {
        let same_name = name.eq_ignore_ascii_case(their_name) || their_name.len() == 1;
        let same = same_name && value.trim_ascii() == their_value.as_bytes();
        (!same).then(|| format!("header field {name} and {their_name}"))
    })
}

/// The fields on which transactions and dialogs hang.
fn typed(ours: &Headers, theirs: &rsip::SipMessage) -> Option<String> {
    for header in theirs.headers().iter() {
        let difference = match header {
            rsip::Header::From(h) => address(
                "From",
                ours.must::<From>().ok().map(|f| f.0),
                h.clone().typed().ok().map(|t| (t.uri.to_string(), t.params)),
            ),
            rsip::Header::To(h) => address(
                "To",
                ours.must::<To>().ok().map(|t| t.0),
                h.clone().typed().ok().map(|t| (t.uri.to_string(), t.params)),
            ),
            rsip::Header::CSeq(h) => match (ours.must::<CSeq>(), h.clone().typed()) {
                (Ok(a), Ok(b)) if a.seq == b.seq && a.method.as_str() == b.method.to_string() => None,
                _ => Some("CSeq".to_owned()),
            },
            _ => None,
        };
        if difference.is_some() {
            return difference;
        }
    }
    // The topmost Via: rsip reads one value of a line only.
    let via =
        theirs.headers().iter().find_map(|h| if let rsip::Header::Via(via) = h { Some(via) } else { None });
    match (ours.must::<Via>(), via.map(|v| v.clone().typed())) {
        (Ok(a), Some(Ok(b))) => {
            let branch = b.branch().map(|branch| branch.value().to_owned());
            let same = a.branch().map(str::to_owned) == branch;
            (!same).then(|| "Via branch".to_owned())
        }
        (Ok(_), Some(Err(e))) => Some(format!("Via: {e}")),
        _ => None,
    }
}

fn address(name: &str, ours: Option<NameAddr>, theirs: Option<(String, Vec<rsip::Param>)>) -> Option<String> {
    let (Some(ours), Some((uri, params))) = (ours, theirs) else {
        return Some(format!("{name}: one cannot read it"));
    };
    let tag = params
        .iter()
        .find_map(|p| if let rsip::Param::Tag(tag) = p { Some(tag.value().to_owned()) } else { None });
    let same = ours.tag().map(str::to_owned) == tag && ours.uri.to_string().eq_ignore_ascii_case(&uri);
    (!same).then(|| name.to_owned())
}

fn body(ours: &Message, theirs: &rsip::SipMessage) -> Option<String> {
    let theirs = theirs.body();
    (ours.body().as_ref() != theirs.as_slice())
        .then(|| format!("body of {} and {} octets", ours.body().len(), theirs.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Bytes, Message) {
        let bytes = Bytes::from(text.replace('\n', "\r\n"));
        let message = sip::datagram(bytes.clone(), &sip::Limits::default()).unwrap().unwrap();
        (bytes, message)
    }

    const REQUEST: &str = "MESSAGE sip:bob@weir.example SIP/2.0\n\
        Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKabc\n\
        From: <sip:ann@weir.example>;tag=a1\n\
        To: <sip:bob@weir.example>\n\
        Call-ID: c1\n\
        CSeq: 7 MESSAGE\n\
        Max-Forwards: 70\n\
        Content-Type: text/plain\n\
        Content-Length: 2\n\nhi";

    #[test]
    fn a_plain_message_reads_the_same() {
        let (bytes, ours) = read(REQUEST);
        assert_eq!(compare(&bytes, &ours), Second::Same);
        let (bytes, ours) = read(
            "SIP/2.0 200 OK\nVia: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bKabc\n\
            From: \"A\" <sip:ann@weir.example>;tag=a1\nTo: <sip:bob@weir.example>;tag=b\nCall-ID: c1\nCSeq: 7 INVITE\n\
            Content-Length: 0\n\n",
        );
        assert_eq!(compare(&bytes, &ours), Second::Same);
    }

    #[test]
    fn a_difference_is_found() {
        let (bytes, _) = read(REQUEST);
        for (from, to) in [
            ("7 MESSAGE", "8 MESSAGE"),
            ("tag=a1", "tag=a2"),
            ("\n\nhi", "\n\nho"),
            ("MESSAGE sip:bob", "MESSAGE sip:eve"),
            ("c1", "c2"),
        ] {
            let (_, ours) = read(&REQUEST.replace(from, to));
            assert!(matches!(compare(&bytes, &ours), Second::Differs(_)), "{from} {to}");
        }
    }

    #[test]
    fn what_rsip_cannot_read_is_excused_by_name() {
        let (bytes, ours) =
            read(&REQUEST.replace("MESSAGE sip:bob@weir.example SIP", "MESSAGE tel:+15550100002 SIP"));
        assert!(matches!(compare(&bytes, &ours), Second::Excused(_)));
    }
}
