//! Kamailio as a process of a test, ended by its own id.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A Kamailio that runs; it ends with the value.
pub struct Kamailio(Child);

impl Kamailio {
    /// Starts it in the foreground with a configuration. `command` names the program, and where it runs.
    pub fn start(mut command: Command, configuration: &Path) -> Kamailio {
        let process = command
            .args(["-DD", "-E", "-m", "64", "-f"])
            .arg(configuration)
            .args(["-Y", "/tmp"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kamailio is installed");
        Kamailio(process)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_none())
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
