//! Keeps a child process of a role alive: started again after it ends, with back-off.
//!
//! ```text
//!           spawn ok                      ended
//! Starting ──────────► Running ──────────────────────► Waiting(back-off)
//!    ▲                    │ stop: close its stdin,          │
//!    │                    ▼ wait, then kill                 │
//!    │                  Ended ◄─────── stop ────────────────┤
//!    └──────────────────────────────────────────────────────┘ time is up
//! ```
//!
//! A child holds the reading end of a pipe as its stdin and ends when that closes: so it never outlives the
//! process that supervises it, whatever became of that one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

/// How long a child may take to end by itself.
const GRACE: Duration = Duration::from_secs(3);
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// A child that lived this long starts again without a long wait.
const STEADY: Duration = Duration::from_secs(30);

/// The roles that a process can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// `weir control`.
    Control,
    /// `weir dataplane`.
    Dataplane,
}

impl Role {
    /// The subcommand and the name for people.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Role::Control => "control",
            Role::Dataplane => "dataplane",
        }
    }
}

/// What happened to a child.
#[derive(Debug)]
pub(crate) enum Event {
    /// It runs.
    Started {
        /// Which.
        role: Role,
        /// Its process id.
        pid: u32,
        /// Starts before this one.
        restarts: u64,
    },
    /// It ended without being asked to.
    Died {
        /// Which.
        role: Role,
        /// How, in words.
        how: String,
        /// When it starts again.
        again_in: Duration,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Started { role, pid, restarts } => {
                write!(f, "{} runs as process {pid} (start {})", role.label(), restarts + 1)
            }
            Event::Died { role, how, again_in } => {
                write!(f, "{} ended ({how}); it starts again in {again_in:?}", role.label())
            }
        }
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Which role.
    pub(crate) role: Role,
    /// The binary.
    pub(crate) exe: PathBuf,
    /// Its configuration.
    pub(crate) config: PathBuf,
    /// Where its log goes; `None` = our own stderr.
    pub(crate) log: Option<PathBuf>,
}

/// Runs the role until `stop` turns true; then ends it.
pub(crate) async fn supervise(
    plan: Plan,
    events: mpsc::UnboundedSender<Event>,
    mut stop: watch::Receiver<bool>,
) {
    let mut back_off = BACK_OFF_FIRST;
    let mut restarts = 0;
    while !*stop.borrow() {
        let began = Instant::now();
        let how = match spawn(&plan) {
            Ok(mut child) => {
                // Held open here: waiting for a child closes what it still has.
                let pipe = child.stdin.take();
                let _ =
                    events.send(Event::Started { role: plan.role, pid: child.id().unwrap_or(0), restarts });
                tokio::select! {
                    ended = child.wait() => describe(ended),
                    () = asked(&mut stop) => return end(child, pipe).await,
                }
            }
            Err(e) => format!("could not start: {e}"),
        };
        if began.elapsed() > STEADY {
            back_off = BACK_OFF_FIRST;
        }
        let _ = events.send(Event::Died { role: plan.role, how, again_in: back_off });
        tokio::select! {
            () = tokio::time::sleep(back_off) => {}
            () = asked(&mut stop) => return,
        }
        back_off = (back_off * 2).min(BACK_OFF_MAX);
        restarts += 1;
    }
}

/// Waits until the supervisor is asked to stop, or is gone.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn spawn(plan: &Plan) -> std::io::Result<Child> {
    let mut command = Command::new(&plan.exe);
    command
        .arg(plan.role.label())
        .arg("--config")
        .arg(&plan.config)
        .arg("--supervised")
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    if let Some(log) = &plan.log {
        command.stdout(append(log)?).stderr(append(log)?);
    }
    command.spawn()
}

fn append(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)
}

fn describe(ended: std::io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => status.to_string(),
        Err(e) => format!("lost: {e}"),
    }
}

/// Asks the child to end by closing its stdin; kills it after the grace time.
async fn end(mut child: Child, pipe: Option<ChildStdin>) {
    drop(pipe);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// In a supervised child: calls `end` when the supervisor is gone or asks for it; a process that is still there
/// after the grace time is ended hard.
pub(crate) fn when_supervisor_ends(end: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("supervisor-watch".to_owned()).spawn(|| {
        let mut byte = [0];
        while matches!(std::io::Read::read(&mut std::io::stdin(), &mut byte), Ok(n) if n > 0) {}
        end();
        std::thread::sleep(GRACE);
        std::process::exit(1);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(dir: &Path, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("child");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn a_dead_child_is_started_again_with_growing_waits_and_ends_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let exe = script(dir.path(), "echo $1 >> \"$3\"; [ $(wc -l < \"$3\") -ge 3 ] && exec cat; exit 7");
        let config = dir.path().join("config");
        let (events, mut heard) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let plan = Plan { role: Role::Control, exe, config: config.clone(), log: None };
        let task = tokio::spawn(supervise(plan, events, stopped));
        let mut waits = Vec::new();
        loop {
            match heard.recv().await.unwrap() {
                Event::Started { restarts: 2, pid, .. } => {
                    assert_ne!(pid, 0);
                    break;
                }
                Event::Started { .. } => {}
                Event::Died { how, again_in, .. } => {
                    assert!(how.contains('7'), "{how}");
                    waits.push(again_in);
                }
            }
        }
        assert_eq!(waits, [BACK_OFF_FIRST, BACK_OFF_FIRST * 2]);
        // `cat` ends when its stdin closes: well before the kill.
        let began = Instant::now();
        stop.send(true).unwrap();
        task.await.unwrap();
        assert!(began.elapsed() < GRACE);
        assert_eq!(std::fs::read_to_string(config).unwrap(), "control\ncontrol\ncontrol\n");
    }
}
