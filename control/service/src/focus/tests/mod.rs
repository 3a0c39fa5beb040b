//! The Controlling Function driven from outside: phones on one side of the lane, a data plane on the other, the
//! Participating Functions between (CPM-FACTS §7.3 F4 to F8).

mod away;
mod change;
mod group;
mod media;
mod outside;
mod policy;
mod refer;
mod restart;
mod subscription;

use cpm::conference::{ConferenceInfo, Roster, Status};
use cpm::resource_lists::{Entry, ResourceList};
use sip::{Dialog, Method, Name, Peer, Request, Response};

use crate::focus::config::GroupEntry;
use crate::testing::{Event, World, chat_sdp, peer, reply, text, via};
use crate::{ClientTx, Config, ServerTx, SubscriberEntry, UserId};

pub(super) const FACTORY: &str = "conference-factory";

/// A phone with at most one session.
pub(super) struct Phone {
    pub(super) user: &'static str,
    pub(super) peer: Peer,
    pub(super) sdp: String,
    pub(super) dialog: Option<Dialog>,
    pub(super) roster: Roster,
    /// Every conference document that came.
    pub(super) documents: Vec<ConferenceInfo>,
    /// Status lines of `refer` notifications.
    pub(super) fragments: Vec<String>,
    /// Reasons of the BYEs that came.
    pub(super) byes: Vec<String>,
    serial: u32,
}

pub(super) fn user(name: &str) -> UserId {
    UserId::parse(&format!("sip:{name}@weir.example")).unwrap()
}

pub(super) fn config() -> Config {
    let mut config = World::new().config;
    for name in ["dave", "erin"] {
        config.subscribers.push(SubscriberEntry {
            address: user(name),
            name: String::new().into(),
            password: "secret".to_owned().into(),
        });
    }
    config
}

pub(super) fn group(id: &str, members: &[&str]) -> GroupEntry {
    GroupEntry {
        address: user(id),
        subject: "Books".to_owned(),
        members: members.iter().map(|m| user(m)).collect(),
        admins: Vec::new(),
        invite_members: false,
        open: false,
        media: Vec::new(),
    }
}

/// A world with registered phones.
pub(super) fn world_with(config: Config) -> (World, [Phone; 4]) {
    let mut world = World::with(config);
    let phones = [("alice", 7001), ("bob", 7101), ("carol", 7201), ("dave", 7301)].map(|(user, port)| {
        world.register(user, peer(port), &format!("urn:uuid:00000000-0000-1000-8000-00000000{port}"));
        Phone {
            user,
            peer: peer(port),
            sdp: chat_sdp("192.0.2.1", port, "actpass"),
            dialog: None,
            roster: Roster::default(),
            documents: Vec::new(),
            fragments: Vec::new(),
            byes: Vec::new(),
            serial: 0,
        }
    });
    (world, phones)
}

pub(super) fn world() -> (World, [Phone; 4]) {
    world_with(config())
}

impl Phone {
    /// A request outside dialogs.
    pub(super) fn request(&mut self, method: &str, to: &str, extra: &str, kind: &str, body: &str) -> Request {
        self.serial += 1;
        let (user, id) = (self.user, self.serial);
        let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        text(&format!(
            "{method} {to} SIP/2.0\r\n{}From: <sip:{user}@weir.example>;tag={user}{id}\r\nTo: <{to}>\r\n\
             Call-ID: {user}-{id}\r\nCSeq: 1 {method}\r\nContact: <sip:{user}@{};transport=tcp>\r\n\
             Allow: INVITE, ACK, BYE, CANCEL, UPDATE\r\n{extra}{kind}Content-Length: {}\r\n\r\n{body}",
            via(),
            self.peer.addr,
            body.len()
        ))
    }

    /// INVITE to the factory with a list.
    pub(super) fn founding(&mut self, entries: &[Entry], ids: &str, extra: &str) -> Request {
        let list = ResourceList { entries: entries.to_vec(), references: 0 }.write();
        let body = format!(
            "--b\r\nContent-Type: application/sdp\r\n\r\n{}\r\n--b\r\nContent-Type: application/resource-lists+xml\r\n\
             Content-Disposition: recipient-list\r\n\r\n{list}\r\n--b--\r\n",
            self.sdp
        );
        let extra = format!(
            "Conversation-ID: conv-{ids}\r\nContribution-ID: cont-{ids}\r\nRequire: recipient-list-invite\r\n\
             Supported: timer\r\n{extra}"
        );
        let to = format!("sip:{FACTORY}@weir.example");
        self.request("INVITE", &to, &extra, "multipart/mixed;boundary=b", &body)
    }

    /// Sends an INVITE; on 2xx acknowledges it and keeps the dialog.
    pub(super) fn invite(&mut self, world: &mut World, request: Request) -> Response {
        let tx = world.send(self.peer, request.clone());
        world.settle();
        self.conclude(world, tx, &request)
    }

    pub(super) fn conclude(&mut self, world: &mut World, tx: ServerTx, request: &Request) -> Response {
        let answer = world.answer(tx).expect("a final answer").clone();
        if answer.is_success() {
            let dialog = Dialog::uac(request, &answer).unwrap();
            world.ack(self.peer, dialog.ack(1));
            self.dialog = Some(dialog);
        }
        answer
    }

    /// INVITE to a focus or a group.
    pub(super) fn join(&mut self, world: &mut World, focus: &str) -> Response {
        let sdp = self.sdp.clone();
        let request = self.request("INVITE", focus, "", "application/sdp", &sdp);
        self.invite(world, request)
    }

    /// Takes everything that has come: NOTIFYs are answered and read, BYEs answered, INVITEs returned.
    pub(super) fn take(&mut self, world: &mut World) -> Vec<(ClientTx, Request)> {
        let mut invites = Vec::new();
        while let Some(event) = world.next(self.peer) {
            let Event::Request(tx, request) = event else { continue };
            match request.method {
                Method::Invite => invites.push((tx, request)),
                Method::Notify => {
                    self.notified(&request);
                    world.reply(tx, request.respond(200));
                }
                Method::Bye => {
                    self.byes.push(request.headers.text(&Name::Reason).unwrap_or_default().to_owned());
                    self.dialog = None;
                    world.reply(tx, request.respond(200));
                }
                _ => world.reply(tx, request.respond(200)),
            }
        }
        invites
    }

    fn notified(&mut self, request: &Request) {
        let event = request.headers.text(&Name::Event).unwrap();
        if event.starts_with("refer") {
            self.fragments.push(String::from_utf8(request.body.to_vec()).unwrap().trim().to_owned());
            return;
        }
        assert!(event.starts_with("conference"));
        let document = ConferenceInfo::read(&request.body, &cpm::Limits::default()).unwrap();
        self.documents.push(document.clone());
        self.roster.apply(document).unwrap();
    }

    /// Answers an invitation.
    pub(super) fn accept(&mut self, world: &mut World, (tx, request): (ClientTx, Request)) {
        let mut answer =
            reply(&request, 200, &format!("{}t", self.user), &self.sdp.replace("actpass", "active"));
        answer.headers.set(Name::Contact, format!("<sip:{}@{};transport=tcp>", self.user, self.peer.addr));
        self.dialog = Some(Dialog::uas(&request, &answer).unwrap());
        world.reply(tx, answer);
    }

    /// Waits for an invitation and answers it.
    pub(super) fn answer(&mut self, world: &mut World) -> Request {
        let mut invites = self.take(world);
        assert_eq!(invites.len(), 1, "{} is invited once", self.user);
        let invite = invites.pop().unwrap();
        let request = invite.1.clone();
        self.accept(world, invite);
        request
    }

    /// A request in the dialog; its final answer.
    pub(super) fn within(
        &mut self,
        world: &mut World,
        method: Method,
        headers: &[(Name, &str)],
        body: Option<(&str, &str)>,
    ) -> Response {
        let mut request = self.dialog.as_mut().expect("a dialog").request(method);
        request.headers.push(Name::Via, "SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK8");
        request.headers.push(Name::Contact, format!("<sip:{}@{};transport=tcp>", self.user, self.peer.addr));
        for (name, value) in headers {
            request.headers.push(name.clone(), value);
        }
        if let Some((kind, body)) = body {
            request.set_body(kind, body.to_owned());
        }
        let seq = request.cseq().unwrap().seq;
        let invite = request.method == Method::Invite;
        let tx = world.send(self.peer, request);
        world.settle();
        let answer = world.answer(tx).expect("a final answer").clone();
        if invite && answer.is_success() {
            let ack = self.dialog.as_ref().unwrap().ack(seq);
            world.ack(self.peer, ack);
        }
        answer
    }

    /// Leaves; with a cause or without.
    pub(super) fn bye(&mut self, world: &mut World, reason: Option<&str>) {
        let headers: Vec<(Name, &str)> = reason.map(|r| (Name::Reason, r)).into_iter().collect();
        assert_eq!(self.within(world, Method::Bye, &headers, None).code, 200);
        self.dialog = None;
    }

    pub(super) fn subscribe(&mut self, world: &mut World) -> Response {
        self.within(world, Method::Subscribe, &[(Name::Event, "conference"), (Name::Expires, "3600")], None)
    }

    /// Where a user stands, as this phone was told.
    pub(super) fn sees(&self, name: &str) -> Option<Status> {
        self.roster.user(user(name).as_str())?.endpoints.first()?.status
    }
}

/// The focus that a response or an invitation names.
pub(super) fn focus_of(headers: &sip::Headers) -> String {
    let contact: sip::typed::Contact = headers.must().unwrap();
    assert!(contact.has_feature("isfocus"), "REQ-CF-18");
    contact.uri.to_string()
}

pub(super) fn entry(name: &str) -> Entry {
    Entry::new(user(name).as_str())
}

/// Alice makes a group of these, who all come.
pub(super) fn group_of(world: &mut World, phones: &mut [Phone; 4], others: &[usize]) -> String {
    let entries: Vec<Entry> = others.iter().map(|at| entry(phones[*at].user)).collect();
    let request = phones[0].founding(&entries, "1", "Subject: Lunch\r\n");
    let answer = phones[0].invite(world, request);
    assert_eq!(answer.code, 200);
    for at in others {
        world.pass(1);
        phones[*at].answer(world);
    }
    world.settle();
    focus_of(&answer.headers)
}
