//! One message as each of the two parsers reads it, as text per field.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rsip::headers::{ToTypedHeader, UntypedHeader};
use rsip::message::HasHeaders;
use sip::screen::wellformed;
use sip::typed::{Contact, Expires, From, MaxForwards, To, Via};
use sip::{Host, Limits, Message, Name, NameAddr, Uri, datagram};

/// Field to text. A field that the reader refuses is `refused`; one that is not there is missing.
pub type Reading = BTreeMap<&'static str, String>;

pub const REFUSED: &str = "refused";

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Ours. `accepted` says why when it is not.
pub fn ours(wire: &Bytes) -> Reading {
    let mut reading = Reading::new();
    let limits = Limits::default();
    let message = match datagram(wire.clone(), &limits) {
        Ok(Some(message)) => message,
        Ok(None) => return Reading::from([("accepted", "keep-alive".into())]),
        Err(malformed) => return Reading::from([("accepted", malformed.why.to_string())]),
    };
    if let Err(malformed) = wellformed(&message, &limits) {
        return Reading::from([("accepted", malformed.why.to_string())]);
    }
    reading.insert("accepted", "yes".into());
    match &message {
        Message::Request(request) => {
            reading.insert("method", request.method.to_string());
            our_uri(&mut reading, URI, &request.uri);
        }
        Message::Response(response) => {
            reading.insert("code", response.code.to_string());
        }
    }
    let headers = message.headers();
    let names: Vec<String> = headers.iter().map(|(n, _)| n.to_ascii_lowercase()).collect();
    reading.insert("names", names.join(" "));
    let values: Vec<String> = headers.iter().map(|(_, v)| shown(v)).collect();
    reading.insert("values", values.join("|"));
    reading.insert("body", shown(message.body()));
    if let Ok(Some(via)) = headers.typed::<Via>() {
        reading.insert("via.transport", via.transport.to_string());
        reading.insert("via.host", host(&via.sent_by.host));
        reading.insert("via.port", format!("{:?}", via.sent_by.port));
        reading.insert("via.branch", via.branch().unwrap_or_default().into());
        reading.insert("via.received", via.params.get("received").unwrap_or_default().into());
    }
    reading.insert("via.count", headers.values(&Name::Via).count().to_string());
    our_address(&mut reading, FROM, headers.typed::<From>().map(|h| h.map(|h| h.0)));
    our_address(&mut reading, TO, headers.typed::<To>().map(|h| h.map(|h| h.0)));
    our_address(&mut reading, CONTACT, headers.typed::<Contact>().map(|h| h.map(|h| h.0)));
    reading.insert("contact.count", headers.values(&Name::Contact).count().to_string());
    if let Ok(cseq) = headers.must::<sip::typed::CSeq>() {
        reading.insert("cseq", cseq.to_string());
    }
    reading.insert("call-id", headers.first(&Name::CallId).map(shown).unwrap_or_default());
    if let Ok(Some(hops)) = headers.typed::<MaxForwards>() {
        reading.insert("max-forwards", hops.0.to_string());
    }
    if let Ok(Some(expires)) = headers.typed::<Expires>() {
        reading.insert("expires", expires.0.to_string());
    }
    reading
}

/// rsip's, or `None` when it refuses the message (or panics).
pub fn theirs(wire: &Bytes) -> Option<Reading> {
    let parsed = catch_unwind(AssertUnwindSafe(|| rsip::SipMessage::try_from(&wire[..]).ok())).ok()??;
    let mut reading = Reading::from([("accepted", "yes".to_owned())]);
    match &parsed {
        rsip::SipMessage::Request(request) => {
            reading.insert("method", request.method.to_string());
            their_uri(&mut reading, URI, &request.uri);
        }
        rsip::SipMessage::Response(response) => {
            reading.insert("code", response.status_code.code().to_string());
        }
    }
    let fields: Vec<(String, String)> = parsed
        .headers()
        .iter()
        .map(|h| {
            let text = h.to_string();
            let (name, value) = text.split_once(':').unwrap_or((&text, ""));
            (name.to_ascii_lowercase(), shown(value.trim().as_bytes()))
        })
        .collect();
    let column =
        |pick: fn(&(String, String)) -> &str, sep| fields.iter().map(pick).collect::<Vec<_>>().join(sep);
    reading.insert("names", column(|f| &f.0, " "));
    reading.insert("values", column(|f| &f.1, "|"));
    reading.insert("body", shown(parsed.body()));
    let mut counts = [0usize; 2];
    for header in parsed.headers().iter().rev_first() {
        their_header(&mut reading, &header, &mut counts);
    }
    reading.insert("via.count", counts[0].to_string());
    reading.insert("contact.count", counts[1].to_string());
    Some(reading)
}

/// Last field first, so that the first one is what stays in the reading.
trait RevFirst {
    fn rev_first(self) -> std::iter::Rev<std::vec::IntoIter<rsip::Header>>;
}

impl<'a, I: Iterator<Item = &'a rsip::Header>> RevFirst for I {
    fn rev_first(self) -> std::iter::Rev<std::vec::IntoIter<rsip::Header>> {
        self.cloned().collect::<Vec<_>>().into_iter().rev()
    }
}

fn their_header(reading: &mut Reading, header: &rsip::Header, counts: &mut [usize; 2]) {
    use rsip::Header;
    // rsip panics on some values; that is a refusal too.
    macro_rules! typed {
        ($header:expr) => {
            catch_unwind(AssertUnwindSafe(|| $header.typed().ok())).ok().flatten()
        };
    }
    match header {
        Header::Via(via) => {
            counts[0] += 1;
            for field in ["via.transport", "via.host", "via.port", "via.branch", "via.received"] {
                reading.insert(field, REFUSED.into());
            }
            let Some(via) = typed!(via) else { return };
            reading.insert("via.transport", via.transport.to_string());
            reading.insert("via.host", via.uri.host().to_string());
            reading.insert("via.port", format!("{:?}", via.uri.port().map(|p| *p.value())));
            reading.insert("via.branch", via.branch().map(|b| b.to_string()).unwrap_or_default());
            reading.insert("via.received", their_param(&via.params, "received").unwrap_or_default());
        }
        Header::From(h) => their_address(reading, FROM, typed!(h).map(|h| (h.display_name, h.uri, h.params))),
        Header::To(h) => their_address(reading, TO, typed!(h).map(|h| (h.display_name, h.uri, h.params))),
        Header::Contact(h) => {
            counts[1] += 1;
            their_address(reading, CONTACT, typed!(h).map(|h| (h.display_name, h.uri, h.params)));
        }
        Header::CSeq(h) => {
            let text = typed!(h).map_or(REFUSED.into(), |c| c.to_string());
            reading.insert("cseq", text);
        }
        Header::CallId(h) => {
            reading.insert("call-id", shown(h.value().as_bytes()));
        }
        Header::MaxForwards(h) => {
            reading.insert("max-forwards", h.num().map_or(REFUSED.into(), |n| n.to_string()));
        }
        Header::Expires(h) => {
            reading.insert("expires", h.seconds().map_or(REFUSED.into(), |n| n.to_string()));
        }
        _ => {}
    }
}

type Fields = [&'static str; 8];
const URI: Fields = [
    "uri.scheme",
    "uri.user",
    "uri.password",
    "uri.host",
    "uri.port",
    "uri.params",
    "uri.headers",
    "uri.name",
];
const FROM: Fields = [
    "from.scheme",
    "from.user",
    "from.password",
    "from.host",
    "from.port",
    "from.uri-params",
    "from.params",
    "from.name",
];
const TO: Fields =
    ["to.scheme", "to.user", "to.password", "to.host", "to.port", "to.uri-params", "to.params", "to.name"];
const CONTACT: Fields = [
    "contact.scheme",
    "contact.user",
    "contact.password",
    "contact.host",
    "contact.port",
    "contact.uri-params",
    "contact.params",
    "contact.name",
];

fn host(host: &Host) -> String {
    host.to_string().trim_matches(['[', ']']).to_owned()
}

fn joined<'a>(params: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let one = |(name, value): (&str, Option<&str>)| match value {
        // Transports are written in capitals by rsip and compared without regard to case by everybody.
        Some(value) if name == "transport" => format!(";transport={}", value.to_ascii_lowercase()),
        Some(value) => format!(";{name}={value}"),
        None => format!(";{name}"),
    };
    params.map(one).collect()
}

fn our_uri(reading: &mut Reading, fields: Fields, uri: &Uri) {
    reading.insert(fields[0], uri.scheme.as_str().into());
    reading.insert(fields[1], uri.user.clone().unwrap_or_default());
    reading.insert(fields[2], uri.password.clone().unwrap_or_default());
    reading.insert(fields[3], host(&uri.host));
    reading.insert(fields[4], format!("{:?}", uri.port));
    reading.insert(fields[5], joined(uri.params.iter()));
}

fn our_address(
    reading: &mut Reading,
    fields: Fields,
    address: Result<Option<NameAddr>, sip::typed::BadHeader>,
) {
    match address {
        Ok(Some(address)) => {
            our_uri(reading, fields, &address.uri);
            reading.insert(fields[6], joined(address.params.iter()));
            reading.insert(fields[7], address.display.unwrap_or_default());
        }
        Ok(None) => {}
        Err(_) => {
            reading.insert(fields[3], REFUSED.into());
        }
    }
}

fn their_uri(reading: &mut Reading, fields: Fields, uri: &rsip::Uri) {
    let scheme = uri.scheme.as_ref().map(|s| s.to_string()).unwrap_or_default();
    reading.insert(fields[0], scheme);
    reading.insert(fields[1], uri.user().unwrap_or_default().into());
    reading.insert(fields[2], uri.auth.as_ref().and_then(|a| a.password.clone()).unwrap_or_default());
    reading.insert(fields[3], uri.host().to_string());
    reading.insert(fields[4], format!("{:?}", uri.port().map(|p| *p.value())));
    reading.insert(fields[5], their_params(&uri.params));
}

fn their_params(params: &[rsip::Param]) -> String {
    let texts: Vec<String> = params.iter().map(|p| p.to_string()).collect();
    joined(texts.iter().map(|text| {
        let text = text.trim_start_matches(';');
        text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)))
    }))
}

fn their_param(params: &[rsip::Param], name: &str) -> Option<String> {
    params.iter().find_map(|p| p.to_string().strip_prefix(&format!(";{name}=")).map(str::to_owned))
}

fn their_address(
    reading: &mut Reading,
    fields: Fields,
    address: Option<(Option<String>, rsip::Uri, Vec<rsip::Param>)>,
) {
    for field in fields {
        reading.remove(field);
    }
    match address {
        Some((name, uri, params)) => {
            their_uri(reading, fields, &uri);
            reading.insert(fields[6], their_params(&params));
            reading.insert(fields[7], name.unwrap_or_default());
        }
        None => {
            reading.insert(fields[3], REFUSED.into());
        }
    }
}
