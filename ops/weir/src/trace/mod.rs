//! `weir trace`: follows one call or message through the node, live: SIP on the wire and between functions, decisions, the
//! contract with the data plane, and what the media came to. `ladder` draws it.

mod ladder;

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use controld::{AdminAsk, TraceEvent, TraceKind, TraceWanted};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::status::socket_of;

/// Events that are kept for a ladder; the first ones are drawn.
const EVENTS_MAX: usize = 100_000;
/// Columns of a terminal that does not say.
const WIDTH: usize = 120;

/// What `weir trace` takes.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("whom").required(true).args(["call_id", "conversation_id", "contribution_id", "user", "read"]))]
pub(crate) struct Options {
    /// Follow the call of this Call-ID, on all its legs.
    #[arg(long)]
    call_id: Option<String>,
    /// Follow everything of this Conversation-ID.
    #[arg(long)]
    conversation_id: Option<String>,
    /// Follow the session or message of this Contribution-ID.
    #[arg(long)]
    contribution_id: Option<String>,
    /// Follow whatever this user (a sip or tel URI) sends and is sent.
    #[arg(long)]
    user: Option<String>,
    /// Show a trace again that was written with --json; "-" is the standard input.
    #[arg(long, value_name = "FILE")]
    read: Option<PathBuf>,
    /// Draw a ladder when the trace ends, instead of lines.
    #[arg(long)]
    ladder: bool,
    /// An object a line, for programs and for --read.
    #[arg(long, conflicts_with = "ladder")]
    json: bool,
    /// End after so many seconds; without it Ctrl-C ends, or the limit in the node's configuration.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Show numbers and names of subscribers.
    #[arg(long)]
    unmasked: bool,
    /// Show bodies: what people write to each other, and session descriptions. With --json, they are fields.
    #[arg(long)]
    bodies: bool,
    /// Columns that a ladder may take; the terminal's, if it says.
    #[arg(long)]
    width: Option<usize>,
    /// The folder of the node.
    #[arg(long, default_value = "weir-data")]
    folder: PathBuf,
    /// The admin socket, when it is not the one in the folder.
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// `weir trace`.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut shown = Shown { options, kept: Vec::new(), more: 0 };
    match &options.read {
        Some(file) => read(file, &mut shown)?,
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(follow(options, &mut shown))?;
        }
    }
    shown.finish();
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path, shown: &mut Shown<'_>) -> anyhow::Result<()> {
    let lines: Box<dyn BufRead> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => {
            let opened = std::fs::File::open(file).with_context(|| file.display().to_string())?;
            Box::new(BufReader::new(opened))
        }
    };
    for (line, number) in lines.lines().zip(1..) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let event = serde_json::from_str(&line).with_context(|| format!("line {number} is no event"))?;
        if !shown.show(event) {
            break;
        }
    }
    Ok(())
}

/// Until the node ends the trace, or Ctrl-C does.
async fn follow(options: &Options, shown: &mut Shown<'_>) -> anyhow::Result<()> {
    let socket = socket_of(&options.folder, options.socket.as_deref());
    let wanted = TraceWanted {
        call_id: options.call_id.clone(),
        conversation_id: options.conversation_id.clone(),
        contribution_id: options.contribution_id.clone(),
        user: options.user.clone(),
        seconds: options.seconds.unwrap_or(0),
        unmasked: options.unmasked,
        bodies: options.bodies,
    };
    let stream = UnixStream::connect(&socket).await.with_context(|| socket.display().to_string())?;
    let (reader, mut writer) = stream.into_split();
    let ask = serde_json::to_string(&AdminAsk::Trace(wanted))?;
    writer.write_all(format!("{ask}\n").as_bytes()).await?;
    let mut lines = tokio::io::BufReader::new(reader).lines();
    let first = lines.next_line().await?.context("control says nothing")?;
    let answer: Value = serde_json::from_str(&first)?;
    if answer.get("ok") != Some(&Value::Bool(true)) {
        bail!("control says: {}", answer.get("error").and_then(Value::as_str).unwrap_or("no"));
    }
    eprintln!(
        "weir: tracing for {} s at most; Ctrl-C ends it",
        answer.get("seconds").unwrap_or(&Value::Null)
    );
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(line) = line else { return Ok(()) };
        let event: TraceEvent = serde_json::from_str(&line)?;
        let last = event.kind == TraceKind::End;
        if !shown.show(event) || last {
            return Ok(());
        }
    }
}

/// What has been shown.
struct Shown<'o> {
    options: &'o Options,
    /// For the ladder.
    kept: Vec<TraceEvent>,
    /// What there was no room for.
    more: usize,
}

impl Shown<'_> {
    /// Shows an event, or keeps it for the end. False: nobody looks any more.
    fn show(&mut self, event: TraceEvent) -> bool {
        if self.options.ladder {
            match self.kept.len() < EVENTS_MAX {
                true => self.kept.push(event),
                false => self.more += 1,
            }
            return true;
        }
        let text = match self.options.json {
            true => serde_json::to_string(&event).unwrap_or_default(),
            false => line(&event),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
    }

    fn finish(self) {
        if !self.options.ladder {
            return;
        }
        let width = self.options.width.or_else(terminal_width).unwrap_or(WIDTH);
        let mut text = ladder::draw(&self.kept, width);
        if self.more > 0 {
            text.push_str(&format!("{} more events are not drawn\n", self.more));
        }
        // Nobody looks any more: nothing is left to be done.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}

/// When, who to whom, what.
fn line(event: &TraceEvent) -> String {
    let time = event.at.get(11..23).unwrap_or("            ");
    let way = match event.kind {
        TraceKind::Sip | TraceKind::Contract | TraceKind::Media => format!("{} → {}", event.from, event.to),
        TraceKind::Decision => format!("{} decides", event.from),
        TraceKind::Lost | TraceKind::End => "—".to_owned(),
    };
    let context = event.context.as_deref().map(|context| format!(" [{context}]")).unwrap_or_default();
    let mut text = format!("{time}  {way:<24}  {}{context}", event.summary);
    for (name, number) in event.numbers.iter().filter(|_| event.kind == TraceKind::End) {
        text.push_str(&format!(", {number} {name}"));
    }
    for body in event.body.iter().flat_map(|body| body.lines()) {
        text.push_str("\n              | ");
        text.push_str(body);
    }
    text
}

/// What the terminal says, where there is one.
fn terminal_width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let said = Command::new("stty").arg("size").stdin(Stdio::inherit()).output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    said.split_whitespace().nth(1)?.parse().ok().filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_who_and_what() {
        let mut event = TraceEvent {
            at: "2026-01-02T03:04:05.678Z".to_owned(),
            from: "A ***01".to_owned(),
            to: "PF".to_owned(),
            summary: "INVITE sip:***02@weir.example".to_owned(),
            body: Some("v=0\r\ns=-\r\n".to_owned()),
            ..TraceEvent::default()
        };
        assert_eq!(
            line(&event),
            "03:04:05.678  A ***01 → PF              INVITE sip:***02@weir.example\n              | v=0\n              | s=-"
        );
        event.body = None;
        event.kind = TraceKind::Decision;
        assert!(line(&event).starts_with("03:04:05.678  A ***01 decides"));
    }

    #[test]
    fn exactly_one_is_followed() {
        use clap::Parser;
        #[derive(Parser, Debug)]
        struct Cli {
            #[command(flatten)]
            options: Options,
        }
        assert!(Cli::try_parse_from(["t"]).is_err());
        assert!(Cli::try_parse_from(["t", "--user", "tel:+1", "--call-id", "a"]).is_err());
        let cli = Cli::try_parse_from(["t", "--user", "tel:+1", "--ladder", "--for", "9"]).unwrap();
        assert_eq!((cli.options.user.as_deref(), cli.options.seconds), (Some("tel:+1"), Some(9)));
    }
}
