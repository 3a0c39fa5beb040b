//! The notification's XML (RFC 5438 §11; CPM-FACTS §2.11 for the interworking element).

use roxmltree::Node;

use super::MessageId;
use crate::xml::{Writer, child, child_text, parse, root};
use crate::{Error, Limits};

const NAMESPACE: &str = "urn:ietf:params:xml:ns:imdn";
const CPM_EXTENSIONS: &str = "urn:oma:xml:cpm:imdn-extensions:1.0";

/// Which of the notifications it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// `delivery-notification`.
    Delivery,
    /// `display-notification`.
    Display,
    /// `processing-notification`: from intermediaries only.
    Processing,
    /// `interworking-notification`: CPM's own.
    Interworking,
}

/// What became of the message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Status {
    /// Delivered to the recipient.
    Delivered,
    /// Not delivered, for good.
    Failed,
    /// Shown to the recipient.
    Displayed,
    /// An intermediary processed it.
    Processed,
    /// An intermediary stored it.
    Stored,
    /// The recipient does not tell.
    Forbidden,
    /// Something went wrong.
    Error,
    /// It left as a short message.
    LegacySms,
    /// It left as a multimedia message.
    LegacyMms,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Delivery, Kind::Display, Kind::Processing, Kind::Interworking];

    const fn element(self) -> &'static str {
        match self {
            Kind::Delivery => "delivery-notification",
            Kind::Display => "display-notification",
            Kind::Processing => "processing-notification",
            Kind::Interworking => "interworking-notification",
        }
    }

    const fn takes(self, status: Status) -> bool {
        use Status::{
            Delivered, Displayed, Error, Failed, Forbidden, LegacyMms, LegacySms, Processed, Stored,
        };
        match self {
            Kind::Delivery => matches!(status, Delivered | Failed | Forbidden | Error),
            Kind::Display => matches!(status, Displayed | Forbidden | Error),
            Kind::Processing => matches!(status, Processed | Stored | Forbidden | Error),
            Kind::Interworking => matches!(status, LegacySms | LegacyMms | Forbidden | Error),
        }
    }
}

impl Status {
    const ALL: [Status; 9] = [
        Status::Delivered,
        Status::Failed,
        Status::Displayed,
        Status::Processed,
        Status::Stored,
        Status::Forbidden,
        Status::Error,
        Status::LegacySms,
        Status::LegacyMms,
    ];

    const fn element(self) -> &'static str {
        match self {
            Status::Delivered => "delivered",
            Status::Failed => "failed",
            Status::Displayed => "displayed",
            Status::Processed => "processed",
            Status::Stored => "stored",
            Status::Forbidden => "forbidden",
            Status::Error => "error",
            Status::LegacySms => "legacy-sms",
            Status::LegacyMms => "legacy-mms",
        }
    }
}

/// A kind with a status that it can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Notification {
    kind: Kind,
    status: Status,
}

impl Notification {
    /// The message was delivered.
    pub const DELIVERED: Notification = Notification { kind: Kind::Delivery, status: Status::Delivered };
    /// The message was not delivered.
    pub const FAILED: Notification = Notification { kind: Kind::Delivery, status: Status::Failed };
    /// The message was shown.
    pub const DISPLAYED: Notification = Notification { kind: Kind::Display, status: Status::Displayed };

    /// `None` when the kind cannot have the status.
    pub fn new(kind: Kind, status: Status) -> Option<Self> {
        kind.takes(status).then_some(Notification { kind, status })
    }

    /// Which notification.
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// What became of the message.
    pub const fn status(self) -> Status {
        self.status
    }
}

/// One notification.
#[derive(Clone, PartialEq, Eq)]
pub struct Imdn {
    /// The message that it is about.
    pub message_id: MessageId,
    /// The DateTime of that message, not of the notification (RFC 5438 §11.1.2).
    pub date_time: String,
    /// Whose device speaks, and how the sender addressed him: both or none.
    pub recipient: Option<(String, String)>,
    /// The subject of the message.
    pub subject: Option<String>,
    /// What it says; `None` for one that we cannot read, which is passed on but never acted on.
    pub notification: Option<Notification>,
}

impl std::fmt::Debug for Imdn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Imdn({}, {:?})", self.message_id, self.notification)
    }
}

impl Imdn {
    /// Reads a document. Elements are known by local name: implementations differ about namespaces.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let document = parse(bytes, limits)?;
        let root = root(&document, "imdn")?;
        let message_id = child_text(root, "message-id").ok_or(Error::Missing("message-id"))?;
        let recipient = child_text(root, "recipient-uri");
        let original = child_text(root, "original-recipient-uri");
        Ok(Imdn {
            message_id: MessageId::parse(&message_id)?,
            date_time: child_text(root, "datetime").ok_or(Error::Missing("datetime"))?,
            recipient: recipient.map(|r| (r.clone(), original.unwrap_or(r))),
            subject: child_text(root, "subject"),
            notification: notification(root)?,
        })
    }

    /// Writes a document, its elements in the order of the schema.
    pub fn write(&self) -> String {
        let mut w = Writer::new();
        w.element("imdn", &[("xmlns", NAMESPACE)], |w| {
            w.text("message-id", self.message_id.as_str());
            w.text("datetime", &self.date_time);
            if let Some((recipient, original)) = &self.recipient {
                w.text("recipient-uri", recipient);
                w.text("original-recipient-uri", original);
            }
            w.optional("subject", self.subject.as_deref());
            if let Some(Notification { kind, status }) = self.notification {
                // The schema admits only foreign elements at its extension point.
                let extension = [("xmlns", CPM_EXTENSIONS)];
                let attributes: &[_] = if kind == Kind::Interworking { &extension } else { &[] };
                w.element(kind.element(), attributes, |w| {
                    w.element("status", &[], |w| w.empty(status.element(), &[]));
                });
            }
        });
        w.finish()
    }
}

fn notification(root: Node<'_, '_>) -> Result<Option<Notification>, Error> {
    let mut found =
        Kind::ALL.into_iter().filter_map(|kind| child(root, kind.element()).map(|node| (kind, node)));
    let Some((kind, node)) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(Error::Repeated("notification"));
    }
    let status = child(node, "status").ok_or(Error::Missing("status"))?;
    let known = Status::ALL.into_iter().find(|s| child(status, s.element()).is_some());
    Ok(known.and_then(|status| Notification::new(kind, status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imdn(notification: Notification) -> Imdn {
        Imdn {
            message_id: MessageId::parse("Qm7x2k9dPz").unwrap(),
            date_time: "2026-11-22T07:15:00.120Z".into(),
            recipient: Some(("tel:+15550100002".into(), "tel:+15550100002".into())),
            subject: None,
            notification: Some(notification),
        }
    }

    #[test]
    fn the_example_is_written() {
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><imdn xmlns=\"urn:ietf:params:xml:ns:imdn\">\
            <message-id>Qm7x2k9dPz</message-id><datetime>2026-11-22T07:15:00.120Z</datetime>\
            <recipient-uri>tel:+15550100002</recipient-uri><original-recipient-uri>tel:+15550100002</original-recipient-uri>\
            <delivery-notification><status><delivered/></status></delivery-notification></imdn>";
        assert_eq!(imdn(Notification::DELIVERED).write(), expected);
    }

    #[test]
    fn every_notification_reads_back() {
        let mut seen = 0;
        for kind in Kind::ALL {
            for status in Status::ALL {
                let Some(notification) = Notification::new(kind, status) else { continue };
                let document = imdn(notification);
                assert_eq!(
                    Imdn::read(document.write().as_bytes(), &Limits::default()).as_ref(),
                    Ok(&document)
                );
                seen += 1;
            }
        }
        assert_eq!(seen, 15);
        assert_eq!(Notification::new(Kind::Display, Status::Delivered), None);
    }

    // CPM-FACTS §2.11: matched by local name on input, whichever namespace the peer chose.
    #[test]
    fn the_interworking_element_is_known_in_any_namespace() {
        for (open, close) in [
            (
                "<c:interworking-notification xmlns:c='urn:oma:xml:cpm:imdn-extensions:1.0'><c:status><c:legacy-sms/></c:status>",
                "</c:interworking-notification>",
            ),
            (
                "<interworking-notification><status><legacy-sms xmlns='urn:oma:xml:cpm:imdn-extensions:1.0'/></status>",
                "</interworking-notification>",
            ),
        ] {
            let text = format!(
                "<imdn xmlns='urn:ietf:params:xml:ns:imdn'><message-id>m</message-id><datetime>d</datetime>{open}{close}</imdn>"
            );
            let read = Imdn::read(text.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(read.notification, Notification::new(Kind::Interworking, Status::LegacySms));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let read = |inner: &str| {
            Imdn::read(format!("<imdn>{inner}</imdn>").as_bytes(), &Limits::default()).map(|i| i.notification)
        };
        let base = "<message-id>m</message-id><datetime>d</datetime>";
        assert_eq!(read(""), Err(Error::Missing("message-id")));
        assert_eq!(read("<message-id>m</message-id>"), Err(Error::Missing("datetime")));
        assert_eq!(read(base), Ok(None));
        assert_eq!(
            read(&format!(
                "{base}<display-notification><status><delivered/></status></display-notification>"
            )),
            Ok(None)
        );
        assert_eq!(read(&format!("{base}<display-notification/>")), Err(Error::Missing("status")));
        let twice = "<display-notification><status/></display-notification><delivery-notification><status/></delivery-notification>";
        assert_eq!(read(&format!("{base}{twice}")), Err(Error::Repeated("notification")));
    }
}
