//! Control groups: one for every sandbox, where the host lets us make them.
//!
//! Version 1 is used where its hierarchies are writable below our own group, version 2 where the controllers are
//! delegated to us. What neither gives is bound by rlimits and sampling.

mod counter;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use codegen_types::Limits;

pub(crate) use counter::{Counters, Counts};

/// What bounds one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// A control group of this kind.
    Group(&'static str),
    /// No control group.
    No,
}

/// What bounds each resource of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Means {
    pub(crate) memory: Bound,
    pub(crate) processes: Bound,
    pub(crate) cpu: Bound,
}

impl Means {
    const NONE: Self = Self { memory: Bound::No, processes: Bound::No, cpu: Bound::No };
}

/// The groups of one launcher, below which every sandbox gets its own.
#[derive(Debug)]
pub(crate) struct Groups {
    version: Version,
    next: u64,
}

#[derive(Debug)]
enum Version {
    None,
    One(v1::Hierarchies),
    Two(v2::Hierarchy),
}

/// The group of one sandbox, in every hierarchy that is used, with the files in which the kernel counts.
#[derive(Debug, Default)]
pub(crate) struct Group {
    directories: Vec<PathBuf>,
    memory_file: Option<PathBuf>,
    processes_file: Option<PathBuf>,
}

impl Groups {
    /// Finds what the host gives, after removing what dead launchers left behind.
    pub(crate) fn find() -> Self {
        let name = own_name();
        let version = if let Some(hierarchy) = v2::Hierarchy::find(&name) {
            Version::Two(hierarchy)
        } else if let Some(hierarchies) = v1::Hierarchies::find(&name) {
            Version::One(hierarchies)
        } else {
            Version::None
        };
        Self { version, next: 0 }
    }

    /// What sandboxes get from it.
    pub(crate) fn means(&self) -> Means {
        match &self.version {
            Version::None => Means::NONE,
            Version::One(hierarchies) => hierarchies.means(),
            Version::Two(hierarchy) => hierarchy.means(),
        }
    }

    /// Makes the group of one sandbox.
    pub(crate) fn create(&mut self, limits: &Limits) -> io::Result<Group> {
        self.next += 1;
        let name = self.next.to_string();
        match &self.version {
            Version::None => Ok(Group::default()),
            Version::One(hierarchies) => hierarchies.create(&name, limits),
            Version::Two(hierarchy) => hierarchy.create(&name, limits),
        }
    }

    /// Removes our own groups, which must be empty by now.
    pub(crate) fn remove(&self) {
        let directories: Vec<&Path> = match &self.version {
            Version::None => Vec::new(),
            Version::One(hierarchies) => hierarchies.directories(),
            Version::Two(hierarchy) => vec![hierarchy.directory()],
        };
        for directory in directories {
            // A group that is still in use is removed at the next start.
            let _ = fs::remove_dir(directory);
        }
    }
}

impl Group {
    /// Moves a process, and so its future children, into the group.
    pub(crate) fn place(&self, pid: i32) -> io::Result<()> {
        self.directories.iter().try_for_each(|directory| fs::write(directory.join("cgroup.procs"), pid.to_string()))
    }

    /// Opens what the kernel counts.
    pub(crate) fn counters(&self) -> Counters {
        let open = |path: &Option<PathBuf>| fs::File::open(path.as_ref()?).ok().map(Into::into);
        Counters::new(open(&self.memory_file), open(&self.processes_file))
    }

    /// Removes the group; false when a process that is still ending keeps it for a moment.
    pub(crate) fn remove(&self) -> bool {
        self.directories.iter().fold(true, |gone, directory| {
            let removed = match fs::remove_dir(directory) {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
            gone && removed
        })
    }
}

const PREFIX: &str = "codegen-mcp.";

/// Names this launcher for as long as the machine runs: its process id and the time it was started.
fn own_name() -> String {
    let pid = std::process::id();
    format!("{PREFIX}{pid}.{}", start_time(pid).unwrap_or_default())
}

/// When a living process was started, in ticks since boot; one that only waits to be reaped is dead.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the state is the first and the start time the 20th field after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    match fields.first() {
        Some(&("Z" | "X")) | None => None,
        Some(_) => fields.get(19).map(|time| (*time).to_owned()),
    }
}

/// Makes our own group below the given one, after removing those of launchers that are gone.
fn make_own(parent: &Path, name: &str) -> io::Result<PathBuf> {
    remove_leftovers(parent);
    let directory = parent.join(name);
    match fs::create_dir(&directory) {
        Ok(()) => Ok(directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(directory),
        Err(error) => Err(error),
    }
}

fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if owner_lives(owner) {
            continue;
        }
        for sandbox in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            // The kernel refuses for files and for groups that are in use, which is right.
            let _ = fs::remove_dir(sandbox.path());
        }
        let _ = fs::remove_dir(entry.path());
    }
}

fn owner_lives(owner: &str) -> bool {
    let Some((pid, started)) = owner.split_once('.') else { return true };
    pid.parse().ok().and_then(start_time).is_some_and(|time| time == started)
}

/// Our own group in a hierarchy, from `/proc/self/cgroup` lines `ID:CONTROLLERS:PATH`; no controller means version 2.
fn own_path(cgroup: &str, controller: Option<&str>) -> Option<String> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = match controller {
            Some(controller) => controllers.split(',').any(|name| name == controller),
            None => id == "0" && controllers.is_empty(),
        };
        fits.then(|| path.to_owned())
    })
}

/// Where a hierarchy is mounted, from `/proc/self/mountinfo`: the mount point, and which group is seen there.
fn mount_of(mountinfo: &str, controller: Option<&str>) -> Option<(PathBuf, String)> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, mount_point) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, _, options) = (back.next()?, back.next()?, back.next()?);
        let fits = match controller {
            Some(controller) => kind == "cgroup" && options.split(',').any(|option| option == controller),
            None => kind == "cgroup2",
        };
        fits.then(|| (PathBuf::from(mount_point), root.to_owned()))
    })
}

/// The directory of our own group in a hierarchy.
fn own_directory(controller: Option<&str>) -> Option<PathBuf> {
    let path = own_path(&fs::read_to_string("/proc/self/cgroup").ok()?, controller)?;
    let (mount_point, root) = mount_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, controller)?;
    let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
    Some(mount_point.join(below.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CGROUP: &str = "4:memory:/a/b\n2:cpu,cpuacct:/\n0::/user.slice/x\n";
    const MOUNTS: &str = "30 25 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
                          33 25 0:29 /a /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n";

    #[test]
    fn the_own_group_is_found_in_every_version() {
        assert_eq!(own_path(CGROUP, Some("memory")).as_deref(), Some("/a/b"));
        assert_eq!(own_path(CGROUP, Some("cpu")).as_deref(), Some("/"));
        assert_eq!(own_path(CGROUP, Some("pids")), None);
        assert_eq!(own_path(CGROUP, None).as_deref(), Some("/user.slice/x"));
        assert_eq!(mount_of(MOUNTS, Some("memory")), Some(("/sys/fs/cgroup/memory".into(), "/a".into())));
        assert_eq!(mount_of(MOUNTS, None), Some(("/sys/fs/cgroup/unified".into(), "/".into())));
        assert_eq!(mount_of(MOUNTS, Some("pids")), None);
    }

    #[test]
    fn groups_of_dead_launchers_are_removed_and_those_of_living_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join("codegen-mcp.999999999.1");
        fs::create_dir_all(dead.join("7")).unwrap();
        let own = make_own(parent.path(), &own_name()).unwrap();
        remove_leftovers(parent.path());
        assert!(!dead.exists());
        assert!(own.exists());
    }
}
