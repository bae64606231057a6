//! Figures of this process from the system; unavailable ones are left out.

use std::fs;
use std::path::Path;

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};
use rustix::system::sysinfo;
use rustix::time::{ClockId, clock_gettime};

/// The process as the system sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Bytes in memory.
    pub resident: Option<u64>,
    /// Bytes available to the process: of the machine, or the limit of its control group.
    pub memory_max: u64,
    pub files_open: Option<u64>,
    pub files_max: Option<u64>,
    pub threads: Option<u64>,
    /// Seconds of all cores.
    pub cpu_seconds: f64,
}

impl ProcessFigures {
    /// Reads the current figures.
    pub fn read() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            resident: resident(),
            memory_max: memory_max(),
            files_open: files_open(),
            files_max: getrlimit(Resource::Nofile).current,
            threads: threads(),
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        }
    }
}

fn resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

fn threads() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"))?;
    line.trim().parse().ok()
}

/// Newer kernels report the number as the size of the folder; with others, count the entries.
fn files_open() -> Option<u64> {
    let folder = Path::new("/proc/self/fd");
    match fs::metadata(folder).ok()?.len() {
        // Reading the folder opens one file.
        0 => Some((fs::read_dir(folder).ok()?.count() as u64).saturating_sub(1)),
        number => Some(number),
    }
}

fn memory_max() -> u64 {
    let system = sysinfo();
    let machine = (system.totalram as u64).saturating_mul(system.mem_unit.into());
    group_max().map_or(machine, |group| group.min(machine))
}

/// The memory limit of the control group; none without a limit.
fn group_max() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let file = Path::new("/sys/fs/cgroup").join(own.trim_start_matches('/'));
    let text = fs::read_to_string(file.join("memory.max")).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_this_process_are_read() {
        let file = fs::File::open("/proc/self/status").unwrap();
        let process = ProcessFigures::read();
        assert!((1 << 20..process.memory_max).contains(&process.resident.unwrap()));
        assert!((4..process.files_max.unwrap_or(u64::MAX)).contains(&process.files_open.unwrap()));
        assert!(process.threads.unwrap() >= 1 && process.cpu_seconds > 0.0);
        drop(file);
    }
}
