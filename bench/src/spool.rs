//! The spool's writes: by tokio-uring beside std::fs, on the same thread, the same octets, interleaved.
//!
//! CPU is that of all threads of this process, because the kernel may give a ring's buffered writes to workers.

use std::path::Path;
use std::time::Instant;

use dataplaned::Files;

use crate::report::{Machine, Report};

/// What the spool gathers before it writes.
const BLOCK_BYTES: usize = 64 << 10;
/// One file of one measurement.
const FILE_BLOCKS: usize = 512;

struct Sample {
    wall_us: f64,
    cpu_us: f64,
}

/// Runs both, interleaved; files go to `folder`.
pub(crate) fn run(folder: &Path, rounds: usize) -> anyhow::Result<Report> {
    let mut report = Report::new(Machine::here("spool"));
    let kinds = [Files::std(), Files::uring()?];
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for (files, samples) in kinds.iter().zip(&mut samples) {
            let sample = write(files, &folder.join(files.label()))?;
            // The first round warms the page cache up.
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let medians = samples.map(|of| (median(&of, |s| s.wall_us), median(&of, |s| s.cpu_us)));
    let [(std_wall, _), (uring_wall, _)] = medians;
    let note = "tokio-uring over std::fs, time of one append of 64 KiB; the spool waits for each";
    report.row("spool_write", uring_wall / std_wall, "ratio", note);
    for (files, (wall, cpu)) in kinds.iter().zip(medians) {
        report.row(
            format!("spool_write.{}.us", files.label()),
            wall,
            "us",
            "wall time of one append of 64 KiB",
        );
        let rate = BLOCK_BYTES as f64 / wall;
        report.row(format!("spool_write.{}.rate", files.label()), rate, "MB/s", "into the page cache");
        report.row(format!("spool_write.{}.cpu_us", files.label()), cpu, "us", "CPU of all threads");
    }
    Ok(report)
}

fn write(files: &Files, path: &Path) -> anyhow::Result<Sample> {
    let mut file = files.create(path)?;
    let mut buffer = Vec::with_capacity(BLOCK_BYTES);
    let (start, cpu) = (Instant::now(), cpu_ns());
    for block in 0..FILE_BLOCKS {
        buffer.resize(BLOCK_BYTES, block as u8);
        let (done, empty) = files.append(&mut file, buffer);
        done?;
        buffer = empty;
    }
    let (wall, cpu) = (start.elapsed(), cpu_ns().saturating_sub(cpu));
    anyhow::ensure!(file.length() == (FILE_BLOCKS * BLOCK_BYTES) as u64, "the file is short");
    files.close(file)?;
    std::fs::remove_file(path)?;
    let blocks = FILE_BLOCKS as f64;
    Ok(Sample { wall_us: wall.as_secs_f64() * 1e6 / blocks, cpu_us: cpu as f64 / 1e3 / blocks })
}

/// The scheduler's nanoseconds of all threads of this process.
fn cpu_ns() -> u64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let of = |task: std::fs::DirEntry| -> Option<u64> {
        std::fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    tasks.flatten().filter_map(of).sum()
}

fn median(of: &[Sample], what: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = of.iter().map(what).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
