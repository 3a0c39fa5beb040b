//! Each command.

use std::collections::VecDeque;

use base::{Now, Outbox, Private};
use sdp::{Limits, Session};

use super::{
    Adapter, Changing, Entry, Key, Output, PENDING_MAX, Pending, WAITING_MAX, WAITING_SUM_MAX, Work,
};
use crate::call::{Call, is_relayed};
use crate::flags::Flags;
use crate::{Value, report};

/// Call-IDs and tags that are longer are refused.
const NAME_MAX: usize = 256;
/// Calls that `list` names when it is not told how many.
const LIST: usize = 32;

impl Adapter {
    /// Begins a request whose cookie is new.
    pub(super) fn start(&mut self, now: Now, work: Work, out: &mut Outbox<Output>) {
        let command = work.body.text("command").unwrap_or_default();
        if self.pending.len() >= PENDING_MAX && matches!(command, "offer" | "answer" | "delete" | "query") {
            return self.error(work, "Too many requests at once", out);
        }
        match command {
            "ping" => self.reply(work, Value::dictionary().with("result", "pong"), out),
            "offer" => self.change(now, work, false, out),
            "answer" => self.change(now, work, true, out),
            "delete" => self.delete(now, work, out),
            "query" => self.query(now, work, out),
            "list" => self.list(work, out),
            "statistics" => {
                let began = self.began.unwrap_or(now);
                self.reply(work, report::statistics(&self.tally(), began, now), out);
            }
            _ => self.error(work, "Unrecognized command", out),
        }
    }

    fn change(&mut self, now: Now, work: Work, is_answer: bool, out: &mut Outbox<Output>) {
        let named = |key: &str| work.body.octets(key).filter(|name| (1..=NAME_MAX).contains(&name.len()));
        let Some(id) = named("call-id") else { return self.error(work, "No call-id in message", out) };
        let Some(from) = named("from-tag") else { return self.error(work, "No from-tag in message", out) };
        let (key, from) = (Private::new(id.to_vec()), from.to_vec());
        let to = named("to-tag").map(<[u8]>::to_vec);
        if is_answer && to.is_none() {
            return self.error(work, "No to-tag in message", out);
        }
        let Some(text) = work.body.octets("sdp") else {
            return self.error(work, "No SDP body in message", out);
        };
        let Ok(session) = Session::parse(text, &Limits::default()) else {
            return self.error(work, "Failed to parse SDP", out);
        };
        if session.lines.iter().any(|line| line.rtp().is_some() && !line.is_refused() && !is_relayed(line)) {
            return self.error(work, "Unsupported transport protocol", out);
        }
        let flags = match Flags::read(&work.body) {
            Ok(flags) => flags,
            Err(reason) => return self.error(work, reason, out),
        };
        if let Some(entry) = self.calls.get_mut(&key) {
            if entry.busy {
                return self.wait(&key, work, out);
            }
        } else if is_answer {
            return self.error(work, "Unknown call-id", out);
        } else if self.draining || self.contexts.len() >= self.config.calls_max {
            return self.full(work, out);
        }
        let known = self.calls.get(&key).map(|entry| entry.call.clone());
        let is_new = known.is_none();
        let mut call = known.unwrap_or_else(|| Call::new(self.next_context, now));
        call.signalled = now;
        let done = if is_answer {
            take_answer(&mut call, &from, to.unwrap_or_default(), &session, &flags)
        } else {
            self.take_offer(&mut call, from, to, &session, &flags)
        };
        let (mut changes, to) = match done {
            Ok(done) => done,
            Err(reason) => return self.error(work, reason, out),
        };
        if is_new {
            self.next_context = self.next_context.wrapping_add(1);
            self.tally.calls_begun += 1;
            self.contexts.insert(call.context, Some(key.clone()));
            let entry = Entry { call: call.clone(), up: false, busy: true, waiting: VecDeque::new() };
            self.calls.insert(key.clone(), entry);
        } else if let Some(entry) = self.calls.get_mut(&key) {
            entry.busy = true;
        }
        // What ended goes before what may begin on its place.
        changes.extend(call.wanted(&self.config));
        let (call, session, flags) = (Box::new(call), Box::new(session), Box::new(flags));
        let changing = Changing { work, key, call, session, flags, to, is_answer };
        self.order(now, Pending::Change(Box::new(changing)), changes, out);
    }

    /// Which side offers: the one with the tag. Whoever is not known yet is the other one of a tag that is.
    fn take_offer(
        &mut self,
        call: &mut Call,
        from: Vec<u8>,
        to: Option<Vec<u8>>,
        session: &Session,
        flags: &Flags,
    ) -> Result<(Vec<contract::Change>, usize), &'static str> {
        let known = call.side_of(&from).or_else(|| call.side_of(to.as_deref()?).map(|side| 1 - side));
        let side = match known {
            Some(side) => side,
            None if !call.answered => 0,
            None => return Err("Unknown from-tag"),
        };
        call.side_mut(side).tag = Private::new(from);
        let changes = call.offer(side, session, flags, &self.config, &mut self.entropy)?;
        Ok((changes, 1 - side))
    }

    fn delete(&mut self, now: Now, work: Work, out: &mut Outbox<Output>) {
        let key: Key = Private::new(work.body.octets("call-id").unwrap_or_default().to_vec());
        let tags = ["from-tag", "to-tag"].map(|tag| work.body.octets(tag).filter(|tag| !tag.is_empty()));
        let fits = |call: &Call| tags.into_iter().flatten().all(|tag| call.side_of(tag).is_some());
        let entry = match self.calls.get(&key) {
            Some(entry) if entry.busy => return self.wait(&key, work, out),
            Some(entry) if fits(&entry.call) => self.calls.remove(&key),
            _ => None,
        };
        let Some(entry) = entry else {
            let reason = "Call-ID not found or tags didn't match";
            if work.body.has("flags", "fatal") {
                return self.error(work, reason, out);
            }
            return self.reply(work, Value::dictionary().with("warning", reason).with("result", "ok"), out);
        };
        let context = entry.call.context;
        // The shard does them in their order: counted last, then gone.
        let call = Box::new(entry.call);
        let ticket = self.ticket(now, Pending::Count { work, call });
        let _ = out.push(Output::Count { ticket, context });
        self.remove_context(now, context, out);
        // What waited behind a change was begun before this one, or waits no more.
        self.waiting -= entry.waiting.len();
        entry.waiting.into_iter().for_each(|work| self.start(now, work, out));
    }

    /// Behind the change of its call that is under way.
    fn wait(&mut self, key: &Key, work: Work, out: &mut Outbox<Output>) {
        match self.calls.get_mut(key) {
            Some(entry) if entry.waiting.len() < WAITING_MAX && self.waiting < WAITING_SUM_MAX => {
                self.waiting += 1;
                entry.waiting.push_back(work);
            }
            _ => self.error(work, "Too many requests at once", out),
        }
    }

    fn query(&mut self, now: Now, work: Work, out: &mut Outbox<Output>) {
        let key: Key = Private::new(work.body.octets("call-id").unwrap_or_default().to_vec());
        let Some(call) = self.calls.get(&key).map(|entry| Box::new(entry.call.clone())) else {
            return self.error(work, "Unknown call-id", out);
        };
        let context = call.context;
        let ticket = self.ticket(now, Pending::Count { work, call });
        let _ = out.push(Output::Count { ticket, context });
    }

    fn list(&mut self, work: Work, out: &mut Outbox<Output>) {
        let limit = work.body.number("limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LIST);
        // As many as a datagram holds, whatever is asked for.
        let mut room = crate::frame::MESSAGE_MAX / 2;
        let ids = self.calls.keys().map(Private::expose).take(limit);
        let calls: Vec<Value> = ids
            .map_while(|id| {
                room = room.checked_sub(id.len() + 8)?;
                Some(Value::from(id.clone()))
            })
            .collect();
        self.reply(work, Value::dictionary().with("calls", calls).with("result", "ok"), out);
    }
}

fn take_answer(
    call: &mut Call,
    from: &[u8],
    to: Vec<u8>,
    session: &Session,
    flags: &Flags,
) -> Result<(Vec<contract::Change>, usize), &'static str> {
    let offerer = call.side_of(from).ok_or("Unknown from-tag")?;
    let answerer = 1 - offerer;
    // Of several who answer one offer, the last one has the call.
    call.side_mut(answerer).tag = Private::new(to);
    let changes = call.answer(answerer, session, flags)?;
    Ok((changes, offerer))
}
