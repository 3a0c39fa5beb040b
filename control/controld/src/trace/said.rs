//! What a trace reads of a SIP message.

use bytes::Bytes;
use service::UserId;
use sip::typed::Reason;
use sip::{Headers, Message, Method, Name, NameAddr, Request, Response, Uri, phrase};

use super::mask::Mask;

/// How a message begins.
#[derive(Clone, Debug)]
enum Start {
    Request(Method, Uri),
    Response(u16, String),
}

/// A message, as far as a trace wants to know it.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    start: Start,
    pub(super) call: String,
    pub(super) conversation: Option<String>,
    pub(super) contribution: Option<String>,
    pub(super) cseq: String,
    pub(super) method: String,
    /// Who asks and who is asked, as the two ends of the dialog call them.
    pub(super) from: Option<UserId>,
    pub(super) to: Option<UserId>,
    /// Whoever else the message is from or for.
    others: Vec<UserId>,
    content_type: Option<String>,
    pub(super) body: Bytes,
    /// Why, in the words of the peer.
    why: Vec<String>,
    event: Option<String>,
}

fn user(uri: &Uri) -> Option<UserId> {
    UserId::parse(&uri.address_of_record().to_string()).ok().filter(|user| !user.is_anonymous())
}

impl Said {
    pub(super) fn message(message: &Message) -> Said {
        match message {
            Message::Request(request) => Said::request(request),
            Message::Response(response) => Said::response(response),
        }
    }

    pub(crate) fn request(request: &Request) -> Said {
        let start = Start::Request(request.method.clone(), request.uri.clone());
        let mut said = Said::new(start, &request.headers, &request.body);
        said.others.extend(user(&request.uri));
        said
    }

    pub(crate) fn response(response: &Response) -> Said {
        let start = Start::Response(response.code, response.reason.clone());
        Said::new(start, &response.headers, &response.body)
    }

    /// A CANCEL between two functions, of the INVITE that this answers.
    pub(crate) fn cancel(refusal: &Response, reason: Option<&Reason>) -> Said {
        let mut said = Said::response(refusal);
        let to = refusal.headers.one::<NameAddr>(&Name::To).ok().flatten();
        said.start = Start::Request(Method::Cancel, to.map_or_else(Uri::anonymous, |to| to.uri));
        said.method = Method::Cancel.as_str().to_owned();
        said.cseq = said.cseq.replace("INVITE", "CANCEL");
        said.why = reason.map(ToString::to_string).into_iter().collect();
        said.content_type = None;
        said
    }

    fn new(start: Start, headers: &Headers, body: &Bytes) -> Said {
        let text = |name: &Name| headers.text(name).map(|value| value.trim().to_owned());
        let addresses = |name: &Name| headers.many::<NameAddr>(name).unwrap_or_default();
        let one = |name: &Name| addresses(name).first().and_then(|address| user(&address.uri));
        let identities =
            [Name::PAssertedIdentity, Name::PPreferredIdentity, Name::PServedUser, Name::ReferTo];
        let others = identities.iter().flat_map(addresses).filter_map(|a| user(&a.uri)).collect();
        let cseq = text(&Name::CSeq).unwrap_or_default();
        let method = cseq.rsplit(' ').next().unwrap_or_default().to_owned();
        Said {
            start,
            call: text(&Name::CallId).unwrap_or_default(),
            conversation: text(&Name::ConversationId),
            contribution: text(&Name::ContributionId),
            cseq,
            method,
            from: one(&Name::From),
            to: one(&Name::To),
            others,
            content_type: text(&Name::ContentType),
            body: body.clone(),
            why: [Name::Reason, Name::Warning].iter().filter_map(text).collect(),
            event: text(&Name::Event),
        }
    }

    pub(super) fn is_request(&self) -> bool {
        matches!(self.start, Start::Request(..))
    }

    /// The code of an answer.
    pub(super) fn code(&self) -> Option<u16> {
        match self.start {
            Start::Request(..) => None,
            Start::Response(code, _) => Some(code),
        }
    }

    /// Whether it is from a user, or for him.
    pub(super) fn concerns(&self, wanted: &UserId) -> bool {
        self.from.as_ref() == Some(wanted) || self.to.as_ref() == Some(wanted) || self.others.contains(wanted)
    }

    /// In a line.
    pub(super) fn summary(&self, mask: &Mask) -> String {
        let mut line = match &self.start {
            Start::Request(method, uri) => format!("{} {}", method.as_str(), mask.uri(uri)),
            Start::Response(code, _) if !phrase(*code).is_empty() => {
                format!("{code} {} ({})", phrase(*code), self.method)
            }
            Start::Response(code, reason) => format!("{code} {} ({})", mask.text(reason), self.method),
        };
        if let Some(event) = &self.event {
            line.push_str(&format!(" [{}]", mask.text(event)));
        }
        if !self.body.is_empty() {
            let kind = self.content_type.as_deref().unwrap_or("?");
            let kind = kind.split(';').next().unwrap_or_default().trim();
            line.push_str(&format!(" {kind}"));
            let lines = media_lines(&self.body);
            if !lines.is_empty() {
                line.push_str(&format!(" ({})", lines.join(", ")));
            }
        }
        for why in &self.why {
            line.push_str(&format!(" — {}", mask.text(why)));
        }
        line
    }

    /// The body as text, so many octets of it at most.
    pub(super) fn shown(&self, mask: &Mask, octets_max: usize) -> Option<String> {
        if octets_max == 0 || self.body.is_empty() {
            return None;
        }
        let part = match self.body.get(..octets_max) {
            Some(part) if part.len() < self.body.len() => {
                // What is cut off within a word could be the half of an address that shows that it is one.
                let end = part.iter().rposition(u8::is_ascii_whitespace).map_or(0, |at| at + 1);
                part.get(..end).unwrap_or_default()
            }
            _ => &self.body,
        };
        Some(mask.text(&String::from_utf8_lossy(part)))
    }
}

/// The kinds of media that a session description has: its m= lines, which name nobody.
fn media_lines(body: &[u8]) -> Vec<String> {
    let lines = body.split(|octet| *octet == b'\n').filter_map(|line| line.strip_prefix(b"m="));
    let kinds = lines.filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let mut words = line.split(' ');
        let (kind, port) = (words.next()?, words.next()?);
        let known = ["message", "audio", "video", "application"].contains(&kind);
        known.then(|| if port == "0" { format!("{kind} off") } else { kind.to_owned() })
    });
    kinds.take(8).collect()
}
