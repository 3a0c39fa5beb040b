//! CPIM messages of a device: writing them with what they ask for, reading them, and the notifications that they
//! bring about (RFC 3862, RFC 5438; CPM-FACTS §2.11).

use base::{Entropy, UnixTime};
use bytes::Bytes;
use cpm::address::ANONYMOUS;
use cpm::cpim::{Address, Builder, Head};
use cpm::imdn::{Disposition, Dispositions, Imdn, Kind, MessageId, Notification, Request, Status};
use cpm::{Limits, media_type};

use crate::event::{Letter, Notice, Via};

/// A message to write.
#[derive(Clone, Debug)]
pub struct Draft {
    /// CPIM To; `None` = anonymous: the peer of a 1-1 chat, or the room.
    pub to: Option<String>,
    /// The type of the content.
    pub content_type: String,
    /// The content.
    pub body: Bytes,
    /// Ask for `delivered`.
    pub wants_delivered: bool,
    /// Ask for `displayed`.
    pub wants_displayed: bool,
}

impl Draft {
    /// Plain text that asks for `delivered`.
    pub fn text(text: impl Into<String>) -> Draft {
        Draft {
            to: None,
            content_type: "text/plain;charset=UTF-8".to_owned(),
            body: Bytes::from(text.into()),
            wants_delivered: true,
            wants_displayed: false,
        }
    }

    /// Any content that asks for `delivered`.
    pub fn content(content_type: impl Into<String>, body: impl Into<Bytes>) -> Draft {
        Draft { content_type: content_type.into(), body: body.into(), ..Draft::text("") }
    }

    /// The same to one recipient.
    pub fn to(self, to: impl Into<String>) -> Draft {
        Draft { to: Some(to.into()), ..self }
    }

    /// The same, asking for `displayed` too.
    pub fn displayed(self) -> Draft {
        Draft { wants_displayed: true, ..self }
    }

    /// The same, asking for nothing.
    pub fn quiet(self) -> Draft {
        Draft { wants_delivered: false, wants_displayed: false, ..self }
    }

    /// The CPIM message from `from` (`None` = anonymous) and its `imdn.Message-ID`.
    pub(crate) fn write(&self, from: Option<&str>, now: UnixTime, entropy: &mut Entropy) -> (String, Bytes) {
        let message_id = MessageId::draw(entropy);
        let wanted: Vec<Disposition> = [
            (self.wants_delivered, Disposition::PositiveDelivery),
            (self.wants_displayed, Disposition::Display),
        ]
        .into_iter()
        .filter_map(|(on, what)| on.then_some(what))
        .collect();
        let to = self.to.as_deref().unwrap_or(ANONYMOUS);
        let mut builder = Builder::new(&Address::uri(from.unwrap_or(ANONYMOUS)), &Address::uri(to))
            .date_time(now)
            .imdn("Message-ID", message_id.as_str());
        if !wanted.is_empty() {
            builder = builder.imdn("Disposition-Notification", &Dispositions::of(&wanted).to_string());
        }
        let bytes = builder
            .payload_type(media_type::essence(&self.content_type))
            .build(&self.content_type, &self.body);
        (message_id.as_str().to_owned(), bytes)
    }
}

/// What a CPIM message held.
#[derive(Debug)]
pub(crate) enum Content {
    Letter(Letter),
    Notice(Notice),
    Composing { from: String, active: bool },
}

/// Reads a CPIM message.
pub(crate) fn read(bytes: &Bytes, via: Via) -> Result<Content, cpm::Error> {
    let limits = Limits::default();
    let head = Head::parse_whole(bytes, &limits)?;
    let from = head.from()?.uri.into_owned();
    let to = head.only_to()?.uri.into_owned();
    let body = bytes.slice(head.body_offset().min(bytes.len())..);
    let content_type = head.content_type().to_owned();
    if media_type::is(&content_type, media_type::IMDN) {
        let imdn = Imdn::read(&body, &limits)?;
        let status = imdn.notification.map_or("none", |n| status_word(n.status()));
        return Ok(Content::Notice(Notice {
            via,
            message_id: imdn.message_id.as_str().to_owned(),
            status: status.to_owned(),
            recipient: imdn.recipient.map_or(from, |(recipient, _)| recipient),
        }));
    }
    if media_type::is(&content_type, media_type::IS_COMPOSING) {
        let composing = cpm::composing::Composing::read(&body, &limits)?;
        return Ok(Content::Composing { from, active: composing.active });
    }
    let request = Request::of(&head)?;
    Ok(Content::Letter(Letter {
        via,
        from,
        to,
        asserted: None,
        message_id: request.message_id.map(|id| id.as_str().to_owned()),
        wants_delivered: request.wanted.wants(Disposition::PositiveDelivery),
        wants_displayed: request.wanted.wants(Disposition::Display),
        date_time: head.date_time().map(str::to_owned),
        conversation: None,
        content_type,
        body,
    }))
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Delivered => "delivered",
        Status::Displayed => "displayed",
        Status::Failed => "failed",
        Status::Processed => "processed",
        Status::Stored => "stored",
        Status::Forbidden => "forbidden",
        Status::Error => "error",
        _ => "legacy",
    }
}

/// Which notification to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It arrived.
    Delivered,
    /// It was shown.
    Displayed,
}

/// The notification about a letter: from its recipient to its sender. `own` is the recipient's address; `None` keeps
/// both ends anonymous (1-1 chat).
pub(crate) fn notify(
    letter: &Letter,
    answer: Answer,
    own: Option<&str>,
    now: UnixTime,
    entropy: &mut Entropy,
) -> Option<Bytes> {
    let message_id = MessageId::parse(letter.message_id.as_deref()?).ok()?;
    let notification = match answer {
        Answer::Delivered => Notification::new(Kind::Delivery, Status::Delivered)?,
        Answer::Displayed => Notification::new(Kind::Display, Status::Displayed)?,
    };
    let imdn = Imdn {
        message_id,
        // RFC 5438 §7.2.1.1: the time of the message, not of the notification.
        date_time: letter.date_time.clone().unwrap_or_else(|| now.to_string()),
        recipient: own.map(|own| (own.to_owned(), own.to_owned())),
        subject: None,
        notification: Some(notification),
    };
    let from = Address::uri(own.unwrap_or(ANONYMOUS));
    let to = Address::uri(if own.is_some() { letter.from.as_str() } else { ANONYMOUS });
    let bytes = Builder::new(&from, &to)
        .date_time(now)
        .imdn("Message-ID", MessageId::draw(entropy).as_str())
        .mime("Content-Disposition", "notification")
        .build(media_type::IMDN, imdn.write().as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5438_a_letter_is_read_and_answered() {
        let mut entropy = Entropy::from_number(1);
        let now = UnixTime::from_millis(1_795_331_700_120);
        let draft = Draft::text("hi").to("sip:bob@weir.example").displayed();
        let (id, bytes) = draft.write(Some("sip:ann@weir.example"), now, &mut entropy);
        let Ok(Content::Letter(letter)) = read(&bytes, Via::Pager) else { panic!("no letter") };
        assert_eq!((letter.text().as_str(), letter.from.as_str()), ("hi", "sip:ann@weir.example"));
        assert!(letter.wants_delivered && letter.wants_displayed);
        assert_eq!(letter.message_id.as_deref(), Some(id.as_str()));
        for (answer, word) in [(Answer::Delivered, "delivered"), (Answer::Displayed, "displayed")] {
            let bytes = notify(&letter, answer, Some("sip:bob@weir.example"), now, &mut entropy).unwrap();
            assert!(String::from_utf8_lossy(&bytes).contains("Content-Disposition: notification"));
            let Ok(Content::Notice(notice)) = read(&bytes, Via::Pager) else { panic!("no notice") };
            assert_eq!((notice.message_id.as_str(), notice.status.as_str()), (id.as_str(), word));
            assert_eq!(notice.recipient, "sip:bob@weir.example");
        }
    }

    #[test]
    fn a_chat_without_addresses_stays_anonymous() {
        let mut entropy = Entropy::from_number(2);
        let (_, bytes) = Draft::text("x").quiet().write(None, UnixTime::from_millis(0), &mut entropy);
        let Ok(Content::Letter(letter)) = read(&bytes, Via::Chat(crate::SessionId(1))) else {
            panic!("no letter")
        };
        assert_eq!((letter.from.as_str(), letter.to.as_str()), (ANONYMOUS, ANONYMOUS));
        assert!(!letter.wants_delivered && !letter.wants_displayed);
    }
}
