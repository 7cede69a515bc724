//! What the worker's host has, and how much of it is in use.

use std::path::{Path, PathBuf};

use codegen_types::{HostUse, Resources};
use rustix::fs::{StatVfs, statvfs};

/// Where control groups say how much memory this process may use: the second version, then the first.
const MEMORY_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// The host of this worker.
#[derive(Debug)]
pub(crate) struct Host {
    /// The directory of workspaces, whose file system counts.
    base: PathBuf,
}

impl Host {
    pub fn new(base: PathBuf) -> Self {
        Self { base }
    }

    /// What it has. What the kernel does not say is zero.
    pub fn resources(&self) -> Resources {
        let cpus = std::thread::available_parallelism().map_or(0, |count| u32::try_from(count.get()).unwrap_or(0));
        let limits = MEMORY_LIMITS.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
        let memory_bytes = limits.fold(meminfo("MemTotal"), u64::min);
        let disk_bytes = self.disk().map_or(0, |disk| disk.f_blocks * disk.f_frsize);
        Resources { cpus, memory_bytes, disk_bytes }
    }

    /// What of it is in use.
    pub fn used(&self) -> HostUse {
        HostUse {
            load_permille: load_permille(&std::fs::read_to_string("/proc/loadavg").unwrap_or_default()),
            memory_available_bytes: meminfo("MemAvailable"),
            disk_free_bytes: self.disk().map_or(0, |disk| disk.f_bavail * disk.f_frsize),
        }
    }

    fn disk(&self) -> Option<StatVfs> {
        statvfs::<&Path>(&self.base).ok()
    }
}

fn meminfo(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        if found == name { value.trim().strip_suffix(" kB")?.parse::<u64>().ok() } else { None }
    });
    kib.unwrap_or(0) * 1024
}

/// The first number of `0.52 0.58 0.59 1/814 7235`, in thousandths.
fn load_permille(text: &str) -> u32 {
    let load: f64 = text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    // Bounded before it is cut to a whole number.
    (load * 1000.0).clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_something_and_not_all_of_it_is_in_use() {
        let host = Host::new(std::env::temp_dir());
        let (has, used) = (host.resources(), host.used());
        assert!(has.cpus > 0 && has.memory_bytes > 0 && has.disk_bytes > 0, "{has:?}");
        assert!(used.memory_available_bytes > 0 && used.disk_free_bytes <= has.disk_bytes, "{used:?}");
        assert_eq!(load_permille("0.52 0.58 0.59 1/814 7235\n"), 520);
        assert_eq!(load_permille(""), 0);
    }
}
