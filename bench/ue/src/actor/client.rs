//! Our requests: sent, challenged, answered (RFC 3261 §8.1, §22; RFC 8760).

use sip::{ClientKey, Expiry, Input, Name, Request, Response};

use super::{Actor, Reply};
use crate::device::PagerSent;
use crate::{SessionId, UeError};

/// How often one request may be challenged.
const CHALLENGES_MAX: u8 = 2;

/// A request that waits for its final response.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    challenged: u8,
    pub(super) purpose: Purpose,
}

/// What a request is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Register {
        expires_s: u32,
        reply: Option<Reply<u32>>,
    },
    Plain(Reply<Response>),
    Pager {
        message_id: String,
        reply: Reply<PagerSent>,
    },
    /// A notification: nobody waits.
    Notice,
    /// The first INVITE of a session.
    Invite(SessionId),
    Reinvite(SessionId, Option<Reply<()>>),
    Bye(SessionId, Option<Reply<()>>),
    Subscribe(SessionId, u32, Option<Reply<()>>),
    Refer(Reply<()>),
}

impl Actor {
    /// Sends a request for a purpose; the key that names it.
    pub(super) async fn send(&mut self, request: Request, purpose: Purpose) -> ClientKey {
        self.send_again(request, purpose, 0).await
    }

    async fn send_again(&mut self, request: Request, purpose: Purpose, challenged: u8) -> ClientKey {
        let key = self.key();
        self.shared.counters.sip_requests_sent.one();
        self.waiting.insert(key.0, Waiting { request: request.clone(), challenged, purpose });
        let to = self.peer();
        self.feed(Input::Send { key, to, request }).await;
        key
    }

    pub(super) async fn plain(&mut self, request: Request, reply: Reply<Response>) {
        self.send(request, Purpose::Plain(reply)).await;
    }

    pub(super) async fn response(&mut self, key: ClientKey, response: Response) {
        if response.is_provisional() {
            if let Some(Waiting { purpose: Purpose::Invite(session), .. }) = self.waiting.get(&key.0) {
                let session = *session;
                self.progress(session, &response);
            }
            return;
        }
        let Some(waiting) = self.waiting.remove(&key.0) else {
            // A further 2xx of a forked INVITE: the network behind us should not fork to us.
            if response.is_success() {
                self.shared.fault("a second 2xx to one INVITE");
            }
            return;
        };
        if matches!(response.code, 401 | 407) && waiting.challenged < CHALLENGES_MAX {
            match self.authorised(&waiting, &response) {
                Ok(request) => {
                    let session =
                        if let Purpose::Invite(session) = waiting.purpose { Some(session) } else { None };
                    let key = self.send_again(request, waiting.purpose, waiting.challenged + 1).await;
                    if let Some(session) = session {
                        self.renamed(session, key);
                    }
                    return;
                }
                Err(e) => self.shared.fault(format!("challenge: {e}")),
            }
        }
        self.finished(waiting, Ok(response)).await;
    }

    pub(super) async fn expired(&mut self, key: ClientKey, why: Expiry) {
        if let Some(waiting) = self.waiting.remove(&key.0) {
            self.shared.counters.sip_timeouts.one();
            let error = match why {
                Expiry::Timeout => UeError::Timeout,
                Expiry::Transport => UeError::Transport("the flow failed".to_owned()),
                Expiry::Refused => UeError::Full,
            };
            self.finished(waiting, Err(error)).await;
        }
    }

    async fn finished(&mut self, waiting: Waiting, outcome: Result<Response, UeError>) {
        let Waiting { request, purpose, .. } = waiting;
        match purpose {
            Purpose::Register { expires_s, reply } => self.registered(expires_s, outcome, reply),
            Purpose::Plain(reply) => {
                let _ = reply.send(outcome);
            }
            Purpose::Pager { message_id, reply } => self.pager_answered(message_id, outcome, reply),
            Purpose::Notice => {
                if let Err(e) = success(outcome) {
                    self.shared.fault(format!("a notification was not taken: {e}"));
                }
            }
            Purpose::Invite(session) => Box::pin(self.invited_answer(session, &request, outcome)).await,
            Purpose::Reinvite(session, reply) => {
                let done = Box::pin(self.reinvited(session, &request, outcome)).await;
                answer(reply, done);
            }
            Purpose::Bye(session, reply) => {
                self.forget(session);
                answer(reply, success(outcome).map(drop));
            }
            Purpose::Subscribe(session, expires_s, reply) => {
                let done = self.subscribed(session, expires_s, outcome);
                answer(reply, done);
            }
            Purpose::Refer(reply) => {
                let _ = reply.send(success(outcome).map(drop));
            }
        }
    }

    /// The same request with credentials and the next CSeq.
    fn authorised(&mut self, waiting: &Waiting, response: &Response) -> Result<Request, UeError> {
        let answered = self.digest.answer(&waiting.request, response, &mut self.shared.entropy());
        let request = answered.map_err(|e| UeError::Bad(e.to_string()))?;
        self.count_cseq(&request);
        Ok(request)
    }

    /// A dialog goes on from the number of a request that was sent again.
    fn count_cseq(&mut self, request: &Request) {
        let Ok(cseq) = request.cseq() else { return };
        let dialog = self.sessions.values_mut().filter_map(|s| s.dialog.as_mut());
        for dialog in dialog.filter(|d| Some(d.id.call_id.as_str()) == request.call_id()) {
            dialog.local_seq = dialog.local_seq.max(Some(cseq.seq));
        }
    }
}

/// Answers somebody who may not be waiting.
pub(super) fn answer<T>(reply: Option<Reply<T>>, outcome: Result<T, UeError>) {
    if let Some(reply) = reply {
        let _ = reply.send(outcome);
    }
}

/// A 2xx, or the error that another response is.
pub(super) fn success(outcome: Result<Response, UeError>) -> Result<Response, UeError> {
    let response = outcome?;
    if response.is_success() {
        return Ok(response);
    }
    let text = |name: &Name| response.headers.text(name).map(str::to_owned);
    Err(UeError::Refused {
        code: response.code,
        warning: text(&Name::Warning).or_else(|| text(&Name::Reason)),
    })
}
