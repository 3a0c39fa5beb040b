//! What a message asks for (RFC 5438 §6).

use std::fmt;

use base::Entropy;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::cpim::{Head, IMDN};

/// Octets of a Message-ID (CPM-FACTS §2.11).
const MESSAGE_ID_OCTETS_MAX: usize = 255;
/// Hops of an IMDN route.
const ROUTE_MAX: usize = 16;

/// Names a message for its notifications; opaque, compares byte by byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(String);

impl MessageId {
    /// Reads a value: 1 to 255 visible characters.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let legal = (1..=MESSAGE_ID_OCTETS_MAX).contains(&text.len())
            && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        if legal { Ok(MessageId(text.to_owned())) } else { Err(Error::Value("Message-ID")) }
    }

    /// A new one: 80 random bits (RFC 5438 §6.3 asks for 32 at least).
    pub fn draw(entropy: &mut Entropy) -> Self {
        MessageId(entropy.token(80))
    }

    /// As it goes on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MessageId {
    type Error = Error;
    fn try_from(value: String) -> Result<Self, Error> {
        MessageId::parse(&value)
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> String {
        id.0
    }
}

/// A disposition that a sender can ask for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Disposition {
    /// Tell me when it was delivered.
    PositiveDelivery,
    /// Tell me when it was not.
    NegativeDelivery,
    /// Tell me what intermediaries did with it.
    Processing,
    /// Tell me when it was shown.
    Display,
    /// CPM: tell me when it went out as SMS or MMS.
    Interworking,
}

impl Disposition {
    const ALL: [Disposition; 5] = [
        Disposition::PositiveDelivery,
        Disposition::NegativeDelivery,
        Disposition::Processing,
        Disposition::Display,
        Disposition::Interworking,
    ];

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Disposition::PositiveDelivery => "positive-delivery",
            Disposition::NegativeDelivery => "negative-delivery",
            Disposition::Processing => "processing",
            Disposition::Display => "display",
            Disposition::Interworking => "interworking",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The dispositions asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Dispositions(u8);

impl Dispositions {
    /// These.
    pub fn of(wanted: &[Disposition]) -> Self {
        Dispositions(wanted.iter().fold(0, |bits, d| bits | d.bit()))
    }

    /// True when this one is asked for.
    pub const fn wants(self, disposition: Disposition) -> bool {
        self.0 & disposition.bit() != 0
    }

    /// True when none is.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reads `Disposition-Notification`; words that are not known ask for nothing (RFC 5438 §6.2).
    pub fn parse(value: &str) -> Self {
        value.split(',').fold(Dispositions(0), |all, word| {
            // A word may carry parameters behind a semicolon.
            let word = word.split(';').next().unwrap_or_default().trim();
            match Disposition::ALL.into_iter().find(|d| d.word().eq_ignore_ascii_case(word)) {
                Some(known) => Dispositions(all.0 | known.bit()),
                None => all,
            }
        })
    }
}

impl fmt::Display for Dispositions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for disposition in Disposition::ALL.into_iter().filter(|d| self.wants(*d)) {
            f.write_str(if first { "" } else { ", " })?;
            f.write_str(disposition.word())?;
            first = false;
        }
        Ok(())
    }
}

/// The disposition headers of one message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// `imdn.Message-ID`.
    pub message_id: Option<MessageId>,
    /// `imdn.Disposition-Notification`; empty means that no notification is wanted.
    pub wanted: Dispositions,
    /// `imdn.Original-To`, raw: the recipient before an intermediary changed To.
    pub original_to: Option<String>,
    /// `imdn.IMDN-Record-Route`, raw, in order: who wants to see the notifications.
    pub record_route: Vec<String>,
    /// `imdn.IMDN-Route`, raw, in order: where this notification goes first.
    pub route: Vec<String>,
}

impl Request {
    /// Reads them from a CPIM head.
    pub fn of(head: &Head<'_>) -> Result<Self, Error> {
        let mut request = Request::default();
        for header in head.headers().filter(|h| h.namespace == IMDN) {
            match header.name {
                "Message-ID" if request.message_id.is_some() => return Err(Error::Repeated("Message-ID")),
                "Message-ID" => request.message_id = Some(MessageId::parse(&header.value()?)?),
                "Disposition-Notification" => {
                    request.wanted = Dispositions(request.wanted.0 | Dispositions::parse(header.raw).0);
                }
                "Original-To" => request.original_to = Some(header.raw.to_owned()),
                "IMDN-Record-Route" => push(&mut request.record_route, header.raw)?,
                "IMDN-Route" => push(&mut request.route, header.raw)?,
                _ => {}
            }
        }
        // RFC 5438 §6.2, §6.3: whoever asks must name the message, and say when it was sent.
        if !request.wanted.is_empty() {
            if request.message_id.is_none() {
                return Err(Error::Missing("imdn.Message-ID"));
            }
            if head.date_time().is_none() {
                return Err(Error::Missing("DateTime"));
            }
        }
        Ok(request)
    }
}

fn push(route: &mut Vec<String>, value: &str) -> Result<(), Error> {
    if route.len() == ROUTE_MAX {
        return Err(Error::TooLarge("IMDN route"));
    }
    route.push(value.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::cpim::{Address, Builder};

    fn request(build: impl FnOnce(Builder) -> Builder) -> Result<Request, Error> {
        let message = build(Builder::new(&Address::uri("sip:a@b"), &Address::uri("sip:c@d"))).head();
        Request::of(&Head::parse_whole(&message, &Limits::default())?)
    }

    // RFC 5438 §6.2: the list is read word by word; the others ask for nothing.
    #[test]
    fn what_is_asked_for_is_read() {
        let wanted = Dispositions::of(&[Disposition::PositiveDelivery, Disposition::Display]);
        assert_eq!(Dispositions::parse("positive-delivery, Display;x=1, telepathy"), wanted);
        assert_eq!(wanted.to_string(), "positive-delivery, display");
        assert!(Dispositions::parse("").is_empty());
        let read = request(|b| {
            b.date_time(base::UnixTime::default())
                .imdn("Message-ID", "m1")
                .imdn("Disposition-Notification", &wanted.to_string())
                .imdn("IMDN-Record-Route", "<sip:x@y>")
        });
        assert_eq!(
            read,
            Ok(Request {
                message_id: Some(MessageId("m1".into())),
                wanted,
                record_route: vec!["<sip:x@y>".into()],
                ..Request::default()
            })
        );
    }

    // RFC 5438 §6.3: asking needs a Message-ID and a DateTime; not asking needs neither.
    #[test]
    fn asking_needs_a_name_and_a_time() {
        assert_eq!(request(|b| b), Ok(Request::default()));
        assert_eq!(
            request(|b| b.imdn("Disposition-Notification", "display")),
            Err(Error::Missing("imdn.Message-ID"))
        );
        let untimed = request(|b| b.imdn("Disposition-Notification", "display").imdn("Message-ID", "m"));
        assert_eq!(untimed, Err(Error::Missing("DateTime")));
        assert_eq!(request(|b| b.imdn("Message-ID", "a b")), Err(Error::Value("Message-ID")));
        assert_eq!(
            request(|b| b.imdn("Message-ID", "a").imdn("Message-ID", "b")),
            Err(Error::Repeated("Message-ID"))
        );
    }
}
