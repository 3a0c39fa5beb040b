//! A part of a core for a server and no more: a quota of its own control group, of either version.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

/// Each so often the group may run for its part: short, so that a pause is no delay that anybody sees.
const PERIOD: Duration = Duration::from_millis(20);

/// The group; it goes with the value, when what was in it has ended.
pub(super) struct Quota(PathBuf);

impl Quota {
    /// Puts a process, with all its threads, into a group that has so much of a core.
    pub(super) fn of(process: u32, share: f64) -> anyhow::Result<Quota> {
        let name = format!("weir-bench-{process}");
        let period = PERIOD.as_micros() as u64;
        let part = ((period as f64 * share) as u64).max(1000);
        let first = Path::new("/sys/fs/cgroup/cpu");
        let (group, limits) = if first.join("cpu.cfs_quota_us").exists() || first.join("tasks").exists() {
            let limits =
                vec![("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", part.to_string())];
            (first.join(name), limits)
        } else {
            (Path::new("/sys/fs/cgroup").join(name), vec![("cpu.max", format!("{part} {period}"))])
        };
        std::fs::create_dir(&group)
            .with_context(|| format!("no control group can be made ({})", group.display()))?;
        let quota = Quota(group);
        for (file, value) in limits {
            std::fs::write(quota.0.join(file), value).with_context(|| format!("no quota ({file})"))?;
        }
        std::fs::write(quota.0.join("cgroup.procs"), process.to_string())?;
        Ok(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // A process leaves it a moment after it has ended.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
