//! A host of our own: a network namespace with one veth pair, for peers that refuse loopback. Needs root and
//! Debian's iproute2; only the interop suite uses it.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A namespace with 10.9.9.1 on it; it goes away with the value.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The address inside.
    pub const ADDRESS: &'static str = "10.9.9.1";

    /// Makes a namespace with a veth pair, both ends up, and a default route.
    pub fn new() -> Namespace {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-{}-{serial}", std::process::id());
        let made = Namespace { name };
        ip(&["netns", "add", &made.name]);
        for arguments in [
            &["link", "add", "veth0", "type", "veth", "peer", "name", "veth1"][..],
            &["addr", "add", "10.9.9.1/24", "dev", "veth0"],
            &["link", "set", "lo", "up"],
            &["link", "set", "veth0", "up"],
            &["link", "set", "veth1", "up"],
            &["route", "add", "default", "via", "10.9.9.1"],
        ] {
            ip(&[&["-n", &made.name][..], arguments].concat());
        }
        made
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Namespace::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {}", arguments.join(" "));
}
