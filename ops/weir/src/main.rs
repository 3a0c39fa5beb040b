#![forbid(unsafe_code)]
//! The command `weir`: one binary for every role, and for trying things by hand.

mod choices;
mod config;
mod demo;
mod doctor;
mod embedded;
mod folder;
mod hand;
mod node;
mod ports;
mod roles;
mod status;
mod supervise;
mod trace;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser, Debug)]
#[command(version, about = "A CPM (Converged IP Messaging) core: control and data plane in one binary.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run both processes supervised on this host.
    Up(up::Options),
    /// Run the control process only.
    Control(roles::Options),
    /// Run the data plane process only.
    Dataplane(roles::Options),
    /// Say how a running node is.
    Status(status::Options),
    /// Follow one call or message through a running node, live, or draw it as a ladder.
    Trace(trace::Options),
    /// Look at this host, and at the node if one runs here: what is wrong, and what to do about it.
    Doctor(doctor::Options),
    /// Start a node, drive it with real clients, print what came of it; exit 0 only if all went as it should.
    Demo(demo::Options),
    /// Be a phone: try things by hand.
    Ue(hand::Options),
    /// Print the configuration with every key and its default.
    Config,
}

/// What moves packets in the data plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Driver {
    /// io_uring.
    Uring,
    /// epoll through mio.
    Mio,
    /// Whichever measures better at start; mio where io_uring is forbidden.
    Auto,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Up(options) => up::run(&options),
        Command::Control(options) => roles::control(&options),
        Command::Dataplane(options) => roles::dataplane(&options),
        Command::Status(options) => status::run(&options),
        Command::Trace(options) => trace::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Ue(options) => hand::run(options),
        Command::Config => config::print(),
    };
    match outcome {
        Ok(code) => code,
        Err(e) => {
            eprintln!("weir: {e:#}");
            ExitCode::FAILURE
        }
    }
}
