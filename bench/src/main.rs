#![forbid(unsafe_code)]
//! The benchmarks: each prints a table and, with `--json FILE`, writes the same rows for machines.

mod cores;
mod msrp;
mod report;
mod rtp;
mod sip;
mod spool;
mod srtp;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", about = "Measures Weir beside bare loops, in one interleaved run.")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// RTP forwarding: CPU per sent packet beside bare loops.
    Rtp {
        /// Writes the rows as JSON too.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Milliseconds of one measurement.
        #[arg(long, default_value_t = 300)]
        slice_ms: u64,
        /// Measurements of each kind, interleaved; the table shows medians.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// Two-way calls of the relay rows.
        #[arg(long, default_value_t = 1000)]
        calls: usize,
        /// Beside rtpengine too, when it is installed.
        #[arg(long)]
        peers: bool,
        /// Only rows whose name begins so.
        #[arg(long)]
        only: Option<String>,
    },
    /// MSRP: rooms, relays, files, beside bare loops; or any MSRP server.
    Msrp(Box<msrp::Arguments>),
    /// SIP: messages, registrations, calls, beside other parsers and Kamailio.
    Sip(sip::Arguments),
    /// How many users one core of this machine serves: a mix of what users do, raised until it breaks.
    Capacity {
        /// Writes the rows as JSON too.
        #[arg(long)]
        json: Option<PathBuf>,
        /// How often it is looked for; the middle one counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Is a data plane until it is ended: what `rtp` measures from outside.
    #[command(hide = true)]
    Plane {
        /// Its configuration, as JSON.
        config: PathBuf,
    },
    /// Is control and a data plane until it is ended: what `sip` measures from outside.
    #[command(hide = true)]
    Control {
        /// Control's configuration.
        config: PathBuf,
        /// The data plane's core.
        core: usize,
    },
    /// SRTP without sockets: what keys add to a packet, beside a bare loop that only encrypts.
    Srtp {
        /// Writes the rows as JSON too.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Measurements of each kind, interleaved; the table shows medians.
        #[arg(long, default_value_t = 15)]
        rounds: usize,
    },
    /// The spool's writes by tokio-uring beside std::fs.
    Spool {
        /// Writes the rows as JSON too.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Where the files are made; without one, a folder among the temporary files.
        #[arg(long)]
        folder: Option<PathBuf>,
        /// Measurements of each kind, interleaved; the table shows medians.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
    },
}

fn main() -> anyhow::Result<()> {
    let (report, json) = match Arguments::parse().what {
        What::Rtp { json, slice_ms, rounds, calls, peers, only } => {
            (rtp::run(&rtp::Plan { slice_ms, rounds, calls, peers, only })?, json)
        }
        What::Msrp(arguments) => (msrp::run(&arguments)?, arguments.json),
        What::Sip(arguments) => (sip::run(&arguments)?, arguments.json),
        What::Capacity { json, rounds } => (sip::capacity(rounds)?, json),
        What::Plane { config } => {
            let config = serde_json::from_slice(&std::fs::read(config)?)?;
            return dataplaned::run(config, dataplaned::Shutdown::default());
        }
        What::Control { config, core } => return sip::servers::be_weir(&config, core),
        What::Srtp { json, rounds } => (srtp::run(rounds), json),
        What::Spool { json, folder, rounds } => {
            let own = tempfile::tempdir()?;
            (spool::run(folder.as_deref().unwrap_or(own.path()), rounds)?, json)
        }
    };
    report.print();
    if let Some(path) = json {
        report.write(&path)?;
    }
    Ok(())
}
