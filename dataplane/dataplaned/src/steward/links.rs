//! The connections of controls: who may come in, who is the owner, and how each ends.
//!
//! ```text
//!   accepted ── TLS, from another host ──► Hello ──► greeted, the one owner ── Hello of a later link ──► replaced
//!       │ no certificate, a foreign one      │ old epoch, other version: refused
//!       │ nothing in time: silent            │ another first frame: early
//!       └──► ended, counted by reason  ◄─────┘
//! ```

use contract::from_dataplane::Body;
use contract::refusal::Reason;
use contract::to_dataplane::Body as Order;
use contract::{Hello, Refusal, Welcome};
use mio::Token;

use super::link::{End, Link};
use super::wire::{Remote, Wire};
use super::{LATE_MAX, LINKS_MAX, REMOTE_LINKS_MAX, State, Steward};
use crate::metrics::BadFrame;

impl Steward {
    pub(super) fn accept(&self, state: &mut State) {
        while let Ok((stream, _)) = self.listener.accept() {
            self.arrived(state, Wire::Local(stream), LINKS_MAX);
        }
    }

    pub(super) fn accept_remote(&self, state: &mut State) {
        while let Some(Ok((wire, peer))) = self.remote.as_ref().map(Remote::accept) {
            tracing::debug!(%peer, "a call to the contract's listener");
            self.arrived(state, wire, REMOTE_LINKS_MAX);
        }
    }

    /// A connection; those of one kind leave the other its room. Where there is none, the one that has been silent for
    /// longest gives way: whoever only holds places keeps no control out.
    fn arrived(&self, state: &mut State, mut wire: Wire, max: usize) {
        let alike = |link: &Link| link.wire.is_local() == wire.is_local();
        if state.links.values().filter(|link| alike(link)).count() >= max {
            // Tokens rise with time.
            let oldest = state.links.iter().find(|(_, link)| alike(link) && !link.greeted);
            let Some(oldest) = oldest.map(|(token, _)| *token) else {
                return self.metrics.link_ended(&End::Full);
            };
            self.end(state, oldest, &End::Full);
        }
        let token = state.next_link;
        state.next_link += 1;
        if wire.register(self.poll.registry(), Token(token)).is_ok() {
            state.links.insert(token, Link::new(token as u64, wire));
        }
    }

    pub(super) fn read(&mut self, state: &mut State, token: usize) {
        state.held = false;
        loop {
            if self.rounds.is_busy() || self.shards.iter().any(|shard| shard.late() > LATE_MAX) {
                state.held = true;
                return;
            }
            let Some(link) = state.links.get_mut(&token) else { return };
            let frame = match link.frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => match link.fill() {
                    Ok(true) => continue,
                    Ok(false) => return,
                    Err(end) => return self.end(state, token, &end),
                },
                Err(end) => return self.end(state, token, &end),
            };
            // A body that is not known here is of a newer version, and was not asked for.
            let Some(body) = frame.body else {
                self.metrics.frame_discarded(BadFrame::Unknown);
                continue;
            };
            let greeted = link.greeted;
            match body {
                Order::Hello(hello) => {
                    if !self.hello(state, token, &hello) {
                        return;
                    }
                }
                body if greeted && state.owner == Some(token) => self.order(state, token, body),
                _ => {
                    self.metrics.frame_discarded(BadFrame::Early);
                    return self.end(state, token, &End::Early);
                }
            }
        }
    }

    /// The first word of a control; false when the link is gone.
    fn hello(&mut self, state: &mut State, token: usize, hello: &Hello) -> bool {
        let version = contract::VERSION.min(hello.version_max);
        let refusal = if version < contract::VERSION_MIN.max(hello.version_min) {
            Some((Reason::Version, "no version in common"))
        } else if hello.epoch < state.epoch {
            Some((Reason::Epoch, "a later owner has spoken"))
        } else {
            None
        };
        if let Some((reason, detail)) = refusal {
            self.metrics.refused(reason);
            self.refuse(state, token, 0, reason, 0, detail);
            if let Some(link) = state.links.get_mut(&token) {
                let _ = link.flush();
            }
            self.end(state, token, &End::Refused);
            return false;
        }
        if let Some(old) = state.owner.replace(token).filter(|old| *old != token) {
            self.end(state, old, &End::Replaced);
        }
        state.epoch = hello.epoch;
        let welcome = Welcome {
            version,
            instance: self.identity.instance,
            generation: state.generation,
            driver: self.identity.driver.clone(),
            driver_reason: self.identity.driver_reason.clone(),
            load: Some(self.load(state)),
            fingerprint: self.identity.fingerprint.clone(),
            dtls_fingerprint: self.identity.dtls_fingerprint.clone(),
        };
        tracing::info!(owner = %hello.owner, epoch = hello.epoch, generation = state.generation, "control is here");
        if let Some(link) = state.links.get_mut(&token) {
            link.greeted = true;
            link.say(Body::Welcome(welcome));
        }
        true
    }

    pub(super) fn refuse(
        &self,
        state: &mut State,
        token: usize,
        generation: u64,
        reason: Reason,
        change: usize,
        detail: &str,
    ) {
        if let Some(link) = state.links.get_mut(&token) {
            let change = u32::try_from(change).unwrap_or(u32::MAX);
            let (reason, detail) = (reason as i32, detail.to_owned());
            link.say(Body::Refusal(Refusal { generation, reason, change, detail }));
        }
    }

    pub(super) fn write(&mut self, state: &mut State) {
        let mut ended = Vec::new();
        for (token, link) in &mut state.links {
            if let Err(end) = link.flush() {
                ended.push((*token, end));
            }
        }
        for (token, end) in ended {
            self.end(state, token, &end);
        }
    }

    /// Ends a connection, and counts what it leaves.
    pub(super) fn end(&self, state: &mut State, token: usize, end: &End) {
        let Some(mut link) = state.links.remove(&token) else { return };
        link.wire.close(self.poll.registry());
        state.audits.retain(|(of, _), _| *of != link.id);
        self.metrics.link_ended(end);
        match end {
            End::Malformed(_) => self.metrics.frame_discarded(BadFrame::Malformed),
            // What came behind a frame that ended the link is not read any more.
            End::Closed | End::Failed(_) | End::Silent if link.is_within() => {
                self.metrics.frame_discarded(BadFrame::Unfinished)
            }
            _ => {}
        }
        if state.owner == Some(token) {
            state.owner = None;
            tracing::warn!(%end, "control is gone; media goes on");
        } else {
            tracing::info!(%end, "a connection to the contract's socket ended");
        }
    }
}
