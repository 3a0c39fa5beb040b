//! `weir demo`: a node, four users with five devices, everything that the first version can do, and a table of what
//! came of it. Nothing is simulated: real processes, real sockets, and each expectation decides the exit code.

mod cast;
mod checks;
mod group;
mod pairs;
mod report;
mod shards;
pub(crate) mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::choices::Choices;
use crate::node::{self, Logs, Node};
use crate::roles;
use cast::Cast;
use checks::Checks;

const READY: Duration = Duration::from_secs(30);

/// What `weir demo` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Leave the node up afterwards, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    choices: Choices,
    /// Where the node keeps its files; without it, a folder that goes away afterwards (with --keep, `weir-data`).
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Runs the demo.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    roles::log_to_stderr("warn");
    let temporary = tempfile::tempdir()?;
    let folder = match (&options.folder, options.keep) {
        (Some(folder), _) => folder.clone(),
        (None, true) => PathBuf::from("weir-data"),
        (None, false) => temporary.path().to_owned(),
    };
    let prepared = node::embedded(&folder, options.choices)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut checks = Checks::new();
        checks.step("starting a node: control and data plane, each a process");
        let mut node = Node::start(prepared, Logs::Files)?;
        let ready = node.ready(READY).await;
        let passed = match checks.worked("both processes are up and linked", ready) {
            Some(status) => {
                println!("{}", node.welcome(&status));
                play(&mut checks, &node).await?
            }
            None => false,
        };
        if !passed {
            keep_logs(&node);
        }
        if options.keep {
            println!("\nThe node stays up. Ctrl-C ends it.");
            tokio::signal::ctrl_c().await?;
        }
        node.stop().await;
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

async fn play(checks: &mut Checks, node: &Node) -> anyhow::Result<bool> {
    let Some(cast) = Cast::register(checks, &node.prepared.config).await? else { return Ok(verdict(checks)) };
    pairs::pager(checks, &cast).await;
    pairs::chat(checks, &cast).await;
    let call = pairs::call(checks, &cast).await;
    let group = group::ad_hoc(checks, &cast).await;
    group::pre_defined(checks, &cast).await;
    shards::every(checks, &cast, &node.prepared.config).await;
    checks.step("looking for anything that should not have happened");
    for device in cast.all() {
        let faults: Vec<String> = report::faults(device);
        checks.expect(
            format!("{}: nothing odd arrived", device.name()),
            faults.is_empty(),
            faults.join("; "),
        );
    }
    println!("\n{}", report::table(&cast, &[call, group]));
    cast.unregister(checks).await;
    Ok(verdict(checks))
}

fn verdict(checks: &Checks) -> bool {
    let (held, all) = checks.score();
    println!("\n{held} of {all} expectations held.");
    for failure in checks.failures() {
        println!("  did not hold: {failure}");
    }
    held == all
}

/// A failed demo keeps what its processes said.
fn keep_logs(node: &Node) {
    for role in ["control", "dataplane"] {
        let log = node.prepared.folder.path().join(format!("{role}.log"));
        let Ok(text) = std::fs::read_to_string(&log) else { continue };
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
        if !last.is_empty() {
            eprintln!("\nlast words of {role}:\n{}", last.join("\n"));
        }
    }
}
