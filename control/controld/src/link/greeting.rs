//! The first words with a data plane: Hello, Welcome, and what it holds.

use std::time::Duration;

use contract::refusal::Reason;
use contract::{Audit, Hello, Welcome, from_dataplane, to_dataplane};
use tokio::time::timeout;

use super::Runner;
use super::session::{End, Session};
use crate::metrics::Label;

/// How long a data plane may take for its greeting and for its whole audit.
const GREETING: Duration = Duration::from_secs(10);

/// Contexts that one audit may bring.
const CONTEXTS_MAX: usize = 4_000_000;

/// What the data plane said of itself.
pub(super) struct Greeted {
    pub(super) welcome: Welcome,
    /// The last generation that it has applied.
    pub(super) generation: u64,
    /// The contexts that it holds.
    pub(super) contexts: Vec<u64>,
}

impl Runner {
    pub(super) async fn greet(&mut self, session: &mut Session) -> Result<Greeted, End> {
        match timeout(GREETING, self.greet_now(session)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(End::new("no greeting in time")),
        }
    }

    async fn greet_now(&mut self, session: &mut Session) -> Result<Greeted, End> {
        session.put(to_dataplane::Body::Hello(Hello {
            version_min: contract::VERSION_MIN,
            version_max: contract::VERSION,
            epoch: self.parts.epoch,
            owner: self.parts.owner.clone(),
        }));
        let welcome = match session.next().await? {
            from_dataplane::Body::Welcome(welcome) => welcome,
            from_dataplane::Body::Refusal(refusal) => {
                self.parts.metrics.refusals.count(refusal.reason());
                return Err(match refusal.reason() {
                    Reason::Epoch => End::new("another control with a newer epoch owns it"),
                    reason => End::new(format!("it refused the greeting: {}", reason.label())),
                });
            }
            _ => return Err(End::new("its first frame is no greeting")),
        };
        if !(contract::VERSION_MIN..=contract::VERSION).contains(&welcome.version) {
            return Err(End::new(format!("it speaks version {}", welcome.version)));
        }
        // Said each time: a control that starts again takes sessions, whatever the one before it had asked for.
        session.put(to_dataplane::Body::Drain(contract::Drain { on: self.draining }));
        let id = u64::from(u32::MAX);
        session.put(to_dataplane::Body::Audit(Audit { id }));
        let mut greeted = Greeted { generation: welcome.generation, welcome, contexts: Vec::new() };
        loop {
            // News before the audit's end is about contexts whose lanes do not know yet that the link is up.
            let from_dataplane::Body::Audited(part) = session.next().await? else { continue };
            if part.id != id {
                continue;
            }
            greeted.contexts.extend(part.contexts.iter().map(|context| context.id));
            greeted.generation = greeted.generation.max(part.generation);
            if greeted.contexts.len() > CONTEXTS_MAX {
                return Err(End::new("its audit does not end"));
            }
            if !part.more {
                return Ok(greeted);
            }
        }
    }
}
