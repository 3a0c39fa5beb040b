//! To and from the request and response types of the crate rsip, so that programs built on it can use the
//! stack (feature `rsip`).
//!
//! rsip holds less: methods from a fixed set, header values as text, no headers in URIs, no tel. What it
//! cannot hold is refused ([`NotRsip`]), never bent. A reason phrase of one's own is lost on the way.

use rsip::common::uri::{Auth, HostWithPort, Param, Port};
use rsip::{Header, Host as RsipHost, Scheme as RsipScheme, StatusCode};

use crate::headers::Headers;
use crate::message::{Message, Request, Response, phrase};
use crate::method::Method;
use crate::name::Name;
use crate::params::Params;
use crate::uri::{BadUri, Host, Scheme, Uri};

/// A message that rsip's types cannot hold, or one of rsip's that is no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not to be held by the other type: {0}")]
pub struct NotRsip(pub &'static str);

impl From<BadUri> for NotRsip {
    fn from(bad: BadUri) -> NotRsip {
        NotRsip(bad.0)
    }
}

fn method(method: &Method) -> Result<rsip::Method, NotRsip> {
    Ok(match method {
        Method::Invite => rsip::Method::Invite,
        Method::Ack => rsip::Method::Ack,
        Method::Bye => rsip::Method::Bye,
        Method::Cancel => rsip::Method::Cancel,
        Method::Register => rsip::Method::Register,
        Method::Options => rsip::Method::Options,
        Method::Message => rsip::Method::Message,
        Method::Refer => rsip::Method::Refer,
        Method::Subscribe => rsip::Method::Subscribe,
        Method::Notify => rsip::Method::Notify,
        Method::Info => rsip::Method::Info,
        Method::Prack => rsip::Method::PRack,
        Method::Update => rsip::Method::Update,
        Method::Publish => rsip::Method::Publish,
        Method::Other(_) => return Err(NotRsip("extension method")),
    })
}

fn uri(uri: &Uri) -> Result<rsip::Uri, NotRsip> {
    let scheme = match uri.scheme {
        Scheme::Sip => RsipScheme::Sip,
        Scheme::Sips => RsipScheme::Sips,
        Scheme::Tel | Scheme::Other(_) => return Err(NotRsip("URI that is not sip or sips")),
    };
    if !uri.headers.is_empty() {
        return Err(NotRsip("headers in a URI"));
    }
    let host = match &uri.host {
        Host::Name(name) => RsipHost::Domain(name.as_str().into()),
        Host::V4(v4) => RsipHost::IpAddr((*v4).into()),
        Host::V6(v6) => RsipHost::IpAddr((*v6).into()),
        Host::None => return Err(NotRsip("URI without a host")),
    };
    let auth = uri.user.as_ref().map(|user| Auth { user: user.clone(), password: uri.password.clone() });
    let params: Result<Vec<Param>, _> = uri.params.iter().map(Param::try_from).collect();
    Ok(rsip::Uri {
        scheme: Some(scheme),
        auth,
        host_with_port: HostWithPort { host, port: uri.port.map(Port::from) },
        params: params.map_err(|_| NotRsip("parameter of a URI"))?,
        headers: Vec::new(),
    })
}

fn uri_from(uri: &rsip::Uri) -> Result<Uri, NotRsip> {
    let (user, password) = match &uri.auth {
        Some(auth) => (Some(auth.user.clone()), auth.password.clone()),
        None => (None, None),
    };
    let host = match uri.host() {
        // Written without brackets by rsip, so never by way of text.
        RsipHost::IpAddr(ip) => Host::from(*ip),
        RsipHost::Domain(name) => Host::parse(name.to_string().as_bytes())?,
    };
    let mut params = Params::default();
    for param in &uri.params {
        let text = param.to_string();
        let (name, value) = match text.trim_start_matches(';').split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.trim_start_matches(';').to_owned(), None),
        };
        // rsip writes transports in capitals; nobody else does.
        let value = if name == "transport" { value.map(|v| v.to_ascii_lowercase()) } else { value };
        params.set(&name, value.as_deref());
    }
    let scheme = match &uri.scheme {
        Some(RsipScheme::Sip) | None => Scheme::Sip,
        Some(RsipScheme::Sips) => Scheme::Sips,
        Some(RsipScheme::Other(_)) => return Err(NotRsip("URI that is not sip or sips")),
    };
    let port = uri.port().map(|port| *port.value());
    Ok(Uri { scheme, user, password, host, port, params, headers: Vec::new() })
}

macro_rules! headers {
    ($($name:ident),*) => {
        fn header(name: &Name, value: &str) -> Header {
            match name {
                $(Name::$name => Header::$name(value.into()),)*
                other => Header::Other(other.as_str().to_owned(), value.to_owned()),
            }
        }
    };
}

headers! {
    Accept, AcceptEncoding, AcceptLanguage, AlertInfo, Allow, AuthenticationInfo, Authorization, CSeq, CallId,
    CallInfo, Contact, ContentDisposition, ContentEncoding, ContentLanguage, ContentLength, ContentType, Date,
    ErrorInfo, Event, Expires, From, InReplyTo, MaxForwards, MimeVersion, MinExpires, Organization, Priority,
    ProxyAuthenticate, ProxyAuthorization, ProxyRequire, RecordRoute, ReplyTo, Require, RetryAfter, Route, Server,
    Subject, SubscriptionState, Supported, Timestamp, To, Unsupported, UserAgent, Via, Warning, WwwAuthenticate
}

fn headers(headers: &Headers, body_len: usize) -> Result<rsip::Headers, NotRsip> {
    let mut out = rsip::Headers::default();
    for (name, value) in headers.named().filter(|(name, _)| *name != Name::ContentLength) {
        let value = std::str::from_utf8(value).map_err(|_| NotRsip("header value that is not UTF-8"))?;
        out.push(header(&name, value));
    }
    out.push(header(&Name::ContentLength, &body_len.to_string()));
    Ok(out)
}

fn headers_from(headers: &rsip::Headers) -> Headers {
    let mut out = Headers::new();
    for header in headers.iter() {
        let text = header.to_string();
        let (name, value) = text.split_once(':').unwrap_or((&text, ""));
        out.push(Name::from(name), value);
    }
    out
}

impl TryFrom<&Request> for rsip::Request {
    type Error = NotRsip;
    fn try_from(request: &Request) -> Result<rsip::Request, NotRsip> {
        Ok(rsip::Request {
            method: method(&request.method)?,
            uri: uri(&request.uri)?,
            version: rsip::Version::V2,
            headers: headers(&request.headers, request.body.len())?,
            body: request.body.to_vec(),
        })
    }
}

impl TryFrom<&rsip::Request> for Request {
    type Error = NotRsip;
    fn try_from(request: &rsip::Request) -> Result<Request, NotRsip> {
        let method = Method::parse(request.method.to_string().as_bytes()).ok_or(NotRsip("method"))?;
        let uri = uri_from(&request.uri)?;
        Ok(Request {
            method,
            uri,
            headers: headers_from(&request.headers),
            body: request.body.clone().into(),
        })
    }
}

impl TryFrom<&Response> for rsip::Response {
    type Error = NotRsip;
    fn try_from(response: &Response) -> Result<rsip::Response, NotRsip> {
        let status_code = match StatusCode::from(response.code) {
            StatusCode::Other(code, _) => StatusCode::Other(code, response.reason.clone()),
            known => known,
        };
        Ok(rsip::Response {
            status_code,
            version: rsip::Version::V2,
            headers: headers(&response.headers, response.body.len())?,
            body: response.body.to_vec(),
        })
    }
}

impl TryFrom<&rsip::Response> for Response {
    type Error = NotRsip;
    fn try_from(response: &rsip::Response) -> Result<Response, NotRsip> {
        let code = response.status_code.code();
        if !(100..700).contains(&code) {
            return Err(NotRsip("status code"));
        }
        let reason = match &response.status_code {
            StatusCode::Other(_, reason) => reason.clone(),
            _ => phrase(code).to_owned(),
        };
        Ok(Response {
            code,
            reason,
            headers: headers_from(&response.headers),
            body: response.body.clone().into(),
        })
    }
}

impl TryFrom<&Message> for rsip::SipMessage {
    type Error = NotRsip;
    fn try_from(message: &Message) -> Result<rsip::SipMessage, NotRsip> {
        Ok(match message {
            Message::Request(request) => rsip::SipMessage::Request(request.try_into()?),
            Message::Response(response) => rsip::SipMessage::Response(response.try_into()?),
        })
    }
}

impl TryFrom<&rsip::SipMessage> for Message {
    type Error = NotRsip;
    fn try_from(message: &rsip::SipMessage) -> Result<Message, NotRsip> {
        Ok(match message {
            rsip::SipMessage::Request(request) => Message::Request(request.try_into()?),
            rsip::SipMessage::Response(response) => Message::Response(response.try_into()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn read(text: &str) -> Message {
        crate::datagram(text.to_owned().into(), &Limits::default()).unwrap().unwrap()
    }

    const HEAD: &str = "Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nX-Own: 1\r\nContent-Length: 2\r\n\r\n";

    #[test]
    fn there_and_back() {
        for start in [
            "MESSAGE sip:b:pw@[2001:db8::1]:5070;transport=tcp;lr SIP/2.0",
            "SIP/2.0 486 Busy Here",
            "SIP/2.0 299 Mine",
        ] {
            let message = read(&format!("{start}\r\n{HEAD}\u{7f}\0"));
            let theirs = rsip::SipMessage::try_from(&message).unwrap();
            let again = Message::try_from(&theirs).unwrap();
            assert_eq!(again, message, "{start}");
        }
    }

    #[test]
    fn what_rsip_cannot_hold_is_refused() {
        for (start, why) in [
            ("FOO sip:b@h SIP/2.0", "extension method"),
            ("MESSAGE tel:+1 SIP/2.0", "URI that is not sip or sips"),
            ("MESSAGE sip:b@h?a=b SIP/2.0", "headers in a URI"),
        ] {
            let message = read(&format!("{start}\r\n{HEAD}xx"));
            assert_eq!(rsip::SipMessage::try_from(&message), Err(NotRsip(why)));
        }
        let Message::Request(mut request) = read(&format!("MESSAGE sip:b@h SIP/2.0\r\n{HEAD}xx")) else {
            panic!()
        };
        request.headers.push(Name::Subject, b"\xff");
        assert!(rsip::Request::try_from(&request).is_err());
    }
}
