//! Version 2: one hierarchy, used where the controllers are delegated to our own group.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use codegen_types::Limits;

use super::{Bound, Group, Means, make_own, own_directory};
use crate::layers::rlimits::OWN_PROCESSES;

const NAME: &str = "cgroup v2";
const PERIOD_US: u64 = 100_000;
/// Where our own processes go, since a group that passes controllers on must hold none.
const LEAF: &str = "codegen-mcp";

/// Our own group below the one that is delegated to us.
#[derive(Debug)]
pub(super) struct Hierarchy {
    directory: PathBuf,
    means: Means,
}

impl Hierarchy {
    /// `None` unless at least memory and processes can be bound.
    pub(super) fn find(name: &str) -> Option<Self> {
        let own = own_directory(None)?;
        // An earlier launcher moved us to the leaf; the group that is delegated is the one above.
        let parent = if own.ends_with(LEAF) { own.parent()? } else { &own };
        Self::below(parent, name)
    }

    fn below(parent: &Path, name: &str) -> Option<Self> {
        let offered = controllers(&parent.join("cgroup.controllers"))?;
        let has = |controller: &str| offered.iter().any(|name| name == controller);
        if !has("memory") || !has("pids") {
            return None;
        }
        let wanted = if has("cpu") { "+memory +pids +cpu" } else { "+memory +pids" };
        let directory = make_own(parent, name).ok()?;
        if pass_on(parent, wanted).is_err() || fs::write(directory.join("cgroup.subtree_control"), wanted).is_err() {
            // Nothing is lost: without a group the sandbox is bound by rlimits and sampling.
            let _ = fs::remove_dir(&directory);
            return None;
        }
        let cpu = if has("cpu") { Bound::Group(NAME) } else { Bound::No };
        let means = Means { memory: Bound::Group(NAME), processes: Bound::Group(NAME), cpu };
        Some(Self { directory, means })
    }

    pub(super) fn means(&self) -> Means {
        self.means
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn create(&self, name: &str, limits: &Limits) -> io::Result<Group> {
        let directory = self.directory.join(name);
        fs::create_dir(&directory)?;
        let count_in = |file: &str| Some(directory.join(file));
        let (memory_file, processes_file) = (count_in("memory.events"), count_in("pids.events"));
        let group = Group { directories: vec![directory.clone()], memory_file, processes_file };
        let filled = fill(&directory, limits, self.means.cpu);
        if filled.is_err() {
            group.remove();
        }
        filled.map(|()| group)
    }
}

fn fill(directory: &Path, limits: &Limits, cpu: Bound) -> io::Result<()> {
    fs::write(directory.join("memory.max"), limits.memory_bytes.to_string())?;
    // Only there when the kernel can swap.
    let _ = fs::write(directory.join("memory.swap.max"), "0");
    fs::write(directory.join("pids.max"), limits.processes.saturating_add(OWN_PROCESSES).to_string())?;
    if cpu != Bound::No {
        let quota_us = limits.cpu_millicores.saturating_mul(PERIOD_US / 1000).max(1_000);
        fs::write(directory.join("cpu.max"), format!("{quota_us} {PERIOD_US}"))?;
    }
    Ok(())
}

/// Passes controllers on to the groups below. A group that holds processes cannot, so our own processes, and never
/// those of others, are moved to a leaf first.
fn pass_on(parent: &Path, wanted: &str) -> io::Result<()> {
    let control = parent.join("cgroup.subtree_control");
    let passed = controllers(&control).unwrap_or_default();
    if wanted.split(' ').all(|name| passed.iter().any(|known| Some(known.as_str()) == name.strip_prefix('+'))) {
        return Ok(());
    }
    if fs::write(&control, wanted).is_ok() {
        return Ok(());
    }
    move_own_to_leaf(parent)?;
    fs::write(&control, wanted)
}

fn move_own_to_leaf(parent: &Path) -> io::Result<()> {
    let own_program = fs::read_link("/proc/self/exe")?;
    let processes = fs::read_to_string(parent.join("cgroup.procs"))?;
    let is_own = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == own_program);
    if !processes.lines().all(is_own) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let leaf = parent.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    processes.lines().try_for_each(|pid| fs::write(leaf.join("cgroup.procs"), pid))
}

fn controllers(file: &Path) -> Option<Vec<String>> {
    Some(fs::read_to_string(file).ok()?.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_delegated_controllers_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        assert!(Hierarchy::below(parent.path(), "own").is_none());
        fs::write(parent.path().join("cgroup.controllers"), "cpuset cpu\n").unwrap();
        assert!(Hierarchy::below(parent.path(), "own").is_none());
        assert!(!parent.path().join("own").exists());
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(parent.path().join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        let hierarchy = Hierarchy::below(parent.path(), "own").unwrap();
        let group = hierarchy.create("1", &Limits::default()).unwrap();
        let read = |file: &str| fs::read_to_string(group.directories[0].join(file)).unwrap();
        assert_eq!(read("memory.max"), (1_u64 << 30).to_string());
        assert_eq!(read("cpu.max"), "200000 100000");
        assert_eq!(read("pids.max"), "144");
    }
}
