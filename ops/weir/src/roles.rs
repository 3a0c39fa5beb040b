//! One process of a node: `weir control` and `weir dataplane`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;
use crate::supervise;

/// What both roles take.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The configuration; without one, the defaults.
    #[arg(long)]
    config: Option<PathBuf>,
    /// End when stdin closes: set by `weir up`.
    #[arg(long, hide = true)]
    supervised: bool,
}

/// Runs control until a signal or the supervisor ends it.
pub(crate) fn control(options: &Options) -> anyhow::Result<ExitCode> {
    let config = begin(options)?;
    let shutdown = controld::Shutdown::on_signals();
    if options.supervised {
        let shutdown = shutdown.clone();
        supervise::when_supervisor_ends(move || shutdown.trigger())?;
    }
    controld::run(config.control, shutdown)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the data plane until a signal or the supervisor ends it.
pub(crate) fn dataplane(options: &Options) -> anyhow::Result<ExitCode> {
    let config = begin(options)?;
    let shutdown = dataplaned::Shutdown::on_signals();
    if options.supervised {
        let shutdown = shutdown.clone();
        supervise::when_supervisor_ends(move || shutdown.trigger())?;
    }
    dataplaned::run(config.dataplane, shutdown)?;
    Ok(ExitCode::SUCCESS)
}

fn begin(options: &Options) -> anyhow::Result<Config> {
    log_to_stderr("info");
    match &options.config {
        Some(path) => Config::read(path),
        None => Ok(Config::default()),
    }
}

/// Logs go to stderr; `RUST_LOG` chooses what is said, `default` where it is not set.
pub(crate) fn log_to_stderr(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
}
