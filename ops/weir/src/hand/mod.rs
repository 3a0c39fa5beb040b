//! `weir ue`: a phone for the terminal, to try things by hand.

mod show;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use tokio::sync::mpsc;
use ue::audio::{read_wav, write_wav};
use ue::{Account, Call, Chat, Counters, Device, Draft, Event, Identity, SessionId, Transport};

use crate::config::Config;
use crate::roles;

/// Samples that are kept for `--record`: ten minutes.
const KEEP_SAMPLES_MAX: usize = 8000 * 600;

/// What `weir ue` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// User name; also the password, unless another is given.
    #[arg(long, global = true, default_value = "ann")]
    user: String,
    /// Password.
    #[arg(long, global = true)]
    password: Option<String>,
    /// Domain of the user; without one, that of the running node.
    #[arg(long, global = true)]
    domain: Option<String>,
    /// Where SIP goes; without it, to the node that runs in the folder, else to 127.0.0.1.
    #[arg(long, global = true)]
    server: Option<SocketAddr>,
    /// How.
    #[arg(long, global = true, value_enum, default_value = "udp")]
    transport: Over,
    /// The folder of the running node.
    #[arg(long, global = true, default_value = "weir-data")]
    folder: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Over {
    Udp,
    Tcp,
    Tls,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Register, say for how long, unregister.
    Register,
    /// Register, accept everything, show what arrives until Ctrl-C.
    Listen,
    /// Send a pager message and wait for its notifications.
    Message {
        /// To whom, e.g. sip:bob@weir.example.
        to: String,
        /// What.
        text: String,
    },
    /// Chat with somebody: lines of the terminal are sent.
    Chat {
        /// With whom.
        to: String,
    },
    /// Start a group chat.
    Group {
        /// With whom.
        #[arg(required = true)]
        members: Vec<String>,
        /// Subject.
        #[arg(long)]
        subject: Option<String>,
    },
    /// Join a group.
    Join {
        /// Which, e.g. sip:book-club@weir.example.
        group: String,
    },
    /// Call somebody.
    Call {
        /// Whom.
        to: String,
        /// Say this: a WAV file, mono, 8000 Hz, 16 bit or mu-law. Without one, a synthetic voice.
        #[arg(long)]
        play: Option<PathBuf>,
        /// Write what is heard to this WAV file.
        #[arg(long)]
        record: Option<PathBuf>,
        /// How long to stay in the call, seconds; without it, as long as the file plays.
        #[arg(long)]
        seconds: Option<f64>,
    },
}

/// Runs the phone.
pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    roles::log_to_stderr("warn");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(phone(options))
}

async fn phone(options: Options) -> anyhow::Result<ExitCode> {
    let running = Config::read(&options.folder.join("running.toml")).ok();
    let transport = match options.transport {
        Over::Udp => Transport::Udp,
        Over::Tcp => Transport::Tcp,
        Over::Tls => Transport::Tls,
    };
    let config = running.unwrap_or_default();
    let usual = SocketAddr::from(([127, 0, 0, 1], transport.default_port()));
    let server = options.server.or_else(|| config.sip(transport)).unwrap_or(usual);
    let domain = options.domain.clone().unwrap_or_else(|| config.domain().to_owned());
    let password = options.password.as_deref().unwrap_or(&options.user);
    let mut entropy = ue::system_entropy();
    let mut account = Account::new(&options.user, &domain, password, server, transport, &mut entropy);
    if matches!(options.command, Command::Call { .. } | Command::Listen) {
        account.keep_samples_max = KEEP_SAMPLES_MAX;
    }
    let identity = Arc::new(Identity::generate(&["ue.invalid"])?);
    let device = Device::start(account, Arc::new(Counters::default()), identity, entropy.child()).await?;
    let granted =
        device.register().await.with_context(|| format!("registering at {server} over {transport}"))?;
    println!("{} is registered for {granted} s at {server} over {transport}", device.address());
    let watching = tokio::spawn(show::everything(device.clone()));
    let done = act(&device, &config, options.command).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    watching.abort();
    if let Err(e) = device.unregister().await {
        eprintln!("unregistering: {e}");
    }
    done.map(|()| ExitCode::SUCCESS)
}

async fn act(device: &Device, config: &Config, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Register => Ok(()),
        Command::Listen => Ok(tokio::signal::ctrl_c().await?),
        Command::Message { to, text } => {
            let sent = device.message(&to, &Draft::text(text).displayed()).await?;
            println!("taken with {}", sent.code);
            let told =
                |e: &Event| matches!(e, Event::Notice(n) if n.message_id == sent.message_id).then_some(());
            let _ = device.log().wait(0, Duration::from_secs(5), told).await;
            Ok(())
        }
        Command::Chat { to } => converse(device, Call::chat(to)).await,
        Command::Group { members, subject } => {
            let members: Vec<&str> = members.iter().map(String::as_str).collect();
            let call = Call::group(config.factory(), &members);
            converse(device, call.subject(subject.unwrap_or_else(|| "Group".to_owned()))).await
        }
        Command::Join { group } => converse(device, Call::join(group)).await,
        Command::Call { to, play, record, seconds } => call(device, to, play, record, seconds).await,
    }
}

/// Lines of the terminal go into the chat until it ends.
async fn converse(device: &Device, call: Call) -> anyhow::Result<()> {
    let room = call.room;
    let session = device.invite(call).await?;
    if room {
        device.subscribe(session).await?;
    }
    let chat = device.chat(session).await?;
    println!(
        "connected; /leave ends it{}",
        if room { ", /nick NAME, /to ADDRESS TEXT, /add ADDRESS, /remove ADDRESS" } else { "" }
    );
    let mut lines = terminal()?;
    let mark = device.log().mark();
    let over = async {
        let ended = |e: &Event| matches!(e, Event::Ended { session: s, .. } if *s == session).then_some(());
        while device.log().wait(mark, Duration::from_secs(3600), ended).await.is_none() {}
    };
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return Ok(()),
            line = lines.recv() => match line {
                None => break,
                Some(line) if line == "/leave" => break,
                Some(line) if line.is_empty() => {}
                Some(line) => {
                    if let Err(e) = obey(device, session, &chat, &line).await {
                        eprintln!("{e:#}");
                    }
                }
            }
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(device.hang_up(session, 200).await?)
}

/// The lines of the terminal, read on a thread of their own.
fn terminal() -> std::io::Result<mpsc::Receiver<String>> {
    let (lines, on_lines) = mpsc::channel(16);
    std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(on_lines)
}

async fn obey(device: &Device, session: SessionId, chat: &Chat, line: &str) -> anyhow::Result<()> {
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some("/nick"), Some(name), rest) => {
            let name = rest.map_or(name.to_owned(), |rest| format!("{name} {rest}"));
            println!("nickname: {}", chat.nickname(&name).await?);
        }
        (Some("/to"), Some(who), Some(text)) => drop(chat.send(&Draft::text(text).to(who)).await?),
        (Some("/add"), Some(who), None) => device.add(session, who).await?,
        (Some("/remove"), Some(who), None) => device.remove(session, who).await?,
        _ => drop(chat.send(&Draft::text(line).displayed()).await?),
    }
    Ok(())
}

async fn call(
    device: &Device,
    to: String,
    play: Option<PathBuf>,
    record: Option<PathBuf>,
    seconds: Option<f64>,
) -> anyhow::Result<()> {
    let samples = match &play {
        Some(path) => read_wav(&std::fs::read(path).with_context(|| path.display().to_string())?)?,
        None => ue::audio::voice(1, seconds.unwrap_or(5.0)),
    };
    let length = seconds.unwrap_or(samples.len() as f64 / f64::from(ue::audio::SAMPLE_RATE));
    let session = device.invite(Call::audio(to)).await?;
    let flow = device.flow(session).await?;
    device.play(session, Arc::new(samples), 1).await?;
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs_f64(length)) => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let (stats, heard) = {
        let flow = flow.lock().unwrap_or_else(PoisonError::into_inner);
        (flow.stats(), flow.heard())
    };
    let _ = device.hang_up(session, 200).await;
    println!(
        "{} packets sent, {} received, {} lost, jitter {:.2} ms",
        stats.sent,
        stats.received,
        stats.lost(),
        stats.jitter_ms()
    );
    if let Some(path) = record {
        std::fs::write(&path, write_wav(&heard)).with_context(|| path.display().to_string())?;
        println!("{} holds {:.1} s", path.display(), heard.len() as f64 / f64::from(ue::audio::SAMPLE_RATE));
    }
    Ok(())
}
