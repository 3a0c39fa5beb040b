//! A device: the handle that tests, the demo and load generators hold. Behind it runs one task (`actor`).

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base::Entropy;
use sdp::Direction;
use sip::{Request, Response};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::actor::{self, Command};
use crate::media::SharedFlow;
use crate::requests::Call;
use crate::shared::Shared;
use crate::{
    Account, Answer, Chat, Counters, Draft, Event, FlowStats, Identity, Letter, Log, SessionId, UeError, Via,
};

/// Commands that may wait for the device's task.
const COMMANDS_MAX: usize = 1024;
/// How long a call of this handle waits for an answer at most: longer than any SIP timer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A device. Clones are the same device; it ends when [`Device::stop`] is called or the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Device {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    #[expect(dead_code, reason = "ends the task when the last clone is dropped")]
    task: Arc<Task>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A pager message that the network took.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PagerSent {
    /// What notifications will name.
    pub message_id: String,
    /// 200: delivered to a device; 202: accepted for delivery.
    pub code: u16,
}

/// How a session is now.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// True after the ACK.
    pub up: bool,
    /// Address of the peer, or of the group.
    pub peer: String,
    /// Where the peer's Contact points: the focus of a conference.
    pub remote_target: Option<String>,
    /// True when the peer is a focus.
    pub focus: bool,
    /// Conversation-ID.
    pub conversation: Option<String>,
    /// Contribution-ID.
    pub contribution: Option<String>,
    /// The MSRP session.
    pub chat: Option<Chat>,
    /// The audio flow.
    pub flow: Option<SharedFlow>,
    /// The roster, where it was subscribed to.
    pub roster: Vec<RosterEntry>,
}

/// One user in a roster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RosterEntry {
    /// Address.
    pub entity: String,
    /// Nickname (RFC 7701).
    pub nickname: Option<String>,
    /// Status of the first endpoint: `connected`, `pending`, `disconnected`, ...
    pub status: Option<String>,
    /// True for the subscriber itself.
    pub own: bool,
}

/// What a re-INVITE changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Adds audio.
    pub add_audio: bool,
    /// Adds a chat.
    pub add_message: bool,
    /// Sets the MSRP session up anew.
    pub fresh_message: bool,
    /// What we do with audio from now on (hold: `SendOnly`).
    pub direction: Option<Direction>,
}

impl Device {
    /// Opens the device's flow to its server. It registers only when told to.
    pub async fn start(
        account: Account,
        counters: Arc<Counters>,
        identity: Arc<Identity>,
        entropy: Entropy,
    ) -> Result<Device, UeError> {
        let shared = Shared::new(account, counters, identity, entropy);
        let (commands, on_commands) = mpsc::channel(COMMANDS_MAX);
        let task = actor::start(Arc::clone(&shared), on_commands).await?;
        Ok(Device { shared, commands, task: Arc::new(Task(task)) })
    }

    /// Its settings.
    pub fn account(&self) -> &Account {
        &self.shared.account
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.shared.account.name
    }

    /// Its user's address of record.
    pub fn address(&self) -> &str {
        &self.shared.account.address
    }

    /// Everything that arrives.
    pub fn log(&self) -> &Log<Event> {
        &self.shared.log
    }

    /// What it counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, UeError>>) -> Command,
    ) -> Result<T, UeError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| UeError::Gone)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(UeError::Gone),
            Err(_) => Err(UeError::Timeout),
        }
    }

    /// Registers, and goes on registering before it expires and after the connection was lost. The seconds granted.
    pub async fn register(&self) -> Result<u32, UeError> {
        let expires_s = self.shared.account.expires_s;
        self.ask(|reply| Command::Register { expires_s, reply }).await
    }

    /// Takes the registration back.
    pub async fn unregister(&self) -> Result<(), UeError> {
        self.ask(|reply| Command::Register { expires_s: 0, reply }).await.map(drop)
    }

    /// Sends a pager message; answers when the network took it.
    pub async fn message(&self, to: &str, draft: &Draft) -> Result<PagerSent, UeError> {
        let (to, draft) = (to.to_owned(), draft.clone());
        self.ask(|reply| Command::Message { to, draft, reply }).await
    }

    /// Sends any request outside dialogs, as it is but for Via and credentials; its final response.
    pub async fn request(&self, request: Request) -> Result<Response, UeError> {
        self.ask(|reply| Command::Request { request: Box::new(request), reply }).await
    }

    /// A request outside dialogs with the usual header fields, to fill in and send with [`Device::request`].
    pub fn draft_request(&self, method: sip::Method, target: &str) -> Result<Request, UeError> {
        Ok(crate::requests::initial(&self.shared, method, &crate::requests::uri(target)?))
    }

    /// Says that a letter was shown, the way it came.
    pub async fn displayed(&self, letter: &Letter) -> Result<(), UeError> {
        match letter.via {
            Via::Pager => {
                let letter = Box::new(letter.clone());
                self.ask(|reply| Command::Notify { letter, answer: Answer::Displayed, reply }).await
            }
            Via::Chat(session) => self.chat(session).await?.displayed(letter).await,
        }
    }

    /// Sends an INVITE; answers at once with its name.
    pub async fn dial(&self, call: Call) -> Result<SessionId, UeError> {
        self.ask(|reply| Command::Call { call: Box::new(call), reply }).await
    }

    /// Sends an INVITE and waits until the session is up or refused.
    pub async fn invite(&self, call: Call) -> Result<SessionId, UeError> {
        let mark = self.log().mark();
        let session = self.dial(call).await?;
        let outcome = self
            .log()
            .wait(mark, PATIENCE, |event| match event {
                Event::Up { session: s } if *s == session => Some(Ok(session)),
                Event::Ended { session: s, cause, .. } if *s == session => {
                    Some(Err(UeError::Refused { code: cause.unwrap_or(0), warning: None }))
                }
                _ => None,
            })
            .await;
        outcome.unwrap_or(Err(UeError::Timeout))
    }

    /// Accepts an invitation that rings.
    pub async fn answer(&self, session: SessionId) -> Result<(), UeError> {
        self.ask(|reply| Command::Answer { session, code: 200, reply }).await
    }

    /// The same with the description of another's media instead of own ones.
    pub async fn answer_describing(
        &self,
        session: SessionId,
        description: impl Into<bytes::Bytes>,
    ) -> Result<(), UeError> {
        let description = description.into();
        self.ask(|reply| Command::AnswerWith { session, description, reply }).await
    }

    /// Refuses an invitation that rings.
    pub async fn refuse(&self, session: SessionId, code: u16) -> Result<(), UeError> {
        self.ask(|reply| Command::Answer { session, code, reply }).await
    }

    /// Takes an INVITE back that was not answered yet.
    pub async fn cancel(&self, session: SessionId) -> Result<(), UeError> {
        self.ask(|reply| Command::Cancel { session, reply }).await
    }

    /// Ends a session with a Reason; 200 is a voluntary leave (CPM-FACTS §2.6).
    pub async fn hang_up(&self, session: SessionId, cause: u16) -> Result<(), UeError> {
        self.ask(|reply| Command::HangUp { session, cause: Some(cause), reply }).await
    }

    /// Ends a session without a Reason.
    pub async fn drop_session(&self, session: SessionId) -> Result<(), UeError> {
        self.ask(|reply| Command::HangUp { session, cause: None, reply }).await
    }

    /// Negotiates anew.
    pub async fn reinvite(&self, session: SessionId, change: Change) -> Result<(), UeError> {
        self.ask(|reply| Command::Reinvite { session, change, reply }).await
    }

    /// Subscribes to the conference's state, in the session's dialog (RFC 4575).
    pub async fn subscribe(&self, session: SessionId) -> Result<(), UeError> {
        self.ask(|reply| Command::Subscribe { session, expires_s: 3600, reply }).await
    }

    /// Ends the subscription.
    pub async fn unsubscribe(&self, session: SessionId) -> Result<(), UeError> {
        self.ask(|reply| Command::Subscribe { session, expires_s: 0, reply }).await
    }

    /// Asks the focus to invite somebody (RFC 4579 §5.5).
    pub async fn add(&self, session: SessionId, who: &str) -> Result<(), UeError> {
        let who = vec![who.to_owned()];
        self.ask(|reply| Command::Refer { session, who, method: "INVITE", reply }).await
    }

    /// Asks the focus to remove somebody (RFC 4579 §5.11).
    pub async fn remove(&self, session: SessionId, who: &str) -> Result<(), UeError> {
        let who = vec![who.to_owned()];
        self.ask(|reply| Command::Refer { session, who, method: "BYE", reply }).await
    }

    /// Asks the focus to invite several at once (RFC 5368).
    pub async fn add_all(&self, session: SessionId, who: &[&str]) -> Result<(), UeError> {
        let who = who.iter().map(|w| (*w).to_owned()).collect();
        self.ask(|reply| Command::Refer { session, who, method: "INVITE", reply }).await
    }

    /// How a session is now.
    pub async fn view(&self, session: SessionId) -> Result<SessionView, UeError> {
        self.ask(|reply| Command::View { session, reply }).await
    }

    /// The chat of a session that is up, waiting a moment for its connection.
    pub async fn chat(&self, session: SessionId) -> Result<Chat, UeError> {
        let chat = self.view(session).await?.chat.ok_or(UeError::State("no chat in this session"))?;
        for _ in 0..500 {
            if chat.is_up() {
                return Ok(chat);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(UeError::Timeout)
    }

    /// The audio flow of a session.
    pub async fn flow(&self, session: SessionId) -> Result<SharedFlow, UeError> {
        self.view(session).await?.flow.ok_or(UeError::State("no audio in this session"))
    }

    /// Plays samples into a session, marked as from `source`; returns at once.
    pub async fn play(&self, session: SessionId, samples: Arc<Vec<i16>>, source: u16) -> Result<(), UeError> {
        let flow = self.flow(session).await?;
        flow.lock().unwrap_or_else(PoisonError::into_inner).play(samples, source);
        Ok(())
    }

    /// What the audio flow of a session counted.
    pub async fn audio_stats(&self, session: SessionId) -> Result<FlowStats, UeError> {
        let flow = self.flow(session).await?;
        let stats = flow.lock().unwrap_or_else(PoisonError::into_inner).stats();
        Ok(stats)
    }

    /// Closes the flow to the server, as a lost bearer does; the device comes back and registers again.
    pub async fn lose_flow(&self) -> Result<(), UeError> {
        self.ask(|reply| Command::LoseFlow { reply }).await
    }

    /// Ends the device; nothing is said to the network.
    pub async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
