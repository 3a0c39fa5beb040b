//! The CPM service identifiers (ICSI), in both spellings (CPM-FACTS §2.1).

/// A CPM communication service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Service {
    /// Pager Mode standalone message.
    Message,
    /// Pager Mode message to a group or list.
    MessageGroup,
    /// Large Message Mode standalone message.
    LargeMessage,
    /// Large Message Mode message to a group or list.
    LargeMessageGroup,
    /// One-to-one session.
    Session,
    /// Group session.
    SessionGroup,
    /// File transfer.
    FileTransfer,
    /// File transfer to a group.
    FileTransferGroup,
    /// Delivery of deferred messages.
    Deferred,
    /// System message.
    SystemMessage,
}

const PREFIX: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.";

impl Service {
    /// Every service, for tables.
    pub const ALL: [Service; 10] = [
        Service::Message,
        Service::MessageGroup,
        Service::LargeMessage,
        Service::LargeMessageGroup,
        Service::Session,
        Service::SessionGroup,
        Service::FileTransfer,
        Service::FileTransferGroup,
        Service::Deferred,
        Service::SystemMessage,
    ];

    const fn suffix(self) -> &'static str {
        match self {
            Service::Message => "msg",
            Service::MessageGroup => "msg.group",
            Service::LargeMessage => "largemsg",
            Service::LargeMessageGroup => "largemsg.group",
            Service::Session => "session",
            Service::SessionGroup => "session.group",
            Service::FileTransfer => "filetransfer",
            Service::FileTransferGroup => "filetransfer.group",
            Service::Deferred => "deferred",
            Service::SystemMessage => "systemmsg",
        }
    }

    /// The URN as P-Preferred-Service and P-Asserted-Service carry it (RFC 6050).
    pub fn urn(self) -> String {
        format!("{PREFIX}{}", self.suffix())
    }

    /// Reads the URN in any of its spellings: plain or with `%3A`, in any case.
    pub fn parse(urn: &str) -> Option<Service> {
        let urn = plain(urn);
        let suffix = urn.strip_prefix(PREFIX)?;
        Service::ALL.into_iter().find(|s| s.suffix() == suffix)
    }

    /// The service of a P-Asserted-Service or P-Preferred-Service value, the first one known.
    pub fn of_header(value: &str) -> Option<Service> {
        value.split(',').find_map(|urn| Service::parse(urn.trim()))
    }

    /// What clients register for it: the variant without `.group`.
    pub const fn registered(self) -> Service {
        match self {
            Service::MessageGroup => Service::Message,
            Service::LargeMessageGroup => Service::LargeMessage,
            Service::SessionGroup => Service::Session,
            Service::FileTransferGroup => Service::FileTransfer,
            other => other,
        }
    }

    /// True for the variants to a group or list.
    pub fn is_group(self) -> bool {
        self.registered() != self
    }

    /// The feature parameter of a Contact or Accept-Contact that names these services: colons always as
    /// `%3A`, one quoted list.
    pub fn feature(services: &[Service]) -> String {
        let list: Vec<String> = services.iter().map(|s| s.urn().replace(':', "%3A")).collect();
        format!("+g.3gpp.icsi-ref=\"{}\"", list.join(","))
    }

    /// The Accept-Contact value that a request for this service carries: the registered (non-group) tag,
    /// neither `require` nor `explicit`.
    pub fn accept_contact(self) -> String {
        format!("*;{}", Service::feature(&[self.registered()]))
    }
}

/// The IARI by which a contact says that the group is closed (CPM-FACTS §2.6).
pub const CLOSED_GROUP_CHAT: &str = "urn:urn-7:3gpp-application.ims.iari.rcs.closedgroupchat";

/// One spelling for comparison: no `%3A`, lower case.
pub(super) fn plain(urn: &str) -> String {
    let lower = urn.to_ascii_lowercase();
    if lower.contains("%3a") { lower.replace("%3a", ":") } else { lower }
}

/// RCS clients register the tag without `.group`: a wanted `X.group` is met by a registered `X`. Both plain.
pub(super) fn reference_met(wanted: &str, offered: &str) -> bool {
    wanted == offered || wanted.strip_suffix(".group") == Some(offered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_reads_back_in_both_spellings_and_any_case() {
        for service in Service::ALL {
            let urn = service.urn();
            assert_eq!(Service::parse(&urn), Some(service));
            assert_eq!(Service::parse(&urn.replace(':', "%3A")), Some(service));
            assert_eq!(Service::parse(&urn.replace(':', "%3a").to_ascii_uppercase()), Some(service));
            assert_eq!(service.is_group(), urn.ends_with(".group"));
        }
        assert_eq!(Service::parse("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msgx"), None);
        assert_eq!(
            Service::of_header("urn:x, urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session"),
            Some(Service::Session)
        );
    }

    #[test]
    fn the_accept_contact_of_a_group_request_has_the_registered_tag() {
        assert_eq!(
            Service::SessionGroup.accept_contact(),
            "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\""
        );
    }
}
