//! The requests of a device, headers and bodies, before Via (CPM-FACTS §2.1-2.6).

use std::net::SocketAddr;

use cpm::feature::Service;
use cpm::resource_lists::{Entry, ResourceList};
use cpm::{ContributionId, ConversationId, media_type};
use sip::multipart::{self, Part};
use sip::{Method, Name, Request, Transport, Uri};

use crate::shared::Shared;
use crate::{Account, UeError};

/// What a device says it can do (RFC 3840): chat, messages, files, groups.
const SERVICES: [Service; 4] =
    [Service::Message, Service::LargeMessage, Service::Session, Service::FileTransfer];
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, MESSAGE, OPTIONS, NOTIFY, REFER, UPDATE, INFO";
const USER_AGENT: &str = "weir-ue";
/// How long a pager message is worth delivering, seconds.
const MESSAGE_EXPIRES_S: u32 = 259_200;

/// A session to start.
#[derive(Clone, Debug)]
pub struct Call {
    /// Request-URI: a user, the conference factory, a group.
    pub to: String,
    /// Offer a chat.
    pub message: bool,
    /// Offer audio.
    pub audio: bool,
    /// Who else: makes it an ad-hoc group (RFC 5366). Empty: none of that.
    pub recipients: Vec<String>,
    /// True for a conference: factory, group or focus.
    pub room: bool,
    /// Subject.
    pub subject: Option<String>,
    /// Conversation-ID; drawn when absent.
    pub conversation: Option<String>,
    /// Contribution-ID; drawn when absent. A group is found again by it (CPM-FACTS §2.6).
    pub contribution: Option<String>,
    /// Further header fields.
    pub headers: Vec<(String, String)>,
    /// Offer this description, which somebody else has written and whose media are his (a browser's); its answer is told
    /// as [`crate::Event::Described`].
    pub description: Option<bytes::Bytes>,
}

impl Call {
    /// A 1-1 session with this media.
    pub fn new(to: impl Into<String>, message: bool, audio: bool) -> Call {
        Call {
            to: to.into(),
            message,
            audio,
            recipients: Vec::new(),
            room: false,
            subject: None,
            conversation: None,
            contribution: None,
            headers: Vec::new(),
            description: None,
        }
    }

    /// A 1-1 chat.
    pub fn chat(to: impl Into<String>) -> Call {
        Call::new(to, true, false)
    }

    /// A 1-1 call with audio.
    pub fn audio(to: impl Into<String>) -> Call {
        Call::new(to, false, true)
    }

    /// An ad-hoc group.
    pub fn group(factory: impl Into<String>, recipients: &[&str]) -> Call {
        let recipients = recipients.iter().map(|r| (*r).to_owned()).collect();
        Call { recipients, room: true, ..Call::new(factory, true, false) }
    }

    /// Joining a group or conference.
    pub fn join(room: impl Into<String>) -> Call {
        Call { room: true, ..Call::new(room, true, false) }
    }

    /// The same with audio.
    pub fn with_audio(self) -> Call {
        Call { audio: true, ..self }
    }

    /// With the description of another's media instead of own ones.
    pub fn describing(self, description: impl Into<bytes::Bytes>) -> Call {
        Call { description: Some(description.into()), message: false, audio: false, ..self }
    }

    /// The same with a subject.
    pub fn subject(self, subject: impl Into<String>) -> Call {
        Call { subject: Some(subject.into()), ..self }
    }
}

/// Reads a URI that the user of the library gave.
pub(crate) fn uri(text: &str) -> Result<Uri, UeError> {
    Uri::parse(text.as_bytes()).map_err(|e| UeError::Bad(format!("{text}: {e}")))
}

/// Our Contact, with what we can do.
pub(crate) fn contact(account: &Account, local: SocketAddr) -> String {
    let transport = match account.transport {
        Transport::Udp => "",
        Transport::Tls => ";transport=tls",
        _ => ";transport=tcp",
    };
    let services = Service::feature(&SERVICES);
    format!("<sip:{}@{local}{transport}>;+sip.instance=\"<{}>\";{services}", account.user(), account.instance)
}

/// A request outside a dialog, without Via.
pub(crate) fn initial(shared: &Shared, method: Method, target: &Uri) -> Request {
    let account = &shared.account;
    let mut request = Request::new(method.clone(), target.clone());
    let headers = &mut request.headers;
    headers.push(Name::MaxForwards, "70");
    headers.push(Name::From, format!("<{}>;tag={}", account.address, shared.token(64)));
    // RFC 3261 §10.2: a registration is about the address in To.
    let to = if method == Method::Register { account.address.clone() } else { target.to_string() };
    headers.push(Name::To, format!("<{to}>"));
    headers.push(Name::CallId, shared.token(128));
    headers.push(Name::CSeq, format!("1 {method}"));
    headers.push(Name::UserAgent, USER_AGENT);
    request
}

/// REGISTER for `expires_s` seconds.
pub(crate) fn register(shared: &Shared, local: SocketAddr, expires_s: u32) -> Result<Request, UeError> {
    let account = &shared.account;
    let registrar = uri(&format!("sip:{}", account.domain()))?;
    let mut request = initial(shared, Method::Register, &registrar);
    request.headers.push(Name::Contact, format!("{};reg-id=1", contact(account, local)));
    request.headers.push(Name::Expires, expires_s.to_string());
    request.headers.push(Name::Supported, "path, gruu, outbound");
    request.headers.push(Name::Allow, ALLOW);
    Ok(request)
}

/// A pager MESSAGE around a CPIM body (RFC 3428; CPM-FACTS §2.3).
pub(crate) fn message(shared: &Shared, to: &Uri, cpim: bytes::Bytes, conversation: Option<&str>) -> Request {
    let mut request = initial(shared, Method::Message, to);
    let conversation = conversation
        .map_or_else(|| ConversationId::draw(&mut shared.entropy()).as_str().to_owned(), str::to_owned);
    let headers = &mut request.headers;
    headers.push(Name::PPreferredService, Service::Message.urn());
    headers.push(Name::AcceptContact, Service::Message.accept_contact());
    headers.push(Name::ConversationId, conversation);
    headers.push(Name::ContributionId, ContributionId::draw(&mut shared.entropy()).as_str());
    headers.push(Name::Expires, MESSAGE_EXPIRES_S.to_string());
    request.set_body(media_type::CPIM, cpim);
    request
}

/// An INVITE with its offer; a recipient list rides beside the offer (RFC 5366 §4).
pub(crate) fn invite(
    shared: &Shared,
    call: &Call,
    local: SocketAddr,
    sdp: bytes::Bytes,
) -> Result<Request, UeError> {
    let mut request = initial(shared, Method::Invite, &uri(&call.to)?);
    let mut entropy = shared.entropy();
    let drawn = |given: &Option<String>, draw: &mut dyn FnMut() -> String| given.clone().unwrap_or_else(draw);
    let conversation =
        drawn(&call.conversation, &mut || ConversationId::draw(&mut entropy).as_str().to_owned());
    let contribution =
        drawn(&call.contribution, &mut || ContributionId::draw(&mut entropy).as_str().to_owned());
    let service = if call.room { Service::SessionGroup } else { Service::Session };
    let headers = &mut request.headers;
    headers.push(Name::Contact, contact(&shared.account, local));
    headers.push(Name::Allow, ALLOW);
    headers.push(Name::Supported, "timer");
    headers.push(Name::SessionExpires, "1800;refresher=uac");
    if call.message {
        headers.push(Name::PPreferredService, service.urn());
        headers.push(Name::AcceptContact, service.accept_contact());
    }
    headers.push(Name::ConversationId, conversation);
    headers.push(Name::ContributionId, contribution);
    if let Some(subject) = &call.subject {
        headers.push(Name::Subject, subject);
    }
    for (name, value) in &call.headers {
        headers.push(Name::from(name.as_str()), value);
    }
    if call.recipients.is_empty() {
        request.set_body(media_type::SDP, sdp);
    } else {
        request.headers.push(Name::Require, "recipient-list-invite");
        let list = recipient_list(&call.recipients);
        let mut recipients = Part::new(media_type::RESOURCE_LISTS, list.into_bytes());
        recipients.headers.push(Name::ContentDisposition, "recipient-list");
        // The boundary occurs in no part: it is a fresh random token.
        let parts = [Part::new(media_type::SDP, sdp), recipients];
        let (content_type, body) = multipart::build("mixed", &parts, &shared.token(100));
        request.set_body(&content_type, body);
    }
    Ok(request)
}

pub(crate) fn recipient_list(recipients: &[String]) -> String {
    let entries = recipients.iter().map(|r| Entry::new(r.as_str())).collect();
    ResourceList { entries, references: 0 }.write()
}
