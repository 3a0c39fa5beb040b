//! `weir status`: asks control over its admin socket how the node is, and both metrics endpoints what was dropped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Config;
use crate::demo::table::Table;

const LIMIT: Duration = Duration::from_secs(5);

/// What `weir status` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The folder of the node.
    #[arg(long, default_value = "weir-data")]
    folder: PathBuf,
    /// The admin socket, when it is not the one in the folder.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// What the newest of the RTP legs that have ended came to, instead.
    #[arg(long)]
    ended: bool,
}

/// What control says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// As it came.
    pub(crate) value: Value,
}

impl Status {
    /// True when a data plane is linked.
    pub(crate) fn is_linked(&self) -> bool {
        self.at("/dataplane/linked").as_bool().unwrap_or(false)
    }

    /// What is wrong, in words for people.
    pub(crate) fn faults(&self) -> Vec<&'static str> {
        let unlinked = (!self.is_linked()).then_some("no data plane is linked");
        let lanes = self.at("/lanes").as_array().map(Vec::as_slice).unwrap_or_default();
        let starving = |lane: &Value| lane.get("starving").and_then(Value::as_bool).unwrap_or(false);
        let unsaved = lanes.iter().any(starving).then_some("the store takes nothing: is the disk full?");
        unlinked.into_iter().chain(unsaved).collect()
    }

    /// Which driver moves the packets; empty without a data plane.
    pub(crate) fn driver(&self) -> &str {
        self.at("/dataplane/driver").as_str().unwrap_or_default()
    }

    /// Why that driver.
    pub(crate) fn driver_reason(&self) -> &str {
        self.at("/dataplane/driver_reason").as_str().unwrap_or_default()
    }

    /// The sum over lanes of a number in what each lane's service says.
    pub(crate) fn sum(&self, key: &str) -> u64 {
        let lanes = self.at("/lanes").as_array().map(Vec::as_slice).unwrap_or_default();
        lanes.iter().filter_map(|lane| find(lane, key)).map(count).sum()
    }

    pub(crate) fn at(&self, pointer: &str) -> &Value {
        self.value.pointer(pointer).unwrap_or(&Value::Null)
    }
}

/// A key of an object, or of the objects in it.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let object = value.as_object()?;
    object.get(key).or_else(|| object.values().find_map(|inner| find(inner, key)))
}

/// A number, or how many there are in a list or object.
fn count(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.len() as u64,
        Value::Object(items) => items.len() as u64,
        other => other.as_u64().unwrap_or(0),
    }
}

/// Asks for the status.
pub(crate) async fn ask(socket: &Path) -> anyhow::Result<Status> {
    question(socket, &json!({ "ask": "status" })).await.map(|value| Status { value })
}

/// Asks anything; an answer that is not `ok` is an error.
pub(crate) async fn question(socket: &Path, ask: &Value) -> anyhow::Result<Value> {
    let answer = tokio::time::timeout(LIMIT, async {
        let stream = UnixStream::connect(socket).await.with_context(|| socket.display().to_string())?;
        let (reader, mut writer) = stream.into_split();
        writer.write_all(format!("{ask}\n").as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).await?;
        anyhow::Ok(serde_json::from_str::<Value>(&line)?)
    });
    let value = answer.await.context("no answer in time")??;
    if value.get("ok") != Some(&Value::Bool(true)) {
        bail!("control says: {}", value.get("error").and_then(Value::as_str).unwrap_or("no"));
    }
    Ok(value)
}

/// The counters of a metrics endpoint that name something dropped, and are not zero.
pub(crate) async fn drops(address: SocketAddr) -> anyhow::Result<BTreeMap<String, u64>> {
    let text = scrape(address).await?;
    let wanted = |name: &str| ["drop", "discard", "refus"].iter().any(|word| name.contains(word));
    Ok(samples(&text)
        .filter(|(name, value)| wanted(name) && *value > 0.0)
        .map(|(n, v)| (n, v as u64))
        .collect())
}

/// The text of a metrics endpoint.
pub(crate) async fn scrape(address: SocketAddr) -> anyhow::Result<String> {
    let fetched = tokio::time::timeout(LIMIT, async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    });
    fetched.await.with_context(|| format!("{address} does not answer in time"))?
}

pub(crate) fn samples(text: &str) -> impl Iterator<Item = (String, f64)> + '_ {
    text.lines().filter(|line| line.starts_with("weir_")).filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    })
}

/// `weir status`.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(show(options))
}

/// What runs wrote down how; a node that was started from a file of its own has the file's paths.
fn running(folder: &Path) -> Option<Config> {
    Config::read(&folder.join("running.toml")).ok()
}

/// The admin socket of the node in a folder, unless another one is meant.
pub(crate) fn socket_of(folder: &Path, own: Option<&Path>) -> PathBuf {
    match (own, running(folder)) {
        (Some(socket), _) => socket.to_owned(),
        (None, Some(config)) => config.admin_socket(),
        (None, None) => folder.join("control.sock"),
    }
}

async fn show(options: &Options) -> anyhow::Result<ExitCode> {
    let config = running(&options.folder);
    let socket = socket_of(&options.folder, options.socket.as_deref());
    if options.ended {
        let answer =
            question(&socket, &json!({ "ask": "ended" })).await.context("control does not answer")?;
        let legs = answer.get("ended").cloned().unwrap_or_default();
        if options.json {
            println!("{legs:#}");
        } else {
            print!("{}", ended_for_people(&legs));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let status = ask(&socket).await.context("control does not answer")?;
    let mut dropped = BTreeMap::new();
    let mut endpoints = vec![status.at("/metrics").as_str().and_then(|a| a.parse().ok())];
    endpoints.push(config.as_ref().and_then(Config::dataplane_metrics));
    for endpoint in endpoints.into_iter().flatten() {
        match drops(endpoint).await {
            Ok(found) => dropped.extend(found),
            Err(e) => eprintln!("weir: {e:#}"),
        }
    }
    if options.json {
        let mut value = status.value.clone();
        if let Some(object) = value.as_object_mut() {
            object.insert("drops".to_owned(), json!(dropped));
            object.insert("ok".to_owned(), json!(status.faults().is_empty()));
            object.insert("faults".to_owned(), json!(status.faults()));
        }
        println!("{value:#}");
    } else {
        print!("{}", for_people(&status, &dropped));
    }
    for fault in status.faults() {
        eprintln!("weir: {fault}");
    }
    Ok(if status.faults().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn for_people(status: &Status, dropped: &BTreeMap<String, u64>) -> String {
    let mut table = Table::new(&["what", "is"]);
    let mut row = |what: &str, is: String| table.row(vec![what.to_owned(), is]);
    let text = |pointer: &str| match status.at(pointer) {
        Value::String(s) => s.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    row(
        "node",
        format!("{} (weir {}, control is process {})", text("/name"), text("/version"), text("/pid")),
    );
    row("up for", format!("{} s", text("/uptime_s")));
    for listener in status.at("/sip").as_array().map(Vec::as_slice).unwrap_or_default() {
        let part = |key: &str| listener.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
        row(&format!("sip over {}", part("transport")), part("address"));
    }
    row("metrics", text("/metrics"));
    if status.is_linked() {
        row("driver", status.driver().to_owned());
        row("because", status.driver_reason().to_owned());
        let of = |now: &str, max: &str| format!("{} of {}", text(now), text(max));
        row("shards", text("/dataplane/load/shards"));
        row("contexts", of("/dataplane/load/contexts", "/dataplane/load/contexts_max"));
        row("legs", of("/dataplane/load/legs", "/dataplane/load/legs_max"));
        row("relay sessions", text("/dataplane/load/relay_sessions"));
        let waits = ["bytes", "files"].map(|what| text(&format!("/dataplane/load/spill_{what}")));
        row("waiting on disk", format!("{} octets for {} slow devices", waits[0], waits[1]));
        row("busiest shard", format!("{} per mille", text("/dataplane/load/busy_permille")));
    } else {
        row("data plane", "not linked".to_owned());
    }
    for (what, key) in
        [("registrations", "bindings"), ("sessions", "sessions"), ("conferences", "conferences")]
    {
        row(what, status.sum(key).to_string());
    }
    row(
        "sip messages",
        format!("{} received, {} discarded", text("/messages/received"), text("/messages/discarded")),
    );
    let mut out = table.to_string();
    if !dropped.is_empty() {
        out.push('\n');
        let mut table = Table::new(&["dropped", "count"]);
        for (name, value) in dropped {
            table.row(vec![name.clone(), value.to_string()]);
        }
        let _ = write!(out, "{table}");
    }
    out
}

/// The legs of `{"ask":"ended"}`.
fn ended_for_people(legs: &Value) -> String {
    let heads =
        ["ended", "context", "leg", "media", "s", "in", "lost", "ms", "mos", "out", "lost", "ms", "mos"];
    let mut table = Table::new(&heads);
    for leg in legs.as_array().map(Vec::as_slice).unwrap_or_default() {
        let text = |key: &str| match leg.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "-".to_owned(),
        };
        let scaled = |key: &str, by: f64| match leg.get(key).and_then(Value::as_f64) {
            Some(number) if number > 0.0 => format!("{:.1}", number / by),
            _ => "-".to_owned(),
        };
        let mut row: Vec<String> = ["ended", "context", "leg", "media"].map(text).to_vec();
        row.push(scaled("up_ms", 1000.0));
        for way in ["in", "out"] {
            row.extend([text(&format!("packets_{way}")), text(&format!("lost_{way}"))]);
            row.push(scaled(&format!("jitter_{way}_us"), 1000.0));
            row.push(scaled(&format!("mos_{way}_centi"), 100.0));
        }
        table.row(row);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legs_that_have_ended_are_a_line_each() {
        let legs = json!([{
            "ended": "2026-01-02T03:04:05Z", "context": "00000000000000ff", "leg": 2, "media": "audio", "up_ms": 61_500,
            "packets_in": 3000, "lost_in": 7, "jitter_in_us": 1500, "mos_in_centi": 412,
            "packets_out": 2990, "lost_out": 0, "jitter_out_us": 0, "mos_out_centi": 0,
        }]);
        let text = ended_for_people(&legs);
        let line: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        for part in ["00000000000000ff", "audio", "61.5", "3000", "1.5", "4.1", "2990"] {
            assert!(line.contains(&part), "{part}: {text}");
        }
        assert_eq!(text.lines().count(), ended_for_people(&json!([])).lines().count() + 1);
    }

    fn status() -> Status {
        Status {
            value: json!({
                "name": "n", "pid": 7, "uptime_s": 3, "version": "0.1.0",
                "sip": [{ "transport": "udp", "address": "127.0.0.1:5060" }],
                "messages": { "received": 5, "discarded": 1 },
                "lanes": [
                    { "lane": 0, "service": { "bindings": 2, "sessions": [{}], "focus": { "conferences": 1 } } },
                    { "lane": 1, "service": { "bindings": 3, "sessions": [] } },
                ],
                "dataplane": { "linked": true, "driver": "mio", "driver_reason": "io_uring is forbidden",
                               "load": { "shards": 2, "contexts": 1, "contexts_max": 9 } },
            }),
        }
    }

    #[test]
    fn lanes_are_summed_and_the_driver_is_told_with_its_reason() {
        let status = status();
        assert_eq!((status.sum("bindings"), status.sum("sessions"), status.sum("conferences")), (5, 1, 1));
        let text = for_people(&status, &BTreeMap::from([("weir_dataplane_x{reason=\"y\"}".to_owned(), 4)]));
        for part in [
            "sip over udp",
            "127.0.0.1:5060",
            "mio",
            "io_uring is forbidden",
            "1 of 9",
            "5 received",
            "reason=\"y\"",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_store_that_takes_nothing_is_a_fault() {
        let mut status = status();
        assert!(status.faults().is_empty());
        status.value["lanes"][1]["starving"] = json!(true);
        assert_eq!(status.faults().len(), 1);
        status.value["dataplane"]["linked"] = json!(false);
        assert_eq!(status.faults().len(), 2);
    }

    #[test]
    fn samples_are_read_from_the_text_format() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# HELP weir_a b\nweir_a{x=\"1 2\"} 3\nweir_b_total 4.5\nother 9\n";
        assert_eq!(
            samples(text).collect::<Vec<_>>(),
            [("weir_a{x=\"1 2\"}".to_owned(), 3.0), ("weir_b_total".to_owned(), 4.5)]
        );
    }
}
