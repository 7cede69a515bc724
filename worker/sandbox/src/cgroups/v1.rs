//! Version 1: one hierarchy for each controller, each of which may or may not be writable.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use codegen_types::Limits;

use super::{Bound, Group, Means, make_own, own_directory};
use crate::layers::rlimits::OWN_PROCESSES;

const NAME: &str = "cgroup v1";
const PERIOD_US: u64 = 100_000;

/// Our own group in every hierarchy that lets us make one.
#[derive(Debug)]
pub(super) struct Hierarchies {
    memory: Option<PathBuf>,
    processes: Option<PathBuf>,
    cpu: Option<PathBuf>,
}

impl Hierarchies {
    /// `None` when not even one is writable.
    pub(super) fn find(name: &str) -> Option<Self> {
        let own = |controller, file: &str| {
            let directory = make_own(&own_directory(Some(controller))?, name).ok()?;
            directory.join(file).exists().then_some(directory)
        };
        let found = Self {
            memory: own("memory", "memory.limit_in_bytes"),
            processes: own("pids", "pids.max"),
            cpu: own("cpu", "cpu.cfs_quota_us"),
        };
        (!found.directories().is_empty()).then_some(found)
    }

    pub(super) fn means(&self) -> Means {
        let bound = |directory: &Option<PathBuf>| if directory.is_some() { Bound::Group(NAME) } else { Bound::No };
        Means { memory: bound(&self.memory), processes: bound(&self.processes), cpu: bound(&self.cpu) }
    }

    pub(super) fn directories(&self) -> Vec<&Path> {
        [&self.memory, &self.processes, &self.cpu].into_iter().flatten().map(PathBuf::as_path).collect()
    }

    pub(super) fn create(&self, name: &str, limits: &Limits) -> io::Result<Group> {
        let mut group = Group::default();
        let filled = self.fill(&mut group, name, limits);
        if filled.is_err() {
            group.remove();
        }
        filled.map(|()| group)
    }

    fn fill(&self, group: &mut Group, name: &str, limits: &Limits) -> io::Result<()> {
        if let Some(directory) = make(group, self.memory.as_deref(), name)? {
            let bytes = limits.memory_bytes.to_string();
            fs::write(directory.join("memory.limit_in_bytes"), &bytes)?;
            // Only there when swap is counted; without it swap lies outside the limit.
            let _ = fs::write(directory.join("memory.memsw.limit_in_bytes"), &bytes);
            group.memory_file = Some(directory.join("memory.oom_control"));
        }
        if let Some(directory) = make(group, self.processes.as_deref(), name)? {
            fs::write(directory.join("pids.max"), limits.processes.saturating_add(OWN_PROCESSES).to_string())?;
            group.processes_file = Some(directory.join("pids.events"));
        }
        if let Some(directory) = make(group, self.cpu.as_deref(), name)? {
            fs::write(directory.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
            let quota_us = limits.cpu_millicores.saturating_mul(PERIOD_US / 1000).max(1_000);
            fs::write(directory.join("cpu.cfs_quota_us"), quota_us.to_string())?;
        }
        Ok(())
    }
}

fn make(group: &mut Group, parent: Option<&Path>, name: &str) -> io::Result<Option<PathBuf>> {
    let Some(parent) = parent else { return Ok(None) };
    let directory = parent.join(name);
    fs::create_dir(&directory)?;
    group.directories.push(directory.clone());
    Ok(Some(directory))
}
