//! Answering on the admin socket.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use service::{Record, Row, Table};
use store::Store;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{Ask, follow};
use crate::Shutdown;
use crate::clock::Clock;
use crate::edge::Edge;
use crate::front;
use crate::lane::Lanes;
use crate::link::{Link, Order};
use crate::metrics::{Metrics, Question};
use crate::run::Addresses;
use crate::trace::Bus;

/// Octets of one question at most.
const LINE_MAX: u64 = 64 * 1024;
/// Rows of one answer at most.
const ROWS_MAX: usize = 1000;
/// Questioners at once.
const CLIENTS_MAX: usize = 16;
/// How long a questioner may take for a question, and the data plane for its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the answers are made from.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) addresses: Addresses,
    pub(crate) edge: Edge,
    pub(crate) lanes: Lanes,
    pub(crate) link: Link,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) front: mpsc::Sender<front::Order>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trace: Bus,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
}

/// Binds the socket. A file that a dead process left is replaced; a live one is not.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path is taken by another file"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another control answers there"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until shutdown.
pub(crate) async fn serve(listener: UnixListener, admin: Arc<Admin>) {
    let room = Arc::new(Semaphore::new(CLIENTS_MAX));
    let shutdown = admin.shutdown.clone();
    loop {
        let accepted = tokio::select! {
            () = shutdown.triggered() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            admin.metrics.questions.count(Question::Busy);
            continue;
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if converse(stream, &admin).await.is_err() {
                admin.metrics.questions.count(Question::Unfinished);
            }
        });
    }
}

/// Answers until the questioner goes; an error is a question that was not finished.
async fn converse(stream: UnixStream, admin: &Admin) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(LINE_MAX);
        let octets = match timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await {
            Ok(Ok(octets)) => octets,
            Ok(Err(_)) | Err(_) if line.is_empty() => return Ok(()),
            Ok(Err(broken)) => return Err(broken),
            Err(late) => return Err(late.into()),
        };
        if octets == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let (outcome, answer) = match serde_json::from_slice(&line) {
            Ok(Ask::Trace(wanted)) => match admin.trace.open(&wanted) {
                Ok(tracing) => {
                    admin.metrics.questions.count(Question::Answered);
                    return follow::tell(tracing, &mut reader, &mut writer, &admin.shutdown).await;
                }
                Err(why) => (Question::Refused, Err(why)),
            },
            Ok(ask) => match admin.answer(ask).await {
                Ok(answer) => (Question::Answered, Ok(answer)),
                Err(why) => (Question::Refused, Err(why)),
            },
            Err(error) => (Question::Malformed, Err(format!("no question that I know: {error}"))),
        };
        admin.metrics.questions.count(outcome);
        let answer = match answer {
            Ok(Value::Object(mut fields)) => {
                fields.insert("ok".to_owned(), Value::Bool(true));
                Value::Object(fields)
            }
            Ok(other) => json!({ "ok": true, "answer": other }),
            Err(error) => json!({ "ok": false, "error": error }),
        };
        let told = writer.write_all(format!("{answer}\n").as_bytes()).await;
        if !whole || told.is_err() {
            return Ok(());
        }
    }
}

impl Admin {
    async fn answer(&self, ask: Ask) -> Result<Value, String> {
        match ask {
            Ask::Status {} => Ok(self.status().await),
            Ask::Sessions {} => self.sessions().await,
            Ask::Conferences {} => self.conferences().await,
            Ask::Ended {} => self.ended().await,
            Ask::Capture { context, on, leg, file, max_bytes } => {
                self.capture(contract::Capture { context, file, on, max_bytes, leg }).await
            }
            Ask::Drain { on } => self.drain(on).await,
            // It has a conversation of its own.
            Ask::Trace(_) => Err("no trace".to_owned()),
            Ask::Shutdown {} => {
                tracing::info!("shutting down: asked on the admin socket");
                self.shutdown.trigger();
                Ok(json!({}))
            }
        }
    }

    async fn status(&self) -> Value {
        let link = self.link.state();
        let sip: Vec<Value> = self
            .addresses
            .sip
            .iter()
            .map(|(transport, address)| json!({ "transport": transport.label(), "address": address.to_string() }))
            .collect();
        let dataplane = link.welcome.as_ref().map_or_else(
            || json!({ "linked": false }),
            |welcome| {
                json!({
                    "linked": true,
                    "driver": welcome.driver,
                    "driver_reason": welcome.driver_reason,
                    "instance": format!("{:016x}", welcome.instance),
                    "generation": link.generation,
                    "unanswered": link.unanswered,
                    "load": link.load.as_ref().map(|load| json!({
                        "shards": load.shards,
                        "contexts": load.contexts,
                        "contexts_max": load.contexts_max,
                        "legs": load.legs,
                        "legs_max": load.legs_max,
                        "busy_permille": load.busy_permille,
                        "draining": load.draining,
                        "relay_sessions": load.relay_sessions,
                        "spill_bytes": load.spill_bytes,
                        "spill_files": load.spill_files,
                    })),
                })
            },
        );
        json!({
            "name": self.name,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_s": self.clock.now().mono.as_nanos() / 1_000_000_000,
            "epoch": self.epoch,
            "sip": sip,
            "metrics": self.addresses.metrics.map(|address| address.to_string()),
            "connections": self.edge.connections(),
            "messages": { "received": self.metrics.received.sum(), "discarded": self.metrics.discarded.sum() },
            "lanes": self.lanes.reports().await,
            "dataplane": dataplane,
        })
    }

    async fn rows(&self, table: Table) -> Result<Vec<Row>, String> {
        let (send, receive) = oneshot::channel();
        let done = move |rows| {
            let _ = send.send(rows);
        };
        self.store.list(table, ROWS_MAX, Box::new(done));
        let rows = receive.await.map_err(|_| "the store has ended".to_owned())?;
        rows.map_err(|error| error.to_string())
    }

    /// The established 1-1 sessions as the store has them, without whose they are.
    async fn sessions(&self) -> Result<Value, String> {
        let rows = self.rows(Table::Session).await?;
        let sessions: Vec<Value> = rows
            .iter()
            .filter_map(|row| match &row.record {
                Record::Session(session) => Some(json!({
                    "id": row.key.id.expose(),
                    "originating": session.originating,
                    "group": session.group,
                    "devices": session.downstream.len(),
                    "context": session.context,
                    "since": session.since.to_string(),
                })),
                _ => None,
            })
            .collect();
        Ok(json!({ "sessions": sessions }))
    }

    /// The conferences as the store has them, with their media contexts.
    async fn conferences(&self) -> Result<Value, String> {
        let contexts = self.rows(Table::Context).await?;
        let of = |focus: &str| -> Vec<u64> {
            let contexts = contexts.iter().filter_map(|row| match &row.record {
                Record::Context(context) if context.owner == focus => Some(context.context),
                _ => None,
            });
            contexts.collect()
        };
        let rows = self.rows(Table::Roster).await?;
        let conferences: Vec<Value> = rows
            .iter()
            .filter_map(|row| match &row.record {
                Record::Roster(roster) => {
                    Some(json!({ "focus": roster.focus, "contexts": of(&roster.focus) }))
                }
                _ => None,
            })
            .collect();
        Ok(json!({ "conferences": conferences }))
    }

    /// The legs that have ended, the newest first. Contexts are named as in logs and rows.
    async fn ended(&self) -> Result<Value, String> {
        let rows = self.rows(Table::Ended).await?;
        let ended: Vec<Value> = rows
            .iter()
            .filter_map(|row| match &row.record {
                Record::Ended(leg) => Some(json!({
                    "context": format!("{:016x}", leg.context),
                    "leg": leg.leg,
                    "media": if leg.video { "video" } else { "audio" },
                    "ended": leg.ended.to_string(),
                    "up_ms": leg.up_ms,
                    "packets_in": leg.packets_in,
                    "packets_out": leg.packets_out,
                    "bytes_in": leg.bytes_in,
                    "bytes_out": leg.bytes_out,
                    "dropped": leg.dropped,
                    "policed": leg.policed,
                    "lost_in": leg.lost_in,
                    "lost_out": leg.lost_out,
                    "reordered": leg.reordered,
                    "duplicates": leg.duplicates,
                    "jitter_in_us": leg.jitter_in_us,
                    "jitter_out_us": leg.jitter_out_us,
                    "round_trip_us": leg.round_trip_us,
                    "mos_in_centi": leg.mos_in_centi,
                    "mos_out_centi": leg.mos_out_centi,
                    "retransmitted": leg.retransmitted,
                })),
                _ => None,
            })
            .collect();
        Ok(json!({ "ended": ended }))
    }

    async fn capture(&self, capture: contract::Capture) -> Result<Value, String> {
        let (send, receive) = oneshot::channel();
        self.link.order(Order::Capture(capture, send)).map_err(|_| "too many orders wait".to_owned())?;
        let state = match timeout(PATIENCE, receive).await {
            Ok(Ok(state)) => state,
            Ok(Err(_)) | Err(_) => return Err("the data plane did not answer".to_owned()),
        };
        if !state.error.is_empty() {
            return Err(state.error);
        }
        Ok(json!({
            "context": state.context,
            "file": state.file,
            "on": state.on,
            "packets": state.packets,
            "bytes": state.bytes,
            "missed": state.missed,
        }))
    }

    async fn drain(&self, on: bool) -> Result<Value, String> {
        tracing::info!(on, "draining");
        let _ = self.front.send(front::Order::Drain(on)).await;
        self.link.order(Order::Drain(on)).map_err(|_| "too many orders wait".to_owned())?;
        Ok(json!({ "draining": on }))
    }
}
