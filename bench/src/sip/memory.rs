//! What a registered contact and an idle TLS connection take of the node's memory, by difference: `binding_bytes`,
//! `tls_conn_bytes`.
//!
//! Resident memory of all of the node is read with few of them and with many. The contacts are registered by TCP: over UDP the
//! transactions of the last half minute would be measured too. The kernel's sockets are in neither row.

use std::time::Duration;

use anyhow::Context as _;
use sip::digest::Client;
use sip::{Request, Response};

use super::Arguments;
use super::load::{Load, Script, Step, Unit};
use super::open::Open;
use super::race::UNDER_WAY;
use super::scripts::{Ping, Register};
use super::servers::{self, Server, Setup};
use super::wires::{Own, Wire, Wires};
use crate::msrp::progress::Progress;
use crate::msrp::tls::Both;
use crate::report::{Reach, Report};
use crate::rtp::clock;

const CONTACTS: u64 = 100_000;
const CONTACTS_FEW: u64 = 1000;
/// Contacts of each user.
const EACH: u64 = 10;
/// Connections of the contacts.
const CARRIERS: usize = 100;
/// Each contact is refreshed so often.
const REFRESH_S: f64 = 300.0;
/// How long the refreshes run while memory is read.
const REFRESHED: Duration = Duration::from_secs(4);
const CONNECTIONS: usize = 10_000;
const CONNECTIONS_FEW: usize = 100;
const REST: Duration = Duration::from_secs(1);

/// Adds the rows.
pub(super) fn run(plan: &Arguments, report: &mut Report) {
    plan.each("binding_bytes", report, bindings);
    plan.each("tls_conn_bytes", report, connections);
}

/// Registers many contacts of many users.
struct Contacts {
    register: Register,
}

impl Script for Contacts {
    fn user(&self, number: u64) -> u64 {
        number % CONTACTS
    }

    fn begin(&mut self, unit: &Unit, own: &Own) -> Request {
        let contact = unit.number % CONTACTS;
        self.register.of(unit, own, contact / EACH, &format!("c{contact}"))
    }

    fn heard(&mut self, unit: &mut Unit, response: &Response, own: &Own) -> Step {
        let user = unit.number % CONTACTS / EACH;
        let client = Client::new(&format!("u{user}"), super::scripts::PASSWORD);
        self.register.goes_on(unit, response, own, client)
    }
}

fn bindings(report: &mut Report) -> anyhow::Result<()> {
    let (ours, measured) = clock::cores();
    clock::pin(ours);
    let setup = Setup { wire: Wire::Tcp, users: CONTACTS / EACH, ..Setup::PLAIN };
    let server = servers::weir(measured, setup)?;
    let mut load = Load::new(Wires::streams(server.at, CARRIERS, None)?);
    let mut progress = Progress::new("binding_bytes", 0);
    let mut script = Contacts { register: Register::new() };
    let mut resident = |units: std::ops::Range<u64>, load: &mut Load| -> anyhow::Result<u64> {
        let failed = load.finish(&mut script, UNDER_WAY, units.clone())?;
        anyhow::ensure!(failed == 0, "{failed} contacts could not be registered");
        progress.say(&format!("{} contacts", units.end));
        std::thread::sleep(REST);
        server.resident()
    };
    let few = resident(0..CONTACTS_FEW, &mut load)?;
    resident(CONTACTS_FEW..CONTACTS, &mut load)?;
    let mut open = Open::new(load.into_wires(), CONTACTS);
    let refreshed = open.run(&mut script, CONTACTS as f64 / REFRESH_S, REFRESHED, &server.who)?;
    let many = server.resident()?;
    progress.end();
    let failed = refreshed.fates.len() - refreshed.done();
    let each = many.saturating_sub(few) as f64 / (CONTACTS - CONTACTS_FEW) as f64;
    let note = format!(
        "resident {} and {} MiB with {CONTACTS_FEW} and {CONTACTS} contacts, {EACH} of each user, whose row in the store is not \
         in it; refreshes every {REFRESH_S} s take {:.1} % of a core, {failed} of {} failed",
        few >> 20,
        many >> 20,
        100.0 * refreshed.busy_ns as f64 / REFRESHED.as_nanos() as f64,
        refreshed.fates.len()
    );
    report.held("binding_bytes", each, "octets", Reach::AtMost(1024.0), note);
    Ok(())
}

fn connections(report: &mut Report) -> anyhow::Result<()> {
    let (ours, measured) = clock::cores();
    clock::pin(ours);
    let server = servers::weir(measured, Setup { wire: Wire::Tls, ..Setup::PLAIN })?;
    let tls = Both::make()?.client;
    let mut progress = Progress::new("tls_conn_bytes", 0);
    let mut loads = Vec::new();
    let (mut up, mut few) = (0, 0);
    while up < CONNECTIONS {
        let more = if up == 0 { CONNECTIONS_FEW } else { 900.min(CONNECTIONS - up) };
        let mut load = Load::new(Wires::streams(server.at, more, Some(&tls))?);
        // A connection on which nothing is said does not stay.
        let failed = load.finish(&mut Ping, UNDER_WAY, 0..more as u64)?;
        anyhow::ensure!(failed == 0, "{failed} connections gave no answer");
        loads.push(load);
        up += more;
        progress.say(&format!("{up} connections"));
        if up == CONNECTIONS_FEW {
            std::thread::sleep(REST);
            few = server.resident()?;
        }
    }
    std::thread::sleep(REST);
    let many = server.resident()?;
    progress.end();
    let each = many.saturating_sub(few) as f64 / (CONNECTIONS - CONNECTIONS_FEW) as f64;
    let note = format!(
        "resident {} and {} MiB with {CONNECTIONS_FEW} and {CONNECTIONS}, an OPTIONS on each before it rests",
        few >> 20,
        many >> 20
    );
    report.held("tls_conn_bytes", each, "octets", Reach::AtMost(32_768.0), note);
    Ok(())
}

impl Server {
    /// Octets of resident memory of its process.
    fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }
}
