//! MSRP for one session: the endpoint, its connection, and the handle that speaks to both.

mod session;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cpm::media_type;
use msrp::session::{Config, Key, Role};
use msrp::{MsrpUri, Path};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use msrp::session::Outgoing;
pub(crate) use session::limits;
pub use session::{Answered, ChatLimits, Receipt};
use session::{Session, Told};
use wire::{Command, Heard};
pub(crate) use wire::{Secure, Setup};

use crate::letter::{self, Answer, Content, Draft};
use crate::shared::{Shared, wall};
use crate::{Event, Letter, SessionId, UeError, Via};

/// Whose addresses stand in CPIM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// 1-1: both anonymous, the dialog knows the peers (CPM-FACTS §2.4).
    OneToOne,
    /// A room: From is our own address (RFC 7701 §5.2).
    Room,
}

/// A handle on one MSRP session; clones speak to the same.
#[derive(Clone, Debug)]
pub struct Chat {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
    style: Style,
    up: Arc<AtomicBool>,
    remote: Arc<str>,
    local: Arc<str>,
}

/// What is needed to bring a session up.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) session: SessionId,
    pub(crate) style: Style,
    pub(crate) setup: Setup,
    pub(crate) secure: Option<Secure>,
    pub(crate) local: MsrpUri,
    pub(crate) remote: Path,
}

/// A sent message: its `imdn.Message-ID` and how MSRP fared.
#[derive(Debug)]
pub struct Sent {
    /// What notifications will name.
    pub message_id: String,
    /// MSRP's answers.
    pub receipt: Receipt,
}

impl Chat {
    pub(crate) fn start(shared: &Arc<Shared>, plan: Plan) -> (Chat, JoinHandle<()>) {
        let (commands, on_commands) = mpsc::unbounded_channel();
        let up = Arc::new(AtomicBool::new(false));
        let chat = Chat {
            commands,
            shared: Arc::clone(shared),
            style: plan.style,
            up: Arc::clone(&up),
            remote: plan.remote.to_string().into(),
            local: plan.local.to_string().into(),
        };
        let role = match &plan.setup {
            Setup::Active(_) => Role::Active,
            Setup::Passive(_) => Role::Passive,
        };
        let limits = shared.account.chat;
        let config = Config { limits, ..Config::new(plan.local, plan.remote, role) };
        let session = Session::new(config, shared.entropy());
        let listener = Listener { shared: Arc::clone(shared), session: plan.session, style: plan.style, up };
        let task =
            tokio::spawn(wire::run(plan.setup, plan.secure, session, on_commands, move |heard, session| {
                listener.hear(heard, session)
            }));
        (chat, task)
    }

    /// True while the connection is up and bound.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Queues a CPIM message.
    pub async fn send(&self, draft: &Draft) -> Result<Sent, UeError> {
        let own = self.own();
        let (message_id, body) = draft.write(own, wall(), &mut self.shared.entropy());
        let receipt = self.send_raw(cpim(body, true)).await?;
        Ok(Sent { message_id, receipt })
    }

    /// Queues any message; its key and Message-ID are drawn here.
    pub async fn send_raw(&self, message: Outgoing) -> Result<Receipt, UeError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Send { message, reply }).map_err(|_| UeError::Gone)?;
        let receipt = answer.await.map_err(|_| UeError::Gone)?.ok_or(UeError::Full)?;
        self.shared.counters.chats_sent.one();
        Ok(receipt)
    }

    /// Asks for a nickname; the status of the answer.
    pub async fn nickname(&self, nickname: &str) -> Result<u16, UeError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Nickname { nickname: nickname.to_owned(), reply };
        self.commands.send(command).map_err(|_| UeError::Gone)?;
        answer.await.map_err(|_| UeError::Gone)
    }

    /// Says that we type, or stopped.
    pub async fn composing(&self, active: bool) -> Result<(), UeError> {
        let composing = if active {
            cpm::composing::Composing::active("text/plain", 60)
        } else {
            cpm::composing::Composing::idle()
        };
        let draft = Draft::content(media_type::IS_COMPOSING, composing.write().into_bytes()).quiet();
        let (_, body) = draft.write(self.own(), wall(), &mut self.shared.entropy());
        self.send_raw(cpim(body, false)).await.map(drop)
    }

    /// Sends `displayed` for a letter of this session.
    pub async fn displayed(&self, letter: &Letter) -> Result<(), UeError> {
        if let Some(body) =
            letter::notify(letter, Answer::Displayed, self.own(), wall(), &mut self.shared.entropy())
        {
            self.shared.counters.displayed_sent.one();
            self.send_raw(cpim(body, false)).await?;
        }
        Ok(())
    }

    /// Stops reading, or goes on: a slow reader.
    pub fn pause(&self, on: bool) {
        let _ = self.commands.send(Command::Pause(on));
    }

    /// Writes octets into the connection as they are, between two messages: rubbish on a session that is bound.
    pub fn inject(&self, octets: impl Into<bytes::Bytes>) {
        let _ = self.commands.send(Command::Inject(octets.into()));
    }

    /// The path that requests to the peer name, and our own: what is injected may have to name them.
    pub fn paths(&self) -> (&str, &str) {
        (&self.remote, &self.local)
    }

    /// Closes the connection once everything queued is written.
    pub fn close(&self) {
        let _ = self.commands.send(Command::Close);
    }

    fn own(&self) -> Option<&str> {
        (self.style == Style::Room).then_some(self.shared.account.address.as_str())
    }
}

/// Turns what the endpoint tells into events, and answers letters with `delivered`.
struct Listener {
    shared: Arc<Shared>,
    session: SessionId,
    style: Style,
    up: Arc<AtomicBool>,
}

impl Listener {
    fn hear(&self, heard: Heard, own: &mut Session) {
        let (shared, session) = (&self.shared, self.session);
        match heard {
            Heard::Told(Told::Bound) => {
                self.up.store(true, Ordering::Relaxed);
                shared.tell(Event::ChatUp { session });
            }
            Heard::Down(why) => {
                self.up.store(false, Ordering::Relaxed);
                shared.tell(Event::ChatDown { session, why });
            }
            Heard::Told(Told::Message(received)) => {
                let message = received.message;
                self.content(&message.content_type, message.body, own);
            }
            Heard::Told(Told::Repeated) => shared.counters.chats_repeated.one(),
            Heard::Told(Told::Report { message_id, status }) => {
                let counters = &shared.counters;
                if status == 200 {
                    counters.reports_received.one()
                } else {
                    counters.reports_failed.one()
                }
                shared.tell(Event::Report { session, message_id, status });
            }
            Heard::Told(Told::Fault(what)) => shared.fault(what),
        }
    }

    fn content(&self, content_type: &str, body: Bytes, own: &mut Session) {
        let (shared, via) = (&self.shared, Via::Chat(self.session));
        if !media_type::is(content_type, media_type::CPIM) {
            shared.counters.chats_received.one();
            shared.tell(Event::Letter(Arc::new(Letter::bare(via, content_type, body))));
            return;
        }
        match letter::read(&body, via) {
            Ok(Content::Letter(letter)) => {
                shared.counters.chats_received.one();
                if letter.wants_delivered && shared.account.sends_delivered {
                    self.deliver(&letter, own);
                }
                shared.tell(Event::Letter(Arc::new(letter)));
            }
            Ok(Content::Notice(notice)) => {
                shared.count_notice(&notice);
                shared.tell(Event::Notice(Arc::new(notice)));
            }
            Ok(Content::Composing { from, active }) => {
                shared.tell(Event::Composing { session: self.session, from, active });
            }
            Err(e) => shared.fault(format!("CPIM in MSRP: {e}")),
        }
    }

    fn deliver(&self, letter: &Letter, session: &mut Session) {
        let own = (self.style == Style::Room).then_some(self.shared.account.address.as_str());
        if own == Some(letter.from.as_str()) {
            // What another device of this user said: it is no recipient of it.
            return;
        }
        let mut entropy = self.shared.entropy();
        let Some(body) = letter::notify(letter, Answer::Delivered, own, wall(), &mut entropy) else { return };
        match session.send(cpim(body, false)) {
            Some(_) => self.shared.counters.delivered_sent.one(),
            None => self.shared.fault("no room for a notification"),
        }
    }
}

/// A CPIM message, with a success report or without.
fn cpim(body: impl Into<Bytes>, success_report: bool) -> Outgoing {
    Outgoing { success_report, ..Outgoing::new(Key(0), media_type::CPIM, body.into()) }
}
