//! One connection to a data plane: frames in and out, orders and their answers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use contract::{
    Audit, Audited, CaptureState, Counters, Drain, FromDataplane, MessageNews, News, ToDataplane,
    decode_frame, encode_frame, from_dataplane, message_news, news, to_dataplane,
};
use service::{Ask, LaneKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::greeting::Greeted;
use super::{Order, Runner, lost};
use crate::ended;
use crate::lane::{Event, LaneRef};
use crate::metrics::{Heard, Outcome};

/// Octets that may wait to be written before no further order is taken.
const WRITE_MAX: usize = 4 << 20;
/// Within so long after a greeting the lanes have ordered all that they want put again.
const SETTLED: Duration = Duration::from_secs(1);

/// A living data plane tells its load four times a second: one that says nothing for `answer_ms` is gone, whatever the
/// connection says, but it is given this long at least.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// Why a connection ended, for people.
#[derive(Debug)]
pub(super) struct End(String);

impl End {
    pub(super) fn new(why: impl Into<String>) -> Self {
        End(why.into())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A connection.
pub(super) struct Session {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    read: BytesMut,
    out: BytesMut,
    /// TLS may hold octets back until it is told to flush.
    unflushed: bool,
    /// When the far end was heard last.
    heard: Instant,
}

impl Session {
    pub(super) fn new<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Session {
            reader: Box::new(reader),
            writer: Box::new(writer),
            read: BytesMut::new(),
            out: BytesMut::new(),
            unflushed: false,
            heard: Instant::now(),
        }
    }

    /// Queues one frame.
    pub(super) fn put(&mut self, body: to_dataplane::Body) {
        encode_frame(&ToDataplane { body: Some(body) }, &mut self.out);
    }

    /// The next frame; what is queued is written meanwhile. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<from_dataplane::Body, End> {
        loop {
            match decode_frame::<FromDataplane>(&mut self.read) {
                Ok(Some(FromDataplane { body: Some(body) })) => return Ok(body),
                // A word of a newer version that we have not asked for.
                Ok(Some(FromDataplane { body: None })) => continue,
                Ok(None) => {}
                Err(error) => return Err(End::new(error.to_string())),
            }
            tokio::select! {
                read = self.reader.read_buf(&mut self.read) => match read {
                    Ok(0) => return Err(End::new("it closed the connection")),
                    Ok(_) => self.heard = Instant::now(),
                    Err(error) => return Err(End::new(error.to_string())),
                },
                written = write_some(&mut self.writer, &self.out), if self.unflushed || !self.out.is_empty() => {
                    match written {
                        Ok(n) => {
                            self.out.advance(n);
                            self.unflushed = n > 0;
                        }
                        Err(error) => return Err(End::new(error.to_string())),
                    }
                }
            }
        }
    }
}

/// Writes a part of it, or flushes when there is none; how much. Nothing is lost when the future is dropped.
async fn write_some(writer: &mut (impl AsyncWrite + Unpin), out: &[u8]) -> std::io::Result<usize> {
    if out.is_empty() {
        writer.flush().await?;
        return Ok(0);
    }
    match writer.write(out).await? {
        0 => Err(std::io::ErrorKind::WriteZero.into()),
        n => Ok(n),
    }
}

/// Who waits for what.
struct Waiting {
    /// By generation: who ordered the batch and until when it must be answered.
    batches: BTreeMap<u64, (LaneRef, Ask, Instant)>,
    generation: u64,
    captures: Vec<(u64, oneshot::Sender<CaptureState>)>,
    /// By number of the audit: the lane that asked and what has come so far.
    audits: BTreeMap<u64, (usize, Vec<u64>)>,
    audit: u64,
    /// The instance to remember once the lanes have put what they want again: after this time, when every batch
    /// ordered until then was answered. Later ones are new wishes and do not count, or a busy control would never
    /// be done.
    unsettled: Option<(u64, Instant)>,
    /// The last generation ordered in that time.
    settles_at: u64,
}

impl Runner {
    /// Until the connection ends. Whoever still waits is told.
    pub(super) async fn serve(&mut self, mut session: Session, greeted: Greeted) -> End {
        let instance = greeted.welcome.instance;
        let mut waiting = Waiting {
            batches: BTreeMap::new(),
            generation: greeted.generation,
            captures: Vec::new(),
            audits: BTreeMap::new(),
            audit: 0,
            unsettled: (self.parts.instance != Some(instance)).then(|| (instance, Instant::now() + SETTLED)),
            settles_at: greeted.generation,
        };
        let end = self.exchange(&mut session, &mut waiting).await;
        for (lane, ask, _) in std::mem::take(&mut waiting.batches).into_values() {
            self.refused(lane, ask, lost());
        }
        end
    }

    async fn exchange(&mut self, session: &mut Session, waiting: &mut Waiting) -> End {
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        loop {
            let room = session.out.len() < WRITE_MAX;
            tokio::select! {
                frame = session.next() => match frame {
                    Ok(frame) => self.hear(frame, waiting),
                    Err(end) => return end,
                },
                Some(order) = self.orders.recv(), if room => self.carry_out(order, session, waiting),
                _ = tick.tick() => {
                    if waiting.batches.first_key_value().is_some_and(|(_, (_, _, by))| *by < Instant::now()) {
                        return End::new("a batch was not answered in time");
                    }
                    let patience = Duration::from_millis(self.parts.settings.answer_ms);
                    if session.heard.elapsed() > patience.max(SILENCE_MIN) {
                        return End::new("it fell silent");
                    }
                    self.settle(waiting);
                }
            }
            self.set(|state| {
                state.generation = waiting.generation;
                state.unanswered = waiting.batches.len();
            });
        }
    }

    /// Remembers the instance once what the lanes want has been put into it.
    fn settle(&mut self, waiting: &mut Waiting) {
        let Some((instance, after)) = waiting.unsettled else { return };
        let oldest = waiting.batches.first_key_value().map(|(generation, _)| *generation);
        if Instant::now() < after || oldest.is_some_and(|oldest| oldest <= waiting.settles_at) {
            return;
        }
        waiting.unsettled = None;
        self.parts.instance = Some(instance);
        let remembered = |outcome: Result<(), store::StoreError>| {
            if let Err(error) = outcome {
                tracing::warn!(%error, "the data plane's instance could not be remembered");
            }
        };
        self.parts.store.set_number(super::INSTANCE, instance, Box::new(remembered));
    }

    fn carry_out(&mut self, order: Order, session: &mut Session, waiting: &mut Waiting) {
        match order {
            Order::Program { from, ask, mut batch } => {
                waiting.generation += 1;
                if waiting.unsettled.is_some_and(|(_, after)| Instant::now() < after) {
                    waiting.settles_at = waiting.generation;
                }
                batch.generation = waiting.generation;
                batch.epoch = self.parts.epoch;
                let by = Instant::now() + Duration::from_millis(self.parts.settings.answer_ms);
                waiting.batches.insert(batch.generation, (from, ask, by));
                if self.parts.trace.is_on() {
                    self.parts.trace.ordered(&batch);
                }
                session.put(to_dataplane::Body::Batch(batch));
            }
            Order::Decide(decide) => session.put(to_dataplane::Body::Decide(decide)),
            Order::Audit { lane } => {
                waiting.audit += 1;
                waiting.audits.insert(waiting.audit, (lane, Vec::new()));
                session.put(to_dataplane::Body::Audit(Audit { id: waiting.audit }));
            }
            Order::Capture(capture, answer) => {
                waiting.captures.push((capture.context, answer));
                session.put(to_dataplane::Body::Capture(capture));
            }
            Order::Drain(on) => {
                self.draining = on;
                session.put(to_dataplane::Body::Drain(Drain { on }));
            }
        }
    }

    fn hear(&mut self, frame: from_dataplane::Body, waiting: &mut Waiting) {
        match frame {
            from_dataplane::Body::Applied(applied) => {
                let Some((from, ask, _)) = waiting.batches.remove(&applied.generation) else { return };
                self.parts.metrics.batches.count(Outcome::Done);
                if self.parts.trace.is_on() {
                    self.parts.trace.answered(applied.generation, Ok(&applied));
                }
                self.lanes.tell(from.lane, Event::Applied { life: from.life, ask, applied });
            }
            from_dataplane::Body::Refusal(refusal) => {
                if let Some((from, ask, _)) = waiting.batches.remove(&refusal.generation) {
                    if self.parts.trace.is_on() {
                        self.parts.trace.answered(refusal.generation, Err(&refusal));
                    }
                    self.refused(from, ask, refusal);
                }
            }
            from_dataplane::Body::News(news) => {
                if self.parts.trace.is_on() {
                    self.parts.trace.news(&news);
                }
                self.spread(news);
            }
            from_dataplane::Body::Audited(part) => self.audited_part(part, waiting),
            from_dataplane::Body::CaptureState(state) => {
                if let Some(at) = waiting.captures.iter().position(|(context, _)| *context == state.context) {
                    let _ = waiting.captures.swap_remove(at).1.send(state);
                }
            }
            from_dataplane::Body::Welcome(_) => {}
        }
    }

    fn audited_part(&mut self, part: Audited, waiting: &mut Waiting) {
        let Some((_, contexts)) = waiting.audits.get_mut(&part.id) else { return };
        contexts.extend(part.contexts.iter().map(|context| context.id));
        if !part.more
            && let Some((lane, contexts)) = waiting.audits.remove(&part.id)
        {
            self.audited(&contexts, Some(lane));
        }
    }

    /// News go to the lane of their context.
    fn spread(&mut self, news: News) {
        let Some(what) = news.what else { return };
        let leg = |leg: &Option<contract::LegKey>| leg.as_ref().map(|leg| leg.context);
        let (kind, context) = match &what {
            news::What::LegUp(n) => (Heard::LegUp, leg(&n.leg)),
            news::What::LegLost(n) => (Heard::LegLost, leg(&n.leg)),
            news::What::Latched(n) => (Heard::Latched, leg(&n.leg)),
            news::What::Report(n) => (Heard::Report, leg(&n.leg)),
            news::What::Message(n) => (Heard::Message, leg(&n.leg)),
            news::What::Pressure(n) => (Heard::Pressure, leg(&n.leg)),
            news::What::Counters(_) => (Heard::Counters, None),
            news::What::Load(_) => (Heard::Load, None),
        };
        self.parts.metrics.news.count(kind);
        match what {
            news::What::Load(load) => self.set(|state| state.load = Some(load)),
            news::What::Counters(counters) => self.spread_counters(counters),
            news::What::Message(MessageNews { what: Some(message_news::What::Auth(auth)), id, .. }) => {
                let lane = self.lanes.of(LaneKey::of_credentials(&auth.authorization));
                let what = Some(message_news::What::Auth(auth));
                let news = News { what: Some(news::What::Message(MessageNews { leg: None, id, what })) };
                self.lanes.tell(lane, Event::News(news));
            }
            what => {
                if let Some(context) = context {
                    self.lanes.tell(self.lanes.of_context(context), Event::News(News { what: Some(what) }));
                }
            }
        }
    }

    fn spread_counters(&self, counters: Counters) {
        let mut of_lane = vec![Vec::new(); self.lanes.count()];
        let (ended, legs): (Vec<_>, Vec<_>) = counters.legs.into_iter().partition(|leg| leg.ended);
        ended::keep(&ended, self.parts.ended, self.parts.clock.now().wall, &*self.parts.store);
        for leg in legs {
            let lane = self.lanes.of_context(leg.leg.as_ref().map_or(0, |leg| leg.context));
            if let Some(list) = of_lane.get_mut(lane) {
                list.push(leg);
            }
        }
        for (lane, legs) in of_lane.into_iter().enumerate().filter(|(_, legs)| !legs.is_empty()) {
            let news = News { what: Some(news::What::Counters(Counters { legs })) };
            self.lanes.tell(lane, Event::News(news));
        }
    }
}
