//! Builds the small root of a sandbox and moves into it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use codegen_types::Limits;
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags};

use super::etc;
use super::setup::Step;
use super::trees::{Shown, Source, Trees};
use crate::backend::PROXY_CERTIFICATES;
use crate::kernel;
use crate::protocol::OpenFailure;

/// Where the new root is mounted for a moment; whatever lies there was copied before.
const STAGES: [&str; 3] = ["/tmp", "/mnt", "/run"];
const NO_SET_UID_NO_DEVICES: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | NO_SET_UID_NO_DEVICES;
/// A device node that is shown must stay one.
const DEVICE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

/// Mounts everything below a new root, enters it and leaves the host's behind.
pub(super) fn build(trees: Trees, limits: &Limits, certificates: Option<&[u8]>) -> Result<(), OpenFailure> {
    let stage = STAGES.iter().find(|path| Path::new(path).is_dir()).ok_or("no directory to mount on");
    let stage = *stage.step("find a mount point")?;
    mount_tmpfs(stage, "size=4m,nr_inodes=4096,mode=755", true).step("mount a tmpfs as root")?;
    rustix::process::chdir(stage).step("enter the new root")?;
    for shown in trees.system.iter().chain(&trees.configuration) {
        place(shown, READ_ONLY)?;
    }
    etc::write(Path::new("etc")).step("write /etc")?;
    if let Some(certificates) = certificates {
        fs::write(inside(Path::new(PROXY_CERTIFICATES)), certificates).step("write the certificates of the proxy")?;
    }
    build_dev(&trees.devices, limits)?;
    mount_at(&trees.workspace, "workspace", NO_SET_UID_NO_DEVICES).step("mount the workspace")?;
    fs::create_dir_all("tmp").step("make /tmp")?;
    mount_tmpfs("tmp", &scratch(limits), false).step("mount /tmp")?;
    fs::create_dir_all("var").step("make /var")?;
    symlink("/tmp", "var/tmp").step("make /var/tmp")?;
    mount_proc()?;
    enter()
}

fn scratch(limits: &Limits) -> String {
    format!("size={},nr_inodes=65536,mode=1777", limits.scratch_bytes)
}

fn mount_tmpfs(target: &str, options: &str, root: bool) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let flags = if root { flags | MountFlags::NOEXEC } else { flags };
    let options = crate::protocol::c_string(options.to_owned())?;
    Ok(rustix::mount::mount("tmpfs", target, "tmpfs", flags, Some(options.as_c_str()))?)
}

fn mount_proc() -> Result<(), OpenFailure> {
    fs::create_dir_all("proc").step("make /proc")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "proc", "proc", flags, None).map_err(|error| OpenFailure {
        remedy: Some("in a container, unmask /proc: `--security-opt systempaths=unconfined`".into()),
        ..OpenFailure::at("mount a private /proc", error)
    })
}

fn build_dev(devices: &[Shown], limits: &Limits) -> Result<(), OpenFailure> {
    for device in devices {
        place(device, DEVICE)?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        symlink(target, Path::new("dev").join(name)).step("make links in /dev")?;
    }
    fs::create_dir_all("dev/shm").step("make /dev/shm")?;
    mount_tmpfs("dev/shm", &scratch(limits), false).step("mount /dev/shm")
}

/// Puts one thing of the host under its path in the new root, which is the working directory.
fn place(shown: &Shown, attributes: u64) -> Result<(), OpenFailure> {
    let target = inside(&shown.target);
    let step = format!("show {}", shown.target.display());
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).step(&step)?;
    }
    match &shown.what {
        Source::Link(to) => symlink(to, &target).step(&step),
        Source::Directory(mount) => {
            fs::create_dir_all(&target).step(&step)?;
            attach(mount, &target, attributes).step(&step)
        }
        Source::File(mount) => {
            fs::File::create(&target).step(&step)?;
            attach(mount, &target, attributes).step(&step)
        }
    }
}

fn mount_at(mount: &OwnedFd, target: &str, attributes: u64) -> io::Result<()> {
    fs::create_dir_all(target)?;
    attach(mount, Path::new(target), attributes)
}

fn attach(mount: &OwnedFd, target: &Path, attributes: u64) -> io::Result<()> {
    kernel::mount_set_attributes(mount, attributes, true)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount.as_fd(), "", CWD, target, flags)?)
}

fn inside(absolute: &Path) -> PathBuf {
    absolute.strip_prefix("/").unwrap_or(absolute).to_owned()
}

/// Makes the working directory the root, lets go of the host's, and seals it.
fn enter() -> Result<(), OpenFailure> {
    fs::set_permissions(".", fs::Permissions::from_mode(0o755)).step("seal the root")?;
    rustix::process::pivot_root(".", ".").step("pivot_root")?;
    // The host's root now lies on top of ours.
    rustix::mount::unmount(".", UnmountFlags::DETACH).step("leave the host's root")?;
    rustix::process::chdir("/").step("enter the root")?;
    let root = rustix::fs::open("/", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, 0.into())
        .step("open the root")?;
    kernel::mount_set_attributes(root, libc::MOUNT_ATTR_RDONLY, false).step("make the root read-only")
}
