//! `weir doctor`: looks at the host (kernel, limits, ports, cores, clock), at what the configuration names (folder,
//! certificates), and at the node if one runs here (what was dropped and what that means, which driver and why). Each
//! finding says how bad it is and what to do about it. It changes nothing, and is ready to be run at any time.
//!
//! Exit code: 0 when all is well or only worth a note, 1 when something will hurt under load, 2 when something is broken.

mod files;
mod host;
mod node;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::Config;

/// What `weir doctor` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The folder of the node.
    #[arg(long, default_value = "weir-data")]
    folder: PathBuf,
    /// The configuration; without one, that of the node in the folder, or the defaults.
    #[arg(long)]
    config: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// It will hurt, or costs something.
    Warning,
    /// It does not work.
    Fault,
}

impl Severity {
    const fn label(self) -> &'static str {
        match self {
            Severity::Good => "good",
            Severity::Note => "note",
            Severity::Warning => "WARNING",
            Severity::Fault => "FAULT",
        }
    }

    const fn exit(self) -> u8 {
        match self {
            Severity::Good | Severity::Note => 0,
            Severity::Warning => 1,
            Severity::Fault => 2,
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    area: &'static str,
    severity: Severity,
    /// What was found.
    found: String,
    /// What to do; empty where nothing needs to be done.
    advice: String,
}

impl Finding {
    fn new(
        area: &'static str,
        severity: Severity,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Finding { area, severity, found: found.into(), advice: advice.into() }
    }

    fn good(area: &'static str, found: impl Into<String>) -> Self {
        Finding::new(area, Severity::Good, found, "")
    }

    fn note(area: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding::new(area, Severity::Note, found, advice)
    }

    fn warning(area: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding::new(area, Severity::Warning, found, advice)
    }

    fn fault(area: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Finding::new(area, Severity::Fault, found, advice)
    }
}

/// `weir doctor`.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let running = Config::read(&options.folder.join("running.toml"));
    let mut findings = Vec::new();
    let config = match (&options.config, running) {
        (Some(path), _) => Config::read(path),
        (None, Ok(config)) => Ok(config),
        (None, Err(_)) => Ok(Config::default()),
    };
    let config = config.unwrap_or_else(|error| {
        findings.push(Finding::fault(
            "configuration",
            format!("{error:#}"),
            "`weir config` prints every key; what follows is about the defaults",
        ));
        Config::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (runs, of_node) = runtime.block_on(node::look(&config, &options.folder));
    findings.extend(host::look(&config, runs));
    findings.extend(files::look(&config));
    findings.extend(of_node);
    let worst = findings.iter().map(|f| f.severity).max().unwrap_or(Severity::Good);
    if options.json {
        let all = serde_json::json!({ "severity": worst, "findings": findings });
        println!("{all:#}");
    } else {
        print!("{}", for_people(&findings));
    }
    Ok(ExitCode::from(worst.exit()))
}

fn for_people(findings: &[Finding]) -> String {
    let mut text = String::new();
    let width = findings.iter().map(|f| f.area.len()).max().unwrap_or(0);
    for finding in findings {
        let Finding { area, severity, found, advice } = finding;
        text.push_str(&format!("{:<7} {area:<width$}  {found}\n", severity.label()));
        if !advice.is_empty() {
            text.push_str(&format!("{:<7} {:<width$}  -> {advice}\n", "", ""));
        }
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (faults, warnings) = (count(Severity::Fault), count(Severity::Warning));
    text.push_str(&match (faults, warnings) {
        (0, 0) => "Nothing needs to be done.\n".to_owned(),
        _ => format!("Broken: {faults}; will hurt: {warnings}.\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides_the_exit_code_and_advice_is_shown() {
        let findings = [
            Finding::good("kernel", "6.18"),
            Finding::warning("buffers", "cut to 212992", "sysctl net.core.rmem_max=..."),
            Finding::note("clock", "unknown", ""),
        ];
        let worst = findings.iter().map(|f| f.severity).max().unwrap();
        assert_eq!((worst, worst.exit()), (Severity::Warning, 1));
        assert_eq!(Severity::Fault.exit(), 2);
        let text = for_people(&findings);
        assert!(text.contains("WARNING buffers  cut to 212992\n") && text.contains("-> sysctl"), "{text}");
        assert!(text.ends_with("Broken: 0; will hurt: 1.\n"), "{text}");
        assert!(for_people(&findings[..1]).ends_with("Nothing needs to be done.\n"));
        let json = serde_json::to_value(&findings[1]).unwrap();
        assert_eq!((json["severity"].as_str(), json["area"].as_str()), (Some("warning"), Some("buffers")));
    }

    #[test]
    fn every_finding_that_is_no_good_news_says_what_to_do() {
        let config = Config::default();
        for finding in host::look(&config, false).into_iter().chain(files::look(&config)) {
            assert!(!finding.found.is_empty(), "{finding:?}");
            assert!(finding.severity < Severity::Warning || !finding.advice.is_empty(), "{finding:?}");
        }
    }
}
