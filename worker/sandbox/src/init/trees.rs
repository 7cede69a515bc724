//! Copies of the host's mounts that a sandbox is made of, taken before the host's root is left.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use codegen_types::isolation::SYSTEM_TREES;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::OpenTreeFlags;

use super::setup::Step;
use crate::protocol::OpenFailure;

const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Places of a sandbox that no further tree may cover.
const RESERVED: [&str; 8] = ["/proc", "/sys", "/dev", "/tmp", "/run", "/etc", "/workspace", "/var/tmp"];

/// Configuration of the host that programs need and that tells nothing about it.
const CONFIGURATION: [&str; 25] = [
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "perl",
    "pki/tls/certs",
    "protocols",
    "python3",
    "python3.11",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];

/// What names the users and hosts of the host, which a sandbox with a root of its own has its own files for.
const NAMES: [&str; 6] = ["group", "host.conf", "hostname", "hosts", "nsswitch.conf", "passwd"];

/// One thing to show.
pub(super) struct Shown {
    /// Its absolute path inside.
    pub(super) target: PathBuf,
    pub(super) what: Source,
}

/// What is shown.
pub(super) enum Source {
    /// A detached copy of a directory's mount.
    Directory(OwnedFd),
    /// A detached copy of a file's mount.
    File(OwnedFd),
    /// A symbolic link to be made again.
    Link(PathBuf),
}

/// All that a root is built of.
pub(super) struct Trees {
    pub(super) workspace: OwnedFd,
    /// Read-only trees and links: the system's own, and those that the worker named.
    pub(super) system: Vec<Shown>,
    pub(super) configuration: Vec<Shown>,
    pub(super) devices: Vec<Shown>,
}

impl Trees {
    /// Copies the mounts; the process must be in its new mount namespace and still be able to pass the directories.
    pub(super) fn clone_from_host(workspace: OwnedFd, further: &[PathBuf]) -> Result<Self, OpenFailure> {
        let workspace_path = path_of(&workspace)?;
        let workspace = clone_workspace(&workspace, &workspace_path)?;
        let mut system = Vec::new();
        for path in SYSTEM_TREES {
            system.extend(show(Path::new(path))?);
        }
        for path in further_trees(further, &workspace_path)? {
            system.extend(show(&path)?);
        }
        let mut configuration = Vec::new();
        for name in CONFIGURATION {
            configuration.extend(show(&Path::new("/etc").join(name))?);
        }
        let mut devices = Vec::new();
        for name in DEVICES {
            devices.extend(show(&Path::new("/dev").join(name))?);
        }
        Ok(Self { workspace, system, configuration, devices })
    }

    /// The directories that programs may read and run files from.
    pub(super) fn system_targets(&self) -> Vec<PathBuf> {
        self.system.iter().filter(|shown| !matches!(shown.what, Source::Link(_))).map(|s| s.target.clone()).collect()
    }
}

/// What of the host's root a sandbox on it may read: the system's own trees, those that the worker named, and plain
/// configuration.
pub(super) fn readable_on_host(further: &[PathBuf], workspace: &Path) -> Result<Vec<PathBuf>, OpenFailure> {
    let system = SYSTEM_TREES.iter().map(PathBuf::from);
    let further = further_trees(further, workspace)?;
    let configuration = CONFIGURATION.iter().chain(&NAMES).map(|name| Path::new("/etc").join(name));
    Ok(system.chain(further).chain(configuration).filter(|path| path.exists()).collect())
}

/// Opens a directory by its path, which must lead to the one that is given.
pub(super) fn reach(directory: &OwnedFd, path: &Path) -> Result<(), OpenFailure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| OpenFailure {
        remedy: Some(format!("let everybody pass (`chmod o+x`) each directory above {}", path.display())),
        ..OpenFailure::at("reach the session's directories under its user id", errno)
    })?;
    let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    if identity(&found).step("stat a directory")? != identity(directory).step("stat a directory")? {
        return Err(OpenFailure::at("check the session's directories", "another directory is at its path"));
    }
    Ok(())
}

/// The path under which this mount namespace knows a directory.
pub(crate) fn path_of(directory: &OwnedFd) -> Result<PathBuf, OpenFailure> {
    fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).step("find the workspace")
}

/// A copy of the workspace's mount. The descriptor belongs to the host's mount namespace, which the kernel refuses to
/// copy from, so the path is opened anew and must lead to the same directory.
fn clone_workspace(directory: &OwnedFd, path: &Path) -> Result<OwnedFd, OpenFailure> {
    let copy = clone_tree(path).step("copy the workspace's mount")?;
    let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino, stat.st_mode));
    let given = identity(directory).step("stat the workspace")?;
    if FileType::from_raw_mode(given.2) != FileType::Directory {
        return Err(OpenFailure::at("check the workspace", "it is not a directory"));
    }
    if identity(&copy).step("stat the workspace")? != given {
        return Err(OpenFailure::at("check the workspace", "another directory is at its path"));
    }
    Ok(copy)
}

fn clone_tree(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(CWD.as_fd(), path, flags)
}

/// Takes what is at a path of the host; nothing when nothing is there.
fn show(path: &Path) -> Result<Option<Shown>, OpenFailure> {
    let step = || format!("copy the mount of {}", path.display());
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(None) };
    let kind = metadata.file_type();
    let what = if kind.is_symlink() {
        match fs::read_link(path) {
            Ok(target) => Source::Link(target),
            Err(_) => return Ok(None),
        }
    } else if kind.is_dir() {
        Source::Directory(clone_tree(path).step(&step())?)
    } else if kind.is_char_device() || (kind.is_file() && metadata.mode() & 0o004 != 0) {
        Source::File(clone_tree(path).step(&step())?)
    } else {
        return Ok(None);
    };
    Ok(Some(Shown { target: path.to_owned(), what }))
}

/// The worker's trees, outermost first, without those that are shown already. Refuses a tree that would cover a part
/// of the sandbox, or that holds the workspace and so the workspaces of others; the system's own trees are no exception.
fn further_trees(paths: &[PathBuf], workspace: &Path) -> Result<Vec<PathBuf>, OpenFailure> {
    if SYSTEM_TREES.iter().any(|tree| workspace.starts_with(tree)) {
        let why = format!("{} lies in a tree that every session is shown", workspace.display());
        let remedy = Some("keep the state directory (CODEGEN_STATE_DIR) outside the system's directories".to_owned());
        return Err(OpenFailure { remedy, ..OpenFailure::at("check the workspace's place", why) });
    }
    let mut sorted: Vec<&PathBuf> = paths.iter().collect();
    sorted.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in sorted {
        if !may_be_shown(path) || workspace.starts_with(path) {
            return Err(OpenFailure::at("check system paths", format!("{} cannot be shown", path.display())));
        }
        let shown =
            SYSTEM_TREES.iter().any(|tree| path.starts_with(tree)) || kept.iter().any(|tree| path.starts_with(tree));
        if !shown {
            kept.push(path.clone());
        }
    }
    Ok(kept)
}

/// Whether a sandbox could show what is at a path of the host: it is absolute and plain, and covers no part of the sandbox
/// itself. A worker that names another path in a [`SandboxSpec`](crate::SandboxSpec) gets no sandbox.
pub fn may_be_shown(path: &Path) -> bool {
    let plain = path.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
    let reserved = RESERVED.iter().any(|place| path.starts_with(place));
    path.is_absolute() && plain && !reserved && path.parent().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_would_show_too_much_is_refused() {
        let workspace = Path::new("/srv/user/state/workspaces/ses_1");
        for path in
            ["/", "/srv", "/srv/user/state/workspaces", "/proc", "/etc/ssh", "relative", "/opt/../data", "/tmp/x"]
        {
            assert!(further_trees(&[path.into()], workspace).is_err(), "{path}");
        }
        for place in ["/usr/src/app/.local/state/workspaces/ses_1", "/lib/ses_1"] {
            let refused = further_trees(&[], Path::new(place)).unwrap_err();
            assert!(refused.remedy.is_some_and(|remedy| remedy.contains("CODEGEN_STATE_DIR")), "{place}");
        }
        let given = ["/opt/python", "/opt/python/lib", "/usr/local", "/data/python/3.11"].map(PathBuf::from);
        let kept = further_trees(&given, workspace).unwrap();
        assert_eq!(kept, ["/data/python/3.11", "/opt/python"].map(PathBuf::from));
    }
}
