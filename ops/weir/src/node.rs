//! A node on this host: its folder, its ports, its two supervised processes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::choices::Choices;
use crate::config::Config;
use crate::folder::Folder;
use crate::supervise::{Event, Plan, Role, supervise};
use crate::{embedded, status};

/// A node that has been thought out and not yet started.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Where its files are; ours while this lives.
    pub(crate) folder: Folder,
    /// What its processes read.
    pub(crate) file: PathBuf,
    /// The same, parsed.
    pub(crate) config: Config,
}

/// Where the children's logs go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Logs {
    /// To our stderr.
    Stderr,
    /// To `control.log` and `dataplane.log` in the folder.
    Files,
}

/// A node without a configuration. The choice is written down, so that a process that starts again is found where
/// it was.
pub(crate) fn embedded(folder: &Path, choices: Choices) -> anyhow::Result<Prepared> {
    let folder = Folder::take(folder)?;
    let config = embedded::config(folder.path(), choices)?;
    write_down(folder, config)
}

/// A node as a file says.
pub(crate) fn from_file(file: &Path, choices: Choices) -> anyhow::Result<Prepared> {
    let mut config = Config::read(file)?;
    let folder = Folder::take(&config.control.folder)?;
    choices.apply(&mut config);
    write_down(folder, config)
}

fn write_down(folder: Folder, config: Config) -> anyhow::Result<Prepared> {
    let file = folder.path().join("running.toml");
    config.write(&file)?;
    Ok(Prepared { folder, file, config })
}

/// A node that runs.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it was made of.
    pub(crate) prepared: Prepared,
    /// What happens to its processes.
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Node {
    /// Starts both processes.
    pub(crate) fn start(prepared: Prepared, logs: Logs) -> anyhow::Result<Node> {
        let exe = std::env::current_exe().context("where this binary is")?;
        let (stop, stopped) = watch::channel(false);
        let (tell, events) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for role in [Role::Dataplane, Role::Control] {
            let log =
                (logs == Logs::Files).then(|| prepared.folder.path().join(format!("{}.log", role.label())));
            let plan = Plan { role, exe: exe.clone(), config: prepared.file.clone(), log };
            tasks.spawn(supervise(plan, tell.clone(), stopped.clone()));
        }
        Ok(Node { prepared, events, stop, tasks })
    }

    /// Waits until control answers and a data plane is linked to it.
    pub(crate) async fn ready(&mut self, limit: Duration) -> anyhow::Result<status::Status> {
        let socket = self.prepared.config.admin_socket();
        let began = Instant::now();
        let mut deaths = 0;
        loop {
            let answer = status::ask(&socket).await;
            if let Ok(status) = &answer
                && status.is_linked()
            {
                return answer;
            }
            while let Ok(event) = self.events.try_recv() {
                deaths += usize::from(matches!(event, Event::Died { .. }));
                println!("{event}");
            }
            if deaths >= 5 {
                bail!(
                    "the processes do not stay up; their last words are in {}",
                    self.prepared.folder.path().display()
                );
            }
            if began.elapsed() > limit {
                match answer {
                    Ok(_) => bail!("control is up, but no data plane is linked to it after {limit:?}"),
                    Err(e) => return Err(e.context(format!("control does not answer after {limit:?}"))),
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What an operator wants to hear first.
    pub(crate) fn welcome(&self, status: &status::Status) -> String {
        let config = &self.prepared.config;
        let mut lines = vec!["The node is up.".to_owned()];
        for listener in &config.control.sip.listeners {
            lines.push(format!("  SIP over {:<4} {}", listener.transport.label(), listener.address));
        }
        lines.push(format!("  metrics       http://{}/metrics (control)", config.control.metrics.address));
        if let Some(address) = config.dataplane_metrics() {
            lines.push(format!("                http://{address}/metrics (data plane)"));
        }
        lines.push(format!("  files         {}", self.prepared.folder.path().display()));
        lines.push(format!("  driver        {}: {}", status.driver(), status.driver_reason()));
        lines.push(format!("Ask it with: weir status --folder {}", self.prepared.folder.path().display()));
        lines.join("\n")
    }

    /// Ends both processes.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}
