//! What passes on a loopback, written to a file while it lives.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::namespace::Namespace;

/// What was sent last is in the kernel's buffer for a moment.
const SETTLES: Duration = Duration::from_secs(2);

/// Ends with the value, also where the test fails.
pub(crate) struct Sniffer(Child);

impl Sniffer {
    /// All of a namespace.
    pub(crate) fn start(host: &Namespace, file: &Path) -> Self {
        Sniffer::run(host.command("dumpcap"), &["-B", "64"], file)
    }

    /// What fits a capture filter, where the test itself is.
    pub(crate) fn start_here(filter: &str, file: &Path) -> Self {
        Sniffer::run(Command::new("dumpcap"), &["-f", filter], file)
    }

    fn run(mut dumpcap: Command, options: &[&str], file: &Path) -> Self {
        dumpcap.args(["-i", "lo", "-q"]).args(options).arg("-w").arg(file);
        let sniffer =
            dumpcap.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("tshark is installed");
        let sniffer = Sniffer(sniffer);
        let began = Instant::now();
        while std::fs::metadata(file).map_or(0, |m| m.len()) == 0 {
            assert!(began.elapsed() < Duration::from_secs(30), "no capture");
            sleep(Duration::from_millis(50));
        }
        sniffer
    }

    /// All that passed is in the file.
    pub(crate) fn stop(mut self) {
        sleep(SETTLES);
        let interrupted = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        assert!(interrupted.is_ok_and(|s| s.success()));
        self.0.wait().expect("a child");
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
