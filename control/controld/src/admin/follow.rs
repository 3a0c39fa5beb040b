//! A trace on the admin socket: an event a line until its time is over, the asker goes, or the process ends.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::Shutdown;
use crate::trace::{Event, Kind, Tracing};

/// How long the last line may take.
const LAST: Duration = Duration::from_secs(1);

/// Why a trace ended.
enum Why {
    Time,
    Shutdown,
    /// The asker has gone, or said something: nothing more is for him.
    Gone,
}

/// Tells what happens. A tracer who does not read holds up nobody but himself: his queue fills, and the rest is lost and
/// counted.
pub(super) async fn tell(
    mut tracing: Tracing,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    shutdown: &Shutdown,
) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(tracing.seconds);
    let first = json!({ "ok": true, "seconds": tracing.seconds });
    writer.write_all(format!("{first}\n").as_bytes()).await?;
    let (mut told, mut lost) = (0, 0);
    let mut octet = [0];
    let why = loop {
        let event = tokio::select! {
            biased;
            () = shutdown.triggered() => break Why::Shutdown,
            () = sleep_until(until) => break Why::Time,
            _ = reader.read(&mut octet) => break Why::Gone,
            Some(event) = tracing.events.recv() => event,
        };
        let total = tracing.lost.load(Ordering::Relaxed);
        if total > lost {
            let said = Event {
                at: event.at.clone(),
                us: event.us,
                kind: Kind::Lost,
                summary: format!("{} events were lost: nobody read fast enough", total - lost),
                numbers: BTreeMap::from([("lost".to_owned(), total - lost)]),
                ..Event::default()
            };
            lost = total;
            if !write(&said, writer, until).await? {
                break Why::Time;
            }
        }
        told += 1;
        if !write(&event, writer, until).await? {
            break Why::Time;
        }
    };
    let summary = match why {
        Why::Gone => return Ok(()),
        Why::Time => "the time of the trace is over",
        Why::Shutdown => "control ends",
    };
    let lost = tracing.lost.load(Ordering::Relaxed);
    let numbers = BTreeMap::from([("events".to_owned(), told), ("lost".to_owned(), lost)]);
    let last = Event { kind: Kind::End, summary: summary.to_owned(), numbers, ..Event::default() };
    write(&last, writer, Instant::now() + LAST).await.map(|_| ())
}

/// False: not in time.
async fn write(event: &Event, writer: &mut (impl AsyncWrite + Unpin), until: Instant) -> io::Result<bool> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    match timeout_at(until, writer.write_all(&line)).await {
        Ok(written) => written.map(|()| true),
        Err(_) => Ok(false),
    }
}
