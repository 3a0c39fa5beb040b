//! `weir up`: both processes of a node on this host, supervised.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::choices::Choices;
use crate::node::{self, Logs, Node};
use crate::roles;

const READY: Duration = Duration::from_secs(20);

/// What `weir up` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The configuration; without one, embedded defaults on loopback.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where the node keeps its files, when no configuration says so.
    #[arg(long, default_value = "weir-data")]
    folder: PathBuf,
    #[command(flatten)]
    choices: Choices,
}

/// Runs the node until SIGINT or SIGTERM.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    roles::log_to_stderr("info");
    let prepared = match &options.config {
        Some(file) => node::from_file(file, options.choices)?,
        None => node::embedded(&options.folder, options.choices)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut node = Node::start(prepared, Logs::Stderr)?;
        tokio::select! {
            ready = node.ready(READY) => match ready {
                Ok(status) => println!("{}", node.welcome(&status)),
                Err(e) => eprintln!("weir: {e:#}; still trying"),
            },
            _ = interrupt.recv() => return end(node).await,
            _ = terminate.recv() => return end(node).await,
        }
        loop {
            tokio::select! {
                Some(event) = node.events.recv() => println!("{event}"),
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        end(node).await
    })
}

async fn end(node: Node) -> anyhow::Result<ExitCode> {
    println!("ending");
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}
